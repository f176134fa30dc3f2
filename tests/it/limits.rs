//! Limits on clients: sizes, numbers and times. Input at a limit is accepted, input above it is not.

use std::time::Duration;

use crate::support::client::{Connection, Request};
use crate::support::edge::{ConfigBuilder, Edge};
use crate::support::origin::{Behaviour, Origin};
use crate::support::wait::{self, assert_about, timed};

/// An instance with these limits, in front of one origin.
struct LimitedEdge {
    edge: Edge,
    origin: Origin,
}

impl LimitedEdge {
    fn to(downstream: &str) -> Self {
        let origin = Origin::start();
        let edge = ConfigBuilder::of([origin.label()])
            .app("key", "client_ip")
            .downstream(downstream)
            .start();
        Self { edge, origin }
    }

    /// Sends bytes on a connection of their own; the status of the answer. A connection that the
    /// answer closes has to end.
    #[track_caller]
    fn status_of(&self, bytes: impl AsRef<[u8]>) -> u16 {
        let mut connection = self.edge.connect();
        // The answer may be there, and the other side closed, before all is sent.
        let _ = connection.send(bytes);
        let response = connection.response().expect("an answer");
        if response.closes() {
            connection.time_to_close();
        }
        response.status
    }

    /// Sends bytes and closes the sending side; returns the status of the response, if any.
    /// Either way the connection has to end.
    #[track_caller]
    fn status_of_half(&self, bytes: &str) -> Option<u16> {
        let mut connection = self.edge.connect();
        connection.send(bytes).unwrap();
        connection.finish_sending();
        let response = connection.response();
        connection.time_to_close();
        response.ok().map(|response| response.status)
    }

    #[track_caller]
    fn assert_serves(&self) {
        self.origin.behave(Behaviour::Echo);
        assert_eq!(self.edge.get("/").status, 200, "serves on");
    }

    #[track_caller]
    fn assert_counted(&self, metric: &str, labels: &[&str]) {
        self.edge.admin.wait_for_metric(metric, labels, 1);
    }

    #[track_caller]
    fn assert_refused(&self, bytes: impl AsRef<[u8]>, status: u16, reason: &str) {
        assert_eq!(self.status_of(bytes), status);
        let reason = format!("reason=\"{reason}\"");
        self.assert_counted("clockwise_listener_bad_requests_total", &[&reason]);
        assert_eq!(self.origin.requests(), 0, "nothing of it reached the peer");
        self.assert_serves();
    }
}

// ── sizes

#[test]
fn limits_header_too_large_is_431() {
    let limited = LimitedEdge::to("{max_header_size: 4KiB}");
    let header = "x".repeat(5000);
    limited.assert_refused(
        format!("GET / HTTP/1.1\r\nHost: h\r\nX: {header}\r\n\r\n"),
        431,
        "header_too_large",
    );
}

#[test]
fn limits_too_many_header_lines_are_refused() {
    let limited = LimitedEdge::to("{}");
    let lines = "X-Bomb: 1\r\n".repeat(100_000);
    let status = limited.status_of(format!("GET / HTTP/1.1\r\nHost: h\r\n{lines}\r\n"));
    assert!([431, 400].contains(&status), "{status}");
    assert_eq!(limited.origin.requests(), 0);
    limited.assert_counted("clockwise_listener_bad_requests_total", &[]);
    limited.assert_serves();
}

#[test]
fn limits_header_line_without_end_is_refused() {
    let limited = LimitedEdge::to("{}");
    let status = limited.status_of(format!(
        "GET / HTTP/1.1\r\nHost: h\r\nX: {}",
        "x".repeat(3 << 20)
    ));
    assert!([431, 400].contains(&status), "{status}");
    limited.assert_serves();
}

#[test]
fn limits_target_too_long_is_414() {
    let limited = LimitedEdge::to("{max_uri_length: 1KiB}");
    assert_eq!(
        limited.edge.get(&format!("/{}", "x".repeat(1023))).status,
        200
    );
    let limited = LimitedEdge::to("{max_uri_length: 1KiB}");
    let target = format!("/{}", "x".repeat(1024));
    limited.assert_refused(
        format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"),
        414,
        "uri_too_long",
    );
}

#[test]
fn limits_content_length_over_the_limit_is_413() {
    let limited = LimitedEdge::to("{max_body_size: 1KiB}");
    assert_eq!(
        limited.edge.send(&Request::post("/", vec![0; 1024])).status,
        200
    );
    let limited = LimitedEdge::to("{max_body_size: 1KiB}");
    let request = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1025\r\n\r\n";
    limited.assert_refused(
        format!("{request}{}", "x".repeat(1025)),
        413,
        "body_too_large",
    );
}

#[test]
fn limits_chunked_body_over_the_limit_is_413() {
    let limited = LimitedEdge::to("{max_body_size: 1KiB}");
    let head = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = format!("200\r\n{}\r\n", "x".repeat(0x200));
    assert_eq!(
        limited.status_of(format!("{head}{}0\r\n\r\n", chunk.repeat(3))),
        413
    );
    limited.assert_counted(
        "clockwise_listener_bad_requests_total",
        &["reason=\"body_too_large\""],
    );
    limited.assert_serves();
}

#[test]
fn limits_apply_to_requests_that_ask_for_an_upgrade() {
    for protocol in ["x", "h2c", "websocket"] {
        let limited = LimitedEdge::to("{max_body_size: 1KiB}");
        let head = format!(
            "POST / HTTP/1.1\r\nHost: h\r\nUpgrade: {protocol}\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        let chunk = format!("200\r\n{}\r\n", "x".repeat(0x200));
        let status = limited.status_of(format!("{head}{}0\r\n\r\n", chunk.repeat(3)));
        assert_eq!(status, 413, "{protocol}");
    }
}

#[test]
fn limits_body_limit_of_a_route_takes_precedence() {
    let origin = Origin::start();
    let routes = "[{upstream: app}, {path: /up, upstream: app, max_body_size: off}]";
    let site = ConfigBuilder::of([origin.label()])
        .app("key", "client_ip")
        .top("routes", routes);
    let edge = site.downstream("{max_body_size: 10}").start();
    assert_eq!(edge.send(&Request::post("/", vec![0; 11])).status, 413);
    assert_eq!(
        edge.send(&Request::post("/up", vec![0; 100_000])).status,
        200
    );
}

// ── requests that make no sense

#[test]
fn invalid_chunk_closes_the_connection_with_400() {
    for chunks in [
        "zz\r\nabc\r\n",
        "5\r\nabc\r\n0\r\n\r\n",
        "-1\r\n",
        "ffffffffffffffffff\r\nx\r\n",
        "3\r\nabcdef\r\n",
    ] {
        let limited = LimitedEdge::to("{read_timeout: 1s}");
        let head = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
        let status = limited.status_of(format!("{head}{chunks}"));
        assert_eq!(status, 400, "{chunks:?}");
        limited.assert_serves();
        limited.assert_counted("clockwise_faults_total", &["fault=\"bad_request\""]);
    }
}

#[test]
fn conflicting_body_lengths_never_become_two_requests() {
    let limited = LimitedEdge::to("{}");
    let smuggled = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n\
                    0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";
    let mut connection = limited.edge.connect();
    connection.send(smuggled).unwrap();
    let first = connection.response().unwrap();
    // By the chunks, which count (RFC 9112 §6.3), the rest is a request of its own: both see it so, or none.
    let served = match first.status {
        200 => first.json()["target"].to_string(),
        status => status.to_string(),
    };
    assert!(["\"/\"", "400"].contains(&&*served), "{served}");
    assert!(first.closes(), "{first:?}");
    assert!(
        limited.origin.requests() <= 1,
        "the rest was taken for a request"
    );
    limited.assert_serves();
}

#[test]
fn input_that_is_not_http_is_refused() {
    let broken = [
        "\r\n\r\n\r\nnonsense\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\nHost: h\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nX : y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\u{7c}\x03\x03",
    ];
    for bytes in broken {
        let limited = LimitedEdge::to("{header_timeout: 2s}");
        let status = limited.status_of(bytes);
        assert!(
            [400, 408, 501, 505].contains(&status),
            "{status} for {bytes:?}"
        );
        assert_eq!(limited.origin.requests(), 0, "{bytes:?} reached the peer");
        limited.assert_counted("clockwise_listener_bad_requests_total", &[]);
        limited.assert_serves();
    }
}

#[test]
fn connect_method_is_405() {
    let limited = LimitedEdge::to("{}");
    let status =
        limited.status_of("CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n");
    assert_eq!(status, 405);
    limited.assert_counted("clockwise_faults_total", &["fault=\"method_not_allowed\""]);
    let malformed = limited.edge.admin.metric(
        "clockwise_listener_bad_requests_total",
        &["reason=\"malformed\""],
    );
    assert_eq!((malformed, limited.origin.requests()), (0, 0));
    limited.assert_serves();
}

// ── time

#[test]
fn header_timeout_closes_a_silent_connection() {
    let limited = LimitedEdge::to("{header_timeout: 1s}");
    let (_, life) = timed(|| limited.edge.connect().time_to_close());
    assert_about(life, Duration::from_secs(1));
    limited.assert_counted("clockwise_listener_header_timeouts_total", &[]);
    limited.assert_serves();
}

#[test]
fn header_timeout_of_a_partial_header_is_408() {
    let limited = LimitedEdge::to("{header_timeout: 1s}");
    let (status, took) = timed(|| limited.status_of("GET / HTTP/1.1\r\nHost: h\r\n"));
    assert_eq!(status, 408);
    assert_about(took, Duration::from_secs(1));
    limited.assert_counted("clockwise_listener_header_timeouts_total", &[]);
}

#[test]
fn header_timeout_is_not_extended_by_slow_bytes() {
    let limited = LimitedEdge::to("{header_timeout: 1s}");
    let ((), took) = timed(|| drip(limited.edge.connect()));
    assert_about(took, Duration::from_secs(1));
    limited.assert_serves();
}

#[test]
fn header_timeout_of_a_slow_second_header_closes_the_connection() {
    let limited = LimitedEdge::to("{header_timeout: 1s, keepalive: 30s}");
    let mut connection = limited.edge.connect();
    assert_eq!(connection.get("/").unwrap().status, 200);
    let ((), took) = timed(|| drip(connection));
    assert_about(took, Duration::from_secs(1));
}

/// Sends the start of a header and one more byte every 50 ms, as long as that is let be.
fn drip(mut connection: Connection) {
    let start = "GET / HTTP/1.1\r\nHost: h\r\nX: ";
    connection.send(start).unwrap();
    while connection.idles_for(Duration::from_millis(50)) && connection.send("x").is_ok() {}
}

#[test]
fn keepalive_timeout_closes_an_idle_connection() {
    let limited = LimitedEdge::to("{keepalive: 3s, header_timeout: 30s}");
    let mut connection = limited.edge.connect();
    assert_eq!(connection.get("/").unwrap().status, 200);
    let (_, took) = timed(|| {
        assert_eq!(connection.get("/").unwrap().status, 200);
        connection.time_to_close()
    });
    assert_about(took, Duration::from_secs(3));
    limited.assert_counted("clockwise_listener_idle_closed_connections_total", &[]);
}

#[test]
fn header_timeout_of_a_partial_second_header_is_408() {
    let limited = LimitedEdge::to("{keepalive: 30s, header_timeout: 1s}");
    let mut connection = limited.edge.connect();
    connection.get("/").unwrap();
    let (response, took) = timed(|| {
        connection.send("GET / HT").unwrap();
        connection.response()
    });
    assert_eq!(response.unwrap().status, 408);
    assert_about(took, Duration::from_secs(1));
}

#[test]
fn requests_per_connection_can_be_limited() {
    let limited = LimitedEdge::to("{keepalive_requests: 3}");
    let mut connection = limited.edge.connect();
    let closes: Vec<bool> = (0..3)
        .map(|_| connection.get("/").unwrap().closes())
        .collect();
    assert_eq!(closes, [false, false, true]);
    connection.time_to_close();
}

#[test]
fn request_body_timeout_is_408() {
    let limited = LimitedEdge::to("{read_timeout: 1s}");
    let half = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n123";
    let (status, took) = timed(|| limited.status_of(half));
    assert_eq!(status, 408);
    assert_about(took, Duration::from_secs(1));
    limited.assert_serves();
}

#[test]
fn client_that_does_not_read_times_out() {
    let limited = LimitedEdge::to("{write_timeout: 1s}");
    limited.origin.behave(Behaviour::Body(64 << 20));
    let mut connection = limited.edge.connect();
    let fault = ["fault=\"client_stalled\""];
    let ((), took) = timed(|| {
        connection
            .send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            .unwrap();
        limited.assert_counted("clockwise_faults_total", &fault);
    });
    assert_about(took, Duration::from_secs(1));
    assert!(connection.rest().map_or(0, |bytes| bytes.len()) < 64 << 20);
}

// ── ends that come too early

/// Bounds that no test waits for: what ends before them ended for another reason.
const PATIENT: &str = "{header_timeout: 5m, keepalive: 5m, read_timeout: 5m}";

#[test]
fn client_that_closes_within_a_request_is_released() {
    let limited = LimitedEdge::to(PATIENT);
    for bytes in [
        "",
        "G",
        "GET / HTTP/1.1\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n123",
    ] {
        let status = limited.status_of_half(bytes);
        assert!(
            [None, Some(400)].contains(&status),
            "{status:?} for {bytes:?}"
        );
    }
    limited.assert_serves();
}

#[test]
fn client_half_close_before_the_response_is_handled() {
    let limited = LimitedEdge::to(PATIENT);
    limited.origin.behave(Behaviour::Hold);
    // Whether the client has left or only stopped sending is unknown; the request may be aborted.
    let status = limited.status_of_half("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!([None, Some(200)].contains(&status), "{status:?}");
    limited.assert_counted("clockwise_client_aborts_total", &[]);
    limited.assert_serves();
}

#[test]
fn client_abort_frees_the_peer() {
    let limited = LimitedEdge::to("{}");
    limited.origin.behave(Behaviour::Stall(100_000, 1 << 20));
    let mut connection = limited.edge.connect();
    connection
        .send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        .unwrap();
    connection.head().unwrap();
    drop(connection);
    limited.assert_counted("clockwise_client_aborts_total", &[]);
    let in_flight = || limited.edge.admin.metric("clockwise_peer_in_flight", &[]);
    wait::until("the peer to be free", || in_flight() == 0);
    limited.assert_serves();
}

// ── how many

#[test]
fn connections_over_the_limit_wait_until_one_closes() {
    let limited = LimitedEdge::to("{max_connections: 2}");
    let mut connections = [limited.edge.connect(), limited.edge.connect()];
    limited.edge.admin.wait_for_metric(
        "clockwise_listener_accepted_connections_total",
        &["listener=\"127"],
        2,
    );
    let mut third = limited.edge.connect();
    third.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    assert!(third.idles_for(Duration::from_millis(300)));
    limited.assert_counted("clockwise_listener_full_total", &[]);
    let inside = connections[0].get("/").unwrap();
    assert!(
        inside.status == 200 && inside.closes(),
        "makes room: {inside:?}"
    );
    assert_eq!(third.response().unwrap().status, 200);
}
