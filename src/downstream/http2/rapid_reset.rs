//! Detects HTTP/2 rapid reset (CVE-2023-44487): a client that opens streams and resets them at once.
//!
//! A reset is rapid if it arrives within [`RAPID_RESET_AGE`] and before the response has begun; cancelling
//! an older stream, or one with a response, does not count. The count is a leaky bucket: it decreases
//! with time and with each response, so only the recent behaviour of a connection matters. Pure; time is
//! an argument.

use std::time::Duration;

/// The age from which the reset of a stream is no longer rapid.
pub(super) const RAPID_RESET_AGE: Duration = Duration::from_secs(1);

/// The most rapid resets that the bucket may contain.
const BURST: u32 = 200;

/// The time in which one rapid reset leaks out of the bucket.
const DECAY_INTERVAL: Duration = Duration::from_millis(100);

/// Counts the rapid resets of one connection.
#[derive(Debug, Default)]
pub(super) struct RapidResetDetector {
    /// When the bucket will be empty; it holds one reset for each [`DECAY_INTERVAL`] until then.
    empty_at: Duration,
}

impl RapidResetDetector {
    /// Adds one rapid reset.
    pub(super) fn on_rapid_reset(&mut self, now: Duration) {
        self.empty_at = self.empty_at.max(now).saturating_add(DECAY_INTERVAL);
    }

    /// Removes one reset for each of `count` responses that have begun.
    pub(super) fn on_responses(&mut self, count: u64) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let decay = DECAY_INTERVAL.saturating_mul(count);
        self.empty_at = self.empty_at.saturating_sub(decay);
    }

    /// Whether there are more than [`BURST`] resets in the bucket.
    pub(super) fn is_exceeded(&self, now: Duration) -> bool {
        self.empty_at.saturating_sub(now) > DECAY_INTERVAL * BURST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1000);

    fn after(
        rounds: u32,
        mut round: impl FnMut(&mut RapidResetDetector, u32),
    ) -> RapidResetDetector {
        let mut detector = RapidResetDetector::default();
        (0..rounds).for_each(|number| round(&mut detector, number));
        detector
    }

    #[test]
    fn rapid_reset_of_all_streams_is_detected() {
        let resets = |count| after(count, |detector, _| detector.on_rapid_reset(NOW));
        assert!(!resets(BURST).is_exceeded(NOW));
        assert!(resets(BURST + 1).is_exceeded(NOW));
    }

    #[test]
    fn rapid_reset_of_half_the_streams_is_tolerated() {
        let half = after(10_000, |detector, _| {
            detector.on_rapid_reset(NOW);
            detector.on_responses(1);
        });
        assert!(!half.is_exceeded(NOW));
        let more_than_half = after(3 * (BURST + 1), |detector, number| {
            detector.on_rapid_reset(NOW);
            detector.on_responses(u64::from(number % 3 == 0));
        });
        assert!(more_than_half.is_exceeded(NOW));
    }

    #[test]
    fn rapid_reset_is_detected_after_many_completed_streams() {
        let mut detector = after(BURST + 1, |detector, _| detector.on_responses(1));
        (0..=BURST).for_each(|_| detector.on_rapid_reset(NOW));
        assert!(detector.is_exceeded(NOW));
    }

    #[test]
    fn rapid_reset_count_decays_with_time() {
        let at = |number| NOW + DECAY_INTERVAL * number;
        let slow = after(10_000, |detector, number| {
            detector.on_rapid_reset(at(number));
        });
        assert!(!slow.is_exceeded(at(10_000)));
        let mut fast = after(BURST + 1, |detector, _| detector.on_rapid_reset(NOW));
        assert!(!fast.is_exceeded(at(1)));
        fast.on_rapid_reset(at(BURST));
        assert!(!fast.is_exceeded(at(BURST)));
    }
}
