//! How long a failed request to the API server is followed by none.
//!
//! 100 ms after the first failure, doubled with each one in a row, up to 5 s. Up to half of it is left out at random, so
//! that many instances do not ask a server that has just returned in step.

use std::time::Duration;

/// The pause after the first failure.
const FIRST: Duration = Duration::from_millis(100);

/// The longest pause.
const LONGEST: Duration = Duration::from_secs(5);

/// The failed requests in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ReconnectDelay {
    failures: u32,
}

impl ReconnectDelay {
    /// The pause after another failure; `random` is 0.0 ..= 1.0.
    pub(super) fn after_failure(&mut self, random: f64) -> Duration {
        let doubled = FIRST.saturating_mul(2_u32.saturating_pow(self.failures));
        self.failures = self.failures.saturating_add(1);
        let share = 0.5 + 0.5 * random.clamp(0.0, 1.0);
        doubled.min(LONGEST).mul_f64(share)
    }

    /// After a success.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pause_after_each_failure_is_doubled_up_to_five_seconds_until_a_success() {
        let mut delay = ReconnectDelay::default();
        let mut pauses = |count: usize| -> Vec<u128> {
            (0..count)
                .map(|_| delay.after_failure(1.0).as_millis())
                .collect()
        };
        let expected = [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000];
        assert_eq!(pauses(8), expected);
        assert_eq!(pauses(100).last(), Some(&5_000));
        delay.reset();
        assert_eq!(delay.after_failure(1.0), FIRST);
    }

    #[test]
    fn pause_is_shortened_by_half_at_most() {
        for (random, expected) in [(0.0, 50), (0.5, 75), (1.0, 100), (-3.0, 50), (9.0, 100)] {
            let mut delay = ReconnectDelay::default();
            assert_eq!(delay.after_failure(random).as_millis(), expected);
        }
    }
}
