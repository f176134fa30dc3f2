//! Malformed requests of HTTP/2 (RFC 9113 §8.1.1): each is an error of its stream, and the others go on. What the `h2` crate
//! cannot decode still ends the connection: `src/pingora_compat/README.md`, request 7.

use crate::http2::{H2C, curl};
use crate::support::edge::{ConfigBuilder, Edge};
use crate::support::http2::{Client, Frame, Outcome, code, flag, get, kind, request};
use crate::support::http2_origin::{self, DATA, END_HEADERS, END_STREAM, HEADERS, Http2Behaviour};
use crate::support::origin::{Behaviour, Origin};
use crate::support::raw_peer::EdgeWithRawPeer;
use crate::support::wait;

use Http2Behaviour::Frames;

type Fields = &'static [(&'static str, &'static str)];

/// The field that each of these cases adds to a valid request.
const MALFORMED: [(&str, Fields); 19] = [
    ("blank before a value", &[("x-a", " b")]),
    ("blank after a value", &[("x-a", "b ")]),
    ("tab before a value", &[("x-a", "\tb")]),
    ("tab after a value", &[("x-a", "b\t")]),
    ("value of blanks", &[("x-a", " \t")]),
    (
        "blank after the second value",
        &[("x-a", "b"), ("x-a", "b ")],
    ),
    (
        "blank after a cookie",
        &[("cookie", "a=b "), ("cookie", "c=d")],
    ),
    (
        "pseudo-field after a field",
        &[("x-a", "b"), (":path", "/")],
    ),
    ("repeated pseudo-field", &[(":path", "/")]),
    ("pseudo-field of a response", &[(":status", "200")]),
    ("connection", &[("connection", "close")]),
    ("keep-alive", &[("keep-alive", "timeout=5")]),
    ("proxy-connection", &[("proxy-connection", "close")]),
    ("transfer-encoding", &[("transfer-encoding", "chunked")]),
    ("upgrade", &[("upgrade", "websocket")]),
    ("te other than trailers", &[("te", "gzip")]),
    ("content-length of a word", &[("content-length", "five")]),
    ("content-length without a body", &[("content-length", "5")]),
    (
        "two content-lengths",
        &[("content-length", "0"), ("content-length", "1")],
    ),
];

/// Those of [`MALFORMED`] that `h2` accepts: our own check counts and logs them.
const BLANKS: usize = 7;

/// What `h2` 0.4.20 cannot decode.
const UNDECODABLE: [(&str, Fields); 7] = [
    ("line feed in a value", &[("x-a", "b\nc")]),
    ("NUL in a value", &[("x-a", "b\0c")]),
    ("DEL in a value", &[("x-a", "b\x7fc")]),
    ("upper case in a name", &[("X-A", "b")]),
    ("blank in a name", &[("x a", "b")]),
    ("name without a letter", &[("", "b")]),
    ("unknown pseudo-field", &[(":foo", "b")]),
];

fn start(origin: &Origin) -> Edge {
    ConfigBuilder::of([origin.label()])
        .top("listeners", H2C)
        .top("access_log", "{path: access.log}")
        .start()
}

#[test]
fn malformed_http2_request_ends_only_its_stream() {
    let origin = Origin::start();
    let edge = start(&origin);
    let mut client = Client::open(edge.address);
    let upload = client.begin(0, &request("POST", "/?k=a"));
    for (case, more) in MALFORMED {
        let answer = client.ask(&[&get("/malformed")[..], more].concat());
        assert_eq!(answer.reset, Some(code::PROTOCOL_ERROR), "{case}");
        assert_eq!(answer.statuses, [0; 0], "{case}");
        assert_eq!(client.get("/?k=a").statuses, [200], "{case}");
    }
    client
        .send(&Frame::data(upload, flag::END_STREAM, *b"body"))
        .unwrap();
    assert_eq!(client.answer(upload).json()["length"], 4);
    assert_eq!(origin.requests(), MALFORMED.len() + 1);
    let reason = ["reason=\"malformed\""];
    let metric = "clockwise_listener_bad_requests_total";
    edge.admin.wait_for_metric(metric, &reason, BLANKS as u64);
    let lines = edge.log_lines(MALFORMED.len() + 1 + BLANKS);
    let refused: Vec<_> = lines
        .iter()
        .filter(|line| line["path"] == "/malformed")
        .map(|line| (&line["status"], &line["fault"]))
        .collect();
    assert_eq!(refused, [(&0.into(), &"bad_request".into()); BLANKS]);
}

#[test]
fn malformed_rest_of_an_http2_request_ends_only_its_stream() {
    let origin = Origin::start();
    let edge = start(&origin);
    let mut client = Client::open(edge.address);
    let wait_in_flight = |count| {
        wait::until("the request to be at the peer, or gone", || {
            edge.admin.metric("clockwise_peer_in_flight", &[]) == count
        });
    };
    let trailers = |fields: Fields| Frame::headers(0, flag::END_STREAM, fields);
    let cases = [
        ("blank in a trailer", None, trailers(&[("x-a", "b ")])),
        (
            "connection in a trailer",
            None,
            trailers(&[("connection", "x")]),
        ),
        (
            "trailers without an end",
            None,
            Frame::headers(0, 0, &[("x-a", "b")]),
        ),
        (
            "less than content-length",
            Some("5"),
            Frame::data(0, flag::END_STREAM, *b"b"),
        ),
        (
            "more than content-length",
            Some("5"),
            Frame::data(0, flag::END_STREAM, *b"body"),
        ),
    ];
    let count = cases.len();
    for (case, length, mut end) in cases {
        let mut fields = request("POST", "/malformed?k=a");
        fields.extend(length.map(|length| ("content-length", length)));
        let stream = client.begin(0, &fields);
        client.send(&Frame::data(stream, 0, *b"bo")).unwrap();
        // Before, `h2` would reset a stream that it has not shown yet.
        wait_in_flight(1);
        end.stream = stream;
        client.send(&end).unwrap();
        let answer = client.answer(stream);
        assert_eq!(answer.reset, Some(code::PROTOCOL_ERROR), "{case}");
        assert_eq!(answer.statuses, [0; 0], "{case}");
        wait_in_flight(0);
        assert_eq!(client.get("/?k=a").statuses, [200], "{case}");
        wait_in_flight(0);
    }
    for line in edge.log_lines(2 * count) {
        if line["path"] == "/malformed" {
            assert_eq!(
                (&line["status"], &line["fault"]),
                (&0.into(), &"bad_request".into())
            );
        }
    }
    let metric = "clockwise_listener_bad_requests_total";
    let reason = ["reason=\"malformed\""];
    edge.admin.wait_for_metric(metric, &reason, count as u64);
}

/// A complete body would make the peer act on the request.
#[test]
fn peer_does_not_get_the_end_of_a_body_with_malformed_trailers() {
    let scene = EdgeWithRawPeer::with(|site| site.top("listeners", H2C));
    let mut client = Client::open(scene.edge.address);
    let stream = client.begin(0, &request("POST", "/"));
    client.send(&Frame::data(stream, 0, *b"body")).unwrap();
    let mut peer = scene.peer.accept();
    peer.read_request().unwrap();
    // The reset may overtake a body that is not at the peer yet.
    assert_eq!(peer.chunk().unwrap(), b"body");
    let end = Frame::headers(stream, flag::END_STREAM, &[("x-a", " b")]);
    client.send(&end).unwrap();
    assert_eq!(client.answer(stream).reset, Some(code::PROTOCOL_ERROR));
    assert_eq!(peer.rest().unwrap(), b"");
}

/// If this fails because `h2` resets the stream: move the case to [`MALFORMED`].
#[test]
fn http2_field_that_cannot_be_decoded_ends_the_connection() {
    let origin = Origin::start();
    let edge = start(&origin);
    for (case, more) in UNDECODABLE {
        let mut client = Client::open(edge.address);
        client.begin(flag::END_STREAM, &[&get("/")[..], more].concat());
        assert_eq!(
            client.outcome(),
            Outcome::Goaway(code::PROTOCOL_ERROR),
            "{case}"
        );
    }
    let reason = ["reason=\"protocol\""];
    let metric = "clockwise_listener_http2_violations_total";
    edge.admin
        .wait_for_metric(metric, &reason, UNDECODABLE.len() as u64);
    assert_eq!(origin.requests(), 0);
}

#[test]
fn field_of_the_connection_is_removed_from_an_http2_response() {
    let fields = "TE: gzip\r\nConnection: keep-alive, x-hop\r\nKeep-Alive: timeout=5\r\n\
                  Proxy-Connection: close\r\nUpgrade: h2c\r\nX-Kept: 1\r\n";
    let response = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 2\r\n\r\nok");
    let origin = Origin::behaving(Behaviour::Raw(response.into_bytes()));
    let edge = start(&origin);
    // nghttp2, in curl, fails for a forbidden field.
    let answer = curl(&edge, "/?k=a", &["-D", "-"]).to_ascii_lowercase();
    assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
    assert!(answer.contains("\r\nx-kept: 1\r\n"), "{answer}");
    for name in [
        "te",
        "connection",
        "keep-alive",
        "proxy-connection",
        "upgrade",
    ] {
        assert!(!answer.contains(&format!("\r\n{name}:")), "{answer}");
    }
}

#[test]
fn outer_blanks_of_values_from_an_http2_peer_are_removed() {
    const PADDED: &[u8] = b"\x88\x00\x03x-a\x06 \tb c \x00\x03x-a\x02 d";
    const FRAMES: Http2Behaviour =
        Frames(&[(HEADERS, END_HEADERS, PADDED), (DATA, END_STREAM, b"ok")]);
    let origin = http2_origin::Origin::start(&[FRAMES; 2]);
    let edge = ConfigBuilder::of([origin.label()])
        .app("protocol", "h2c")
        .top("listeners", H2C)
        .start();
    let answer = curl(&edge, "/?k=a", &["-D", "-"]);
    assert!(answer.contains("\r\nx-a: b c\r\nx-a: d\r\n"), "{answer}");
    let answer = edge.get("/?k=a");
    let fields = answer.headers.iter().filter(|(name, _)| name == "x-a");
    let values: Vec<_> = fields.map(|(_, value)| &**value).collect();
    assert_eq!(values, ["b c", "d"], "{answer:?}");
}

#[test]
fn connection_field_in_a_response_of_an_http2_peer_is_502() {
    const CONNECTION: &[u8] = b"\x88\x00\x0aconnection\x05close";
    const TRAILER: &[u8] = b"\x00\x0aconnection\x05close";
    const IN_HEADER: Http2Behaviour = Frames(&[(HEADERS, END_HEADERS | END_STREAM, CONNECTION)]);
    const IN_TRAILERS: Http2Behaviour = Frames(&[
        (HEADERS, END_HEADERS, b"\x88"),
        (DATA, 0, b"ok"),
        (HEADERS, END_HEADERS | END_STREAM, TRAILER),
    ]);
    let origin = http2_origin::Origin::start(&[IN_HEADER, IN_TRAILERS]);
    let edge = ConfigBuilder::of([origin.label()])
        .app("protocol", "h2c")
        .app("retry", "off")
        .top("listeners", H2C)
        .start();
    let mut client = Client::open(edge.address);
    assert_eq!(client.get("/?k=a").statuses, [502]);
    let truncated = client.get("/?k=a");
    assert!(truncated.reset.is_some(), "{truncated:?}");
    assert_eq!(client.get("/?k=a").statuses, [200]);
    assert!(!client.aside.iter().any(|frame| frame.kind == kind::GOAWAY));
}
