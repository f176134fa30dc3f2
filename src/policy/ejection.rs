//! Passive outlier detection: when failed connects take a peer off the ring, and for how long.
//!
//! `failures` failed connects in a row eject a peer for `base_ejection`. In a row: without a success
//! between two of them, and no more than `base_ejection` apart. Requests on pooled connections are not seen
//! here, so without that limit one failure a day would eject a healthy peer. Each further ejection lasts
//! twice as long, up to `max_ejection`; after `max_ejection` without one, the next lasts `base_ejection` again. A
//! successful connect ends both the count and the ejection: the peer takes its keys again.
//!
//! An ejection is advice: when no other peer is left the caller uses ejected peers before it answers 503.
//! Probes are counted in [`health`](super::health), independently of this.
//!
//! Times are durations since the process started.

use std::time::Duration;

/// The configuration of ejections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EjectionPolicy {
    /// Failed connects in a row; 0 counts as 1.
    pub failures: u32,
    /// The length of the first ejection, and the longest time between two failures in a row.
    pub base_ejection: Duration,
    /// The longest ejection, and the time without one after which the next lasts `base_ejection` again.
    pub max_ejection: Duration,
}

/// The failures and ejections of one peer; starts without any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct EjectionState {
    /// Failed connects in a row since the last success or ejection.
    failures: u32,
    /// When the last of them was.
    last_failure: Duration,
    /// Ejections that count for the doubling.
    ejections: u32,
    /// When the latest ejection ends or ended; zero: there was none.
    ejected_until: Duration,
}

impl EjectionState {
    /// Whether the peer is ejected at `now`.
    pub(crate) fn is_ejected(self, now: Duration) -> bool {
        now < self.ejected_until
    }

    /// The state after a failed connect, and the end of the ejection that it caused, if any.
    ///
    /// Failures while ejected do not count: those connects had started before, or the peer was the last
    /// resort, and one outage must not double the time twice.
    #[must_use]
    pub(crate) fn on_failure(
        self,
        now: Duration,
        policy: &EjectionPolicy,
    ) -> (Self, Option<Duration>) {
        if self.is_ejected(now) {
            return (self, None);
        }
        let failures = self.recent_failures(now, policy).saturating_add(1);
        if failures < policy.failures {
            let counted = Self {
                failures,
                last_failure: now,
                ..self
            };
            return (counted, None);
        }
        let ejections = self.recent_ejections(now, policy);
        let until = now.saturating_add(ejection_length(ejections, policy));
        let ejections = ejections.saturating_add(1);
        (
            Self {
                failures: 0,
                last_failure: now,
                ejections,
                ejected_until: until,
            },
            Some(until),
        )
    }

    /// The state after a successful connect.
    #[must_use]
    pub(crate) fn on_success(self, now: Duration) -> Self {
        Self {
            failures: 0,
            ejected_until: self.ejected_until.min(now),
            ..self
        }
    }

    /// The failures in a row, if the last is not too long ago.
    fn recent_failures(self, now: Duration, policy: &EjectionPolicy) -> u32 {
        if now.saturating_sub(self.last_failure) > policy.base_ejection {
            0
        } else {
            self.failures
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: EjectionPolicy = EjectionPolicy {
        failures: 3,
        base_ejection: Duration::from_secs(10),
        max_ejection: Duration::from_secs(35),
    };

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Reports failures at `now` until the peer is ejected.
    fn eject(mut ejection: EjectionState, now: Duration) -> (EjectionState, Duration) {
        loop {
            let (next, until) = ejection.on_failure(now, &POLICY);
            ejection = next;
            if let Some(until) = until {
                return (ejection, until);
            }
        }
    }

    #[test]
    fn ejection_starts_after_consecutive_failures() {
        let (one, until) = EjectionState::default().on_failure(s(1), &POLICY);
        assert_eq!(until, None);
        let (two, until) = one.on_failure(s(2), &POLICY);
        assert_eq!(until, None);
        let (three, until) = two.on_failure(s(3), &POLICY);
        assert_eq!(until, Some(s(13)));
        assert!(!two.is_ejected(s(3)));
        assert!(three.is_ejected(s(3)) && three.is_ejected(s(12)) && !three.is_ejected(s(13)));
    }

    #[test]
    fn ejection_failure_count_restarts_after_a_success() {
        let (one, _) = EjectionState::default().on_failure(s(1), &POLICY);
        let (two, _) = one.on_failure(s(2), &POLICY);
        let (one_again, until) = two.on_success(s(3)).on_failure(s(4), &POLICY);
        assert_eq!((one_again.failures, until), (one.failures, None));
    }

    #[test]
    fn ejection_failures_outside_the_window_are_not_consecutive() {
        let mut ejection = EjectionState::default();
        for failure in 1..20 {
            let (next, until) = ejection.on_failure(s(11 * failure), &POLICY);
            assert_eq!(until, None, "failure {failure}");
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
        assert_eq!(eject(second.on_success(s(31)), s(64)).1, s(64 + 35));
        assert_eq!(eject(second, s(65)).1, s(65 + 10));
    }

    #[test]
    fn ejection_ignores_failures_while_ejected() {
        let (ejected, until) = eject(EjectionState::default(), s(0));
        assert_eq!(ejected.on_failure(s(9), &POLICY), (ejected, None));
        assert_eq!(until, s(10));
    }

    #[test]
    fn ejection_ends_with_a_success_and_keeps_its_backoff() {
        let (ejected, _) = eject(EjectionState::default(), s(100));
        let back = ejected.on_success(s(102));
        assert!(!back.is_ejected(s(102)));
        assert_eq!(eject(back, s(103)).1, s(123));
    }

    proptest! {
        #[test]
        fn ejection_time_is_bounded_and_never_lost(
            policy in (0..4u32, 0..50u64, 0..200u64).prop_map(|(failures, eject, max)| EjectionPolicy {
                failures, base_ejection: s(eject), max_ejection: s(max),
            }),
            events in prop::collection::vec((any::<bool>(), 0..40u64), 0..200),
        ) {
            let mut ejection = EjectionState::default();
            let mut now = Duration::ZERO;
            for (failed, pause) in events {
                now += s(pause);
                if failed {
                    let (next, until) = ejection.on_failure(now, &policy);
                    prop_assert!(until.is_none_or(|until| until <= now + policy.max_ejection));
                    prop_assert!(until.is_none_or(|until| next.is_ejected(now) == (now < until)));
                    ejection = next;
                } else {
                    ejection = ejection.on_success(now);
                    prop_assert!(!ejection.is_ejected(now));
                }
            }
        }
    }
}
