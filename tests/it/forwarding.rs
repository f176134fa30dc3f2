//! Forwarded requests and responses: headers, framing, bodies.

use serde_json::Value;

use crate::http2::H2C;
use crate::support::client::{Connection, Request};
use crate::support::edge::{ConfigBuilder, Edge};
use crate::support::http2::Client;
use crate::support::origin::{Behaviour, Origin};
use crate::support::raw_peer::EdgeWithRawPeer;

/// One origin behind one instance.
pub(crate) struct SingleOrigin {
    pub(crate) edge: Edge,
    pub(crate) origin: Origin,
}

impl SingleOrigin {
    pub(crate) fn open() -> Self {
        Self::with(|site| site)
    }

    fn with(change: impl FnOnce(ConfigBuilder) -> ConfigBuilder) -> Self {
        let origin = Origin::start();
        let edge = change(ConfigBuilder::of([origin.label()]).app("key", "client_ip")).start();
        Self { edge, origin }
    }

    /// The headers of that name that the origin was sent.
    #[track_caller]
    pub(crate) fn received(&self, request: &Request, name: &str) -> Vec<String> {
        values(&self.edge.echo(request), name)
    }

    /// A connection on which the origin's answer is `bytes`.
    fn answering(bytes: impl AsRef<[u8]>) -> (Self, Connection) {
        let pipe = Self::open();
        pipe.origin.behave(Behaviour::Raw(bytes.as_ref().to_vec()));
        let connection = pipe.edge.connect();
        (pipe, connection)
    }
}

pub(crate) fn values(echo: &Value, name: &str) -> Vec<String> {
    let headers = echo["headers"].as_array().unwrap().iter();
    let named = headers.filter(|pair| pair[0].as_str().unwrap().eq_ignore_ascii_case(name));
    named
        .map(|pair| pair[1].as_str().unwrap().to_owned())
        .collect()
}

// ── headers towards the peer

#[test]
fn hop_by_hop_request_headers_are_removed() {
    let pipe = SingleOrigin::open();
    let request = Request::get("/")
        .header("Connection", "keep-alive, X-Mine")
        .header("X-Mine", "1");
    let request = request
        .header("Keep-Alive", "timeout=5")
        .header("Proxy-Connection", "keep-alive");
    let echo = pipe
        .edge
        .echo(&request.header("TE", "trailers").header("X-Other", "2"));
    for name in ["x-mine", "keep-alive", "proxy-connection"] {
        assert_eq!(values(&echo, name), [""; 0], "{name}");
    }
    assert_eq!(values(&echo, "x-other"), ["2"]);
}

#[test]
fn duplicate_content_length_is_forwarded_once() {
    for lengths in [
        "Content-Length: 3, 3",
        "Content-Length: 3\r\nContent-Length: 3",
    ] {
        let pipe = SingleOrigin::open();
        let mut connection = pipe.edge.connect();
        let request = format!("POST / HTTP/1.1\r\nHost: h\r\n{lengths}\r\n\r\nabc");
        connection.send(&request).unwrap();
        let echo = connection.response().unwrap().json();
        assert_eq!(values(&echo, "content-length"), ["3"], "{lengths}");
    }
}

#[test]
fn hop_by_hop_response_headers_are_removed() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: X-Mine\r\nX-Mine: 1\r\nKeep-Alive: timeout=1\r\nX-Other: 2\r\n\r\nok";
    let (_pipe, mut connection) = SingleOrigin::answering(answer);
    let response = connection.get("/").unwrap();
    assert_eq!(
        (response.header("x-mine"), response.header("x-other")),
        (None, Some("2"))
    );
    assert_ne!(response.header("keep-alive"), Some("timeout=1"));
}

#[test]
fn every_connection_header_line_of_a_response_is_applied() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\nConnection: X-Mine\r\nX-Mine: 1\r\n\r\nok";
    let (_pipe, mut connection) = SingleOrigin::answering(answer);
    assert_eq!(connection.get("/").unwrap().header("x-mine"), None);
}

#[test]
fn interim_responses_over_the_limit_are_502() {
    let pipe = SingleOrigin::with(|site| site.top("listeners", H2C));
    for (count, status) in [(32, 200), (33, 502)] {
        let answer = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(count)
            + "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        pipe.origin.behave(Behaviour::Raw(answer.into_bytes()));
        let expected = [vec![103; 32], vec![status]].concat();
        let mut connection = pipe.edge.connect();
        connection
            .send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            .unwrap();
        let statuses: Vec<u16> = (0..33).map(|_| connection.head().unwrap().status).collect();
        assert_eq!(statuses, expected, "HTTP/1, {count}");
        let statuses = Client::open(pipe.edge.address).get("/").statuses;
        assert_eq!(statuses, expected, "HTTP/2, {count}");
    }
}

#[test]
fn interim_response_is_forwarded_without_hop_by_hop_headers() {
    let answer = "HTTP/1.1 103 Early Hints\r\nConnection: X-Mine\r\nX-Mine: 1\r\nLink: </a>\r\n\r\n\
                  HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let (_pipe, mut connection) = SingleOrigin::answering(answer);
    connection
        .send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        .unwrap();
    let interim = connection.head().unwrap();
    assert_eq!(
        (interim.status, interim.header("link")),
        (103, Some("</a>"))
    );
    assert_eq!(interim.header("x-mine"), None);
    assert_eq!(interim.header("connection"), None);
    assert_eq!(connection.response().unwrap().text(), "ok");
    connection
        .send("GET / HTTP/1.0\r\nHost: h\r\n\r\n")
        .unwrap();
    assert_eq!(connection.head().unwrap().status, 200, "HTTP/1.0 has none");
}

#[test]
fn connection_close_of_a_peer_keeps_the_client_connection() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
    let (_pipe, mut connection) = SingleOrigin::answering(answer);
    assert_eq!(connection.get("/").unwrap().text(), "ok");
    assert_eq!(connection.get("/").unwrap().text(), "ok");
}

#[test]
fn x_forwarded_headers_from_untrusted_clients_are_replaced() {
    let pipe = SingleOrigin::open();
    let request = Request::get("/")
        .header("Host", "shop.test:81")
        .header("X-Forwarded-For", "1.2.3.4");
    let request = request
        .header("X-Forwarded-Proto", "https")
        .header("X-Forwarded-Host", "evil");
    let echo = pipe.edge.echo(&request);
    assert_eq!(values(&echo, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(values(&echo, "x-forwarded-proto"), ["http"]);
    assert_eq!(values(&echo, "x-forwarded-host"), ["shop.test:81"]);
}

#[test]
fn x_forwarded_headers_from_trusted_proxies_are_extended() {
    let pipe = SingleOrigin::with(|site| site.top("trusted_proxies", "[\"127.0.0.0/8\"]"));
    let request = Request::get("/").header("X-Forwarded-For", "1.2.3.4, 5.6.7.8");
    let request = request
        .header("X-Forwarded-Proto", "https")
        .header("X-Forwarded-Host", "shop.test");
    let echo = pipe.edge.echo(&request);
    assert_eq!(
        values(&echo, "x-forwarded-for").join(", "),
        "1.2.3.4, 5.6.7.8, 127.0.0.1"
    );
    assert_eq!(values(&echo, "x-forwarded-proto"), ["https"]);
    assert_eq!(values(&echo, "x-forwarded-host"), ["shop.test"]);
}

#[test]
fn x_forwarded_headers_can_be_disabled() {
    let pipe = SingleOrigin::with(|site| site.top("forwarding", "{x_forwarded: false}"));
    assert_eq!(
        pipe.received(&Request::get("/"), "x-forwarded-for"),
        [""; 0]
    );
}

#[test]
fn forwarded_header_is_sent_when_enabled() {
    let pipe = SingleOrigin::open();
    assert_eq!(pipe.received(&Request::get("/"), "forwarded"), [""; 0]);
    let pipe = SingleOrigin::with(|site| site.top("forwarding", "{forwarded: true}"));
    let sent = pipe
        .received(&Request::get("/").header("Host", "h.test"), "forwarded")
        .join(", ");
    for part in ["for=127.0.0.1", "proto=http", "host=h.test"] {
        assert!(sent.replace('"', "").contains(part), "{part} in {sent}");
    }
}

#[test]
fn host_header_is_preserved_or_set_to_peer_or_literal() {
    let request = Request::get("/").header("Host", "shop.test");
    assert_eq!(
        SingleOrigin::open().received(&request, "host"),
        ["shop.test"]
    );
    let pipe = SingleOrigin::with(|site| site.app("host_header", "peer"));
    assert_eq!(pipe.received(&request, "host"), [pipe.origin.label()]);
    let pipe = SingleOrigin::with(|site| site.app("host_header", "inner.test"));
    assert_eq!(pipe.received(&request, "host"), ["inner.test"]);
}

#[test]
fn request_id_is_generated_or_forwarded() {
    let pipe = SingleOrigin::open();
    let made = pipe.received(&Request::get("/"), "x-request-id").concat();
    let other = pipe.received(&Request::get("/"), "x-request-id").concat();
    assert!(made.len() >= 16 && made != other, "{made} and {other}");
    assert_eq!(
        pipe.received(
            &Request::get("/").header("X-Request-Id", "mine-1"),
            "x-request-id"
        ),
        ["mine-1"]
    );
    let pipe = SingleOrigin::with(|site| site.top("forwarding", "{request_id: off}"));
    assert_eq!(pipe.received(&Request::get("/"), "x-request-id"), [""; 0]);
}

#[test]
fn request_target_is_forwarded_unchanged() {
    let pipe = SingleOrigin::open();
    for target in ["/a%2Fb/../c//d?x=%20&y", "/?", "/%00", "/ü?ü"] {
        assert_eq!(pipe.edge.echo(&Request::get(target))["target"], target);
    }
}

#[test]
fn invalid_host_header_is_400() {
    let pipe = SingleOrigin::with(|site| site.top("forwarding", "{forwarded: true}"));
    for host in [
        "x\";for=10.0.0.1;x=\"",
        "a b",
        "a/b",
        "h\\",
        "<h>",
        "\u{fc}",
        "%41",
    ] {
        let answer = pipe.edge.send(&Request::get("/").header("Host", host));
        assert_eq!(answer.status, 400, "{host}");
    }
    assert_eq!(pipe.origin.requests(), 0);
    for host in ["", "h", "H.test:80", "[::1]:8080", "a_b.test", "a;b"] {
        let answer = pipe.edge.send(&Request::get("/").header("Host", host));
        assert_eq!(answer.status, 200, "{host}");
    }
}

#[test]
fn spoofable_headers_from_untrusted_clients_are_removed_in_any_spelling() {
    let claims = [
        "X-Real-IP",
        "X-Forwarded-Port",
        "X-Forwarded-Server",
        "X_Forwarded_For",
        "X_Real-IP",
    ];
    let request = claims.iter().fold(Request::get("/"), |request, claim| {
        request.header(claim, "1.2.3.4")
    });
    let echo = SingleOrigin::open()
        .edge
        .echo(&request.clone().header("X_Mine", "1"));
    for claim in claims {
        assert_eq!(values(&echo, claim), [""; 0], "{claim}");
    }
    assert_eq!(values(&echo, "x_mine"), ["1"]);
    let pipe = SingleOrigin::with(|site| site.top("trusted_proxies", "[\"127.0.0.0/8\"]"));
    let echo = pipe.edge.echo(&request);
    assert_eq!(values(&echo, "x-real-ip"), ["1.2.3.4"]);
    assert_eq!(values(&echo, "x_forwarded_for"), [""; 0]);
}

// ── bodies

#[test]
fn large_bodies_pass_both_ways() {
    let pipe = SingleOrigin::open();
    let upload = pipe.edge.echo(&Request::post("/", vec![b'x'; 8 << 20]));
    assert_eq!(upload["length"], 8 << 20);
    pipe.origin.behave(Behaviour::Body(32 << 20));
    let download = pipe.edge.get("/");
    assert_eq!(download.body.len(), 32 << 20);
}

#[test]
fn partial_request_body_is_forwarded_before_the_rest_arrives() {
    for head in [
        "Content-Length: 100\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\r\n",
    ] {
        let pipe = SingleOrigin::open();
        pipe.origin.behave(Behaviour::Raw(
            format!("HTTP/1.1 200 OK\r\n{head}first").into(),
        ));
        let mut connection = pipe.edge.connect();
        connection
            .send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            .unwrap();
        let chunk_size = if head.starts_with('T') { 3 } else { 0 };
        let received = connection
            .head()
            .and_then(|_| connection.exactly(chunk_size + 5));
        assert!(received.expect(head).ends_with(b"first"));
    }
}

/// Each waits for the one before to have arrived: nothing may be held back.
#[test]
fn streamed_pieces_are_forwarded_without_delay() {
    let scene = EdgeWithRawPeer::start();
    for (version, framing) in [
        ("1.1", "Transfer-Encoding: chunked\r\n"),
        ("1.1", ""),
        ("1.0", ""),
    ] {
        let request = format!("GET / HTTP/{version}\r\nHost: h\r\n\r\n");
        let (mut client, mut peer) = scene.ask(&request);
        let kind = "Content-Type: text/event-stream\r\n";
        peer.send(format!("HTTP/1.1 200 OK\r\n{kind}{framing}\r\n"))
            .unwrap();
        let head = client.head().unwrap();
        let chunked = head.header("transfer-encoding").is_some();
        for number in 0..20 {
            let event = format!("data: {number}\n\n");
            let chunk = format!("{:X}\r\n{event}\r\n", event.len());
            peer.send(if framing.is_empty() { &event } else { &chunk })
                .unwrap();
            let expected = if chunked { chunk } else { event };
            let arrived = client.exactly(expected.len()).unwrap();
            assert_eq!(arrived, expected.as_bytes());
        }
    }
    let begin = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (mut client, mut peer) = scene.ask(begin);
    for number in 10..30 {
        let chunk = format!("2\r\n{number}\r\n");
        client.send(&chunk).unwrap();
        assert_eq!(peer.exactly(chunk.len()).unwrap(), chunk.as_bytes());
    }
}

#[test]
fn chunked_bodies_pass_both_ways() {
    let (pipe, mut connection) = SingleOrigin::answering(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;ext=1\r\nde\r\n0\r\n\r\n",
    );
    assert_eq!(connection.get("/").unwrap().text(), "abcde");
    pipe.origin.behave(Behaviour::Echo);
    connection
        .send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        .unwrap();
    connection
        .send("5\r\n12345\r\n6\r\n678901\r\n0\r\n\r\n")
        .unwrap();
    assert_eq!(connection.response().unwrap().json()["length"], 11);
}

#[test]
fn response_body_ended_by_close_is_complete() {
    let pipe = SingleOrigin::open();
    pipe.origin
        .behave(Behaviour::Last("HTTP/1.0 200 OK\r\n\r\nto the end".into()));
    assert_eq!(pipe.edge.get("/").text(), "to the end");
}

#[test]
fn head_response_has_no_body_and_keeps_content_length() {
    let (_pipe, mut connection) =
        SingleOrigin::answering("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n");
    for _ in 0..2 {
        let response = connection.exchange(&Request::new("HEAD", "/")).unwrap();
        assert_eq!(
            (response.status, response.header("content-length")),
            (200, Some("1234"))
        );
    }
}

#[test]
fn responses_without_body_keep_the_connection_usable() {
    for status in ["204 No Content", "304 Not Modified"] {
        let (_pipe, mut connection) =
            SingleOrigin::answering(format!("HTTP/1.1 {status}\r\nETag: \"x\"\r\n\r\n"));
        for _ in 0..2 {
            let response = connection.get("/").unwrap();
            assert!(
                status.starts_with(&response.status.to_string()),
                "{response:?}"
            );
            assert_eq!(response.header("etag"), Some("\"x\""));
        }
    }
}

#[test]
fn http10_client_gets_its_response_and_a_close() {
    let pipe = SingleOrigin::open();
    let mut connection = pipe.edge.connect();
    connection
        .send("GET /old HTTP/1.0\r\nHost: h\r\n\r\n")
        .unwrap();
    let text = String::from_utf8(connection.rest().unwrap()).unwrap();
    assert!(
        text.contains(" 200 ") && text.contains("\"target\":\"/old\""),
        "{text}"
    );
}

#[test]
fn http10_client_gets_no_chunked_encoding() {
    for head in ["Transfer-Encoding: chunked\r\n", ""] {
        let body = if head.is_empty() {
            "abcde"
        } else {
            "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        };
        let pipe = SingleOrigin::open();
        pipe.origin.behave(Behaviour::Last(
            format!("HTTP/1.1 200 OK\r\n{head}\r\n{body}").into(),
        ));
        let mut connection = pipe.edge.connect();
        connection
            .send("GET / HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n")
            .unwrap();
        let response = connection.head().unwrap();
        assert_eq!(response.header("transfer-encoding"), None);
        assert!(response.closes(), "{response:?}");
        assert_eq!(connection.rest().unwrap(), b"abcde");
    }
}

#[test]
fn http10_client_may_keep_its_connection_alive() {
    let pipe = SingleOrigin::open();
    let mut connection = pipe.edge.connect();
    for _ in 0..2 {
        connection
            .send("GET / HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n")
            .unwrap();
        assert_eq!(connection.response().unwrap().status, 200);
    }
}

#[test]
fn expect_100_continue_is_answered_by_the_peer() {
    let pipe = SingleOrigin::open();
    pipe.origin.behave(Behaviour::Continue);
    let mut connection = pipe.edge.connect();
    connection
        .send("POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        .unwrap();
    assert_eq!(connection.head().unwrap().status, 100);
    connection.send("12345").unwrap();
    assert_eq!(connection.response().unwrap().json()["length"], 5);
}

#[test]
fn expect_100_continue_may_be_refused_by_the_peer() {
    let pipe = SingleOrigin::open();
    pipe.origin.behave(Behaviour::Last(
        "HTTP/1.1 417 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".into(),
    ));
    let mut connection = pipe.edge.connect();
    connection
        .send("POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        .unwrap();
    assert_eq!(connection.response().unwrap().status, 417);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let pipe = SingleOrigin::open();
    let mut connection = pipe.edge.connect();
    connection
        .send("GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n")
        .unwrap();
    assert_eq!(connection.response().unwrap().json()["target"], "/1");
    assert_eq!(connection.response().unwrap().json()["target"], "/2");
}
