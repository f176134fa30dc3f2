//! `health`: active checks of the peers.

use std::time::Duration;

use http::HeaderValue;

use super::host_header::host_value;
use super::upstream_protocol::ServerNamePolicy;
use super::{PeerConfig, PeerSource, TransportConfig};
use crate::config::fields::{
    Fields, SectionOff, collect_until_full, items_or_one, parse_or_report, text,
};
use crate::config::raw::YamlNode;
use crate::config::report::quote;
use crate::config::schema::SectionSchema;
use crate::config::values::{DURATION_BOUNDS, InvalidValue, format_duration};

/// Active health checks of every peer.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthConfig {
    /// The kind of probe.
    pub probe: ProbeConfig,
    /// Time from the start of one probe to the start of the next, with a jitter of ±10 %.
    pub interval: Duration,
    /// Limit for one whole probe.
    pub timeout: Duration,
    /// Failed probes in a row that take an up peer down; at least 1.
    pub fall: u32,
    /// Passed probes in a row that bring a down peer up; at least 1.
    pub rise: u32,
}

/// The kind of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeConfig {
    /// Connects; with TLS, including the handshake.
    Tcp,
    /// Sends a GET request.
    Http {
        /// Path and query; begins with `/`.
        path: String,
        /// The `Host` sent; `None`: the peer's address as written.
        host: Option<HeaderValue>,
        /// Ranges of statuses that pass, both ends included.
        expect: Vec<(u16, u16)>,
    },
    /// Calls `grpc.health.v1.Health/Check`; `SERVING` passes.
    Grpc {
        /// The service; empty: the whole server.
        service: String,
        /// The `:authority` sent; `None`: the peer's address as written.
        host: Option<HeaderValue>,
    },
}

const DEFAULT_INTERVAL: Duration = Duration::from_secs(2);
const DEFAULT_PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// Below 128, so that the lengths of the name and of the whole request message take one byte each.
const MAX_SERVICE: usize = 120;

const STATUS_BOUNDS: (u16, u16) = (100, 599);
const DEFAULT_EXPECT: (u16, u16) = (200, 399);

pub(super) fn health(
    upstream: &Fields<'_>,
    transport: &TransportConfig,
    peers: &[PeerConfig],
    sources: &[PeerSource],
) -> Option<HealthConfig> {
    let health = read_or_default_health(upstream)?;
    check_grpc_probe_protocol(upstream, &health.probe, transport);
    let is_unnamed = transport.tls.as_ref().is_some_and(|tls| {
        // The peers of a source are not known yet; unless all have one name, each has one.
        let may_lack_name = tls.server_name == ServerNamePolicy::ClientHost;
        peers.iter().any(|peer| peer.server_name.is_none()) || may_lack_name && !sources.is_empty()
    });
    check_probe_host(upstream, &health.probe, is_unnamed);
    Some(health)
}

/// Refuses gRPC probes without HTTP/2.
fn check_grpc_probe_protocol(
    upstream: &Fields<'_>,
    probe: &ProbeConfig,
    transport: &TransportConfig,
) {
    if let (ProbeConfig::Grpc { .. }, false, Some(node)) = (
        probe,
        transport.protocol.may_be_h2(),
        upstream.get("health"),
    ) {
        let help = "add `protocol: h2c`, or `tls` and `protocol: h2`";
        upstream.error(node, "a gRPC health check needs HTTP/2", help);
    }
}

/// Refuses probes without a name to verify: with `server_name: host` it comes from the client's request,
/// and a probe has no client.
fn check_probe_host(upstream: &Fields<'_>, probe: &ProbeConfig, is_unnamed: bool) {
    let (ProbeConfig::Http { host: None, .. } | ProbeConfig::Grpc { host: None, .. }) = probe
    else {
        return;
    };
    if let Some(node) = upstream.get("health").filter(|_| is_unnamed) {
        let help = "add `host: app.example.com` to `health`: with `server_name: host` the health check verifies this name";
        upstream.error(node, "the health check has no server name to verify", help);
    }
}

pub(super) static HEALTH: SectionSchema = SectionSchema {
    title: "`health`",
    path: "upstreams.NAME.health",
    example: "{http: /healthz, interval: 2s}",
    keys: &[
        "tcp", "http", "grpc", "host", "expect", "interval", "timeout", "fall", "rise",
    ],
    ..SectionSchema::EMPTY
};

fn read_or_default_health(upstream: &Fields<'_>) -> Option<HealthConfig> {
    let node = upstream.get("health");
    if let Some(help) = node.and_then(YamlNode::text).and_then(short_probe_help) {
        let node = node?;
        upstream.error(
            node,
            format!("expected a map for `health`, found {}", quote(node.text()?)),
            help,
        );
        return None;
    }
    match upstream.section_or_off("health", &HEALTH) {
        Err(SectionOff) => None,
        Ok(None) => Some(default_health(ProbeConfig::Tcp)),
        Ok(Some(fields)) => Some(read_health(&fields)),
    }
}

/// The help for a word in place of the map.
fn short_probe_help(text: &str) -> Option<String> {
    match text {
        "tcp" | "on" | "true" => {
            Some("write `health: {tcp: true}`, or remove the line: it is the default".to_owned())
        }
        "http" => Some("write `health: {http: /healthz}`".to_owned()),
        path if path.starts_with('/') => Some(format!("write `health: {{http: {path}}}`")),
        _ => None,
    }
}

fn default_health(probe: ProbeConfig) -> HealthConfig {
    HealthConfig {
        probe,
        interval: DEFAULT_INTERVAL,
        timeout: DEFAULT_PROBE_TIMEOUT,
        fall: 3,
        rise: 2,
    }
}

fn read_health(fields: &Fields<'_>) -> HealthConfig {
    let least = Duration::from_millis(10);
    let interval = fields.duration("interval", DEFAULT_INTERVAL, least..=*DURATION_BOUNDS.end());
    // The default is no longer than the interval: probes must not overlap.
    let timeout = fields.duration(
        "timeout",
        DEFAULT_PROBE_TIMEOUT.min(interval),
        DURATION_BOUNDS,
    );
    if timeout > interval {
        fields.refuse_key(
            "timeout",
            "is longer than `interval`",
            &format!("use at most {}", format_duration(interval)),
        );
    }
    HealthConfig {
        interval,
        timeout,
        fall: fields.number("fall", 3, 1..=1000),
        rise: fields.number("rise", 2, 1..=1000),
        ..default_health(probe(fields))
    }
}

fn probe(fields: &Fields<'_>) -> ProbeConfig {
    let has_request = fields.get("http").is_some() || fields.get("grpc").is_some();
    let tcp = fields.flag("tcp", !has_request);
    if tcp && has_request {
        let other = if fields.get("http").is_some() {
            "http"
        } else {
            "grpc"
        };
        let why = format!("and `{other}` exclude each other");
        fields.refuse_key("tcp", &why, "keep one of the two");
    }
    match (fields.get("http"), fields.get("grpc")) {
        (Some(path), None) => http_probe(fields, path),
        (None, Some(service)) => grpc_probe(fields, service),
        (Some(_), Some(_)) => {
            fields.refuse_key(
                "grpc",
                "and `http` exclude each other",
                "keep one of the two",
            );
            ProbeConfig::Tcp
        }
        (None, None) => tcp_probe(fields, tcp),
    }
}

fn tcp_probe(fields: &Fields<'_>, tcp: bool) -> ProbeConfig {
    let help = "a TCP health check sends no request; add `http: /healthz`";
    for key in ["host", "expect"] {
        fields.refuse_key(key, "needs `http`", help);
    }
    if !tcp {
        let help = "write `health: off`, or add `http: /healthz`";
        fields.refuse_key("tcp", "cannot be `false` alone", help);
    }
    ProbeConfig::Tcp
}

/// `grpc: SERVICE`, or `grpc: true` for the whole server.
fn grpc_probe(fields: &Fields<'_>, service: &YamlNode) -> ProbeConfig {
    let help = "remove the line: a gRPC health check passes with `SERVING`";
    fields.refuse_key("expect", "needs `http`", help);
    let service = if service.is_plain("true") {
        Some(String::new())
    } else {
        parse_or_report(service, fields.problems, grpc_service)
    };
    ProbeConfig::Grpc {
        service: service.unwrap_or_default(),
        host: fields.read("host", probe_host),
    }
}

fn grpc_service(node: &YamlNode) -> Result<String, InvalidValue> {
    let name = text(node, "the name of a service")?;
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
    if (1..=MAX_SERVICE).contains(&name.len()) && name.bytes().all(good) {
        return Ok(name.to_owned());
    }
    let help = "write `grpc: package.Service`, or `grpc: true` for the whole server";
    Err((
        format!("{} is not the name of a service", quote(name)),
        help.to_owned(),
    ))
}

fn http_probe(fields: &Fields<'_>, path: &YamlNode) -> ProbeConfig {
    ProbeConfig::Http {
        path: parse_or_report(path, fields.problems, probe_path).unwrap_or_default(),
        host: fields.read("host", probe_host),
        expect: fields.get("expect").map_or_else(
            || vec![DEFAULT_EXPECT],
            |node| expected_statuses(node, fields),
        ),
    }
}

/// Whether a probe can request this path.
pub(crate) fn is_probe_path(path: &str) -> bool {
    path.starts_with('/')
        && path
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'#')
        && path.parse::<http::uri::PathAndQuery>().is_ok()
}

fn probe_path(node: &YamlNode) -> Result<String, InvalidValue> {
    let path = text(node, "a path")?;
    if is_probe_path(path) {
        return Ok(path.to_owned());
    }
    let help = if path.contains("://") {
        "write only the path; the request goes to the address of the peer"
    } else {
        "begin with `/`, as in `http: /healthz`; no spaces and no `#`"
    };
    Err((format!("{} is not a path", quote(path)), help.to_owned()))
}

fn probe_host(node: &YamlNode) -> Result<HeaderValue, InvalidValue> {
    host_value(text(node, "a host")?)
}

fn expected_statuses(node: &YamlNode, fields: &Fields<'_>) -> Vec<(u16, u16)> {
    let list = items_or_one(node);
    if list.is_empty() {
        fields.error(node, "the list is empty", "write `expect: 200-399`");
    }
    collect_until_full(list, fields.problems, |item| {
        parse_or_report(item, fields.problems, status_range)
    })
}

/// `204`, `200-399`.
fn status_range(node: &YamlNode) -> Result<(u16, u16), InvalidValue> {
    let text = text(node, "a status or a range like `200-399`")?;
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let status = |text: &str| text.trim().parse::<u16>().ok();
    let bounds = STATUS_BOUNDS.0..=STATUS_BOUNDS.1;
    match (status(first), status(last)) {
        (Some(first), Some(last))
            if first <= last && bounds.contains(&first) && bounds.contains(&last) =>
        {
            Ok((first, last))
        }
        _ => Err((
            format!("{} is not a status or a range of statuses", quote(text)),
            format!(
                "use numbers from {} to {}, as in `204` or `200-399`",
                STATUS_BOUNDS.0, STATUS_BOUNDS.1
            ),
        )),
    }
}
