//! The record of one peer: what is known of it, and when it leaves the ring and comes back.
//!
//! A peer is *in service* while its health is up, it is not ejected and does not drain. It is *out of service*
//! while it is down, ejected, draining or unresolved; a peer that was not probed yet is neither. It drains while an
//! operator drains it, and while it is leaving: its source no longer has it. Probes, requests,
//! operators and reloads change a record through [`PeerRecord::update`], which applies the consequences: going out of
//! service raises the flap penalty, except by a drain, and a return begins a slow start, also after a failed first probe.
//! What another process exported includes these consequences, so [`transfer`] does not use `update`.
//!
//! A draining peer keeps the keys that it serves until the drain deadline. At the deadline, or when it is
//! lost (down or ejected), they go to other peers, and it comes back in a new *epoch*, without keys.
//!
//! An ejection or suppression may end by time alone, without an update. So the next slow start is set in advance; it
//! begins at the later of the two ends.

mod transfer;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::peer_epoch::{PeerEpoch, PeerEpochs};
use crate::policy::ejection::{EjectionCause, EjectionPolicy, EjectionState, FailureKind};
use crate::policy::flap_damping::{self, FlapPenalty};
use crate::policy::health::{HealthStatus, HealthThresholds, HealthTracker, ProbeResult};
use crate::policy::slow_start::SlowStartWindow;

// The flags of a peer, published in `PeerState`.
pub(super) const UP: u8 = 1;
pub(super) const UNKNOWN: u8 = 2;
pub(super) const DRAINING: u8 = 4;
/// Ejected or suppressed until a time; stays set after that time.
pub(super) const OFF_RING: u8 = 8;
/// An attempt failed after the last successful one.
pub(super) const SUSPECT: u8 = 16;
/// Has a slow start window; stays set when that is complete.
pub(super) const SLOW_START: u8 = 32;

/// The last time when all peers of an upstream were equally cold. A slow start lasts at most the time since then,
/// because the other peers are no warmer.
#[derive(Debug, Default)]
pub(super) struct ColdStart(AtomicU64);

impl ColdStart {
    /// On the clock of [`since_start`](crate::clock::since_start); zero: never, or long ago.
    pub(super) fn since(&self) -> Duration {
        Duration::from_nanos(self.0.load(Relaxed))
    }

    pub(super) fn set(&self, now: Duration) {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        self.0.store(now, Relaxed);
    }
}

/// The configuration that a record depends on, and what the peers of an upstream share.
#[derive(Clone, Debug, Default)]
pub(super) struct PeerPolicy {
    /// Shared by all peers of the upstream.
    pub(super) cold_start: Arc<ColdStart>,
    /// Shared by all peers of the upstream.
    pub(super) epochs: Arc<PeerEpochs>,
    /// The duration of a slow start; `None`: no slow starts.
    pub(super) slow_start: Option<Duration>,
    /// `None`: without flap damping.
    pub(super) flap_damping: Option<flap_damping::FlapDampingPolicy>,
    /// How long a draining peer keeps its keys; `None`: not at all.
    pub(super) drain_deadline: Option<Duration>,
}

/// Everything that is known about one peer.
#[derive(Clone, Debug)]
pub(super) struct PeerRecord {
    /// The peer has no address: it is out of service, whatever else is known of it.
    is_unresolved: bool,
    pub(super) health: HealthTracker,
    pub(super) ejection: EjectionState,
    /// Probes in a row that passed since the ejection.
    passes_since_ejection: u32,
    /// An attempt failed after the last successful one: the next success must be recorded.
    suspect: bool,
    /// When an operator's drain began.
    pub(super) draining_since: Option<Duration>,
    /// When the source of the peer no longer had it.
    leaving_since: Option<Duration>,
    pub(super) flap_penalty: FlapPenalty,
    pub(super) slow_start: Option<SlowStartWindow>,
    /// The configured duration of `slow_start`; the window is shorter after a recent [`ColdStart`].
    configured_slow_start: Duration,
    /// When `slow_start` began; the window's start differs after [`SlowStartWindow::rescaled`].
    pub(super) slow_start_since: Duration,
    /// Changes when the peer loses its keys to others, and when it may have keys again.
    pub(super) epoch: PeerEpoch,
    /// A slow start begins at the next return to service.
    slow_start_pending: bool,
    pub(super) last_probe: Option<ProbeReport>,
}

impl PeerRecord {
    /// The record of a new peer. `up`: it is not probed, so it is in service at once. `starts_slowly`: it begins a slow
    /// start when it comes into service.
    pub(super) fn new(up: bool, starts_slowly: bool, now: Duration, policy: &PeerPolicy) -> Self {
        let mut record = Self {
            is_unresolved: false,
            health: HealthTracker::default(),
            ejection: EjectionState::default(),
            passes_since_ejection: 0,
            suspect: false,
            draining_since: None,
            leaving_since: None,
            flap_penalty: FlapPenalty::default(),
            slow_start: None,
            configured_slow_start: Duration::ZERO,
            slow_start_since: Duration::ZERO,
            epoch: policy.epochs.next_epoch(),
            slow_start_pending: starts_slowly,
            last_probe: None,
        };
        if up {
            record.update(now, policy, |record| record.health = health_of(true));
        }
        record
    }

    /// The record of a peer without an address. It stays out of service: a peer that gets an address gets a new record.
    pub(super) fn unresolved(now: Duration, policy: &PeerPolicy) -> Self {
        Self {
            is_unresolved: true,
            ..Self::new(false, true, now, policy)
        }
    }

    /// Returns a copy of the record without probe results: its health is up with `assume_up` (a peer that is not
    /// probed), else unknown. All else is kept; a peer that was in service begins no slow start.
    pub(super) fn with_health_reset(
        &self,
        assume_up: bool,
        now: Duration,
        policy: &PeerPolicy,
    ) -> Self {
        let mut reset = self.clone();
        reset.update(now, policy, |record| {
            record.health = if assume_up {
                health_of(true)
            } else {
                HealthTracker::default()
            };
            record.passes_since_ejection = 0;
            record.last_probe = None;
        });
        reset
    }

    /// Applies a change and its consequences for epoch, flap penalty and slow start.
    pub(super) fn update<R>(
        &mut self,
        now: Duration,
        policy: &PeerPolicy,
        change: impl FnOnce(&mut Self) -> R,
    ) -> R {
        let (before, retained_keys) = (self.availability(now), self.retains_keys(now, policy));
        if before == Availability::InService {
            // Its ejection may have ended by time, without an update: the slow start has begun then.
            self.slow_start_pending = false;
        }
        let result = change(self);
        if self.retains_keys(now, policy) != retained_keys {
            self.epoch = policy.epochs.next_epoch();
        }
        match (before, self.availability(now)) {
            (Availability::InService, Availability::InService) => self.expire_slow_start(now),
            (_, Availability::InService) => self.on_return_to_service(now, policy),
            (Availability::InService, Availability::OutOfService) => {
                self.on_out_of_service(now, policy);
            }
            (_, Availability::OutOfService) => self.defer_slow_start(now, policy),
            (_, Availability::Unprobed) => {}
        }
        result
    }

    /// The end of its ejection or suppression, whichever is later; zero: neither.
    pub(super) fn off_ring_until(&self) -> Duration {
        self.ejection
            .until()
            .max(self.flap_penalty.suppression_end())
    }

    /// Records a probe; returns the new health, if it changed. `rise` passes in a row end an ejection after failed connects.
    /// Probes end no other ejection: the peer passed them while its responses failed.
    pub(super) fn on_probe(
        &mut self,
        report: ProbeReport,
        thresholds: HealthThresholds,
    ) -> Option<HealthStatus> {
        let result = if report.failure.is_none() {
            ProbeResult::Passed
        } else {
            ProbeResult::Failed
        };
        let (health, changed) = self.health.on_probe(result, thresholds);
        self.health = health;
        let is_ejected = self.ejection.is_ejected(report.ended);
        let may_end = is_ejected && self.ejection.cause() == EjectionCause::Connects;
        self.passes_since_ejection = if may_end && result == ProbeResult::Passed {
            self.passes_since_ejection + 1
        } else {
            0
        };
        if may_end && self.passes_since_ejection >= thresholds.rise {
            self.ejection = self.ejection.end(report.ended);
            self.suspect = false;
        }
        self.last_probe = Some(report);
        changed.then(|| health.status())
    }

    /// Records a failure. Enough failed connects eject the peer at once; after any other failures the caller must allow
    /// the ejection ([`Self::eject_if_due`]).
    pub(super) fn on_failure(
        &mut self,
        kind: FailureKind,
        policy: &EjectionPolicy,
        now: Duration,
    ) -> FailureEffect {
        self.ejection = self.ejection.on_failure(kind, now);
        self.suspect = true;
        if !self.ejection.is_due(now, policy) {
            return FailureEffect::Counted;
        }
        match self.ejection.cause() {
            EjectionCause::Connects => FailureEffect::Ejected {
                length: self.eject(policy, now),
            },
            EjectionCause::Responses => FailureEffect::EjectionDue,
        }
    }

    /// Ejects the peer if `is_allowed`; else the count of failures restarts. `None`: an ejection is not due any more,
    /// because a success or another failure came first.
    pub(super) fn eject_if_due(
        &mut self,
        is_allowed: bool,
        policy: &EjectionPolicy,
        now: Duration,
    ) -> Option<EjectionOutcome> {
        if !self.ejection.is_due(now, policy) {
            return None;
        }
        if is_allowed {
            let length = self.eject(policy, now);
            return Some(EjectionOutcome::Ejected { length });
        }
        self.ejection = self.ejection.forgive();
        Some(EjectionOutcome::Prevented)
    }

    /// Ejects the peer; returns for how long.
    fn eject(&mut self, policy: &EjectionPolicy, now: Duration) -> Duration {
        self.ejection = self.ejection.eject(now, policy);
        self.passes_since_ejection = 0;
        self.ejection.until().saturating_sub(now)
    }

    /// Records a success at `now` of an attempt that began at `began`.
    pub(super) fn on_success(&mut self, began: Duration, now: Duration) {
        self.ejection = self.ejection.on_success(began, now);
        self.suspect &= self.ejection.is_ejected(now);
    }

    /// Ends a suppression, resets the flap penalty, and returns whether the peer was suppressed. A slow start that
    /// was to begin at the end of the suppression begins now.
    pub(super) fn lift_suppression(&mut self, now: Duration, policy: &PeerPolicy) -> bool {
        let was_suppressed = self.flap_penalty.suppressed_until(now).is_some();
        self.flap_penalty = FlapPenalty::default();
        if was_suppressed && self.slow_start.is_some() {
            self.slow_start = self.new_slow_start(now, policy);
        }
        was_suppressed
    }

    /// Records whether the source of the peer no longer has it; false: nothing changed.
    pub(super) fn set_leaving(&mut self, is_leaving: bool, now: Duration) -> bool {
        let is_change = self.is_leaving() != is_leaving;
        if is_change {
            self.leaving_since = is_leaving.then_some(now);
        }
        is_change
    }

    /// Whether the source of the peer no longer has it.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving_since.is_some()
    }

    /// When its drain began, by an operator or because it is leaving; `None`: it is not draining.
    pub(super) fn drain_began(&self) -> Option<Duration> {
        let times = [self.draining_since, self.leaving_since];
        times.into_iter().flatten().min()
    }

    /// Begins a slow start: now, or at the return to service.
    pub(super) fn begin_slow_start(&mut self, now: Duration, policy: &PeerPolicy) {
        match self.availability(now) {
            Availability::InService => self.slow_start = self.new_slow_start(now, policy),
            Availability::OutOfService | Availability::Unprobed => self.slow_start_pending = true,
        }
    }

    /// Ends a slow start that has begun, and shortens one that begins later: all peers are equally cold.
    pub(super) fn on_all_peers_cold(&mut self, now: Duration) {
        self.slow_start = self
            .slow_start
            .and_then(|window| window.restarted_cold(now));
    }

    /// Adjusts a slow start to the configuration: ends it if slow starts are off, and rescales it
    /// to another duration.
    pub(super) fn reconcile_slow_start(&mut self, now: Duration, policy: &PeerPolicy) {
        let configured = self.slow_start.zip(policy.slow_start);
        self.slow_start = configured.map(|(window, duration)| {
            if std::mem::replace(&mut self.configured_slow_start, duration) == duration {
                return window;
            }
            let other = SlowStartWindow::new(window.start, duration, policy.cold_start.since());
            window.rescaled(other.duration, now)
        });
    }

    /// The flags to publish. [`OFF_RING`] and [`SLOW_START`] stay set after their end: a reader compares the times.
    pub(super) fn flags(&self) -> u8 {
        let health = match self.health.status() {
            _ if self.is_unresolved => 0,
            HealthStatus::Unknown => UNKNOWN,
            HealthStatus::Up => UP,
            HealthStatus::Down => 0,
        };
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        health
            | flag(self.drain_began().is_some(), DRAINING)
            | flag(self.off_ring_until() > Duration::ZERO, OFF_RING)
            | flag(self.suspect, SUSPECT)
            | flag(self.slow_start.is_some(), SLOW_START)
    }

    /// Whether the keys that it served stay its own: it is neither down nor ejected, and no drain is at its deadline.
    fn retains_keys(&self, now: Duration, policy: &PeerPolicy) -> bool {
        let is_down = self.is_unresolved || self.health.status() == HealthStatus::Down;
        let is_lost = is_down || self.ejection.is_ejected(now);
        let is_past_deadline = |since| policy.drain_deadline <= Some(now.saturating_sub(since));
        !is_lost && !self.drain_began().is_some_and(is_past_deadline)
    }

    fn availability(&self, now: Duration) -> Availability {
        let is_out =
            self.is_unresolved || self.drain_began().is_some() || self.ejection.is_ejected(now);
        match self.health.status() {
            HealthStatus::Up if !is_out => Availability::InService,
            HealthStatus::Unknown if !is_out => Availability::Unprobed,
            HealthStatus::Up | HealthStatus::Unknown | HealthStatus::Down => {
                Availability::OutOfService
            }
        }
    }

    fn expire_slow_start(&mut self, now: Duration) {
        self.slow_start = self.slow_start.filter(|window| !window.is_complete(now));
    }

    fn on_out_of_service(&mut self, now: Duration, policy: &PeerPolicy) {
        if let (None, Some(flap_damping)) = (self.drain_began(), &policy.flap_damping) {
            self.flap_penalty = self.flap_penalty.on_down(now, flap_damping);
        }
        self.defer_slow_start(now, policy);
    }

    /// Prepares a slow start, which begins at the return, or when the ejection or suppression ends.
    fn defer_slow_start(&mut self, now: Duration, policy: &PeerPolicy) {
        self.slow_start_pending = true;
        if self.off_ring_until() > now {
            self.slow_start = self.new_slow_start(now, policy);
        }
    }

    fn on_return_to_service(&mut self, now: Duration, policy: &PeerPolicy) {
        if std::mem::take(&mut self.slow_start_pending) {
            self.slow_start = self.new_slow_start(now, policy);
        }
    }

    fn new_slow_start(&mut self, now: Duration, policy: &PeerPolicy) -> Option<SlowStartWindow> {
        let start = now.max(self.off_ring_until());
        self.configured_slow_start = policy.slow_start.unwrap_or_default();
        self.slow_start_since = start;
        let window = |duration| SlowStartWindow::new(start, duration, policy.cold_start.since());
        policy.slow_start.map(window)
    }
}

/// The result of failures in a row that are enough for an ejection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EjectionOutcome {
    /// The peer is ejected for this time.
    Ejected { length: Duration },
    /// The peer stays on the ring: too many others are ejected, or no other is available.
    Prevented,
}

/// The effect of a failure on a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FailureEffect {
    /// The failure was counted, or the peer is ejected already.
    Counted,
    /// An ejection is due, if the state of the other peers allows it.
    EjectionDue,
    /// The peer is ejected for this time.
    Ejected { length: Duration },
}

/// The result of one probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeReport {
    /// When the probe ended, on the clock of [`since_start`](crate::clock::since_start).
    pub ended: Duration,
    /// The duration of the probe.
    pub duration: Duration,
    /// Why the probe failed; `None`: it passed.
    pub failure: Option<String>,
}

/// Whether probes, real traffic and operators let a peer serve, without regard to flap damping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Availability {
    /// The peer takes keys, unless it is suppressed.
    InService,
    /// The peer is down, ejected, draining or unresolved.
    OutOfService,
    /// The health is unknown, and the peer is neither ejected nor draining nor unresolved.
    Unprobed,
}

/// The health without a probe: restored from another process, or of a peer that is not probed.
fn health_of(up: bool) -> HealthTracker {
    let result = if up {
        ProbeResult::Passed
    } else {
        ProbeResult::Failed
    };
    HealthTracker::default()
        .on_probe(result, HealthThresholds { rise: 1, fall: 1 })
        .0
}

#[cfg(test)]
mod tests;
