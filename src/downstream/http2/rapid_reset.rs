//! Whether a client takes requests back faster than it could have any use for them (CVE-2023-44487).
//!
//! Only a request that is taken back at once counts: before its response has begun, and within
//! [`AT_ONCE`]. Whoever cancels a long call, or one that has answered, has had what it asked for. What
//! counts is forgotten with time, and with the requests that are answered: a connection that lives long
//! is judged by what it does, not by what it did. Pure; time is an argument.

use std::time::Duration;

/// How soon a request is taken back by a client that never wanted it.
pub(super) const RAPID_RESET_AGE: Duration = Duration::from_secs(1);

/// How many requests a client may take back at once.
const BURST: u32 = 200;

/// How long it takes until one of them is forgotten.
const DECAY_INTERVAL: Duration = Duration::from_millis(100);

/// How many requests were taken back at once, of those that are not forgotten.
#[derive(Debug, Default)]
pub(super) struct RapidResetDetector {
    /// When all of them will be forgotten.
    empty_at: Duration,
}

impl RapidResetDetector {
    /// One more was taken back.
    pub(super) fn on_rapid_reset(&mut self, now: Duration) {
        self.empty_at = self.empty_at.max(now).saturating_add(DECAY_INTERVAL);
    }

    /// So many were answered.
    pub(super) fn on_responses(&mut self, count: u64) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let less = DECAY_INTERVAL.saturating_mul(count);
        self.empty_at = self.empty_at.saturating_sub(less);
    }

    /// Whether the client is not to go on like this.
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
        let mut haste = RapidResetDetector::default();
        (0..rounds).for_each(|number| round(&mut haste, number));
        haste
    }

    #[test]
    fn rapid_reset_of_all_streams_is_detected() {
        let all_back = |count| after(count, |haste, _| haste.on_rapid_reset(NOW));
        assert!(!all_back(BURST).is_exceeded(NOW));
        assert!(all_back(BURST + 1).is_exceeded(NOW));
    }

    #[test]
    fn rapid_reset_of_half_the_streams_is_tolerated() {
        let half = after(10_000, |haste, _| {
            haste.on_rapid_reset(NOW);
            haste.on_responses(1);
        });
        assert!(!half.is_exceeded(NOW));
        let more_than_half = after(3 * (BURST + 1), |haste, number| {
            haste.on_rapid_reset(NOW);
            haste.on_responses(u64::from(number % 3 == 0));
        });
        assert!(more_than_half.is_exceeded(NOW));
    }

    #[test]
    fn rapid_reset_is_detected_after_many_completed_streams() {
        let mut haste = after(BURST + 1, |haste, _| haste.on_responses(1));
        (0..=BURST).for_each(|_| haste.on_rapid_reset(NOW));
        assert!(haste.is_exceeded(NOW));
    }

    #[test]
    fn rapid_reset_count_decays_with_time() {
        let at = |number| NOW + DECAY_INTERVAL * number;
        let slow = after(10_000, |haste, number| haste.on_rapid_reset(at(number)));
        assert!(!slow.is_exceeded(at(10_000)));
        let mut fast = after(BURST + 1, |haste, _| haste.on_rapid_reset(NOW));
        assert!(!fast.is_exceeded(at(1)));
        fast.on_rapid_reset(at(BURST));
        assert!(!fast.is_exceeded(at(BURST)));
    }
}
