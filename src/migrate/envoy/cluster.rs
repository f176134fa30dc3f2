//! A cluster: an upstream.

use std::net::IpAddr;

use super::address::{canonical_host, host_and_port, socket_address};
use super::message_fields::{FieldValue, MessageFields};
use super::tls_origination::{self, UpstreamHttpOptions};
use crate::config;
use crate::migrate::clamp::NoteSubject;
use crate::migrate::draft::{HealthDraft, PeerDraft, ProbeDraft, RingDraft, UpstreamDraft};
use crate::migrate::notes::Notes;
use crate::ring::Weight;

const NO_KEY: &str =
    "requests go to servers by a key here, the client's address if none is chosen; choose `key`";
const NO_MAGLEV: &str = "there is no such table here, and keys will move; the default ring is used";
const HASHED_BY_IP: &str = "Envoy places a server by the address that its name resolves to: write it as `id: IP:PORT`, or keys will move";

/// What a cluster says; without peers where its endpoints are not in the file.
pub(super) fn upstream(element: FieldValue<'_>, notes: &Notes<'_>) -> UpstreamDraft {
    let fields = MessageFields::of(element);
    let name = fields.text("name").unwrap_or_default().to_owned();
    let mut upstream = UpstreamDraft {
        name,
        ..UpstreamDraft::default()
    };
    fields.ignore(&[
        "dns_lookup_family",
        "dns_refresh_rate",
        "respect_dns_ttl",
        "per_connection_buffer_limit_bytes",
    ]);
    fields.ignore(&[
        "upstream_connection_options",
        "type",
        "connect_timeout",
        "common_http_protocol_options",
    ]);
    upstream.timeouts.connect = fields.get("connect_timeout").and_then(FieldValue::duration);
    lb_policy(&fields, &mut upstream, notes);
    let by_hostname = common_lb_config(&fields, &mut upstream, notes);
    let options = UpstreamHttpOptions::of(&fields, &mut upstream.comments, notes);
    let asked = tls_origination::read_transport_socket(&fields, &options, &mut upstream, notes);
    options.set_protocol(&mut upstream, notes);
    let hostnames = Hostnames {
        for_hashing: by_hostname,
        for_sni: asked,
    };
    health(&fields, &mut upstream, notes);
    if let Some(assignment) = fields.message("load_assignment") {
        assignment.ignore(&["cluster_name"]);
        for locality in assignment.list("endpoints") {
            read_locality(locality, hostnames, &mut upstream, notes);
        }
        assignment.note_unread(&mut upstream.comments, notes);
    }
    clamp_weights(&mut upstream, element, notes);
    fields.note_unread(&mut upstream.comments, notes);
    upstream
}

fn lb_policy(fields: &MessageFields<'_>, upstream: &mut UpstreamDraft, notes: &Notes<'_>) {
    let options = fields.message("ring_hash_lb_config");
    fields.ignore(&["maglev_lb_config"]);
    let Some(policy) = fields.get("lb_policy") else {
        upstream
            .comments
            .push(notes.remark(fields.span(), &upstream.name.clone(), NO_KEY));
        return;
    };
    let shown = format!("lb_policy: {}", policy.text());
    match policy.text() {
        "RING_HASH" => upstream.ring = Some(ring(options, &mut upstream.comments, notes)),
        "MAGLEV" => upstream
            .comments
            .push(notes.gap(policy.span(), &shown, NO_MAGLEV)),
        _ => upstream
            .comments
            .push(notes.gap(policy.span(), &shown, NO_KEY)),
    }
}

fn ring(
    options: Option<MessageFields<'_>>,
    comments: &mut Vec<String>,
    notes: &Notes<'_>,
) -> RingDraft {
    let mut ring = RingDraft {
        dialect: "envoy",
        options: Vec::new(),
    };
    let Some(options) = options else { return ring };
    if options.text("hash_function") == Some("MURMUR_HASH_2") {
        ring.options.push(("hash", "murmur2".to_owned()));
    }
    for name in ["minimum_ring_size", "maximum_ring_size"] {
        // 64-bit numbers may be texts in JSON.
        let size = options.get(name).and_then(FieldValue::number);
        let size = size.map(|size| size.clamp(1, 8_388_608));
        ring.options
            .extend(size.map(|size| (name, size.to_string())));
    }
    options.note_unread(comments, notes);
    ring
}

/// `common_lb_config`; gives whether hosts are placed by their names.
fn common_lb_config(
    fields: &MessageFields<'_>,
    upstream: &mut UpstreamDraft,
    notes: &Notes<'_>,
) -> bool {
    let Some(common) = fields.message("common_lb_config") else {
        return false;
    };
    common.ignore(&[
        "healthy_panic_threshold",
        "close_connections_on_host_set_change",
    ]);
    let hashing = common.message("consistent_hashing_lb_config");
    let mut by_hostname = false;
    if let Some(hashing) = hashing {
        by_hostname = hashing.text("use_hostname_for_hashing") == Some("true");
        if let Some(factor) = hashing.get("hash_balance_factor") {
            let (place, shown) = (factor.span(), "hash_balance_factor");
            let percent = factor.number().unwrap_or(0);
            upstream.set_bounded_load(
                percent,
                NoteSubject {
                    span: place,
                    text: shown,
                },
                notes,
            );
        }
        hashing.note_unread(&mut upstream.comments, notes);
    }
    common.note_unread(&mut upstream.comments, notes);
    by_hostname
}

/// What the host names of endpoints are for.
#[derive(Clone, Copy)]
struct Hostnames {
    /// They place them.
    for_hashing: bool,
    /// They are what is asked for in TLS.
    for_sni: bool,
}

fn read_locality(
    element: FieldValue<'_>,
    hostnames: Hostnames,
    upstream: &mut UpstreamDraft,
    notes: &Notes<'_>,
) {
    let fields = MessageFields::of(element);
    fields.ignore(&["locality"]);
    if let Some(priority) = fields
        .get("priority")
        .filter(|priority| priority.text() != "0")
    {
        let why = "there are no servers for bad times only; these are left out";
        upstream
            .comments
            .push(notes.gap(priority.span(), "priority", why));
        return;
    }
    for item in fields.list("lb_endpoints") {
        read_endpoint(item, hostnames, upstream, notes);
    }
    fields.note_unread(&mut upstream.comments, notes);
}

fn read_endpoint(
    element: FieldValue<'_>,
    hostnames: Hostnames,
    upstream: &mut UpstreamDraft,
    notes: &Notes<'_>,
) {
    let fields = MessageFields::of(element);
    let endpoint = fields.message("endpoint");
    let found = endpoint.as_ref().and_then(socket_address);
    let found = found.filter(|(host, port)| config::is_address(&host_and_port(host, *port)));
    let Some((host, port)) = found else {
        let why = "a peer is a host or an IP address with a port";
        upstream
            .comments
            .push(notes.gap(element.span(), "endpoint", why));
        return;
    };
    let mut peer = PeerDraft::new(host_and_port(&canonical_host(host), port));
    peer.span = element.span();
    peer.weight = fields
        .get("load_balancing_weight")
        .and_then(FieldValue::number)
        .unwrap_or(1);
    let hostname = endpoint
        .as_ref()
        .and_then(|endpoint| endpoint.text("hostname"));
    peer.server_name =
        tls_origination::endpoint_server_name(hostname.filter(|_| hostnames.for_sni));
    let hashed = hash_key(&fields).or(hostnames.for_hashing.then(|| hostname.unwrap_or(host)));
    peer.id = hashed
        .filter(|_| upstream.ring.is_some())
        .map(str::to_owned);
    if peer.id.is_none() && upstream.ring.is_some() && host.parse::<IpAddr>().is_err() {
        peer.comments
            .push(notes.gap(element.span(), &format!("address: {host}"), HASHED_BY_IP));
    }
    if let Some(endpoint) = endpoint {
        endpoint.ignore(&["health_check_config"]);
        endpoint.note_unread(&mut peer.comments, notes);
    }
    let status = fields.text("health_status").unwrap_or_default();
    fields.note_unread(&mut peer.comments, notes);
    if matches!(status, "UNHEALTHY" | "DRAINING") {
        let why = "a server that is not healthy by configuration is left out";
        upstream
            .comments
            .push(notes.gap(element.span(), &format!("health_status: {status}"), why));
    } else {
        upstream.peers.push(peer);
    }
}

/// `metadata.filter_metadata.envoy.lb.hash_key`.
fn hash_key<'a>(fields: &MessageFields<'a>) -> Option<&'a str> {
    let metadata = fields.message("metadata")?.message("filter_metadata")?;
    metadata
        .message("envoy.lb")?
        .text("hash_key")
        .filter(|key| !key.is_empty())
}

/// Only the weights' proportions count, so they can be divided by what they share.
fn clamp_weights(upstream: &mut UpstreamDraft, element: FieldValue<'_>, notes: &Notes<'_>) {
    let most = u64::from(Weight::MAX.get());
    upstream.peers.retain(|peer| peer.weight > 0);
    if upstream.peers.iter().all(|peer| peer.weight <= most) {
        return;
    }
    let shared = upstream
        .peers
        .iter()
        .fold(0, |shared, peer| gcd(shared, peer.weight))
        .max(1);
    for peer in &mut upstream.peers {
        peer.weight /= shared;
        if peer.weight > most {
            peer.weight = most;
            let why = format!("weights are at most {most}, and keys will move");
            peer.comments
                .push(notes.gap(element.span(), "load_balancing_weight", &why));
        }
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Without `health_checks` Envoy probes nobody.
fn health(fields: &MessageFields<'_>, upstream: &mut UpstreamDraft, notes: &Notes<'_>) {
    upstream.health = HealthDraft::Off;
    for (index, element) in fields.list("health_checks").into_iter().enumerate() {
        if index > 0 {
            let why = "an upstream has one kind of probe; the first is written";
            upstream
                .comments
                .push(notes.gap(element.span(), "health_checks", why));
            return;
        }
        let check = MessageFields::of(element);
        check.ignore(&[
            "no_traffic_interval",
            "reuse_connection",
            "interval_jitter",
            "initial_jitter",
            "event_log_path",
        ]);
        check.ignore(&[
            "tcp_health_check",
            "always_log_health_check_failures",
            "interval_jitter_percent",
        ]);
        let (place, shown) = (element.span(), "health_checks");
        let comments = &mut upstream.comments;
        let probe = probe(&check, comments, notes);
        upstream.health = HealthDraft::On(probe.clamp_to_limits(
            NoteSubject {
                span: place,
                text: shown,
            },
            comments,
            notes,
        ));
        check.note_unread(&mut upstream.comments, notes);
    }
}

fn probe(check: &MessageFields<'_>, comments: &mut Vec<String>, notes: &Notes<'_>) -> ProbeDraft {
    let number = |name| {
        let number = check.get(name).and_then(FieldValue::number);
        number.map(|number| number.clamp(1, 1000))
    };
    let mut probe = ProbeDraft {
        interval: check.get("interval").and_then(FieldValue::duration),
        timeout: check.get("timeout").and_then(FieldValue::duration),
        fall: number("unhealthy_threshold"),
        rise: number("healthy_threshold"),
        ..ProbeDraft::default()
    };
    if let Some(http) = check.message("http_health_check") {
        probe.http = http.text("path").map(str::to_owned);
        probe.host = http
            .text("host")
            .filter(|host| !host.is_empty())
            .map(str::to_owned);
        let statuses = http
            .list("expected_statuses")
            .into_iter()
            .filter_map(status_range);
        probe.expect = statuses.collect();
        http.note_unread(comments, notes);
        if probe.expect.is_empty() {
            probe.expect.push("200".to_owned());
        }
    }
    probe
}

/// The end of Envoy's range is not part of it.
fn status_range(element: FieldValue<'_>) -> Option<String> {
    let fields = MessageFields::of(element);
    let start = fields.get("start")?.number()?;
    let last = fields.get("end")?.number()?.checked_sub(1)?;
    let valid = 100 <= start && start <= last && last <= 599;
    valid.then(|| {
        if start == last {
            start.to_string()
        } else {
            format!("{start}-{last}")
        }
    })
}
