//! Memory of responses that their clients do not read.

use std::process::Command;
use std::{fs, thread};

use crate::http2::H2C;
use crate::support::edge::{ConfigBuilder, Edge};
use crate::support::http2::{Client, flag, get, kind};
use crate::support::process::{self, Process};
use crate::support::{port, wait};

/// A setting (RFC 9113 §6.5.2).
const INITIAL_WINDOW_SIZE: u16 = 4;
/// The size of a response; bytes.
const LARGE: usize = 4 << 20;
/// The most memory that one of them may take; KiB. Documented in the guide.
const BOUND: u64 = 128;
/// Streams of one connection: the default of `max_streams`.
const STREAMS: u64 = 100;

/// An HTTP/2 server without TLS that has `/large` and `/small`, behind an instance.
fn before_h2c_peer() -> (Edge, Process, tempfile::TempDir) {
    let files = tempfile::tempdir().unwrap();
    fs::write(files.path().join("large"), vec![b'x'; LARGE]).unwrap();
    fs::write(files.path().join("small"), "small").unwrap();
    let address = port::free();
    let mut command = Command::new("nghttpd");
    command
        .args(["--no-tls", "--max-concurrent-streams=1000", "--htdocs"])
        .arg(files.path())
        .args([
            "--address",
            &address.ip().to_string(),
            &address.port().to_string(),
        ]);
    let server = Process::listening("nghttpd", &mut command, address);
    let edge = ConfigBuilder::of([address.to_string()])
        .app("protocol", "h2c")
        .app("key", "path")
        .top("listeners", H2C)
        .top("threads", "2")
        .start();
    (edge, server, files)
}

/// Clients with an initial window of 0, each with [`STREAMS`] responses that have begun.
fn stalled(edge: &Edge, connections: usize) -> Vec<Client> {
    let connect = || {
        let mut client = Client::with(edge.address, &[(INITIAL_WINDOW_SIZE, 0)]);
        let streams: Vec<u32> = (0..STREAMS)
            .map(|_| client.begin(flag::END_STREAM, &get("/large")))
            .collect();
        for stream in streams {
            assert_eq!(client.next_of(stream).kind, kind::HEADERS);
        }
        client
    };
    (0..connections).map(|_| connect()).collect()
}

#[test]
fn response_that_an_http2_client_does_not_read_takes_at_most_128_kib() {
    let (edge, _server, _files) = before_h2c_peer();
    let pid = edge.pid();
    drop(stalled(&edge, 1)); // what each thread allocates once
    let mut ends = Vec::new();
    for round in 0..4 {
        let before = process::settled(pid);
        let clients = stalled(&edge, 3);
        let held = process::settled(pid);
        let each = held.saturating_sub(before) / (3 * STREAMS);
        eprintln!("round {round}: {before} -> {held} KiB, {each} KiB for each response");
        assert!(each <= BOUND, "{each} KiB");
        drop(clients);
        edge.settle();
        ends.push(held);
    }
    // What ended is used again: the later rounds take no more than the first.
    let growth = ends[3].saturating_sub(ends[0]);
    assert!(growth < STREAMS * BOUND, "{ends:?} KiB");
}

/// The streams share connections to the peer, whose windows are for all of them.
#[test]
fn stalled_responses_of_an_http2_peer_do_not_block_others() {
    let (edge, _server, _files) = before_h2c_peer();
    let _stalled = stalled(&edge, 1);
    let mut client = Client::open(edge.address);
    for _ in 0..3 {
        let answer = client.get("/small");
        assert_eq!(
            (&answer.statuses[..], &answer.body[..]),
            (&[200][..], &b"small"[..])
        );
    }
    thread::scope(|scope| {
        let read = scope.spawn(|| Client::open(edge.address).get("/large").body.len());
        wait::until("a whole response", || read.is_finished());
        assert_eq!(read.join().unwrap(), LARGE);
    });
}
