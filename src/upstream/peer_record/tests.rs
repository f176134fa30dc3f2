use std::sync::LazyLock;

use proptest::prelude::*;

use super::super::address::Address;
use super::super::persisted_state::PersistedPeer;
use super::*;

const THRESHOLDS: HealthThresholds = HealthThresholds { rise: 1, fall: 1 };
const EJECT: EjectionPolicy = EjectionPolicy {
    failures: 1,
    base_ejection: s(30),
    max_ejection: s(300),
};
static MANNERS: LazyLock<PeerPolicy> = LazyLock::new(|| PeerPolicy {
    cold_start: Arc::default(),
    epochs: Arc::default(),
    slow_start: Some(s(60)),
    flap_damping: Some(flap_damping::FlapDampingPolicy::DEFAULT),
    drain_deadline: Some(s(40)),
});

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A ledger that is written to as peers write to theirs.
struct Book(PeerRecord);

impl Book {
    fn new(up: bool, slowly: bool) -> Self {
        Self(PeerRecord::new(up, slowly, s(1000), &MANNERS))
    }

    fn probe(&mut self, at: u64, passes: bool) {
        let report = ProbeReport {
            ended: s(at),
            duration: Duration::ZERO,
            failure: (!passes).then(|| "refused".to_owned()),
        };
        self.0.update(s(at), &MANNERS, |record| {
            record.on_probe(report, THRESHOLDS)
        });
    }

    fn fail(&mut self, at: u64) {
        self.0.update(s(at), &MANNERS, |record| {
            record.on_connect_failure(&EJECT, s(at))
        });
    }

    fn reach(&mut self, at: u64) {
        self.0
            .update(s(at), &MANNERS, |record| record.end_ejection(s(at)));
    }

    fn drain(&mut self, at: u64, draining: bool) {
        self.0.update(s(at), &MANNERS, |record| {
            record.draining_since = draining.then_some(s(at));
        });
    }

    fn lift(&mut self, at: u64) -> bool {
        self.0.update(s(at), &MANNERS, |record| {
            record.lift_suppression(s(at), &MANNERS)
        })
    }

    /// When its slow start begins or began, where there is one.
    fn ramps_from(&self) -> Option<Duration> {
        self.0.slow_start.map(|ramp| ramp.start)
    }

    fn memory(&self, at: u64) -> PersistedPeer {
        let mut memory = PersistedPeer::unknown(Address::Ip(([127, 0, 0, 1], 1).into()));
        self.0.export(&mut memory, true, s(at));
        memory
    }
}

#[test]
fn peer_present_at_process_start_does_not_start_slowly() {
    let mut book = Book::new(false, false);
    book.probe(1001, true);
    assert_eq!(book.ramps_from(), None);
    assert_eq!(Book::new(true, false).ramps_from(), None);
}

#[test]
fn peer_that_is_new_starts_slowly_once_it_is_up() {
    assert_eq!(Book::new(true, true).ramps_from(), Some(s(1000)));
    let mut book = Book::new(false, true);
    assert_eq!(book.ramps_from(), None);
    book.probe(1010, true);
    assert_eq!(book.ramps_from(), Some(s(1010)));
    book.probe(1015, true);
    assert_eq!(book.ramps_from(), Some(s(1010)), "once");
}

#[test]
fn peer_that_recovers_starts_slowly() {
    let mut book = Book::new(true, false);
    book.probe(1001, false);
    book.probe(1100, true);
    assert_eq!(book.ramps_from(), Some(s(1100)));
    book.probe(1200, true);
    assert_eq!(book.ramps_from(), None, "it is over, and forgotten");
}

#[test]
fn peer_starts_slowly_when_an_ejection_expires() {
    let mut book = Book::new(true, false);
    book.fail(1001);
    assert_eq!(book.ramps_from(), Some(s(1031)));
}

#[test]
fn peer_starts_slowly_after_its_last_outage_cause_ends() {
    let mut book = Book::new(true, false);
    book.probe(1001, false);
    book.fail(1002); // until 1032
    let three = HealthThresholds { rise: 3, fall: 1 };
    let passed = ProbeReport {
        ended: s(1010),
        duration: Duration::ZERO,
        failure: None,
    };
    // Up by another's word than its own probes in a row: still ejected.
    book.0.update(s(1010), &MANNERS, |record| {
        record.health = health_of(true);
        record.on_probe(passed, three);
    });
    assert_eq!(book.0.off_ring_until(), s(1032));
    assert_eq!(book.ramps_from(), Some(s(1032)));
}

#[test]
fn peer_starts_slowly_at_once_after_an_early_ejection_end() {
    let mut book = Book::new(true, false);
    book.fail(1001);
    book.reach(1005);
    assert_eq!(
        (book.ramps_from(), book.0.off_ring_until()),
        (Some(s(1005)), s(0))
    );
}

#[test]
fn peer_flapping_is_suppressed_and_operator_drains_do_not_count() {
    let mut book = Book::new(true, false);
    for at in [1000, 1002, 1004, 1006] {
        book.drain(at, true);
        book.drain(at + 1, false);
    }
    assert_eq!(book.0.flap_penalty.suppression_end(), s(0));
    for at in [1010, 1012, 1014] {
        book.probe(at, false);
        book.probe(at + 1, true);
    }
    let until = book.0.flap_penalty.suppression_end();
    assert!(until > s(1060), "{until:?}");
    assert_eq!(book.0.off_ring_until(), until);
    assert_eq!(book.ramps_from(), Some(until));
    book.reach(1020);
    assert_eq!(
        book.0.flap_penalty.suppression_end(),
        until,
        "no success ends it early"
    );
}

#[test]
fn peer_enable_ends_a_suppression_and_begins_the_slow_start() {
    let mut book = Book::new(true, false);
    for at in [1010, 1012, 1014] {
        book.probe(at, false);
        book.probe(at + 1, true);
    }
    assert!(book.lift(1020));
    assert_eq!(
        (book.0.off_ring_until(), book.ramps_from()),
        (s(0), Some(s(1020)))
    );
    assert!(!book.lift(1021), "once");
    book.probe(1022, false);
    assert_eq!(
        book.0.flap_penalty.suppression_end(),
        s(0),
        "the past is forgotten"
    );
}

#[test]
fn peer_enable_does_not_end_an_ejection() {
    let mut book = Book::new(true, false);
    for at in [1010, 1012, 1014] {
        book.reach(at - 1);
        book.fail(at);
    }
    let until = book.0.ejected_until;
    assert!(book.lift(1020));
    assert_eq!(
        (book.0.off_ring_until(), book.ramps_from()),
        (until, Some(until))
    );
}

#[test]
fn peer_drain_keeps_affinity_until_its_deadline_and_an_outage_ends_it() {
    let mut book = Book::new(true, false);
    book.drain(1010, true);
    let first = book.0.epoch;
    book.drain(1049, false);
    assert_eq!((book.0.epoch, book.ramps_from()), (first, Some(s(1049))));
    book.drain(1060, true);
    book.drain(1100, false);
    let after_drain = book.0.epoch;
    book.drain(1110, true);
    book.fail(1111);
    let after_ejection = book.0.epoch;
    book.drain(1150, false);
    book.probe(1160, false);
    assert!(first != after_drain && after_drain != after_ejection);
    assert!(after_ejection != book.0.epoch);
}

#[test]
fn slow_start_end_is_not_applied_to_a_later_slow_start() {
    let mut book = Book::new(true, false);
    book.fail(1001);
    book.0.end_slow_start_if_cold(s(1010));
    let to_come = SlowStartWindow::new(s(1031), s(60), s(1010));
    assert_eq!(
        (book.0.slow_start, to_come.duration),
        (Some(to_come), s(21))
    );
    book.0.end_slow_start_if_cold(s(1031));
    assert_eq!(book.ramps_from(), None);
}

#[test]
fn peer_record_is_restored_in_another_process() {
    let mut book = Book::new(true, false);
    for at in [1000, 1002, 1004] {
        book.fail(at);
        book.reach(at + 1);
    }
    book.drain(1010, true);
    let mut next = PeerRecord::new(false, false, s(5000), &MANNERS);
    next.restore(&book.memory(1020), true, s(5000));
    let later = |at: Duration| at + s(3980);
    assert_eq!(next.draining_since, Some(later(s(1010))));
    let off_by = next
        .flap_penalty
        .suppression_end()
        .abs_diff(later(book.0.flap_penalty.suppression_end()));
    assert!(off_by <= Duration::from_millis(1), "{off_by:?}");
    assert_eq!(next.flap_penalty.last_down(), later(s(1004)));
    // The end of the drain is the begin of a slow start there, too.
    next.update(s(5010), &MANNERS, |record| record.draining_since = None);
    assert!(next.slow_start.is_some_and(|ramp| ramp.start >= s(5010)));
}

#[test]
fn peer_slow_start_continues_in_another_process() {
    let mut book = Book::new(true, false);
    book.probe(1001, false);
    book.probe(1010, true);
    let mut next = PeerRecord::new(false, true, s(5000), &MANNERS);
    next.restore(&book.memory(1040), true, s(5000));
    let ramp = next.slow_start.unwrap();
    assert_eq!((ramp.start, ramp.duration), (s(4970), s(60)));
    next.update(s(5001), &MANNERS, |_| ());
    assert_eq!(next.slow_start, Some(ramp), "and does not begin anew");
}

#[test]
fn slow_start_age_below_one_millisecond_is_not_rounded_up() {
    let mut book = Book::new(false, true);
    let began = Duration::from_micros(999_940_600);
    book.0
        .update(began, &MANNERS, |record| record.health = health_of(true));
    let memory = book.memory(1000);
    let mut next = PeerRecord::new(false, false, s(5000), &MANNERS);
    next.restore(&memory, true, s(5000));
    let mut again = PersistedPeer::unknown(Address::Ip(([127, 0, 0, 1], 1).into()));
    next.export(&mut again, true, s(5000));
    assert_eq!(memory.slow_start.unwrap().elapsed_ms, 60);
    assert_eq!(again.slow_start, memory.slow_start);
}

#[test]
fn peer_that_never_flapped_exports_no_flap_state() {
    let book = Book::new(true, false);
    assert_eq!(book.memory(1000), book.memory(2000));
}

proptest! {
    /// Whatever happens: it is never back with all its keys at once, and what is remembered is
    /// what is recalled.
    #[test]
    fn peer_never_returns_without_a_slow_start(
        up in any::<bool>(),
        events in prop::collection::vec((0..9_u8, 1..40_u64), 1..60),
    ) {
        let mut book = Book::new(up, false);
        let mut now = 1000;
        let mut away: Option<u64> = None;
        for (event, pause) in events {
            for second in now..now + pause {
                let standing = book.0.availability(s(second));
                if standing == Availability::OutOfService || book.0.off_ring_until() > s(second) {
                    away = Some(second);
                } else if standing == Availability::InService && let Some(last) = away {
                    let ramp = book.0.slow_start.filter(|ramp| !ramp.is_complete(s(second)));
                    prop_assert!(
                        second > last + 60 || ramp.is_some_and(|ramp| ramp.start > s(last)),
                        "at {second}, away until {last}: {:?}", book.0
                    );
                }
            }
            now += pause;
            match event {
                0 => book.probe(now, false),
                1 => book.probe(now, true),
                2 => book.fail(now),
                3 => book.reach(now),
                4 => book.drain(now, true),
                5 => book.drain(now, false),
                8 => _ = book.lift(now),
                6 => book.0 = book.0.with_health_reset(true, s(now), &MANNERS),
                _ => book.0 = book.0.with_health_reset(false, s(now), &MANNERS),
            }
        }
        let mut next = PeerRecord::new(false, false, s(9000), &MANNERS);
        next.restore(&book.memory(now), true, s(9000));
        let mut again = PersistedPeer::unknown(Address::Ip(([127, 0, 0, 1], 1).into()));
        next.export(&mut again, true, s(9000));
        again.epoch = book.0.epoch.0;
        prop_assert_eq!(again, book.memory(now));
    }
}
