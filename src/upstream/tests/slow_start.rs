//! Slow starts.

use super::*;

/// The peer of each key, at each of some moments.
fn selections(
    app: &Upstream,
    keys: u64,
    moments: impl Iterator<Item = Duration>,
) -> Vec<Vec<usize>> {
    moments
        .map(|now| (0..keys).map(|key| selected(app, key, now)).collect())
        .collect()
}

#[test]
fn returning_peer_gets_each_of_its_keys_back_in_one_move() {
    const KEYS: u64 = 3000;
    let app = app(5, &[SLOW_START, "health: {tcp: true}"]);
    probe_all(&app, s(1000));
    probe(&app.peers()[2], false, s(1010));
    probe(&app.peers()[2], true, s(1020));
    let moments = (0..=240).map(|step| s(1020) + Duration::from_millis(250) * step);
    let selections = selections(&app, KEYS, moments);
    let owned = (0..KEYS).filter(|key| owner(&app, *key) == 2).count();
    for key in 0..KEYS {
        let peers: Vec<usize> = selections
            .iter()
            .map(|peers| peers[usize::try_from(key).unwrap()])
            .collect();
        let moves = peers.windows(2).filter(|pair| pair[0] != pair[1]).count();
        let expected_moves = usize::from(owner(&app, key) == 2);
        assert_eq!((moves, peers[240]), (expected_moves, owner(&app, key)));
    }
    for (step, peers) in selections.iter().enumerate() {
        let moved = peers.iter().filter(|peer| **peer == 2).count();
        let off = (moved * 240).abs_diff(owned * step);
        assert!(off <= owned * 240 / 20, "step {step}: {moved} of {owned}");
    }
}

#[test]
fn slow_start_is_not_ended_by_a_retry() {
    let app = app(2, &[SLOW_START]);
    let (back, other) = (&app.peers()[0], MemberId(1));
    back.set_draining(true, s(1000));
    back.set_draining(false, s(1001));
    let mut tried = Tried::none();
    tried.insert(other);
    // For this request only the peer in a slow start is left.
    let admitted = app.admit(
        &HashTarget::Key(hash(1)),
        &tried,
        s(1010),
        app.begin_request(),
    );
    assert_eq!(admitted.unwrap().member, MemberId(0));
    assert!(back.state.slow_start(s(1010)).is_some());
}

#[test]
fn slow_start_on_all_peers_serves_owners_and_selection_has_no_side_effect() {
    let app = app(3, &[SLOW_START]);
    for peer in app.peers() {
        peer.set_draining(true, s(1000));
        peer.set_draining(false, s(1001));
    }
    for key in 0..100 {
        assert_eq!(selected(&app, key, s(1002)), owner(&app, key));
    }
    assert!(
        app.peers()
            .iter()
            .all(|peer| peer.state.slow_start(s(1002)).is_some())
    );
    drop(admit(&app, 1, s(1002)));
    assert!(
        app.peers()
            .iter()
            .all(|peer| peer.state.takes_all_keys(s(1002)))
    );
}

#[test]
fn slow_start_after_an_ejection_among_cold_peers_is_not_skipped() {
    let app = app(3, &[SLOW_START]);
    let [one, two, ejected] = app.peers() else {
        panic!("three")
    };
    fail_connect(ejected, s(1000));
    for peer in [one, two] {
        peer.set_draining(true, s(1000));
        peer.set_draining(false, s(1001));
    }
    drop(admit(&app, 1, s(1002)));
    assert!(one.state.takes_all_keys(s(1002)) && two.state.takes_all_keys(s(1002)));
    assert!(ejected.state.is_available(s(1006)) && !ejected.state.takes_all_keys(s(1006)));
}

#[test]
fn slow_start_applies_to_keyless_requests() {
    let app = app(4, &[SLOW_START]);
    app.peers()[0].set_draining(true, s(1000));
    app.peers()[0].set_draining(false, s(1001));
    let share = |now| {
        let turn = |turn| {
            app.select(&HashTarget::RoundRobin(turn), &Tried::none(), now)
                .unwrap()
        };
        let at_first = (0..4000).filter(|n| turn(*n).member == MemberId(0)).count();
        at_first * 100 / 4000
    };
    assert_eq!((share(s(1001)), share(s(1061))), (0, 25));
    assert!((11..=14).contains(&share(s(1031))));
}
