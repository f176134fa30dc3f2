//! Drains that keep sessions.

use super::*;

#[test]
fn draining_peer_keeps_active_keys_until_idle_or_the_deadline() {
    let app = app(3, &[DRAIN]);
    let (old, new): (Vec<u64>, Vec<u64>) = (0..400)
        .filter(|key| owner(&app, *key) == 0)
        .partition(|key| key % 2 == 0);
    let at_first_peer = |keys: &[u64], now| {
        let peer = |key: &u64| admit(&app, *key, now).member.index();
        keys.iter().map(peer).filter(|peer| *peer == 0).count()
    };
    at_first_peer(&old, s(1000));
    app.peers()[0].set_draining(true, s(1002));
    for at in (1003..1040).step_by(9) {
        assert_eq!(
            (at_first_peer(&old, s(at)), at_first_peer(&new, s(at))),
            (old.len(), 0)
        );
    }
    let (idle, busy) = old.split_at(old.len() / 2);
    assert_eq!(at_first_peer(busy, s(1041)), busy.len());
    assert_eq!(at_first_peer(busy, s(1042)), 0, "the deadline");
    assert_eq!(at_first_peer(idle, s(1042)), 0);
}

#[test]
fn long_request_keeps_its_key_until_the_peer_is_lost() {
    let mut app = app(3, &[DRAIN]);
    let key = (0..1000).find(|key| owner(&app, *key) == 0).unwrap();
    let admitted = admit(&app, key, s(1000));
    let admitted_at = ("p0", admitted.epoch.unwrap());
    let refresh = |app: &Upstream, now| app.refresh_affinity(admitted_at, hash(key).hash(), now);
    for at in (1009..1100).step_by(9) {
        if at == 1045 {
            app = build(&with_table_size(&app, 4096), Some(&app), s(at));
        }
        assert_eq!(refresh(&app, s(at)), Some(s(10) / 3));
    }
    app.peers()[0].set_draining(true, s(1100));
    assert_eq!(selected(&app, key, s(1105)), 0);
    fail_connect(&app.peers()[0], s(1105));
    assert_eq!(refresh(&app, s(1106)), None, "the key is another peer's");
}

#[test]
fn idle_key_of_a_draining_peer_moves_and_does_not_return() {
    let app = app(3, &[DRAIN]);
    let key = (0..1000).find(|key| owner(&app, *key) == 0).unwrap();
    drop(admit(&app, key, s(1000)));
    app.peers()[0].set_draining(true, s(1001));
    assert_eq!(admit(&app, key, s(1009)).member.index(), 0);
    assert_ne!(admit(&app, key, s(1020)).member.index(), 0);
    assert_ne!(admit(&app, key, s(1021)).member.index(), 0);
}

#[test]
fn keys_kept_by_a_drain_stay_when_it_is_cancelled() {
    let app = app(3, &[DRAIN, SLOW_START]);
    let keys: Vec<u64> = (0..400).filter(|key| owner(&app, *key) == 0).collect();
    let (kept, moved) = keys.split_at(keys.len() / 2);
    for key in kept {
        drop(admit(&app, *key, s(1000)));
    }
    app.peers()[0].set_draining(true, s(1001));
    for key in &keys {
        drop(admit(&app, *key, s(1005)));
    }
    app.peers()[0].set_draining(false, s(1006));
    let at_first_peer = |keys: &[u64]| {
        let is_at_first = |key: &&u64| selected(&app, **key, s(1006)) == 0;
        keys.iter().filter(is_at_first).count()
    };
    assert_eq!((at_first_peer(kept), at_first_peer(moved)), (kept.len(), 0));
}

#[test]
fn key_kept_by_a_draining_peer_returns_directly_to_its_owner() {
    let app = app(3, &[DRAIN, SLOW_START, "health: {tcp: true}"]);
    probe_all(&app, s(1000));
    let key = (0..1000).find(|key| owner(&app, *key) == 0).unwrap();
    probe(&app.peers()[0], false, s(1001));
    let other = admit(&app, key, s(1002)).member.index();
    app.peers()[other].set_draining(true, s(1003));
    probe(&app.peers()[0], true, s(1004));
    // The owner does not admit it yet: it stays where it is kept, and goes from there to its owner, not to
    // the third peer.
    let now = s(1004) + Duration::from_millis(1);
    assert_eq!(admit(&app, key, now).member.index(), other);
}

#[test]
fn overflow_request_gives_a_drain_no_key_to_keep() {
    let app = app(2, &[BOUNDED, DRAIN]);
    let key = (0..1000).find(|key| owner(&app, *key) == 0).unwrap();
    let admissions: Vec<_> = (0..8).map(|_| admit(&app, key, s(1000))).collect();
    assert!(
        admissions
            .iter()
            .any(|admitted| admitted.member.index() == 1)
    );
    let table = app.affinity.as_ref().unwrap();
    let counts = table.active_keys_by_peer(s(1000), s(10));
    assert_eq!(counts.get(&app.peers()[1].state.epoch()), None);
}

#[test]
fn peer_is_drained_when_no_request_and_no_active_key_is_left() {
    let app = app(2, &[DRAIN]);
    let now = s(2000);
    let request = admit(
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
    drop(request);
    assert!(!app.drain_status(now).is_drained(peer), "a key");
    assert!(app.drain_status(now + s(40)).is_drained(peer));
}

#[test]
fn drain_of_the_last_peer_that_takes_keys_is_refused_unless_forced() {
    let now = s(1000);
    let drain =
        |app: &Upstream, index: usize, force| app.drain_peer(&app.peers()[index], force, now);
    let single = app(1, &[]);
    assert_eq!(drain(&single, 0, false), Err(LastPeer));
    assert_eq!(drain(&single, 0, true), Ok(true));
    assert_eq!(
        drain(&single, 0, false),
        Ok(false),
        "it takes none any more"
    );

    let pair = app(2, &[DRAIN]);
    assert_eq!(drain(&pair, 0, false), Ok(true));
    assert_eq!(
        drain(&pair, 1, false),
        Err(LastPeer),
        "a draining peer is no other"
    );

    let pair = app(2, &[]);
    fail_connect(&pair.peers()[0], now);
    assert_eq!(
        drain(&pair, 1, false),
        Err(LastPeer),
        "nor is an ejected one"
    );
    assert_eq!(
        drain(&pair, 0, false),
        Ok(true),
        "an ejected one takes none"
    );

    let ejected = app(1, &[]);
    fail_connect(&ejected.peers()[0], now);
    assert_eq!(drain(&ejected, 0, false), Err(LastPeer), "a last resort");
}

#[test]
fn simultaneous_drains_leave_a_peer_that_takes_keys() {
    for _ in 0..200 {
        let pair = app(2, &[]);
        let drain = |index: usize| pair.drain_peer(&pair.peers()[index], false, s(1000));
        let results = std::thread::scope(|scope| {
            let threads = [0, 1].map(|index| scope.spawn(move || drain(index)));
            threads.map(|thread| thread.join().unwrap())
        });
        let refused = results.iter().filter(|result| **result == Err(LastPeer));
        assert_eq!(refused.count(), 1, "{results:?}");
    }
}

/// The upstream with its first peer leaving or not, in force at `now`.
fn with_leaving(before: &Upstream, is_leaving: bool, now: Duration) -> Upstream {
    let mut config = before.config.clone();
    config.peers[0].is_leaving = is_leaving;
    let after = build(&config, Some(before), now);
    after.reconcile(now);
    after
}

#[test]
fn leaving_peer_drains_until_it_returns_and_an_operators_drain_stays() {
    let app = app(3, &[DRAIN]);
    let gone = with_leaving(&app, true, s(1000));
    let state = |app: &Upstream| Arc::clone(&app.peers()[0].state);
    assert!(state(&gone).is_leaving());
    assert_eq!(state(&gone).draining_for(s(1004)), Some(s(4)));
    let back = with_leaving(&gone, false, s(1005));
    assert!(!state(&back).is_draining());
    back.peers()[0].set_draining(true, s(1006));
    let gone = with_leaving(&back, true, s(1010));
    // The deadline counts from the earlier of the two.
    assert_eq!(state(&gone).draining_for(s(1011)), Some(s(5)));
    let back = with_leaving(&gone, false, s(1012));
    assert!(state(&back).is_draining() && !state(&back).is_leaving());
    back.peers()[0].set_draining(false, s(1013));
    assert!(!state(&back).is_draining());
}

#[test]
fn leaving_peer_is_that_of_the_own_lists_after_a_transfer() {
    for (theirs, own, expected) in [
        (true, true, Some(s(20))),
        (true, false, None),
        (false, true, Some(s(0))),
        (false, false, None),
    ] {
        let old = with_leaving(&app(3, &[DRAIN]), theirs, s(1000));
        let exported = old.export_state(s(1020));
        let new = with_leaving(&app(3, &[DRAIN]), own, s(7000));
        let first = new.export_state(s(7000));
        let draining = |new: &Upstream, now| new.peers()[0].state.draining_for(now);
        new.restore_state(&exported, s(7000));
        assert_eq!(
            draining(&new, s(7000)),
            expected,
            "{theirs}, {own}: restored"
        );
        new.apply_delta(&first, &exported, s(7000));
        assert_eq!(draining(&new, s(7000)), expected, "{theirs}, {own}: delta");
    }
}
