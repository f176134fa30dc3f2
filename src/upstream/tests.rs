//! Tests of a whole upstream, on a virtual clock.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use jiff::Timestamp;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::peer_state::PeerState;
use super::persisted_state::{PersistedHotKey, PersistedPeer};
use super::*;
use crate::config;
use crate::policy::ejection::{EjectedShare, EjectionPolicy, FailureKind};
use crate::policy::health::HealthThresholds;
use crate::policy::heavy_hitters::HotKeyThreshold;
use crate::ring::{Hash, HashedKey, Weight};
use crate::telemetry::metrics::Metrics;

mod bounded_load;
mod drain;
mod ejection;
mod flap_damping;
mod hot_keys;
mod key_space_shares;
mod random_histories;
mod recovery;
mod reload;
mod replay;
mod slow_start;
mod state_transfer;
mod unresolved;
mod weights;

const BOUNDED: &str = "bounded_load: 1.25";
const SLOW_START: &str = "slow_start: 60s";
const DRAIN: &str = "drain: {idle: 10s, deadline: 40s, keys: 1024}";
const ONE_PROBE: HealthThresholds = HealthThresholds { rise: 1, fall: 1 };
const EJECT: EjectionPolicy = EjectionPolicy::for_test(1, s(5), s(20));

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Reports a failed connect, which ejects the peer.
fn fail_connect(peer: &Peer, now: Duration) {
    peer.on_failure(FailureKind::Connect, &EJECT, now);
}

/// The configuration of an upstream `app` with this many peers, `p0` and so on, and further settings.
fn config_of(peers: usize, settings: &[&str]) -> config::UpstreamConfig {
    let is_probed = settings.iter().any(|setting| setting.starts_with("health"));
    let health = if is_probed { "" } else { "health: off" };
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

/// An upstream with its peers at the ports 1, 2, … in the order of the configuration.
fn build(config: &config::UpstreamConfig, previous: Option<&Upstream>, now: Duration) -> Upstream {
    let address = |number, _: &_| SocketAddr::from(([127, 0, 0, 1], number));
    build_at(config, address, previous, now)
}

/// An upstream with its peers at the addresses that a function of their number, from 1, returns.
fn build_at(
    config: &config::UpstreamConfig,
    address: impl Fn(u16, &config::PeerConfig) -> SocketAddr,
    previous: Option<&Upstream>,
    now: Duration,
) -> Upstream {
    let peers = (1..).zip(&config.peers);
    let addresses: Vec<_> = peers
        .map(|(number, peer)| Address::Ip(address(number, peer)))
        .collect();
    let (peers, metrics) = ((&*addresses, None), metrics());
    Upstream::new("app", config.clone(), peers, previous, &metrics, now).unwrap()
}

/// An upstream built at 1000 s.
fn app(peers: usize, settings: &[&str]) -> Upstream {
    build(&config_of(peers, settings), None, s(1000))
}

fn probe(peer: &Peer, passes: bool, now: Duration) {
    let failure = (!passes).then(|| "refused".to_owned());
    let report = ProbeReport {
        ended: now,
        duration: Duration::ZERO,
        failure,
    };
    peer.on_probe(report, ONE_PROBE);
}

fn probe_all(app: &Upstream, now: Duration) {
    app.peers().iter().for_each(|peer| probe(peer, true, now));
}

fn hash(key: u64) -> HashedKey {
    HashedKey::from(Hash(crate::policy::hash_mix::mix(key) >> 32))
}

/// The index of the peer that a key is assigned to.
fn selected(app: &Upstream, key: u64, now: Duration) -> usize {
    let choice = app.select(&HashTarget::Key(hash(key)), &Tried::none(), now);
    choice.unwrap().member.index()
}

/// The index of the owner of a key.
fn owner(app: &Upstream, key: u64) -> usize {
    app.ring().owner(&hash(key)).unwrap().index()
}

/// Admits a request; it is in flight until the result is dropped.
fn admit(app: &Upstream, key: u64, now: Duration) -> Admission {
    let target = HashTarget::Key(hash(key));
    app.admit(&target, &Tried::none(), now, app.begin_request())
        .unwrap()
}

/// Availability by the peer's record, not by the published flags.
fn is_available(state: &PeerState, now: Duration) -> bool {
    let is_in_service =
        state.health() == crate::policy::health::HealthStatus::Up && !state.is_draining();
    is_in_service && state.ejected_until(now).is_none() && state.suppressed_until(now).is_none()
}

fn takes_all_keys(state: &PeerState, now: Duration) -> bool {
    is_available(state, now) && state.slow_start(now).is_none()
}

/// Serves every key below `keys` that the first peer owns, at `now`; the keys.
fn serve_keys_of_first(app: &Upstream, keys: u64, now: Duration) -> Vec<u64> {
    let owned: Vec<u64> = (0..keys).filter(|key| owner(app, *key) == 0).collect();
    for key in &owned {
        drop(admit(app, *key, now));
    }
    owned
}

fn with_table_size(app: &Upstream, keys: u32) -> config::UpstreamConfig {
    let mut config = app.config.clone();
    config.drain.as_mut().unwrap().max_tracked_keys = keys;
    config
}
