use std::net::SocketAddr;
use std::time::Duration;

use super::*;
use crate::config;
use crate::policy::ejection::{EjectionPolicy, FailureKind};
use crate::policy::health::{HealthStatus, HealthThresholds};
use crate::ring::{Hash, MemberId};
use crate::upstream::{HashTarget, Peer, ProbeReport, Tried};

const PROBED: &str = "health: {tcp: true}";
const UNPROBED: &str = "health: off";

/// One upstream `app`, with what is written of it, and its peers.
fn config(app: &str, peers: &str) -> Config {
    let text = format!(
        "listeners: [{{address: 127.0.0.1:1}}]\nroutes: [{{upstream: app}}]\nupstreams:\n  app:\n    {app}\n    peers: {peers}\n"
    );
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("clockwise.yaml");
    std::fs::write(&source, text).unwrap();
    config::load(&source).unwrap()
}

fn metrics() -> Metrics {
    Metrics::new("1", jiff::Timestamp::UNIX_EPOCH)
}

fn build(app: &str, peers: &str, previous: Option<&Snapshot>) -> Snapshot {
    let config = config(app, peers);
    Snapshot::new(config, &ResolvedAddresses::new(), previous, &metrics()).unwrap()
}

fn peer(snapshot: &Snapshot) -> &Peer {
    snapshot.upstreams["app"].peer_by_label("a").unwrap()
}

fn probe(snapshot: &Snapshot, failure: Option<&str>) {
    let report = ProbeReport {
        ended: Duration::from_secs(1),
        duration: Duration::ZERO,
        failure: failure.map(str::to_owned),
    };
    let once = HealthThresholds { rise: 1, fall: 1 };
    peer(snapshot).on_probe(report, once);
}

const ONE: &str = "[{label: a, address: 127.0.0.1:2}]";
const MOVED: &str = "[{label: a, address: 127.0.0.1:3}]";

#[test]
fn drain_follows_the_peer_label_across_reloads() {
    for (before, after, peers) in [
        (PROBED, PROBED, MOVED),
        (UNPROBED, UNPROBED, MOVED),
        (PROBED, UNPROBED, ONE),
        (UNPROBED, PROBED, ONE),
        (PROBED, UNPROBED, MOVED),
        (PROBED, PROBED, ONE),
    ] {
        let before = build(before, ONE, None);
        peer(&before).set_draining(true, clock::since_start());
        let after = build(after, peers, Some(&before));
        assert!(peer(&after).state.is_draining(), "{peers} {after:?}");
    }
}

#[test]
fn drain_command_during_a_reload_is_carried_over() {
    let before = build(PROBED, ONE, None);
    let after = build(PROBED, MOVED, Some(&before));
    peer(&before).set_draining(true, clock::since_start());
    let drains = after.take_drains(&before);
    assert!(peer(&after).state.is_draining());
    peer(&before).set_draining(false, clock::since_start());
    drains.apply();
    assert!(!peer(&after).state.is_draining());
    // A drain that began at the new peer is kept.
    let drains = after.take_drains(&before);
    peer(&after).set_draining(true, clock::since_start());
    drains.apply();
    assert!(peer(&after).state.is_draining());
}

#[test]
fn health_follows_the_address_and_restarts_with_a_new_one() {
    let before = build(PROBED, ONE, None);
    probe(&before, Some("refused"));
    let same = build(PROBED, ONE, Some(&before));
    assert_eq!(peer(&same).state.health(), HealthStatus::Down);
    let moved = build(PROBED, MOVED, Some(&before));
    assert_eq!(peer(&moved).state.health(), HealthStatus::Unknown);
    assert_eq!(peer(&moved).state.last_probe(), None);
}

#[test]
fn added_probes_reset_health_and_removed_probes_no_longer_count() {
    let before = build(UNPROBED, ONE, None);
    let app = &before.upstreams["app"];
    let (target, now) = (HashTarget::Key(Hash(0).into()), clock::since_start());
    let in_flight = app
        .admit(&target, &Tried::none(), now, app.begin_request())
        .unwrap();
    let probed = build(PROBED, ONE, Some(&before));
    assert_eq!(peer(&probed).state.health(), HealthStatus::Unknown);
    assert_eq!(peer(&before).state.health(), HealthStatus::Up);
    probe(&probed, Some("refused"));
    let unprobed = build(UNPROBED, ONE, Some(&probed));
    assert!(peer(&unprobed).state.is_up());
    // The server is the same, so its requests are still in flight.
    assert_eq!(peer(&unprobed).state.in_flight(), 1);
    drop(in_flight);
    assert_eq!(peer(&unprobed).state.in_flight(), 0);
}

#[test]
fn ejection_persists_when_probes_are_added_or_removed() {
    let before = build(UNPROBED, ONE, None);
    let minute = Duration::from_secs(60);
    let policy = EjectionPolicy::for_test(1, minute, minute);
    let now = clock::since_start();
    let app = &before.upstreams["app"];
    app.on_peer_failure(MemberId(0), FailureKind::Connect, &policy, now);
    let after = build(PROBED, ONE, Some(&before));
    assert!(peer(&after).state.ejected_until(now).is_some());
}

#[test]
fn health_without_a_probe_result_is_not_persisted() {
    let up = |snapshot: &Snapshot| snapshot.persisted_state().upstreams["app"]["a"].up;
    let (unprobed, probed) = (build(UNPROBED, ONE, None), build(PROBED, ONE, None));
    assert_eq!((up(&unprobed), up(&probed)), (None, None));
    probe(&probed, None);
    assert_eq!(up(&probed), Some(true));
}

#[test]
fn persisted_state_of_another_address_restores_only_the_drain() {
    let before = build(PROBED, ONE, None);
    probe(&before, Some("refused"));
    peer(&before).set_draining(true, clock::since_start());
    let after = build(PROBED, MOVED, None);
    after.restore(&before.persisted_state());
    assert!(peer(&after).state.is_draining());
    assert_eq!(peer(&after).state.health(), HealthStatus::Unknown);
}

#[test]
fn peer_new_in_an_upgrade_starts_slowly() {
    let slowly = "health: off\n    slow_start: {time: 60s, at_start: true}";
    let before = build(slowly, "[{label: b, address: 127.0.0.1:3}]", None);
    let mut memory = before.state_for_successor();
    memory.cold_start_ms_ago.clear();
    let both = "[{label: a, address: 127.0.0.1:2}, {label: b, address: 127.0.0.1:3}]";
    let after = build(slowly, both, None);
    after.restore(&memory);
    let ramp = peer(&after).state.slow_start(clock::since_start());
    let length = ramp.map(|ramp| ramp.duration);
    assert_eq!(length, Some(Duration::from_secs(60)));
}

#[test]
fn snapshot_build_failure_leaves_no_metric_series() {
    let metrics = metrics();
    let known = config(UNPROBED, ONE);
    let before = Snapshot::new(known, &ResolvedAddresses::new(), None, &metrics).unwrap();
    let peers = "[{label: a, address: 127.0.0.1:2}, {label: new, address: 127.0.0.1:3}]";
    let mut config = config(UNPROBED, peers);
    let app = config.upstreams["app"].clone();
    config.upstreams.insert("other".to_owned(), app);
    config.routes[0].upstream = "nowhere".to_owned();
    let text = metrics.render();
    Snapshot::new(config, &ResolvedAddresses::new(), Some(&before), &metrics).unwrap_err();
    assert_eq!(sorted(&metrics.render()), sorted(&text));
}

/// A family lists its series in no order.
fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn snapshot_lists_the_resolved_addresses_in_use() {
    let config = config(
        UNPROBED,
        "[{label: a, address: \"a.test:80\"}, \"127.0.0.1:2\"]",
    );
    let name = PeerAddress::Name("a.test".to_owned(), 80);
    let addresses = ResolvedAddresses::from([(name, SocketAddr::from(([10, 0, 0, 1], 80)))]);
    let snapshot = Snapshot::new(config, &addresses, None, &metrics()).unwrap();
    assert_eq!(snapshot.addresses(), addresses);
}

#[test]
fn unresolved_peer_is_refused_only_by_a_strict_start_and_only_if_no_source_looks_it_up() {
    let peers = "[{label: a, address: \"a.test:80\"}, \"127.0.0.1:2\"]";
    let mut config = config(UNPROBED, peers);
    let none = ResolvedAddresses::new();
    let before = Snapshot::new(config.clone(), &none, None, &metrics()).unwrap();
    assert!(peer(&before).is_unresolved());
    assert_eq!(before.addresses(), none);
    let address = SocketAddr::from(([10, 0, 0, 1], 80));
    let addresses =
        ResolvedAddresses::from([(PeerAddress::Name("a.test".to_owned(), 80), address)]);
    let after = Snapshot::new(config.clone(), &addresses, Some(&before), &metrics()).unwrap();
    assert_eq!(peer(&after).address, Address::Ip(address));
    let plan = SnapshotDiff::between(&before, &after);
    assert_eq!(plan.upstreams["app"].moved_hashes, 0);
    assert_eq!(plan.upstreams["app"].peers.changed, ["a"]);
    let names = after.persisted_state().resolved_names;
    assert_eq!(
        names.into_iter().collect::<Vec<_>>(),
        [("a.test:80".to_owned(), address)]
    );
    config.start = config::StartMode::Strict;
    let mut found = config.clone();
    let app = found.upstreams.get_mut("app").unwrap();
    app.sources = vec![config::PeerSource::Dns(config::DnsQuestion::Services {
        name: "s.test".to_owned(),
        weights: config::SrvWeights::Ignore,
    })];
    app.peers[0].source = Some(0);
    // An address that another peer of that name has is not the source's.
    let found = Snapshot::new(found, &addresses, None, &metrics()).unwrap();
    assert!(peer(&found).is_unresolved());
    let refused = Snapshot::new(config, &none, None, &metrics()).unwrap_err();
    assert!(matches!(refused, Error::NoAddress { .. }), "{refused}");
}

#[test]
fn in_flight_counter_is_released_with_its_removed_server() {
    let before = build(UNPROBED, ONE, None);
    let app = &before.upstreams["app"];
    let (target, now) = (HashTarget::Key(Hash(0).into()), clock::since_start());
    let tried = Tried::none();
    let in_flight = app
        .admit(&target, &tried, now, app.begin_request())
        .unwrap();
    let after = build(UNPROBED, MOVED, Some(&before));
    let shared = || after.upstreams["app"].in_flight();
    assert_eq!(shared(), 1, "not in force");
    after.activate(&before);
    assert_eq!(shared(), 0);
    drop(in_flight);
    assert_eq!(shared(), 0);
}

#[test]
fn ten_thousand_drains_are_restored_without_a_search_for_each() {
    let peers = |port: u16| {
        let peer = |n| format!("{{label: p{n}, address: \"127.0.0.1:{port}\"}}");
        let peers: Vec<_> = (0..10_000).map(peer).collect();
        format!("[{}]", peers.join(", "))
    };
    let before = build(UNPROBED, &peers(2), None);
    let after = build(UNPROBED, &peers(3), Some(&before));
    let memory = before.persisted_state();
    let began = clock::now();
    for _ in 0..10 {
        after.restore_drains(&memory);
        after.take_drains(&before).apply();
    }
    // A search through all peers for each would take minutes; this takes a second on an idle machine.
    let took = began.elapsed();
    assert!(took < Duration::from_secs(30), "{took:?}");
}

/// In a dialect without points, a key gives each peer a score instead of having a place on a circle.
#[test]
fn selection_without_ring_points_follows_the_same_rules() {
    let peers: Vec<_> = (2..8)
        .map(|port| format!("{{label: p{port}, address: 127.0.0.1:{port}}}"))
        .collect();
    let peers = format!("[{}]", peers.join(", "));
    let now = clock::since_start();
    for ring in ["ketama", "caddy", "traefik"] {
        let balance =
            "bounded_load: 1.25\n    hot_keys: {share: 2%, spread: 3}\n    drain: {idle: 60s}";
        let app = format!("health: off\n    ring: {ring}\n    {balance}");
        let snapshot = build(&app, &peers, None);
        let app = &snapshot.upstreams["app"];
        for key in 0..20_u32 {
            let key = app.key(&key.to_le_bytes());
            let walk: Vec<_> = app.ring().walk(&key).collect();
            let target = HashTarget::Key(key);
            assert_eq!(size_of_val(&target), 16);
            let admit = || {
                app.admit(&target, &Tried::none(), now, app.begin_request())
                    .unwrap()
            };
            // No peer may hold both of two requests in flight.
            let (first, second) = (admit(), admit());
            assert_eq!(
                (first.member, first.overflow_from),
                (walk[0], None),
                "{ring}"
            );
            assert_eq!(
                (second.member, second.overflow_from),
                (walk[1], Some(walk[0]))
            );
            drop((first, second));
            // Its owner drains and keeps it; any other key goes to the next peer.
            let owner = app.peer(walk[0]).unwrap();
            owner.set_draining(true, now);
            assert_eq!(admit().member, walk[0], "{ring}");
            let strange = app.ring().walk(&app.key(b"strange")).next().unwrap();
            let target = HashTarget::Key(app.key(b"strange"));
            let home = app.select(&target, &Tried::none(), now).unwrap().member;
            assert_ne!(home, walk[0], "{ring}");
            assert_eq!(home == strange, strange != walk[0], "{ring}");
            owner.set_draining(false, now);
        }
    }
}
