//! Which series of the metrics a configuration has: those of its listeners, certificates, routes,
//! upstreams and peers, by the names that are written in it.

use std::collections::HashSet;

use crate::config::{Config, UpstreamConfig};
use crate::telemetry::metrics::Metrics;

/// Takes what only `gone` names out of the listing.
pub(crate) fn remove_stale(metrics: &Metrics, gone: &Config, kept: Option<&Config>) {
    for (name, upstream) in &gone.upstreams {
        let keeps = kept.and_then(|kept| kept.upstreams.get(name));
        for label in peer_labels(Some(upstream)).difference(&peer_labels(keeps)) {
            metrics.remove_peer(name, label);
        }
        if keeps.is_none() {
            metrics.remove_upstream(name);
        }
        for source in source_names(Some(upstream)).difference(&source_names(keeps)) {
            metrics.remove_source(name, source);
        }
    }
    for route in routes(Some(gone)).difference(&routes(kept)) {
        metrics.remove_route(route);
    }
    for listener in listeners(Some(gone)).difference(&listeners(kept)) {
        metrics.remove_listener(listener);
    }
    for certificate in certificates(Some(gone)).difference(&certificates(kept)) {
        metrics.remove_certificate(certificate);
    }
}

fn peer_labels(upstream: Option<&UpstreamConfig>) -> HashSet<&str> {
    let peers = upstream.into_iter().flat_map(|upstream| &upstream.peers);
    peers.map(|peer| peer.label.as_str()).collect()
}

fn source_names(upstream: Option<&UpstreamConfig>) -> HashSet<String> {
    let sources = upstream.into_iter().flat_map(|upstream| &upstream.sources);
    sources.map(ToString::to_string).collect()
}

fn routes(config: Option<&Config>) -> HashSet<String> {
    let routes = config.into_iter().flat_map(|config| &config.routes);
    routes.map(|route| route.matches.to_string()).collect()
}

fn listeners(config: Option<&Config>) -> HashSet<String> {
    let listeners = config.into_iter().flat_map(|config| &config.listeners);
    listeners
        .map(|listener| listener.address.to_string())
        .collect()
}

fn certificates(config: Option<&Config>) -> HashSet<String> {
    let read = config.into_iter().map(|config| &config.credentials);
    let files = read.flat_map(|read| read.certificates.keys());
    let files = files.map(|files| files.cert.display().to_string());
    let ordered = config.into_iter().flat_map(Config::acme_certificate_names);
    let ordered = ordered.map(|names| names.primary().to_owned());
    files.chain(ordered).collect()
}
