//! The return of a peer: after it was lost, after a drain, in another configuration or process.

use super::*;

const PROBED: &str = "health: {tcp: true}";
const SLOW_START_AT_START: &str = "slow_start: {time: 60s, at_start: true}";

/// Three peers that are up, with `drain` and `slow_start`.
fn three(settings: &[&str]) -> Upstream {
    let app = app(3, &[settings, &[DRAIN, SLOW_START, PROBED]].concat());
    probe_all(&app, s(1000));
    app
}

/// Keys of the first peer, each with a request at `now`.
fn sessions(app: &Upstream, now: Duration) -> Vec<u64> {
    let keys: Vec<u64> = (0..400).filter(|key| owner(app, *key) == 0).collect();
    send(app, &keys, now);
    keys
}

/// Sends a request with each key; the number that the first peer serves.
fn send(app: &Upstream, keys: &[u64], now: Duration) -> usize {
    let peer = |key: &u64| admit(app, *key, now).member.index();
    keys.iter().map(peer).filter(|peer| *peer == 0).count()
}

/// The upstream in another process, with a clock of its own.
fn restarted(app: &Upstream, from: Duration, to: Duration) -> Upstream {
    let after = build(&app.config, None, to);
    let (mut exported, mut room) = (app.export_state(from), MAX_EXPORTED_KEYS);
    app.export_active_keys(&mut exported, &mut room, Duration::MAX, from);
    after.restore_cold_start(app.export_cold_start(from), to);
    after.restore_state(&exported, to);
    after
}

fn build_elsewhere(
    config: &config::UpstreamConfig,
    previous: Option<&Upstream>,
    now: Duration,
) -> Upstream {
    let address = |number, _: &_| SocketAddr::from(([127, 0, 0, 9], number));
    build_at(config, address, previous, now)
}

// ── all equally cold

/// The highest ratio of selected to owned keys of a peer.
fn excess(app: &Upstream, now: Duration) -> f64 {
    let mut counts = vec![(0_u32, 0_u32); app.peers().len()];
    for key in 0..4000 {
        counts[selected(app, key, now)].0 += 1;
        counts[owner(app, key)].1 += 1;
    }
    let excess = |(selected, owned): (u32, u32)| f64::from(selected) / f64::from(owned);
    counts.into_iter().map(excess).fold(0.0, f64::max)
}

/// Ten peers that were down come up one after the other, with a request after each.
fn ten_recover(interval: Duration) -> Upstream {
    let app = app(10, &[SLOW_START, PROBED]);
    probe_all(&app, s(990));
    for peer in app.peers() {
        probe(peer, false, s(1000));
    }
    for (number, peer) in (0..).zip(app.peers()) {
        let now = s(1010) + interval * number;
        probe(peer, true, now);
        drop(admit(&app, u64::from(number), now));
    }
    app
}

#[test]
fn cold_start_first_available_peer_does_not_keep_all_keys() {
    let app = ten_recover(ms(5));
    for after in [100, 600, 6_000, 30_000] {
        let excess = excess(&app, s(1010) + ms(after));
        assert!(excess <= 1.25, "{excess} after {after} ms");
    }
    let app = ten_recover(s(1));
    let worst = excess(&app, s(1019));
    assert!(worst <= 1.7, "{worst}; the first had all keys before");
    let later = excess(&app, s(1029));
    assert!(later <= 1.0, "{later}");
}

#[test]
fn peer_lost_after_a_cold_start_gets_a_full_slow_start() {
    let app = ten_recover(ms(5));
    let lost = &app.peers()[3];
    probe(lost, false, s(1090));
    probe(lost, true, s(1100));
    assert_eq!(lost.state.slow_start(s(1100)).unwrap().duration, s(60));
}

#[test]
fn peer_down_at_process_start_starts_slowly() {
    let app = app(3, &[SLOW_START, PROBED]);
    let [one, two, late] = app.peers() else {
        panic!("three")
    };
    for peer in [one, two] {
        probe(peer, true, s(1000));
    }
    probe(late, false, s(1000));
    probe(late, true, s(1030));
    assert!(one.state.takes_all_keys(s(1030)) && late.state.slow_start(s(1030)).is_some());
}

#[test]
fn slow_start_at_process_start_follows_config() {
    for (setting, duration) in [(SLOW_START, None), (SLOW_START_AT_START, Some(s(5)))] {
        let app = app(3, &[setting, PROBED]);
        let [one, two, late] = app.peers() else {
            panic!("three")
        };
        for peer in [one, two] {
            probe(peer, true, s(1000));
        }
        probe(late, true, s(1005));
        let slow_start = late.state.slow_start(s(1005));
        assert_eq!(slow_start.map(|window| window.duration), duration);
        assert!(one.state.takes_all_keys(s(1000)) && two.state.takes_all_keys(s(1000)));
    }
}

#[test]
fn restored_process_keeps_the_time_of_the_cold_start() {
    let app = ten_recover(ms(5));
    probe(&app.peers()[3], false, s(1020));
    let after = restarted(&app, s(1030), s(7000));
    probe(&after.peers()[3], true, s(7010));
    let duration = after.peers()[3].state.slow_start(s(7010)).unwrap().duration;
    assert!(duration.abs_diff(s(30)) < ms(100), "{duration:?}");
    let warm = build(&config_of(3, &[SLOW_START_AT_START, PROBED]), None, s(1000));
    probe_all(&warm, s(1000));
    let after = restarted(&warm, s(2000), s(7000));
    probe(&after.peers()[0], false, s(7001));
    probe(&after.peers()[0], true, s(7002));
    assert_eq!(
        after.peers()[0].state.slow_start(s(7002)).unwrap().duration,
        s(60),
        "a new process makes no peer cold"
    );
}

// ── keys that a drain keeps

#[test]
fn peer_lost_during_a_drain_keeps_no_key() {
    for ejected in [false, true] {
        let app = three(&[]);
        let peer = &app.peers()[0];
        let keys = sessions(&app, s(1000));
        peer.set_draining(true, s(1001));
        assert_eq!(send(&app, &keys, s(1002)), keys.len());
        if ejected {
            fail_connect(peer, s(1003));
            peer.on_success(s(1004), s(1004));
        } else {
            probe(peer, false, s(1003));
            probe(peer, true, s(1004));
        }
        assert_eq!(send(&app, &keys, s(1005)), 0, "draining");
        peer.set_draining(false, s(1006));
        assert_eq!(send(&app, &keys, s(1006)), 0, "in a slow start");
    }
}

#[test]
fn peer_lost_before_a_drain_keeps_only_keys_served_since() {
    let app = three(&[]);
    let peer = &app.peers()[0];
    let keys = sessions(&app, s(1000));
    probe(peer, false, s(1001));
    probe(peer, true, s(1002));
    peer.set_draining(true, s(1003));
    assert_eq!(send(&app, &keys, s(1004)), 0);
}

#[test]
fn keys_served_by_an_ejected_peer_as_last_resort_are_not_its_own() {
    let app = three(&[]);
    for peer in app.peers() {
        fail_connect(peer, s(1000));
    }
    let keys = sessions(&app, s(1001));
    app.peers()[1].on_success(s(1002), s(1002));
    app.peers()[2].on_success(s(1002), s(1002));
    assert_eq!(send(&app, &keys, s(1004)), 0);
    assert_eq!(
        send(&app, &keys, s(1005)),
        0,
        "the slow start admits them one by one"
    );
}

#[test]
fn keys_moved_at_a_drain_deadline_return_with_the_slow_start() {
    let app = three(&[]);
    let peer = &app.peers()[0];
    let keys = sessions(&app, s(1000));
    peer.set_draining(true, s(1001));
    for at in (1003..1041).step_by(9) {
        assert_eq!(send(&app, &keys, s(at)), keys.len());
    }
    assert_eq!(send(&app, &keys, s(1041)), 0);
    peer.set_draining(false, s(1042));
    assert_eq!(send(&app, &keys, s(1042)), 0);
}

#[test]
fn idle_session_during_a_short_drain_stays_on_its_peer() {
    let app = three(&[]);
    let keys = sessions(&app, s(1000));
    app.peers()[0].set_draining(true, s(1002));
    app.peers()[0].set_draining(false, s(1003));
    assert_eq!(send(&app, &keys, s(1005)), keys.len());
}

#[test]
fn session_kept_by_a_drain_stays_during_the_following_slow_start() {
    let app = three(&[]);
    let keys = sessions(&app, s(1000));
    app.peers()[0].set_draining(true, s(1002));
    app.peers()[0].set_draining(false, s(1003));
    for at in [1008, 1014, 1050, 1064] {
        let is_at_first = |key: &&u64| selected(&app, **key, s(at)) == 0;
        let at_first = keys.iter().filter(is_at_first).count();
        assert_eq!(at_first, keys.len(), "at {at}");
    }
}

#[test]
fn restored_process_keeps_the_keys_of_a_drain() {
    let app = three(&[]);
    let keys = sessions(&app, s(1000));
    app.peers()[0].set_draining(true, s(1001));
    app.peers()[0].set_draining(false, s(1003));
    let after = restarted(&app, s(1004), s(7000));
    assert_eq!(send(&after, &keys, s(7001)), keys.len());
}

#[test]
fn restored_process_keeps_in_a_drain_keys_served_before() {
    let app = three(&[]);
    let keys = sessions(&app, s(1000));
    let after = restarted(&app, s(1002), s(7000));
    after.peers()[0].set_draining(true, s(7001));
    assert_eq!(send(&after, &keys, s(7002)), keys.len());
}

// ── every way back begins a slow start

#[test]
fn reload_that_adds_or_removes_probes_does_not_skip_the_slow_start() {
    let (probed, unprobed) = (
        config_of(3, &[SLOW_START, PROBED]),
        config_of(3, &[SLOW_START]),
    );
    for (from, to) in [(&probed, &unprobed), (&unprobed, &probed)] {
        let before = build(from, None, s(1000));
        probe_all(&before, s(1000));
        before.peers()[0].set_draining(true, s(1001));
        let after = build(to, Some(&before), s(1002));
        probe_all(&after, s(1003));
        assert!(after.peers()[1].state.takes_all_keys(s(1004)), "unaffected");
        after.peers()[0].set_draining(false, s(1004));
        assert!(after.peers()[0].state.slow_start(s(1004)).is_some());
    }
    let before = build(&probed, None, s(1000));
    probe(&before.peers()[0], false, s(1001));
    let after = build(&unprobed, Some(&before), s(1002));
    assert!(after.peers()[0].state.slow_start(s(1002)).is_some());
}

#[test]
fn server_replaced_under_the_same_label_starts_slowly() {
    for settings in [&[SLOW_START, PROBED][..], &[SLOW_START]] {
        let before = app(3, settings);
        probe_all(&before, s(1000));
        before.peers()[0].set_draining(true, s(1001));
        let reloaded = build_elsewhere(&before.config, Some(&before), s(1002));
        let upgraded = build_elsewhere(&before.config, None, s(1002));
        upgraded.restore_state(&before.export_state(s(1002)), s(1002));
        for after in [reloaded, upgraded] {
            probe_all(&after, s(1003));
            let [drained, other, _] = after.peers() else {
                panic!("three")
            };
            assert!(other.state.slow_start(s(1003)).is_some());
            drained.set_draining(false, s(1080));
            assert!(drained.state.slow_start(s(1080)).is_some());
        }
    }
}

#[test]
fn drain_command_during_a_reload_does_not_skip_the_slow_start() {
    let before = app(3, &[SLOW_START, PROBED]);
    probe_all(&before, s(1000));
    before.peers()[0].set_draining(true, s(1001));
    let after = build(&config_of(3, &[SLOW_START]), Some(&before), s(1002));
    let handovers: Vec<_> = after.hand_over_drains(&before, s(1003)).collect();
    before.peers()[0].set_draining(false, s(1004));
    for handover in handovers {
        handover.finish(s(1005));
    }
    assert!(after.peers()[0].state.slow_start(s(1005)).is_some());
}

#[test]
fn ejection_ended_by_a_restored_process_begins_the_slow_start() {
    let app = app(3, &[SLOW_START]);
    fail_connect(&app.peers()[0], s(1000));
    let after = restarted(&app, s(1001), s(7001));
    after.peers()[0].on_success(s(7002), s(7002));
    let slow_start = after.peers()[0].state.slow_start(s(7002));
    assert_eq!(slow_start.map(|window| window.start), Some(s(7002)));
}
