//! State that another process exported and this one restores.

use super::*;

#[test]
fn restore_with_another_table_size_keeps_the_keys_of_a_drain() {
    for keys in [256, 4096, 65_536] {
        let before = app(3, &[KEEPING]);
        let owned = served_by_first(&before, 300, s(1000));
        before.peers()[0].set_draining(true, s(1001));
        let after = build(&with_keys(&before, keys), None, s(7000));
        after.restore_state(&before.export_state(s(1002)), s(7000));
        let remains = after
            .drain_status(s(7001))
            .progress(&after.peers()[0])
            .unwrap();
        assert_eq!(remains.active_keys, owned.len(), "{keys}");
        let at_home = |key: &&u64| served(&after, **key, s(7001)).member.index() == 0;
        assert_eq!(owned.iter().filter(at_home).count(), owned.len(), "{keys}");
    }
}

#[test]
fn restored_process_continues_slow_starts_and_drains() {
    let settings = [SLOWLY, KEEPING];
    let before = app(3, &settings);
    before.peers()[0].set_draining(true, s(1000));
    before.peers()[0].set_draining(false, s(1010));
    before.peers()[1].set_draining(true, s(1012));
    let places = |app: &Upstream, now| {
        (0..500)
            .map(|key| place_of(app, key, now))
            .collect::<Vec<_>>()
    };
    let memory = before.export_state(s(1030));
    let after = build(&written(4, &settings), None, s(7000));
    after.restore_state(&memory, s(7000));
    assert_eq!(after.peers()[1].state.draining_for(s(7000)), Some(s(18)));
    assert!(
        after.peers()[3].state.slow_start(s(7000)).is_some(),
        "it is new"
    );
    let after = build(&written(3, &settings), None, s(7000));
    after.restore_state(&memory, s(7000));
    for later in [0, 10, 20, 29] {
        assert_eq!(
            places(&after, s(7000 + later)),
            places(&before, s(1030 + later))
        );
    }
}

/// What a process tells at `now` that has told at `told` before.
fn news(app: &Upstream, told: Duration, now: Duration) -> BTreeMap<String, PersistedPeer> {
    let (mut news, mut room) = (app.export_state(now), MAX_EXPORTED_KEYS);
    app.export_active_keys(&mut news, &mut room, now.saturating_sub(told), now);
    news
}

#[test]
fn restored_process_applies_changes_of_the_second_export() {
    let settings = [
        SLOWLY,
        KEEPING,
        "health: {tcp: true}",
        "flap_damping: {flips: 2, half_life: 10m}",
    ];
    let before = app(5, &settings);
    probe_all(&before, s(1000));
    let told = news(&before, Duration::ZERO, s(1000));
    let after = build(&written(5, &settings), None, s(7000));
    after.restore_state(&told, s(7000));
    probe_all(&after, s(7001));
    for key in 0..500 {
        drop(served(&before, key, s(1001)));
    }
    let [ejected, ramps, drains, flaps, _] = before.peers() else {
        panic!("five")
    };
    ejected.on_connect_failure(&EJECT, s(1002));
    for (peer, at) in [(ramps, 1002), (flaps, 1002), (flaps, 1004)] {
        probe(peer, false, s(at));
        probe(peer, true, s(at + 1));
    }
    drains.set_draining(true, s(1003));
    after.apply_delta(&told, &news(&before, s(1000), s(1005)), s(7005));
    let places = |app: &Upstream, now| {
        let place = |key| place_of(app, key, now);
        (0..1000).map(place).collect::<Vec<_>>()
    };
    for later in [0, 3, 20, 50] {
        let (then, now) = (s(1005 + later), s(7005 + later));
        assert_eq!(places(&after, now), places(&before, then), "{later}");
    }
    assert!(after.peers()[3].state.suppressed_until(s(7005)).is_some());
    // What a later drain keeps.
    for (app, now) in [(&before, s(1007)), (&after, s(7007))] {
        app.peers()[4].set_draining(true, now);
    }
    assert_eq!(places(&after, s(7008)), places(&before, s(1008)));
}

#[test]
fn restored_process_keeps_its_probe_results_unless_the_export_is_newer() {
    let settings = [SLOWLY, "health: {tcp: true}"];
    let before = app(3, &settings);
    probe_all(&before, s(1000));
    probe(&before.peers()[0], false, s(1000));
    let told = before.export_state(s(1000));
    let after = build(&written(3, &settings), None, s(7000));
    after.restore_state(&told, s(7000));
    probe(&after.peers()[0], true, s(7001));
    probe(&after.peers()[1], true, s(7001));
    probe(&after.peers()[2], false, s(7001));
    probe(&before.peers()[1], false, s(1002));
    after.apply_delta(&told, &before.export_state(s(1003)), s(7003));
    let up = after.peers().iter().map(|peer| peer.state.is_up());
    assert_eq!(up.collect::<Vec<_>>(), [true, false, false]);
    let ramp = after.peers()[0].state.slow_start(s(7003)).unwrap();
    assert_eq!(ramp.start, s(7001));
}

#[test]
fn restored_process_drops_keys_of_a_peer_lost_between_exports() {
    let before = app(3, &[KEEPING]);
    served_by_first(&before, 100, s(1000));
    let told = news(&before, Duration::ZERO, s(1000));
    let after = build(&before.config, None, s(7000));
    after.restore_state(&told, s(7000));
    before.peers()[0].on_connect_failure(&EJECT, s(1001));
    before.peers()[0].on_connect_success(s(1002));
    after.apply_delta(&told, &news(&before, s(1000), s(1003)), s(7003));
    after.peers()[0].set_draining(true, s(7003));
    let remains = after
        .drain_status(s(7003))
        .progress(&after.peers()[0])
        .unwrap();
    assert_eq!(remains.active_keys, 0);
}

#[test]
fn restored_state_fits_the_monotonic_clock_of_a_new_process() {
    let now = crate::clock::since_start();
    let app = build(&written(1, &[KEEPING]), None, now);
    let mut memory = app.export_state(now);
    let known = memory.get_mut("p0").unwrap();
    (known.draining, known.draining_for_ms) = (true, 3_600_000);
    app.restore_state(&memory, now);
    assert_eq!(app.peers()[0].state.draining_for(now), Some(s(3600)));
}
