//! Slow starts.

use super::*;

/// Where each key is at each of some moments.
fn course(app: &Upstream, keys: u64, moments: impl Iterator<Item = Duration>) -> Vec<Vec<usize>> {
    moments
        .map(|now| (0..keys).map(|key| place_of(app, key, now)).collect())
        .collect()
}

#[test]
fn returning_peer_gets_each_of_its_keys_back_in_one_move() {
    const KEYS: u64 = 3000;
    let app = app(5, &[SLOWLY, "health: {tcp: true}"]);
    probe_all(&app, s(1000));
    probe(&app.peers()[2], false, s(1010));
    probe(&app.peers()[2], true, s(1020));
    let moments = (0..=240).map(|step| s(1020) + Duration::from_millis(250) * step);
    let course = course(&app, KEYS, moments);
    let of_back = (0..KEYS).filter(|key| owner(&app, *key) == 2).count();
    for key in 0..KEYS {
        let places: Vec<usize> = course
            .iter()
            .map(|places| places[usize::try_from(key).unwrap()])
            .collect();
        let moves = places.windows(2).filter(|pair| pair[0] != pair[1]).count();
        let moves_home = usize::from(owner(&app, key) == 2);
        assert_eq!((moves, places[240]), (moves_home, owner(&app, key)));
    }
    for (step, places) in course.iter().enumerate() {
        let home = places.iter().filter(|place| **place == 2).count();
        let off = (home * 240).abs_diff(of_back * step);
        assert!(
            off <= of_back * 240 / 20,
            "step {step}: {home} of {of_back}"
        );
    }
}

#[test]
fn slow_start_is_not_ended_by_a_retry() {
    let app = app(2, &[SLOWLY]);
    let (back, other) = (&app.peers()[0], MemberId(1));
    back.set_draining(true, s(1000));
    back.set_draining(false, s(1001));
    let mut tried = Tried::none();
    tried.insert(other);
    // Only the one that starts slowly is left, for this request.
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
    let app = app(3, &[SLOWLY]);
    for peer in app.peers() {
        peer.set_draining(true, s(1000));
        peer.set_draining(false, s(1001));
    }
    for key in 0..100 {
        assert_eq!(place_of(&app, key, s(1002)), owner(&app, key));
    }
    assert!(
        app.peers()
            .iter()
            .all(|peer| peer.state.slow_start(s(1002)).is_some())
    );
    drop(served(&app, 1, s(1002)));
    assert!(
        app.peers()
            .iter()
            .all(|peer| peer.state.takes_all_keys(s(1002)))
    );
}

#[test]
fn slow_start_after_an_ejection_among_cold_peers_is_not_skipped() {
    let app = app(3, &[SLOWLY]);
    let [one, two, ejected] = app.peers() else {
        panic!("three")
    };
    ejected.on_connect_failure(&EJECT, s(1000));
    for peer in [one, two] {
        peer.set_draining(true, s(1000));
        peer.set_draining(false, s(1001));
    }
    drop(served(&app, 1, s(1002)));
    assert!(one.state.takes_all_keys(s(1002)) && two.state.takes_all_keys(s(1002)));
    assert!(ejected.state.is_available(s(1006)) && !ejected.state.takes_all_keys(s(1006)));
}

#[test]
fn slow_start_applies_to_keyless_requests() {
    let app = app(4, &[SLOWLY]);
    app.peers()[0].set_draining(true, s(1000));
    app.peers()[0].set_draining(false, s(1001));
    let share = |now| {
        let turn = |turn| {
            app.select(&HashTarget::RoundRobin(turn), &Tried::none(), now)
                .unwrap()
        };
        let home = (0..4000).filter(|n| turn(*n).member == MemberId(0)).count();
        home * 100 / 4000
    };
    assert_eq!((share(s(1001)), share(s(1061))), (0, 25));
    assert!((11..=14).contains(&share(s(1031))));
}
