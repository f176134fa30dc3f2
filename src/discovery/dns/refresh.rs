//! When a name is looked up again.
//!
//! After an answer: when its shortest time to live is over, and a little later, so that a cache in between has the next
//! answer, and many instances do not ask in step. The bounds keep a record that is valid for 0 s, as resolvers give it
//! while they serve what is out of date, from being asked for all the time, and one that is valid for days from hiding a
//! change. After a failure: as [`LookupBackoff`]; the answer before stays in force meanwhile.

use std::time::Duration;

use crate::policy::lookup_backoff::LookupBackoff;

/// The shortest time between two lookups of a name.
const SHORTEST: Duration = Duration::from_secs(1);

/// The longest time between two lookups of a name, without the spread.
const LONGEST: Duration = Duration::from_secs(300);

/// The largest delay, as a share of the time.
const SPREAD: f64 = 0.1;

/// When a name is looked up next.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct RefreshSchedule {
    next: Duration,
    backoff: Option<LookupBackoff>,
}

impl RefreshSchedule {
    /// The time of the next lookup; a new schedule: at once.
    pub(super) fn next(&self) -> Duration {
        self.next
    }

    /// After an answer that is valid for this long; `random` is 0.0 ..= 1.0.
    pub(super) fn note_answer(&mut self, valid_for: Duration, now: Duration, random: f64) {
        self.next = end_of_life(valid_for, now, random);
        self.backoff = None;
    }

    /// After an answer with a gap: as after a failure, but what the answer has is not kept for longer than it is valid.
    pub(super) fn note_incomplete(&mut self, valid_for: Duration, now: Duration, random: f64) {
        self.note_failure(now, random);
        self.next = self.next.min(end_of_life(valid_for, now, random));
    }

    /// After a lookup that failed.
    pub(super) fn note_failure(&mut self, now: Duration, random: f64) {
        let backoff = match self.backoff {
            Some(backoff) => backoff.after_failure(now, random),
            None => LookupBackoff::after_first_failure(now, random),
        };
        self.next = backoff.next();
        self.backoff = Some(backoff);
    }
}

fn end_of_life(valid_for: Duration, now: Duration, random: f64) -> Duration {
    let bounded = valid_for.clamp(SHORTEST, LONGEST);
    let spread = 1.0 + SPREAD * random.clamp(0.0, 1.0);
    now.saturating_add(bounded.mul_f64(spread))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(50);

    fn pause(valid_for: Duration, random: f64) -> f64 {
        let mut schedule = RefreshSchedule::default();
        schedule.note_answer(valid_for, NOW, random);
        schedule.next().saturating_sub(NOW).as_secs_f64()
    }

    #[test]
    fn lookup_after_an_answer_waits_for_its_time_to_live_within_bounds() {
        for (ttl, earliest) in [(0, 1.0), (1, 1.0), (5, 5.0), (300, 300.0), (86_400, 300.0)] {
            let ttl = Duration::from_secs(ttl);
            for (random, factor) in [(0.0, 1.0), (0.5, 1.05), (1.0, 1.1), (7.0, 1.1), (-1.0, 1.0)] {
                let pause = pause(ttl, random);
                assert!(
                    (pause - earliest * factor).abs() < 1e-6,
                    "{ttl:?} {random}: {pause}"
                );
            }
        }
    }

    #[test]
    fn lookups_of_a_record_that_is_always_valid_for_0_s_are_at_most_one_a_second() {
        let (mut schedule, mut now, mut lookups) = (RefreshSchedule::default(), NOW, 0);
        while now < NOW + Duration::from_secs(60) {
            lookups += 1;
            schedule.note_answer(Duration::ZERO, now, 0.0);
            now = schedule.next();
        }
        assert_eq!(lookups, 60);
    }

    #[test]
    fn lookups_after_failures_wait_longer_each_time_until_an_answer() {
        let mut schedule = RefreshSchedule::default();
        assert_eq!(schedule.next(), Duration::ZERO);
        let mut now = NOW;
        let mut pauses = Vec::new();
        for _ in 0..7 {
            schedule.note_failure(now, 0.5);
            pauses.push(schedule.next().saturating_sub(now).as_secs());
            now = schedule.next();
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        schedule.note_answer(Duration::from_secs(5), now, 0.0);
        schedule.note_failure(now, 0.5);
        assert_eq!(schedule.next().saturating_sub(now).as_secs(), 1);
    }

    #[test]
    fn lookups_after_incomplete_answers_are_at_least_as_often_as_the_time_to_live_says() {
        for (ttl, expected) in [
            (0, [1, 1, 1, 1, 1]),
            (5, [1, 2, 4, 5, 5]),
            (600, [1, 2, 4, 8, 16]),
        ] {
            let (mut schedule, mut now) = (RefreshSchedule::default(), NOW);
            for pause in expected {
                schedule.note_incomplete(Duration::from_secs(ttl), now, 0.5);
                assert_eq!(
                    schedule.next().saturating_sub(now).as_secs(),
                    pause,
                    "{ttl}"
                );
                now = schedule.next();
            }
        }
    }
}
