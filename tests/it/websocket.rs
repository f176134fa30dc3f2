//! A WebSocket passes untouched, whatever is in it.

use std::{io, thread};

use crate::forwarding::Pipe;
use crate::support::client::Request;
use crate::support::crowd::open_socket;
use crate::support::edge::Edge;
use crate::support::origin::Behaviour;

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

#[test]
fn a_websocket_passes() {
    let pipe = Pipe::open();
    pipe.origin.behave(Behaviour::Upgrade);
    let mut connection = pipe.edge.connect();
    connection.send(UPGRADE).unwrap();
    assert_eq!(connection.response().unwrap().status, 101);
    for message in [
        &b"\x81\x05hello"[..],
        &b"\x82\x02\x00\xff"[..],
        &vec![7; 100_000],
    ] {
        connection.send(message).unwrap();
        assert_eq!(connection.exactly(message.len()).unwrap(), message);
    }
}

/// A peer that answers at once is read before its request is done with, unless that is prevented;
/// with enough clients at a time, some are always met by it.
#[test]
fn a_websocket_stays_open_however_soon_its_peer_answers() {
    fn converse(edge: &Edge) -> io::Result<()> {
        for _ in 0..200 {
            let mut socket = open_socket(edge.address)?;
            for _ in 0..3 {
                socket.send("are you there?")?;
                socket.exactly(14)?;
            }
        }
        Ok(())
    }
    let pipe = Pipe::open();
    pipe.origin.behave(Behaviour::Upgrade);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..16)
            .map(|_| scope.spawn(|| converse(&pipe.edge)))
            .collect();
        for client in clients {
            client.join().unwrap().unwrap();
        }
    });
}

#[test]
fn a_websocket_ends_with_its_client() {
    let pipe = Pipe::open();
    pipe.origin.behave(Behaviour::Upgrade);
    let mut connection = pipe.edge.connect();
    connection.send(UPGRADE).unwrap();
    assert_eq!(connection.response().unwrap().status, 101);
    connection.finish_sending();
    assert_eq!(connection.rest().unwrap(), b"");
}

#[test]
fn a_peer_may_refuse_an_upgrade() {
    let pipe = Pipe::open();
    let mut connection = pipe.edge.connect();
    connection.send(UPGRADE).unwrap();
    assert_eq!(connection.response().unwrap().status, 200);
    assert_eq!(connection.get("/").unwrap().status, 200);
}

#[test]
fn only_websocket_upgrades_pass() {
    let pipe = Pipe::open();
    let request = Request::get("/")
        .header("Connection", "Upgrade, HTTP2-Settings")
        .header("Upgrade", "h2c");
    assert_eq!(
        pipe.received(&request.header("HTTP2-Settings", "AA"), "upgrade"),
        [""; 0]
    );
}
