//! Peers without an address: on the ring by their labels, out of service until their names are resolved.

use proptest::prelude::*;

use super::*;

const DIALECTS: [&str; 4] = [
    "ring: {dialect: circle}",
    "ring: {dialect: ketama}",
    "ring: {dialect: nginx}",
    "ring: {dialect: envoy}",
];

/// An upstream whose peers have an address where `resolved` says so.
fn build_resolved(
    config: &config::UpstreamConfig,
    resolved: &[bool],
    previous: Option<&Upstream>,
    now: Duration,
) -> Upstream {
    let address = |(number, is_resolved): (u16, &bool)| {
        let ip = SocketAddr::from(([127, 0, 0, 1], number));
        is_resolved
            .then_some(ip)
            .map_or(Address::Unresolved, Address::Ip)
    };
    let addresses: Vec<_> = (1..).zip(resolved).map(address).collect();
    let (peers, metrics) = ((&*addresses, None), metrics());
    Upstream::new("app", config.clone(), peers, previous, &metrics, now).unwrap()
}

fn try_selected(app: &Upstream, key: u64, now: Duration) -> Option<usize> {
    let choice = app.select(&HashTarget::Key(hash(key)), &Tried::none(), now);
    choice.map(|choice| choice.member.index())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn unresolved_peers_move_their_own_keys_only_and_get_them_back(
        dialect in 0..DIALECTS.len(),
        resolved in proptest::collection::vec(any::<bool>(), 1..7),
        probed in any::<bool>(),
    ) {
        let health = if probed { "health: {tcp: true}" } else { "health: off" };
        let config = config_of(resolved.len(), &[DIALECTS[dialect], health]);
        let app = build_resolved(&config, &resolved, None, s(1000));
        for peer in app.peers().iter().filter(|peer| !peer.is_unresolved() && probed) {
            probe(peer, true, s(1000));
        }
        let selections: Vec<_> = (0..300).map(|key| try_selected(&app, key, s(1001))).collect();
        for (key, selection) in (0..).zip(&selections) {
            let hashed = hash(key);
            let mut walk = app.ring().walk(&hashed).map(MemberId::index);
            prop_assert_eq!(*selection, walk.find(|peer| resolved[*peer]));
        }
        // As if the peers without an address were down.
        let down = build(&config_of(resolved.len(), &[DIALECTS[dialect], "health: {tcp: true}"]), None, s(1000));
        for (peer, is_resolved) in down.peers().iter().zip(&resolved) {
            probe(peer, *is_resolved, s(1000));
        }
        for (key, selection) in (0..).zip(&selections) {
            prop_assert_eq!(*selection, try_selected(&down, key, s(1001)));
        }
        // A key leaves its peer only for the owner that has an address now.
        let all = vec![true; resolved.len()];
        let after = build_resolved(&config, &all, Some(&app), s(1002));
        for peer in after.peers().iter().filter(|_| probed) {
            probe(peer, true, s(1002));
        }
        for (key, selection) in (0..).zip(&selections) {
            prop_assert_eq!(owner(&after, key), owner(&app, key));
            let now = selected(&after, key, s(1003));
            prop_assert_eq!(now, owner(&app, key));
            prop_assert!(*selection == Some(now) || !resolved[now]);
        }
    }
}

#[test]
fn unresolved_peer_is_out_of_service_whatever_happens_to_it() {
    let config = config_of(2, &[SLOW_START, DRAIN]);
    let probed = config_of(2, &[SLOW_START, DRAIN, "health: {tcp: true}"]);
    let mut app = build_resolved(&config, &[false, true], None, s(1000));
    let exported = app.export_state(s(1000));
    // Probes are switched on and off; an operator drains and enables it; another process had it, too.
    for (config, now) in [(&probed, s(1001)), (&config, s(1002)), (&config, s(1003))] {
        app = build_resolved(config, &[false, true], Some(&app), now);
        app.peers()[0].set_draining(true, now);
        app.peers()[0].set_draining(false, now);
        app.restore_state(&exported, now);
        app.reconcile(now);
        let state = &app.peers()[0].state;
        assert!(!state.is_available(now) && !state.is_up() && !state.may_be_up());
    }
    let none = build_resolved(&config, &[false, false], None, s(1000));
    assert_eq!(try_selected(&none, 7, s(1001)), None);
    let next = none.next_round_robin();
    assert!(none.select(&next, &Tried::none(), s(1001)).is_none());
    assert_eq!(none.current_key_space_shares(s(1001)), [0, 0]);
}

#[test]
fn peer_that_is_resolved_starts_slowly_and_keeps_its_drain() {
    let config = config_of(3, &[SLOW_START]);
    let app = build_resolved(&config, &[false, false, true], None, s(1000));
    app.peers()[1].set_draining(true, s(1001));
    let after = build_resolved(&config, &[true, true, true], Some(&app), s(1100));
    let slow_start = after.peers()[0].state.slow_start(s(1100)).unwrap();
    assert_eq!(slow_start.start, s(1100));
    assert!(after.peers()[1].state.is_draining());
    assert!(after.peers()[2].state.takes_all_keys(s(1100)));
}
