//! The sticky cookie: a client without a key gets one, and stays with its peer.

use std::collections::HashSet;

use crate::http2::H2C;
use crate::support::client::{Request, Response};
use crate::support::edge::{ConfigBuilder, Edge};
use crate::support::http2::{Client, flag, get};
use crate::support::origin::{Behaviour, Origin};
use crate::support::wait;

const MADE: &str = "clockwise_upstream_cookies_made_total";

#[test]
fn sticky_cookie_is_set_once_and_keeps_the_client_on_its_peer() {
    let origins = Origin::some(5);
    let edge = site(&origins, "").start();
    for made in 1..=20 {
        let first = edge.get("/");
        let line = cookie(&first);
        let value = value(&first);
        assert_eq!(line, format!("cw={value}; Path=/; HttpOnly; SameSite=Lax"));
        assert_eq!(first.header("cache-control"), Some("private"));
        for _ in 0..3 {
            let again = edge.send(&with(&value));
            assert_eq!(again.json()["origin"], first.json()["origin"]);
            assert_eq!(again.header("set-cookie"), None);
            assert_eq!(again.header("cache-control"), None);
        }
        edge.admin
            .wait_for_metric(MADE, &["upstream=\"app\""], made);
    }
    let response = edge.get("/");
    let predicted = edge.predict(&[value(&response)], 1);
    assert_eq!(predicted, [[origin(&response)]]);
    assert_eq!(
        edge.admin
            .metric("clockwise_upstream_missing_key_total", &[]),
        0
    );
}

#[test]
fn sticky_clients_stay_when_a_peer_is_added_except_its_keys() {
    let origins = Origin::some(4);
    let site = site(&origins[..3], "");
    let edge = site.start();
    let before: Vec<(String, String)> = (0..1000)
        .map(|_| edge.get("/"))
        .map(|response| (value(&response), origin(&response)))
        .collect();
    let different: HashSet<_> = before.iter().map(|(value, _)| value).collect();
    assert_eq!(different.len(), before.len());
    edge.rewrite(&site.peers(origins.iter().map(Origin::label)).yaml());
    assert!(edge.command(&["reload"]).status.success());
    let mut moved = 0;
    for (value, owner) in &before {
        let now = edge.send(&with(value));
        assert_eq!(now.header("set-cookie"), None);
        if origin(&now) != *owner {
            assert_eq!(origin(&now), origins[3].label());
            moved += 1;
        }
    }
    assert!((150..400).contains(&moved), "{moved} of 1000 moved");
    assert_eq!(edge.admin.metric(MADE, &[]), 1000);
}

#[test]
fn sticky_cookie_with_an_invalid_value_is_replaced() {
    let origins = Origin::some(2);
    let edge = site(&origins, "").start();
    let long = "x".repeat(4097);
    for sent in [
        "cw=",
        "cw=a b",
        "cw=a,b",
        "CW=a",
        "a=cw",
        &format!("cw={long}"),
    ] {
        let response = edge.send(&Request::get("/").header("Cookie", sent));
        assert_eq!(value(&response).len(), 22, "{sent}");
    }
    for sent in [
        "cw=a",
        "cw=; cw=a",
        "a=b; cw=\"a\"",
        &format!("cw={}", &long[1..]),
    ] {
        let response = edge.send(&Request::get("/").header("Cookie", sent));
        assert_eq!(response.header("set-cookie"), None, "{sent}");
    }
}

#[test]
fn sticky_cookie_is_not_set_when_an_earlier_source_matches() {
    let origins = Origin::some(2);
    let key = "[{query: k}, {cookie: {name: cw, generate: true}}]";
    let edge = site(&origins, "").app("key", key).start();
    assert_eq!(edge.get("/?k=1").header("set-cookie"), None);
    assert_eq!(value(&edge.get("/")).len(), 22);
}

#[test]
fn sticky_cookie_attributes_follow_the_configuration() {
    let origins = Origin::some(1);
    let attributes =
        ", ttl: 90m, same_site: none, http_only: false, path: /app, domain: example.com";
    let site = site(&origins, attributes).top("trusted_proxies", "[127.0.0.0/8]");
    let edge = site.start();
    let plain = edge.get("/");
    let told = |proto: &str| edge.send(&Request::get("/").header("X-Forwarded-Proto", proto));
    let expected = |response: &Response, tail: &str| {
        let value = value(response);
        format!("cw={value}; Path=/app; Domain=example.com; Max-Age=5400{tail}")
    };
    assert_eq!(cookie(&plain), expected(&plain, ""));
    let secure = told("https");
    assert_eq!(
        cookie(&secure),
        expected(&secure, "; Secure; SameSite=None")
    );
    let insecure = told("http");
    assert_eq!(cookie(&insecure), expected(&insecure, ""));
}

#[test]
fn sticky_cookie_secure_needs_tls_or_a_trusted_proxy() {
    let origins = Origin::some(1);
    let edge = site(&origins, "").start();
    let response = edge.send(&Request::get("/").header("X-Forwarded-Proto", "https"));
    assert!(!cookie(&response).contains("Secure"));
}

#[test]
fn sticky_cookie_refresh_sets_it_on_every_response() {
    let origins = Origin::some(2);
    let edge = site(&origins, ", ttl: 1h, refresh: true").start();
    let line = cookie(&edge.send(&with("mine")));
    assert_eq!(
        line,
        "cw=mine; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax"
    );
    assert_eq!(edge.admin.metric(MADE, &[]), 0);
}

#[test]
fn sticky_cookie_is_set_for_http10_clients() {
    let origins = Origin::some(2);
    let edge = site(&origins, "").start();
    let mut connection = edge.connect();
    connection.send("GET / HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!(value(&connection.response().unwrap()).len(), 22);
}

#[test]
fn sticky_cookie_of_the_peer_takes_precedence() {
    let origin = Origin::start();
    let edge = site([&origin], "").start();
    origin.behave(raw("Set-Cookie: a=1\r\nSet-Cookie: cw=peers; Path=/x"));
    let response = edge.get("/");
    let lines: Vec<_> = set_cookies(&response).collect();
    assert_eq!(lines, ["a=1", "cw=peers; Path=/x"]);
    assert_eq!(response.header("cache-control"), None);
    origin.behave(raw("Set-Cookie: cw2=peers"));
    assert_eq!(set_cookies(&edge.get("/")).count(), 2);
}

#[test]
fn sticky_cookie_response_is_cache_control_private() {
    let origin = Origin::start();
    let edge = site([&origin], "").start();
    for (sent, kept) in [
        ("public, max-age=60", "max-age=60, private"),
        (
            "private=\"x-a\", max-age=60",
            "private=\"x-a\", max-age=60, private",
        ),
        ("max-age=60, Private", "max-age=60, Private"),
        ("no-store", "no-store"),
    ] {
        origin.behave(raw(&format!("Cache-Control: {sent}")));
        let response = edge.get("/");
        let lines: Vec<_> = all(&response, "cache-control").collect();
        assert_eq!(lines.join(", "), kept);
    }
}

#[test]
fn sticky_cookie_is_not_set_on_local_replies() {
    let mut origin = Origin::start();
    let edge = site([&origin], "").start();
    origin.down();
    let response = edge.get("/");
    assert_eq!(
        (response.status, response.header("set-cookie")),
        (502, None)
    );
}

/// The number of different origins of parallel requests without a cookie, all on one HTTP/2 connection.
fn origins_of_parallel_requests(edge: &Edge, origins: &[Origin]) -> usize {
    for origin in origins {
        origin.behave(Behaviour::Hold);
    }
    let asked = || origins.iter().map(Origin::requests).sum::<usize>();
    let before = asked();
    let mut client = Client::open(edge.address);
    let streams: Vec<_> = (0..6)
        .map(|_| client.begin(flag::END_STREAM, &get("/")))
        .collect();
    wait::until("all to be asked", || asked() == before + streams.len());
    for origin in origins {
        origin.behave(Behaviour::Echo);
    }
    let answers = streams
        .into_iter()
        .map(|stream| client.answer(stream).json());
    let labels: HashSet<_> = answers.map(|answer| answer["origin"].to_string()).collect();
    labels.len()
}

#[test]
fn sticky_cookie_of_parallel_first_requests_is_one_per_http2_connection() {
    let origins = Origin::some(5);
    let site = site(&origins, "").top("listeners", H2C);
    let edge = site.start();
    for connection in 1..=2 {
        assert_eq!(origins_of_parallel_requests(&edge, &origins), 1);
        assert_eq!(edge.admin.metric(MADE, &[]), connection);
    }
    // A trusted proxy sends the requests of many clients.
    let edge = site.top("trusted_proxies", "[127.0.0.0/8]").start();
    origins_of_parallel_requests(&edge, &origins);
    assert_eq!(edge.admin.metric(MADE, &[]), 6);
}

#[test]
fn sticky_cookie_is_set_on_a_websocket_handshake() {
    let origin = Origin::behaving(Behaviour::Upgrade);
    let edge = site([&origin], "").start();
    let mut connection = edge.connect();
    let upgrade = "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    connection.send(upgrade).unwrap();
    let response = connection.head().unwrap();
    assert_eq!(response.status, 101);
    assert_eq!(value(&response).len(), 22);
}

/// The cookie `cw` is the key, with these attributes.
fn site<'a>(origins: impl IntoIterator<Item = &'a Origin>, attributes: &str) -> ConfigBuilder {
    let key = format!("{{cookie: {{name: cw, generate: true{attributes}}}}}");
    ConfigBuilder::of(origins.into_iter().map(Origin::label)).app("key", &key)
}

fn with(value: &str) -> Request {
    Request::get("/").header("Cookie", &format!("a=b; cw={value}"))
}

fn raw(header: &str) -> Behaviour {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{header}\r\n\r\n");
    Behaviour::Raw(head.into_bytes())
}

fn origin(response: &Response) -> String {
    response.json()["origin"].as_str().unwrap().to_owned()
}

#[track_caller]
fn cookie(response: &Response) -> String {
    let lines: Vec<_> = set_cookies(response).collect();
    assert_eq!(lines.len(), 1, "{response:?}");
    lines[0].to_owned()
}

#[track_caller]
fn value(response: &Response) -> String {
    let line = cookie(response);
    let pair = line.split(';').next().unwrap();
    pair.strip_prefix("cw=").unwrap().to_owned()
}

fn set_cookies(response: &Response) -> impl Iterator<Item = &str> {
    all(response, "set-cookie")
}

fn all<'a>(response: &'a Response, name: &str) -> impl Iterator<Item = &'a str> {
    let named = move |(known, _): &&(String, String)| known.eq_ignore_ascii_case(name);
    response
        .headers
        .iter()
        .filter(named)
        .map(|(_, value)| value.as_str())
}
