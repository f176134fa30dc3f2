//! Replays the requests of a log on the ring, as it is and after a change.
//!
//! The log is read line by line. Memory holds one entry per request in flight and the reorder buffer.
//!
//! The code that serves chooses the peers, with two differences. During a slow start a replay computes the total weight
//! of the peers at each request; the proxy recounts it in 64 steps. A replay spreads all hot keys, at most 64; the proxy
//! divides the keys by hash into 16 sets, and spreads at most 4 hot keys of each set.

mod access_log_line;
mod key_log_line;
mod outcome;

use std::collections::HashMap;

use self::access_log_line::AccessLogLine;
use self::key_log_line::KeyLogLine;
pub(crate) use self::outcome::{LogStats, ReplayOutcome, SimulatedLoads, ratio};
use super::{PlacedRequest, ReorderBuffer, ReplayRequest, Simulation};
use crate::ring::{Hash, MemberId};

/// The format of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReplayFormat {
    /// The JSON access log of `clockwise run`.
    Clockwise,
    /// Any proxy's: start, key, and optionally seconds and bytes, separated by tabs.
    Keys,
}

impl ReplayFormat {
    /// The name on the command line and in the admin API.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Clockwise => "clockwise",
            Self::Keys => "keys",
        }
    }

    /// The format with this name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        [Self::Clockwise, Self::Keys]
            .into_iter()
            .find(|format| format.name() == name)
    }
}

/// Options of a replay.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReplayOptions {
    /// The format of the log.
    pub format: ReplayFormat,
    /// The capacity of the [`ReorderBuffer`], in requests of about 60 bytes each.
    pub reorder_capacity: usize,
}

/// The log has no request of the upstream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NoMatchingRequests(String);

/// A replay in progress.
#[derive(Debug)]
pub(crate) struct LogReplay<'a> {
    upstream: &'a str,
    /// The current members by label.
    members: HashMap<&'a str, MemberId>,
    now: Simulation<'a>,
    after: Option<Simulation<'a>>,
    reorder_buffer: ReorderBuffer<Option<MemberId>>,
    options: ReplayOptions,
    stats: LogStats,
    /// By their numbers in the simulations.
    pending: HashMap<u64, PendingRequest>,
}

/// A request that waits for room in one of the simulations.
#[derive(Debug)]
struct PendingRequest {
    logged_on: Option<MemberId>,
    now: Option<PlacedRequest>,
    after: Option<PlacedRequest>,
}

impl<'a> LogReplay<'a> {
    /// A replay before the first line. `upstream` is the upstream's name in the log.
    pub(crate) fn new(
        upstream: &'a str,
        now: Simulation<'a>,
        after: Option<Simulation<'a>>,
        options: ReplayOptions,
    ) -> Self {
        let labels = now.placement().labels().iter().copied();
        Self {
            upstream,
            members: labels.zip((0..).map(MemberId)).collect(),
            after: after.map(|after| after.with_slow_starts_after(now.placement())),
            now,
            reorder_buffer: ReorderBuffer::new(options.reorder_capacity),
            options,
            stats: LogStats::default(),
            pending: HashMap::new(),
        }
    }

    /// Processes the next line of the log, without its line end.
    pub(crate) fn push_line(&mut self, line: &[u8]) {
        self.stats.lines += 1;
        match self.options.format {
            ReplayFormat::Clockwise => match AccessLogLine::parse(line) {
                Ok(line) => self.add_access_log_line(&line),
                Err(error) => self.stats.count_malformed(error.to_string()),
            },
            ReplayFormat::Keys => match KeyLogLine::parse(line) {
                Ok(line) => self.add_key_log_line(&line),
                Err(reason) => self.stats.count_malformed(reason.to_owned()),
            },
        }
    }

    fn add_access_log_line(&mut self, line: &AccessLogLine<'_>) {
        // A request without key and peer was rejected before a peer was chosen.
        let refused = line.key_hash.is_none() && line.peer.is_none();
        if line.upstream.as_deref() != Some(self.upstream) || refused {
            self.stats.other_requests += 1;
            return;
        }
        let hash = line.key_hash.map(Hash);
        if hash.is_some_and(|hash| !self.now.placement().ring().is_possible_hash(hash)) {
            let reason = "`key_hash` is longer than the hashes of this ring's dialect";
            self.stats.count_malformed(reason.to_owned());
            return;
        }
        let request = ReplayRequest {
            start: line.start,
            duration: line.duration,
            bytes: line.bytes_sent,
            hash,
        };
        let peer = line.peer.as_deref();
        let logged_on = peer.and_then(|label| self.members.get(label).copied());
        self.push(request, logged_on);
    }

    fn add_key_log_line(&mut self, line: &KeyLogLine<'_>) {
        let ring = self.now.placement().ring();
        let hash = (!line.key.is_empty()).then(|| ring.key(line.key).hash());
        let request = ReplayRequest {
            start: line.start,
            duration: line.duration,
            bytes: line.bytes,
            hash,
        };
        self.push(request, None);
    }

    fn push(&mut self, request: ReplayRequest, logged_on: Option<MemberId>) {
        if let Some((request, logged_on)) = self.reorder_buffer.push(request, logged_on) {
            self.simulate(request, logged_on);
        }
    }

    fn simulate(&mut self, request: ReplayRequest, logged_on: Option<MemberId>) {
        let pending = PendingRequest {
            logged_on,
            now: None,
            after: None,
        };
        self.pending.insert(self.stats.requests, pending);
        self.stats.count_request(request);
        self.now.add(request);
        if let Some(after) = &mut self.after {
            after.add(request);
        }
        self.count_placed();
    }

    /// Counts the requests that have a peer in both simulations by now.
    fn count_placed(&mut self) {
        let placed_after = self.after.as_mut().map(Simulation::take_placed);
        for placed in placed_after.unwrap_or_default() {
            self.count_placement(placed.number, |pending| pending.after = Some(placed));
        }
        for placed in self.now.take_placed() {
            self.count_placement(placed.number, |pending| pending.now = Some(placed));
        }
    }

    /// Notes one placement of a request; counts the request when that was the last one missing.
    fn count_placement(&mut self, number: u64, note: impl FnOnce(&mut PendingRequest)) {
        let Some(pending) = self.pending.get_mut(&number) else {
            return;
        };
        note(pending);
        let (Some(now), logged_on) = (pending.now, pending.logged_on) else {
            return;
        };
        if let Some(after) = &self.after {
            let Some(there) = pending.after else { return };
            let was = now.peer.map(|peer| self.now.placement().label(peer));
            let is = there.peer.map(|peer| after.placement().label(peer));
            self.stats.moved += u64::from(was != is);
        }
        self.pending.remove(&number);
        self.stats.as_logged += u64::from(now.peer.is_some() && now.peer == logged_on);
    }

    /// The outcome, after the last line.
    ///
    /// # Errors
    /// The log has no request of this upstream.
    pub(crate) fn finish(mut self) -> Result<ReplayOutcome<'a>, NoMatchingRequests> {
        while let Some((request, logged_on)) = self.reorder_buffer.pop() {
            self.simulate(request, logged_on);
        }
        self.now.finish();
        if let Some(after) = &mut self.after {
            after.finish();
        }
        self.count_placed();
        if self.stats.requests == 0 {
            let why = self.stats.malformed_summary().unwrap_or_default();
            let message = format!("the log has no request to upstream `{}`", self.upstream);
            return Err(NoMatchingRequests([message, why].join("\n")));
        }
        Ok(ReplayOutcome {
            late: self.reorder_buffer.late,
            uses_substitute_keys: !self
                .now
                .placement()
                .ring()
                .dialect()
                .hash_determines_owner(),
            now: SimulatedLoads::from_simulation(self.now),
            after: self.after.map(SimulatedLoads::from_simulation),
            has_peers: self.options.format == ReplayFormat::Clockwise,
            stats: self.stats,
        })
    }
}
