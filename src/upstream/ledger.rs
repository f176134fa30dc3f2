//! What is written down about one peer, and what follows from it: whether it is on the ring, and how
//! it leaves it and comes back.
//!
//! A peer is *well* when its probes pass, real traffic reaches it and no operator took it out. Two
//! things follow when that changes, and they are decided here and nowhere else: leaving raises
//! the penalty for flapping, unless an operator did it, and coming back begins a slow start.

use std::time::Duration;

use super::memory::{FlapMemory, PeerMemory, RampMemory};
use super::peer::ProbeReport;
use crate::policy::ejection::{Ejection, Rules};
use crate::policy::flap::{self, Flap};
use crate::policy::health::{Health, Outcome, State, Thresholds};
use crate::policy::ramp::Ramp;

pub(super) const UP: u8 = 1;
pub(super) const UNKNOWN: u8 = 2;
pub(super) const DRAINING: u8 = 4;
/// Ejected or suppressed, until a time.
pub(super) const OFF: u8 = 8;
pub(super) const SUSPECT: u8 = 16;
pub(super) const RAMPING: u8 = 32;

/// How a peer leaves the ring and comes back to it, as configured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Manners {
    /// How long it takes until it has all its keys again; `None`: no time.
    pub(super) slow_start: Option<Duration>,
    /// How coming and going is damped; `None`: it is not.
    pub(super) flap: Option<flap::Rules>,
}

#[derive(Clone, Debug)]
pub(super) struct Ledger {
    pub(super) health: Health,
    ejection: Ejection,
    /// Until when it is ejected; zero: it is not.
    pub(super) ejected_until: Duration,
    /// Probes passed in a row since the ejection.
    passed: u32,
    /// Some connect failed since the last that did not: the next success must look here.
    suspect: bool,
    /// Since when an operator has it out.
    pub(super) draining: Option<Duration>,
    pub(super) flap: Flap,
    pub(super) ramp: Option<Ramp>,
    /// Whether it begins slowly when it is well next.
    begins_slowly: bool,
    pub(super) last_probe: Option<ProbeReport>,
}

impl Ledger {
    /// Nothing is known; `up` where no probe will ever say. `slowly`: it begins with a slow start.
    pub(super) fn new(up: bool, slowly: bool, now: Duration, manners: &Manners) -> Self {
        let mut ledger = Self {
            health: Health::default(),
            ejection: Ejection::default(),
            ejected_until: Duration::ZERO,
            passed: 0,
            suspect: false,
            draining: None,
            flap: Flap::default(),
            ramp: None,
            begins_slowly: slowly,
            last_probe: None,
        };
        if up {
            ledger.change(now, manners, |ledger| ledger.health = known(true));
        }
        ledger
    }

    /// The same server, of which no probe has said anything yet; `up` where none ever will. What
    /// operators and real traffic have said of it stands, and it does not begin anew.
    pub(super) fn judged_anew(&self, up: bool) -> Self {
        Self {
            health: if up { known(true) } else { Health::default() },
            passed: 0,
            begins_slowly: self.health.state() == State::Down,
            last_probe: None,
            ..self.clone()
        }
    }

    /// Makes a change, and draws the conclusions.
    pub(super) fn change<R>(
        &mut self,
        now: Duration,
        manners: &Manners,
        write: impl FnOnce(&mut Self) -> R,
    ) -> R {
        let before = self.is_well(now);
        let result = write(self);
        match (before, self.is_well(now)) {
            (true, false) => self.leave(now, manners),
            (false, true) => self.come_back(now, manners),
            _ => {}
        }
        result
    }

    /// Until when it is off the ring, ejected or suppressed.
    pub(super) fn off_until(&self) -> Duration {
        self.ejected_until.max(self.flap.until())
    }

    pub(super) fn on_probe(
        &mut self,
        report: ProbeReport,
        thresholds: Thresholds,
    ) -> Option<State> {
        let outcome = if report.failure.is_none() {
            Outcome::Passed
        } else {
            Outcome::Failed
        };
        let (health, flipped) = self.health.on(outcome, thresholds);
        self.health = health;
        let ejected = self.ejected_until > report.at;
        self.passed = if ejected && outcome == Outcome::Passed {
            self.passed + 1
        } else {
            0
        };
        if ejected && self.passed >= thresholds.rise {
            self.pardon(report.at);
        }
        self.last_probe = Some(report);
        flipped.then(|| health.state())
    }

    /// The time until which that ejects it, if it does.
    pub(super) fn on_connect_failure(&mut self, rules: &Rules, now: Duration) -> Option<Duration> {
        let (ejection, until) = self.ejection.on_failure(now, rules);
        self.ejection = ejection;
        self.suspect = true;
        if let Some(until) = until {
            self.ejected_until = until;
            self.passed = 0;
        }
        until
    }

    /// Ends an ejection: the peer was connected to, or its probes have passed often enough since.
    pub(super) fn pardon(&mut self, now: Duration) {
        self.ejection = self.ejection.on_success(now);
        self.ejected_until = Duration::ZERO;
        self.suspect = false;
    }

    /// What another process should know; of the health, where it is `probed`.
    pub(super) fn remember(&self, memory: &mut PeerMemory, probed: bool, now: Duration) {
        memory.up = match self.health.state() {
            State::Up if probed => Some(true),
            State::Down if probed => Some(false),
            State::Unknown | State::Up | State::Down => None,
        };
        memory.draining = self.draining.is_some();
        memory.draining_for_ms = self
            .draining
            .map_or(0, |since| millis(now.saturating_sub(since)));
        memory.ejected_for_ms = millis(self.ejected_until.saturating_sub(now));
        memory.ramp = self
            .ramp
            .filter(|ramp| !ramp.is_over(now))
            .map(|ramp| RampMemory {
                passed_ms: millis(now.saturating_sub(ramp.began)),
                begins_in_ms: millis(ramp.began.saturating_sub(now)),
                length_ms: millis(ramp.length),
            });
        memory.flap = FlapMemory {
            penalty: self.flap.penalty_at_once(),
            age_ms: millis(now.saturating_sub(self.flap.at())),
            suppressed_for_ms: millis(self.flap.until().saturating_sub(now)),
        };
    }

    /// Takes over what another process knew; it does not begin anew by that.
    pub(super) fn recall(&mut self, memory: &PeerMemory, probed: bool, now: Duration) {
        let ago = |ms| now.saturating_sub(Duration::from_millis(ms));
        let ahead = |ms| now.saturating_add(Duration::from_millis(ms));
        self.draining = memory.draining.then(|| ago(memory.draining_for_ms));
        if let (true, Some(up)) = (probed, memory.up) {
            self.health = known(up);
            self.begins_slowly = !up;
        }
        if memory.ejected_for_ms > 0 {
            let length = Duration::from_millis(memory.ejected_for_ms);
            let at_once = Rules {
                failures: 1,
                eject: length,
                max_eject: length,
            };
            self.on_connect_failure(&at_once, now);
        }
        self.ramp = memory.ramp.map(|ramp| Ramp {
            began: ahead(ramp.begins_in_ms).saturating_sub(Duration::from_millis(ramp.passed_ms)),
            length: Duration::from_millis(ramp.length_ms),
        });
        let flap = memory.flap;
        let until = match flap.suppressed_for_ms {
            0 => Duration::ZERO,
            left => ahead(left),
        };
        self.flap = Flap::known(flap.penalty, ago(flap.age_ms), until);
    }

    /// [`OFF`] and [`RAMPING`] stay set once they are over; the times say that they are.
    pub(super) fn flags(&self) -> u8 {
        let health = match self.health.state() {
            State::Unknown => UNKNOWN,
            State::Up => UP,
            State::Down => 0,
        };
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        health
            | flag(self.draining.is_some(), DRAINING)
            | flag(self.off_until() > Duration::ZERO, OFF)
            | flag(self.suspect, SUSPECT)
            | flag(self.ramp.is_some(), RAMPING)
    }

    fn is_well(&self, now: Duration) -> bool {
        self.health.state() == State::Up && self.draining.is_none() && now >= self.ejected_until
    }

    /// It begins slowly when it comes back; where only time brings it back, that is known already.
    fn leave(&mut self, now: Duration, manners: &Manners) {
        if let (None, Some(rules)) = (self.draining, &manners.flap) {
            self.flap = self.flap.on_down(now, rules);
        }
        self.begins_slowly = true;
        self.ramp = self.ramp_from(now, manners);
    }

    fn come_back(&mut self, now: Duration, manners: &Manners) {
        if std::mem::take(&mut self.begins_slowly) {
            self.ramp = self.ramp_from(now, manners);
        }
    }

    fn ramp_from(&self, now: Duration, manners: &Manners) -> Option<Ramp> {
        let began = now.max(self.off_until());
        manners.slow_start.map(|length| Ramp { began, length })
    }
}

/// A health that is known from elsewhere: from another process, or because no probe will ever say.
fn known(up: bool) -> Health {
    let outcome = if up { Outcome::Passed } else { Outcome::Failed };
    Health::default()
        .on(outcome, Thresholds { rise: 1, fall: 1 })
        .0
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
