//! HTTP/2 floods: clients that cause work without requests are closed and counted; other clients are unaffected.

use std::time::Duration;

use crate::http2::H2C;
use crate::support::edge::{ConfigBuilder, Edge};
use crate::support::http2::{Client, Frame, Outcome, block, code, flag, get, kind, request};
use crate::support::origin::{Behaviour, Origin};
use crate::support::wait;

const VIOLATIONS: &str = "clockwise_listener_http2_violations_total";
const INITIAL_WINDOW_SIZE: u16 = 4;

/// Sends frames until the server ends the connection, and returns how it does so. Sends at most `most` frames.
fn flood(
    client: &mut Client,
    most: usize,
    mut frames: impl FnMut(&mut Client, usize) -> Vec<Frame>,
) -> Option<u32> {
    for round in 0..most {
        let bytes: Vec<u8> = frames(client, round)
            .iter()
            .flat_map(Frame::bytes)
            .collect();
        if client.raw(&bytes).is_err() {
            return client.end().0;
        }
    }
    client.end().0
}

fn start() -> (Edge, Origin) {
    let origin = Origin::start();
    let site = ConfigBuilder::of([origin.label()]).top("listeners", H2C);
    (site.start(), origin)
}

/// Asserts that the client got `ENHANCE_YOUR_CALM`. A client that sends without reading may lose it.
#[track_caller]
fn assert_calm(told: Option<u32>, what: &str) {
    let calm = told.is_none_or(|code| code == code::ENHANCE_YOUR_CALM);
    assert!(calm, "{what}: {told:?}");
}

/// Asserts that the client got the error, the flood was counted, and other clients are served.
#[track_caller]
fn assert_stopped(edge: &Edge, told: Option<u32>, reason: &str) {
    assert_calm(told, reason);
    let label = format!("reason=\"{reason}\"");
    edge.admin.wait_for_metric(VIOLATIONS, &[&label], 1);
    assert_eq!(Client::open(edge.address).get("/?k=a").statuses, [200]);
    wait::until("the connections to end", || {
        edge.admin
            .metric("clockwise_listener_active_connections", &["listener=\"127"])
            == 0
    });
}

#[test]
fn rapid_reset_before_dispatch_is_closed_with_goaway() {
    let (edge, origin) = start();
    let mut client = Client::open(edge.address);
    let outcome = flood(&mut client, 5000, |client, _| {
        let stream = client.stream();
        let header = Frame::headers(stream, flag::END_STREAM, &get("/?k=a"));
        vec![header, Frame::reset(stream, code::CANCEL)]
    });
    assert!(origin.requests() < 1000, "{}", origin.requests());
    let reasons = ["rapid_reset", "enhance_your_calm"];
    wait::until("it to be counted", || {
        let count = |reason: &str| {
            edge.admin
                .metric(VIOLATIONS, &[&format!("reason=\"{reason}\"")])
        };
        reasons.iter().map(|reason| count(reason)).sum::<u64>() == 1
    });
    assert_calm(outcome, "rapid reset");
    assert_eq!(Client::open(edge.address).get("/?k=a").statuses, [200]);
}

#[test]
fn rapid_reset_of_dispatched_requests_is_closed_with_goaway() {
    let (edge, origin) = start();
    origin.behave(Behaviour::Hold);
    let mut client = Client::open(edge.address);
    let mut at_work = 0;
    let outcome = flood(&mut client, 1000, |client, _| {
        let stream = client.begin(flag::END_STREAM, &get("/?k=a"));
        at_work += 1;
        // Seen by the proxy, not only by the library.
        wait::until("the request to be at work, or the end", || {
            origin.requests() >= at_work || !client.idles_for(Duration::from_millis(1))
        });
        vec![Frame::reset(stream, code::CANCEL)]
    });
    origin.behave(Behaviour::Echo);
    assert_stopped(&edge, outcome, "rapid_reset");
}

#[test]
fn flood_of_window_overflows_is_closed_with_goaway() {
    let (edge, _origin) = start();
    let mut client = Client::open(edge.address);
    let outcome = flood(&mut client, 2000, |client, _| {
        let stream = client.stream();
        let header = Frame::headers(stream, 0, &request("POST", "/?k=a"));
        let more = Frame::window(stream, i32::MAX.unsigned_abs());
        vec![header, more]
    });
    assert_stopped(&edge, outcome, "enhance_your_calm");
}

#[test]
fn flood_of_control_frames_is_closed_with_goaway() {
    for (name, frame) in [
        ("PING", Frame::ping(0)),
        ("SETTINGS", Frame::settings(&[])),
        (
            "PRIORITY",
            Frame::new(kind::PRIORITY, 0, 1, [0, 0, 0, 3, 1]),
        ),
        ("WINDOW_UPDATE", Frame::window(0, 1)),
        ("unknown", Frame::new(99, 0, 0, [])),
    ] {
        let (edge, _origin) = start();
        let mut client = Client::open(edge.address);
        let outcome = flood(&mut client, 50, |_, _| vec![frame.clone(); 200]);
        assert_calm(outcome, name);
        assert_stopped(&edge, outcome, "control_flood");
    }
}

#[test]
fn flood_of_empty_data_frames_is_closed_with_goaway() {
    for (name, length, reason) in [
        ("empty", 0, "enhance_your_calm"),
        ("tiny", 1, "enhance_your_calm"),
    ] {
        let (edge, _origin) = start();
        let mut client = Client::open(edge.address);
        let stream = client.begin(0, &request("POST", "/?k=a"));
        let outcome = flood(&mut client, 2000, |_, _| {
            vec![Frame::data(stream, 0, vec![0; length]); 100]
        });
        assert_calm(outcome, name);
        let label = |reason: &str| {
            edge.admin
                .metric(VIOLATIONS, &[&format!("reason=\"{reason}\"")])
        };
        wait::until("it to be counted", || {
            label(reason) + label("control_flood") == 1
        });
        assert_eq!(Client::open(edge.address).get("/?k=a").statuses, [200]);
    }
}

#[test]
fn flood_of_continuation_frames_is_closed_with_goaway() {
    let (edge, origin) = start();
    for filler in [vec![], block(&[("x", &"y".repeat(1000))])] {
        let mut client = Client::open(edge.address);
        let stream = client.stream();
        let begun = Frame::new(kind::HEADERS, flag::END_STREAM, stream, block(&get("/")));
        client.send(&begun).unwrap();
        let more = Frame::new(kind::CONTINUATION, 0, stream, filler);
        let outcome = flood(&mut client, 5000, |_, _| vec![more.clone()]);
        assert_calm(outcome, "CONTINUATION");
    }
    edge.admin
        .wait_for_metric(VIOLATIONS, &["reason=\"enhance_your_calm\""], 1);
    assert_eq!(origin.requests(), 0);
}

#[test]
fn hpack_bomb_is_refused() {
    let (edge, origin) = start();
    let mut client = Client::open(edge.address);
    let stream = client.stream();
    // One large field in the table, and then only its index, again and again (62, RFC 7541 §6.1).
    let large = [&[0x40][..], &block(&[("x", &"y".repeat(3000))])[1..]].concat();
    let bomb = [block(&get("/?k=a")), large, vec![0xbe; 10_000]].concat();
    let frame = Frame::new(
        kind::HEADERS,
        flag::END_HEADERS | flag::END_STREAM,
        stream,
        bomb,
    );
    let _ = client.send(&frame);
    assert_calm(client.end().0, "a bomb");
    edge.admin
        .wait_for_metric(VIOLATIONS, &["reason=\"enhance_your_calm\""], 1);
    assert_eq!(origin.requests(), 0);
    assert_eq!(Client::open(edge.address).get("/?k=a").statuses, [200]);
}

#[test]
fn flood_of_one_byte_window_updates_is_closed_with_goaway() {
    let (edge, origin) = start();
    origin.behave(Behaviour::Body(100_000));
    let mut client = Client::with(edge.address, &[(INITIAL_WINDOW_SIZE, 0)]);
    let stream = client.begin(flag::END_STREAM, &get("/?k=a"));
    let outcome = flood(&mut client, 50_000, |_, _| vec![Frame::window(stream, 1)]);
    origin.behave(Behaviour::Echo);
    assert_stopped(&edge, outcome, "control_flood");
}

#[test]
fn busy_http2_client_is_not_treated_as_a_flood() {
    let (edge, origin) = start();
    let mut client = Client::open(edge.address);
    for _ in 0..300 {
        for _ in 0..5 {
            client.send(&Frame::ping(0)).unwrap();
        }
        assert_eq!(client.get("/?k=a").statuses, [200]);
        let back = client.begin(flag::END_STREAM, &get("/?k=a"));
        client.send(&Frame::reset(back, code::CANCEL)).unwrap();
        assert_eq!(client.get("/?k=a").statuses, [200]);
    }
    origin.behave(Behaviour::Body(10_000_000));
    assert_eq!(client.get("/?k=a").body.len(), 10_000_000);
    assert_welcome(&edge, &mut client);
}

#[test]
fn http2_client_with_frequent_pings_is_not_treated_as_a_flood() {
    const PIECES: usize = 3000;
    let (edge, origin) = start();
    let piece = [b"32\r\n", &[b'x'; 50][..], b"\r\n"].concat();
    origin.behave(stream_of(
        &[&piece.repeat(PIECES)[..], b"0\r\n\r\n"].concat(),
    ));
    let mut client = Client::open(edge.address);
    let stream = client.begin(flag::END_STREAM, &get("/?k=a"));
    let mut came = 0;
    while came < 50 * PIECES {
        let data = client.wait_for("DATA", |frame| {
            assert_ne!(frame.kind, kind::GOAWAY, "after {came} bytes");
            frame.kind == kind::DATA && !frame.payload.is_empty()
        });
        came += data.payload.len();
        let length = u32::try_from(data.payload.len()).unwrap();
        for frame in [
            Frame::window(0, length),
            Frame::window(stream, length),
            Frame::ping(0),
        ] {
            client.send(&frame).unwrap();
        }
    }
    assert_welcome(&edge, &mut client);
}

#[test]
fn http2_cancelled_grpc_calls_are_not_treated_as_a_flood() {
    let (edge, origin) = start();
    origin.behave(stream_of(b"1\r\nx\r\n"));
    let mut client = Client::open(edge.address);
    let lasting = client.begin(flag::END_STREAM, &get("/?k=a"));
    for round in 0..500 {
        let call = client.begin(flag::END_STREAM, &get("/?k=a"));
        client.wait_for("DATA", |frame| {
            assert_ne!(frame.kind, kind::GOAWAY, "after {round} calls");
            frame.kind == kind::DATA && frame.stream == call
        });
        client.send(&Frame::reset(call, code::CANCEL)).unwrap();
    }
    assert_eq!(client.next_of(lasting).kind, kind::HEADERS);
    assert_welcome(&edge, &mut client);
}

/// A response that begins with these chunks.
fn stream_of(chunks: &[u8]) -> Behaviour {
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    Behaviour::Raw([&head[..], chunks].concat())
}

/// The client was not asked to leave, and nothing was held against it.
#[track_caller]
fn assert_welcome(edge: &Edge, client: &mut Client) {
    let farewell = client.aside.iter().find(|frame| frame.kind == kind::GOAWAY);
    assert_eq!(farewell, None);
    assert_eq!(client.outcome(), Outcome::Alive);
    assert_eq!(edge.admin.metric(VIOLATIONS, &[]), 0);
}
