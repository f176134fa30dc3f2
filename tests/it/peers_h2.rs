//! HTTP/2 to peers: many requests on one connection, and no request lost when it ends.

use std::thread;

use crate::http2::H2C;
use crate::support::client::Request;
use crate::support::edge::{ConfigBuilder, Edge};
use crate::support::http2::{Answer, Client, Frame, code, flag, request};
use crate::support::http2_origin::{
    ENHANCE_YOUR_CALM, Http2Behaviour, INTERNAL_ERROR, NO_ERROR, Origin, REFUSED_STREAM,
};
use crate::support::load::keys;
use crate::support::origin::{self, Behaviour};
use crate::support::{port, process, wait};

const CONNECT_FAILURES: &str = "clockwise_peer_connect_failures_total";

fn site(origins: &[&Origin]) -> ConfigBuilder {
    let labels = origins.iter().map(|origin| origin.label());
    ConfigBuilder::of(labels).app("protocol", "h2c")
}

/// An edge that ejects a peer after its first failure, so that a test sees every failure.
fn strict(origins: &[&Origin]) -> Edge {
    let site = site(origins).app("outlier_detection", "{failures: 1, eject: 60s}");
    site.start()
}

#[track_caller]
fn answered(edge: &Edge, request: &Request) -> String {
    let response = edge.send(request);
    assert_eq!(response.status, 200, "{response:?}");
    edge.settle();
    response.text()
}

fn post() -> Request {
    Request::post("/?k=a", vec![b'x'; 10_000])
}

#[test]
fn upstream_h2_requests_share_a_connection() {
    let origin = Origin::start(&[]);
    let edge = site(&[&origin]).start();
    for number in 0..4 {
        let text = answered(&edge, &Request::get("/?k=a"));
        assert_eq!(text, format!("connection 1 stream {}", 2 * number + 1));
    }
    assert_eq!(answered(&edge, &post()), "connection 1 stream 9");
}

#[test]
fn upstream_h2_reload_with_other_settings_of_connections_opens_a_new_one() {
    let origin = Origin::start(&[]);
    let with = |h2: &str| site(&[&origin]).app("h2", h2);
    let edge = with("{}").start();
    for (number, h2) in [
        "{}",
        "{window: 64KiB}",
        "{window: 64KiB, ping: 1h}",
        "{window: 64KiB, ping: 1h, max_streams: 99}",
        "{window: 16KiB, ping: 1h, max_streams: 99}",
    ]
    .into_iter()
    .enumerate()
    {
        edge.rewrite(&with(h2).yaml());
        assert!(edge.command(&["reload"]).status.success());
        for stream in [1, 3] {
            let text = answered(&edge, &Request::get("/?k=a"));
            let expected = format!("connection {} stream {stream}", number + 1);
            assert_eq!(text, expected, "{h2}");
        }
    }
}

#[test]
fn upstream_h2_concurrent_streams_limit_opens_another_connection() {
    let origin = Origin::start(&[Http2Behaviour::Hold; 6]);
    let edge = site(&[&origin]).app("h2", "{max_streams: 3}").start();
    thread::scope(|scope| {
        let ask = |number| {
            let asked = scope.spawn(|| answered(&edge, &Request::get("/?k=a")));
            wait::until("it to be asked", || origin.requests() == number);
            asked
        };
        let asking: Vec<_> = (1..=6).map(ask).collect();
        origin.release();
        for asked in asking {
            asked.join().unwrap();
        }
    });
    assert_eq!(origin.connections(), 2);
}

#[test]
fn upstream_h2_unprocessed_request_is_retried_even_a_post() {
    for act in [
        Http2Behaviour::Reset(REFUSED_STREAM),
        Http2Behaviour::ResetEarly(REFUSED_STREAM),
        Http2Behaviour::GoAway(NO_ERROR),
        Http2Behaviour::GoAway(ENHANCE_YOUR_CALM),
    ] {
        for request in [post(), Request::get("/?k=a")] {
            let origin = Origin::start(&[Http2Behaviour::Answer, act]);
            let edge = strict(&[&origin]);
            answered(&edge, &request);
            assert_eq!(
                answered(&edge, &request),
                "connection 2 stream 1",
                "{act:?}"
            );
            assert_eq!(edge.admin.metric(CONNECT_FAILURES, &[]), 0);
        }
    }
}

#[test]
fn upstream_h2_peer_that_keeps_refusing_is_replaced_by_the_next() {
    let refusals = [Http2Behaviour::Reset(REFUSED_STREAM); 2];
    let origins = [Origin::start(&refusals), Origin::start(&refusals)];
    let edge = site(&[&origins[0], &origins[1]])
        .app("retry", "{attempts: 2}")
        .start();
    // Both refuse twice: the first attempt and the fresh one of each.
    let refused = edge.send(&post());
    assert_eq!(refused.status, 502, "{refused:?}");
    assert_eq!([origins[0].requests(), origins[1].requests()], [2, 2]);
    answered(&edge, &post());
}

/// An instance with two peers and a known connection to the second, which takes no byte of a body; the first peer
/// refuses two requests. With it, a key of each peer.
fn before_a_blocked_retry(acts: &[Http2Behaviour]) -> (Edge, [Origin; 2], [String; 2]) {
    let refusals = [Http2Behaviour::ResetEarly(REFUSED_STREAM); 2];
    let acts = [&[Http2Behaviour::Answer; 2], acts].concat();
    let origins = [Origin::start(&refusals), Origin::without_window(&acts)];
    let site = site(&[&origins[0], &origins[1]]).top("listeners", H2C);
    let edge = site.app("retry", "{attempts: 2}").start();
    let keys = keys(50);
    let owners = edge.predict(&keys, 1);
    let key_of = |origin: &Origin| {
        let owned = |(_, walk): &(&String, &Vec<String>)| walk[0] == origin.label();
        let (key, _) = keys.iter().zip(&owners).find(owned).expect("one of fifty");
        key.clone()
    };
    let keys = [key_of(&origins[0]), key_of(&origins[1])];
    // Requests of both versions of HTTP, as each has its own connections to a peer.
    let warm = format!("/?k={}", keys[1]);
    answered(&edge, &Request::get(&warm));
    assert_eq!(Client::open(edge.address).get(&warm).statuses, [200]);
    (edge, origins, keys)
}

#[test]
fn upstream_h2_refusal_while_a_retried_body_is_blocked_is_retried() {
    let refusal = Http2Behaviour::ResetEarly(REFUSED_STREAM);
    let (edge, origins, keys) = before_a_blocked_retry(&[refusal, Http2Behaviour::AnswerEarly]);
    let post = Request::post(&format!("/?k={}", keys[0]), vec![b'x'; 10_000]);
    assert_eq!(answered(&edge, &post), "early");
    assert_eq!([origins[0].requests(), origins[1].requests()], [2, 4]);
}

#[test]
fn upstream_h2_early_response_while_a_retried_body_is_blocked_is_forwarded() {
    let (edge, _origins, keys) = before_a_blocked_retry(&[Http2Behaviour::AnswerEarly]);
    let post = Request::post(&format!("/?k={}", keys[0]), vec![b'x'; 10_000]);
    assert_eq!(answered(&edge, &post), "early");
}

#[test]
fn upstream_h2_possibly_processed_post_is_not_retried() {
    let origins = [
        Origin::start(&[Http2Behaviour::Reset(INTERNAL_ERROR)]),
        Origin::start(&[Http2Behaviour::Reset(INTERNAL_ERROR)]),
    ];
    let edge = site(&[&origins[0], &origins[1]])
        .app("retry", "{attempts: 3}")
        .start();
    assert_eq!(edge.send(&post()).status, 502);
    assert_eq!(origins[0].requests() + origins[1].requests(), 1);
    let got = edge.get("/?k=a");
    assert_eq!(got.status, 200, "a GET may be repeated: {got:?}");
}

#[test]
fn upstream_h2_closed_connection_is_not_a_peer_failure() {
    for act in [Http2Behaviour::LastAnswer, Http2Behaviour::Vanish] {
        let origin = Origin::start(&[act; 3]);
        let edge = strict(&[&origin]);
        for number in 1..=4 {
            let text = answered(&edge, &post());
            assert_eq!(text, format!("connection {number} stream 1"), "{act:?}");
            if number < 4 {
                wait::until("the end", || origin.closed() == number);
            }
        }
        assert_eq!(edge.admin.metric(CONNECT_FAILURES, &[]), 0, "{act:?}");
    }
}

#[test]
fn upstream_h2_http1_client_gets_the_whole_body() {
    let origin = Origin::start(&[Http2Behaviour::Trailers, Http2Behaviour::Trailers]);
    let edge = site(&[&origin]).start();
    assert_eq!(
        answered(&edge, &Request::get("/?k=a")),
        "connection 1 stream 1"
    );
    let mut old = edge.connect();
    old.send("GET /?k=a HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!(old.response().unwrap().text(), "connection 1 stream 3");
}

#[test]
fn upstream_h2_tunnel_uses_http1() {
    let origin = origin::Origin::behaving(Behaviour::Upgrade);
    let edge = ConfigBuilder::of([origin.label()])
        .app("protocol", "h2c")
        .start();
    let mut socket = edge.connect();
    let request = "GET /?k=a HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    socket.send(request).unwrap();
    assert_eq!(socket.head().unwrap().status, 101);
    socket.send("word").unwrap();
    assert_eq!(socket.exactly(4).unwrap(), b"word");
}

#[test]
fn upstream_h2_probes_use_http2() {
    let origin = Origin::start(&[]);
    let health = "{http: /, interval: 1s, timeout: 1s, fall: 1, rise: 1}";
    let edge = site(&[&origin]).app("health", health).start();
    edge.admin.wait_for_state("app", &origin.label(), "up");
    wait::until("several probes", || origin.requests() >= 3);
    assert!(
        origin.closed() >= 2,
        "each on a connection of its own, which ends"
    );
    let old = origin::Origin::start();
    let edge = ConfigBuilder::of([old.label()]).app("protocol", "h2c");
    let edge = edge.app("health", health).start();
    edge.admin.wait_for_state("app", &old.label(), "down");
}

#[test]
fn upstream_h2_works_with_nghttpd() {
    let address = port::free();
    let directory = tempfile::tempdir().unwrap();
    let page = "x".repeat(300_000);
    std::fs::write(directory.path().join("page"), &page).unwrap();
    let mut command = std::process::Command::new("nghttpd");
    let ip = address.ip().to_string();
    command
        .args(["--no-tls", "--address", &ip, "--htdocs"])
        .arg(directory.path())
        .arg(address.port().to_string());
    let _server = process::Process::spawn(&mut command);
    wait::until("nghttpd to listen", || {
        std::net::TcpStream::connect(address).is_ok()
    });
    let edge = ConfigBuilder::of([address]).app("protocol", "h2c").start();
    for _ in 0..3 {
        assert_eq!(edge.get("/page?k=a").text(), page);
    }
    assert_eq!(edge.get("/other?k=a").status, 404);
}

#[test]
fn upstream_h2_host_invalid_as_authority_is_400() {
    let origin = Origin::start(&[]);
    let edge = site(&[&origin]).top("listeners", H2C).start();
    let mut client = Client::open(edge.address);
    let mut ask = |host: &str| {
        let fields = [
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/?k=a"),
            // As `:authority`, most of these are malformed on HTTP/2 itself.
            ("host", host),
        ];
        let old = edge.send(&Request::get("/?k=a").header("Host", host));
        (old.status, client.ask(&fields).statuses)
    };
    let good = [
        "a.test",
        "a.test:",
        "a.test:8080",
        "a_b",
        "[::1]",
        "[::1]:80",
    ];
    for host in good {
        assert_eq!(ask(host), (200, vec![200]), "{host}");
    }
    let bad = [
        "a:b:c", "[::1", "::1]", "a%zz", "a:b", "a:+80", "a:65536", "[::1]80",
    ];
    for host in bad {
        assert_eq!(ask(host), (400, vec![400]), "{host}");
    }
    assert_eq!(origin.requests(), 2 * good.len());
    let refused = u64::try_from(2 * bad.len()).unwrap();
    edge.admin
        .wait_for_metric("clockwise_faults_total", &["fault=\"bad_host\""], refused);
}

// ── asked by clients of HTTP/2

/// Larger than the window that the origin gives.
const LARGE: usize = 200_000;

fn both(origin: &Origin) -> ConfigBuilder {
    let site = site(&[origin]).top("listeners", H2C);
    site.app("outlier_detection", "{failures: 1, eject: 60s}")
}

fn begin_post(client: &mut Client, length: usize) -> u32 {
    let stream = client.begin(0, &request("POST", "/?k=a"));
    let body = vec![b'x'; length];
    let last = length.saturating_sub(1) / 16_384;
    for (number, piece) in body.chunks(16_384).enumerate() {
        let end = if number == last { flag::END_STREAM } else { 0 };
        client.send(&Frame::data(stream, end, piece)).unwrap();
    }
    stream
}

fn post_by_http_2(edge: &Edge, length: usize) -> Answer {
    let mut client = Client::open(edge.address);
    let stream = begin_post(&mut client, length);
    client.answer(stream)
}

#[track_caller]
fn assert_said(answer: &Answer, status: u16, said: &str) {
    assert_eq!(answer.statuses.first(), Some(&status), "{answer:?}");
    assert_eq!(String::from_utf8_lossy(&answer.body), said);
}

#[test]
fn upstream_h2_requests_of_http2_clients_share_a_connection() {
    let origin = Origin::start(&[]);
    let edge = both(&origin).start();
    let mut client = Client::open(edge.address);
    assert_said(&client.get("/?k=a"), 200, "connection 1 stream 1");
    let stream = begin_post(&mut client, 10_000);
    assert_said(&client.answer(stream), 200, "connection 1 stream 3");
    assert_said(&client.get("/?k=a"), 200, "connection 1 stream 5");
}

#[test]
fn upstream_h2_unprocessed_request_of_an_http2_client_is_retried() {
    for act in [
        Http2Behaviour::Reset(REFUSED_STREAM),
        Http2Behaviour::ResetEarly(REFUSED_STREAM),
        Http2Behaviour::GoAway(NO_ERROR),
        Http2Behaviour::GoAway(ENHANCE_YOUR_CALM),
    ] {
        let origin = Origin::start(&[Http2Behaviour::Answer, act]);
        let edge = both(&origin).start();
        assert_said(&post_by_http_2(&edge, 10_000), 200, "connection 1 stream 1");
        edge.settle();
        assert_said(&post_by_http_2(&edge, 10_000), 200, "connection 2 stream 1");
        assert_eq!(edge.admin.metric(CONNECT_FAILURES, &[]), 0, "{act:?}");
    }
}

#[test]
fn upstream_h2_possibly_processed_post_of_an_http2_client_is_not_retried() {
    let origin = Origin::start(&[Http2Behaviour::Reset(INTERNAL_ERROR)]);
    let edge = both(&origin).app("retry", "{attempts: 3}").start();
    assert_eq!(post_by_http_2(&edge, 10_000).statuses, [502]);
    assert_eq!(origin.requests(), 1);
}

#[test]
fn upstream_h2_early_response_is_forwarded_while_the_upload_is_blocked() {
    let origin = Origin::start(&[Http2Behaviour::AnswerEarly]);
    let edge = both(&origin).start();
    let early = post_by_http_2(&edge, LARGE);
    assert_said(&early, 200, "early");
    assert_eq!(early.reset, None);
}

#[test]
fn upstream_h2_peer_that_reads_no_body_is_504() {
    let origin = Origin::start(&[]);
    let edge = both(&origin).app("timeouts", "{write: 500ms}").start();
    assert_said(&post_by_http_2(&edge, LARGE), 504, "504 send_timeout\n");
}

#[test]
fn upstream_h2_body_over_the_limit_is_413_at_once() {
    let origin = Origin::start(&[]);
    let edge = both(&origin).downstream("{max_body_size: 1000}").start();
    let refused = post_by_http_2(&edge, 10_000);
    assert_said(&refused, 413, "413 body_too_large\n");
}

#[test]
fn upstream_h2_client_reset_of_a_blocked_upload_frees_the_peer() {
    let origin = Origin::start(&[]);
    let edge = both(&origin).start();
    let mut client = Client::open(edge.address);
    let stream = begin_post(&mut client, LARGE);
    edge.admin
        .wait_for_metric("clockwise_peer_in_flight", &[], 1);
    client.send(&Frame::reset(stream, code::CANCEL)).unwrap();
    edge.admin
        .wait_for_metric("clockwise_peer_in_flight", &[], 0);
}
