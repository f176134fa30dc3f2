//! Passive outlier detection: when failures of real requests take a peer off the ring, and for how long.
//!
//! `failures` counted failures in a row eject a peer for `base_ejection`. In a row: without a success between two of
//! them; each request on the peer is seen, also those on pooled connections, so no time limit is needed. Each further
//! ejection lasts twice as long, up to `max_ejection`; after `max_ejection` without one, the next lasts `base_ejection`
//! again. A success ends the row, and the ejection if its attempt began after the ejection.
//!
//! A peer that no connection reaches is of no use to any request, so failed connects alone eject it at once. A row with
//! other failures may be due to the requests; the caller limits the ejections after it
//! ([`EjectionPolicy::max_ejected`]).
//!
//! An ejection is advice: when no other peer is left the caller uses ejected peers before it answers 503.
//! Probes are counted in [`health`](super::health), independently of this.
//!
//! Times are those of the monotonic clock.

use std::fmt;
use std::time::Duration;

/// A failure of an attempt for which the peer is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FailureKind {
    /// No connection was established.
    Connect,
    /// The peer did not take the request, or did not begin to respond, in time.
    Timeout,
    /// The connection or stream ended before a valid response header.
    Reset,
    /// The response has a status of 500 or above.
    ServerError,
}

impl FailureKind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Connect, Self::Timeout, Self::Reset, Self::ServerError];

    /// The word for it in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::ServerError => "5xx",
        }
    }

    const fn bit(self) -> u8 {
        1 << (self as u8)
    }
}

/// A set of kinds of failures.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct FailureKinds(u8);

impl FailureKinds {
    /// Whether the kind is in the set.
    pub const fn contains(self, kind: FailureKind) -> bool {
        self.0 & kind.bit() != 0
    }
}

impl FromIterator<FailureKind> for FailureKinds {
    fn from_iter<T: IntoIterator<Item = FailureKind>>(kinds: T) -> Self {
        Self(kinds.into_iter().fold(0, |set, kind| set | kind.bit()))
    }
}

impl fmt::Debug for FailureKinds {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = FailureKind::ALL.into_iter();
        let contained = kinds.filter(|kind| self.contains(*kind));
        formatter.debug_set().entries(contained).finish()
    }
}

/// A share of an upstream's peers, in hundredths of a per cent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EjectedShare(pub u16);

impl EjectedShare {
    /// All peers, or 100 %.
    pub const ALL: Self = Self(10_000);

    /// The most peers of `peers` that may be ejected at a time, rounded up.
    pub const fn of(self, peers: usize) -> usize {
        peers.saturating_mul(self.0 as usize).div_ceil(10_000)
    }
}

/// The configuration of ejections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EjectionPolicy {
    /// Failures in a row; 0 counts as 1.
    pub failures: u32,
    /// The kinds of failures that count.
    pub counted: FailureKinds,
    /// The length of the first ejection.
    pub base_ejection: Duration,
    /// The longest ejection, and the time without one after which the next lasts `base_ejection` again.
    pub max_ejection: Duration,
    /// The share of the peers that may be ejected at a time; not for [`EjectionCause::Connects`].
    pub max_ejected: EjectedShare,
}

/// The failures that an ejection is due to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum EjectionCause {
    /// Failed connects only: no connection reaches the peer.
    #[default]
    Connects,
    /// Other failures too: connections reach the peer, and its responses fail.
    Responses,
}

/// The failures and ejections of one peer; starts without any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct EjectionState {
    /// Failures in a row since the last success or ejection.
    failures: u32,
    /// What they are; after an ejection, what it was due to.
    cause: EjectionCause,
    /// Ejections that count for the doubling.
    ejections: u32,
    /// When the latest ejection began.
    ejected_since: Duration,
    /// When the latest ejection ends or ended; zero: there was none.
    ejected_until: Duration,
    /// The latest ejection was ended early, or a success was recorded after it.
    is_over: bool,
}

impl EjectionState {
    /// The state of a peer that another process has ejected; `length`: the time that is left.
    pub(crate) fn restored(length: Duration, cause: EjectionCause, now: Duration) -> Self {
        Self {
            failures: 0,
            cause,
            ejections: 1,
            ejected_since: now,
            ejected_until: now.saturating_add(length),
            is_over: false,
        }
    }

    /// Whether the peer is ejected at `now`.
    pub(crate) fn is_ejected(self, now: Duration) -> bool {
        now < self.until()
    }

    /// The end of the ejection, which may have passed; zero: there is none, or a success was recorded after it.
    pub(crate) fn until(self) -> Duration {
        if self.is_over {
            Duration::ZERO
        } else {
            self.ejected_until
        }
    }

    /// The cause of the ejection, or of the one that is due.
    pub(crate) fn cause(self) -> EjectionCause {
        self.cause
    }

    /// The state after a failure.
    ///
    /// Failures while ejected do not count: those attempts had started before, or the peer was the last
    /// resort, and one outage must not double the time twice.
    #[must_use]
    pub(crate) fn on_failure(self, kind: FailureKind, now: Duration) -> Self {
        if self.is_ejected(now) {
            return self;
        }
        let cause = match (self.failures, self.cause, kind) {
            (0, _, FailureKind::Connect) | (_, EjectionCause::Connects, FailureKind::Connect) => {
                EjectionCause::Connects
            }
            _ => EjectionCause::Responses,
        };
        Self {
            failures: self.failures.saturating_add(1),
            cause,
            ..self
        }
    }

    /// Whether the failures in a row are enough for an ejection.
    pub(crate) fn is_due(self, now: Duration, policy: &EjectionPolicy) -> bool {
        !self.is_ejected(now) && self.failures > 0 && self.failures >= policy.failures
    }

    /// The state once the peer is ejected at `now`.
    #[must_use]
    pub(crate) fn eject(self, now: Duration, policy: &EjectionPolicy) -> Self {
        let ejections = self.recent_ejections(now, policy);
        Self {
            failures: 0,
            cause: self.cause,
            ejections: ejections.saturating_add(1),
            ejected_since: now,
            ejected_until: now.saturating_add(ejection_length(ejections, policy)),
            is_over: false,
        }
    }

    /// The state once an ejection that was due was not allowed: a new row begins.
    #[must_use]
    pub(crate) fn forgive(self) -> Self {
        Self {
            failures: 0,
            ..self
        }
    }

    /// The state after a success at `now` of an attempt that began at `began`. An attempt that began before the
    /// ejection ends only the row of failures.
    #[must_use]
    pub(crate) fn on_success(self, began: Duration, now: Duration) -> Self {
        if began < self.ejected_since && self.is_ejected(now) {
            return self.forgive();
        }
        self.end(now)
    }

    /// The state without failures and without an ejection after `now`.
    #[must_use]
    pub(crate) fn end(self, now: Duration) -> Self {
        Self {
            failures: 0,
            ejected_until: self.ejected_until.min(now),
            is_over: true,
            ..self
        }
    }

    fn recent_ejections(self, now: Duration, policy: &EjectionPolicy) -> u32 {
        let since_ejection = now.saturating_sub(self.ejected_until);
        if since_ejection >= policy.max_ejection {
            0
        } else {
            self.ejections
        }
    }
}

fn ejection_length(ejections_before: u32, policy: &EjectionPolicy) -> Duration {
    let doubled = policy
        .base_ejection
        .saturating_mul(2_u32.saturating_pow(ejections_before));
    doubled.min(policy.max_ejection)
}

#[cfg(test)]
impl EjectionPolicy {
    /// A policy that counts every failure and limits no ejections.
    pub(crate) const fn for_test(
        failures: u32,
        base_ejection: Duration,
        max_ejection: Duration,
    ) -> Self {
        Self {
            failures,
            counted: FailureKinds(0b1111),
            base_ejection,
            max_ejection,
            max_ejected: EjectedShare::ALL,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::FailureKind::{Connect, Reset, ServerError, Timeout};
    use super::*;

    const POLICY: EjectionPolicy = EjectionPolicy::for_test(3, s(10), s(35));

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// The state after a failure, and the end of the ejection that it caused, if any.
    fn fail(
        ejection: EjectionState,
        kind: FailureKind,
        now: Duration,
        policy: &EjectionPolicy,
    ) -> (EjectionState, Option<Duration>) {
        let failed = ejection.on_failure(kind, now);
        if !failed.is_due(now, policy) {
            return (failed, None);
        }
        let ejected = failed.eject(now, policy);
        (ejected, Some(ejected.until()))
    }

    /// Reports failures at `now` until the peer is ejected.
    fn eject(mut ejection: EjectionState, now: Duration) -> (EjectionState, Duration) {
        loop {
            let (next, until) = fail(ejection, Reset, now, &POLICY);
            ejection = next;
            if let Some(until) = until {
                return (ejection, until);
            }
        }
    }

    #[test]
    fn ejection_starts_after_consecutive_failures_of_any_kind() {
        for kinds in [[Connect; 3], [Timeout, Reset, ServerError]] {
            let (one, until) = fail(EjectionState::default(), kinds[0], s(1), &POLICY);
            assert_eq!(until, None);
            let (two, until) = fail(one, kinds[1], s(2), &POLICY);
            assert_eq!(until, None);
            let (three, until) = fail(two, kinds[2], s(3), &POLICY);
            assert_eq!(until, Some(s(13)));
            assert!(!two.is_ejected(s(3)));
            assert!(three.is_ejected(s(3)) && three.is_ejected(s(12)) && !three.is_ejected(s(13)));
        }
    }

    #[test]
    fn ejection_cause_is_connects_only_if_all_failures_of_the_row_are() {
        let cause = |kinds: &[FailureKind]| {
            let failed = |state: EjectionState, kind: &FailureKind| state.on_failure(*kind, s(1));
            kinds.iter().fold(EjectionState::default(), failed).cause()
        };
        assert_eq!(cause(&[Connect, Connect]), EjectionCause::Connects);
        for kinds in [[Connect, Reset], [Reset, Connect], [ServerError, Timeout]] {
            assert_eq!(cause(&kinds), EjectionCause::Responses, "{kinds:?}");
        }
        let next = eject(EjectionState::default(), s(1))
            .0
            .on_failure(Connect, s(60));
        assert_eq!(next.cause(), EjectionCause::Connects);
    }

    #[test]
    fn ejection_failure_count_restarts_after_a_success() {
        let (one, _) = fail(EjectionState::default(), Connect, s(1), &POLICY);
        let (two, _) = fail(one, Connect, s(2), &POLICY);
        let (one_again, until) = fail(two.on_success(s(3), s(3)), Connect, s(4), &POLICY);
        assert_eq!((one_again.failures, until), (one.failures, None));
    }

    #[test]
    fn ejection_counts_failures_however_far_apart() {
        let mut ejection = EjectionState::default();
        for failure in 1..=3 {
            let now = s(3600 * failure);
            let (next, until) = fail(ejection, Timeout, now, &POLICY);
            assert_eq!(until, (failure == 3).then_some(now + s(10)));
            ejection = next;
        }
    }

    #[test]
    fn ejection_time_doubles_up_to_its_maximum() {
        let (first, until) = eject(EjectionState::default(), s(0));
        assert_eq!(until, s(10));
        let (second, until) = eject(first, s(10));
        assert_eq!(until, s(30));
        let (third, until) = eject(second, s(30));
        assert_eq!(until, s(65));
        assert_eq!(eject(third, s(65)).1, s(100));
    }

    #[test]
    fn ejection_backoff_resets_after_the_maximum_time_without_ejection() {
        let (second, until) = eject(eject(EjectionState::default(), s(0)).0, s(10));
        assert_eq!(until, s(30));
        let ended = second.on_success(s(31), s(31));
        assert_eq!(eject(ended, s(64)).1, s(64 + 35));
        assert_eq!(eject(second, s(65)).1, s(65 + 10));
    }

    #[test]
    fn ejection_ignores_failures_while_ejected() {
        let (ejected, until) = eject(EjectionState::default(), s(0));
        assert_eq!(fail(ejected, Reset, s(9), &POLICY), (ejected, None));
        assert_eq!(until, s(10));
    }

    #[test]
    fn ejection_ends_with_a_success_of_a_later_attempt_and_keeps_its_backoff() {
        let (ejected, _) = eject(EjectionState::default(), s(100));
        assert!(ejected.on_success(s(99), s(102)).is_ejected(s(102)));
        let back = ejected.on_success(s(101), s(102));
        assert!(!back.is_ejected(s(102)));
        assert_eq!(eject(back, s(103)).1, s(123));
    }

    #[test]
    fn ejection_that_is_not_allowed_begins_a_new_row() {
        let two = EjectionState::default()
            .on_failure(Reset, s(1))
            .on_failure(Reset, s(1));
        let three = two.on_failure(Reset, s(1));
        assert!(three.is_due(s(1), &POLICY));
        assert!(
            !three
                .forgive()
                .on_failure(Reset, s(2))
                .is_due(s(2), &POLICY)
        );
    }

    #[test]
    fn ejected_share_is_rounded_up() {
        let share = EjectedShare(5_000);
        for (peers, most) in [(0, 0), (1, 1), (2, 1), (3, 2), (10, 5)] {
            assert_eq!(share.of(peers), most, "{peers}");
        }
        assert_eq!((EjectedShare(0).of(3), EjectedShare::ALL.of(3)), (0, 3));
    }

    proptest! {
        #[test]
        fn ejection_time_is_bounded_and_never_lost(
            policy in (0..4u32, 0..50u64, 0..200u64)
                .prop_map(|(failures, base, max)| EjectionPolicy::for_test(failures, s(base), s(max))),
            events in prop::collection::vec((0..5usize, 0..40u64), 0..200),
        ) {
            let mut ejection = EjectionState::default();
            let mut now = Duration::ZERO;
            for (event, pause) in events {
                now += s(pause);
                if let Some(kind) = FailureKind::ALL.get(event) {
                    let (next, until) = fail(ejection, *kind, now, &policy);
                    prop_assert!(until.is_none_or(|until| until <= now + policy.max_ejection));
                    prop_assert!(until.is_none_or(|until| next.is_ejected(now) == (now < until)));
                    ejection = next;
                } else {
                    ejection = ejection.on_success(now, now);
                    prop_assert!(!ejection.is_ejected(now));
                }
            }
        }
    }
}
