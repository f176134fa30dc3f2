//! Timeouts of peers: each step has its own limit and its own result.

use std::thread;
use std::time::Duration;

use crate::http2::H2C;
use crate::support::client::{Connection, Request};
use crate::support::edge::{ConfigBuilder, Edge};
use crate::support::http2::{Client, flag, get};
use crate::support::origin::{Behaviour, Origin};
use crate::support::port::FullBacklog;
use crate::support::raw_peer::EdgeWithRawPeer;
use crate::support::wait::{self, assert_about, timed};

const SECOND: Duration = Duration::from_secs(1);

/// An origin behind an instance with these limits.
fn behind(timeouts: &str, downstream: &str) -> (Edge, Origin) {
    let origin = Origin::start();
    let site = ConfigBuilder::of([origin.label()])
        .app("key", "client_ip")
        .app("timeouts", timeouts);
    (site.downstream(downstream).start(), origin)
}

fn ask(edge: &Edge) -> Connection {
    let mut connection = edge.connect();
    connection
        .send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        .unwrap();
    connection
}

fn assert_fault(edge: &Edge, fault: &str) {
    assert_faults(edge, fault, 1);
}

fn assert_faults(edge: &Edge, fault: &str, count: u64) {
    edge.admin.wait_for_metric(
        "clockwise_faults_total",
        &[&format!("fault=\"{fault}\"")],
        count,
    );
}

#[test]
fn connect_timeout_is_504() {
    let full = FullBacklog::new();
    let edge = ConfigBuilder::of([full.address])
        .app("timeouts", "{connect: 1s}")
        .start();
    for (count, ask) in [(1, Request::get("/?k=a")), (2, Request::socket("/?k=a"))] {
        let (response, took) = timed(|| edge.send(&ask));
        assert_eq!(response.status, 504);
        assert_about(took, SECOND);
        assert_faults(&edge, "connect_timeout", count);
    }
}

#[test]
fn connect_timeout_retries_on_the_next_peer() {
    let (full, origin) = (FullBacklog::new(), Origin::start());
    let site = ConfigBuilder::of([full.address.to_string(), origin.label()]);
    let edge = site
        .app("timeouts", "{connect: 1s}")
        .app("retry", "{attempts: 2}")
        .start();
    for key in ["a", "b", "c", "d", "e", "f"] {
        assert_eq!(edge.get(&format!("/?k={key}")).status, 200);
    }
    assert_eq!(origin.requests(), 6);
}

#[test]
fn first_byte_timeout_is_504() {
    let (edge, origin) = behind("{first_byte: 1s}", "{}");
    origin.behave(Behaviour::Hold);
    let (response, took) = timed(|| ask(&edge).response());
    assert_eq!(response.unwrap().status, 504);
    assert_about(took, SECOND);
    assert_fault(&edge, "first_byte_timeout");
}

#[test]
fn first_byte_timeout_is_not_retried() {
    let origins = Origin::some(2);
    let site =
        ConfigBuilder::of(origins.iter().map(Origin::label)).app("timeouts", "{first_byte: 500ms}");
    let edge = site.app("retry", "{attempts: 2, timeout: 10s}").start();
    for origin in &origins {
        origin.behave(Behaviour::Hold);
    }
    assert_eq!(edge.get("/?k=a").status, 504);
    assert_eq!(origins.iter().map(Origin::requests).sum::<usize>(), 1);
}

#[test]
fn first_byte_timeout_is_not_restarted_by_interim_responses() {
    let scene = EdgeWithRawPeer::with(|site| {
        let site = site.app("timeouts", "{first_byte: 1s}");
        site.top("listeners", H2C)
    });
    // Sends hints for longer than the limit, then the response.
    let answer_late = |mut peer: Connection| {
        thread::spawn(move || {
            for _ in 0..25 {
                if !peer.idles_for(Duration::from_millis(100)) {
                    return;
                }
                let _ = peer.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
            }
            let _ = peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        })
    };
    let (mut client, peer) = scene.ask("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    let answering = answer_late(peer);
    let (response, took) = timed(|| client.response());
    assert_eq!(response.unwrap().status, 504);
    assert_about(took, SECOND);
    answering.join().unwrap();
    let mut client = Client::open(scene.edge.address);
    let stream = client.begin(flag::END_STREAM, &get("/"));
    let mut peer = scene.peer.accept();
    peer.read_request().unwrap();
    let answering = answer_late(peer);
    let (answer, took) = timed(|| client.answer(stream));
    assert_eq!(answer.statuses.last(), Some(&504), "{answer:?}");
    assert_about(took, SECOND);
    answering.join().unwrap();
    assert_faults(&scene.edge, "first_byte_timeout", 2);
}

#[test]
fn first_byte_timeout_excludes_a_slow_upload() {
    let (edge, _origin) = behind("{first_byte: 3s}", "{}");
    let mut connection = edge.connect();
    connection
        .send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\n")
        .unwrap();
    for byte in ["1", "2", "3", "4", "5", "6"] {
        assert!(connection.idles_for(Duration::from_millis(700)));
        connection.send(byte).unwrap();
    }
    assert_eq!(connection.response().unwrap().json()["length"], 6);
}

#[test]
fn upload_pause_of_the_client_is_not_a_peer_failure() {
    let (edge, _origin) = behind("{first_byte: 3s}", "{}");
    let mut connection = edge.connect();
    connection
        .send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n1")
        .unwrap();
    assert!(connection.idles_for(4 * SECOND));
    connection.send("2").unwrap();
    assert_eq!(connection.response().unwrap().json()["length"], 2);
}

#[test]
fn connect_timeout_applies_per_attempt() {
    let (origin, full) = (Origin::start(), FullBacklog::new());
    let site = ConfigBuilder::of([origin.label(), full.address.to_string()]);
    let edge = site
        .app("timeouts", "{connect: 4s, first_byte: 3s}")
        .app("retry", "{attempts: 2}")
        .start();
    let mine = |key: &&&str| edge.admin.walk("app", key)[0] == origin.label();
    let keys = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
    let key = keys.iter().find(mine).unwrap();
    origin.behave(Behaviour::Hold);
    let mut connection = edge.connect();
    connection
        .send(format!("GET /?k={key} HTTP/1.1\r\nHost: h\r\n\r\n"))
        .unwrap();
    origin.wait_for_requests(1);
    assert!(connection.idles_for(SECOND));
    let (response, took) = timed(|| {
        origin.behave(Behaviour::Reset);
        connection.response()
    });
    assert_eq!(response.unwrap().status, 504);
    assert_about(took, 4 * SECOND);
    assert_fault(&edge, "connect_timeout");
}

#[test]
fn first_byte_timeout_after_100_continue_is_504() {
    let (edge, origin) = behind("{first_byte: 3s}", "{}");
    origin.behave(Behaviour::Raw("HTTP/1.1 100 Continue\r\n\r\n".into()));
    let mut connection = edge.connect();
    connection
        .send("POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx")
        .unwrap();
    assert_eq!(connection.head().unwrap().status, 100);
    assert_eq!(connection.response().unwrap().status, 504);
}

#[test]
fn response_timeout_without_length_ends_with_a_reset() {
    let (edge, origin) = behind("{read: 1s}", "{}");
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
    origin.behave(Behaviour::Raw(answer.into()));
    let mut connection = edge.connect();
    connection
        .send("GET / HTTP/1.0\r\nHost: h\r\n\r\n")
        .unwrap();
    connection.head().unwrap();
    assert_eq!(connection.exactly(3).unwrap(), b"abc");
    let end = connection.rest();
    end.expect_err("a reset: the end would be the body's");
    assert_fault(&edge, "response_stalled");
}

#[test]
fn read_timeout_cuts_a_stalled_response() {
    let (edge, origin) = behind("{read: 1s}", "{}");
    origin.behave(Behaviour::Stall(100_000, 200_000));
    let (_, took) = timed(|| read_half(ask(&edge)).time_to_close());
    assert_about(took, SECOND);
    assert_fault(&edge, "response_stalled");
}

#[test]
fn request_timeout_limits_the_whole_request() {
    let (edge, origin) = behind("{first_byte: 30s, read: 30s}", "{request_timeout: 1s}");
    origin.behave(Behaviour::Hold);
    let (response, took) = timed(|| ask(&edge).response());
    assert_eq!(response.unwrap().status, 504);
    assert_about(took, SECOND);
    origin.behave(Behaviour::Stall(100_000, 200_000));
    let (_, took) = timed(|| read_half(ask(&edge)).time_to_close());
    assert_about(took, SECOND);
    assert_fault(&edge, "request_timeout");
}

/// Reads a response's header, and half of what a [`Behaviour::Stall`] gives of its body.
fn read_half(mut connection: Connection) -> Connection {
    assert_eq!(connection.head().unwrap().status, 200);
    connection.exactly(50_000).unwrap();
    connection
}

#[test]
fn stream_timeout_closes_a_silent_event_stream() {
    let (edge, origin) = behind("{read: 500ms, stream: 3s}", "{}");
    let begun = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                 Transfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n";
    origin.behave(Behaviour::Raw(begun.into()));
    let (_, took) = timed(|| {
        let mut connection = ask(&edge);
        assert_eq!(connection.head().unwrap().status, 200);
        connection.time_to_close()
    });
    assert_about(took, 3 * SECOND);
    assert_fault(&edge, "response_stalled");
}

#[test]
fn idle_timeout_closes_an_unused_peer_connection() {
    let (edge, origin) = behind("{idle: 3s}", "{}");
    assert_eq!(edge.get("/").json()["connection"], 1);
    edge.settle();
    assert_eq!(
        edge.get("/").json()["connection"],
        1,
        "reused while it is young"
    );
    wait::until("the origin to see it closed", || {
        origin.open_connections() == 0
    });
    assert_eq!(edge.get("/").json()["connection"], 2);
    assert_eq!(origin.connections(), 2);
}

#[test]
fn tunnel_timeout_closes_a_silent_tunnel() {
    let (edge, origin) = behind(
        "{tunnel: 4s, connect: 1s, first_byte: 1s, read: 1s, write: 1s, idle: 1s}",
        "{header_timeout: 1s, keepalive: 1s, read_timeout: 1s, write_timeout: 1s, \
          request_timeout: 1s, max_body_size: 1}",
    );
    origin.behave(Behaviour::Upgrade);
    let mut connection = edge.connect();
    connection
        .send("GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        .unwrap();
    assert_eq!(connection.response().unwrap().status, 101);
    for _ in 0..3 {
        assert!(
            connection.idles_for(Duration::from_millis(1500)),
            "no other limit holds in a tunnel that is taken"
        );
        connection.send("x").unwrap();
        assert_eq!(connection.exactly(1).unwrap(), b"x");
    }
    let (_, took) = timed(|| {
        connection.send("x").unwrap();
        connection.time_to_close()
    });
    assert_about(took, 4 * SECOND);
    assert_fault(&edge, "tunnel_idle");
}

#[test]
fn tunnel_total_timeout_closes_an_active_tunnel() {
    let scene = tunnels("{idle: 1s, total: 3s}");
    let (mut client, mut peer) = scene.open();
    let (received, took) = timed(|| {
        let mut received = Vec::new();
        while received.is_empty() {
            peer.send(b"\x81\x02hi").unwrap();
            assert_eq!(client.exactly(4).unwrap(), b"\x81\x02hi");
            // It is never idle for as long as it may be.
            if !client.idles_for(SECOND / 5) {
                received = client.rest().unwrap();
            }
        }
        received
    });
    assert_eq!(received, GOING_AWAY);
    assert_about(took, 3 * SECOND);
    let _ = peer.rest();
    scene.wait_for_in_flight(0);
    assert_fault(&scene.edge, "tunnel_total");
    assert_eq!(client.rest().unwrap(), b"");
}

#[test]
fn tunnel_total_timeout_waits_for_a_frame_boundary() {
    let scene = tunnels("{total: 1s}");
    let (mut patient, mut peer) = scene.open();
    peer.send(b"\x82\x0412").unwrap();
    let (mut stuck, mut other) = scene.open();
    other.send(b"\x82\x0412").unwrap();
    assert_eq!(patient.exactly(4).unwrap(), b"\x82\x0412");
    assert!(patient.idles_for(2 * SECOND), "in the middle of a frame");
    peer.send(b"34\x81\x01x").unwrap();
    assert_eq!(patient.rest().unwrap(), [b"34", &GOING_AWAY[..]].concat());
    assert_eq!(stuck.rest().unwrap(), b"\x82\x0412");
    assert_faults(&scene.edge, "tunnel_total", 2);
}

#[test]
fn send_timeout_closes_a_tunnel_to_a_peer_that_does_not_read() {
    let scene = EdgeWithRawPeer::with(|site| site.app("timeouts", "{write: 1s}"));
    let (client, mut peer) = scene.open();
    let (mut ears, mut mouth) = client.halves();
    let ((), took) = timed(|| {
        thread::scope(|scope| {
            // More than fits into the buffers on its way.
            scope.spawn(|| mouth.send(vec![7; 64 << 20]));
            let _ = ears.rest();
        });
    });
    assert_about(took, SECOND);
    let _ = peer.rest();
    assert_fault(&scene.edge, "send_timeout");
}

/// Going away (RFC 6455 §7.4.1).
const GOING_AWAY: [u8; 4] = [0x88, 2, 0x03, 0xe9];

fn tunnels(limits: &str) -> EdgeWithRawPeer {
    EdgeWithRawPeer::with(|site| site.app("timeouts", &format!("{{tunnel: {limits}}}")))
}
