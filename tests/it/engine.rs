//! HTTP/1 without Pingora (always on here, also in a run with `CLOCKWISE_HTTP1=pingora`): how it differs from HTTP/1 with Pingora, and that a connection
//! passes from one to the other. All other tests of HTTP/1 hold for both ways.

use super::support::client::Connection;
use super::support::edge::{ConfigBuilder, Edge};
use super::support::raw_peer::{RawPeer, SWITCH, UPGRADE};

struct EngineWithRawPeer {
    edge: Edge,
    peer: RawPeer,
}

impl EngineWithRawPeer {
    fn start() -> Self {
        Self::with("client_ip", "round_robin")
    }

    fn with(key: &str, missing_key: &str) -> Self {
        Self::configured(|site| site.app("key", key).app("missing_key", missing_key))
    }

    fn configured(change: impl FnOnce(ConfigBuilder) -> ConfigBuilder) -> Self {
        let peer = RawPeer::start();
        let site = change(ConfigBuilder::of([peer.address]));
        Self {
            edge: Edge::start_with_engine(&site.yaml()),
            peer,
        }
    }

    /// Sends a request; the connections of client and peer, and the request line that the peer got.
    fn ask(&self, request: &str) -> (Connection, Connection, String) {
        let mut client = self.edge.connect();
        client.send(request).unwrap();
        let mut peer = self.peer.accept();
        let (line, _) = peer.read_request().unwrap();
        (client, peer, line)
    }

    /// The status that a client gets for a request that no peer sees.
    fn refused(&self, request: &str) -> u16 {
        let mut client = self.edge.connect();
        client.send(request).unwrap();
        client.response().unwrap().status
    }

    /// The dates that a client gets with a response that has these fields.
    fn dates(&self, fields: &str) -> usize {
        let get = "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
        let (mut client, mut peer, _) = self.ask(get);
        peer.send(format!(
            "HTTP/1.1 200 OK\r\n{fields}Content-Length: 0\r\n\r\n"
        ))
        .unwrap();
        let head = client.head().unwrap();
        let names = head.headers.iter().map(|(name, _)| name);
        names
            .filter(|name| name.eq_ignore_ascii_case("date"))
            .count()
    }
}

#[test]
fn engine_sends_an_absolute_target_in_origin_form() {
    let scene = EngineWithRawPeer::start();
    let (_, _, line) = scene.ask("GET http://a.test/x?y HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(line, "GET /x?y HTTP/1.1");
}

#[test]
fn engine_refuses_what_it_cannot_frame() {
    let scene = EngineWithRawPeer::start();
    let post = |fields: &str| format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
    for (fields, status) in [
        ("Transfer-Encoding: gzip, chunked\r\n", 501),
        ("Transfer-Encoding: chunked\r\nContent-Length: 1\r\n", 400),
        ("Content-Length: 1\r\nContent-Length: 2\r\n", 400),
        ("X : 1\r\n", 400),
    ] {
        assert_eq!(scene.refused(&post(fields)), status, "{fields}");
    }
    assert_eq!(scene.refused("GET / HTTP/2.0\r\nHost: h\r\n\r\n"), 505);
}

#[test]
fn engine_dates_a_response_without_a_date() {
    let scene = EngineWithRawPeer::start();
    assert_eq!(scene.dates(""), 1);
    assert_eq!(scene.dates("Date: Mon, 01 Jan 2024 00:00:00 GMT\r\n"), 1);
}

#[test]
fn engine_announces_that_it_closes_after_a_response_before_the_request_is_complete() {
    let scene = EngineWithRawPeer::start();
    let post = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhe";
    let (mut client, mut peer, _) = scene.ask(post);
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        .unwrap();
    assert!(client.response().unwrap().closes());
}

#[test]
fn engine_counts_what_it_sends_again_towards_the_limit_on_a_body() {
    let limited = "[{upstream: app, max_body_size: 10}]";
    let scene = EngineWithRawPeer::configured(|site| site.top("routes", limited));
    let (mut client, mut peer, _) = scene.ask("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        .unwrap();
    client.response().unwrap();
    client
        .send("PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nabcdef\r\n")
        .unwrap();
    peer.read_request().unwrap();
    assert_eq!(peer.chunk().unwrap(), b"abcdef");
    drop(peer);
    let mut peer = scene.peer.accept();
    peer.read_request().unwrap();
    client.send("6\r\nabcdef\r\n0\r\n\r\n").unwrap();
    assert_eq!(client.response().unwrap().status, 413);
}

#[test]
fn engine_sends_nothing_of_its_own_response_to_the_peer_of_the_next_request() {
    let scene = EngineWithRawPeer::with("{header: x-user}", "reject");
    let mut client = scene.edge.connect();
    client.send("GET /1 HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    assert_eq!(client.response().unwrap().status, 400);
    client
        .send("GET /2 HTTP/1.1\r\nHost: h\r\nX-User: u\r\n\r\n")
        .unwrap();
    let (line, _) = scene.peer.accept().read_request().unwrap();
    assert_eq!(line, "GET /2 HTTP/1.1");
}

/// Answers with 200 and `ok`.
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn engine_leaves_a_grpc_call_on_its_connection_to_pingora() {
    let scene = EngineWithRawPeer::start();
    let (mut client, mut peer, _) = scene.ask("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    peer.send(OK).unwrap();
    assert_eq!(client.response().unwrap().status, 200);
    client
        .send("POST / HTTP/1.1\r\nHost: h\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n")
        .unwrap();
    let mut peer = scene.peer.accept();
    peer.read_request().unwrap();
    peer.send(OK).unwrap();
    assert_eq!(client.response().unwrap().status, 200);
}

#[test]
fn engine_serves_a_websocket_after_other_requests_of_its_connection() {
    let scene = EngineWithRawPeer::start();
    let (mut client, mut peer, _) = scene.ask("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    peer.send(OK).unwrap();
    assert_eq!(client.response().unwrap().status, 200);
    client.send(UPGRADE).unwrap();
    let mut peer = scene.peer.accept();
    peer.read_request().unwrap();
    peer.send(SWITCH).unwrap();
    let head = client.head().unwrap();
    assert_eq!(
        (head.status, head.header("upgrade")),
        (101, Some("websocket"))
    );
    client.send("ping").unwrap();
    assert_eq!(peer.exactly(4).unwrap(), b"ping");
    peer.send("pong").unwrap();
    assert_eq!(client.exactly(4).unwrap(), b"pong");
}

#[test]
fn engine_keeps_the_connection_of_a_request_without_a_route() {
    let peer = RawPeer::start();
    let site = ConfigBuilder::of([peer.address])
        .app("key", "client_ip")
        .top("routes", "[{path: /app, upstream: app}]");
    let edge = Edge::start_with_engine(&site.yaml());
    let mut client = edge.connect();
    client.send("GET /x HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    let missed = client.response().unwrap();
    assert_eq!(missed.status, 404);
    assert_eq!(missed.text(), "404 no_route\n");
    // Only the engine sends the target in origin-form.
    client
        .send("GET http://h/app HTTP/1.1\r\nHost: h\r\n\r\n")
        .unwrap();
    let mut peer = peer.accept();
    assert_eq!(peer.read_request().unwrap().0, "GET /app HTTP/1.1");
    peer.send(OK).unwrap();
    assert_eq!(client.response().unwrap().status, 200);
    let missed = edge.admin.metric("clockwise_no_route_requests_total", &[]);
    assert_eq!(missed, 1);
}

/// Trailers, of which one may not be there.
const TRAILERS: &str = "0\r\nX-Sum: 1\r\nHost: evil.test\r\n\r\n";
const PASSED_TRAILERS: &str = "0\r\nX-Sum: 1\r\n\r\n";

#[test]
fn engine_sends_trailers_of_the_client_to_the_peer() {
    let scene = EngineWithRawPeer::start();
    let (mut client, mut peer, _) = scene.ask(&format!(
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n{TRAILERS}"
    ));
    let body = format!("2\r\nhi\r\n{PASSED_TRAILERS}");
    let received = peer.exactly(body.len()).unwrap();
    assert_eq!(String::from_utf8(received).unwrap(), body);
    peer.send(OK).unwrap();
    assert_eq!(client.response().unwrap().status, 200);
}

#[test]
fn engine_sends_trailers_of_the_peer_only_to_a_client_that_accepts_them() {
    let scene = EngineWithRawPeer::start();
    for (accepts, end) in [(true, PASSED_TRAILERS), (false, "0\r\n\r\n")] {
        let fields = if accepts {
            "Connection: TE\r\nTE: gzip;q=0.5, trailers\r\n"
        } else {
            ""
        };
        let mut client = scene.edge.connect();
        client
            .send(format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n"))
            .unwrap();
        let mut peer = scene.peer.accept();
        let (_, fields) = peer.read_request().unwrap();
        let te = fields
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case("te"));
        let expected = accepts.then_some("trailers");
        assert_eq!(te.map(|(_, value)| value.as_str()), expected);
        peer.send(format!(
            "HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n{TRAILERS}"
        ))
        .unwrap();
        client.head().unwrap();
        let body = format!("2\r\nhi\r\n{end}");
        let received = client.exactly(body.len()).unwrap();
        assert_eq!(String::from_utf8(received).unwrap(), body);
    }
}
