//! The JSON of the admin API: process, certificates, upstreams, peers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::peer_changes::{change_to_json, changes_to_json};
use super::source_status::SourceStatus;
use super::state::AppState;
use crate::certificate::issuer_name;
use crate::clock;
use crate::policy::health::HealthStatus;
use crate::policy::heavy_hitters::MILLIONTHS;
use crate::ring::{Dialect, DialectOptionValue, Hash};
use crate::snapshot::Snapshot;
use crate::telemetry::metrics::{Bounded, PeerStateLabel};
use crate::tls::ManagedCert;
use crate::upstream::hot_keys::HotKeyTracker;
use crate::upstream::{DrainStatus, HashTarget, Peer, Tried, Upstream};

/// The most peers of an upstream that the status lists in `peers_without_all_keys`.
const MAX_LISTED_PEERS: usize = 100;

/// The most certificate warnings in the status.
const MAX_CERT_WARNINGS: usize = 100;

/// `GET /v1/status`
pub(super) fn status(state: &AppState) -> Value {
    let snapshot = state.snapshot.load();
    let addresses = state.lifecycle.addresses();
    let listeners: Vec<_> = addresses
        .listeners
        .iter()
        .map(|listener| json!({ "address": listener.configured, "bound": listener.bound }))
        .collect();
    let upstreams: BTreeMap<&str, Value> = snapshot
        .upstreams
        .iter()
        .map(|(name, upstream)| {
            let sources = state.sources.of_upstream(name);
            (name.as_str(), upstream_summary(upstream, &sources))
        })
        .collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "stage": state.lifecycle.stage().name(),
        "started": state.lifecycle.started.to_string(),
        "uptime_seconds": clock::uptime().as_secs(),
        "generation": snapshot.generation,
        "config": state.lifecycle.config_path().map(|path| path.display().to_string()),
        "connections": state.conn_limit.open_connections(),
        "listeners": listeners,
        "certificates": certificates(&snapshot),
        "predecessor": state.lifecycle.predecessor().map(|predecessor| {
            json!({ "pid": predecessor.pid, "connections": predecessor.connections })
        }),
        "admin": addresses.admin.map(|address| address.to_string()),
        "upstreams": upstreams,
    })
}

/// The certificates of all listeners: their number, the earliest expiry, warnings, and the state of ACME orders.
fn certificates(snapshot: &Snapshot) -> Value {
    let managed_certs = managed_certs(snapshot);
    let issued: Vec<_> = managed_certs
        .iter()
        .filter_map(|cert| cert.certificate.load_full())
        .collect();
    let from_files = snapshot.config.credentials.certificates.values();
    let all = from_files.chain(issued.iter().map(Arc::as_ref));
    json!({
        "count": all.clone().count(),
        "first_expiry": rfc3339(all.map(|certificate| certificate.validity.1).min()),
        "warnings": cert_warnings(snapshot),
        "ordered": managed_certs.iter().map(|cert| managed_cert(cert)).collect::<Vec<_>>(),
    })
}

fn cert_warnings(snapshot: &Snapshot) -> Vec<Value> {
    let (config, now) = (&snapshot.config, clock::wall().as_second());
    let from_files = config.credentials.warnings(now);
    let from_files = from_files.map(|(file, warning)| (json!(file), warning));
    let names = config.acme_certificate_names();
    let from_acme = snapshot.managed_certs.warnings(names, now).into_iter();
    let from_acme = from_acme.map(|(name, warning)| (json!(name), warning));
    from_files
        .chain(from_acme)
        .take(MAX_CERT_WARNINGS)
        .map(|(file, warning)| json!({ "file": file, "warning": warning.to_string(), "help": warning.help() }))
        .collect()
}

/// The ACME certificates of this configuration.
pub(super) fn managed_certs(snapshot: &Snapshot) -> Vec<Arc<ManagedCert>> {
    let names = snapshot.config.acme_certificate_names().into_iter();
    names
        .map(|names| snapshot.managed_certs.get_or_insert(names))
        .collect()
}

fn managed_cert(cert: &ManagedCert) -> Value {
    let certificate = cert.certificate.load_full();
    let validity = certificate.as_ref().map(|certificate| certificate.validity);
    let leaf = certificate
        .as_ref()
        .and_then(|certificate| certificate.key.cert.first());
    let status = cert.status.load();
    json!({
        "name": cert.names.primary(),
        "names": cert.names.as_slice(),
        "issuer": leaf.and_then(issuer_name),
        "valid_from": rfc3339(validity.map(|(from, _)| from)),
        "valid_until": rfc3339(validity.map(|(_, until)| until)),
        "next_order": rfc3339(status.next_order),
        "busy": status.order_in_progress,
        "ordered_elsewhere": status.ordered_elsewhere,
        "failures": status.failures,
        "error": status.error.as_ref().map(|(at, text)| json!({ "at": rfc3339(Some(*at)), "text": text })),
    })
}

/// The ACME certificate of this name; null if the configuration has none.
pub(super) fn managed_cert_named(snapshot: &Snapshot, name: &str) -> Value {
    let certs = managed_certs(snapshot);
    let cert = certs.iter().find(|cert| cert.names.primary() == name);
    cert.map_or(Value::Null, |cert| managed_cert(cert))
}

/// Formats seconds since 1970 as RFC 3339; `None` also for a time out of range.
fn rfc3339(seconds: Option<i64>) -> Option<String> {
    let time = Timestamp::from_second(seconds?).ok()?;
    Some(time.to_string())
}

/// `GET /v1/upstreams/{u}`
pub(super) fn upstream(upstream: &Upstream) -> Value {
    let counts = UpstreamCounts::new(upstream);
    let peers: Vec<_> = upstream
        .peers()
        .iter()
        .enumerate()
        .map(|(index, shown)| peer(upstream, shown, &counts, index))
        .collect();
    json!({
        "name": &*upstream.name,
        "ring": dialect(upstream.ring().dialect()),
        "points": upstream.ring().len(),
        "peers": peers,
        "changes": changes_to_json(&upstream.config),
    })
}

/// The response to `drain` and `enable`: the same object as in the list of peers, the number of available peers, and how
/// much of the key space a drain has moved away (`enable`: null).
pub(super) fn changed_peer(upstream: &Upstream, shown: &Peer, moved: Option<u64>) -> Value {
    let counts = UpstreamCounts::new(upstream);
    let index = upstream.peer_index(&shown.label);
    let mut report = peer(upstream, shown, &counts, index.unwrap_or_default());
    if let Some(report) = report.as_object_mut() {
        let available = available_peers(upstream, clock::since_start());
        report.insert("available_peers".to_owned(), json!(available));
        report.insert("moved".to_owned(), json!(moved.map(fraction)));
        report.insert("moved_hashes".to_owned(), json!(moved));
    }
    report
}

fn available_peers(upstream: &Upstream, now: Duration) -> usize {
    let peers = upstream.peers().iter();
    peers.filter(|peer| peer.state.is_available(now)).count()
}

/// Figures that are computed for all peers of an upstream together.
struct UpstreamCounts<'a> {
    /// The number of the 2^32 hashes that each peer owns when all are up.
    owned: &'a [u64],
    /// The number of hashes that each peer gets now.
    owned_now: Vec<u64>,
    drain_status: DrainStatus<'a>,
}

impl<'a> UpstreamCounts<'a> {
    fn new(upstream: &'a Upstream) -> Self {
        let now = clock::since_start();
        Self {
            owned: upstream.key_space_shares(),
            owned_now: upstream.current_key_space_shares(now),
            drain_status: upstream.drain_status(now),
        }
    }
}

fn peer(upstream: &Upstream, peer: &Peer, counts: &UpstreamCounts<'_>, index: usize) -> Value {
    let now = clock::since_start();
    let probe = peer.state.last_probe().map(|probe| {
        json!({
            "seconds_ago": seconds(now.saturating_sub(probe.ended)),
            "took_seconds": seconds(probe.duration),
            "failure": probe.failure,
        })
    });
    json!({
        "upstream": &*upstream.name,
        "label": &*peer.label,
        "address": (!peer.is_unresolved()).then(|| peer.address.to_string()),
        "source": source_of(upstream, index),
        "weight": peer.weight,
        "change": change_to_json(&upstream.config, &peer.label),
        "share": counts.owned.get(index).copied().map(fraction),
        "share_now": counts.owned_now.get(index).copied().map(fraction),
        "state": peer_state(peer, now).as_str(),
        "available": peer.state.is_available(now),
        "draining": peer.state.is_draining(),
        "drained": counts.drain_status.is_drained(peer),
        "ejected_for_seconds": seconds_left(peer.state.ejected_until(now), now),
        "suppressed_for_seconds": seconds_left(peer.state.suppressed_until(now), now),
        "slow_start": slow_start(peer, now),
        "drain": drain(&counts.drain_status, peer),
        "in_flight": peer.state.in_flight(),
        "probe": probe,
    })
}

/// The source that has found a peer; `None`: the configuration lists it.
fn source_of(upstream: &Upstream, index: usize) -> Option<String> {
    let source = upstream.config.peers.get(index)?.source?;
    Some(upstream.config.sources.get(source)?.to_string())
}

/// The share of its keys that a peer in slow start already gets, 0 … 1; null outside a slow start.
fn slow_start(peer: &Peer, now: Duration) -> Value {
    match peer.state.slow_start(now) {
        Some(window) => {
            let end = window.start + window.duration;
            json!({ "share": window.fraction(now), "seconds_left": seconds(end.saturating_sub(now)) })
        }
        None => Value::Null,
    }
}

/// The keys that a draining peer still serves; null if it serves none, or does not drain.
fn drain(status: &DrainStatus<'_>, peer: &Peer) -> Value {
    match status.progress(peer) {
        Some(drain) => {
            json!({ "keys": drain.active_keys, "seconds_left": seconds(drain.time_left) })
        }
        None => Value::Null,
    }
}

/// `GET /v1/upstreams/{u}/hot`: the hot keys, the hottest first. `threshold` is null if `hot_keys` is
/// off; `missed` counts requests that were not sampled, because another thread was sampling.
pub(super) fn hot_keys(upstream: &Upstream) -> Value {
    let now = clock::since_start();
    let tracker = upstream.hot_keys();
    let keys = tracker.map_or_else(Vec::new, |tracker| tracker.hot_keys(now));
    let keys: Vec<_> = keys
        .iter()
        .map(|key| {
            json!({
                "hash": Hash(key.key).to_string(),
                "share": millionths_to_share(key.share),
                "hot_for_seconds": seconds(now.saturating_sub(key.since)),
            })
        })
        .collect();
    let config = upstream.config.hot_keys;
    json!({
        "upstream": &*upstream.name,
        "threshold": config.map(|hot| millionths_to_share(hot.threshold.millionths())),
        "keys": keys,
        "missed": tracker.map_or(0, HotKeyTracker::missed_samples),
    })
}

fn millionths_to_share(share: u32) -> f64 {
    f64::from(share) / f64::from(MILLIONTHS)
}

/// Adds the peer that serves the key now to a report about the key.
pub(super) fn add_serving_peer(report: &mut Value, upstream: &Upstream, key: &[u8]) {
    let target = HashTarget::Key(upstream.key(key));
    let selected = upstream.select(&target, &Tried::none(), clock::since_start());
    let served_by = selected.map(|selected| &*selected.peer.label);
    if let Some(report) = report.as_object_mut() {
        report.insert("served_by".to_owned(), json!(served_by));
    }
}

fn upstream_summary(upstream: &Upstream, sources: &[SourceStatus]) -> Value {
    let now = clock::since_start();
    let in_flight: u64 = upstream
        .peers()
        .iter()
        .map(|peer| u64::from(peer.state.in_flight()))
        .sum();
    let drain_status = upstream.drain_status(now);
    let without_all_keys: Vec<_> = upstream
        .peers()
        .iter()
        .filter(|peer| !peer.state.takes_all_keys(now))
        .take(MAX_LISTED_PEERS)
        .map(|peer| peer_condition(&drain_status, peer, now))
        .collect();
    json!({
        "protocol": upstream.config.transport.protocol.name(),
        "tls": upstream.tls.as_ref().map(|tls| json!({ "verify": tls.verify })),
        "peers": upstream.peers().len(),
        "available": available_peers(upstream, now),
        "in_flight": in_flight,
        "peers_without_all_keys": without_all_keys,
        "sources": sources,
        "changes": changes_to_json(&upstream.config),
    })
}

/// Why a peer serves only some of its keys or none, and for how long.
fn peer_condition(drain_status: &DrainStatus<'_>, peer: &Peer, now: Duration) -> Value {
    json!({
        "label": &*peer.label,
        "state": peer_state(peer, now).as_str(),
        "drained": drain_status.is_drained(peer),
        "off_for_seconds": seconds_left(peer.state.off_ring_until(now), now),
        "ejected_for_seconds": seconds_left(peer.state.ejected_until(now), now),
        "suppressed_for_seconds": seconds_left(peer.state.suppressed_until(now), now),
        "slow_start": slow_start(peer, now),
        "drain": drain(drain_status, peer),
    })
}

fn dialect(dialect: Dialect) -> Value {
    let name = ("dialect", Value::from(dialect.name()));
    let options = dialect.options().into_iter().map(|(name, value)| {
        let value = match value {
            DialectOptionValue::Number(number) => number.into(),
            DialectOptionValue::Text(text) => text.into(),
            DialectOptionValue::Flag(flag) => flag.into(),
        };
        (name, value)
    });
    std::iter::once(name)
        .chain(options)
        .map(|(name, value)| (name.to_owned(), value))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// The state of a peer as one word. If several apply, the first of: no address, a drain by the operator, the result of
/// the probes (unless it is up), an ejection, flap damping, slow start.
pub(super) fn peer_state(peer: &Peer, now: Duration) -> PeerStateLabel {
    match peer.state.health() {
        _ if peer.is_unresolved() => PeerStateLabel::Unresolved,
        _ if peer.state.is_draining() => PeerStateLabel::Draining,
        HealthStatus::Unknown => PeerStateLabel::Unknown,
        HealthStatus::Down => PeerStateLabel::Down,
        HealthStatus::Up if peer.state.ejected_until(now).is_some() => PeerStateLabel::Ejected,
        HealthStatus::Up if peer.state.suppressed_until(now).is_some() => {
            PeerStateLabel::Suppressed
        }
        HealthStatus::Up if peer.state.slow_start(now).is_some() => PeerStateLabel::SlowStart,
        HealthStatus::Up => PeerStateLabel::Up,
    }
}

/// A share of the key space, 0 … 1.
#[expect(
    clippy::cast_precision_loss,
    reason = "at most 2^32, which f64 holds exactly"
)]
fn fraction(share: u64) -> f64 {
    share as f64 / (1_u64 << 32) as f64
}

fn seconds_left(until: Option<Duration>, now: Duration) -> Option<f64> {
    until.map(|until| seconds(until.saturating_sub(now)))
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}
