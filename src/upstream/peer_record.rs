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

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::affinity::{PeerEpoch, PeerEpochs};
use super::peer::ProbeReport;
use super::persisted_state::{PersistedFlapPenalty, PersistedPeer, PersistedSlowStart};
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

    /// What another process should know; of the health, where it is `probed`.
    pub(super) fn export(&self, memory: &mut PersistedPeer, probed: bool, now: Duration) {
        memory.up = match self.health.status() {
            HealthStatus::Up if probed => Some(true),
            HealthStatus::Down if probed => Some(false),
            HealthStatus::Unknown | HealthStatus::Up | HealthStatus::Down => None,
        };
        memory.draining = self.draining_since.is_some();
        memory.draining_for_ms = self
            .draining_since
            .map_or(0, |since| millis(now.saturating_sub(since)));
        memory.ejected_for_ms = millis(self.ejected_until.saturating_sub(now));
        memory.slow_start = self
            .slow_start
            .filter(|ramp| !ramp.is_complete(now))
            .map(|ramp| PersistedSlowStart {
                // Rounded up: what is home with this process is so with the next.
                elapsed_ms: millis_rounded_up(ramp.elapsed(now)),
                starts_in_ms: millis(ramp.start.saturating_sub(now)),
                duration_ms: millis(ramp.duration),
                configured_ms: millis(self.configured_slow_start),
                started_ms_ago: millis_rounded_up(now.saturating_sub(self.slow_start_since)),
            });
        memory.epoch = self.epoch.0;
        memory.flap_penalty = self.export_flap_penalty(now);
    }

    /// Nothing where it never went down: its age would change all the time.
    fn export_flap_penalty(&self, now: Duration) -> PersistedFlapPenalty {
        if self.flap_penalty.last_penalty() <= 0.0 {
            return PersistedFlapPenalty::default();
        }
        PersistedFlapPenalty {
            penalty: self.flap_penalty.last_penalty(),
            age_ms: millis(now.saturating_sub(self.flap_penalty.last_down())),
            suppressed_for_ms: millis(self.flap_penalty.suppression_end().saturating_sub(now)),
        }
    }

    /// Takes over what another process knew; it does not begin anew by that.
    pub(super) fn restore(&mut self, memory: &PersistedPeer, probed: bool, now: Duration) {
        self.restore_health(memory.up.filter(|_| probed));
        self.restore_events(memory, now);
    }

    /// Takes over what another process has learned since it told of `before`. What probes say it knows no better
    /// than this one, which has asked as well: there only what is new counts.
    pub(super) fn apply_delta(
        &mut self,
        (before, memory): (Option<&PersistedPeer>, &PersistedPeer),
        probed: bool,
        now: Duration,
        manners: &PeerPolicy,
    ) {
        let is_new = before.is_none_or(|before| before.up != memory.up);
        self.restore_health(memory.up.filter(|_| probed && is_new));
        // That it is back, and begins slowly, only this one knows.
        let is_back = memory.up == Some(false) && self.health.status() == HealthStatus::Up;
        let own = (
            self.slow_start,
            self.configured_slow_start,
            self.slow_start_since,
        );
        self.restore_events(memory, now);
        if is_back {
            (
                self.slow_start,
                self.configured_slow_start,
                self.slow_start_since,
            ) = own;
        }
        if before.is_none_or(|before| before.epoch != memory.epoch) {
            self.epoch = manners.epochs.next_epoch();
        }
    }

    fn restore_health(&mut self, up: Option<bool>) {
        if let Some(up) = up {
            self.health = health_of(up);
            self.slow_start_pending = false;
        }
    }

    /// What operators and real traffic have said, and what followed from it.
    fn restore_events(&mut self, memory: &PersistedPeer, now: Duration) {
        let ago = |ms| now.saturating_sub(Duration::from_millis(ms));
        let ahead = |ms| now.saturating_add(Duration::from_millis(ms));
        self.draining_since = memory.draining.then(|| ago(memory.draining_for_ms));
        self.restore_ejection(Duration::from_millis(memory.ejected_for_ms), now);
        self.restore_slow_start(memory.slow_start, now);
        let flap = memory.flap_penalty;
        let until = match flap.suppressed_for_ms {
            0 => Duration::ZERO,
            left => ahead(left),
        };
        self.flap_penalty = FlapPenalty::from_parts(flap.penalty, ago(flap.age_ms), until);
        self.slow_start_pending |= self.availability(now) == Availability::OutOfService;
    }

    fn restore_slow_start(&mut self, memory: Option<PersistedSlowStart>, now: Duration) {
        let ago = |ms| now.saturating_sub(Duration::from_millis(ms));
        self.slow_start = memory.map(|ramp| {
            let begins_in = Duration::from_millis(ramp.starts_in_ms);
            SlowStartWindow {
                start: ago(ramp.elapsed_ms).saturating_add(begins_in),
                duration: Duration::from_millis(ramp.duration_ms),
            }
        });
        let whole =
            memory.map(|ramp| Duration::from_millis(ramp.configured_ms.max(ramp.duration_ms)));
        self.configured_slow_start = whole.unwrap_or_default();
        self.slow_start_since = memory.map_or(now, |ramp| {
            let began = ago(ramp.started_ms_ago.max(ramp.elapsed_ms));
            began.saturating_add(Duration::from_millis(ramp.starts_in_ms))
        });
    }

    fn restore_ejection(&mut self, length: Duration, now: Duration) {
        (self.ejection, self.ejected_until) = (EjectionState::default(), Duration::ZERO);
        if !length.is_zero() {
            let at_once = EjectionPolicy {
                failures: 1,
                base_ejection: length,
                max_ejection: length,
            };
            self.on_connect_failure(&at_once, now);
        }
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

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn millis_rounded_up(duration: Duration) -> u64 {
    millis(duration.saturating_add(Duration::from_nanos(999_999)))
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::super::address::Address;
    use super::*;

    const THRESHOLDS: HealthThresholds = HealthThresholds { rise: 1, fall: 1 };
    const EJECT: EjectionPolicy = EjectionPolicy {
        failures: 1,
        base_ejection: s(30),
        max_ejection: s(300),
    };
    static MANNERS: LazyLock<PeerPolicy> = LazyLock::new(|| PeerPolicy {
        cold_start: Arc::default(),
        epochs: Arc::default(),
        slow_start: Some(s(60)),
        flap_damping: Some(flap_damping::FlapDampingPolicy::DEFAULT),
        drain_deadline: Some(s(40)),
    });

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A ledger that is written to as peers write to theirs.
    struct Book(PeerRecord);

    impl Book {
        fn new(up: bool, slowly: bool) -> Self {
            Self(PeerRecord::new(up, slowly, s(1000), &MANNERS))
        }

        fn probe(&mut self, at: u64, passes: bool) {
            let report = ProbeReport {
                ended: s(at),
                duration: Duration::ZERO,
                failure: (!passes).then(|| "refused".to_owned()),
            };
            self.0.update(s(at), &MANNERS, |ledger| {
                ledger.on_probe(report, THRESHOLDS)
            });
        }

        fn fail(&mut self, at: u64) {
            self.0.update(s(at), &MANNERS, |ledger| {
                ledger.on_connect_failure(&EJECT, s(at))
            });
        }

        fn reach(&mut self, at: u64) {
            self.0
                .update(s(at), &MANNERS, |ledger| ledger.end_ejection(s(at)));
        }

        fn drain(&mut self, at: u64, draining: bool) {
            self.0.update(s(at), &MANNERS, |ledger| {
                ledger.draining_since = draining.then_some(s(at));
            });
        }

        fn lift(&mut self, at: u64) -> bool {
            self.0.update(s(at), &MANNERS, |ledger| {
                ledger.lift_suppression(s(at), &MANNERS)
            })
        }

        /// When its slow start begins or began, where there is one.
        fn ramps_from(&self) -> Option<Duration> {
            self.0.slow_start.map(|ramp| ramp.start)
        }

        fn memory(&self, at: u64) -> PersistedPeer {
            let mut memory = PersistedPeer::unknown(Address::Ip(([127, 0, 0, 1], 1).into()));
            self.0.export(&mut memory, true, s(at));
            memory
        }
    }

    #[test]
    fn peer_present_at_process_start_does_not_start_slowly() {
        let mut book = Book::new(false, false);
        book.probe(1001, true);
        assert_eq!(book.ramps_from(), None);
        assert_eq!(Book::new(true, false).ramps_from(), None);
    }

    #[test]
    fn peer_that_is_new_starts_slowly_once_it_is_up() {
        assert_eq!(Book::new(true, true).ramps_from(), Some(s(1000)));
        let mut book = Book::new(false, true);
        assert_eq!(book.ramps_from(), None);
        book.probe(1010, true);
        assert_eq!(book.ramps_from(), Some(s(1010)));
        book.probe(1015, true);
        assert_eq!(book.ramps_from(), Some(s(1010)), "once");
    }

    #[test]
    fn peer_that_recovers_starts_slowly() {
        let mut book = Book::new(true, false);
        book.probe(1001, false);
        book.probe(1100, true);
        assert_eq!(book.ramps_from(), Some(s(1100)));
        book.probe(1200, true);
        assert_eq!(book.ramps_from(), None, "it is over, and forgotten");
    }

    #[test]
    fn peer_starts_slowly_when_an_ejection_expires() {
        let mut book = Book::new(true, false);
        book.fail(1001);
        assert_eq!(book.ramps_from(), Some(s(1031)));
    }

    #[test]
    fn peer_starts_slowly_after_its_last_outage_cause_ends() {
        let mut book = Book::new(true, false);
        book.probe(1001, false);
        book.fail(1002); // until 1032
        let three = HealthThresholds { rise: 3, fall: 1 };
        let passed = ProbeReport {
            ended: s(1010),
            duration: Duration::ZERO,
            failure: None,
        };
        // Up by another's word than its own probes in a row: still ejected.
        book.0.update(s(1010), &MANNERS, |ledger| {
            ledger.health = health_of(true);
            ledger.on_probe(passed, three);
        });
        assert_eq!(book.0.off_ring_until(), s(1032));
        assert_eq!(book.ramps_from(), Some(s(1032)));
    }

    #[test]
    fn peer_starts_slowly_at_once_after_an_early_ejection_end() {
        let mut book = Book::new(true, false);
        book.fail(1001);
        book.reach(1005);
        assert_eq!(
            (book.ramps_from(), book.0.off_ring_until()),
            (Some(s(1005)), s(0))
        );
    }

    #[test]
    fn peer_flapping_is_suppressed_and_operator_drains_do_not_count() {
        let mut book = Book::new(true, false);
        for at in [1000, 1002, 1004, 1006] {
            book.drain(at, true);
            book.drain(at + 1, false);
        }
        assert_eq!(book.0.flap_penalty.suppression_end(), s(0));
        for at in [1010, 1012, 1014] {
            book.probe(at, false);
            book.probe(at + 1, true);
        }
        let until = book.0.flap_penalty.suppression_end();
        assert!(until > s(1060), "{until:?}");
        assert_eq!(book.0.off_ring_until(), until);
        assert_eq!(book.ramps_from(), Some(until));
        book.reach(1020);
        assert_eq!(
            book.0.flap_penalty.suppression_end(),
            until,
            "no success ends it early"
        );
    }

    #[test]
    fn peer_enable_ends_a_suppression_and_begins_the_slow_start() {
        let mut book = Book::new(true, false);
        for at in [1010, 1012, 1014] {
            book.probe(at, false);
            book.probe(at + 1, true);
        }
        assert!(book.lift(1020));
        assert_eq!(
            (book.0.off_ring_until(), book.ramps_from()),
            (s(0), Some(s(1020)))
        );
        assert!(!book.lift(1021), "once");
        book.probe(1022, false);
        assert_eq!(
            book.0.flap_penalty.suppression_end(),
            s(0),
            "the past is forgotten"
        );
    }

    #[test]
    fn peer_enable_does_not_end_an_ejection() {
        let mut book = Book::new(true, false);
        for at in [1010, 1012, 1014] {
            book.reach(at - 1);
            book.fail(at);
        }
        let until = book.0.ejected_until;
        assert!(book.lift(1020));
        assert_eq!(
            (book.0.off_ring_until(), book.ramps_from()),
            (until, Some(until))
        );
    }

    #[test]
    fn peer_drain_keeps_affinity_until_its_deadline_and_an_outage_ends_it() {
        let mut book = Book::new(true, false);
        book.drain(1010, true);
        let first = book.0.epoch;
        book.drain(1049, false);
        assert_eq!((book.0.epoch, book.ramps_from()), (first, Some(s(1049))));
        book.drain(1060, true);
        book.drain(1100, false);
        let after_drain = book.0.epoch;
        book.drain(1110, true);
        book.fail(1111);
        let after_ejection = book.0.epoch;
        book.drain(1150, false);
        book.probe(1160, false);
        assert!(first != after_drain && after_drain != after_ejection);
        assert!(after_ejection != book.0.epoch);
    }

    #[test]
    fn slow_start_end_is_not_applied_to_a_later_slow_start() {
        let mut book = Book::new(true, false);
        book.fail(1001);
        book.0.end_slow_start_if_cold(s(1010));
        let to_come = SlowStartWindow::new(s(1031), s(60), s(1010));
        assert_eq!(
            (book.0.slow_start, to_come.duration),
            (Some(to_come), s(21))
        );
        book.0.end_slow_start_if_cold(s(1031));
        assert_eq!(book.ramps_from(), None);
    }

    #[test]
    fn peer_record_is_restored_in_another_process() {
        let mut book = Book::new(true, false);
        for at in [1000, 1002, 1004] {
            book.fail(at);
            book.reach(at + 1);
        }
        book.drain(1010, true);
        let mut next = PeerRecord::new(false, false, s(5000), &MANNERS);
        next.restore(&book.memory(1020), true, s(5000));
        let later = |at: Duration| at + s(3980);
        assert_eq!(next.draining_since, Some(later(s(1010))));
        let off_by = next
            .flap_penalty
            .suppression_end()
            .abs_diff(later(book.0.flap_penalty.suppression_end()));
        assert!(off_by <= Duration::from_millis(1), "{off_by:?}");
        assert_eq!(next.flap_penalty.last_down(), later(s(1004)));
        // The end of the drain is the begin of a slow start there, too.
        next.update(s(5010), &MANNERS, |ledger| ledger.draining_since = None);
        assert!(next.slow_start.is_some_and(|ramp| ramp.start >= s(5010)));
    }

    #[test]
    fn peer_slow_start_continues_in_another_process() {
        let mut book = Book::new(true, false);
        book.probe(1001, false);
        book.probe(1010, true);
        let mut next = PeerRecord::new(false, true, s(5000), &MANNERS);
        next.restore(&book.memory(1040), true, s(5000));
        let ramp = next.slow_start.unwrap();
        assert_eq!((ramp.start, ramp.duration), (s(4970), s(60)));
        next.update(s(5001), &MANNERS, |_| ());
        assert_eq!(next.slow_start, Some(ramp), "and does not begin anew");
    }

    #[test]
    fn slow_start_age_below_one_millisecond_is_not_rounded_up() {
        let mut book = Book::new(false, true);
        let began = Duration::from_micros(999_940_600);
        book.0
            .update(began, &MANNERS, |ledger| ledger.health = health_of(true));
        let memory = book.memory(1000);
        let mut next = PeerRecord::new(false, false, s(5000), &MANNERS);
        next.restore(&memory, true, s(5000));
        let mut again = PersistedPeer::unknown(Address::Ip(([127, 0, 0, 1], 1).into()));
        next.export(&mut again, true, s(5000));
        assert_eq!(memory.slow_start.unwrap().elapsed_ms, 60);
        assert_eq!(again.slow_start, memory.slow_start);
    }

    #[test]
    fn peer_that_never_flapped_exports_no_flap_state() {
        let book = Book::new(true, false);
        assert_eq!(book.memory(1000), book.memory(2000));
    }

    proptest! {
        /// Whatever happens: it is never back with all its keys at once, and what is remembered is
        /// what is recalled.
        #[test]
        fn peer_never_returns_without_a_slow_start(
            up in any::<bool>(),
            events in prop::collection::vec((0..9_u8, 1..40_u64), 1..60),
        ) {
            let mut book = Book::new(up, false);
            let mut now = 1000;
            let mut away: Option<u64> = None;
            for (event, pause) in events {
                for second in now..now + pause {
                    let standing = book.0.availability(s(second));
                    if standing == Availability::OutOfService || book.0.off_ring_until() > s(second) {
                        away = Some(second);
                    } else if standing == Availability::InService && let Some(last) = away {
                        let ramp = book.0.slow_start.filter(|ramp| !ramp.is_complete(s(second)));
                        prop_assert!(
                            second > last + 60 || ramp.is_some_and(|ramp| ramp.start > s(last)),
                            "at {second}, away until {last}: {:?}", book.0
                        );
                    }
                }
                now += pause;
                match event {
                    0 => book.probe(now, false),
                    1 => book.probe(now, true),
                    2 => book.fail(now),
                    3 => book.reach(now),
                    4 => book.drain(now, true),
                    5 => book.drain(now, false),
                    8 => _ = book.lift(now),
                    6 => book.0 = book.0.with_health_reset(true, s(now), &MANNERS),
                    _ => book.0 = book.0.with_health_reset(false, s(now), &MANNERS),
                }
            }
            let mut next = PeerRecord::new(false, false, s(9000), &MANNERS);
            next.restore(&book.memory(now), true, s(9000));
            let mut again = PersistedPeer::unknown(Address::Ip(([127, 0, 0, 1], 1).into()));
            next.export(&mut again, true, s(9000));
            again.epoch = book.0.epoch.0;
            prop_assert_eq!(again, book.memory(now));
        }
    }
}
