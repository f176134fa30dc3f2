//! A cluster becomes an upstream.

use std::collections::HashMap;
use std::net::IpAddr;

use super::address::{canonical_host, host_and_port, pipe_path, socket_address};
use super::message_fields::{FieldValue, MessageFields};
use super::tls_origination::{self, UpstreamHttpOptions};
use crate::config;
use crate::migrate::clamp::NoteSubject;
use crate::migrate::draft::{HealthDraft, PeerDraft, ProbeDraft, RingDraft, UpstreamDraft};
use crate::migrate::notes::Notes;
use crate::ring::Weight;

const NO_KEY: &str =
    "Clockwise chooses a server by a key, which is the client's address by default; choose `key`";
const NO_MAGLEV: &str =
    "Clockwise has no Maglev table; the default ring is written, and keys will move";
const HASHED_BY_IP: &str =
    "Envoy places a server by its resolved address; write it as `id: IP:PORT`, or keys will move";
const SHARED_POINTS: &str = "Envoy gives endpoints with one hash key the same points; this one is placed by its address, and keys will move";

/// Translates a cluster; without peers if its endpoints are not in the file.
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
    let for_sni = tls_origination::read_transport_socket(&fields, &options, &mut upstream, notes);
    options.set_protocol(&mut upstream, notes);
    let hostnames = Hostnames {
        for_hashing: by_hostname,
        for_sni,
    };
    health(&fields, &mut upstream, notes);
    if let Some(assignment) = fields.message("load_assignment") {
        assignment.ignore(&["cluster_name"]);
        for locality in assignment.list("endpoints") {
            read_locality(locality, hostnames, &mut upstream, notes);
        }
        assignment.note_unread(&mut upstream.comments, notes);
    }
    drop_repeated_ids(&mut upstream, notes);
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
    let subject = format!("lb_policy: {}", policy.text());
    match policy.text() {
        "RING_HASH" => upstream.ring = Some(ring(options, &mut upstream.comments, notes)),
        "MAGLEV" => upstream
            .comments
            .push(notes.gap(policy.span(), &subject, NO_MAGLEV)),
        _ => upstream
            .comments
            .push(notes.gap(policy.span(), &subject, NO_KEY)),
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
        // Protobuf's JSON writes 64-bit numbers as strings.
        let size = options.get(name).and_then(FieldValue::number);
        let size = size.map(|size| size.clamp(1, 8_388_608));
        ring.options
            .extend(size.map(|size| (name, size.to_string())));
    }
    options.note_unread(comments, notes);
    ring
}

/// Reads `common_lb_config`; returns whether the ring places endpoints by their host names.
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
            let (span, subject) = (factor.span(), "hash_balance_factor");
            let percent = factor.number().unwrap_or(0);
            upstream.set_bounded_load(
                percent,
                NoteSubject {
                    span,
                    text: subject,
                },
                notes,
            );
        }
        hashing.note_unread(&mut upstream.comments, notes);
    }
    common.note_unread(&mut upstream.comments, notes);
    by_hostname
}

/// The uses of the endpoints' host names.
#[derive(Clone, Copy)]
struct Hostnames {
    /// The ring places endpoints by them.
    for_hashing: bool,
    /// They are the SNI names.
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
        let why = "Clockwise has no priorities; the endpoints of lower priority are left out, so the others need the capacity for all requests";
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
    let found = endpoint.as_ref().and_then(EndpointAddress::of);
    let Some(EndpointAddress { address, host }) = found else {
        let why =
            "a peer is a host name or an IP address with a port, or the path of a Unix socket";
        upstream
            .comments
            .push(notes.gap(element.span(), "endpoint", why));
        return;
    };
    let mut peer = PeerDraft::new(address);
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
    if upstream.ring.is_some() {
        let by_hostname = hostnames.for_hashing.then(|| hostname.unwrap_or(host));
        let path = Some(host).filter(|host| host.starts_with('/'));
        let hashed = hash_key(&fields).or(by_hostname).or(path);
        peer.id = hashed.map(str::to_owned);
        if peer.id.is_none() && host.parse::<IpAddr>().is_err() {
            peer.comments.push(notes.gap(
                element.span(),
                &format!("address: {host}"),
                HASHED_BY_IP,
            ));
        }
    }
    if let Some(endpoint) = endpoint {
        endpoint.ignore(&["health_check_config"]);
        endpoint.note_unread(&mut peer.comments, notes);
    }
    let status = fields.text("health_status").unwrap_or_default();
    fields.note_unread(&mut peer.comments, notes);
    if matches!(status, "UNHEALTHY" | "DRAINING") {
        let why = "an endpoint that is configured as unhealthy or draining is left out";
        upstream
            .comments
            .push(notes.gap(element.span(), &format!("health_status: {status}"), why));
    } else {
        upstream.peers.push(peer);
    }
}

/// The address of an endpoint.
struct EndpointAddress<'a> {
    /// As a peer's.
    address: String,
    /// The host without its port, as written; of a Unix socket the path.
    host: &'a str,
}

impl<'a> EndpointAddress<'a> {
    /// `None` if no peer can have the address.
    fn of(endpoint: &MessageFields<'a>) -> Option<Self> {
        if let Some(path) = pipe_path(endpoint) {
            let address = format!("unix:{path}");
            return Self::valid(address, path);
        }
        let (host, port) = socket_address(endpoint)?;
        Self::valid(host_and_port(&canonical_host(host), port), host)
    }

    fn valid(address: String, host: &'a str) -> Option<Self> {
        config::is_address(&address).then_some(Self { address, host })
    }
}

/// Keeps the id of the first of several endpoints with one: Envoy gives them the same points, and each point of a ring of
/// Clockwise has one peer.
fn drop_repeated_ids(upstream: &mut UpstreamDraft, notes: &Notes<'_>) {
    let addresses = upstream.peers.iter().map(|peer| peer.address.clone());
    let mut owners: HashMap<_, _> = addresses
        .map(|address| (address.clone(), address))
        .collect();
    for peer in &mut upstream.peers {
        let Some(id) = peer.id.clone() else {
            continue;
        };
        let subject = format!("{id} at {}", peer.address);
        let owner = owners.entry(id).or_insert_with(|| peer.address.clone());
        // One address twice becomes one peer later.
        if *owner != peer.address {
            peer.id = None;
            peer.comments
                .push(notes.gap(peer.span, &subject, SHARED_POINTS));
        }
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

/// Divides weights above the limit by their greatest common divisor: only proportions count.
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
            let why = format!("a weight is at most {most}, which is written, and keys will move");
            peer.comments
                .push(notes.gap(element.span(), "load_balancing_weight", &why));
        }
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Without `health_checks`, Envoy does not probe.
fn health(fields: &MessageFields<'_>, upstream: &mut UpstreamDraft, notes: &Notes<'_>) {
    upstream.health = HealthDraft::Off;
    for (index, element) in fields.list("health_checks").into_iter().enumerate() {
        if index > 0 {
            let why = "an upstream has one probe; the first is written";
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
        let (span, subject) = (element.span(), "health_checks");
        let comments = &mut upstream.comments;
        let probe = probe(&check, comments, notes);
        upstream.health = HealthDraft::On(probe.clamp_to_limits(
            NoteSubject {
                span,
                text: subject,
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

/// Envoy's range excludes its end.
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
