//! Tests of the harness itself.

use crate::support::client::{self, Connection, Request};
use crate::support::nginx::Nginx;
use crate::support::origin::{Behaviour, Origin};
use crate::support::port::{ClosedPort, FullBacklog};
use crate::support::wait;

#[test]
fn test_origin_echoes_the_request() {
    let origin = Origin::start();
    let request = Request::post("/a?b=c", "12345").header("X-One", "1");
    let echo = client::send(origin.address, &request).json();
    assert_eq!(
        (&echo["origin"], &echo["target"]),
        (&origin.label().into(), &"/a?b=c".into())
    );
    assert_eq!(echo["length"], 5);
    assert!(
        echo["headers"]
            .as_array()
            .unwrap()
            .contains(&serde_json::json!(["X-One", "1"]))
    );
}

#[test]
fn test_origin_counts_requests_and_connections() {
    let origin = Origin::start();
    let mut connection = Connection::open(origin.address);
    assert_eq!(connection.get("/").unwrap().json()["request"], 1);
    assert_eq!(connection.get("/").unwrap().json()["request"], 2);
    client::send(origin.address, &Request::get("/"));
    assert_eq!((origin.connections(), origin.requests()), (2, 3));
}

#[test]
fn test_origin_that_is_down_refuses_and_can_return() {
    let mut origin = Origin::start();
    let mut open = Connection::open(origin.address);
    open.get("/").unwrap();
    origin.down();
    open.get("/").expect_err("the open connection is gone");
    assert!(Connection::try_open(origin.address).is_err());
    origin.up();
    assert_eq!(client::send(origin.address, &Request::get("/")).status, 200);
}

#[test]
fn test_origin_reset_sends_a_tcp_reset() {
    let origin = Origin::behaving(Behaviour::ResetReused);
    let mut connection = Connection::open(origin.address);
    connection.get("/").unwrap();
    let error = connection.get("/").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    origin.behave(Behaviour::ResetAfter(7));
    let mut connection = Connection::open(origin.address);
    connection.send("GET / HTTP/1.1\r\n\r\n").unwrap();
    connection.head().unwrap();
    assert_eq!(connection.exactly(7).unwrap().len(), 7);
    assert_eq!(
        connection.rest().unwrap_err().kind(),
        std::io::ErrorKind::ConnectionReset
    );
}

#[test]
fn test_origin_held_request_can_be_released() {
    let origin = Origin::behaving(Behaviour::Hold);
    let mut connection = Connection::open(origin.address);
    connection.send("GET / HTTP/1.1\r\n\r\n").unwrap();
    origin.wait_for_requests(1);
    assert!(connection.idles_for(std::time::Duration::from_millis(50)));
    origin.behave(Behaviour::Echo);
    assert_eq!(connection.response().unwrap().status, 200);
}

#[test]
fn test_origin_stalled_body_can_resume() {
    let origin = Origin::behaving(Behaviour::Stall(10, 100_000));
    let mut connection = Connection::open(origin.address);
    connection.send("GET / HTTP/1.1\r\n\r\n").unwrap();
    connection.head().unwrap();
    connection.exactly(10).unwrap();
    origin.behave(Behaviour::Echo);
    assert_eq!(connection.exactly(99_990).unwrap().len(), 99_990);
}

#[test]
fn test_origin_upgraded_connection_echoes() {
    let origin = Origin::behaving(Behaviour::Upgrade);
    let mut connection = Connection::open(origin.address);
    connection
        .send("GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n")
        .unwrap();
    assert_eq!(connection.response().unwrap().status, 101);
    connection.send("ping").unwrap();
    assert_eq!(connection.exactly(4).unwrap(), b"ping");
}

#[test]
fn test_nginx_restarts_on_the_same_port() {
    let mut nginx = Nginx::start();
    let ask = |address| client::send(address, &Request::get("/x")).text();
    assert_eq!(ask(nginx.address), nginx.label());
    nginx.kill();
    assert!(Connection::try_open(nginx.address).is_err());
    nginx.restart();
    assert_eq!(ask(nginx.address), nginx.label());
}

#[test]
fn test_port_closed_refuses_and_full_backlog_hangs() {
    let error = Connection::try_open(ClosedPort::new().address)
        .err()
        .unwrap();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    let full = FullBacklog::new();
    let patience = std::time::Duration::from_millis(300);
    let (connect, took) =
        wait::timed(|| std::net::TcpStream::connect_timeout(&full.address, patience));
    assert!(
        connect.is_err() && took >= patience,
        "{connect:?} after {took:?}"
    );
}
