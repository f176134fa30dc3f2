//! The traffic of a log, sent through the ring once more, now and after a change.
//!
//! The log is taken line by line. What is held in memory is one entry per request in flight, and a window of
//! requests that wait for those which started before them and ended later.

mod logged;
mod outcome;
mod timed;

use std::collections::HashMap;

use self::logged::Logged;
pub use self::outcome::{Loads, Outcome, Seen, ratio};
use self::timed::Timed;
use super::{Request, Simulation, Window};
use crate::ring::{Hash, MemberId};

/// How the lines of a log are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The access log of `clockwise run`: JSON.
    Clockwise,
    /// Of any proxy: start, key, and if known seconds and bytes, with tabs between.
    Keys,
}

impl Format {
    /// What it is called in a question.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Clockwise => "clockwise",
            Self::Keys => "keys",
        }
    }

    /// The one that is called so.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Clockwise, Self::Keys]
            .into_iter()
            .find(|format| format.name() == name)
    }
}

/// How a log is read, and what is to be said about it.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// How its lines are written.
    pub format: Format,
    /// Requests that are held back to put them in the order of their start; some 60 bytes each.
    pub window: usize,
    /// Peers that are new start slowly, which is not simulated.
    pub starts_slowly: bool,
}

/// A log that has no request of the upstream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Silent(String);

/// A log on its way through the rings.
#[derive(Debug)]
pub struct Replay<'a> {
    upstream: &'a str,
    /// The members now, by label.
    members: HashMap<&'a str, MemberId>,
    now: Simulation<'a>,
    after: Option<Simulation<'a>>,
    window: Window<Option<MemberId>>,
    manner: Manner,
    seen: Seen,
}

impl<'a> Replay<'a> {
    /// Nothing read yet. `upstream` is the name that the requests have in the log.
    pub fn new(
        upstream: &'a str,
        now: Simulation<'a>,
        after: Option<Simulation<'a>>,
        manner: Manner,
    ) -> Self {
        let labels = now.placement().labels().iter().copied();
        Self {
            upstream,
            members: labels.zip((0..).map(MemberId)).collect(),
            now,
            after,
            window: Window::new(manner.window),
            manner,
            seen: Seen::default(),
        }
    }

    /// The next line of the log, without its end.
    pub fn line(&mut self, line: &[u8]) {
        self.seen.lines += 1;
        match self.manner.format {
            Format::Clockwise => match Logged::parse(line) {
                Ok(logged) => self.add(&logged),
                Err(error) => self.seen.malformed(error.to_string()),
            },
            Format::Keys => match Timed::parse(line) {
                Ok(timed) => self.add_timed(&timed),
                Err(why) => self.seen.malformed(why.to_owned()),
            },
        }
    }

    fn add(&mut self, logged: &Logged<'_>) {
        // Who has neither a key nor a peer was refused.
        let refused = logged.key_hash.is_none() && logged.peer.is_none();
        if logged.upstream.as_deref() != Some(self.upstream) || refused {
            self.seen.others += 1;
            return;
        }
        let hash = logged.key_hash.map(Hash);
        if hash.is_some_and(|hash| !self.now.placement().ring().can_give(hash)) {
            let why = "its `key_hash` is longer than the hashes of this ring's dialect";
            self.seen.malformed(why.to_owned());
            return;
        }
        let request = Request {
            start: logged.start,
            duration: logged.duration,
            bytes: logged.sent,
            hash,
        };
        let peer = logged.peer.as_deref();
        let logged_on = peer.and_then(|label| self.members.get(label).copied());
        self.push(request, logged_on);
    }

    fn add_timed(&mut self, timed: &Timed<'_>) {
        let ring = self.now.placement().ring();
        let hash = (!timed.key.is_empty()).then(|| ring.key(timed.key).hash());
        let request = Request {
            start: timed.start,
            duration: timed.duration,
            bytes: timed.bytes,
            hash,
        };
        self.push(request, None);
    }

    fn push(&mut self, request: Request, logged_on: Option<MemberId>) {
        if let Some((request, logged_on)) = self.window.push(request, logged_on) {
            self.send(request, logged_on);
        }
    }

    fn send(&mut self, request: Request, logged_on: Option<MemberId>) {
        self.seen.count(request);
        let here = self.now.add(request);
        self.seen.as_logged += u64::from(here.is_some() && here == logged_on);
        if let Some(after) = &mut self.after {
            let there = after.add(request);
            let was = here.map(|member| self.now.placement().label(member));
            let is = there.map(|member| after.placement().label(member));
            self.seen.moved += u64::from(was != is);
        }
    }

    /// What came of it, after the last line.
    ///
    /// # Errors
    /// The log has no request of this upstream.
    pub fn end(mut self) -> Result<Outcome<'a>, Silent> {
        while let Some((request, logged_on)) = self.window.pop() {
            self.send(request, logged_on);
        }
        if self.seen.requests == 0 {
            let why = self.seen.complaint().unwrap_or_default();
            let message = format!("no line tells of a request to `{}`", self.upstream);
            return Err(Silent([message, why].join("\n")));
        }
        Ok(Outcome {
            late: self.window.late,
            stand_ins: !self.now.placement().ring().dialect().tells_by_hash(),
            now: Loads::of(self.now),
            after: self.after.map(Loads::of),
            has_peers: self.manner.format == Format::Clockwise,
            starts_slowly: self.manner.starts_slowly,
            seen: self.seen,
        })
    }
}
