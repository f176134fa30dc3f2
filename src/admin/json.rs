//! The admin API's JSON: what the process, an upstream and a peer look like from outside.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::AppState;
use crate::certificate::issuer_name;
use crate::clock;
use crate::config::Credentials;
use crate::policy::health::HealthStatus;
use crate::policy::heavy_hitters::MILLIONTHS;
use crate::ring::{Dialect, DialectOptionValue};
use crate::snapshot::Snapshot;
use crate::telemetry::metrics::{Bounded, Metrics, PeerStateLabel as Shown};
use crate::tls::ManagedCert;
use crate::upstream::hot_keys::HotKeyTracker;
use crate::upstream::{DrainStatus, HashTarget, Peer, Tried, Upstream};

/// So many peers of an upstream that do not have all their keys are shown in the status.
const MAX_LISTED_PEERS: usize = 100;

/// So many certificates that need their operator are shown in the status.
const MAX_CERT_WARNINGS: usize = 100;

/// `GET /v1/status`
pub(super) fn status(subject: &AppState) -> Value {
    let snapshot = subject.snapshot.load();
    let addresses = subject.lifecycle.addresses();
    let listeners: Vec<_> = addresses
        .listeners
        .iter()
        .map(|listener| json!({ "address": listener.configured, "bound": listener.bound }))
        .collect();
    let upstreams: BTreeMap<&str, Value> = snapshot
        .upstreams
        .iter()
        .map(|(name, upstream)| (name.as_str(), upstream_summary(upstream)))
        .collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "stage": subject.lifecycle.stage().name(),
        "started": subject.lifecycle.started.to_string(),
        "uptime_seconds": clock::uptime().as_secs(),
        "generation": snapshot.generation,
        "connections": subject.conn_limit.open_connections(),
        "listeners": listeners,
        "certificates": certificates(&snapshot),
        "predecessor": subject.lifecycle.predecessor().map(|predecessor| {
            json!({ "pid": predecessor.pid, "connections": predecessor.connections })
        }),
        "admin": addresses.admin.map(|address| address.to_string()),
        "upstreams": upstreams,
    })
}

/// What the listeners show: when the first of them expires, what its operator should know, and how
/// those are that are ordered.
fn certificates(snapshot: &Snapshot) -> Value {
    let now = clock::wall().as_second();
    let credentials = &snapshot.config.credentials;
    let slots = managed_certs(snapshot);
    let issued: Vec<_> = slots
        .iter()
        .filter_map(|slot| slot.certificate.load_full())
        .collect();
    let all = credentials
        .certificates
        .values()
        .chain(issued.iter().map(Arc::as_ref));
    let of_files = credentials
        .warnings(now)
        .map(|(file, concern)| (json!(file), concern));
    let of_orders = snapshot
        .managed_certs
        .warnings(snapshot.config.acme_certificate_names(), now);
    let of_orders = of_orders.into_iter();
    let concerns: Vec<_> = of_files
        .chain(of_orders.map(|(name, concern)| (json!(name), concern)))
        .take(MAX_CERT_WARNINGS)
        .map(|(file, concern)| json!({ "file": file, "concern": concern.to_string(), "help": concern.help() }))
        .collect();
    json!({
        "count": all.clone().count(),
        "first_expiry": rfc3339(all.map(|one| one.validity.1).min()),
        "concerns": concerns,
        "ordered": slots.iter().map(|slot| managed_cert(slot)).collect::<Vec<_>>(),
    })
}

/// The certificates that are ordered in this configuration.
fn managed_certs(snapshot: &Snapshot) -> Vec<Arc<ManagedCert>> {
    let names = snapshot.config.acme_certificate_names().into_iter();
    names
        .map(|names| snapshot.managed_certs.get_or_insert(names))
        .collect()
}

/// A certificate that is ordered.
fn managed_cert(slot: &ManagedCert) -> Value {
    let certificate = slot.certificate.load_full();
    let valid = certificate.as_ref().map(|certificate| certificate.validity);
    let leaf = certificate
        .as_ref()
        .and_then(|certificate| certificate.key.cert.first());
    let status = slot.status.load();
    json!({
        "name": slot.names.primary(),
        "names": slot.names.as_slice(),
        "issuer": leaf.and_then(issuer_name),
        "valid_from": rfc3339(valid.map(|valid| valid.0)),
        "valid_until": rfc3339(valid.map(|valid| valid.1)),
        "next_order": rfc3339(status.next_order),
        "busy": status.order_in_progress,
        "ordered_elsewhere": status.ordered_elsewhere,
        "failures": status.failures,
        "error": status.error.as_ref().map(|(at, text)| json!({ "at": rfc3339(Some(*at)), "text": text })),
    })
}

/// The certificate of this name; null: nobody wants it any more.
pub(super) fn managed_cert_named(snapshot: &Snapshot, name: &str) -> Value {
    let slots = managed_certs(snapshot);
    let slot = slots.iter().find(|slot| slot.names.primary() == name);
    slot.map_or(Value::Null, |slot| managed_cert(slot))
}

/// As text; null where there is none, or it was always so.
fn rfc3339(seconds: Option<i64>) -> Option<String> {
    let time = Timestamp::from_second(seconds?).ok()?;
    Some(time.to_string())
}

/// `GET /v1/upstreams/{u}`
pub(super) fn upstream(upstream: &Upstream) -> Value {
    let counted = UpstreamCounts::new(upstream);
    let peers: Vec<_> = upstream
        .peers()
        .iter()
        .enumerate()
        .map(|(place, shown)| peer(upstream, shown, &counted, place))
        .collect();
    json!({
        "name": &*upstream.name,
        "ring": dialect(upstream.ring().dialect()),
        "points": upstream.ring().len(),
        "peers": peers,
    })
}

/// The answer to an order about one peer, the same as among the others.
pub(super) fn single_peer(upstream: &Upstream, shown: &Peer) -> Value {
    let place = upstream
        .peers()
        .iter()
        .position(|peer| peer.label == shown.label);
    peer(
        upstream,
        shown,
        &UpstreamCounts::new(upstream),
        place.unwrap_or_default(),
    )
}

/// What is counted for all peers at once.
struct UpstreamCounts<'a> {
    /// How many of the 2^32 hashes each owns.
    owned: &'a [u64],
    /// How many come to it now.
    owned_now: Vec<u64>,
    /// What the draining ones keep.
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

/// The peer at a place: its `share` is what it has when all are up.
fn peer(upstream: &Upstream, peer: &Peer, counted: &UpstreamCounts<'_>, place: usize) -> Value {
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
        "address": peer.address.to_string(),
        "weight": peer.weight.get(),
        "share": counted.owned.get(place).copied().map(fraction),
        "share_now": counted.owned_now.get(place).copied().map(fraction),
        "state": peer_state(peer, now).as_str(),
        "available": peer.state.is_available(now),
        "draining": peer.state.is_draining(),
        "drained": counted.drain_status.is_drained(peer),
        "ejected_for_seconds": seconds_left(peer.state.ejected_until(now), now),
        "suppressed_for_seconds": seconds_left(peer.state.suppressed_until(now), now),
        "slow_start": slow_start(peer, now),
        "drain": drain(&counted.drain_status, peer),
        "in_flight": peer.state.in_flight(),
        "probe": probe,
    })
}

/// How many of its keys have come home, 0 … 1; null: it is not in a slow start.
fn slow_start(peer: &Peer, now: Duration) -> Value {
    match peer.state.slow_start(now) {
        Some(ramp) => {
            json!({ "share": ramp.fraction(now), "seconds_left": seconds((ramp.start + ramp.duration).saturating_sub(now)) })
        }
        None => Value::Null,
    }
}

/// What a draining peer still keeps; null: nothing, or it is not draining.
fn drain(kept: &DrainStatus<'_>, peer: &Peer) -> Value {
    match kept.progress(peer) {
        Some(kept) => json!({ "keys": kept.active_keys, "seconds_left": seconds(kept.time_left) }),
        None => Value::Null,
    }
}

/// `GET /v1/upstreams/{u}/hot`: the hottest first; `threshold` is null where they are not looked for. `missed`
/// counts requests that were not looked at, since another was just then.
pub(super) fn hot_keys(upstream: &Upstream) -> Value {
    let now = clock::since_start();
    let keys = upstream
        .hot_keys()
        .map_or_else(Vec::new, |hot| hot.hot_keys(now));
    let keys: Vec<_> = keys
        .iter()
        .map(|key| {
            json!({
                "hash": format!("{:#x}", key.key),
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
        "missed": upstream.hot_keys().map_or(0, HotKeyTracker::missed_samples),
    })
}

fn millionths_to_share(share: u32) -> f64 {
    f64::from(share) / f64::from(MILLIONTHS)
}

/// Adds to what is told of a key who serves it now.
pub(super) fn add_serving_peer(told: &mut Value, upstream: &Upstream, key: &[u8]) {
    let target = HashTarget::Key(upstream.key(key));
    let serves = upstream.select(&target, &Tried::none(), clock::since_start());
    let serves = serves.map(|choice| &*choice.peer.label);
    if let Some(told) = told.as_object_mut() {
        told.insert("serves".to_owned(), json!(serves));
    }
}

/// Brings the gauges up to date that nobody keeps while requests run.
pub(super) fn refresh_gauges(subject: &AppState) {
    let snapshot = subject.snapshot.load();
    let now = clock::since_start();
    for peer in snapshot
        .upstreams
        .values()
        .flat_map(|upstream| upstream.peers())
    {
        peer.metrics
            .in_flight
            .set(i64::from(peer.state.in_flight()));
        peer.metrics
            .set_state(peer_state(peer, now), peer.state.is_available(now));
        let ramp = peer.state.slow_start(now);
        peer.metrics
            .slow_start
            .set(ramp.map_or(1.0, |ramp| ramp.fraction(now)));
    }
    for upstream in snapshot.upstreams.values() {
        refresh_upstream(upstream, now);
    }
    refresh_certificates(&snapshot.config.credentials, &subject.telemetry.metrics);
    refresh_cert_orders(&snapshot, &subject.telemetry.metrics);
    let process = &subject.telemetry.metrics.process;
    process
        .generation
        .set(i64::try_from(snapshot.generation).unwrap_or(i64::MAX));
    let before = subject
        .lifecycle
        .predecessor()
        .map_or(0, |predecessor| predecessor.connections);
    process
        .predecessor_connections
        .set(i64::try_from(before).unwrap_or(i64::MAX));
    let draining = subject.lifecycle.stage() == crate::lifecycle::ProcessStage::Draining;
    process.draining.set(i64::from(draining));
}

fn refresh_certificates(credentials: &Credentials, metrics: &Metrics) {
    let now = clock::wall().as_second();
    for (files, certificate) in &credentials.certificates {
        let shown = metrics.certificate(&files.cert.display().to_string());
        shown.expiry.set(certificate.validity.1);
        shown.stapled.set(i64::from(certificate.is_stapled(now)));
    }
}

fn refresh_cert_orders(snapshot: &Snapshot, metrics: &Metrics) {
    for slot in managed_certs(snapshot) {
        let (name, status) = (slot.names.primary(), slot.status.load());
        if let Some(certificate) = slot.certificate.load_full() {
            metrics.certificate(name).expiry.set(certificate.validity.1);
        }
        let shown = metrics.orders(name);
        shown.failures.set(i64::from(status.failures));
        shown.next_order.set(status.next_order.unwrap_or(0).max(0));
    }
}

fn refresh_upstream(upstream: &Upstream, now: Duration) {
    let hot = upstream.hot_keys().map_or(0, |hot| hot.hot_keys(now).len());
    upstream.metrics.hot_keys.set(to_gauge(hot));
    let kept = upstream.drain_status(now);
    for peer in upstream.peers() {
        let keys = kept.progress(peer).map_or(0, |kept| kept.active_keys);
        peer.metrics.drain_keys.set(to_gauge(keys));
    }
}

fn to_gauge(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn upstream_summary(upstream: &Upstream) -> Value {
    let now = clock::since_start();
    let available = upstream
        .peers()
        .iter()
        .filter(|peer| peer.state.is_available(now))
        .count();
    let in_flight: u64 = upstream
        .peers()
        .iter()
        .map(|peer| u64::from(peer.state.in_flight()))
        .sum();
    let away = upstream
        .peers()
        .iter()
        .filter(|peer| !peer.state.takes_all_keys(now));
    let kept = upstream.drain_status(now);
    let away: Vec<_> = away
        .take(MAX_LISTED_PEERS)
        .map(|shown| peer_condition(&kept, shown, now))
        .collect();
    json!({
        "protocol": upstream.config.transport.protocol.name(),
        "tls": upstream.tls.as_ref().map(|tls| json!({ "verify": tls.verify })),
        "peers": upstream.peers().len(),
        "available": available,
        "in_flight": in_flight,
        "not_home": away,
    })
}

/// A peer that does not have all of its keys: why, and for how long.
fn peer_condition(kept: &DrainStatus<'_>, peer: &Peer, now: Duration) -> Value {
    json!({
        "label": &*peer.label,
        "state": peer_state(peer, now).as_str(),
        "drained": kept.is_drained(peer),
        "off_for_seconds": seconds_left(peer.state.off_ring_until(now), now),
        "ejected_for_seconds": seconds_left(peer.state.ejected_until(now), now),
        "suppressed_for_seconds": seconds_left(peer.state.suppressed_until(now), now),
        "slow_start": slow_start(peer, now),
        "drain": drain(kept, peer),
    })
}

fn dialect(dialect: Dialect) -> Value {
    let name = ("dialect", Value::from(dialect.name()));
    let options = dialect.options().into_iter().map(|(name, setting)| {
        let value = match setting {
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

/// The one word for a peer's state: what the operator did goes before what the probes say, and that
/// before what traffic found.
fn peer_state(peer: &Peer, now: Duration) -> Shown {
    match peer.state.health() {
        _ if peer.state.is_draining() => Shown::Draining,
        HealthStatus::Unknown => Shown::Unknown,
        HealthStatus::Down => Shown::Down,
        HealthStatus::Up if peer.state.ejected_until(now).is_some() => Shown::Ejected,
        HealthStatus::Up if peer.state.suppressed_until(now).is_some() => Shown::Suppressed,
        HealthStatus::Up if peer.state.slow_start(now).is_some() => Shown::SlowStart,
        HealthStatus::Up => Shown::Up,
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

/// How long until then, in seconds.
fn seconds_left(until: Option<Duration>, now: Duration) -> Option<f64> {
    until.map(|until| seconds(until.saturating_sub(now)))
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}
