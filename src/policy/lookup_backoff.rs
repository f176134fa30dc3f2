//! When a name that could not be resolved is looked up again.
//!
//! The first lookup follows after 1 s, for a name server that just restarts. Each failure doubles the time, up to 30 s:
//! the usual time for which a resolver keeps a negative answer is longer (RFC 2308 §5), and a name server that returns
//! must not be flooded. A spread of 10 % keeps many instances from asking in step.

use std::time::Duration;

/// The time between the first failed lookup and the second.
const FIRST: Duration = Duration::from_secs(1);

/// The longest time between two lookups, without the spread.
const LONGEST: Duration = Duration::from_secs(30);

/// The largest deviation, as a share of the time, in either direction.
const SPREAD: f64 = 0.1;

/// The failed lookups of one name, in a row, and the time of the next one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct LookupBackoff {
    failures: u32,
    next: Duration,
}

impl LookupBackoff {
    /// After the first failed lookup, which ended at `now`; `random` is 0.0 ..= 1.0.
    pub(crate) fn after_first_failure(now: Duration, random: f64) -> Self {
        Self {
            failures: 0,
            next: now,
        }
        .after_failure(now, random)
    }

    /// After another failed lookup.
    #[must_use]
    pub(crate) fn after_failure(self, now: Duration, random: f64) -> Self {
        let doubled = FIRST.saturating_mul(2_u32.saturating_pow(self.failures));
        let spread = 1.0 + SPREAD * (2.0 * random.clamp(0.0, 1.0) - 1.0);
        Self {
            failures: self.failures.saturating_add(1),
            next: now.saturating_add(doubled.min(LONGEST).mul_f64(spread)),
        }
    }

    /// When the name is looked up again.
    pub(crate) fn next(self) -> Duration {
        self.next
    }

    /// Whether the name is to be looked up.
    pub(crate) fn is_due(self, now: Duration) -> bool {
        self.next <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    /// The times between the lookups of a name that is never resolved, each at once when it is due.
    fn pauses(random: f64, count: usize) -> Vec<f64> {
        let mut backoff = LookupBackoff::after_first_failure(NOW, random);
        let mut last = NOW;
        let mut pauses = Vec::new();
        for _ in 0..count {
            let next = backoff.next();
            assert!(!backoff.is_due(next.saturating_sub(Duration::from_nanos(1))));
            assert!(backoff.is_due(next));
            pauses.push(next.saturating_sub(last).as_secs_f64());
            last = next;
            backoff = backoff.after_failure(next, random);
        }
        pauses
    }

    #[test]
    fn lookup_after_each_failure_waits_twice_as_long_up_to_the_limit() {
        let expected = [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0];
        assert_eq!(pauses(0.5, 7), expected);
        // Many failures neither overflow nor exceed the limit.
        assert_eq!(pauses(0.5, 100).last(), Some(&30.0));
    }

    #[test]
    fn lookup_times_are_spread_by_a_tenth_at_most() {
        for (random, factor) in [(0.0, 0.9), (1.0, 1.1), (-5.0, 0.9), (5.0, 1.1)] {
            for (pause, plain) in pauses(random, 10).iter().zip(pauses(0.5, 10)) {
                assert!((pause - plain * factor).abs() < 1e-6, "{random}: {pause}");
            }
        }
    }

    #[test]
    fn lookup_that_took_long_is_followed_by_a_full_pause() {
        let backoff = LookupBackoff::after_first_failure(NOW, 0.5);
        let slow = backoff.next() + Duration::from_secs(10);
        let after = backoff.after_failure(slow, 0.5);
        assert_eq!(after.next(), slow + Duration::from_secs(2));
    }
}
