//! Clients of HTTP/1: the same rules for each carrier of a request, and connections that pass from one to the other.

use super::support::client::Connection;
use super::support::edge::{ConfigBuilder, Edge};
use super::support::raw_peer::{RawPeer, SWITCH, UPGRADE};

/// An instance in front of a raw peer.
struct Scene {
    /// The carrier of plain HTTP/1.
    carrier: &'static str,
    edge: Edge,
    peer: RawPeer,
}

impl Scene {
    /// One for each carrier.
    fn all() -> [Self; 2] {
        Self::all_with(|site| site)
    }

    fn all_with(change: impl Fn(ConfigBuilder) -> ConfigBuilder) -> [Self; 2] {
        ["engine", "pingora"].map(|carrier| Self::with(carrier, &change))
    }

    fn engine() -> Self {
        Self::with("engine", |site| site)
    }

    fn with(carrier: &'static str, change: impl Fn(ConfigBuilder) -> ConfigBuilder) -> Self {
        let peer = RawPeer::start();
        let site = ConfigBuilder::of([peer.address]).app("key", "client_ip");
        let site = change(site.top("access_log", "{path: access.log}"));
        Self {
            carrier,
            edge: Edge::start_with_carrier(carrier, &site.yaml()),
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

    /// Sends a request that no peer sees, and checks its status and page.
    #[track_caller]
    fn assert_refused(&self, request: &str, status: u16) {
        let mut client = self.edge.connect();
        client.send(request).unwrap();
        let response = client.response().unwrap();
        let case = format!("{}: {request:?}", self.carrier);
        assert_eq!(response.status, status, "{case}");
        let page = response.text();
        assert!(page.starts_with(&format!("{status} ")), "{case}: {page}");
    }

    /// Sends a request on a connection that may have carried others, and answers it as the peer.
    fn pass(&self, client: &mut Connection, request: &str) -> (String, Vec<(String, String)>) {
        client.send(request).unwrap();
        let mut peer = self.peer.accept();
        let received = peer.read_request().unwrap();
        peer.send(OK_AND_CLOSE).unwrap();
        assert_eq!(client.response().unwrap().status, 200, "{}", self.carrier);
        received
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

fn value<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let mut fields = fields.iter();
    let field = fields.find(|(it, _)| it.eq_ignore_ascii_case(name));
    field.map(|(_, value)| value.as_str())
}

#[test]
fn http1_absolute_target_is_sent_in_origin_form_with_its_host() {
    for scene in Scene::all() {
        for (line, host, expected) in [
            ("GET http://a.test/x?y", "a.test", ("GET /x?y", "a.test")),
            ("GET http://a.test:80/x", "a.test", ("GET /x", "a.test:80")),
            ("GET HTTP://A.test/x", "a.test", ("GET /x", "A.test")),
            ("GET http://a.test/x", "b.test", ("GET /x", "a.test")),
            ("OPTIONS http://a.test", "a.test", ("OPTIONS *", "a.test")),
        ] {
            let mut client = scene.edge.connect();
            let request = format!("{line} HTTP/1.1\r\nHost: {host}\r\n\r\n");
            let (sent, fields) = scene.pass(&mut client, &request);
            let case = format!("{}: {line}", scene.carrier);
            assert_eq!(sent, format!("{} HTTP/1.1", expected.0), "{case}");
            assert_eq!(value(&fields, "host"), Some(expected.1), "{case}");
        }
        let hosts = scene
            .edge
            .log_lines(5)
            .into_iter()
            .map(|line| line["host"].clone());
        let expected = ["a.test", "a.test:80", "A.test", "a.test", "a.test"];
        assert_eq!(hosts.collect::<Vec<_>>(), expected, "{}", scene.carrier);
        scene.assert_refused("GET ftp://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n", 400);
    }
}

#[test]
fn http1_request_that_cannot_be_framed_is_refused_with_a_page_and_logged() {
    let post = |fields: &str| format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
    let many = "X: 1\r\n".repeat(1000);
    let requests = [
        (post("Transfer-Encoding: gzip, chunked\r\n"), 501),
        (
            post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
            400,
        ),
        (
            post("Transfer-Encoding: chunked\r\nContent-Length: 1\r\n"),
            400,
        ),
        (post("Content-Length: 1\r\nContent-Length: 2\r\n"), 400),
        (post("X : 1\r\n"), 400),
        (post(&many), 431),
        ("GET /a b HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), 400),
        ("GET /a\tb HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), 400),
        ("GET /a#b HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/2.0\r\nHost: h\r\n\r\n".to_owned(), 505),
    ];
    for scene in Scene::all() {
        for (request, status) in &requests {
            scene.assert_refused(request, *status);
        }
        let lines = scene.edge.log_lines(requests.len());
        let statuses = lines.iter().map(|line| line["status"].as_u64().unwrap());
        let expected = requests.iter().map(|(_, status)| u64::from(*status));
        assert!(statuses.eq(expected), "{}: {lines:?}", scene.carrier);
    }
}

#[test]
fn http1_malformed_chunks_are_400() {
    for scene in Scene::all() {
        for chunks in [
            "3;a\nabc\r\n0\r\n\r\n",
            ";a\r\n\r\n",
            "\r\n0\r\n\r\n",
            "3 \r\nabc\r\n0\r\n\r\n",
            "0\r\nno colon\r\n\r\n",
            "0\r\nX : 1\r\n\r\n",
        ] {
            let mut client = scene.edge.connect();
            let head = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
            client.send(format!("{head}{chunks}")).unwrap();
            let response = client.response().unwrap();
            let case = format!("{}: {chunks:?}", scene.carrier);
            assert_eq!((response.status, response.closes()), (400, true), "{case}");
        }
    }
}

#[test]
fn http1_many_fields_and_a_later_minor_version_pass() {
    let many = "X: 1\r\n".repeat(900);
    for scene in Scene::all() {
        let mut client = scene.edge.connect();
        let request = format!("GET / HTTP/1.1\r\nHost: h\r\n{many}\r\n");
        let (_, fields) = scene.pass(&mut client, &request);
        let passed = fields.iter().filter(|(name, _)| name == "X").count();
        assert_eq!(passed, 900, "{}", scene.carrier);
        let request = "GET / HTTP/1.2\r\nHost: h\r\n\r\n";
        let (line, _) = scene.pass(&mut client, request);
        assert_eq!(line, "GET / HTTP/1.1", "{}", scene.carrier);
    }
}

#[test]
fn http1_response_without_a_date_gets_one() {
    for scene in Scene::all() {
        assert_eq!(scene.dates(""), 1, "{}", scene.carrier);
        let date = "Date: Mon, 01 Jan 2024 00:00:00 GMT\r\n";
        assert_eq!(scene.dates(date), 1, "{}", scene.carrier);
    }
}

#[test]
fn http1_response_before_the_request_is_complete_announces_the_close() {
    for scene in Scene::all() {
        let post = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhe";
        let (mut client, mut peer, _) = scene.ask(post);
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            .unwrap();
        assert!(client.response().unwrap().closes(), "{}", scene.carrier);
    }
}

#[test]
fn http1_connection_stays_after_our_own_response_to_a_request_with_a_body() {
    let rejecting = |site: ConfigBuilder| {
        let site = site.app("key", "{header: x-user}");
        site.app("missing_key", "reject")
    };
    for scene in Scene::all_with(rejecting) {
        let mut client = scene.edge.connect();
        for body in [
            "Content-Length: 5\r\n\r\nhello",
            "Content-Length: 0\r\n\r\n",
        ] {
            client
                .send(format!("POST /1 HTTP/1.1\r\nHost: h\r\n{body}"))
                .unwrap();
            assert_eq!(client.response().unwrap().status, 400, "{}", scene.carrier);
        }
        let get = "GET /2 HTTP/1.1\r\nHost: h\r\nX-User: u\r\n\r\n";
        let (line, _) = scene.pass(&mut client, get);
        assert_eq!(line, "GET /2 HTTP/1.1", "{}", scene.carrier);
    }
}

#[test]
fn engine_counts_what_it_sends_again_towards_the_limit_on_a_body() {
    let limited = "[{upstream: app, max_body_size: 10}]";
    let scene = Scene::with("engine", |site| site.top("routes", limited));
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

/// Answers with 200 and `ok`.
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// As [`OK`]; the peer's connection closes, so that the next request comes on another one.
const OK_AND_CLOSE: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";

/// A call of gRPC, which the engine leaves to Pingora.
const CALL: &str =
    "POST /call HTTP/1.1\r\nHost: h\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n";

#[test]
fn http1_connection_goes_on_after_a_grpc_call_by_the_same_rules() {
    for scene in Scene::all() {
        let mut client = scene.edge.connect();
        scene.pass(&mut client, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        scene.pass(&mut client, CALL);
        let absolute = "GET http://a.test/x HTTP/1.1\r\nHost: b.test\r\n\r\n";
        let (line, fields) = scene.pass(&mut client, absolute);
        assert_eq!(
            (line.as_str(), value(&fields, "host")),
            ("GET /x HTTP/1.1", Some("a.test"))
        );
        // A call and the request behind it in one piece.
        let (line, _) = scene.pass(
            &mut client,
            &format!("{CALL}GET /y HTTP/1.1\r\nHost: h\r\n\r\n"),
        );
        assert_eq!(line, "POST /call HTTP/1.1");
        let (line, _) = scene.pass(&mut client, "");
        assert_eq!(line, "GET /y HTTP/1.1", "{}", scene.carrier);
        client
            .send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n")
            .unwrap();
        assert_eq!(client.response().unwrap().status, 501, "{}", scene.carrier);
    }
}

#[test]
fn http1_websocket_follows_other_requests_of_its_connection() {
    for scene in Scene::all() {
        let mut client = scene.edge.connect();
        scene.pass(&mut client, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        scene.pass(&mut client, CALL);
        client.send(UPGRADE).unwrap();
        let mut peer = scene.peer.accept();
        peer.read_request().unwrap();
        peer.send(SWITCH).unwrap();
        let head = client.head().unwrap();
        let switched = (head.status, head.header("upgrade"));
        assert_eq!(switched, (101, Some("websocket")), "{}", scene.carrier);
        client.send("ping").unwrap();
        assert_eq!(peer.exactly(4).unwrap(), b"ping");
        peer.send("pong").unwrap();
        assert_eq!(client.exactly(4).unwrap(), b"pong");
    }
}

#[test]
fn http1_request_without_a_route_keeps_its_connection() {
    for scene in Scene::all_with(|site| site.top("routes", "[{path: /app, upstream: app}]")) {
        let mut client = scene.edge.connect();
        client.send("GET /x HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        let missed = client.response().unwrap();
        assert_eq!(
            (missed.status, missed.text()),
            (404, "404 no_route\n".to_owned())
        );
        let (line, _) = scene.pass(&mut client, "GET /app HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(line, "GET /app HTTP/1.1");
        let missed = scene
            .edge
            .admin
            .metric("clockwise_no_route_requests_total", &[]);
        assert_eq!(missed, 1, "{}", scene.carrier);
    }
}

/// Trailers, of which one may not be there.
const TRAILERS: &str = "0\r\nX-Sum: 1\r\nHost: evil.test\r\n\r\n";
const PASSED_TRAILERS: &str = "0\r\nX-Sum: 1\r\n\r\n";

/// Reads a body in chunks with these bytes, in which trailers may have names of any case.
#[track_caller]
fn assert_body(peer: &mut Connection, body: &str) {
    let received = String::from_utf8(peer.exactly(body.len()).unwrap()).unwrap();
    assert_eq!(received.to_ascii_lowercase(), body.to_ascii_lowercase());
}

#[test]
fn trailers_of_the_client_reach_the_peer_in_every_attempt() {
    for scene in Scene::all() {
        for chunks in ["2\r\nhi\r\n", ""] {
            let mut client = scene.edge.connect();
            client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
            let mut stale = scene.peer.accept();
            stale.read_request().unwrap();
            stale.send(OK).unwrap();
            assert_eq!(client.response().unwrap().status, 200);
            scene.edge.settle();
            let fields = "Host: h\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n";
            client
                .send(format!("PUT / HTTP/1.1\r\n{fields}\r\n{chunks}{TRAILERS}"))
                .unwrap();
            let body = format!("{chunks}{PASSED_TRAILERS}");
            stale.read_request().unwrap();
            assert_body(&mut stale, &body);
            // The connection may have been closed while it was idle, so the request is repeated.
            drop(stale);
            let mut peer = scene.peer.accept();
            let (_, fields) = peer.read_request().unwrap();
            let announces = |(name, value): &(String, String)| {
                name.eq_ignore_ascii_case("trailer") && value == "X-Sum"
            };
            assert!(fields.iter().any(announces), "{}", scene.carrier);
            assert_body(&mut peer, &body);
            peer.send(OK_AND_CLOSE).unwrap();
            assert_eq!(client.response().unwrap().status, 200);
            // The next request on the connection has none.
            client
                .send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
                .unwrap();
            let mut peer = scene.peer.accept();
            peer.read_request().unwrap();
            assert_body(&mut peer, "0\r\n\r\n");
            peer.send(OK_AND_CLOSE).unwrap();
            assert_eq!(client.response().unwrap().status, 200);
        }
    }
}

#[test]
fn engine_sends_trailers_of_the_peer_only_to_a_client_that_accepts_them() {
    let scene = Scene::engine();
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
