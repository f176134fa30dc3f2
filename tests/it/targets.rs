//! The target of a request: the characters and lengths that pass, and what a request without a host gets.

use crate::forwarding::values;
use crate::http2::H2C;
use crate::support::client::{Connection, Request};
use crate::support::edge::{ConfigBuilder, Edge};
use crate::support::http2::{self, Client, code};
use crate::support::http2_origin;
use crate::support::origin::Origin;

/// An instance in front of an origin that describes each request.
struct Scene {
    edge: Edge,
    origin: Origin,
}

impl Scene {
    /// `carrier`: of the requests of HTTP/1.
    fn start(carrier: &str, change: impl FnOnce(ConfigBuilder) -> ConfigBuilder) -> Self {
        let origin = Origin::start();
        let site = ConfigBuilder::of([origin.label()]).app("key", "path_and_query");
        let site = change(
            site.top("listeners", H2C)
                .top("access_log", "{path: access.log}"),
        );
        Self {
            edge: Edge::start_with_carrier(carrier, &site.yaml()),
            origin,
        }
    }

    /// The response to a request of HTTP/1, on a connection of its own.
    fn ask(&self, request: impl AsRef<[u8]>) -> std::io::Result<crate::support::client::Response> {
        let mut client: Connection = self.edge.connect();
        client.send(request)?;
        client.response()
    }
}

const CARRIERS: [&str; 2] = ["engine", "pingora"];

/// Characters that RFC 3986 does not allow, and that the type of targets of HTTP/2 can hold.
const FOREIGN: [&str; 4] = ["/a\"b{|}^\\c", "/é", "/?q={|}^`\\", "/%zz%"];
/// Characters that it cannot hold.
const FOREIGN_TO_HTTP2: [&str; 2] = ["/a<b>`c", "/?q=\"<>"];

#[test]
fn target_with_characters_outside_the_rfc_reaches_the_peer_as_sent() {
    for carrier in CARRIERS {
        let scene = Scene::start(carrier, |site| site);
        for target in FOREIGN {
            let echo = scene.edge.echo(&Request::get(target));
            assert_eq!(echo["target"], target, "{carrier}");
            let answer = Client::open(scene.edge.address).get(target);
            assert_eq!(answer.json()["target"], target, "HTTP/2");
        }
    }
}

#[test]
fn target_with_any_visible_character_reaches_the_peer_from_http1_only() {
    for carrier in CARRIERS {
        let scene = Scene::start(carrier, |site| site);
        for target in FOREIGN_TO_HTTP2 {
            let echo = scene.edge.echo(&Request::get(target));
            assert_eq!(echo["target"], target, "{carrier}");
            let answer = Client::open(scene.edge.address).get(target);
            assert_eq!(answer.reset, Some(code::PROTOCOL_ERROR), "{target}");
        }
        let path = |target: &str| target.split('?').next().unwrap().to_owned();
        let logged: Vec<_> = scene
            .edge
            .log_lines(2)
            .iter()
            .map(|line| line["path"].clone())
            .collect();
        assert_eq!(logged, FOREIGN_TO_HTTP2.map(path), "{carrier}");
    }
}

/// `http::Uri` cannot hold the target, and `h2` and Pingora's tunnels take it from there: it must not become another one.
#[test]
fn target_that_the_way_to_the_peer_cannot_have_is_400() {
    let peer = http2_origin::Origin::start(&[]);
    let site = ConfigBuilder::of([peer.label()]).app("protocol", "h2c");
    for carrier in CARRIERS {
        let edge = Edge::start_with_carrier(carrier, &site.yaml());
        for target in FOREIGN_TO_HTTP2 {
            assert_eq!(edge.get(target).text(), "400 bad_request\n", "{carrier}");
        }
    }
    assert_eq!(peer.requests(), 0);
    let scene = Scene::start("pingora", |site| site);
    for target in FOREIGN_TO_HTTP2 {
        let answer = scene.edge.send(&Request::socket(target));
        assert_eq!(answer.text(), "400 bad_request\n");
    }
    assert_eq!(scene.origin.requests(), 0);
}

#[test]
fn target_longer_than_64_kib_follows_max_uri_length() {
    let limits = "{max_uri_length: 100KiB, max_header_size: 256KiB}";
    for carrier in CARRIERS {
        let scene = Scene::start(carrier, |site| site.downstream(limits));
        for (length, status) in [(100 << 10, 200), ((100 << 10) + 1, 414)] {
            let target = format!("/{}", "x".repeat(length - 1));
            let mut client = scene.edge.connect();
            let answer = client.get(&target).unwrap();
            assert_eq!(answer.status, status, "{carrier}, {length}");
            assert_eq!(client.get("/").unwrap().status, 200, "the connection stays");
        }
        assert_eq!(scene.origin.requests(), 3, "{carrier}");
        scene.edge.log_line(|line| line["fault"] == "uri_too_long");
    }
}

#[test]
fn target_that_is_none_is_400_and_reaches_no_peer() {
    for carrier in CARRIERS {
        let scene = Scene::start(carrier, |site| site);
        for target in [
            "admin", "./admin", "?/admin", " /admin", "/a b", "/a\tb", "/a\rb", "/a\0b", "/a\x7fb",
            "/a#b", "/a?b#c", "#", "ftp://h/", "ws://h/", "*",
        ] {
            let request = format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n");
            let answer = scene.ask(&request).unwrap();
            assert_eq!(answer.status, 400, "{carrier}: {target:?}");
        }
        assert_eq!(scene.origin.requests(), 0, "{carrier}");
    }
    let scene = Scene::start("engine", |site| site);
    let mut client = Client::open(scene.edge.address);
    for target in [
        "admin", "./admin", "?/admin", "/a b", "/a\tb", "/a\rb", "/a\0b", "/a\x7fb", "*",
    ] {
        let answer = client.get(target);
        let refused = answer.statuses == [400] || answer.reset == Some(code::PROTOCOL_ERROR);
        assert!(refused, "{target:?}: {answer:?}");
    }
    for scheme in ["ftp", "ws"] {
        let mut fields = http2::get("/");
        fields[1] = (":scheme", scheme);
        assert_eq!(client.ask(&fields).statuses, [400], "{scheme}");
    }
    assert_eq!(scene.origin.requests(), 0);
}

#[test]
fn request_without_a_host_reaches_the_peer_with_its_address() {
    for carrier in CARRIERS {
        let scene = Scene::start(carrier, |site| site);
        for (version, fields, host) in [
            ("1.0", "", None),
            ("1.0", "Host:\r\n", None),
            ("1.1", "Host:\r\n", None),
            ("1.0", "Host: a.test\r\n", Some("a.test")),
        ] {
            let request = format!("GET / HTTP/{version}\r\n{fields}\r\n");
            let echo = scene.ask(&request).unwrap().json();
            let label = scene.origin.label();
            let expected = host.unwrap_or(&label);
            assert_eq!(values(&echo, "host"), [expected], "{carrier}: {request:?}");
            let forwarded: Vec<_> = host.into_iter().collect();
            assert_eq!(values(&echo, "x-forwarded-host"), forwarded, "{carrier}");
        }
    }
}

/// A route for all paths, and one that no client of these tests may reach.
const GUARDED: &str = "[{upstream: app}, {path: /admin, upstream: app, client_cert: required}]";

/// Targets of `/admin` for some servers, and the response to them.
const ADMIN: [(&str, u16); 16] = [
    ("/admin", 403),
    ("/admin/x?y", 403),
    ("/n/../admin", 403),
    ("/n/%2e%2E/admin", 403),
    ("/n/.%2e/admin/", 403),
    ("/%61dmin", 403),
    ("//admin", 403),
    ("/./admin", 403),
    ("/../admin", 403),
    ("/n/..//admin", 403),
    ("/n/..%2fadmin", 400),
    ("/n/..%5Cadmin", 400),
    ("/n\\..\\admin", 400),
    ("/%2fadmin", 400),
    ("/admin%2Fx", 400),
    ("/admin//../n", 400),
];

#[test]
fn guard_of_a_route_holds_for_every_spelling_of_its_path() {
    for carrier in CARRIERS {
        let scene = Scene::start(carrier, |site| site.top("routes", GUARDED));
        for (target, status) in ADMIN {
            let answer = scene.edge.get(target);
            assert_eq!(answer.status, status, "{carrier}: {target}");
            let answer = Client::open(scene.edge.address).get(target);
            assert_eq!(answer.statuses, [status], "HTTP/2: {target}");
        }
        assert_eq!(scene.origin.requests(), 0, "{carrier}");
        for target in ["/n/../b", "/admin/../b", "/a%2Fb", "/adminx", "/ADMIN"] {
            let echo = scene.edge.echo(&Request::get(target));
            assert_eq!(echo["target"], target, "{carrier}");
        }
        let label = "reason=\"path\"";
        let counted = 2 * ADMIN.iter().filter(|(_, status)| *status == 400).count();
        scene.edge.admin.wait_for_metric(
            "clockwise_listener_bad_requests_total",
            &[label],
            counted as u64,
        );
    }
}

#[test]
fn normalize_path_decides_what_the_peer_gets() {
    let sent = "/n/../a//%62?q=/../%61";
    for carrier in CARRIERS {
        for (rule, expected) in [
            ("match", Some(sent)),
            ("rewrite", Some("/a/b?q=/../%61")),
            ("reject", None),
            ("off", Some(sent)),
        ] {
            let scene = Scene::start(carrier, |site| site.top("normalize_path", rule));
            let answer = scene.edge.get(sent);
            let over_http2 = Client::open(scene.edge.address).get(sent);
            if let Some(target) = expected {
                assert_eq!(answer.json()["target"], target, "{carrier}, {rule}");
                assert_eq!(over_http2.json()["target"], target, "HTTP/2, {rule}");
            } else {
                assert_eq!(answer.text(), "400 ambiguous_path\n", "{carrier}");
                assert_eq!(over_http2.statuses, [400]);
            }
        }
        let scene = Scene::start(carrier, |site| site.top("normalize_path", "rewrite"));
        for (sent, target) in [("/n/../a<b>", "/a<b>"), ("/a<b>/..", "/")] {
            let echo = scene.edge.echo(&Request::get(sent));
            assert_eq!(echo["target"], target, "{carrier}");
        }
    }
}

#[test]
fn normalize_path_off_leaves_routes_as_they_were() {
    let change = |site: ConfigBuilder| site.top("routes", GUARDED).top("normalize_path", "off");
    let scene = Scene::start("engine", change);
    assert_eq!(scene.edge.get("/admin").status, 403);
    for target in ["/n/../admin", "/%61dmin", "/n/..%2fadmin"] {
        assert_eq!(scene.edge.echo(&Request::get(target))["target"], target);
    }
}

#[test]
fn key_of_a_path_is_as_the_peer_gets_it_unless_it_is_normalized() {
    for (key, rule, is_equal) in [
        ("path", "match", false),
        ("path", "rewrite", true),
        ("{path: normalized}", "match", true),
        ("{path: normalized}", "off", true),
    ] {
        let scene = Scene::start("engine", |site| {
            site.app("key", key).top("normalize_path", rule)
        });
        for target in ["/a/b", "/a/./%62"] {
            scene.edge.echo(&Request::get(target));
        }
        let lines = scene.edge.log_lines(2);
        let hashes: Vec<_> = lines.iter().map(|line| &line["key_hash"]).collect();
        assert_eq!(hashes[0] == hashes[1], is_equal, "{key}, {rule}");
    }
}
