//! The result of a replay: statistics of the log, and the load of each peer, now and after a change.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::{ReplayRequest, SimulatedLoad, Simulation};

/// Statistics of a log.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogStats {
    /// The number of lines, with those that could not be read.
    pub lines: u64,
    /// Requests to the upstream.
    pub requests: u64,
    /// Requests to other upstreams, and requests that were rejected before a peer was chosen.
    pub other_requests: u64,
    /// Lines that could not be read.
    malformed: u64,
    /// The number of the first such line, and the reason.
    first_malformed: Option<(u64, String)>,
    /// Requests that the replay assigns to the peer in the log.
    pub as_logged: u64,
    /// Requests that go to another peer after the change.
    pub moved: u64,
    /// The start of the first request and the end of the last one, in microseconds since 1970.
    span: Option<(u64, u64)>,
}

/// The result of a replay.
#[derive(Clone, Debug)]
pub(crate) struct ReplayOutcome<'a> {
    /// Statistics of the log.
    pub stats: LogStats,
    /// Requests that the reorder buffer could not sort; see [`ReorderBuffer::late`](super::ReorderBuffer).
    pub late: u64,
    /// Whether the hashes in the log do not determine owners, so that substitute keys were used.
    pub uses_substitute_keys: bool,
    /// Whether the log has the peer of each request.
    pub has_peers: bool,
    /// The loads without the change.
    pub now: SimulatedLoads<'a>,
    /// The loads after the change, if one was given.
    pub after: Option<SimulatedLoads<'a>>,
}

/// The simulated load of each peer.
#[derive(Clone, Debug)]
pub(crate) struct SimulatedLoads<'a> {
    /// The peers' labels.
    pub labels: &'a [&'a str],
    /// The load of each peer, in the same order.
    pub peers: Vec<SimulatedLoad>,
    /// Requests for which no peer was available.
    pub unserved: u64,
    /// Requests of hot keys, which were spread over several peers.
    pub spread: u64,
    /// Requests that waited for room at their assigned peer.
    pub waited: u64,
    /// The limits of the model and its assumptions, as sentences.
    pub notes: Vec<String>,
}

impl LogStats {
    pub(super) fn count_request(&mut self, request: ReplayRequest) {
        self.requests += 1;
        let (start, end) = self.span.unwrap_or((request.start, 0));
        self.span = Some((start.min(request.start), end.max(request.end())));
    }

    pub(super) fn count_malformed(&mut self, reason: String) {
        self.malformed += 1;
        self.first_malformed.get_or_insert((self.lines, reason));
    }

    /// A message about the lines that could not be read, if any.
    pub(crate) fn malformed_summary(&self) -> Option<String> {
        let (line, reason) = self.first_malformed.as_ref()?;
        let count = self.malformed;
        Some(format!(
            "lines that could not be read: {count}; the first is line {line}: {reason}"
        ))
    }
}

impl<'a> SimulatedLoads<'a> {
    pub(super) fn from_simulation(simulation: Simulation<'a>) -> Self {
        Self {
            labels: simulation.placement().labels(),
            unserved: simulation.unserved,
            spread: simulation.spread,
            waited: simulation.waited,
            notes: simulation.notes(),
            peers: simulation.loads(),
        }
    }

    fn to_json(&self, span: u64) -> Value {
        let total: u64 = self.peers.iter().map(|load| load.requests).sum();
        let peer = |(label, load): (&&str, &SimulatedLoad)| {
            json!({
                "label": label,
                "requests": load.requests,
                "share": ratio(load.requests, total),
                "peak_rate": load.peak_rate,
                "peak_in_flight": load.peak_in_flight,
                "mean_in_flight": ratio(load.busy, span),
                "bytes": load.bytes,
                "overflow": load.overflow,
            })
        };
        let peers: Vec<_> = self.labels.iter().zip(&self.peers).map(peer).collect();
        json!({
            "peers": peers,
            "unserved": self.unserved,
            "spread": self.spread,
            "waited": self.waited,
        })
    }
}

impl ReplayOutcome<'_> {
    /// The outcome as JSON, the same for the command line and the admin API.
    pub(crate) fn to_json(&self) -> Value {
        let (stats, span) = (&self.stats, self.span());
        let first_malformed = stats
            .first_malformed
            .as_ref()
            .map(|(line, reason)| json!({ "line": line, "why": reason }));
        json!({
            "lines": stats.lines,
            "requests": stats.requests,
            "others": stats.other_requests,
            "malformed": stats.malformed,
            "first_malformed": first_malformed,
            "late": self.late,
            "as_logged": (self.has_peers && !self.uses_substitute_keys).then_some(stats.as_logged),
            "stand_ins": self.uses_substitute_keys,
            "notes": self.notes(),
            "start": stats.span.map(|(start, _)| format_time(start)),
            "end": stats.span.map(|(_, end)| format_time(end)),
            "now": self.now.to_json(span),
            "after": self.after.as_ref().map(|loads| loads.to_json(span)),
            "moved": self.after.is_some().then_some(stats.moved),
        })
    }

    /// The limits of both models and their assumptions, as sentences.
    pub(crate) fn notes(&self) -> Vec<String> {
        let mut notes = self.now.notes.clone();
        let after = self.after.iter().flat_map(|loads| &loads.notes);
        notes.extend(after.filter(|note| !self.now.notes.contains(note)).cloned());
        notes
    }

    /// The dates of the start of the first request and the end of the last one.
    pub(crate) fn dates(&self) -> (String, String) {
        let (start, end) = self.stats.span.unwrap_or_default();
        (format_time(start), format_time(end))
    }

    /// The time between these two, in microseconds; at least 1.
    pub(crate) fn span(&self) -> u64 {
        let (start, end) = self.stats.span.unwrap_or_default();
        (end - start).max(1)
    }
}

/// Formats microseconds since 1970 as a date.
fn format_time(time: u64) -> String {
    let time = i64::try_from(time).ok();
    let time = time.and_then(|time| Timestamp::from_microsecond(time).ok());
    time.map_or_else(|| "?".to_owned(), |time| format!("{time:.3}"))
}

/// `part` divided by `whole`; a `whole` of 0 counts as 1.
#[expect(clippy::cast_precision_loss, reason = "shown with a few digits")]
pub(crate) fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}
