use std::sync::LazyLock;

use proptest::prelude::*;

use super::super::address::Address;
use super::super::persisted_state::PersistedPeer;
use super::*;

const THRESHOLDS: HealthThresholds = HealthThresholds { rise: 1, fall: 1 };
const EJECT: EjectionPolicy = EjectionPolicy::for_test(1, s(30), s(300));
static POLICY: LazyLock<PeerPolicy> = LazyLock::new(|| PeerPolicy {
    cold_start: Arc::default(),
    epochs: Arc::default(),
    slow_start: Some(s(60)),
    flap_damping: Some(flap_damping::FlapDampingPolicy::DEFAULT),
    drain_deadline: Some(s(40)),
});

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A record that is changed as `Peer` changes it.
struct TestRecord(PeerRecord);

impl TestRecord {
    fn new(up: bool, starts_slowly: bool) -> Self {
        Self(PeerRecord::new(up, starts_slowly, s(1000), &POLICY))
    }

    fn probe(&mut self, at: u64, passes: bool) {
        let report = ProbeReport {
            ended: s(at),
            duration: Duration::ZERO,
            failure: (!passes).then(|| "refused".to_owned()),
        };
        self.0
            .update(s(at), &POLICY, |record| record.on_probe(report, THRESHOLDS));
    }

    fn fail(&mut self, at: u64) {
        self.fail_as(FailureKind::Connect, at);
    }

    /// One failure, which ejects the peer.
    fn fail_as(&mut self, kind: FailureKind, at: u64) {
        self.0.update(s(at), &POLICY, |record| {
            record.on_failure(kind, &EJECT, s(at));
            record.eject_if_due(true, &EJECT, s(at))
        });
    }

    fn connect(&mut self, at: u64) {
        self.0
            .update(s(at), &POLICY, |record| record.on_success(s(at), s(at)));
    }

    fn drain(&mut self, at: u64, draining: bool) {
        self.0.update(s(at), &POLICY, |record| {
            record.draining_since = draining.then_some(s(at));
        });
    }

    fn lift_suppression(&mut self, at: u64) -> bool {
        self.0.update(s(at), &POLICY, |record| {
            record.lift_suppression(s(at), &POLICY)
        })
    }

    /// The begin of its slow start, if it has one.
    fn slow_start_begin(&self) -> Option<Duration> {
        self.0.slow_start.map(|window| window.start)
    }

    fn export(&self, at: u64) -> PersistedPeer {
        let mut exported = PersistedPeer::unknown(Address::Ip(([127, 0, 0, 1], 1).into()));
        self.0.export(&mut exported, true, s(at));
        exported
    }
}

#[test]
fn peer_present_at_process_start_does_not_start_slowly() {
    let mut record = TestRecord::new(false, false);
    record.probe(1001, true);
    assert_eq!(record.slow_start_begin(), None);
    assert_eq!(TestRecord::new(true, false).slow_start_begin(), None);
}

#[test]
fn peer_that_is_new_starts_slowly_once_it_is_up() {
    assert_eq!(
        TestRecord::new(true, true).slow_start_begin(),
        Some(s(1000))
    );
    let mut record = TestRecord::new(false, true);
    assert_eq!(record.slow_start_begin(), None);
    record.probe(1010, true);
    assert_eq!(record.slow_start_begin(), Some(s(1010)));
    record.probe(1015, true);
    assert_eq!(record.slow_start_begin(), Some(s(1010)), "once");
}

#[test]
fn peer_that_recovers_starts_slowly() {
    let mut record = TestRecord::new(true, false);
    record.probe(1001, false);
    record.probe(1100, true);
    assert_eq!(record.slow_start_begin(), Some(s(1100)));
    record.probe(1200, true);
    assert_eq!(record.slow_start_begin(), None, "complete and removed");
}

#[test]
fn peer_starts_slowly_when_an_ejection_expires() {
    let mut record = TestRecord::new(true, false);
    record.fail(1001);
    assert_eq!(record.slow_start_begin(), Some(s(1031)));
}

#[test]
fn peer_probed_anew_long_after_an_ejection_does_not_start_slowly() {
    for succeeds_between in [false, true] {
        let mut record = TestRecord::new(true, false);
        record.fail(1001); // until 1031
        if succeeds_between {
            record.connect(1200);
        }
        record.0 = record.0.with_health_reset(false, s(5000), &POLICY);
        record.probe(5001, true);
        let window = record.0.slow_start;
        let current = window.filter(|window| !window.is_complete(s(5001)));
        assert_eq!(current, None, "{succeeds_between}");
    }
}

#[test]
fn peer_starts_slowly_after_its_last_outage_cause_ends() {
    let mut record = TestRecord::new(true, false);
    record.probe(1001, false);
    record.fail(1002); // until 1032
    let three = HealthThresholds { rise: 3, fall: 1 };
    let passed = ProbeReport {
        ended: s(1010),
        duration: Duration::ZERO,
        failure: None,
    };
    // Up without probes of its own in a row: still ejected.
    record.0.update(s(1010), &POLICY, |record| {
        record.health = health_of(true);
        record.on_probe(passed, three);
    });
    assert_eq!(record.0.off_ring_until(), s(1032));
    assert_eq!(record.slow_start_begin(), Some(s(1032)));
}

#[test]
fn peer_starts_slowly_at_once_after_an_early_ejection_end() {
    let mut record = TestRecord::new(true, false);
    record.fail(1001);
    record.connect(1005);
    assert_eq!(
        (record.slow_start_begin(), record.0.off_ring_until()),
        (Some(s(1005)), s(0))
    );
}

#[test]
fn passed_probes_end_an_ejection_for_failed_connects_only() {
    for (kind, is_ended) in [
        (FailureKind::Connect, true),
        (FailureKind::Timeout, false),
        (FailureKind::Reset, false),
        (FailureKind::ServerError, false),
    ] {
        let mut record = TestRecord::new(true, false);
        record.fail_as(kind, 1010);
        let mut restored = TestRecord::new(true, false);
        restored.0.restore(&record.export(1011), true, s(1011));
        for mut record in [record, restored] {
            assert!(record.0.ejection.until() > s(1012), "{kind:?}");
            record.probe(1012, true);
            assert_eq!(
                record.0.ejection.until() == Duration::ZERO,
                is_ended,
                "{kind:?}"
            );
        }
    }
}

#[test]
fn success_of_an_attempt_before_the_ejection_does_not_end_it() {
    let mut record = TestRecord::new(true, false);
    record.fail(1010);
    for (began, is_ejected) in [(1009, true), (1010, false)] {
        record.0.update(s(1011), &POLICY, |record| {
            record.on_success(s(began), s(1011));
        });
        assert_eq!(record.0.ejection.until() > s(1011), is_ejected, "{began}");
    }
}

#[test]
fn peer_flapping_is_suppressed_and_operator_drains_do_not_count() {
    let mut record = TestRecord::new(true, false);
    for at in [1000, 1002, 1004, 1006] {
        record.drain(at, true);
        record.drain(at + 1, false);
    }
    assert_eq!(record.0.flap_penalty.suppression_end(), s(0));
    for at in [1010, 1012, 1014] {
        record.probe(at, false);
        record.probe(at + 1, true);
    }
    let until = record.0.flap_penalty.suppression_end();
    assert!(until > s(1060), "{until:?}");
    assert_eq!(record.0.off_ring_until(), until);
    assert_eq!(record.slow_start_begin(), Some(until));
    record.connect(1020);
    assert_eq!(
        record.0.flap_penalty.suppression_end(),
        until,
        "a success does not end it"
    );
}

#[test]
fn peer_enable_ends_a_suppression_and_begins_the_slow_start() {
    let mut record = TestRecord::new(true, false);
    for at in [1010, 1012, 1014] {
        record.probe(at, false);
        record.probe(at + 1, true);
    }
    assert!(record.lift_suppression(1020));
    assert_eq!(
        (record.0.off_ring_until(), record.slow_start_begin()),
        (s(0), Some(s(1020)))
    );
    assert!(!record.lift_suppression(1021), "once");
    record.probe(1022, false);
    assert_eq!(
        record.0.flap_penalty.suppression_end(),
        s(0),
        "the penalty was reset"
    );
}

#[test]
fn peer_enable_does_not_end_an_ejection() {
    let mut record = TestRecord::new(true, false);
    for at in [1010, 1012, 1014] {
        record.connect(at - 1);
        record.fail(at);
    }
    let until = record.0.ejection.until();
    assert!(record.lift_suppression(1020));
    assert_eq!(
        (record.0.off_ring_until(), record.slow_start_begin()),
        (until, Some(until))
    );
}

#[test]
fn peer_drain_keeps_affinity_until_its_deadline_and_an_outage_ends_it() {
    let mut record = TestRecord::new(true, false);
    record.drain(1010, true);
    let first = record.0.epoch;
    record.drain(1049, false);
    assert_eq!(
        (record.0.epoch, record.slow_start_begin()),
        (first, Some(s(1049)))
    );
    record.drain(1060, true);
    record.drain(1100, false);
    let after_drain = record.0.epoch;
    record.drain(1110, true);
    record.fail(1111);
    let after_ejection = record.0.epoch;
    record.drain(1150, false);
    record.probe(1160, false);
    assert!(first != after_drain && after_drain != after_ejection);
    assert!(after_ejection != record.0.epoch);
}

#[test]
fn slow_start_end_is_not_applied_to_a_later_slow_start() {
    let mut record = TestRecord::new(true, false);
    record.fail(1001);
    record.0.on_all_peers_cold(s(1010));
    let later = SlowStartWindow::new(s(1031), s(60), s(1010));
    assert_eq!((record.0.slow_start, later.duration), (Some(later), s(21)));
    record.0.on_all_peers_cold(s(1031));
    assert_eq!(record.slow_start_begin(), None);
}

#[test]
fn peer_record_is_restored_in_another_process() {
    let mut record = TestRecord::new(true, false);
    for at in [1000, 1002, 1004] {
        record.fail(at);
        record.connect(at + 1);
    }
    record.drain(1010, true);
    let mut next = PeerRecord::new(false, false, s(5000), &POLICY);
    next.restore(&record.export(1020), true, s(5000));
    let later = |at: Duration| at + s(3980);
    assert_eq!(next.draining_since, Some(later(s(1010))));
    let off_by = next
        .flap_penalty
        .suppression_end()
        .abs_diff(later(record.0.flap_penalty.suppression_end()));
    assert!(off_by <= Duration::from_millis(1), "{off_by:?}");
    assert_eq!(next.flap_penalty.last_down(), later(s(1004)));
    // The end of the drain begins a slow start there too.
    next.update(s(5010), &POLICY, |record| record.draining_since = None);
    assert!(
        next.slow_start
            .is_some_and(|window| window.start >= s(5010))
    );
}

#[test]
fn peer_slow_start_continues_in_another_process() {
    let mut record = TestRecord::new(true, false);
    record.probe(1001, false);
    record.probe(1010, true);
    let mut next = PeerRecord::new(false, true, s(5000), &POLICY);
    next.restore(&record.export(1040), true, s(5000));
    let window = next.slow_start.unwrap();
    assert_eq!((window.start, window.duration), (s(4970), s(60)));
    next.update(s(5001), &POLICY, |_| ());
    assert_eq!(next.slow_start, Some(window), "it does not begin again");
}

#[test]
fn slow_start_age_below_one_millisecond_is_not_rounded_up() {
    let mut record = TestRecord::new(false, true);
    let began = Duration::from_micros(999_940_600);
    record
        .0
        .update(began, &POLICY, |record| record.health = health_of(true));
    let exported = record.export(1000);
    let mut next = PeerRecord::new(false, false, s(5000), &POLICY);
    next.restore(&exported, true, s(5000));
    let mut again = PersistedPeer::unknown(Address::Ip(([127, 0, 0, 1], 1).into()));
    next.export(&mut again, true, s(5000));
    assert_eq!(exported.slow_start.unwrap().elapsed_ms, 60);
    assert_eq!(again.slow_start, exported.slow_start);
}

#[test]
fn peer_that_never_flapped_exports_no_flap_state() {
    let record = TestRecord::new(true, false);
    assert_eq!(record.export(1000), record.export(2000));
}

proptest! {
    /// After any events the peer is never back with all its keys at once, and a restored record exports the
    /// same state.
    #[test]
    fn peer_never_returns_without_a_slow_start(
        up in any::<bool>(),
        events in prop::collection::vec((0..9_u8, 1..40_u64), 1..60),
    ) {
        let mut record = TestRecord::new(up, false);
        let mut now = 1000;
        let mut last_out: Option<u64> = None;
        for (event, pause) in events {
            for second in now..now + pause {
                let availability = record.0.availability(s(second));
                if availability == Availability::OutOfService || record.0.off_ring_until() > s(second) {
                    last_out = Some(second);
                } else if availability == Availability::InService && let Some(last) = last_out {
                    let window = record.0.slow_start.filter(|window| !window.is_complete(s(second)));
                    prop_assert!(
                        second > last + 60 || window.is_some_and(|window| window.start > s(last)),
                        "at {second}, out until {last}: {:?}", record.0
                    );
                }
            }
            now += pause;
            match event {
                0 => record.probe(now, false),
                1 => record.probe(now, true),
                2 => record.fail(now),
                3 => record.connect(now),
                4 => record.drain(now, true),
                5 => record.drain(now, false),
                8 => _ = record.lift_suppression(now),
                6 => record.0 = record.0.with_health_reset(true, s(now), &POLICY),
                _ => record.0 = record.0.with_health_reset(false, s(now), &POLICY),
            }
        }
        let mut next = PeerRecord::new(false, false, s(9000), &POLICY);
        next.restore(&record.export(now), true, s(9000));
        let mut again = PersistedPeer::unknown(Address::Ip(([127, 0, 0, 1], 1).into()));
        next.export(&mut again, true, s(9000));
        again.epoch = record.0.epoch.0;
        prop_assert_eq!(again, record.export(now));
    }
}
