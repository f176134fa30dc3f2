//! HTTP/2 from clients: the same behaviour as over HTTP/1, and the features that only HTTP/2 has. Tested with
//! real clients, and with one that shows each frame.

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::support::curl::curl as curl_command;
use crate::support::edge::{ConfigBuilder, Edge};
use crate::support::http2::{Client, Frame, Outcome, code, flag, get, kind, request, status};
use crate::support::http2_origin::{self, Http2Behaviour};
use crate::support::origin::{Behaviour, Origin};
use crate::support::port::ClosedPort;
use crate::support::raw_peer::EdgeWithRawPeer;
use crate::support::tls::Authority;
use crate::support::wait::{self, assert_about, timed};

pub(crate) const H2C: &str = "[{address: \"127.0.0.1:0\", h2c: true}]";
/// A setting (RFC 9113 §6.5.2).
const INITIAL_WINDOW_SIZE: u16 = 4;
const SECOND: Duration = Duration::from_secs(1);
const EVENT: &[u8] = b"9\r\ndata: 1\n\n\r\n";

/// One origin behind an instance that takes HTTP/2 without TLS.
fn start(downstream: &str) -> (Edge, Origin) {
    let origin = Origin::start();
    let edge = site(&origin).downstream(downstream).start();
    (edge, origin)
}

fn site(origin: &Origin) -> ConfigBuilder {
    ConfigBuilder::of([origin.label()])
        .app("key", "[{query: k}, client_ip]")
        .top("listeners", H2C)
}

fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program)
        .args(arguments)
        .output()
        .expect(program)
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = run(program, arguments);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn curl(edge: &Edge, path: &str, more: &[&str]) -> String {
    let url = format!("http://{}{path}", edge.address);
    let output = curl_command()
        .args(more)
        .args(["--http2-prior-knowledge", &url])
        .output()
        .expect("curl");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn chunked(first: &[u8]) -> Behaviour {
    let head =
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    Behaviour::Raw([head, first].concat())
}

/// Each waits for the one before to have arrived: nothing may be held back.
#[test]
fn http2_streamed_pieces_are_forwarded_without_delay() {
    let scene = EdgeWithRawPeer::with(|site| site.top("listeners", H2C));
    let mut client = Client::open(scene.edge.address);
    let stream = client.begin(flag::END_STREAM, &get("/"));
    let mut peer = scene.peer.accept();
    peer.read_request().unwrap();
    let head = "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n";
    peer.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n")).unwrap();
    assert_eq!(client.next_of(stream).kind, kind::HEADERS);
    for _ in 0..20 {
        peer.send(EVENT).unwrap();
        let frame = client.next_of(stream);
        assert_eq!((frame.kind, &*frame.payload), (kind::DATA, &EVENT[3..12]));
    }
}

#[test]
fn connection_to_a_peer_is_used_again_by_clients_of_both_versions() {
    const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let scene = EdgeWithRawPeer::with(|site| site.top("listeners", H2C));
    let mut http1 = scene.edge.connect();
    let mut http2 = Client::open(scene.edge.address);
    http1.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    let mut peer = scene.peer.accept();
    for turn in 0..4 {
        peer.read_request().unwrap();
        peer.send(OK).unwrap();
        if turn % 2 == 0 {
            assert_eq!(http1.response().unwrap().status, 200);
            scene.edge.settle();
            http2.begin(flag::END_STREAM, &get("/"));
        } else {
            assert_eq!(http2.answer(turn).statuses, [200]);
            scene.edge.settle();
            http1.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        }
    }
}

// ── real clients

#[test]
fn http2_curl_works_with_prior_knowledge_and_tls() {
    let origin = Origin::start();
    let edge = site(&origin)
        .top("access_log", "{path: access.log}")
        .start();
    let answer = curl(&edge, "/a?k=1", &["--write-out", "%{http_version}"]);
    assert!(answer.ends_with("}2"), "{answer}");
    let line = &edge.log_lines(1)[0];
    assert_eq!(line["protocol"], "HTTP/2", "{line}");
    assert_eq!(
        (&line["path"], &line["status"]),
        (&"/a".into(), &200.into())
    );
    assert_eq!(line["host"], edge.address.to_string());
    edge.admin
        .wait_for_metric("clockwise_listener_http2_connections_total", &[], 1);
    edge.admin
        .wait_for_metric("clockwise_listener_http2_streams_total", &[], 1);

    let authority = Authority::new();
    let pair = authority.issue("a", &["a.test"]);
    let listen = |more: &str| {
        let tls = pair.replace('}', &format!("{more}}}"));
        format!("[{{address: \"127.0.0.1:0\", tls: {tls}}}]")
    };
    let version = ["--write-out", "%{http_version}", "--http2"];
    for (more, spoken) in [
        ("", "}2"),
        (", http2: true", "}2"),
        (", http2: false", "}1.1"),
    ] {
        let edge = site(&origin).top("listeners", &listen(more)).start();
        let answer = authority.curl("a.test", edge.address, &version);
        assert!(answer.ends_with(spoken), "{more}: {answer}");
    }
}

#[test]
fn http2_nghttp_multiplexes_50_requests() {
    let (edge, _origin) = start("{}");
    let urls: Vec<_> = (0..50)
        .map(|n| format!("http://{}/{n}", edge.address))
        .collect();
    let urls: Vec<_> = urls.iter().map(String::as_str).collect();
    let text = said(
        "nghttp",
        &[&["--verbose", "--null-out"], &urls[..]].concat(),
    );
    assert_eq!(text.matches(":status: 200").count(), 50, "{text}");
    assert!(
        text.contains("SETTINGS_MAX_CONCURRENT_STREAMS(0x03):100"),
        "{text}"
    );
}

#[test]
fn http2_bodies_of_any_size_are_forwarded_both_ways() {
    let (edge, origin) = start("{}");
    let file = edge.directory().join("upload");
    fs::write(&file, vec![b'x'; 3_000_000]).unwrap();
    let upload = format!("@{}", file.display());
    for more in [
        &["--data-binary", &upload][..],
        &["--data-binary", &upload, "--header", "content-length:"],
    ] {
        let answer: Value = serde_json::from_str(&curl(&edge, "/?k=a", more)).unwrap();
        assert_eq!(answer["length"], 3_000_000, "{answer}");
    }
    origin.behave(Behaviour::Body(5_000_000));
    assert_eq!(curl(&edge, "/?k=a", &[]).len(), 5_000_000);
    assert_eq!(
        curl(&edge, "/?k=a", &["--head"])
            .matches("content-length: 5000000")
            .count(),
        1
    );
}

#[test]
fn http2_h2load_gets_every_response() {
    let (edge, _origin) = start("{}");
    let url = format!("http://{}/?k=a", edge.address);
    let text = said("h2load", &["-n", "20000", "-c", "20", "-m", "10", &url]);
    assert!(
        text.contains("20000 succeeded, 0 failed, 0 errored"),
        "{text}"
    );
}

// ── on the same port as HTTP/1

#[test]
fn http1_on_an_h2c_port_is_answered_at_once() {
    let (edge, _origin) = start("{header_timeout: 5s}");
    let short = timed(|| {
        let mut client = edge.connect();
        client.send("OPTIONS / HTTP/1.0\r\n\r\n").unwrap();
        client.response().unwrap().status
    });
    assert_eq!(short.0, 200);
    assert!(short.1 < 4 * SECOND, "{:?}", short.1);
    for start in ["", "P", "PRI * HTTP/2.0\r\n\r\nS"] {
        let mut client = edge.connect();
        client.send(&start[..start.len().min(1)]).unwrap();
        client
            .send("UT /?k=a HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
            .unwrap();
        let expected = if start.is_empty() { 400 } else { 200 };
        assert!([200, 400, expected].contains(&client.response().unwrap().status));
    }
    let mut connection = edge.connect();
    for _ in 0..3 {
        assert_eq!(connection.get("/?k=a").unwrap().status, 200);
    }
}

#[test]
fn http2_slow_connection_preface_times_out() {
    let (edge, _origin) = start("{header_timeout: 1s}");
    let mut silent = edge.connect();
    assert_about(silent.time_to_close(), SECOND);
    let mut half = edge.connect();
    half.send("PRI * HTTP/2.0\r\n").unwrap();
    assert_eq!(half.response().unwrap().status, 408);
    let mut other = edge.connect();
    other.send("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n").unwrap();
    // As HTTP/1, the bytes are a request of another version (RFC 9110 §15.6.6).
    assert!([400, 505].contains(&other.response().unwrap().status));
}

#[test]
fn http2_without_h2c_is_refused() {
    let origin = Origin::start();
    let edge = ConfigBuilder::of([origin.label()]).start();
    let mut client = edge.connect();
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    assert!([400, 505].contains(&client.response().unwrap().status));
}

// ── what a request is

#[test]
fn http2_request_reaches_the_peer_as_http1() {
    let (edge, _origin) = start("{}");
    let mut client = Client::open(edge.address);
    let mut fields = get("/x?k=a");
    fields.extend([
        ("cookie", "a=1"),
        ("te", "trailers"),
        ("cookie", "b=2"),
        ("x-a", "b"),
    ]);
    let answer = client.ask(&fields);
    assert_eq!(answer.statuses, [200]);
    let seen = answer.json();
    assert_eq!(seen["target"], "/x?k=a");
    assert_eq!(seen["version"], "HTTP/1.1");
    let headers = seen["headers"].as_array().unwrap().iter();
    let of = |name: &str| -> Vec<String> {
        let named = headers
            .clone()
            .filter(|pair| pair[0].as_str().unwrap().eq_ignore_ascii_case(name));
        named
            .map(|pair| pair[1].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(of("host"), ["test"]);
    assert_eq!(of("cookie"), ["a=1; b=2"]);
    assert_eq!(of("x-a"), ["b"]);
    assert_eq!(of("x-forwarded-host"), ["test"]);
    assert_eq!(of("x-forwarded-proto"), ["http"]);
}

#[test]
fn http2_key_is_found_in_any_cookie_field() {
    let origins: Vec<_> = (0..4).map(|_| Origin::named()).collect();
    let site = ConfigBuilder::of(origins.iter().map(Origin::label)).app("key", "{cookie: sid}");
    let edge = site.top("listeners", H2C).start();
    let mut client = Client::open(edge.address);
    for key in ["a", "b", "c", "d", "e", "f"] {
        let sid = format!("sid={key}");
        let mut fields = get("/");
        fields.extend([
            ("cookie", "x=1"),
            ("cookie", sid.as_str()),
            ("cookie", "y=2"),
        ]);
        let walk = edge.admin.walk("app", key);
        assert_eq!(
            String::from_utf8(client.ask(&fields).body).unwrap(),
            walk[0]
        );
    }
}

#[test]
fn http2_request_without_an_http1_form_is_refused() {
    let (edge, origin) = start("{max_uri_length: 100, max_header_size: 1KiB}");
    let mut client = Client::open(edge.address);
    let long = format!("/{}", "x".repeat(100));
    let large = "x".repeat(1000);
    let with = |path, more: &[(&'static str, &'static str)]| [&get(path)[..], more].concat();
    let cases = [
        (with("/", &[("host", "other")]), 400),
        (with("/", &[("host", "test"), ("host", "test2")]), 400),
        (with("http://test/", &[]), 400),
        (with("x", &[]), 400),
        (with("*", &[]), 400),
        (request("GET", &long), 414),
        (
            [&get("/")[..], &[("x-large", large.as_str())]].concat(),
            431,
        ),
        (get("/")[..3].to_vec(), 400),
        (vec![(":method", "CONNECT"), (":authority", "test:80")], 405),
        (
            vec![
                (":method", "GET"),
                (":scheme", "http"),
                (":path", "/"),
                (":authority", "a b"),
            ],
            400,
        ),
    ];
    for (fields, expected) in cases {
        let answer = client.ask(&fields);
        let refused = answer.statuses == [expected] || answer.reset == Some(code::PROTOCOL_ERROR);
        assert!(refused, "{fields:?}: {answer:?}");
    }
    assert_eq!(origin.requests(), 0);
    assert_eq!(
        client.ask(&with("/", &[("host", "TEST")])).statuses,
        [200],
        "the same host twice"
    );
    for (reason, count) in [("host", 2), ("uri_too_long", 1), ("header_too_large", 1)] {
        let label = format!("reason=\"{reason}\"");
        edge.admin
            .wait_for_metric("clockwise_listener_bad_requests_total", &[&label], count);
    }
}

#[test]
fn http2_header_far_over_the_limit_is_431() {
    let (edge, _origin) = start("{max_header_size: 1KiB}");
    let mut client = Client::open(edge.address);
    let huge = "x".repeat(7000);
    let fields = [&get("/")[..], &[("x-large", huge.as_str())]].concat();
    assert_eq!(client.ask(&fields).statuses, [431]);
    assert_eq!(client.get("/?k=a").statuses, [200]);
    drop(client);
    edge.admin
        .wait_for_metric("clockwise_listener_http2_refused_streams_total", &[], 1);
}

/// The peer has answered, and had the four bytes of the body.
#[track_caller]
fn assert_body_came(client: &mut Client, stream: u32) {
    let answer = client.answer(stream);
    assert_eq!(
        (&answer.statuses[..], &answer.json()["length"]),
        (&[200][..], &4.into())
    );
}

#[test]
fn http2_interim_responses_are_forwarded() {
    let (edge, origin) = start("{}");
    origin.behave(Behaviour::Continue);
    let mut client = Client::open(edge.address);
    let mut fields = request("POST", "/?k=a");
    fields.push(("expect", "100-continue"));
    let stream = client.begin(0, &fields);
    let interim = client.next_of(stream);
    assert_eq!(status(&interim), 100);
    client
        .send(&Frame::data(stream, flag::END_STREAM, *b"body"))
        .unwrap();
    assert_body_came(&mut client, stream);
}

const EMPTY_OK: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// An instance in front of a raw peer, and one that reaches the same peer over HTTP/2 through it.
fn http1_and_http2_to_one_peer() -> (EdgeWithRawPeer, Edge) {
    let near = EdgeWithRawPeer::with(|site| site.top("listeners", H2C));
    let far = ConfigBuilder::of([near.edge.address]).top("listeners", H2C);
    (near, far.app("protocol", "h2c").start())
}

#[test]
fn http2_request_trailers_reach_peers_of_both_versions() {
    let (near, far) = http1_and_http2_to_one_peer();
    let trailers = [("x-sum", "1"), ("host", "other.test")];
    for edge in [&near.edge, &far] {
        for (body, length, expected) in [
            (&b"body"[..], None, "4\r\nbody\r\n0\r\nx-sum: 1\r\n\r\n"),
            (b"", None, "0\r\nx-sum: 1\r\n\r\n"),
            // RFC 9112 §7.1.2: only chunks have trailers.
            (b"body", Some("4"), "body"),
        ] {
            let mut client = Client::open(edge.address);
            let mut fields = request("POST", "/?k=a");
            fields.extend(length.map(|length| ("content-length", length)));
            let stream = client.begin(0, &fields);
            client.send(&Frame::data(stream, 0, body)).unwrap();
            let end = Frame::headers(stream, flag::END_STREAM, &trailers);
            client.send(&end).unwrap();
            let mut peer = near.peer.accept();
            peer.read_request().unwrap();
            let received = peer.exactly(expected.len()).unwrap();
            assert_eq!(String::from_utf8(received).unwrap(), expected);
            peer.send(EMPTY_OK).unwrap();
            assert_eq!(client.answer(stream).statuses, [200]);
        }
    }
}

#[test]
fn http1_request_trailers_reach_an_http2_peer() {
    let (near, far) = http1_and_http2_to_one_peer();
    for chunks in ["2\r\nhi\r\n", ""] {
        let mut client = far.connect();
        client
            .send(format!(
                "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\
                 {chunks}0\r\nX-Sum: 1\r\nHost: other.test\r\n\r\n"
            ))
            .unwrap();
        let mut peer = near.peer.accept();
        peer.read_request().unwrap();
        let expected = format!("{chunks}0\r\nx-sum: 1\r\n\r\n");
        let received = peer.exactly(expected.len()).unwrap();
        assert_eq!(String::from_utf8(received).unwrap(), expected);
        peer.send(EMPTY_OK).unwrap();
        assert_eq!(client.response().unwrap().status, 200);
    }
}

#[test]
fn http2_request_body_is_resent_to_the_next_peer() {
    let (closed, origin) = (ClosedPort::new(), Origin::start());
    let site = ConfigBuilder::of([closed.address.to_string(), origin.label()]);
    let edge = site
        .app("retry", "{attempts: 2}")
        .top("listeners", H2C)
        .start();
    let mut client = Client::open(edge.address);
    for key in ["a", "b", "c", "d", "e", "f"] {
        let path = format!("/?k={key}");
        let stream = client.begin(0, &request("PUT", &path));
        client
            .send(&Frame::data(stream, flag::END_STREAM, *b"body"))
            .unwrap();
        assert_body_came(&mut client, stream);
    }
}

#[test]
fn http2_sticky_cookie_and_redirect_work() {
    let origin = Origin::start();
    let key = "{cookie: {name: cw, generate: true, ttl: 1h}}";
    let edge = site(&origin).app("key", key).start();
    let headers = curl(&edge, "/", &["--dump-header", "-"]);
    assert!(headers.contains("set-cookie: cw="), "{headers}");
    let redirect = "[{address: \"127.0.0.1:0\", h2c: true, https_redirect: 8443}]";
    let edge = site(&origin).top("listeners", redirect).start();
    let headers = curl(&edge, "/x?y", &["--dump-header", "-"]);
    assert!(headers.starts_with("HTTP/2 308"), "{headers}");
    assert!(
        headers.contains("location: https://127.0.0.1:8443/x?y"),
        "{headers}"
    );
}

#[test]
fn http2_authority_other_than_sni_is_421() {
    let (origin, authority) = (Origin::start(), Authority::new());
    let pair = authority.issue("a", &["a.test"]);
    authority.issue("client", &["me"]);
    let ca = authority.path("ca.crt").display().to_string();
    let auth = format!(", client_auth: {{mode: required, ca: {ca}}}, hsts: {{max_age: 1h}}}}");
    let tls = pair.replace('}', &auth);
    let listeners = format!("[{{address: \"127.0.0.1:0\", tls: {tls}}}]");
    let edge = site(&origin).top("listeners", &listeners).start();
    let path = |file: &str| authority.path(file).display().to_string();
    let (cert, key) = (path("client.crt"), path("client.key"));
    let shown = [
        "--http2",
        "--cert",
        &cert,
        "--key",
        &key,
        "--dump-header",
        "-",
    ];
    let good = authority.curl("a.test", edge.address, &shown);
    assert!(good.starts_with("HTTP/2 200"), "{good}");
    assert!(
        good.contains("strict-transport-security: max-age=3600"),
        "{good}"
    );
    let other = [&shown[..], &["--header", "host: b.test"]].concat();
    let bad = authority.curl("a.test", edge.address, &other);
    assert!(bad.starts_with("HTTP/2 421"), "{bad}");
}

// ── streams

#[test]
fn http2_event_is_forwarded_while_the_response_stays_open() {
    let (edge, origin) = start("{}");
    origin.behave(chunked(EVENT));
    let mut client = Client::open(edge.address);
    let stream = client.begin(flag::END_STREAM, &get("/?k=a"));
    assert_eq!(status(&client.next_of(stream)), 200);
    let data = client.next_of(stream);
    assert_eq!(
        (data.kind, &data.payload[..]),
        (kind::DATA, &b"data: 1\n\n"[..])
    );
    assert_eq!(data.flags & flag::END_STREAM, 0);
    origin.behave(Behaviour::Echo);
    assert_eq!(client.get("/?k=a").statuses, [200], "on another stream");
}

#[test]
fn http2_slow_stream_does_not_block_others() {
    let origins = Origin::some(2);
    let site = ConfigBuilder::of(origins.iter().map(Origin::label)).top("listeners", H2C);
    let edge = site.start();
    let slow = edge.admin.walk("app", "a")[0].clone();
    // Half of all keys, but which ones depends on the ports.
    let is_fast = |key: &String| edge.admin.walk("app", key)[0] != slow;
    let fast = (0..100).map(|key| key.to_string()).find(is_fast).unwrap();
    let owner = origins
        .iter()
        .find(|origin| origin.label() == slow)
        .unwrap();
    owner.behave(Behaviour::Hold);
    let mut client = Client::open(edge.address);
    let held = client.begin(flag::END_STREAM, &get("/?k=a"));
    owner.wait_for_requests(1);
    for _ in 0..3 {
        assert_eq!(client.get(&format!("/?k={fast}")).statuses, [200]);
    }
    owner.behave(Behaviour::Echo);
    assert_eq!(client.answer(held).statuses, [200]);
}

#[test]
fn http2_client_reset_frees_the_peer() {
    let (edge, origin) = start("{}");
    origin.behave(Behaviour::Hold);
    let mut client = Client::open(edge.address);
    let stream = client.begin(flag::END_STREAM, &get("/?k=a"));
    origin.wait_for_requests(1);
    client.send(&Frame::reset(stream, code::CANCEL)).unwrap();
    edge.admin
        .wait_for_metric("clockwise_client_aborts_total", &[], 1);
    edge.admin
        .wait_for_metric("clockwise_listener_http2_resets_total", &[], 1);
    let in_flight = || edge.admin.metric("clockwise_peer_in_flight", &[]);
    wait::until("the peer to be free", || in_flight() == 0);
    origin.behave(Behaviour::Echo);
    assert_eq!(client.get("/?k=a").statuses, [200]);
}

#[test]
fn http2_client_reset_of_an_upload_frees_a_blocked_peer() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let holding = http2_origin::Origin::start(&[Http2Behaviour::Hold, Http2Behaviour::Hold]);
    for (peer, protocol) in [
        (silent.local_addr().unwrap(), "http1"),
        (holding.address, "h2c"),
    ] {
        let site = ConfigBuilder::of([peer]).top("listeners", H2C);
        let site = site.top("access_log", "{path: access.log}");
        let edge = site.app("protocol", protocol).start();
        let fields = [&request("POST", "/?k=a")[..], &[("user-agent", "test")]].concat();
        let count = |name: &str| edge.admin.metric(name, &[]);
        for aborts in [1, 2] {
            let mut client = Client::open(edge.address);
            let upload = client.begin(0, &fields);
            let sent = client.fill(&[upload], SECOND / 2);
            assert!(sent > 1 << 16, "{sent}");
            assert_eq!(count("clockwise_peer_in_flight"), 1, "{protocol}");
            if aborts == 1 {
                client.send(&Frame::reset(upload, code::CANCEL)).unwrap();
                assert_eq!(client.outcome(), Outcome::Alive, "{protocol}");
            } else {
                drop(client);
            }
            wait::until("the peer to be free", || {
                count("clockwise_peer_in_flight") == 0
            });
            edge.admin
                .wait_for_metric("clockwise_client_aborts_total", &[], aborts);
            let fault = ["fault=\"client_gone\""];
            let faults = edge.admin.metric("clockwise_faults_total", &fault);
            assert_eq!(faults, aborts, "{protocol}");
        }
        for line in edge.log_lines(2) {
            assert_eq!(line["status"], 499, "{line}");
            assert_eq!(line["user_agent"], "test", "{line}");
        }
    }
}

#[test]
fn http2_stalled_uploads_do_not_block_other_streams() {
    let slow = http2_origin::Origin::start(&[Http2Behaviour::Hold; 99]);
    let fast = Origin::start();
    let site = ConfigBuilder::of([fast.label()]).top("listeners", H2C);
    let slow = format!(
        "  slow: {{protocol: h2c, health: off, peers: [\"{}\"]}}\n",
        slow.label()
    );
    let site = site.top("routes", "[{upstream: app}, {path: /slow, upstream: slow}]");
    let edge = Edge::start(
        &site
            .yaml()
            .replace("upstreams:\n", &format!("upstreams:\n{slow}")),
    );
    let mut client = Client::open(edge.address);
    let uploads: Vec<_> = (0..99)
        .map(|_| client.begin(0, &request("POST", "/slow")))
        .collect();
    client.fill(&uploads, SECOND);
    let upload = client.begin(0, &request("POST", "/?k=a"));
    for flags in [0, flag::END_STREAM] {
        let piece = Frame::data(upload, flags, vec![b'x'; 1 << 14]);
        client.send(&piece).unwrap();
    }
    let answer = client.answer(upload);
    assert_eq!(answer.statuses, [200]);
    assert_eq!(answer.json()["length"], 2 << 14);
}

#[test]
fn http2_truncated_response_is_reset() {
    let (edge, origin) = start("{}");
    origin.behave(Behaviour::ResetAfter(10));
    let mut client = Client::open(edge.address);
    let answer = client.get("/?k=a");
    // A reset overtakes what has not been sent yet, the header included.
    assert!(answer.statuses.len() <= 1, "{answer:?}");
    assert_eq!(answer.reset, Some(code::INTERNAL_ERROR));
    origin.behave(Behaviour::Echo);
    assert_eq!(client.get("/?k=a").statuses, [200]);
}

#[test]
fn http2_stream_with_a_moved_key_ends_and_the_connection_stays() {
    let origins = Origin::some(2);
    let site = ConfigBuilder::of(origins.iter().map(Origin::label)).top("listeners", H2C);
    let rules = "{after: 400ms, per_second: 10}";
    let edge = site.app("close_moved_streams", rules).start();
    let home = edge.admin.walk("app", "a")[0].clone();
    for origin in &origins {
        origin.behave(chunked(EVENT));
    }
    let mut client = Client::open(edge.address);
    let stream = client.begin(flag::END_STREAM, &get("/?k=a"));
    assert_eq!(client.next_of(stream).kind, kind::HEADERS);
    assert_eq!(client.next_of(stream).payload, b"data: 1\n\n");
    assert!(edge.command(&["drain", "app", &home]).status.success());
    let answer = client.answer(stream);
    assert_eq!(
        (answer.reset, &answer.body[..]),
        (None, &b""[..]),
        "a whole end"
    );
    for origin in &origins {
        origin.behave(Behaviour::Echo);
    }
    assert_eq!(client.get("/?k=a").statuses, [200]);
    edge.admin
        .wait_for_metric("clockwise_upstream_moved_streams_total", &[], 1);
}

#[test]
fn http2_grpc_stream_with_a_moved_key_ends_after_a_message() {
    let origins = Origin::some(2);
    let site = ConfigBuilder::of(origins.iter().map(Origin::label)).top("listeners", H2C);
    let rules = "{after: 400ms, per_second: 10}";
    let edge = site.app("close_moved_streams", rules).start();
    let home = edge.admin.walk("app", "a")[0].clone();
    let mut client = Client::open(edge.address);
    let messages = [&b"\0\0\0\0\x01a"[..], b"\0\0\0\0\x02b"];
    let [whole, within] = messages.map(|message| {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\n";
        let chunk = format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n", message.len());
        let answer = [head.as_bytes(), chunk.as_bytes(), message, b"\r\n"].concat();
        for origin in &origins {
            origin.behave(Behaviour::Raw(answer.clone()));
        }
        let stream = client.begin(flag::END_STREAM, &get("/?k=a"));
        assert_eq!(client.next_of(stream).kind, kind::HEADERS);
        assert_eq!(client.next_of(stream).payload, message);
        stream
    });
    assert!(edge.command(&["drain", "app", &home]).status.success());
    let end = client.next_of(whole);
    assert_eq!(
        (end.kind, end.flags & flag::END_STREAM),
        (kind::HEADERS, flag::END_STREAM)
    );
    assert!(client.idles_for(SECOND), "in the middle of a message");
    assert!(!client.aside.iter().any(|frame| frame.stream == within));
    edge.admin
        .wait_for_metric("clockwise_upstream_moved_streams_total", &[], 1);
}

// ── time

#[test]
fn http2_streams_have_independent_deadlines() {
    let origin = Origin::start();
    let timeouts = "{first_byte: 1s, read: 1s}";
    let edge = site(&origin).app("timeouts", timeouts).start();
    let mut client = Client::open(edge.address);
    origin.behave(Behaviour::Hold);
    let (answer, took) = timed(|| client.get("/?k=a"));
    assert_eq!((answer.statuses, answer.reset), (vec![504], None));
    assert_about(took, SECOND);
    origin.behave(Behaviour::Stall(10, 20));
    let (answer, took) = timed(|| client.get("/?k=a"));
    assert_eq!(answer.statuses, [200]);
    assert_eq!(
        (answer.body.len(), answer.reset),
        (10, Some(code::INTERNAL_ERROR))
    );
    assert_about(took, SECOND);
    origin.behave(Behaviour::Echo);
    assert_eq!(client.get("/?k=a").statuses, [200]);
    for fault in ["first_byte_timeout", "response_stalled"] {
        edge.admin.wait_for_metric(
            "clockwise_faults_total",
            &[&format!("fault=\"{fault}\"")],
            1,
        );
    }
}

#[test]
fn http2_request_body_timeout_is_408() {
    let (edge, _origin) = start("{read_timeout: 1s, request_timeout: 3s}");
    let mut client = Client::open(edge.address);
    let stream = client.begin(0, &request("POST", "/?k=a"));
    let (answer, took) = timed(|| client.answer(stream));
    assert_eq!(answer.statuses, [408]);
    assert_about(took, SECOND);
    client.wait_for("RST_STREAM", |frame| frame.kind == kind::RST_STREAM);
    let stream = client.begin(0, &request("POST", "/?k=a"));
    let (answer, took) = timed(|| {
        loop {
            let _ = client.send(&Frame::data(stream, 0, *b"x"));
            if !client.idles_for(Duration::from_millis(300)) {
                return client.answer(stream);
            }
        }
    });
    assert_eq!(answer.statuses, [408]);
    assert_about(took, 3 * SECOND);
}

#[test]
fn http2_idle_connection_gets_goaway() {
    let (edge, _origin) = start("{keepalive: 1s, header_timeout: 10s}");
    let mut client = Client::open(edge.address);
    let (goaway, took) = client.end();
    assert_eq!(goaway, Some(code::NO_ERROR));
    assert_about(took, SECOND);
    let mut client = Client::open(edge.address);
    assert_eq!(client.get("/?k=a").statuses, [200]);
    // What does nothing does not keep it open.
    let pings = (0..20).take_while(|_| {
        let _ = client.send(&Frame::ping(0));
        thread::sleep(Duration::from_millis(100));
        !client.aside.iter().any(|frame| frame.kind == kind::GOAWAY)
    });
    pings.for_each(drop);
    assert_eq!(client.end().0, Some(code::NO_ERROR));
    edge.admin
        .wait_for_metric("clockwise_listener_idle_closed_connections_total", &[], 2);
}

#[test]
fn http2_header_timeout_closes_the_connection() {
    let (edge, origin) = start("{header_timeout: 1s}");
    let mut silent = Client::connect(edge.address);
    silent.raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    assert_about(silent.end().1, SECOND);
    let mut client = Client::open(edge.address);
    assert_eq!(client.get("/?k=a").statuses, [200]);
    let stream = client.stream();
    let header = Frame::headers(stream, flag::END_STREAM, &get("/")).bytes();
    client.raw(&header[..12]).unwrap();
    let ((), took) = timed(|| {
        let mut rest = header[12..].iter();
        while client.idles_for(Duration::from_millis(100)) {
            let _ = client.raw(&[*rest.next().expect("an end before that of the header")]);
        }
    });
    assert_about(took, SECOND);
    assert_eq!(client.end().0, Some(code::NO_ERROR));
    assert_eq!(origin.requests(), 1);
    edge.admin
        .wait_for_metric("clockwise_listener_header_timeouts_total", &[], 2);
}

#[test]
fn http2_client_with_a_closed_window_loses_the_stream() {
    let (edge, origin) = start("{write_timeout: 1s}");
    origin.behave(Behaviour::Body(100_000));
    let mut client = Client::with(edge.address, &[(INITIAL_WINDOW_SIZE, 0)]);
    let stream = client.begin(flag::END_STREAM, &get("/?k=a"));
    assert_eq!(status(&client.next_of(stream)), 200);
    let (end, took) = timed(|| client.next_of(stream));
    assert_eq!((end.kind, end.code()), (kind::RST_STREAM, code::CANCEL));
    assert_about(took, SECOND);
    edge.admin
        .wait_for_metric("clockwise_faults_total", &["fault=\"client_stalled\""], 1);
    origin.behave(Behaviour::Raw(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()));
    assert_eq!(client.get("/?k=a").statuses, [204], "the others live");
}

#[test]
fn http2_client_that_does_not_read_loses_the_connection() {
    let (edge, origin) = start("{write_timeout: 1s}");
    origin.behave(Behaviour::Body(50_000_000));
    let mut client = Client::with(edge.address, &[(INITIAL_WINDOW_SIZE, 0x7fff_ffff)]);
    client.send(&Frame::window(0, 0x7fff_0000)).unwrap();
    client.begin(flag::END_STREAM, &get("/?k=a"));
    wait::until("the connection to end", || {
        edge.admin
            .metric("clockwise_listener_active_connections", &["listener=\"127"])
            == 0
    });
    let in_flight = || edge.admin.metric("clockwise_peer_in_flight", &[]);
    wait::until("the peer to be free", || in_flight() == 0);
}

#[test]
fn http2_slow_client_is_not_counted_against_the_peer() {
    let origin = Origin::start();
    let site = site(&origin).app("timeouts", "{read: 1s}");
    let edge = site.downstream("{write_timeout: 10s}").start();
    origin.behave(Behaviour::Body(200_000));
    let mut client = Client::open(edge.address);
    let stream = client.begin(flag::END_STREAM, &get("/?k=a"));
    thread::sleep(3 * SECOND);
    let answer = client.answer(stream);
    assert_eq!((answer.body.len(), answer.reset), (200_000, None));
}

// ── how many

#[test]
fn http2_streams_over_the_limit_are_refused() {
    let (edge, origin) = start("{max_streams: 3}");
    origin.behave(Behaviour::Hold);
    let mut client = Client::open(edge.address);
    let streams: Vec<_> = (0..4)
        .map(|_| client.begin(flag::END_STREAM, &get("/?k=a")))
        .collect();
    let refused = client.wait_for("a reset", |frame| frame.kind == kind::RST_STREAM);
    assert_eq!(
        (refused.stream, refused.code()),
        (streams[3], code::REFUSED_STREAM)
    );
    origin.behave(Behaviour::Echo);
    for &stream in &streams[..3] {
        assert_eq!(client.answer(stream).statuses, [200]);
    }
}

#[test]
fn http2_requests_per_connection_are_limited() {
    let (edge, _origin) = start("{keepalive_requests: 3}");
    let mut client = Client::open(edge.address);
    for _ in 0..3 {
        assert_eq!(client.get("/?k=a").statuses, [200]);
    }
    assert_eq!(client.end().0, Some(code::NO_ERROR));
    let load = said(
        "h2load",
        &["-n", "3", "-c", "1", &format!("http://{}/", edge.address)],
    );
    assert!(load.contains("3 succeeded, 0 failed"), "{load}");
}

#[test]
fn http2_idle_connection_is_evicted_at_the_connection_limit() {
    let (edge, _origin) = start("{max_connections: 1, keepalive: 60s}");
    let mut client = Client::open(edge.address);
    let mut waiting = edge.connect();
    waiting
        .send("GET /?k=a HTTP/1.1\r\nHost: h\r\n\r\n")
        .unwrap();
    assert_eq!(client.end().0, Some(code::NO_ERROR));
    assert_eq!(waiting.response().unwrap().status, 200);
}

// ── the end

#[test]
fn http2_drain_sends_goaway_and_serves_streams_in_flight() {
    let (mut edge, origin) = start("{}");
    origin.behave(Behaviour::Hold);
    let mut client = Client::open(edge.address);
    let first = client.begin(flag::END_STREAM, &get("/?k=a"));
    origin.wait_for_requests(1);
    edge.begin_stop();
    let goaway = client.wait_for("GOAWAY", |frame| frame.kind == kind::GOAWAY);
    assert_eq!(goaway.code(), code::NO_ERROR);
    assert_eq!(
        goaway.payload[..4],
        0x7fff_ffff_u32.to_be_bytes(),
        "nothing is refused yet"
    );
    origin.behave(Behaviour::Echo);
    assert_eq!(client.answer(first).statuses, [200]);
    client.end();
    assert!(edge.wait().success());
}

#[test]
fn http2_request_that_crosses_goaway_is_served() {
    let (mut edge, origin) = start("{}");
    let mut client = Client::open(edge.address);
    assert_eq!(client.get("/?k=a").statuses, [200]);
    edge.begin_stop();
    // Not read until now: GOAWAY, and a PING without acknowledgement.
    let late = client.begin(flag::END_STREAM, &get("/?k=a"));
    assert_eq!(client.answer(late).statuses, [200]);
    assert!(edge.wait().success());
    assert_eq!(origin.requests(), 2);
}

#[test]
fn http2_busy_clients_lose_no_request_in_upgrades() {
    let origins = Origin::some(3);
    let site = ConfigBuilder::of(origins.iter().map(Origin::label)).top("listeners", H2C);
    let edge = site.app("key", "{query: k}").start();
    let (address, stop) = (edge.address, Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..4)
        .map(|_| Arc::clone(&stop))
        .map(|stop| thread::spawn(move || ask_until(address, &stop)))
        .collect();
    let asked = || origins.iter().map(Origin::requests).sum::<usize>();
    for _ in 0..3 {
        let before = asked();
        wait::until("the clients to be busy", || asked() > before + 500);
        let upgrade = edge.command(&["upgrade"]);
        assert!(upgrade.status.success(), "{upgrade:?}");
    }
    wait::until("the old processes to end", || {
        edge.processes() == [edge.pid()]
    });
    stop.store(true, Ordering::SeqCst);
    let answered: usize = clients
        .into_iter()
        .map(|client| client.join().unwrap())
        .sum();
    eprintln!("three upgrades, {answered} streams");
    assert_eq!(answered, asked());
}

/// Keeps ten streams open and changes the connection after GOAWAY; returns the number of responses.
fn ask_until(address: SocketAddr, stop: &AtomicBool) -> usize {
    let mut answered = 0;
    while !stop.load(Ordering::SeqCst) {
        let mut client = Client::open(address);
        let (mut open, mut leaving) = (BTreeSet::new(), false);
        loop {
            leaving |= stop.load(Ordering::SeqCst);
            while !leaving && open.len() < 10 {
                let path = format!("/?k={answered}");
                open.insert(client.begin(flag::END_STREAM, &get(&path)));
            }
            if open.is_empty() {
                break;
            }
            let frame = client
                .next()
                .expect("a frame")
                .expect("no end while streams are open");
            let ends = frame.flags & flag::END_STREAM != 0;
            match frame.kind {
                kind::GOAWAY => {
                    leaving = true;
                    let last = u32::from_be_bytes(frame.payload[..4].try_into().unwrap());
                    open.retain(|&stream| stream <= last);
                }
                kind::HEADERS => assert_eq!(status(&frame), 200),
                kind::DATA if ends => {
                    answered += 1;
                    open.remove(&frame.stream);
                    let _ = client.send(&Frame::window(0, 1000));
                }
                kind::RST_STREAM => panic!("{frame:?}"),
                _ => {}
            }
        }
    }
    answered
}

// ── gRPC

#[test]
fn http2_grpc_errors_have_a_grpc_status() {
    let origin = Origin::start();
    let site = site(&origin).app("timeouts", "{first_byte: 1s}");
    let site = site.top("routes", "[{path: /app, upstream: app, methods: [POST]}]");
    let edge = site.downstream("{max_body_size: 10}").start();
    let ask = |path: &str, body: &str| {
        let file = edge.directory().join("body");
        fs::write(&file, body).unwrap();
        let url = format!("http://{}{path}", edge.address);
        let kind = "content-type: application/grpc";
        let data = file.display().to_string();
        said(
            "nghttp",
            &[
                "--verbose",
                "--no-dep",
                "--header",
                kind,
                "--data",
                &data,
                &url,
            ],
        )
    };
    origin.behave(Behaviour::Hold);
    for (path, body, status, message) in [
        ("/other", "x", "12", "no_route"),
        ("/app", "01234567890", "8", "body_too_large"),
        ("/app?k=a", "x", "4", "first_byte_timeout"),
    ] {
        let text = ask(path, body);
        for line in [
            ":status: 200".to_owned(),
            format!("grpc-status: {status}"),
            format!("grpc-message: {message}"),
            "content-type: application/grpc".to_owned(),
        ] {
            assert!(text.contains(&format!(" {line}\n")), "{line} in {text}");
        }
    }
    let mut client = Client::open(edge.address);
    let fields = [
        &request("POST", "/other")[..],
        &[("content-type", "application/grpc")],
    ]
    .concat();
    let stream = client.begin(flag::END_STREAM, &fields);
    let header = client.next_of(stream);
    assert_eq!(
        header.flags & flag::END_STREAM,
        flag::END_STREAM,
        "trailers only"
    );
}
