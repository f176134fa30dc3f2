//! Which member of etcd is asked next, and when.
//!
//! The members are asked in turn, from a random one on, so that many instances do not ask the same one. The pause doubles
//! with each round of failures; its spread keeps instances from returning in step.

use std::time::Duration;

/// The longest pause in the first round of failures.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause. A connection that lasted this long was no failure of the member.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The turns of the members, and the failures so far.
#[derive(Clone, Debug)]
pub(super) struct Reconnect {
    members: usize,
    next: usize,
    /// Connections in a row that ended early.
    failures: u32,
    /// Attempts in a row that yielded no list.
    without_list: usize,
}

impl Reconnect {
    /// For this many members; `random` is 0.0 ..= 1.0.
    pub(super) fn new(members: usize, random: f64) -> Self {
        let next = Duration::from_secs(members as u64).mul_f64(random.clamp(0.0, 1.0));
        Self {
            members,
            next: usize::try_from(next.as_secs()).unwrap_or(0) % members.max(1),
            failures: 0,
            without_list: 0,
        }
    }

    /// The index of the member that is asked now.
    pub(super) fn member(&self) -> usize {
        self.next
    }

    /// Takes the end of an attempt; returns the pause before the next one. `listed_for`: the time since the member has
    /// yielded a list; `None`: it has not. `random` is 0.0 ..= 1.0.
    pub(super) fn note_end(&mut self, listed_for: Option<Duration>, random: f64) -> Duration {
        let members = self.members.max(1);
        self.next = (self.next + 1) % members;
        self.without_list = match listed_for {
            Some(_) => 0,
            None => self.without_list.saturating_add(1),
        };
        let was_stable = listed_for.is_some_and(|time| time >= LONGEST_PAUSE);
        self.failures = if was_stable {
            0
        } else {
            self.failures.saturating_add(1)
        };
        let rounds = self.failures.saturating_sub(1) / u32::try_from(members).unwrap_or(u32::MAX);
        let pause = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(rounds));
        pause
            .min(LONGEST_PAUSE)
            .mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0))
    }

    /// Whether all members have failed since the last list.
    pub(super) fn all_failed(&self) -> bool {
        self.without_list >= self.members.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_etcd_take_turns_from_a_random_one_on() {
        for (random, first) in [(0.0, 0), (0.4, 1), (0.99, 2), (1.0, 0), (9.0, 0)] {
            let mut reconnect = Reconnect::new(3, random);
            let mut turns = Vec::new();
            for _ in 0..4 {
                turns.push(reconnect.member());
                reconnect.note_end(None, 0.0);
            }
            let expected: Vec<_> = (0..4).map(|turn| (first + turn) % 3).collect();
            assert_eq!(turns, expected, "{random}");
        }
        assert_eq!(Reconnect::new(0, 0.5).member(), 0);
    }

    #[test]
    fn pause_before_etcd_doubles_with_each_round_up_to_the_limit() {
        let mut reconnect = Reconnect::new(2, 0.0);
        let pauses: Vec<_> = (0..14)
            .map(|_| reconnect.note_end(None, 1.0).as_millis())
            .collect();
        let expected = [
            100, 100, 200, 200, 400, 400, 800, 800, 1600, 1600, 3200, 3200, 5000, 5000,
        ];
        assert_eq!(pauses, expected);
        // A short connection is a failure, too; a long one ends the row.
        let short = Some(Duration::from_secs(1));
        assert_eq!(reconnect.note_end(short, 0.0).as_millis(), 2500);
        let long = Some(Duration::from_secs(5));
        assert_eq!(reconnect.note_end(long, 1.0).as_millis(), 100);
        for _ in 0..100 {
            reconnect.note_end(None, 1.0);
        }
        assert_eq!(reconnect.note_end(None, 1.0), LONGEST_PAUSE);
    }

    #[test]
    fn etcd_has_failed_after_an_attempt_of_each_member_without_a_list() {
        let mut reconnect = Reconnect::new(2, 0.0);
        assert!(!reconnect.all_failed());
        reconnect.note_end(None, 0.0);
        assert!(!reconnect.all_failed());
        reconnect.note_end(None, 0.0);
        assert!(reconnect.all_failed());
        reconnect.note_end(Some(Duration::ZERO), 0.0);
        assert!(
            !reconnect.all_failed(),
            "a lost connection is no failure yet"
        );
    }
}
