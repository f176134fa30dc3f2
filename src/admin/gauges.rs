//! Gauges that are computed when metrics are scraped, so that proxied requests need not update them.

use std::time::Duration;

use super::json::{managed_certs, peer_state};
use super::state::AppState;
use crate::clock;
use crate::config::Credentials;
use crate::lifecycle::ProcessStage;
use crate::snapshot::Snapshot;
use crate::telemetry::metrics::Metrics;
use crate::upstream::Upstream;

/// Sets all gauges that are computed per scrape.
pub(super) fn refresh_gauges(state: &AppState) {
    let (snapshot, metrics) = (state.snapshot.load(), &state.telemetry.metrics);
    let now = clock::since_start();
    for upstream in snapshot.upstreams.values() {
        refresh_peers(upstream, now);
        let hot_keys = upstream.hot_keys().map_or(0, |hot| hot.hot_keys(now).len());
        upstream.metrics.hot_keys.set(to_gauge(hot_keys as u64));
        let changed = upstream.config.changed.changes.len();
        upstream.metrics.changed_peers.set(to_gauge(changed as u64));
    }
    refresh_certificates(&snapshot.config.credentials, metrics);
    refresh_cert_orders(&snapshot, metrics);
    refresh_process(state, snapshot.generation);
}

fn refresh_peers(upstream: &Upstream, now: Duration) {
    let drain_status = upstream.drain_status(now);
    for peer in upstream.peers() {
        let (state, metrics) = (&peer.state, &peer.metrics);
        metrics.in_flight.set(i64::from(state.in_flight()));
        metrics.set_state(peer_state(peer, now), state.is_available(now));
        let slow_start = state.slow_start(now);
        metrics
            .slow_start
            .set(slow_start.map_or(1.0, |slow_start| slow_start.fraction(now)));
        let drain_keys = drain_status
            .progress(peer)
            .map_or(0, |drain| drain.active_keys);
        metrics.drain_keys.set(to_gauge(drain_keys as u64));
    }
}

fn refresh_certificates(credentials: &Credentials, metrics: &Metrics) {
    let now = clock::wall().as_second();
    for (files, certificate) in &credentials.certificates {
        let gauges = metrics.certificate(&files.cert.display().to_string());
        let (_, expiry) = certificate.validity;
        gauges.expiry.set(expiry);
        gauges.stapled.set(i64::from(certificate.is_stapled(now)));
    }
}

fn refresh_cert_orders(snapshot: &Snapshot, metrics: &Metrics) {
    for cert in managed_certs(snapshot) {
        let (name, status) = (cert.names.primary(), cert.status.load());
        if let Some(certificate) = cert.certificate.load_full() {
            let (_, expiry) = certificate.validity;
            metrics.certificate(name).expiry.set(expiry);
        }
        let gauges = metrics.orders(name);
        gauges.failures.set(i64::from(status.failures));
        gauges.next_order.set(status.next_order.unwrap_or(0).max(0));
    }
}

fn refresh_process(state: &AppState, generation: u64) {
    let (lifecycle, gauges) = (&state.lifecycle, &state.telemetry.metrics.process);
    gauges.generation.set(to_gauge(generation));
    let predecessor = lifecycle.predecessor();
    let connections = predecessor.map_or(0, |predecessor| predecessor.connections);
    gauges.predecessor_connections.set(to_gauge(connections));
    let is_draining = lifecycle.stage() == ProcessStage::Draining;
    gauges.draining.set(i64::from(is_draining));
}

fn to_gauge(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
