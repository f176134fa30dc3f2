//! Whether a client takes requests back faster than it could have any use for them (CVE-2023-44487).
//!
//! Only a request that is taken back at once counts: before its response has begun, and within
//! [`AT_ONCE`]. Whoever cancels a long call, or one that has answered, has had what it asked for. What
//! counts is forgotten with time, and with the requests that are answered: a connection that lives long
//! is judged by what it does, not by what it did. Pure; time is an argument.

use std::time::Duration;

/// How soon a request is taken back by a client that never wanted it.
pub(super) const AT_ONCE: Duration = Duration::from_secs(1);

/// How many requests a client may take back at once.
const FIRST: u32 = 200;

/// How long it takes until one of them is forgotten.
const EACH: Duration = Duration::from_millis(100);

/// How many requests were taken back at once, of those that are not forgotten.
#[derive(Debug, Default)]
pub(super) struct Haste {
    /// When all of them will be forgotten.
    calm_at: Duration,
}

impl Haste {
    /// One more was taken back.
    pub(super) fn taken_back(&mut self, now: Duration) {
        self.calm_at = self.calm_at.max(now).saturating_add(EACH);
    }

    /// So many were answered.
    pub(super) fn answered(&mut self, count: u64) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let less = EACH.saturating_mul(count);
        self.calm_at = self.calm_at.saturating_sub(less);
    }

    /// Whether the client is not to go on like this.
    pub(super) fn is_too_great(&self, now: Duration) -> bool {
        self.calm_at.saturating_sub(now) > EACH * FIRST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1000);

    fn after(rounds: u32, mut round: impl FnMut(&mut Haste, u32)) -> Haste {
        let mut haste = Haste::default();
        (0..rounds).for_each(|number| round(&mut haste, number));
        haste
    }

    #[test]
    fn who_takes_all_back_is_stopped() {
        let all_back = |count| after(count, |haste, _| haste.taken_back(NOW));
        assert!(!all_back(FIRST).is_too_great(NOW));
        assert!(all_back(FIRST + 1).is_too_great(NOW));
    }

    #[test]
    fn who_takes_half_back_is_not() {
        let half = after(10_000, |haste, _| {
            haste.taken_back(NOW);
            haste.answered(1);
        });
        assert!(!half.is_too_great(NOW));
        let more_than_half = after(3 * (FIRST + 1), |haste, number| {
            haste.taken_back(NOW);
            haste.answered(u64::from(number % 3 == 0));
        });
        assert!(more_than_half.is_too_great(NOW));
    }

    #[test]
    fn what_was_answered_before_excuses_nothing() {
        let mut haste = after(FIRST + 1, |haste, _| haste.answered(1));
        (0..=FIRST).for_each(|_| haste.taken_back(NOW));
        assert!(haste.is_too_great(NOW));
    }

    #[test]
    fn it_is_forgotten_with_time() {
        let at = |number| NOW + EACH * number;
        let slow = after(10_000, |haste, number| haste.taken_back(at(number)));
        assert!(!slow.is_too_great(at(10_000)));
        let mut fast = after(FIRST + 1, |haste, _| haste.taken_back(NOW));
        assert!(!fast.is_too_great(at(1)));
        fast.taken_back(at(FIRST));
        assert!(!fast.is_too_great(at(FIRST)));
    }
}
