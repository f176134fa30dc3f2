//! `min_body_rate`: a client that sends a request's body byte by byte, or takes a response so, is ended. A peer that is slow
//! is not its client's fault.

use std::thread;
use std::time::Duration;

use crate::http2::H2C;
use crate::support::client::{Connection, Response};
use crate::support::edge::{ConfigBuilder, Edge};
use crate::support::http2::{Client, Frame, code, flag, get, kind, request};
use crate::support::origin::{Behaviour, Origin};
use crate::support::raw_peer::RawPeer;
use crate::support::wait::{assert_about, timed};

const CARRIERS: [&str; 2] = ["engine", "pingora"];
const LIMIT: &str = "{min_body_rate: {rate: 200, grace: 1s}}";
const SECOND: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(100);
/// A setting (RFC 9113 §6.5.2).
const INITIAL_WINDOW_SIZE: u16 = 4;

fn site(peer: impl ToString, downstream: &str) -> ConfigBuilder {
    let site = ConfigBuilder::of([peer]).app("key", "client_ip");
    site.downstream(downstream)
}

/// Sends a piece after each pause, until the response comes.
fn drip(client: &mut Connection, piece: &str) -> Response {
    while client.idles_for(PAUSE) {
        // Fails if the connection is closed: then the response is there.
        let _ = client.send(piece);
    }
    client.response().unwrap()
}

fn assert_too_slow(response: &Response, took: Duration) {
    assert_eq!(response.status, 408, "{response:?}");
    assert!(response.text().contains("body_too_slow"), "{response:?}");
    assert!(response.closes(), "{response:?}");
    assert_about(took, SECOND);
}

#[test]
fn slow_request_body_over_http1_is_408() {
    for carrier in CARRIERS {
        for (framing, piece) in [
            ("Content-Length: 10000", "x"),
            ("Transfer-Encoding: chunked", "1\r\nx\r\n"),
            (
                "Transfer-Encoding: chunked",
                "1;extension=long-but-not-of-the-body\r\nx\r\n",
            ),
        ] {
            let origin = Origin::start();
            let edge = Edge::start_with_carrier(carrier, &site(origin.label(), LIMIT).yaml());
            let mut client = edge.connect();
            let head = format!("POST / HTTP/1.1\r\nHost: h\r\n{framing}\r\n\r\n");
            client.send(head).unwrap();
            let (response, took) = timed(|| drip(&mut client, piece));
            assert_too_slow(&response, took);
            let fault = ["fault=\"body_too_slow\""];
            edge.admin
                .wait_for_metric("clockwise_faults_total", &fault, 1);
            assert_eq!(edge.get("/").status, 200, "{carrier}: serves on");
        }
    }
}

#[test]
fn request_body_at_the_rate_is_not_ended() {
    const PIECES: usize = 20;
    for carrier in CARRIERS {
        for (downstream, first, piece) in [
            // 20 times the rate, so that a busy machine is not too slow.
            (LIMIT, 0, 400),
            // The rate is an average: after the first piece nothing is due for 20 s.
            (LIMIT, 4_000, 1),
            ("{min_body_rate: off}", 0, 1),
        ] {
            let origin = Origin::start();
            let edge = Edge::start_with_carrier(carrier, &site(origin.label(), downstream).yaml());
            let mut client = edge.connect();
            let length = first + PIECES * piece;
            let head = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n");
            client.send(head).unwrap();
            client.send("x".repeat(first)).unwrap();
            for _ in 0..PIECES {
                assert!(client.idles_for(PAUSE), "{carrier}, {downstream}");
                client.send("x".repeat(piece)).unwrap();
            }
            let response = client.response().unwrap();
            assert_eq!(response.status, 200, "{carrier}, {downstream}");
            assert_eq!(response.json()["length"], length);
        }
    }
}

#[test]
fn client_is_not_ended_while_its_peer_does_not_read() {
    // More than the buffers of the sockets on the way.
    const LENGTH: usize = 64 << 20;
    for carrier in CARRIERS {
        let peer = RawPeer::start();
        let edge = Edge::start_with_carrier(carrier, &site(peer.address, LIMIT).yaml());
        let head = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {LENGTH}\r\n\r\n");
        let mut request = head.into_bytes();
        // With the head, so that the body is late on no machine.
        request.resize(request.len() + LENGTH, b'x');
        let (mut client, mut sender) = edge.connect().halves();
        thread::scope(|scope| {
            scope.spawn(move || sender.send(request).unwrap());
            let mut peer = peer.accept();
            assert!(client.idles_for(3 * SECOND), "{carrier}");
            peer.read_request().unwrap();
            peer.exactly(LENGTH).unwrap();
            peer.send("HTTP/1.1 204 No Content\r\n\r\n").unwrap();
            assert_eq!(client.response().unwrap().status, 204, "{carrier}");
        });
    }
}

#[test]
fn client_that_awaits_100_continue_is_not_ended() {
    for carrier in CARRIERS {
        let peer = RawPeer::start();
        let edge = Edge::start_with_carrier(carrier, &site(peer.address, LIMIT).yaml());
        let mut client = edge.connect();
        let head =
            "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n\r\n";
        client.send(head).unwrap();
        let mut peer = peer.accept();
        peer.read_request().unwrap();
        assert!(client.idles_for(2 * SECOND), "{carrier}");
        peer.send("HTTP/1.1 100 Continue\r\n\r\n").unwrap();
        assert_eq!(client.head().unwrap().status, 100);
        let (response, took) = timed(|| drip(&mut client, "x"));
        assert_too_slow(&response, took);
    }
}

#[test]
fn slow_request_body_over_http2_is_408_and_a_reset() {
    let origin = Origin::start();
    let edge = site(origin.label(), LIMIT).top("listeners", H2C).start();
    let mut client = Client::open(edge.address);
    let mut call = request("POST", "/");
    call.push(("content-type", "application/grpc"));
    let call = client.begin(0, &call);
    let stream = client.begin(0, &request("POST", "/"));
    let (answer, took) = timed(|| {
        while client.idles_for(PAUSE) {
            let _ = client.send(&Frame::data(stream, 0, *b"x"));
        }
        client.answer(stream)
    });
    assert_eq!(answer.statuses, [408]);
    assert_about(took, SECOND);
    let reset = client.wait_for("RST_STREAM", |frame| frame.kind == kind::RST_STREAM);
    assert_eq!(reset.stream, stream, "the gRPC call may be silent");
    let fault = ["fault=\"body_too_slow\""];
    edge.admin
        .wait_for_metric("clockwise_faults_total", &fault, 1);
    let _ = client.send(&Frame::reset(call, code::CANCEL));
    assert_eq!(client.get("/").statuses, [200]);
}

#[test]
fn http2_client_that_takes_a_response_byte_by_byte_loses_the_stream() {
    let origin = Origin::behaving(Behaviour::Body(100_000));
    let limit = "{min_body_rate: {rate: 1000, grace: 1s}}";
    let edge = site(origin.label(), limit).top("listeners", H2C).start();
    let mut client = Client::with(edge.address, &[(INITIAL_WINDOW_SIZE, 0)]);
    let (reset, took) = timed(|| {
        let stream = client.begin(flag::END_STREAM, &get("/"));
        loop {
            let frame = client.next_of(stream);
            if frame.kind == kind::RST_STREAM {
                return frame;
            }
            let _ = client.idles_for(PAUSE);
            let _ = client.send(&Frame::window(stream, 1));
        }
    });
    assert_eq!(reset.code(), code::CANCEL);
    assert_about(took, SECOND);
    let fault = ["fault=\"client_stalled\""];
    edge.admin
        .wait_for_metric("clockwise_faults_total", &fault, 1);
}

#[test]
fn slow_request_body_to_the_admin_api_is_408() {
    let origin = Origin::start();
    let edge = site(origin.label(), LIMIT).start();
    for path in ["diff?down=a", "replay?format=keys"] {
        let mut client = edge.admin.connect();
        let head = format!(
            "POST /v1/upstreams/app/{path} HTTP/1.1\r\nHost: test\r\nContent-Length: 10000\r\n\r\n"
        );
        client.send(head).unwrap();
        let (response, took) = timed(|| drip(&mut client, "x"));
        assert_too_slow(&response, took);
    }
}
