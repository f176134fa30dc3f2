//! The configuration of both processes under test: for each origin, routes with the settings on which HTTP/1 depends.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use super::origin::Origin;

/// The path of each route, and the settings of its upstream.
pub(super) const ROUTES: &[(&str, &str)] = &[
    ("/plain", "{key: client_ip, retry: off, peers: [A]}"),
    (
        "/retry",
        "{key: [{header: x-user}, client_ip], retry: {attempts: 3}, peers: [A, B]}",
    ),
    (
        "/sticky",
        "{key: {cookie: {name: cw, generate: true, ttl: 1h, refresh: true}}, peers: [A]}",
    ),
    ("/limit", "{key: client_ip, retry: off, peers: [A]}"),
    (
        "/short",
        "{key: client_ip, retry: off, timeouts: {connect: 30s, first_byte: 1s, read: 1s}, peers: [A]}",
    ),
    (
        "/reject",
        "{key: {header: x-user}, missing_key: reject, host_header: peer, peers: [A]}",
    ),
    (
        "/methods",
        "{key: [{query: k}, client_ip], host_header: fixed.test, peers: [A, B]}",
    ),
    ("/down", "{key: client_ip, peers: [DEAD]}"),
    (
        "/half",
        "{key: client_ip, retry: {attempts: 2}, peers: [DEAD, A]}",
    ),
];

/// The index of the route with short timeouts.
pub(super) const SHORT: usize = 4;

/// The configuration before these origins, one a slot. `dead`: an address that refuses connections.
pub(super) fn config(origins: &[Arc<Origin>], dead: SocketAddr) -> String {
    let yaml = String::from(
        "listeners: [{address: \"127.0.0.1:0\"}]
admin: off
threads: 1
access_log: {path: stdout}
error_log: {level: off}
trusted_proxies: [127.128.0.0/9]
forwarding: {forwarded: true}
downstream: {keepalive_requests: 4, max_header_size: 4KiB, max_uri_length: 256}
",
    );
    let (mut routes, mut upstreams) = (String::from("routes:\n"), String::from("upstreams:\n"));
    for origin in origins {
        let name = &origin.name;
        for (path, settings) in ROUTES {
            let upstream = format!("{name}-{}", path.trim_matches('/'));
            let extra = match *path {
                "/limit" => ", max_body_size: 64",
                "/methods" => ", methods: [GET, HEAD, OPTIONS]",
                _ => "",
            };
            let _ = writeln!(
                routes,
                "  - {{host: {name}.test, path: {path}, upstream: {upstream}{extra}}}"
            );
            let peer = |label, address| format!("{{address: \"{address}\", label: {label}}}");
            let settings = settings
                .replace("DEAD", &peer("dead", dead))
                .replace('A', &peer("a", origin.addresses[0]))
                .replace('B', &peer("b", origin.addresses[1]))
                .replacen('{', "{health: off, outlier_detection: off, ", 1);
            // A busy machine must not look like a peer that does not answer.
            let has_timeouts = settings.contains("timeouts");
            let patience = if has_timeouts {
                ""
            } else {
                "timeouts: {connect: 30s}, "
            };
            let settings = settings.replacen('{', &format!("{{{patience}"), 1);
            let _ = writeln!(upstreams, "  {upstream}: {settings}");
        }
    }
    yaml + &routes + &upstreams
}
