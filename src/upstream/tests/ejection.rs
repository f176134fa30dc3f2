//! Ejection of peers after failures of requests, and its limits.

use super::*;

const POLICY: EjectionPolicy = EjectionPolicy {
    max_ejected: EjectedShare(5_000),
    ..EjectionPolicy::for_test(2, s(5), s(20))
};

/// Reports two failures of a peer; the outcome of the second.
fn fail_twice(app: &Upstream, peer: usize, kind: FailureKind) -> Option<EjectionOutcome> {
    let member = MemberId(u32::try_from(peer).unwrap());
    let fail = |now| app.on_peer_failure(member, kind, &POLICY, now);
    assert_eq!(fail(s(1000)), None);
    fail(s(1001))
}

#[test]
fn ejections_for_responses_stop_at_their_share_of_the_peers() {
    for (peers, most) in [(2, 1), (3, 2), (4, 2), (5, 3)] {
        for kind in [
            FailureKind::Timeout,
            FailureKind::Reset,
            FailureKind::ServerError,
        ] {
            let app = app(peers, &[]);
            let outcomes = (0..peers).map(|peer| fail_twice(&app, peer, kind));
            let ejected = outcomes
                .filter(|outcome| *outcome == Some(EjectionOutcome::Ejected { length: s(5) }));
            assert_eq!(ejected.count(), most, "{kind:?} of {peers} peers");
        }
    }
}

#[test]
fn ejections_for_failed_connects_are_unlimited() {
    let app = app(3, &[]);
    for peer in 0..3 {
        let outcome = fail_twice(&app, peer, FailureKind::Connect);
        assert_eq!(outcome, Some(EjectionOutcome::Ejected { length: s(5) }));
    }
}

#[test]
fn ejection_for_responses_spares_the_last_available_peer() {
    type Change = fn(&Peer);
    let unavailable: [(&str, Change); 3] = [
        ("down", |peer| probe(peer, false, s(999))),
        ("draining", |peer| assert!(peer.set_draining(true, s(999)))),
        ("ejected", |peer| fail_connect(peer, s(999))),
    ];
    for (state, make) in unavailable {
        let app = app(4, &["health: {tcp: true, fall: 1}"]);
        probe_all(&app, s(998));
        let peers = app.peers();
        make(&peers[0]);
        let prevented = Some(EjectionOutcome::Prevented);
        let ejected = Some(EjectionOutcome::Ejected { length: s(5) });
        // One of the four is left out by its state, one is ejected, and two are left.
        assert_eq!(
            fail_twice(&app, 1, FailureKind::ServerError),
            ejected,
            "{state}"
        );
        peers[2].set_draining(true, s(1001));
        assert_eq!(
            fail_twice(&app, 3, FailureKind::ServerError),
            prevented,
            "{state}"
        );
    }
    let only = app(1, &[]);
    let prevented = Some(EjectionOutcome::Prevented);
    assert_eq!(fail_twice(&only, 0, FailureKind::Reset), prevented);
}

#[test]
fn failure_of_a_kind_that_does_not_count_changes_nothing() {
    let app = app(2, &[]);
    let policy = EjectionPolicy {
        counted: [FailureKind::Connect].into_iter().collect(),
        ..EjectionPolicy::for_test(1, s(5), s(20))
    };
    let fail = |kind| app.on_peer_failure(MemberId(0), kind, &policy, s(1000));
    assert_eq!(fail(FailureKind::ServerError), None);
    assert!(app.peers()[0].state.is_available(s(1000)));
    assert_eq!(
        fail(FailureKind::Connect),
        Some(EjectionOutcome::Ejected { length: s(5) })
    );
}
