//! `health`, `passive`, `retry` and `timeouts`: what an upstream does when a peer does badly.

use std::time::Duration;

use http::HeaderValue;

use super::BOUNDS;
use super::upstreams::host_value;
use crate::config::fields::{Fields, Off, accept, collect, items_or_one, text};
use crate::config::link::Link;
use crate::config::raw::Node;
use crate::config::report::{Problem, quote};
use crate::config::schema;
use crate::config::settings::{Health, Passive, Peer, Probe, Retry, Timeouts, TunnelTimes};
use crate::config::values::{self, Fault, short};

const INTERVAL: Duration = Duration::from_secs(2);
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
const EJECT: Duration = Duration::from_secs(10);
const MAX_EJECT: Duration = Duration::from_secs(5 * 60);
/// Short enough for a message of one byte of length each.
const MAX_SERVICE: usize = 120;
const STATUSES: (u16, u16) = (100, 599);
const PASSING: (u16, u16) = (200, 399);

pub(super) fn health(upstream: &Fields<'_>, link: &Link, peers: &[Peer]) -> Option<Health> {
    let health = given_or_default(upstream)?;
    check_protocol(upstream, &health.probe, link);
    check_host(upstream, &health.probe, link, peers);
    Some(health)
}

/// gRPC is spoken over HTTP/2 only.
fn check_protocol(upstream: &Fields<'_>, probe: &Probe, link: &Link) {
    if let (Probe::Grpc { .. }, false, Some(node)) =
        (probe, link.protocol.may_be_h2(), upstream.get("health"))
    {
        let help = "add `protocol: h2c`, or `tls` and `protocol: h2`";
        upstream.error(node, "a gRPC probe needs HTTP/2", help);
    }
}

/// A probe has no client whose `Host` could say which name the peer must prove.
fn check_host(upstream: &Fields<'_>, probe: &Probe, link: &Link, peers: &[Peer]) {
    let (Probe::Http { host: None, .. } | Probe::Grpc { host: None, .. }) = probe else {
        return;
    };
    let unnamed = link.tls.is_some() && peers.iter().any(|peer| peer.server_name.is_none());
    if let Some(node) = upstream.get("health").filter(|_| unnamed) {
        let help = "add `host: app.example.com` to `health`: with `server_name: host` it is the name that the probe verifies";
        upstream.error(node, "the probe has no name that a peer could prove", help);
    }
}

fn given_or_default(upstream: &Fields<'_>) -> Option<Health> {
    let node = upstream.get("health");
    if let Some(help) = node.and_then(Node::text).and_then(short_probe) {
        let node = node?;
        upstream.error(
            node,
            format!("expected a map for `health`, found {}", quote(node.text()?)),
            help,
        );
        return None;
    }
    match upstream.section_or_off("health", &schema::HEALTH) {
        Err(Off) => None,
        Ok(None) => Some(probe_by(Probe::Tcp)),
        Ok(Some(fields)) => Some(given_health(&fields)),
    }
}

/// What was meant by a word in the place of the map.
fn short_probe(text: &str) -> Option<String> {
    match text {
        "tcp" | "on" | "true" => {
            Some("write `health: {tcp: true}`, or remove the line: it is the default".to_owned())
        }
        "http" => Some("say which path: `health: {http: /healthz}`".to_owned()),
        path if path.starts_with('/') => Some(format!("write `health: {{http: {path}}}`")),
        _ => None,
    }
}

fn probe_by(probe: Probe) -> Health {
    Health {
        probe,
        interval: INTERVAL,
        timeout: PROBE_TIMEOUT,
        fall: 3,
        rise: 2,
    }
}

fn given_health(fields: &Fields<'_>) -> Health {
    let least = Duration::from_millis(10);
    let interval = fields.duration("interval", INTERVAL, least..=*BOUNDS.end());
    // The default follows a shorter interval: probes start one interval apart, so none may last longer.
    let timeout = fields.duration("timeout", PROBE_TIMEOUT.min(interval), BOUNDS);
    if timeout > interval {
        refuse(
            fields,
            "timeout",
            "is longer than `interval`",
            &format!("use at most {}", short(interval)),
        );
    }
    Health {
        interval,
        timeout,
        fall: fields.number("fall", 3, 1..=1000),
        rise: fields.number("rise", 2, 1..=1000),
        ..probe_by(probe(fields))
    }
}

fn probe(fields: &Fields<'_>) -> Probe {
    let asks = fields.get("http").is_some() || fields.get("grpc").is_some();
    let tcp = fields.flag("tcp", !asks);
    if tcp && asks {
        let other = if fields.get("http").is_some() {
            "http"
        } else {
            "grpc"
        };
        let why = format!("and `{other}` exclude each other");
        refuse(fields, "tcp", &why, "keep one of the two");
    }
    match (fields.get("http"), fields.get("grpc")) {
        (Some(path), None) => http_probe(fields, path),
        (None, Some(service)) => grpc_probe(fields, service),
        (Some(_), Some(_)) => {
            refuse(
                fields,
                "grpc",
                "and `http` exclude each other",
                "keep one of the two",
            );
            Probe::Tcp
        }
        (None, None) => tcp_probe(fields, tcp),
    }
}

fn tcp_probe(fields: &Fields<'_>, tcp: bool) -> Probe {
    let help = "a TCP probe asks for nothing; add `http: /healthz`";
    for key in ["host", "expect"] {
        refuse(fields, key, "needs `http`", help);
    }
    if !tcp {
        let help = "write `health: off`, or add `http: /healthz`";
        refuse(fields, "tcp", "cannot be `false` alone", help);
    }
    Probe::Tcp
}

/// `grpc: SERVICE`, or `grpc: true` for the server as a whole.
fn grpc_probe(fields: &Fields<'_>, service: &Node) -> Probe {
    let help = "gRPC has statuses of its own; `SERVING` passes";
    refuse(fields, "expect", "needs `http`", help);
    let service = if service.is_word("true") {
        Some(String::new())
    } else {
        accept(service, fields.problems, grpc_service)
    };
    Probe::Grpc {
        service: service.unwrap_or_default(),
        host: fields.read("host", probe_host),
    }
}

fn grpc_service(node: &Node) -> Result<String, Fault> {
    let name = text(node, "the name of a service")?;
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
    if (1..=MAX_SERVICE).contains(&name.len()) && name.bytes().all(good) {
        return Ok(name.to_owned());
    }
    let help = "write `grpc: package.Service`, or `grpc: true` for the server as a whole";
    Err((
        format!("{} is not the name of a service", quote(name)),
        help.to_owned(),
    ))
}

fn http_probe(fields: &Fields<'_>, path: &Node) -> Probe {
    Probe::Http {
        path: accept(path, fields.problems, probe_path).unwrap_or_default(),
        host: fields.read("host", probe_host),
        expect: fields
            .get("expect")
            .map_or_else(|| vec![PASSING], |node| statuses(node, fields)),
    }
}

/// A problem at `key` if it is there: `key` and then `why`.
fn refuse(fields: &Fields<'_>, key: &'static str, why: &str, help: &str) {
    if let Some(node) = fields.get(key) {
        let problem = Problem::error(format!("`{key}` {why}"), node.place());
        fields.problems.add(problem.help(help));
    }
}

/// Whether a probe can ask for this path.
pub(crate) fn is_probe_path(path: &str) -> bool {
    path.starts_with('/')
        && path
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'#')
        && path.parse::<http::uri::PathAndQuery>().is_ok()
}

fn probe_path(node: &Node) -> Result<String, Fault> {
    let path = text(node, "a path")?;
    if is_probe_path(path) {
        return Ok(path.to_owned());
    }
    let help = if path.contains("://") {
        "give only the path: the peer's address is known"
    } else {
        "begin with `/`, as in `http: /healthz`; no spaces and no `#`"
    };
    Err((format!("{} is not a path", quote(path)), help.to_owned()))
}

fn probe_host(node: &Node) -> Result<HeaderValue, Fault> {
    host_value(text(node, "a host")?)
}

fn statuses(node: &Node, fields: &Fields<'_>) -> Vec<(u16, u16)> {
    let list = items_or_one(node);
    if list.is_empty() {
        fields.error(node, "the list is empty", "write `expect: 200-399`");
    }
    collect(list, fields.problems, |item| {
        accept(item, fields.problems, status_range)
    })
}

/// `204`, `200-399`.
fn status_range(node: &Node) -> Result<(u16, u16), Fault> {
    let text = text(node, "a status or a range like `200-399`")?;
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let status = |text: &str| text.trim().parse::<u16>().ok();
    let bounds = STATUSES.0..=STATUSES.1;
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
                STATUSES.0, STATUSES.1
            ),
        )),
    }
}

pub(super) fn passive(upstream: &Fields<'_>) -> Option<Passive> {
    match upstream.section_or_off("passive", &schema::PASSIVE) {
        Err(Off) => None,
        Ok(None) => Some(Passive {
            failures: 3,
            eject: EJECT,
            max_eject: MAX_EJECT,
        }),
        Ok(Some(fields)) => Some(given_passive(&fields)),
    }
}

fn given_passive(fields: &Fields<'_>) -> Passive {
    let eject = fields.duration("eject", EJECT, BOUNDS);
    let max_eject = fields.duration("max_eject", MAX_EJECT.max(eject), BOUNDS);
    if max_eject < eject {
        refuse(
            fields,
            "max_eject",
            "is shorter than `eject`",
            &format!("use at least {}", short(eject)),
        );
    }
    Passive {
        failures: fields.number("failures", 3, 1..=1000),
        eject,
        max_eject,
    }
}

pub(super) fn retry(upstream: &Fields<'_>) -> Retry {
    let timeout = Duration::from_secs(10);
    match upstream.section_or_off("retry", &schema::RETRY) {
        Err(Off) => Retry {
            attempts: 1,
            timeout,
        },
        Ok(None) => Retry {
            attempts: 3,
            timeout,
        },
        Ok(Some(fields)) => Retry {
            attempts: fields.number("attempts", 3, 1..=16),
            timeout: fields.duration("timeout", timeout, BOUNDS),
        },
    }
}

pub(super) fn timeouts(upstream: &Fields<'_>) -> Timeouts {
    let fields = upstream.section("timeouts", &schema::TIMEOUTS);
    let of = |key, seconds| {
        let default = Duration::from_secs(seconds);
        fields
            .as_ref()
            .map_or(default, |fields| fields.duration(key, default, BOUNDS))
    };
    Timeouts {
        connect: of("connect", 1),
        first_byte: of("first_byte", 60),
        read: of("read", 60),
        stream: of("stream", 3600),
        write: of("write", 60),
        idle: of("idle", 50),
        tunnel: tunnel(fields.as_ref()),
    }
}

/// `tunnel: 1h` says how long it may be idle.
fn tunnel(timeouts: Option<&Fields<'_>>) -> TunnelTimes {
    let default = TunnelTimes {
        idle: Duration::from_secs(3600),
        total: None,
    };
    let Some(timeouts) = timeouts else {
        return default;
    };
    let node = timeouts.get("tunnel");
    if node.is_some_and(|node| node.text().is_some()) {
        let idle = timeouts.duration("tunnel", default.idle, BOUNDS);
        return TunnelTimes { idle, ..default };
    }
    let given = timeouts.section("tunnel", &schema::TUNNEL);
    given.map_or(default, |fields| TunnelTimes {
        idle: fields.duration("idle", default.idle, BOUNDS),
        total: fields.or_off("total", None, |node| values::duration(node, &BOUNDS)),
    })
}
