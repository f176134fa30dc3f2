//! Drains that keep sessions.

use super::*;

#[test]
fn draining_peer_keeps_active_keys_until_idle_or_the_deadline() {
    let app = app(3, &[KEEPING]);
    let (old, new): (Vec<u64>, Vec<u64>) = (0..400)
        .filter(|key| owner(&app, *key) == 0)
        .partition(|key| key % 2 == 0);
    let ask = |keys: &[u64], now| {
        let at = |key: &u64| served(&app, *key, now).member.index();
        keys.iter().map(at).filter(|place| *place == 0).count()
    };
    ask(&old, s(1000));
    app.peers()[0].set_draining(true, s(1002));
    for at in (1003..1040).step_by(9) {
        assert_eq!((ask(&old, s(at)), ask(&new, s(at))), (old.len(), 0));
    }
    let (idle, busy) = old.split_at(old.len() / 2);
    assert_eq!(ask(busy, s(1041)), busy.len());
    assert_eq!(ask(busy, s(1042)), 0, "the deadline");
    assert_eq!(ask(idle, s(1042)), 0);
}

#[test]
fn long_request_keeps_its_key_until_the_peer_is_lost() {
    let mut app = app(3, &[KEEPING]);
    let key = (0..1000).find(|key| owner(&app, *key) == 0).unwrap();
    let admitted = served(&app, key, s(1000));
    let session = ("p0", admitted.epoch.unwrap());
    let renew = |app: &Upstream, now| app.refresh_affinity(session, hash(key).hash(), now);
    for at in (1009..1100).step_by(9) {
        if at == 1045 {
            app = build(&with_keys(&app, 4096), Some(&app), s(at));
        }
        assert_eq!(renew(&app, s(at)), Some(s(10) / 3));
    }
    app.peers()[0].set_draining(true, s(1100));
    assert_eq!(place_of(&app, key, s(1105)), 0);
    app.peers()[0].on_connect_failure(&EJECT, s(1105));
    assert_eq!(renew(&app, s(1106)), None, "it is another's");
}

#[test]
fn idle_key_of_a_draining_peer_moves_and_does_not_return() {
    let app = app(3, &[KEEPING]);
    let key = (0..1000).find(|key| owner(&app, *key) == 0).unwrap();
    drop(served(&app, key, s(1000)));
    app.peers()[0].set_draining(true, s(1001));
    assert_eq!(served(&app, key, s(1009)).member.index(), 0);
    assert_ne!(served(&app, key, s(1020)).member.index(), 0);
    assert_ne!(served(&app, key, s(1021)).member.index(), 0);
}

#[test]
fn keys_kept_by_a_drain_stay_when_it_is_cancelled() {
    let app = app(3, &[KEEPING, SLOWLY]);
    let keys: Vec<u64> = (0..400).filter(|key| owner(&app, *key) == 0).collect();
    let (kept, moved) = keys.split_at(keys.len() / 2);
    for key in kept {
        drop(served(&app, *key, s(1000)));
    }
    app.peers()[0].set_draining(true, s(1001));
    for key in &keys {
        drop(served(&app, *key, s(1005)));
    }
    app.peers()[0].set_draining(false, s(1006));
    let at_once = |keys: &[u64]| {
        let home = |key: &&u64| place_of(&app, **key, s(1006)) == 0;
        keys.iter().filter(home).count()
    };
    assert_eq!((at_once(kept), at_once(moved)), (kept.len(), 0));
}

#[test]
fn key_kept_by_a_draining_peer_returns_directly_to_its_owner() {
    let app = app(3, &[KEEPING, SLOWLY, "health: {tcp: true}"]);
    probe_all(&app, s(1000));
    let key = (0..1000).find(|key| owner(&app, *key) == 0).unwrap();
    probe(&app.peers()[0], false, s(1001));
    let heir = served(&app, key, s(1002)).member.index();
    app.peers()[heir].set_draining(true, s(1003));
    probe(&app.peers()[0], true, s(1004));
    // Not home yet: it stays where it is kept, and goes from there to its owner, not by way of the third.
    let now = s(1004) + Duration::from_millis(1);
    assert_eq!(served(&app, key, now).member.index(), heir);
}

#[test]
fn overflow_request_gives_a_drain_no_key_to_keep() {
    let app = app(2, &[QUARTER, KEEPING]);
    let key = (0..1000).find(|key| owner(&app, *key) == 0).unwrap();
    let held: Vec<_> = (0..8).map(|_| served(&app, key, s(1000))).collect();
    assert!(held.iter().any(|admitted| admitted.member.index() == 1));
    let active = app.affinity.as_ref().unwrap();
    let held = active.active_keys_by_peer(s(1000), s(10));
    assert_eq!(held.get(&app.peers()[1].state.epoch()), None);
}

#[test]
fn peer_is_drained_when_no_request_and_no_active_key_is_left() {
    let app = app(2, &[KEEPING]);
    let now = s(2000);
    let held = served(
        &app,
        (0..1000).find(|key| owner(&app, *key) == 0).unwrap(),
        now,
    );
    let peer = &app.peers()[0];
    peer.set_draining(true, now);
    assert!(
        !app.drain_status(now).is_drained(peer),
        "a request and a key"
    );
    drop(held);
    assert!(!app.drain_status(now).is_drained(peer), "a key");
    assert!(app.drain_status(now + s(40)).is_drained(peer));
}
