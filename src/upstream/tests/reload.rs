//! State that a reload keeps or adjusts.

use super::*;

#[test]
fn reload_keeps_slow_starts_drains_and_in_flight_counts() {
    let settings = [BOUNDED, SLOW_START, DRAIN];
    let app = app(3, &settings);
    let [slow_starting, draining, _] = app.peers() else {
        panic!("three")
    };
    slow_starting.set_draining(true, s(1000));
    slow_starting.set_draining(false, s(1010));
    let mut config = config_of(4, &settings);
    config.peers[2].weight = Weight::new(3).unwrap();
    let next = build(&config, None, s(1011));
    let is_of_second = |key: &u64| owner(&app, *key) == 1 && owner(&next, *key) == 1;
    let key = (0..1000).find(is_of_second).unwrap();
    let request = admit(&app, key, s(1011));
    draining.set_draining(true, s(1012));
    let after = build(&config, Some(&app), s(1015));
    assert_eq!(
        after.peers()[0].state.slow_start(s(1015)),
        slow_starting.state.slow_start(s(1015))
    );
    assert_eq!(after.peers()[1].state.draining_for(s(1015)), Some(s(3)));
    assert!(
        after.peers()[3].state.slow_start(s(1015)).is_some(),
        "it is new"
    );
    assert_eq!(
        (after.in_flight(), after.peers()[1].state.in_flight()),
        (1, 1)
    );
    drop(request);
    assert_eq!(after.in_flight(), 0);
    assert_eq!(admit(&after, key, s(1016)).member.index(), 1);
}

#[test]
fn reload_keeps_the_round_robin_position() {
    let app = app(3, &[]);
    assert_eq!(
        [app.next_round_robin(), app.next_round_robin()],
        [0, 1].map(HashTarget::RoundRobin)
    );
    let after = build(&app.config, Some(&app), s(1001));
    assert_eq!(after.next_round_robin(), HashTarget::RoundRobin(2));
}

#[test]
fn reload_with_another_table_size_keeps_the_keys_of_a_drain() {
    for sizes in [[64, 4096], [16_384, 1024], [16_384, 65_536]] {
        let mut app = app(3, &[DRAIN]);
        let keys = serve_keys_of_first(&app, 600, s(1000));
        app.peers()[0].set_draining(true, s(1001));
        for keys in sizes {
            app = build(&with_table_size(&app, keys), Some(&app), s(1002));
        }
        let progress = app.drain_status(s(1003)).progress(&app.peers()[0]).unwrap();
        assert_eq!(progress.active_keys, keys.len(), "{sizes:?}");
        let at_first_peer = |key: &&u64| admit(&app, **key, s(1003)).member.index() == 0;
        assert_eq!(
            keys.iter().filter(at_first_peer).count(),
            keys.len(),
            "{sizes:?}"
        );
        let progress = app.drain_status(s(1003)).progress(&app.peers()[0]).unwrap();
        assert_eq!(progress.active_keys, keys.len(), "{sizes:?}");
    }
}

#[test]
fn reload_with_another_share_keeps_hot_keys_above_it() {
    let app = app(10, &["hot_keys: {share: 2%, spread: 3}"]);
    for request in 0..5_000_u64 {
        let key = if request % 2 == 0 { 0 } else { request };
        drop(admit(&app, key, s(1000) + Duration::from_millis(request)));
    }
    let hot = |app: &Upstream, now| app.hot_keys().unwrap().hot_keys(now).len();
    assert_eq!(hot(&app, s(1005)), 1);
    for (share, expected) in [(30_000, 1), (400_000, 1)] {
        let mut config = app.config.clone();
        config.hot_keys.as_mut().unwrap().threshold = HotKeyThreshold::new(share).unwrap();
        let after = build(&config, Some(&app), s(1005));
        assert_eq!(hot(&after, s(1005)), expected, "{share}");
    }
}

#[test]
fn reload_without_slow_start_ends_running_ones() {
    let app = app(3, &[SLOW_START]);
    app.peers()[0].set_draining(true, s(1000));
    app.peers()[0].set_draining(false, s(1001));
    fail_connect(&app.peers()[1], s(1001));
    let after = build(&config_of(3, &[]), Some(&app), s(1003));
    after.reconcile(s(1003));
    assert!(after.peers()[0].state.takes_all_keys(s(1003)));
    assert!(
        after.peers()[1].state.takes_all_keys(s(1007)),
        "nor does a later one"
    );
}

#[test]
fn reload_with_another_slow_start_length_keeps_its_progress() {
    for length in ["20s", "10m"] {
        let app = app(3, &[SLOW_START]);
        app.peers()[0].set_draining(true, s(1000));
        app.peers()[0].set_draining(false, s(1010));
        let slow_start = |app: &Upstream, now| app.peers()[0].state.slow_start(now);
        let keys_of_first = |app: &Upstream, now| {
            let keys = (0..2000).filter(|key| selected(app, *key, now) == 0);
            keys.collect::<Vec<_>>()
        };
        let (now, before) = (s(1040), keys_of_first(&app, s(1040)));
        let other = config_of(3, &[&format!("slow_start: {length}")]);
        let after = build(&other, Some(&app), now);
        after.reconcile(now);
        assert_eq!(keys_of_first(&after, now), before, "{length}");
        let (window, configured) = (slow_start(&after, now).unwrap(), other.slow_start.unwrap());
        assert_eq!(window.duration, configured.duration);
        assert_eq!(
            window.start + window.duration,
            now + configured.duration / 2
        );
        // A second reload changes nothing.
        build(&other, Some(&after), s(1041)).reconcile(s(1041));
        assert_eq!(after.peers()[0].state.slow_start(s(1041)), Some(window));
    }
}
