//! A cluster: an upstream.

use std::net::IpAddr;

use super::beginning::{self, Options};
use super::fields::{Element, Fields};
use crate::config;
use crate::migrate::bounds::Said;
use crate::migrate::model::{Health, Peer, Probe, Ring, Upstream};
use crate::migrate::notes::Notes;
use crate::ring::Weight;

const NO_KEY: &str =
    "requests go to servers by a key here, the client's address if none is chosen; choose `key`";
const TABLE: &str = "there is no such table here, and keys will move; the default ring is used";
const RESOLVED: &str = "Envoy places a server by the address that its name resolves to: write it as `id: IP:PORT`, or keys will move";

/// What a cluster says; without peers where its endpoints are not in the file.
pub(super) fn upstream(element: Element<'_>, notes: &Notes<'_>) -> Upstream {
    let fields = Fields::of(element);
    let name = fields.text("name").unwrap_or_default().to_owned();
    let mut upstream = Upstream {
        name,
        ..Upstream::default()
    };
    fields.leave(&[
        "dns_lookup_family",
        "dns_refresh_rate",
        "respect_dns_ttl",
        "per_connection_buffer_limit_bytes",
    ]);
    fields.leave(&[
        "upstream_connection_options",
        "type",
        "connect_timeout",
        "common_http_protocol_options",
    ]);
    upstream.timeouts.connect = fields.get("connect_timeout").and_then(Element::duration);
    policy(&fields, &mut upstream, notes);
    let by_hostname = common(&fields, &mut upstream, notes);
    let options = Options::of(&fields, &mut upstream.comments, notes);
    let asked = beginning::tls(&fields, &options, &mut upstream, notes);
    options.settle(&mut upstream, notes);
    let hostnames = Hostnames { by_hostname, asked };
    health(&fields, &mut upstream, notes);
    if let Some(assignment) = fields.map("load_assignment") {
        assignment.leave(&["cluster_name"]);
        for locality in assignment.list("endpoints") {
            self::locality(locality, hostnames, &mut upstream, notes);
        }
        assignment.tell_rest(&mut upstream.comments, notes);
    }
    bound_weights(&mut upstream, element, notes);
    fields.tell_rest(&mut upstream.comments, notes);
    upstream
}

fn policy(fields: &Fields<'_>, upstream: &mut Upstream, notes: &Notes<'_>) {
    let options = fields.map("ring_hash_lb_config");
    fields.leave(&["maglev_lb_config"]);
    let Some(policy) = fields.get("lb_policy") else {
        upstream
            .comments
            .push(notes.remark(fields.place(), &upstream.name.clone(), NO_KEY));
        return;
    };
    let shown = format!("lb_policy: {}", policy.text());
    match policy.text() {
        "RING_HASH" => upstream.ring = Some(ring(options, &mut upstream.comments, notes)),
        "MAGLEV" => upstream
            .comments
            .push(notes.gap(policy.place(), &shown, TABLE)),
        _ => upstream
            .comments
            .push(notes.gap(policy.place(), &shown, NO_KEY)),
    }
}

fn ring(options: Option<Fields<'_>>, comments: &mut Vec<String>, notes: &Notes<'_>) -> Ring {
    let mut ring = Ring {
        dialect: "envoy",
        options: Vec::new(),
    };
    let Some(options) = options else { return ring };
    if options.text("hash_function") == Some("MURMUR_HASH_2") {
        ring.options.push(("hash", "murmur2".to_owned()));
    }
    for name in ["minimum_ring_size", "maximum_ring_size"] {
        // 64-bit numbers may be texts in JSON.
        let size = options.get(name).and_then(Element::number);
        let size = size.map(|size| size.clamp(1, 8_388_608));
        ring.options
            .extend(size.map(|size| (name, size.to_string())));
    }
    options.tell_rest(comments, notes);
    ring
}

/// `common_lb_config`; gives whether hosts are placed by their names.
fn common(fields: &Fields<'_>, upstream: &mut Upstream, notes: &Notes<'_>) -> bool {
    let Some(common) = fields.map("common_lb_config") else {
        return false;
    };
    common.leave(&[
        "healthy_panic_threshold",
        "close_connections_on_host_set_change",
    ]);
    let hashing = common.map("consistent_hashing_lb_config");
    let mut by_hostname = false;
    if let Some(hashing) = hashing {
        by_hostname = hashing.text("use_hostname_for_hashing") == Some("true");
        if let Some(factor) = hashing.get("hash_balance_factor") {
            let (place, shown) = (factor.place(), "hash_balance_factor");
            let percent = factor.number().unwrap_or(0);
            upstream.bound_load(percent, Said { place, shown }, notes);
        }
        hashing.tell_rest(&mut upstream.comments, notes);
    }
    common.tell_rest(&mut upstream.comments, notes);
    by_hostname
}

/// What the host names of endpoints are for.
#[derive(Clone, Copy)]
struct Hostnames {
    /// They place them.
    by_hostname: bool,
    /// They are what is asked for in TLS.
    asked: bool,
}

fn locality(
    element: Element<'_>,
    hostnames: Hostnames,
    upstream: &mut Upstream,
    notes: &Notes<'_>,
) {
    let fields = Fields::of(element);
    fields.leave(&["locality"]);
    if let Some(priority) = fields
        .get("priority")
        .filter(|priority| priority.text() != "0")
    {
        let why = "there are no servers for bad times only; these are left out";
        upstream
            .comments
            .push(notes.gap(priority.place(), "priority", why));
        return;
    }
    for item in fields.list("lb_endpoints") {
        endpoint(item, hostnames, upstream, notes);
    }
    fields.tell_rest(&mut upstream.comments, notes);
}

fn endpoint(
    element: Element<'_>,
    hostnames: Hostnames,
    upstream: &mut Upstream,
    notes: &Notes<'_>,
) {
    let fields = Fields::of(element);
    let endpoint = fields.map("endpoint");
    let found = endpoint.as_ref().and_then(address);
    let found = found.filter(|(host, port)| config::is_address(&joined(host, *port)));
    let Some((host, port)) = found else {
        let why = "a peer is a host or an IP address with a port";
        upstream
            .comments
            .push(notes.gap(element.place(), "endpoint", why));
        return;
    };
    let mut peer = Peer::new(joined(&canonical(host), port));
    peer.place = element.place();
    peer.weight = fields
        .get("load_balancing_weight")
        .and_then(Element::number)
        .unwrap_or(1);
    let hostname = endpoint
        .as_ref()
        .and_then(|endpoint| endpoint.text("hostname"));
    peer.server_name = beginning::own_name(hostname.filter(|_| hostnames.asked));
    let hashed = hash_key(&fields).or(hostnames.by_hostname.then(|| hostname.unwrap_or(host)));
    peer.id = hashed
        .filter(|_| upstream.ring.is_some())
        .map(str::to_owned);
    if peer.id.is_none() && upstream.ring.is_some() && host.parse::<IpAddr>().is_err() {
        peer.comments
            .push(notes.gap(element.place(), &format!("address: {host}"), RESOLVED));
    }
    if let Some(endpoint) = endpoint {
        endpoint.leave(&["health_check_config"]);
        endpoint.tell_rest(&mut peer.comments, notes);
    }
    let status = fields.text("health_status").unwrap_or_default();
    fields.tell_rest(&mut peer.comments, notes);
    if matches!(status, "UNHEALTHY" | "DRAINING") {
        let why = "a server that is not healthy by configuration is left out";
        upstream.comments.push(notes.gap(
            element.place(),
            &format!("health_status: {status}"),
            why,
        ));
    } else {
        upstream.peers.push(peer);
    }
}

/// Host and port of a `socket_address`.
pub(super) fn address<'a>(fields: &Fields<'a>) -> Option<(&'a str, u16)> {
    let socket = fields.map("address")?.map("socket_address")?;
    let host = socket.text("address").filter(|host| !host.is_empty())?;
    let port = socket.get("port_value")?.number()?;
    let tcp = socket
        .text("protocol")
        .is_none_or(|protocol| protocol == "TCP");
    u16::try_from(port)
        .ok()
        .filter(|port| tcp && *port != 0)
        .map(|port| (host, port))
}

/// Host and port as one text.
pub(super) fn joined(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// Envoy places a server by the text that its address is written as, not by what the file has.
fn canonical(host: &str) -> String {
    let address = host.parse::<IpAddr>();
    address.map_or_else(|_| host.to_owned(), |address| address.to_string())
}

/// `metadata.filter_metadata.envoy.lb.hash_key`.
fn hash_key<'a>(fields: &Fields<'a>) -> Option<&'a str> {
    let metadata = fields.map("metadata")?.map("filter_metadata")?;
    metadata
        .map("envoy.lb")?
        .text("hash_key")
        .filter(|key| !key.is_empty())
}

/// Only the weights' proportions count, so they can be divided by what they share.
fn bound_weights(upstream: &mut Upstream, element: Element<'_>, notes: &Notes<'_>) {
    let most = u64::from(Weight::MAX.get());
    upstream.peers.retain(|peer| peer.weight > 0);
    if upstream.peers.iter().all(|peer| peer.weight <= most) {
        return;
    }
    let shared = upstream
        .peers
        .iter()
        .fold(0, |shared, peer| divisor(shared, peer.weight))
        .max(1);
    for peer in &mut upstream.peers {
        peer.weight /= shared;
        if peer.weight > most {
            peer.weight = most;
            let why = format!("weights are at most {most}, and keys will move");
            peer.comments
                .push(notes.gap(element.place(), "load_balancing_weight", &why));
        }
    }
}

fn divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { divisor(b, a % b) }
}

/// Without `health_checks` Envoy probes nobody.
fn health(fields: &Fields<'_>, upstream: &mut Upstream, notes: &Notes<'_>) {
    upstream.health = Health::Off;
    for (index, element) in fields.list("health_checks").into_iter().enumerate() {
        if index > 0 {
            let why = "an upstream has one kind of probe; the first is written";
            upstream
                .comments
                .push(notes.gap(element.place(), "health_checks", why));
            return;
        }
        let check = Fields::of(element);
        check.leave(&[
            "no_traffic_interval",
            "reuse_connection",
            "interval_jitter",
            "initial_jitter",
            "event_log_path",
        ]);
        check.leave(&[
            "tcp_health_check",
            "always_log_health_check_failures",
            "interval_jitter_percent",
        ]);
        let (place, shown) = (element.place(), "health_checks");
        let comments = &mut upstream.comments;
        let probe = probe(&check, comments, notes);
        upstream.health = Health::On(probe.within(Said { place, shown }, comments, notes));
        check.tell_rest(&mut upstream.comments, notes);
    }
}

fn probe(check: &Fields<'_>, comments: &mut Vec<String>, notes: &Notes<'_>) -> Probe {
    let number = |name| {
        let number = check.get(name).and_then(Element::number);
        number.map(|number| number.clamp(1, 1000))
    };
    let mut probe = Probe {
        interval: check.get("interval").and_then(Element::duration),
        timeout: check.get("timeout").and_then(Element::duration),
        fall: number("unhealthy_threshold"),
        rise: number("healthy_threshold"),
        ..Probe::default()
    };
    if let Some(http) = check.map("http_health_check") {
        probe.http = http.text("path").map(str::to_owned);
        probe.host = http
            .text("host")
            .filter(|host| !host.is_empty())
            .map(str::to_owned);
        let statuses = http
            .list("expected_statuses")
            .into_iter()
            .filter_map(statuses);
        probe.expect = statuses.collect();
        http.tell_rest(comments, notes);
        if probe.expect.is_empty() {
            probe.expect.push("200".to_owned());
        }
    }
    probe
}

/// The end of Envoy's range is not part of it.
fn statuses(element: Element<'_>) -> Option<String> {
    let fields = Fields::of(element);
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
