//! When failures of real traffic take a peer off the walk, and for how long.
//!
//! `failures` failed connects in a row eject a peer for `eject`. In a row means: no success between two
//! of them, and no more than `eject`; requests on pooled connections say nothing here, so without that
//! bound, one failure a day would eject a peer that is well in between. Each further ejection lasts twice as
//! long, up to `max_eject`; after a peer has stayed without one for `max_eject`, counting starts anew.
//! A connect that succeeds ends both the count and the ejection: the peer is there, and its keys come home.
//!
//! Ejection is advice, not a verdict: where nothing else is left, the caller uses ejected peers
//! before it answers 503. Probes are judged in [`health`](super::health); neither overrules the other.
//!
//! Times are durations since the process started.

use std::time::Duration;

/// When a peer is ejected, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EjectionPolicy {
    /// Failed connects in a row; 0 counts as 1.
    pub failures: u32,
    /// The length of the first ejection, and how long a failed connect counts without another.
    pub base_ejection: Duration,
    /// The longest ejection, and how long a peer must stay well until its past is forgotten.
    pub max_ejection: Duration,
}

/// What real traffic found out about one peer; starts without a failure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EjectionState {
    /// Failed connects in a row since the last success or ejection.
    failures: u32,
    /// When the last of them was.
    last_failure: Duration,
    /// Ejections that are not forgotten yet.
    ejections: u32,
    /// When the latest ejection ends or ended; zero: there was none.
    ejected_until: Duration,
}

impl EjectionState {
    /// Whether the peer is ejected at `now`.
    pub fn is_ejected(self, now: Duration) -> bool {
        now < self.ejected_until
    }

    /// After a failed connect; with the end of the ejection, if this one caused it.
    ///
    /// Failures while ejected do not count: they are of connects that were under way, or of the last
    /// resort, and one outage must not double the time more than once.
    #[must_use]
    pub fn on_failure(self, now: Duration, rules: &EjectionPolicy) -> (Self, Option<Duration>) {
        if self.is_ejected(now) {
            return (self, None);
        }
        let failures = self.recent_failures(now, rules).saturating_add(1);
        if failures < rules.failures {
            let counted = Self {
                failures,
                last_failure: now,
                ..self
            };
            return (counted, None);
        }
        let before = self.recent_ejections(now, rules);
        let until = now.saturating_add(ejection_length(before, rules));
        let ejections = before.saturating_add(1);
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

    /// After a connect that succeeded.
    #[must_use]
    pub fn on_success(self, now: Duration) -> Self {
        Self {
            failures: 0,
            ejected_until: self.ejected_until.min(now),
            ..self
        }
    }

    /// The failures that still count.
    fn recent_failures(self, now: Duration, rules: &EjectionPolicy) -> u32 {
        if now.saturating_sub(self.last_failure) > rules.base_ejection {
            0
        } else {
            self.failures
        }
    }

    fn recent_ejections(self, now: Duration, rules: &EjectionPolicy) -> u32 {
        let well_for = now.saturating_sub(self.ejected_until);
        if well_for >= rules.max_ejection {
            0
        } else {
            self.ejections
        }
    }
}

fn ejection_length(before: u32, rules: &EjectionPolicy) -> Duration {
    let doubled = rules
        .base_ejection
        .saturating_mul(2_u32.saturating_pow(before));
    doubled.min(rules.max_ejection)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULES: EjectionPolicy = EjectionPolicy {
        failures: 3,
        base_ejection: Duration::from_secs(10),
        max_ejection: Duration::from_secs(35),
    };

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Fails at `now` until ejected.
    fn eject(mut ejection: EjectionState, now: Duration) -> (EjectionState, Duration) {
        loop {
            let (next, until) = ejection.on_failure(now, &RULES);
            ejection = next;
            if let Some(until) = until {
                return (ejection, until);
            }
        }
    }

    #[test]
    fn ejection_starts_after_consecutive_failures() {
        let (one, until) = EjectionState::default().on_failure(s(1), &RULES);
        assert_eq!(until, None);
        let (two, until) = one.on_failure(s(2), &RULES);
        assert_eq!(until, None);
        let (three, until) = two.on_failure(s(3), &RULES);
        assert_eq!(until, Some(s(13)));
        assert!(!two.is_ejected(s(3)));
        assert!(three.is_ejected(s(3)) && three.is_ejected(s(12)) && !three.is_ejected(s(13)));
    }

    #[test]
    fn ejection_failure_count_restarts_after_a_success() {
        let (one, _) = EjectionState::default().on_failure(s(1), &RULES);
        let (two, _) = one.on_failure(s(2), &RULES);
        let (one_again, until) = two.on_success(s(3)).on_failure(s(4), &RULES);
        assert_eq!((one_again.failures, until), (one.failures, None));
    }

    #[test]
    fn ejection_failures_outside_the_window_are_not_consecutive() {
        let mut ejection = EjectionState::default();
        for failure in 1..20 {
            let (next, until) = ejection.on_failure(s(11 * failure), &RULES);
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
        assert_eq!(ejected.on_failure(s(9), &RULES), (ejected, None));
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
            rules in (0..4u32, 0..50u64, 0..200u64).prop_map(|(failures, eject, max)| EjectionPolicy {
                failures, base_ejection: s(eject), max_ejection: s(max),
            }),
            events in prop::collection::vec((any::<bool>(), 0..40u64), 0..200),
        ) {
            let mut ejection = EjectionState::default();
            let mut now = Duration::ZERO;
            for (failed, pause) in events {
                now += s(pause);
                if failed {
                    let (next, until) = ejection.on_failure(now, &rules);
                    prop_assert!(until.is_none_or(|until| until <= now + rules.max_ejection));
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
