//! One process exports its state, and another one restores it.

use super::*;

#[test]
fn restore_with_another_table_size_keeps_the_keys_of_a_drain() {
    for keys in [256, 4096, 65_536] {
        let before = app(3, &[DRAIN]);
        let owned = serve_keys_of_first(&before, 300, s(1000));
        before.peers()[0].set_draining(true, s(1001));
        let after = build(&with_table_size(&before, keys), None, s(7000));
        after.restore_state(&before.export_state(s(1002)), s(7000));
        let progress = after
            .drain_status(s(7001))
            .progress(&after.peers()[0])
            .unwrap();
        assert_eq!(progress.active_keys, owned.len(), "{keys}");
        let at_first_peer = |key: &&u64| admit(&after, **key, s(7001)).member.index() == 0;
        assert_eq!(
            owned.iter().filter(at_first_peer).count(),
            owned.len(),
            "{keys}"
        );
    }
}

#[test]
fn restored_process_continues_slow_starts_and_drains() {
    let settings = [SLOW_START, DRAIN];
    let before = app(3, &settings);
    before.peers()[0].set_draining(true, s(1000));
    before.peers()[0].set_draining(false, s(1010));
    before.peers()[1].set_draining(true, s(1012));
    let selections = |app: &Upstream, now| {
        (0..500)
            .map(|key| selected(app, key, now))
            .collect::<Vec<_>>()
    };
    let exported = before.export_state(s(1030));
    let after = build(&config_of(4, &settings), None, s(7000));
    after.restore_state(&exported, s(7000));
    assert_eq!(after.peers()[1].state.draining_for(s(7000)), Some(s(18)));
    assert!(
        after.peers()[3].state.slow_start(s(7000)).is_some(),
        "a peer that the export does not name begins a slow start"
    );
    let after = build(&config_of(3, &settings), None, s(7000));
    after.restore_state(&exported, s(7000));
    for later in [0, 10, 20, 29] {
        assert_eq!(
            selections(&after, s(7000 + later)),
            selections(&before, s(1030 + later))
        );
    }
}

/// The second export of a process, at `now`; its first export was at `first`.
fn second_export(
    app: &Upstream,
    first: Duration,
    now: Duration,
) -> BTreeMap<String, PersistedPeer> {
    let (mut peers, mut keys_left) = (app.export_state(now), MAX_EXPORTED_KEYS);
    app.export_active_keys(&mut peers, &mut keys_left, now.saturating_sub(first), now);
    peers
}

#[test]
fn restored_process_applies_changes_of_the_second_export() {
    let settings = [
        SLOW_START,
        DRAIN,
        "health: {tcp: true}",
        "flap_damping: {flips: 2, half_life: 10m}",
    ];
    let before = app(5, &settings);
    probe_all(&before, s(1000));
    let first = second_export(&before, Duration::ZERO, s(1000));
    let after = build(&config_of(5, &settings), None, s(7000));
    after.restore_state(&first, s(7000));
    probe_all(&after, s(7001));
    for key in 0..500 {
        drop(admit(&before, key, s(1001)));
    }
    let [ejected, recovering, draining, flapping, _] = before.peers() else {
        panic!("the upstream has five peers")
    };
    fail_connect(ejected, s(1002));
    for (peer, at) in [(recovering, 1002), (flapping, 1002), (flapping, 1004)] {
        probe(peer, false, s(at));
        probe(peer, true, s(at + 1));
    }
    draining.set_draining(true, s(1003));
    after.apply_delta(&first, &second_export(&before, s(1000), s(1005)), s(7005));
    let selections = |app: &Upstream, now| {
        let peer = |key| selected(app, key, now);
        (0..1000).map(peer).collect::<Vec<_>>()
    };
    for later in [0, 3, 20, 50] {
        let (then, now) = (s(1005 + later), s(7005 + later));
        assert_eq!(
            selections(&after, now),
            selections(&before, then),
            "{later}"
        );
    }
    assert!(after.peers()[3].state.suppressed_until(s(7005)).is_some());
    // A drain that begins after the second export keeps the same keys in both processes.
    for (app, now) in [(&before, s(1007)), (&after, s(7007))] {
        app.peers()[4].set_draining(true, now);
    }
    assert_eq!(selections(&after, s(7008)), selections(&before, s(1008)));
}

#[test]
fn restored_process_keeps_its_probe_results_unless_the_export_is_newer() {
    let settings = [SLOW_START, "health: {tcp: true}"];
    let before = app(3, &settings);
    probe_all(&before, s(1000));
    probe(&before.peers()[0], false, s(1000));
    let first = before.export_state(s(1000));
    let after = build(&config_of(3, &settings), None, s(7000));
    after.restore_state(&first, s(7000));
    probe(&after.peers()[0], true, s(7001));
    probe(&after.peers()[1], true, s(7001));
    probe(&after.peers()[2], false, s(7001));
    probe(&before.peers()[1], false, s(1002));
    after.apply_delta(&first, &before.export_state(s(1003)), s(7003));
    let up = after.peers().iter().map(|peer| peer.state.is_up());
    assert_eq!(up.collect::<Vec<_>>(), [true, false, false]);
    let slow_start = after.peers()[0].state.slow_start(s(7003)).unwrap();
    assert_eq!(slow_start.start, s(7001));
}

#[test]
fn restored_process_drops_keys_of_a_peer_ejected_between_exports() {
    let before = app(3, &[DRAIN]);
    serve_keys_of_first(&before, 100, s(1000));
    let first = second_export(&before, Duration::ZERO, s(1000));
    let after = build(&before.config, None, s(7000));
    after.restore_state(&first, s(7000));
    fail_connect(&before.peers()[0], s(1001));
    before.peers()[0].on_success(s(1002), s(1002));
    after.apply_delta(&first, &second_export(&before, s(1000), s(1003)), s(7003));
    after.peers()[0].set_draining(true, s(7003));
    let progress = after
        .drain_status(s(7003))
        .progress(&after.peers()[0])
        .unwrap();
    assert_eq!(progress.active_keys, 0);
}

#[test]
fn restored_drain_older_than_the_process_keeps_its_age() {
    let now = crate::clock::since_start();
    let app = build(&config_of(1, &[DRAIN]), None, now);
    let mut exported = app.export_state(now);
    let peer = exported.get_mut("p0").unwrap();
    (peer.draining, peer.draining_for_ms) = (true, 3_600_000);
    app.restore_state(&exported, now);
    assert_eq!(app.peers()[0].state.draining_for(now), Some(s(3600)));
}
