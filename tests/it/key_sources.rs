//! Every key source: a request goes to the peer that the ring predicts.

use std::collections::HashMap;

use crate::support::client::Request;
use crate::support::edge::{ConfigBuilder, Edge};
use crate::support::load::{self, keys};
use crate::support::nginx::Nginx;
use crate::support::origin::Origin;

#[test]
fn key_placement_of_ten_thousand_keys_matches_ring_owner() {
    let nginx = Nginx::three();
    let edge = ConfigBuilder::of(nginx.iter().map(Nginx::label)).start();
    let keys = keys(10_000);
    let predicted: Vec<String> = edge.predict(&keys, 1).concat();
    assert_eq!(load::ask_all(&edge, &keys), predicted);
    for peer in &nginx {
        let share = predicted
            .iter()
            .filter(|label| **label == peer.label())
            .count();
        assert!(
            (2_000..5_000).contains(&share),
            "{share} of 10,000 keys on one of three peers"
        );
    }
}

#[test]
fn key_placement_matches_the_admin_api() {
    let origins = Origin::some(5);
    let edge = ConfigBuilder::of(origins.iter().map(Origin::label)).start();
    let keys = keys(200);
    for (key, predicted) in keys.iter().zip(edge.predict(&keys, 5)) {
        assert_eq!(edge.admin.walk("app", key), predicted);
    }
}

#[test]
fn key_placement_matches_ring_owner_in_every_dialect_with_weights() {
    let origins = Origin::some(4);
    for ring in [
        "circle",
        "{dialect: circle, replicas: 50}",
        "ketama",
        "{dialect: ketama, points: 40}",
        "nginx",
        "haproxy",
        "envoy",
        "varnish",
        "libketama",
        "libmemcached",
        "twemproxy",
        "ats",
        "caddy",
        "traefik",
    ] {
        let peers = origins.iter().zip(1..).map(|(origin, weight)| {
            format!(
                "{{address: \"{}\", label: server-{weight}, weight: {weight}}}",
                origin.address
            )
        });
        let edge = ConfigBuilder::of(peers).app("ring", ring).start();
        let keys = keys(100);
        let names: HashMap<String, String> = origins
            .iter()
            .zip(1..)
            .map(|(origin, n)| (origin.label(), format!("server-{n}")))
            .collect();
        for (key, predicted) in keys.iter().zip(edge.predict(&keys, 1).concat()) {
            let echo = edge.echo(&Request::get(&format!("/?k={key}")));
            assert_eq!(
                names[echo["origin"].as_str().unwrap()],
                predicted,
                "{key} on {ring}"
            );
        }
    }
}

/// An instance whose keys come from `sources`, in front of enough origins that a wrong key would
/// seldom find the right one by chance.
struct KeySourceEdge {
    edge: Edge,
    _origins: Vec<Origin>,
}

impl KeySourceEdge {
    fn by(sources: &str) -> Self {
        Self::at(&ConfigBuilder::of([""]).app("key", sources))
    }

    fn at(site: &ConfigBuilder) -> Self {
        let origins = Origin::some(30);
        let edge = site
            .clone()
            .peers(origins.iter().map(Origin::label))
            .start();
        Self {
            edge,
            _origins: origins,
        }
    }

    /// Asserts that the request lands where this key does.
    #[track_caller]
    fn assert_key(&self, request: &Request, key: &str) {
        let owner = &self.edge.admin.walk("app", key)[0];
        assert_eq!(
            self.edge.echo(request)["origin"],
            **owner,
            "not keyed by `{key}`"
        );
    }
}

#[test]
fn key_source_header() {
    let keyed = KeySourceEdge::by("{header: x-user}");
    for user in ["kim", "Kim", "a b", "ü"] {
        keyed.assert_key(&Request::get("/").header("X-User", user), user);
    }
}

#[test]
fn key_source_cookie() {
    let keyed = KeySourceEdge::by("{cookie: sid}");
    for sid in ["1", "22", "333"] {
        keyed.assert_key(
            &Request::get("/").header("Cookie", &format!("a=b; sid={sid}; c=d")),
            sid,
        );
    }
    keyed.assert_key(
        &Request::get("/")
            .header("Cookie", "a=b")
            .header("Cookie", "sid=x"),
        "x",
    );
}

#[test]
fn key_source_query_parameter() {
    let keyed = KeySourceEdge::by("{query: user}");
    for user in ["kim", "lee", "a%20b"] {
        keyed.assert_key(&Request::get(&format!("/?xuser=no&user={user}&z=1")), user);
    }
}

#[test]
fn key_source_skips_empty_values() {
    let lines = |name: &str, values: &[&str]| {
        let add = |request: Request, value: &&str| request.header(name, value);
        values.iter().fold(Request::get("/"), add)
    };
    for (source, request) in [
        ("{cookie: sid}", lines("Cookie", &["sid=; sid=abc; sid=no"])),
        ("{cookie: sid}", lines("Cookie", &["sid=\"\"", "sid=abc"])),
        ("{query: u}", Request::get("/?u=&u=abc&u=no")),
        ("{header: x-u}", lines("X-U", &["", "abc", "no"])),
        (
            "{header: {name: x-u, element: first}}",
            lines("X-U", &["", ", abc, no"]),
        ),
        (
            "{header: {name: x-u, element: last}}",
            lines("X-U", &["no, abc,", ""]),
        ),
    ] {
        KeySourceEdge::by(source).assert_key(&request, "abc");
    }
}

#[test]
fn key_source_header_lines_are_joined_or_sorted() {
    let request = ["b", "", "a"]
        .iter()
        .fold(Request::get("/"), |request, value| {
            request.header("X-U", value)
        });
    for (options, key) in [
        ("values: joined", "b, a"),
        ("values: joined, empty: value", "b, , a"),
        ("values: sorted", "a\u{1e}b"),
        ("values: sorted, empty: value", "\u{1e}a\u{1e}b"),
    ] {
        let keyed = KeySourceEdge::by(&format!("{{header: {{name: x-u, {options}}}}}"));
        keyed.assert_key(&request, key);
    }
}

#[test]
fn key_that_is_empty_is_a_key_except_in_dialect_nginx() {
    for (ring, missing) in [("ketama", 0), ("nginx", 6)] {
        let site = ConfigBuilder::of([""]).app("key", "{query: {name: u, empty: value}}");
        let keyed = KeySourceEdge::at(&site.app("ring", ring));
        let origin = || keyed.edge.echo(&Request::get("/?u=&u=abc"))["origin"].clone();
        let origins: Vec<_> = (0..6).map(|_| origin()).collect();
        let first = &origins[0];
        assert_eq!(
            origins.iter().all(|origin| origin == first),
            missing == 0,
            "{ring}"
        );
        let metric = "clockwise_upstream_missing_key_total";
        assert_eq!(keyed.edge.admin.metric(metric, &[]), missing, "{ring}");
    }
}

#[test]
fn key_source_path_segment_and_path_and_query() {
    let keyed = KeySourceEdge::by("path");
    keyed.assert_key(&Request::get("/a/b?c=d"), "/a/b");
    let keyed = KeySourceEdge::by("path_and_query");
    keyed.assert_key(&Request::get("/a/b?c=d"), "/a/b?c=d");
    let keyed = KeySourceEdge::by("{path_segment: 2}");
    keyed.assert_key(&Request::get("/a/bee/c?d=e"), "bee");
}

#[test]
fn key_source_host_ignores_case_and_port() {
    let keyed = KeySourceEdge::by("host");
    for host in ["example.com", "EXAMPLE.com", "example.com:8080"] {
        keyed.assert_key(&Request::get("/").header("Host", host), "example.com");
    }
}

#[test]
fn key_source_defaults_to_the_client_address() {
    let keyed = KeySourceEdge::by("client_ip");
    keyed.assert_key(&Request::get("/?k=1"), "127.0.0.1");
    let keyed = KeySourceEdge::by("{client_ip: {v4: 8, v6: 64}}");
    keyed.assert_key(&Request::get("/?k=1"), "127.0.0.0/8");
}

#[test]
fn key_sources_can_be_joined_or_chained() {
    let keyed = KeySourceEdge::by("{all: [host, {header: x-user}]}");
    let request = Request::get("/")
        .header("Host", "h.com")
        .header("X-User", "kim");
    keyed.assert_key(&request, "h.com|kim");
    let keyed = KeySourceEdge::by("[{header: x-user}, {cookie: sid}, path]");
    let (user, cookie) = (
        Request::get("/p").header("X-User", "kim"),
        Request::get("/p").header("Cookie", "sid=7"),
    );
    keyed.assert_key(&user.header("Cookie", "sid=7"), "kim");
    keyed.assert_key(&cookie, "7");
    keyed.assert_key(&Request::get("/p"), "/p");
}

#[test]
fn key_client_ip_uses_x_forwarded_for_only_from_trusted_proxies() {
    let request = Request::get("/").header("X-Forwarded-For", "9.9.9.9, 203.0.113.7, 10.1.1.1");
    let site = ConfigBuilder::of([""]).app("key", "client_ip");
    KeySourceEdge::at(&site).assert_key(&request, "127.0.0.1");
    let trusting = site.top("trusted_proxies", "[\"127.0.0.0/8\", \"10.0.0.0/8\"]");
    KeySourceEdge::at(&trusting).assert_key(&request, "203.0.113.7");
}

#[test]
fn keyless_requests_are_distributed_evenly() {
    let origins = Origin::some(3);
    let edge = ConfigBuilder::of(origins.iter().map(Origin::label))
        .app("key", "{header: x-user}")
        .start();
    for _ in 0..30 {
        edge.echo(&Request::get("/"));
    }
    assert_eq!(
        origins.iter().map(Origin::requests).collect::<Vec<_>>(),
        [10, 10, 10]
    );
    edge.admin.wait_for_metric(
        "clockwise_upstream_missing_key_total",
        &["upstream=\"app\""],
        30,
    );
}

#[test]
fn keyless_requests_are_rejected_if_configured() {
    let origins = Origin::some(1);
    let site = ConfigBuilder::of(origins.iter().map(Origin::label)).app("key", "{header: x-user}");
    let edge = site.app("missing_key", "reject").start();
    assert_eq!(edge.get("/").status, 400);
    assert_eq!(
        edge.send(&Request::get("/").header("X-User", "")).status,
        400,
        "empty is missing"
    );
    assert_eq!(
        edge.send(&Request::get("/").header("X-User", "kim")).status,
        200
    );
    assert_eq!(origins[0].requests(), 1);
    edge.admin.wait_for_metric(
        "clockwise_upstream_missing_key_total",
        &["upstream=\"app\""],
        2,
    );
}
