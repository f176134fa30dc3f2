//! Long streams on a peer that no longer owns their key: closed gracefully, after a grace period, at a limited
//! rate.

use std::time::{Duration, Instant};

use crate::support::client::Connection;
use crate::support::edge::{ConfigBuilder, Edge};
use crate::support::origin::{Behaviour, Origin};
use crate::support::wait;

/// Going away (RFC 6455 §7.4.1).
const CLOSE: [u8; 4] = [0x88, 2, 0x03, 0xe9];
const AFTER: Duration = Duration::from_millis(400);
/// A drain that keeps what was active within [`IDLE`].
const KEEPING: &str = "{idle: 1s, deadline: 1h}";
const IDLE: Duration = Duration::from_secs(1);
const MOVED: &str = "clockwise_upstream_moved_streams_total";

#[test]
fn websocket_with_a_moved_key_is_closed_after_the_grace_period() {
    let pair = StreamOrigins::of(Behaviour::Upgrade);
    let mut socket = pair.websocket();
    assert_eq!(echo(&mut socket, b"\x81\x05hello"), b"\x81\x05hello");
    assert!(socket.idles_for(2 * AFTER), "its key has not moved");
    let start = Instant::now();
    pair.drain();
    assert_eq!(socket.rest().unwrap(), CLOSE);
    wait::assert_about(start.elapsed(), AFTER);
    pair.edge
        .admin
        .wait_for_metric(MOVED, &["upstream=\"app\""], 1);
    let faults = ["fault=\"moved\""];
    assert_eq!(pair.edge.admin.metric("clockwise_faults_total", &faults), 1);
}

#[test]
fn websocket_with_a_moved_key_is_closed_between_frames() {
    let pair = StreamOrigins::of(Behaviour::Upgrade);
    let mut socket = pair.websocket();
    assert_eq!(echo(&mut socket, b"\x82\x0a12345"), b"\x82\x0a12345");
    pair.drain();
    assert!(socket.idles_for(4 * AFTER), "in the middle of a frame");
    socket.send(b"67890\x82\x03abc").unwrap();
    let rest = socket.rest().unwrap();
    assert_eq!(rest, [b"67890", &CLOSE[..]].concat());
}

#[test]
fn stream_with_a_key_that_returned_is_kept() {
    let pair = StreamOrigins::after("5s", 10, Behaviour::Upgrade);
    let mut socket = pair.websocket();
    pair.drain();
    assert!(socket.idles_for(AFTER));
    pair.order("enable");
    assert!(socket.idles_for(Duration::from_secs(6)));
    assert_eq!(echo(&mut socket, b"\x81\x02hi"), b"\x81\x02hi");
}

#[test]
fn streams_of_a_removed_peer_are_closed() {
    let pair = StreamOrigins::of(Behaviour::Upgrade);
    let mut socket = pair.websocket();
    let mut events = Connection::open(pair.edge.address);
    pair.origins[0].behave(chunked("9\r\ndata: 1\n\n\r\n"));
    events.send(get("/?k=a", "1.1")).unwrap();
    assert_eq!(events.head().unwrap().status, 200);
    assert_eq!(events.exactly(14).unwrap(), b"9\r\ndata: 1\n\n\r\n");
    pair.edge
        .rewrite(&site(&pair.origins[1..], "400ms", 10).yaml());
    assert!(pair.edge.command(&["reload"]).status.success());
    assert_eq!(socket.rest().unwrap(), CLOSE);
    assert_eq!(events.rest().unwrap(), b"0\r\n\r\n");
}

#[test]
fn event_stream_with_a_moved_key_ends_after_an_event() {
    let pair = StreamOrigins::of(chunked("9\r\ndata: 1\n\n\r\n"));
    let mut whole = pair.open("1.1");
    assert_eq!(whole.exactly(14).unwrap(), b"9\r\ndata: 1\n\n\r\n");
    pair.owner().behave(chunked("8\r\ndata: 1\n\r\n"));
    let mut within = pair.open("1.1");
    assert_eq!(within.exactly(13).unwrap(), b"8\r\ndata: 1\n\r\n");
    pair.drain();
    assert_eq!(whole.rest().unwrap(), b"0\r\n\r\n");
    assert!(within.idles_for(2 * AFTER), "in the middle of an event");
}

#[test]
fn event_stream_to_http10_ends_with_the_connection() {
    let pair = StreamOrigins::of(chunked("9\r\ndata: 1\n\n\r\n"));
    let mut stream = pair.open("1.0");
    assert_eq!(stream.exactly(9).unwrap(), b"data: 1\n\n");
    pair.drain();
    assert_eq!(stream.rest().unwrap(), b"");
}

#[test]
fn stream_without_a_safe_boundary_is_not_closed() {
    let answers = [
        ("text/plain", "Transfer-Encoding: chunked", "1\r\n1\r\n"),
        ("text/event-stream", "Content-Length: 20", "data: 1\n\n"),
        (
            "text/event-stream",
            "Transfer-Encoding: chunked\r\nContent-Encoding: gzip",
            "2\r\n\n\n\r\n",
        ),
    ];
    let pair = StreamOrigins::of(Behaviour::Upgrade);
    let streams = answers.map(|(kind, framing, body)| {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n{framing}\r\n\r\n{body}");
        pair.owner().behave(Behaviour::Raw(answer.into_bytes()));
        let mut stream = pair.open("1.1");
        assert_eq!(stream.exactly(body.len()).unwrap(), body.as_bytes());
        stream
    });
    pair.drain();
    for mut stream in streams {
        assert!(stream.idles_for(2 * AFTER));
    }
    assert_eq!(pair.edge.admin.metric(MOVED, &[]), 0);
}

#[test]
fn moved_streams_are_closed_at_a_limited_rate() {
    let pair = StreamOrigins::after("100ms", 10, Behaviour::Upgrade);
    let mut sockets: Vec<_> = (0..20).map(|_| pair.websocket()).collect();
    let start = Instant::now();
    pair.drain();
    for socket in &mut sockets {
        assert_eq!(socket.rest().unwrap(), CLOSE);
    }
    let took = start.elapsed();
    assert!(
        took >= Duration::from_millis(1900),
        "20 at 10 a second in {took:?}"
    );
    pair.edge.admin.wait_for_metric(MOVED, &[], 20);
}

#[test]
fn stream_with_a_key_kept_by_a_draining_peer_is_kept() {
    let pair = StreamOrigins::start(
        site(&[], "400ms", 10).app("drain", "{idle: 10m, deadline: 1h}"),
        Behaviour::Upgrade,
    );
    let mut socket = pair.websocket();
    pair.drain();
    assert!(socket.idles_for(3 * AFTER));
}

#[test]
fn open_stream_keeps_its_key_active_on_a_draining_peer() {
    let pair = StreamOrigins::start(
        site(&[], "400ms", 10).app("drain", KEEPING),
        Behaviour::Upgrade,
    );
    let mut socket = pair.websocket();
    assert!(socket.idles_for(2 * IDLE));
    pair.drain();
    pair.assert_kept();
    assert!(socket.idles_for(2 * IDLE));
    pair.assert_kept();
    assert_eq!(echo(&mut socket, b"\x81\x02hi"), b"\x81\x02hi");
}

#[test]
fn long_request_keeps_its_key_active_on_a_draining_peer() {
    let pair = StreamOrigins::start(
        site(&[], "400ms", 10).app("drain", KEEPING),
        Behaviour::Hold,
    );
    let mut long = pair.edge.connect();
    long.send(get("/?k=a", "1.1")).unwrap();
    pair.owner().wait_for_requests(1);
    assert!(long.idles_for(2 * IDLE));
    pair.drain();
    assert_eq!(pair.kept(), 1);
    pair.owner().behave(Behaviour::Echo);
    assert_eq!(long.head().unwrap().status, 200);
    pair.assert_kept();
}

/// Two origins, of which one owns the key `a`.
struct StreamOrigins {
    edge: Edge,
    /// The owner first.
    origins: Vec<Origin>,
}

impl StreamOrigins {
    fn of(behaviour: Behaviour) -> Self {
        Self::after("400ms", 10, behaviour)
    }

    fn after(after: &str, per_second: u32, behaviour: Behaviour) -> Self {
        Self::start(site(&[], after, per_second), behaviour)
    }

    fn start(site: ConfigBuilder, behaviour: Behaviour) -> Self {
        let mut origins = Origin::some(2);
        let edge = site.peers(origins.iter().map(Origin::label)).start();
        let owner = edge.admin.walk("app", "a").remove(0);
        origins.sort_by_key(|origin| origin.label() != owner);
        origins[0].behave(behaviour);
        Self { edge, origins }
    }

    fn owner(&self) -> &Origin {
        &self.origins[0]
    }

    fn drain(&self) {
        self.order("drain");
    }

    /// How many keys the owner keeps while it drains.
    fn kept(&self) -> u64 {
        let upstream = self.edge.admin.get("/v1/upstreams/app").json();
        let mut peers = upstream["peers"].as_array().unwrap().iter();
        let owner = peers.find(|peer| peer["label"] == self.owner().label());
        owner.unwrap()["drain"]["keys"].as_u64().unwrap()
    }

    /// The owner drains, and a request of the key goes to it all the same.
    #[track_caller]
    fn assert_kept(&self) {
        assert_eq!(self.kept(), 1);
        self.owner().behave(Behaviour::Echo);
        let answer = self.edge.get("/?k=a").json();
        assert_eq!(answer["origin"], self.owner().label());
    }

    /// An order about the owner.
    fn order(&self, order: &str) {
        let label = self.owner().label();
        let path = format!("/v1/upstreams/app/peers/{label}/{order}");
        assert_eq!(self.edge.admin.post(&path).status, 200);
    }

    /// A request for the key's stream, answered up to the end of the header.
    fn open(&self, version: &str) -> Connection {
        let mut connection = self.edge.connect();
        connection.send(get("/?k=a", version)).unwrap();
        assert_eq!(connection.head().unwrap().status, 200);
        connection
    }

    fn websocket(&self) -> Connection {
        let mut connection = self.edge.connect();
        let upgrade =
            "GET /?k=a HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        connection.send(upgrade).unwrap();
        assert_eq!(connection.head().unwrap().status, 101);
        connection
    }
}

fn site(origins: &[Origin], after: &str, per_second: u32) -> ConfigBuilder {
    let rules = format!("{{after: {after}, per_second: {per_second}}}");
    ConfigBuilder::of(origins.iter().map(Origin::label)).app("close_moved_streams", &rules)
}

fn get(target: &str, version: &str) -> String {
    format!("GET {target} HTTP/{version}\r\nHost: h\r\n\r\n")
}

/// Begins an event stream and leaves it open.
fn chunked(body: &str) -> Behaviour {
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    Behaviour::Raw(format!("{head}{body}").into_bytes())
}

/// Sends a frame as a server would, to an origin that sends it back.
fn echo(socket: &mut Connection, frame: &[u8]) -> Vec<u8> {
    socket.send(frame).unwrap();
    socket.exactly(frame.len()).unwrap()
}
