//! The traffic of a log, sent through the ring once more, now and after a change.
//!
//! The log is taken line by line. What is held in memory is one entry per request in flight, and a window of
//! requests that wait for those which started before them and ended later.

mod access_log_line;
mod key_log_line;
mod outcome;

use std::collections::HashMap;

use self::access_log_line::AccessLogLine;
use self::key_log_line::KeyLogLine;
pub use self::outcome::{LogStats, ReplayOutcome, SimulatedLoads, ratio};
use super::{ReorderBuffer, ReplayRequest, Simulation};
use crate::ring::{Hash, MemberId};

/// How the lines of a log are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayFormat {
    /// The access log of `clockwise run`: JSON.
    Clockwise,
    /// Of any proxy: start, key, and if known seconds and bytes, with tabs between.
    Keys,
}

impl ReplayFormat {
    /// What it is called in a question.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Clockwise => "clockwise",
            Self::Keys => "keys",
        }
    }

    /// The one that is called so.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Clockwise, Self::Keys]
            .into_iter()
            .find(|format| format.name() == name)
    }
}

/// How a log is read, and what is to be said about it.
#[derive(Clone, Copy, Debug)]
pub struct ReplayOptions {
    /// How its lines are written.
    pub format: ReplayFormat,
    /// Requests that are held back to put them in the order of their start; some 60 bytes each.
    pub reorder_capacity: usize,
    /// Peers that are new start slowly, which is not simulated.
    pub ignores_slow_start: bool,
}

/// A log that has no request of the upstream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoMatchingRequests(String);

/// A log on its way through the rings.
#[derive(Debug)]
pub struct LogReplay<'a> {
    upstream: &'a str,
    /// The members now, by label.
    members: HashMap<&'a str, MemberId>,
    now: Simulation<'a>,
    after: Option<Simulation<'a>>,
    reorder_buffer: ReorderBuffer<Option<MemberId>>,
    options: ReplayOptions,
    stats: LogStats,
}

impl<'a> LogReplay<'a> {
    /// Nothing read yet. `upstream` is the name that the requests have in the log.
    pub fn new(
        upstream: &'a str,
        now: Simulation<'a>,
        after: Option<Simulation<'a>>,
        manner: ReplayOptions,
    ) -> Self {
        let labels = now.placement().labels().iter().copied();
        Self {
            upstream,
            members: labels.zip((0..).map(MemberId)).collect(),
            now,
            after,
            reorder_buffer: ReorderBuffer::new(manner.reorder_capacity),
            options: manner,
            stats: LogStats::default(),
        }
    }

    /// The next line of the log, without its end.
    pub fn push_line(&mut self, line: &[u8]) {
        self.stats.lines += 1;
        match self.options.format {
            ReplayFormat::Clockwise => match AccessLogLine::parse(line) {
                Ok(logged) => self.add_access_log_line(&logged),
                Err(error) => self.stats.count_malformed(error.to_string()),
            },
            ReplayFormat::Keys => match KeyLogLine::parse(line) {
                Ok(timed) => self.add_key_log_line(&timed),
                Err(why) => self.stats.count_malformed(why.to_owned()),
            },
        }
    }

    fn add_access_log_line(&mut self, logged: &AccessLogLine<'_>) {
        // Who has neither a key nor a peer was refused.
        let refused = logged.key_hash.is_none() && logged.peer.is_none();
        if logged.upstream.as_deref() != Some(self.upstream) || refused {
            self.stats.other_requests += 1;
            return;
        }
        let hash = logged.key_hash.map(Hash);
        if hash.is_some_and(|hash| !self.now.placement().ring().is_possible_hash(hash)) {
            let why = "its `key_hash` is longer than the hashes of this ring's dialect";
            self.stats.count_malformed(why.to_owned());
            return;
        }
        let request = ReplayRequest {
            start: logged.start,
            duration: logged.duration,
            bytes: logged.bytes_sent,
            hash,
        };
        let peer = logged.peer.as_deref();
        let logged_on = peer.and_then(|label| self.members.get(label).copied());
        self.push(request, logged_on);
    }

    fn add_key_log_line(&mut self, timed: &KeyLogLine<'_>) {
        let ring = self.now.placement().ring();
        let hash = (!timed.key.is_empty()).then(|| ring.key(timed.key).hash());
        let request = ReplayRequest {
            start: timed.start,
            duration: timed.duration,
            bytes: timed.bytes,
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
        self.stats.count_request(request);
        let here = self.now.add(request);
        self.stats.as_logged += u64::from(here.is_some() && here == logged_on);
        if let Some(after) = &mut self.after {
            let there = after.add(request);
            let was = here.map(|member| self.now.placement().label(member));
            let is = there.map(|member| after.placement().label(member));
            self.stats.moved += u64::from(was != is);
        }
    }

    /// What came of it, after the last line.
    ///
    /// # Errors
    /// The log has no request of this upstream.
    pub fn finish(mut self) -> Result<ReplayOutcome<'a>, NoMatchingRequests> {
        while let Some((request, logged_on)) = self.reorder_buffer.pop() {
            self.simulate(request, logged_on);
        }
        if self.stats.requests == 0 {
            let why = self.stats.malformed_summary().unwrap_or_default();
            let message = format!("no line tells of a request to `{}`", self.upstream);
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
            ignores_slow_start: self.options.ignores_slow_start,
            stats: self.stats,
        })
    }
}
