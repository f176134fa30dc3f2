//! The laws of the selection, on histories of everything that can happen to an upstream, by a virtual
//! clock.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use jiff::Timestamp;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::config;
use crate::policy::ejection::EjectionPolicy;
use crate::policy::health::HealthThresholds;
use crate::policy::heavy_hitters::HotKeyThreshold;
use crate::ring::{Hash, HashedKey, Weight};
use crate::telemetry::metrics::Metrics;

mod bounded_load;
mod random_histories;
mod recovery;

const QUARTER: &str = "bounded_load: 1.25";
const SLOWLY: &str = "slow_start: 60s";
const KEEPING: &str = "drain: {idle: 10s, deadline: 40s, keys: 1024}";
const ONCE: HealthThresholds = HealthThresholds { rise: 1, fall: 1 };
const EJECT: EjectionPolicy = EjectionPolicy {
    failures: 1,
    base_ejection: s(5),
    max_ejection: s(20),
};

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// An upstream `app` of so many peers, `a` and so on, with what is written of it besides.
fn written(peers: usize, settings: &[&str]) -> config::UpstreamConfig {
    let probes = settings.iter().any(|setting| setting.starts_with("health"));
    let health = if probes { "" } else { "health: off" };
    let peers: Vec<String> = (0..peers)
        .map(|peer| format!("{{label: p{peer}, address: 127.0.0.1:{}}}", peer + 1))
        .collect();
    let text = format!(
        "listeners: [{{address: 127.0.0.1:1}}]\nroutes: [{{upstream: app}}]\nupstreams:\n  app:\n    {health}\n    {}\n    peers: [{}]\n",
        settings.join("\n    "),
        peers.join(", "),
    );
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("clockwise.yaml");
    std::fs::write(&source, text).unwrap();
    let config = config::load(&source).unwrap();
    config.upstreams["app"].clone()
}

fn metrics() -> Metrics {
    Metrics::new("1", Timestamp::UNIX_EPOCH)
}

/// The peers at the ports of their numbers in the list, from 1.
fn build(config: &config::UpstreamConfig, previous: Option<&Upstream>, now: Duration) -> Upstream {
    let address = |number, _: &_| SocketAddr::from(([127, 0, 0, 1], number));
    placed(config, address, previous, now)
}

fn placed(
    config: &config::UpstreamConfig,
    address: impl Fn(u16, &config::PeerConfig) -> SocketAddr,
    previous: Option<&Upstream>,
    now: Duration,
) -> Upstream {
    let peers = (1..).zip(&config.peers);
    let addresses: Vec<_> = peers
        .map(|(number, peer)| Address::Ip(address(number, peer)))
        .collect();
    let (places, metrics) = ((&*addresses, None), metrics());
    Upstream::new("app", config.clone(), places, previous, &metrics, now).unwrap()
}

fn app(peers: usize, settings: &[&str]) -> Upstream {
    build(&written(peers, settings), None, s(1000))
}

fn probe(peer: &Peer, passes: bool, now: Duration) {
    let failure = (!passes).then(|| "refused".to_owned());
    let report = ProbeReport {
        ended: now,
        duration: Duration::ZERO,
        failure,
    };
    peer.on_probe(report, ONCE);
}

fn probe_all(app: &Upstream, now: Duration) {
    app.peers().iter().for_each(|peer| probe(peer, true, now));
}

#[test]
fn available_shares_follow_the_available_peers() {
    let app = app(3, &[SLOWLY, "health: {tcp: true}"]);
    let now = s(2000);
    assert_eq!(
        app.current_key_space_shares(now).iter().sum::<u64>(),
        1 << 32,
        "a last resort"
    );
    probe_all(&app, now);
    let all = app.ring().shares();
    assert_eq!(app.current_key_space_shares(now), all);
    probe(&app.peers()[0], false, now);
    let without = app.current_key_space_shares(now);
    assert_eq!((without[0], without.iter().sum::<u64>()), (0, 1 << 32));
    probe(&app.peers()[0], true, now);
    let half = app.current_key_space_shares(now + s(30));
    assert!(
        half[0].abs_diff(all[0] / 2) <= 1
            && half[1].abs_diff(u64::midpoint(all[1], without[1])) <= 1
    );
}

/// A round of the ring is for those who ask first.
#[test]
fn available_shares_equal_cached_ring_shares_while_all_are_available() {
    let app = app(3, &["health: {tcp: true}"]);
    probe_all(&app, s(1000));
    assert!(std::ptr::eq(app.key_space_shares(), app.key_space_shares()));
    assert_eq!(app.key_space_shares(), app.ring().shares());
    let of = |now| app.current_key_space_shares(now);
    assert_eq!(of(s(1000)), app.key_space_shares());
    for at in [1001, 1003] {
        probe(&app.peers()[0], false, s(at));
        let without = of(s(at));
        assert_eq!((without[0], without.iter().sum::<u64>()), (0, 1 << 32));
        probe(&app.peers()[0], true, s(at + 1));
        assert_eq!(of(s(at + 1)), app.key_space_shares());
    }
}

#[test]
fn flap_suppression_ends_when_damping_is_disabled() {
    let damped = written(
        2,
        &[
            "health: {tcp: true}",
            "flap_damping: {flips: 2, half_life: 10m}",
        ],
    );
    let before = build(&damped, None, s(1000));
    probe_all(&before, s(1000));
    for second in [1010, 1020] {
        probe(&before.peers()[0], false, s(second));
        probe(&before.peers()[0], true, s(second + 1));
    }
    let undamped = written(2, &["health: {tcp: true}"]);
    let after = build(&undamped, Some(&before), s(1030));
    assert!(
        !before.peers()[0].state.is_available(s(1030)),
        "not in force"
    );
    after.reconcile(s(1030));
    assert!(after.peers()[0].state.is_available(s(1030)));
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

fn hash(key: u64) -> HashedKey {
    HashedKey::from(Hash(crate::policy::hash_mix::mix(key) >> 32))
}

fn place_of(app: &Upstream, key: u64, now: Duration) -> usize {
    let choice = app.select(&HashTarget::Key(hash(key)), &Tried::none(), now);
    choice.unwrap().member.index()
}

fn owner(app: &Upstream, key: u64) -> usize {
    app.ring().owner(&hash(key)).unwrap().index()
}

fn served(app: &Upstream, key: u64, now: Duration) -> Admission {
    let target = HashTarget::Key(hash(key));
    app.admit(&target, &Tried::none(), now, app.begin_request())
        .unwrap()
}

/// As the ledger has it, not as the selection sees it.
fn is_available(state: &PeerState, now: Duration) -> bool {
    let well = state.health() == crate::policy::health::HealthStatus::Up && !state.is_draining();
    well && state.ejected_until(now).is_none() && state.suppressed_until(now).is_none()
}

fn is_home(state: &PeerState, now: Duration) -> bool {
    is_available(state, now) && state.slow_start(now).is_none()
}

// ── slow start

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

// ── drain

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

// ── bounded load

#[test]
fn retry_uses_free_capacity_before_it_exceeds_the_bound() {
    let app = app(2, &[QUARTER]);
    let mut tried = Tried::none();
    tried.insert(MemberId(0));
    let at_first = || {
        let held = app.peers()[0].state.in_flight_counter();
        app.begin_request().admit_unbounded(held)
    };
    let _first: Vec<_> = (0..20).map(|_| at_first()).collect();
    let on_second = |_| {
        let admitted = app.admit(
            &HashTarget::Key(hash(7)),
            &tried,
            s(1000),
            app.begin_request(),
        );
        admitted.unwrap()
    };
    let _second: Vec<_> = (0..30).map(on_second).collect();
    // 30 of 50 in flight are above the fair share, and within the bound of 32.
    assert_eq!(app.metrics.bounded_load_exceeded.get(), 0);
}

#[test]
fn keyless_requests_stay_within_the_bound() {
    let app = app(4, &[QUARTER]);
    let mut held = Vec::new();
    for _ in 0..400 {
        let turn = app.next_round_robin();
        held.push(
            app.admit(&turn, &Tried::none(), s(1000), app.begin_request())
                .unwrap(),
        );
    }
    let most = app.peers().iter().map(|peer| peer.state.in_flight()).max();
    assert!(most <= Some(125), "{most:?}");
    assert_eq!(app.metrics.bounded_load_exceeded.get(), 0);
}

// ── hot keys

#[test]
fn hot_key_spreads_without_moving_other_keys() {
    let app = app(10, &["hot_keys: {share: 2%, spread: 3}"]);
    let mut random = StdRng::seed_from_u64(1);
    let mut counts = [0_u32; 10];
    let mut moved = 0;
    for request in 0..60_000_u64 {
        let now = s(1000) + Duration::from_millis(request);
        let is_hot = random.gen_bool(0.3);
        let key = if is_hot {
            0
        } else {
            random.gen_range(1..20_000)
        };
        let member = served(&app, key, now).member.index();
        moved += u32::from(!is_hot && member != owner(&app, key));
        if request >= 10_000 {
            counts[member] += 1;
        }
    }
    assert_eq!(moved, 0, "keys beside the hot one");
    let cold = app.ring().shares().into_iter().max().unwrap();
    let fullest = counts.iter().max().unwrap();
    // What the ring's own spread makes of the rest is no matter of the hot key.
    let most = (35_000.0 * share_of(cold) + 15_000.0 / 9.0) * 1.05;
    assert!(f64::from(*fullest) < most, "{counts:?}, {most}");
}

/// Of the key space.
#[expect(clippy::cast_precision_loss, reason = "2^32 fits")]
fn share_of(hashes: u64) -> f64 {
    hashes as f64 / 2_f64.powi(32)
}

// ── flapping

#[test]
fn suppressed_peer_serves_only_when_no_other_peer_is_available() {
    let app = app(
        2,
        &[
            "flap_damping: {flips: 3, half_life: 1m, max: 10m}",
            "health: {tcp: true}",
        ],
    );
    probe_all(&app, s(1000));
    for at in [1001, 1003, 1005] {
        probe(&app.peers()[0], false, s(at));
        probe(&app.peers()[0], true, s(at + 1));
    }
    assert!(app.peers()[0].state.suppressed_until(s(1006)).is_some());
    let key = (0..1000).find(|key| owner(&app, *key) == 0).unwrap();
    assert_eq!(place_of(&app, key, s(1006)), 1);
    probe(&app.peers()[1], false, s(1007));
    assert_eq!(place_of(&app, key, s(1007)), 0);
    probe(&app.peers()[1], true, s(1008));
    assert_eq!(place_of(&app, key, s(1008)), 1);
    let reloaded = build(&app.config, Some(&app), s(1009));
    assert_eq!(place_of(&reloaded, key, s(1009)), 1);
    let until = app.peers()[0].state.suppressed_until(s(1008)).unwrap();
    assert_eq!(place_of(&reloaded, key, until), 0);
}

// ── reload

#[test]
fn reload_keeps_slow_starts_drains_and_in_flight_counts() {
    let settings = [QUARTER, SLOWLY, KEEPING];
    let app = app(3, &settings);
    let [ramps, drains, _] = app.peers() else {
        panic!("three")
    };
    ramps.set_draining(true, s(1000));
    ramps.set_draining(false, s(1010));
    let mut config = written(4, &settings);
    config.peers[2].weight = Weight::new(3).unwrap();
    let next = build(&config, None, s(1011));
    let stays = |key: &u64| owner(&app, *key) == 1 && owner(&next, *key) == 1;
    let key = (0..1000).find(stays).unwrap();
    let held = served(&app, key, s(1011));
    drains.set_draining(true, s(1012));
    let after = build(&config, Some(&app), s(1015));
    assert_eq!(
        after.peers()[0].state.slow_start(s(1015)),
        ramps.state.slow_start(s(1015))
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
    drop(held);
    assert_eq!(after.in_flight(), 0);
    assert_eq!(served(&after, key, s(1016)).member.index(), 1);
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

/// Keys that the first peer owns, and served at `now`.
fn served_by_first(app: &Upstream, keys: u64, now: Duration) -> Vec<u64> {
    let owned: Vec<u64> = (0..keys).filter(|key| owner(app, *key) == 0).collect();
    for key in &owned {
        drop(served(app, *key, now));
    }
    owned
}

fn with_keys(app: &Upstream, keys: u32) -> config::UpstreamConfig {
    let mut config = app.config.clone();
    config.drain.as_mut().unwrap().max_tracked_keys = keys;
    config
}

#[test]
fn reload_with_another_table_size_keeps_the_keys_of_a_drain() {
    for sizes in [[64, 4096], [16_384, 1024], [16_384, 65_536]] {
        let mut app = app(3, &[KEEPING]);
        let keys = served_by_first(&app, 600, s(1000));
        app.peers()[0].set_draining(true, s(1001));
        for keys in sizes {
            app = build(&with_keys(&app, keys), Some(&app), s(1002));
        }
        let remains = app.drain_status(s(1003)).progress(&app.peers()[0]).unwrap();
        assert_eq!(remains.active_keys, keys.len(), "{sizes:?}");
        let at_home = |key: &&u64| served(&app, **key, s(1003)).member.index() == 0;
        assert_eq!(keys.iter().filter(at_home).count(), keys.len(), "{sizes:?}");
        let remains = app.drain_status(s(1003)).progress(&app.peers()[0]).unwrap();
        assert_eq!(remains.active_keys, keys.len(), "{sizes:?}");
    }
}

#[test]
fn reload_with_another_share_keeps_hot_keys_above_it() {
    let app = app(10, &["hot_keys: {share: 2%, spread: 3}"]);
    for request in 0..5_000_u64 {
        let key = if request % 2 == 0 { 0 } else { request };
        drop(served(&app, key, s(1000) + Duration::from_millis(request)));
    }
    let hot = |app: &Upstream, now| app.hot_keys().unwrap().hot_keys(now).len();
    assert_eq!(hot(&app, s(1005)), 1);
    for (share, hot_ones) in [(30_000, 1), (400_000, 1)] {
        let mut config = app.config.clone();
        config.hot_keys.as_mut().unwrap().threshold = HotKeyThreshold::new(share).unwrap();
        let after = build(&config, Some(&app), s(1005));
        assert_eq!(hot(&after, s(1005)), hot_ones, "{share}");
    }
}

#[test]
fn reload_without_slow_start_ends_running_ones() {
    let app = app(3, &[SLOWLY]);
    app.peers()[0].set_draining(true, s(1000));
    app.peers()[0].set_draining(false, s(1001));
    app.peers()[1].on_connect_failure(&EJECT, s(1001));
    let after = build(&written(3, &[]), Some(&app), s(1003));
    after.reconcile(s(1003));
    assert!(after.peers()[0].state.takes_all_keys(s(1003)));
    assert!(
        after.peers()[1].state.takes_all_keys(s(1007)),
        "nor does one to come"
    );
}

#[test]
fn reload_with_another_slow_start_length_keeps_its_progress() {
    for length in ["20s", "10m"] {
        let app = app(3, &[SLOWLY]);
        app.peers()[0].set_draining(true, s(1000));
        app.peers()[0].set_draining(false, s(1010));
        let ramp = |app: &Upstream, now| app.peers()[0].state.slow_start(now);
        let home = |app: &Upstream, now| {
            let keys = (0..2000).filter(|key| place_of(app, *key, now) == 0);
            keys.collect::<Vec<_>>()
        };
        let (now, before) = (s(1040), home(&app, s(1040)));
        let other = written(3, &[&format!("slow_start: {length}")]);
        let after = build(&other, Some(&app), now);
        after.reconcile(now);
        assert_eq!(home(&after, now), before, "{length}");
        let (ramp, whole) = (ramp(&after, now).unwrap(), other.slow_start.unwrap());
        assert_eq!(ramp.duration, whole.duration);
        assert_eq!(ramp.start + ramp.duration, now + whole.duration / 2);
        // The next reload finds it as it should be.
        build(&other, Some(&after), s(1041)).reconcile(s(1041));
        assert_eq!(after.peers()[0].state.slow_start(s(1041)), Some(ramp));
    }
}

// ── upgrade

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

// ── what a bound is a share of

#[test]
fn serving_weight_equals_the_sum_over_available_peers() {
    let app = app(
        8,
        &[
            SLOWLY,
            "health: {tcp: true}",
            "flap_damping: {flips: 2, half_life: 5s, max: 30s}",
        ],
    );
    probe_all(&app, s(1000));
    let mut random = StdRng::seed_from_u64(7);
    let mut now = s(1000);
    for _ in 0..20_000 {
        now += Duration::from_millis(random.gen_range(0..900));
        let peer = &app.peers()[random.gen_range(0..8)];
        match random.gen_range(0..12) {
            0 => probe(peer, false, now),
            1..=4 => probe(peer, true, now),
            5 => drop(peer.on_connect_failure(&EJECT, now)),
            6 => drop(peer.set_draining(random.gen_bool(0.3), now)),
            _ => {}
        }
        let home = app.peers().iter().filter(|peer| is_home(&peer.state, now));
        let weight: u32 = home.map(|peer| u32::from(peer.weight.get())).sum();
        assert_eq!(app.serving_weight(now), weight);
    }
}

#[test]
fn serving_weight_of_an_earlier_moment_does_not_replace_a_later_one() {
    let app = app(2, &[]);
    app.peers()[0].on_connect_failure(&EJECT, s(1000));
    let changes = app.shared.changes.load(Relaxed);
    let counted = |now| app.weights.recount(&app.peers, changes, now).full;
    // Two requests look at the clock, one before the ejection ends, and count in the other order.
    assert_eq!(counted(s(1005)), 2);
    assert_eq!(counted(s(1004)), 1);
    assert_eq!(app.serving_weight(s(1005)), 2);
    assert_eq!(
        app.serving_weight(s(1004)),
        2,
        "what was counted for later stands"
    );
}

#[test]
fn serving_weight_is_not_recomputed_for_an_unchanged_probe_result() {
    let app = app(2, &["health: {tcp: true}"]);
    probe_all(&app, s(1000));
    let changes = || app.shared.changes.load(Relaxed);
    let before = changes();
    for at in 1001..1100 {
        probe(&app.peers()[0], true, s(at));
    }
    assert_eq!(changes(), before);
    probe(&app.peers()[0], false, s(1100));
    assert_eq!(changes(), before + 1);
}
