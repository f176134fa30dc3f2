//! What is written down about one peer, and what follows from it: whether it is on the ring, and how
//! it leaves it and comes back.
//!
//! A peer is *well* when its probes pass, real traffic reaches it and no operator took it out; it is
//! *away* when one of them has said otherwise. Two things follow when that changes, and they are decided here
//! and nowhere else: leaving raises the penalty for flapping, unless an operator did it, and coming back begins
//! a slow start, also for one that was away from the start. Whoever writes does so through
//! [`Ledger::change`], be it a probe, an operator or a reload, so that there is no way round.
//!
//! A drain leaves the peer the keys that it serves, for a while; to be lost does not: then they are others',
//! and so they are when the while is over. A new *tenure* begins with that, in which the peer has to be
//! given each key anew.
//!
//! What is slow is measured by the others: where all are cold nobody can be spared. The ledger is told when
//! that was last ([`Cold`]).
//!
//! Where nothing but time keeps a peer off the ring, nobody writes when that is over. So while it is off, its
//! slow start is already set, and begins when the last of the times that keep it off does end.

mod transfer;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::peer_epoch::{PeerEpoch, PeerEpochs};
use crate::policy::ejection::{EjectionPolicy, EjectionState};
use crate::policy::flap_damping::{self, FlapPenalty};
use crate::policy::health::{HealthStatus, HealthThresholds, HealthTracker, ProbeResult};
use crate::policy::slow_start::SlowStartWindow;

pub(super) const UP: u8 = 1;
pub(super) const UNKNOWN: u8 = 2;
pub(super) const DRAINING: u8 = 4;
/// Ejected or suppressed, until a time.
pub(super) const OFF_RING: u8 = 8;
pub(super) const SUSPECT: u8 = 16;
pub(super) const SLOW_START: u8 = 32;

/// When all peers of an upstream were equally cold last; long ago, if they never were.
#[derive(Debug, Default)]
pub(super) struct ColdStart(AtomicU64);

impl ColdStart {
    /// When that was, since the process started; zero: long ago.
    pub(super) fn since(&self) -> Duration {
        Duration::from_nanos(self.0.load(Relaxed))
    }

    pub(super) fn set(&self, now: Duration) {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        self.0.store(now, Relaxed);
    }
}

/// How a peer leaves the ring and comes back to it, as configured.
#[derive(Clone, Debug, Default)]
pub(super) struct PeerPolicy {
    /// When it had nothing on the others, nor they on it; shared by all of them.
    pub(super) cold_start: Arc<ColdStart>,
    /// Shared by all of them, too.
    pub(super) epochs: Arc<PeerEpochs>,
    /// How long it takes until it has all its keys again; `None`: no time.
    pub(super) slow_start: Option<Duration>,
    /// How coming and going is damped; `None`: it is not.
    pub(super) flap_damping: Option<flap_damping::FlapDampingPolicy>,
    /// How long a drain leaves keys with it; `None`: it does not.
    pub(super) drain_deadline: Option<Duration>,
}

#[derive(Clone, Debug)]
pub(super) struct PeerRecord {
    pub(super) health: HealthTracker,
    ejection: EjectionState,
    /// Until when it is ejected; zero: it is not.
    pub(super) ejected_until: Duration,
    /// Probes passed in a row since the ejection.
    passes_since_ejection: u32,
    /// Some connect failed since the last that did not: the next success must look here.
    suspect: bool,
    /// Since when an operator has it out.
    pub(super) draining_since: Option<Duration>,
    pub(super) flap_penalty: FlapPenalty,
    pub(super) slow_start: Option<SlowStartWindow>,
    /// How long that would take if the others had been serving for long.
    configured_slow_start: Duration,
    /// When it began in truth: one that is stretched tells only how far it is.
    pub(super) slow_start_since: Duration,
    /// Another one when others have its keys: what it served before that is not with it any more.
    pub(super) epoch: PeerEpoch,
    /// Whether it begins slowly when it is well next.
    slow_start_pending: bool,
    pub(super) last_probe: Option<ProbeReport>,
}

impl PeerRecord {
    /// Nothing is known; `up` where no probe will ever say. `slowly`: it begins with a slow start.
    pub(super) fn new(up: bool, slowly: bool, now: Duration, manners: &PeerPolicy) -> Self {
        let mut ledger = Self {
            health: HealthTracker::default(),
            ejection: EjectionState::default(),
            ejected_until: Duration::ZERO,
            passes_since_ejection: 0,
            suspect: false,
            draining_since: None,
            flap_penalty: FlapPenalty::default(),
            slow_start: None,
            configured_slow_start: Duration::ZERO,
            slow_start_since: Duration::ZERO,
            epoch: manners.epochs.next_epoch(),
            slow_start_pending: slowly,
            last_probe: None,
        };
        if up {
            ledger.update(now, manners, |ledger| ledger.health = health_of(true));
        }
        ledger
    }

    /// The same server, of which no probe has said anything yet; `up` where none ever will. What
    /// operators and real traffic have said of it stands, and if it is well it does not begin anew.
    pub(super) fn with_health_reset(&self, up: bool, now: Duration, manners: &PeerPolicy) -> Self {
        let mut anew = self.clone();
        anew.update(now, manners, |ledger| {
            ledger.health = if up {
                health_of(true)
            } else {
                HealthTracker::default()
            };
            ledger.passes_since_ejection = 0;
            ledger.last_probe = None;
        });
        anew
    }

    /// Makes a change, and draws the conclusions.
    pub(super) fn update<R>(
        &mut self,
        now: Duration,
        manners: &PeerPolicy,
        write: impl FnOnce(&mut Self) -> R,
    ) -> R {
        let (before, kept) = (self.availability(now), self.retains_keys(now, manners));
        let result = write(self);
        if self.retains_keys(now, manners) != kept {
            self.epoch = manners.epochs.next_epoch();
        }
        match (before, self.availability(now)) {
            (Availability::InService, Availability::InService) => self.expire_slow_start(now),
            (_, Availability::InService) => self.on_return_to_service(now, manners),
            (Availability::InService, Availability::OutOfService) => {
                self.on_out_of_service(now, manners)
            }
            (_, Availability::OutOfService) => self.defer_slow_start(now, manners),
            (_, Availability::Unprobed) => {}
        }
        result
    }

    /// Until when it is off the ring, ejected or suppressed.
    pub(super) fn off_ring_until(&self) -> Duration {
        self.ejected_until.max(self.flap_penalty.suppression_end())
    }

    pub(super) fn on_probe(
        &mut self,
        report: ProbeReport,
        thresholds: HealthThresholds,
    ) -> Option<HealthStatus> {
        let outcome = if report.failure.is_none() {
            ProbeResult::Passed
        } else {
            ProbeResult::Failed
        };
        let (health, flipped) = self.health.on_probe(outcome, thresholds);
        self.health = health;
        let ejected = self.ejected_until > report.ended;
        self.passes_since_ejection = if ejected && outcome == ProbeResult::Passed {
            self.passes_since_ejection + 1
        } else {
            0
        };
        if ejected && self.passes_since_ejection >= thresholds.rise {
            self.end_ejection(report.ended);
        }
        self.last_probe = Some(report);
        flipped.then(|| health.status())
    }

    /// The time until which that ejects it, if it does.
    pub(super) fn on_connect_failure(
        &mut self,
        rules: &EjectionPolicy,
        now: Duration,
    ) -> Option<Duration> {
        let (ejection, until) = self.ejection.on_failure(now, rules);
        self.ejection = ejection;
        self.suspect = true;
        if let Some(until) = until {
            self.ejected_until = until;
            self.passes_since_ejection = 0;
        }
        until
    }

    /// Ends an ejection: the peer was connected to, or its probes have passed often enough since.
    pub(super) fn end_ejection(&mut self, now: Duration) {
        self.ejection = self.ejection.on_success(now);
        self.ejected_until = Duration::ZERO;
        self.suspect = false;
    }

    /// Ends its suppression, and forgets what led to it, since an operator knows better; whether there
    /// was one. A slow start that waited for its end begins.
    pub(super) fn lift_suppression(&mut self, now: Duration, manners: &PeerPolicy) -> bool {
        let was_suppressed = self.flap_penalty.suppressed_until(now).is_some();
        self.flap_penalty = FlapPenalty::default();
        if was_suppressed && self.slow_start.is_some() {
            self.slow_start = self.new_slow_start(now, manners);
        }
        was_suppressed
    }

    /// Begins a slow start: now, or when it is well.
    pub(super) fn begin_slow_start(&mut self, now: Duration, manners: &PeerPolicy) {
        match self.availability(now) {
            Availability::InService => self.slow_start = self.new_slow_start(now, manners),
            Availability::OutOfService | Availability::Unprobed => self.slow_start_pending = true,
        }
    }

    /// Ends its slow start, as it could not be spared: all are cold.
    pub(super) fn end_slow_start_if_cold(&mut self, now: Duration) {
        self.slow_start = self.slow_start.and_then(|ramp| ramp.restarted_cold(now));
    }

    /// Another configuration may want none, or one of another length; then as much of it has passed.
    pub(super) fn reconcile_slow_start(&mut self, now: Duration, manners: &PeerPolicy) {
        let wanted = self.slow_start.zip(manners.slow_start);
        self.slow_start = wanted.map(|(ramp, length)| {
            if std::mem::replace(&mut self.configured_slow_start, length) == length {
                return ramp;
            }
            let other = SlowStartWindow::new(ramp.start, length, manners.cold_start.since());
            ramp.rescaled(other.duration, now)
        });
    }

    /// [`OFF`] and [`RAMPING`] stay set once they are over; the times say that they are.
    pub(super) fn flags(&self) -> u8 {
        let health = match self.health.status() {
            HealthStatus::Unknown => UNKNOWN,
            HealthStatus::Up => UP,
            HealthStatus::Down => 0,
        };
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        health
            | flag(self.draining_since.is_some(), DRAINING)
            | flag(self.off_ring_until() > Duration::ZERO, OFF_RING)
            | flag(self.suspect, SUSPECT)
            | flag(self.slow_start.is_some(), SLOW_START)
    }

    /// Whether the keys that it served lately are still with it: it was not lost, and if it drains, it
    /// has time left.
    fn retains_keys(&self, now: Duration, manners: &PeerPolicy) -> bool {
        let is_lost = self.health.status() == HealthStatus::Down || now < self.ejected_until;
        let is_late = |since| manners.drain_deadline <= Some(now.saturating_sub(since));
        !is_lost && !self.draining_since.is_some_and(is_late)
    }

    fn availability(&self, now: Duration) -> Availability {
        let is_out = self.draining_since.is_some() || now < self.ejected_until;
        match self.health.status() {
            HealthStatus::Up if !is_out => Availability::InService,
            HealthStatus::Unknown if !is_out => Availability::Unprobed,
            HealthStatus::Up | HealthStatus::Unknown | HealthStatus::Down => {
                Availability::OutOfService
            }
        }
    }

    fn expire_slow_start(&mut self, now: Duration) {
        self.slow_start = self.slow_start.filter(|ramp| !ramp.is_complete(now));
    }

    fn on_out_of_service(&mut self, now: Duration, manners: &PeerPolicy) {
        if let (None, Some(rules)) = (self.draining_since, &manners.flap_damping) {
            self.flap_penalty = self.flap_penalty.on_down(now, rules);
        }
        self.defer_slow_start(now, manners);
    }

    /// It begins slowly when it comes back.
    fn defer_slow_start(&mut self, now: Duration, manners: &PeerPolicy) {
        self.slow_start_pending = true;
        if self.off_ring_until() > now {
            self.slow_start = self.new_slow_start(now, manners);
        }
    }

    fn on_return_to_service(&mut self, now: Duration, manners: &PeerPolicy) {
        if std::mem::take(&mut self.slow_start_pending) {
            self.slow_start = self.new_slow_start(now, manners);
        }
    }

    fn new_slow_start(&mut self, now: Duration, manners: &PeerPolicy) -> Option<SlowStartWindow> {
        let began = now.max(self.off_ring_until());
        self.configured_slow_start = manners.slow_start.unwrap_or_default();
        self.slow_start_since = began;
        let ramp = |length| SlowStartWindow::new(began, length, manners.cold_start.since());
        manners.slow_start.map(ramp)
    }
}

/// What the last probe of a peer found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeReport {
    /// When it ended, since the process started.
    pub ended: Duration,
    /// How long it took.
    pub duration: Duration,
    /// Why it failed; `None`: it passed.
    pub failure: Option<String>,
}

/// What was said of a peer last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Availability {
    /// It takes keys, unless its flapping keeps it off.
    InService,
    /// Probes, real traffic or an operator took it off the ring.
    OutOfService,
    /// Nobody has said anything yet.
    Unprobed,
}

/// A health that is known from elsewhere: from another process, or because no probe will ever say.
fn health_of(up: bool) -> HealthTracker {
    let outcome = if up {
        ProbeResult::Passed
    } else {
        ProbeResult::Failed
    };
    HealthTracker::default()
        .on_probe(outcome, HealthThresholds { rise: 1, fall: 1 })
        .0
}

#[cfg(test)]
mod tests;
