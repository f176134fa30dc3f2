//! What the traffic of a log does to the peers, now and after a change.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::{ReplayRequest, SimulatedLoad, Simulation};

/// What the log was, apart from the requests in it.
#[derive(Clone, Debug, Default)]
pub struct LogStats {
    /// Its lines.
    pub lines: u64,
    /// Its requests to the upstream.
    pub requests: u64,
    /// Requests to other upstreams, and those that were refused.
    pub other_requests: u64,
    /// Lines that could not be read; of the first one, its number and why.
    malformed: u64,
    first_malformed: Option<(u64, String)>,
    /// Requests that the log has on the peer that they have here.
    pub as_logged: u64,
    /// Requests that are on another peer after the change.
    pub moved: u64,
    /// The first start and the last end, in microseconds since 1970.
    span: Option<(u64, u64)>,
}

/// What the traffic does to the peers.
#[derive(Clone, Debug)]
pub struct ReplayOutcome<'a> {
    /// What the log was.
    pub stats: LogStats,
    /// Requests that were too long to be put in order.
    pub late: u64,
    /// The log does not tell the keys; others stood for them.
    pub uses_substitute_keys: bool,
    /// The log says where each request went.
    pub has_peers: bool,
    /// Slow starts are configured, and taken as over.
    pub ignores_slow_start: bool,
    /// As things are.
    pub now: SimulatedLoads<'a>,
    /// After the change; `None`: there is none.
    pub after: Option<SimulatedLoads<'a>>,
}

/// What came to each peer.
#[derive(Clone, Debug)]
pub struct SimulatedLoads<'a> {
    /// The peers' labels.
    pub labels: &'a [&'a str],
    /// In the same order.
    pub peers: Vec<SimulatedLoad>,
    /// Requests that nobody could take.
    pub unserved: u64,
    /// Requests of hot keys.
    pub spread: u64,
}

impl LogStats {
    pub(super) fn count_request(&mut self, request: ReplayRequest) {
        self.requests += 1;
        let (start, end) = self.span.unwrap_or((request.start, 0));
        self.span = Some((start.min(request.start), end.max(request.end())));
    }

    pub(super) fn count_malformed(&mut self, why: String) {
        self.malformed += 1;
        self.first_malformed.get_or_insert((self.lines, why));
    }

    /// What could not be read.
    pub fn malformed_summary(&self) -> Option<String> {
        let (line, why) = self.first_malformed.as_ref()?;
        let count = self.malformed;
        Some(format!(
            "lines that could not be read: {count}; the first is line {line}: {why}"
        ))
    }
}

impl<'a> SimulatedLoads<'a> {
    pub(super) fn from_simulation(simulation: Simulation<'a>) -> Self {
        Self {
            labels: simulation.placement().labels(),
            unserved: simulation.unserved,
            spread: simulation.spread,
            peers: simulation.loads(),
        }
    }

    fn to_json(&self, span: u64) -> Value {
        let all: u64 = self.peers.iter().map(|load| load.requests).sum();
        let peer = |(label, load): (&&str, &SimulatedLoad)| {
            json!({
                "label": label,
                "requests": load.requests,
                "share": ratio(load.requests, all),
                "peak_rate": load.peak_rate,
                "peak_in_flight": load.peak_in_flight,
                "mean_in_flight": ratio(load.busy, span),
                "bytes": load.bytes,
                "overflow": load.overflow,
            })
        };
        let peers: Vec<_> = self.labels.iter().zip(&self.peers).map(peer).collect();
        json!({ "peers": peers, "unserved": self.unserved, "spread": self.spread })
    }
}

impl ReplayOutcome<'_> {
    /// As JSON: the same from the command line and from the admin API.
    pub fn to_json(&self) -> Value {
        let (seen, span) = (&self.stats, self.span());
        let malformed = seen
            .first_malformed
            .as_ref()
            .map(|(line, why)| json!({ "line": line, "why": why }));
        json!({
            "lines": seen.lines,
            "requests": seen.requests,
            "others": seen.other_requests,
            "malformed": seen.malformed,
            "first_malformed": malformed,
            "late": self.late,
            "as_logged": (self.has_peers && !self.uses_substitute_keys).then_some(seen.as_logged),
            "stand_ins": self.uses_substitute_keys,
            "slow_starts_over": self.ignores_slow_start,
            "start": seen.span.map(|(start, _)| format_time(start)),
            "end": seen.span.map(|(_, end)| format_time(end)),
            "now": self.now.to_json(span),
            "after": self.after.as_ref().map(|loads| loads.to_json(span)),
            "moved": self.after.is_some().then_some(seen.moved),
        })
    }

    /// From the first start to the last end, as dates.
    pub fn dates(&self) -> (String, String) {
        let (start, end) = self.stats.span.unwrap_or_default();
        (format_time(start), format_time(end))
    }

    /// From the first start to the last end, in microseconds; at least one.
    pub fn span(&self) -> u64 {
        let (start, end) = self.stats.span.unwrap_or_default();
        (end - start).max(1)
    }
}

/// Microseconds since 1970 as a date.
fn format_time(time: u64) -> String {
    let time = i64::try_from(time).ok();
    let time = time.and_then(|time| Timestamp::from_microsecond(time).ok());
    time.map_or_else(|| "?".to_owned(), |time| format!("{time:.3}"))
}

/// A part of a whole, 0 … 1.
#[expect(clippy::cast_precision_loss, reason = "shown with a few digits")]
pub fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}
