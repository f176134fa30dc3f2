//! Clients and peers that stop in the middle of a transfer are disconnected after the timeout that applies. The data
//! that they sent before reaches the other side.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::http2::H2C;
use crate::support::client::{Connection, Request};
use crate::support::edge::{ConfigBuilder, Edge};
use crate::support::http2::{Client, Frame, flag, get};
use crate::support::origin::{Behaviour, Origin};
use crate::support::process;
use crate::support::wait::{self, PATIENCE, assert_about, timed};

const SECOND: Duration = Duration::from_secs(1);
const MOMENT: Duration = Duration::from_millis(300);

/// An instance in front of a peer that the test itself plays.
struct EdgeWithManualPeer {
    edge: Edge,
    peer: TcpListener,
}

impl EdgeWithManualPeer {
    fn with(timeouts: &str, downstream: &str) -> Self {
        let peer = TcpListener::bind("127.0.0.1:0").unwrap();
        let site = ConfigBuilder::of([peer.local_addr().unwrap()]).app("timeouts", timeouts);
        let edge = site.downstream(downstream).start();
        Self { edge, peer }
    }

    /// A client that has sent a request, and the peer's end of it, its header read.
    fn ask(&self, request: &str) -> (Connection, TcpStream) {
        let mut client = self.edge.connect();
        client.send(request).unwrap();
        let (mut peer, _) = self.peer.accept().unwrap();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut header = Vec::new();
        while !header.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            peer.read_exact(&mut byte).unwrap();
            header.extend(byte);
        }
        (client, peer)
    }
}

fn behind(origin: &Origin, downstream: &str) -> Edge {
    let site = ConfigBuilder::of([origin.label()]).app("key", "client_ip");
    site.downstream(downstream).start()
}

const GET: &str = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";

// ── clients that take nothing

/// Connections and requests of each in [`memory_of_stalled_readers`]: enough that the memory that a process needs once is
/// a small part of each.
const CLIENTS: usize = 4;
const READERS: usize = 100;

/// A peer that sends 4 MB to each request, and the bytes that were taken from it.
fn endless_peer(head: &'static str, piece: Vec<u8>) -> (SocketAddr, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let taken = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&taken);
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let (mut socket, counter) = (socket.unwrap(), Arc::clone(&counter));
            let piece = piece.clone();
            std::thread::spawn(move || {
                let _ = socket.read(&mut [0; 4096]);
                let _ = socket.write_all(head.as_bytes());
                for _ in 0..(4 << 20) / piece.len() {
                    // The test ends before all of it is sent.
                    if socket.write_all(&piece).is_err() {
                        return;
                    }
                    counter.fetch_add(piece.len() as u64, Relaxed);
                }
            });
        }
    });
    (address, taken)
}

/// The memory of a response of which a client of HTTP/2 reads nothing; KiB. `window`: of each
/// stream; `connection`: is added to the window of the connection.
fn memory_of_stalled_readers(
    (head, piece): (&'static str, Vec<u8>),
    (window, connection): (u32, u32),
) -> u64 {
    let (peer, taken) = endless_peer(head, piece);
    let site = ConfigBuilder::of([peer]).app("key", "client_ip");
    let edge = site.top("listeners", H2C).start();
    let mut clients: Vec<_> = (0..CLIENTS)
        .map(|_| Client::with(edge.address, &[(4, window)]))
        .collect();
    let before = process::resident(edge.pid());
    for client in &mut clients {
        if connection > 0 {
            client.send(&Frame::window(0, connection)).unwrap();
        }
        for _ in 0..READERS {
            client.begin(flag::END_STREAM, &get("/"));
        }
    }
    let (mut last, mut quiet) = (0, 0);
    wait::until("the peer to be stopped", || {
        let now = taken.load(Relaxed);
        quiet = if now == last { quiet + 1 } else { 0 };
        last = now;
        now > 0 && quiet > 50
    });
    let growth = process::settled(edge.pid()).saturating_sub(before);
    drop(clients);
    growth / (CLIENTS * READERS) as u64
}

#[test]
fn http2_reader_that_stalls_holds_at_most_128_kib_of_a_response() {
    const LENGTH: &str = "HTTP/1.1 200 A\r\nContent-Length: 4194304\r\n\r\n";
    const CHUNKED: &str = "HTTP/1.1 200 A\r\nTransfer-Encoding: chunked\r\n\r\n";
    let data = |length| vec![b'x'; length];
    let chunk = |length| {
        [
            format!("{length:x}\r\n").into_bytes(),
            data(length),
            b"\r\n".to_vec(),
        ]
        .concat()
    };
    for (name, response, windows) in [
        ("no window", (LENGTH, data(65_536)), (0, 0)),
        ("no window, chunks", (CHUNKED, chunk(65_536)), (0, 0)),
        (
            "no window, small chunks",
            (CHUNKED, chunk(1).repeat(10_000)),
            (0, 0),
        ),
        ("an open window", (LENGTH, data(65_536)), (1 << 24, 1 << 30)),
    ] {
        let held = memory_of_stalled_readers(response, windows);
        eprintln!("{name}: {held} KiB a response");
        assert!(held <= 128, "{name}: {held} KiB");
    }
}

/// A client that sends requests and reads none of the answers, each of which is a large header.
fn assert_stalled(request: &str, response: &str) {
    let large = format!("X-Large: {}\r\n\r\n", "x".repeat(8000));
    let response = response.replacen("\r\n\r\n", &format!("\r\n{large}"), 1);
    let origin = Origin::behaving(Behaviour::Raw(response.into_bytes()));
    let edge = behind(&origin, "{write_timeout: 1s}");
    let mut client = edge.connect();
    client.send(request.repeat(3000)).unwrap();
    edge.admin
        .wait_for_metric("clockwise_faults_total", &["fault=\"client_stalled\""], 1);
    let end = client.rest().expect_err("a reset");
    assert_eq!(end.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn write_timeout_applies_to_responses_of_head_requests() {
    assert_stalled(
        "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
    );
}

#[test]
fn write_timeout_applies_to_304_responses() {
    assert_stalled(GET, "HTTP/1.1 304 Not Modified\r\n\r\n");
}

/// Windows do not apply to headers: the proxy must wait for the socket by itself.
#[test]
fn interim_responses_to_an_http2_client_that_does_not_read_are_not_buffered() {
    let hint = format!(
        "HTTP/1.1 103 Early Hints\r\nLink: {}\r\n\r\n",
        "x".repeat(60_000)
    );
    let answer = hint.repeat(32) + "HTTP/1.1 204 No Content\r\n\r\n";
    let origin = Origin::behaving(Behaviour::Raw(answer.into_bytes()));
    let site = ConfigBuilder::of([origin.label()]).app("key", "client_ip");
    let site = site.top("listeners", H2C);
    let edge = site.downstream("{write_timeout: 1s}").start();
    let mut client = Client::open(edge.address);
    // 40 MB, more than the kernel takes for the client.
    for _ in 0..20 {
        client.begin(flag::END_STREAM, &get("/"));
    }
    wait::until("the connection to end", || {
        let connections = "clockwise_listener_active_connections";
        edge.admin.metric(connections, &["listener=\"127"]) == 0
    });
    edge.settle();
    let answered = edge
        .admin
        .metric("clockwise_upstream_requests_total", &["class=\"2xx\""]);
    assert!(answered < 10, "{answered} of 20 were sent to the end");
}

#[test]
fn write_timeout_applies_to_chunked_responses() {
    assert_stalled(
        GET,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
    );
}

// ── received bytes are passed on, whatever the other direction does

#[test]
fn pipelined_partial_request_does_not_delay_the_current_response() {
    let played = EdgeWithManualPeer::with("{}", "{}");
    let (mut client, mut peer) = played.ask(GET);
    client.send(GET).unwrap();
    assert!(client.idles_for(MOMENT));
    peer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n0123456789")
        .unwrap();
    assert_eq!(client.head().unwrap().status, 200);
    assert_eq!(client.exactly(10).unwrap(), b"0123456789");
    peer.write_all(b"0123456789").unwrap();
    client.exactly(10).unwrap();
}

#[test]
fn truncated_response_body_ends_with_a_reset() {
    let played = EdgeWithManualPeer::with("{read: 1s}", "{}");
    let (mut client, mut peer) = played.ask(GET);
    let (end, took) = timed(|| {
        peer.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n0123456789")
            .unwrap();
        client.head().unwrap();
        client.rest()
    });
    assert_eq!(end.expect_err("a reset").kind(), ErrorKind::ConnectionReset);
    assert_about(took, SECOND);
}

// ── headers

#[test]
fn header_without_end_is_431_at_the_limit() {
    let origin = Origin::start();
    let edge = behind(&origin, "{max_header_size: 16KiB, header_timeout: 5m}");
    let mut client = edge.connect();
    client.send("GET / HTTP/1.1\r\nHost: h\r\nX: ").unwrap();
    client.send("x".repeat(17 << 10)).unwrap();
    assert_eq!(client.response().unwrap().status, 431);
    let reason = ["reason=\"header_too_large\""];
    edge.admin
        .wait_for_metric("clockwise_listener_bad_requests_total", &reason, 1);
}

#[test]
fn large_body_is_not_counted_as_header() {
    let origin = Origin::start();
    let edge = behind(&origin, "{max_header_size: 1KiB}");
    let mut client = edge.connect();
    for _ in 0..3 {
        let response = client.exchange(&Request::post("/", vec![b'x'; 100_000]));
        assert_eq!(response.unwrap().json()["length"], 100_000);
    }
}

#[test]
fn malformed_pipelined_request_is_400_and_counted() {
    let origin = Origin::start();
    let edge = behind(&origin, "{}");
    let mut client = edge.connect();
    client.send(format!("{GET}nonsense\r\n\r\n")).unwrap();
    assert_eq!(client.response().unwrap().status, 200);
    assert_eq!(client.response().unwrap().status, 400);
    let reason = ["reason=\"malformed\""];
    edge.admin
        .wait_for_metric("clockwise_listener_bad_requests_total", &reason, 1);
}

#[test]
fn header_timeout_of_a_partial_pipelined_request_is_408() {
    let origin = Origin::start();
    let edge = behind(&origin, "{keepalive: 30s, header_timeout: 1s}");
    for first in [
        GET,
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc",
    ] {
        let mut client = edge.connect();
        let (response, took) = timed(|| {
            client.send(format!("{first}GET / HT")).unwrap();
            assert_eq!(client.response().unwrap().status, 200);
            client.response()
        });
        assert_eq!(response.unwrap().status, 408);
        assert_about(took, SECOND);
    }
}

#[test]
fn request_body_total_timeout_is_408() {
    let origin = Origin::start();
    let edge = behind(&origin, "{request_timeout: 1s}");
    let mut client = edge.connect();
    let (response, took) = timed(|| {
        client
            .send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n123")
            .unwrap();
        client.response()
    });
    assert_eq!(response.unwrap().status, 408);
    assert_about(took, SECOND);
}

// ── places

/// Limits longer than every test: a connection closed before them was closed for another reason.
const TWO_PLACES: &str = "{max_connections: 2, keepalive: 5m, header_timeout: 5m}";

#[test]
fn idle_connections_are_evicted_for_a_waiting_one() {
    let origin = Origin::start();
    let edge = behind(&origin, TWO_PLACES);
    let mut idle = edge.connect();
    assert!(!idle.get("/").unwrap().closes(), "there is room yet");
    edge.settle();
    origin.behave(Behaviour::Hold);
    let mut busy = edge.connect();
    busy.send(GET).unwrap();
    wait::until("the second place to be busy", || {
        edge.admin.metric("clockwise_peer_in_flight", &[]) == 1
    });
    let mut late = edge.connect();
    idle.time_to_close();
    origin.behave(Behaviour::Echo);
    assert_eq!(late.get("/").unwrap().status, 200);
    assert_eq!(busy.response().unwrap().status, 200);
}

#[test]
fn idle_connections_stay_while_none_waits() {
    let origin = Origin::start();
    let edge = behind(&origin, TWO_PLACES);
    let mut first = edge.connect();
    first.get("/").unwrap();
    let _second = edge.connect();
    assert!(first.idles_for(2 * SECOND));
}
