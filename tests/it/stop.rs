//! Start and stop of an instance: no request is lost, and the process exits.

use std::net::TcpListener;
use std::time::Duration;

use crate::support::client::{Connection, Request};
use crate::support::edge::{ConfigBuilder, Edge};
use crate::support::load::{Load, keys};
use crate::support::origin::{Behaviour, Origin};
use crate::support::wait::{self, assert_about, timed};

/// One origin behind an instance with an idle time that ends before a test's patience does, but not
/// between two steps of a test.
fn start(top: &[(&str, &str)]) -> (Edge, Origin) {
    start_idling("10s", top)
}

fn start_idling(keepalive: &str, top: &[(&str, &str)]) -> (Edge, Origin) {
    let origin = Origin::start();
    let site =
        ConfigBuilder::of([origin.label()]).downstream(&format!("{{keepalive: {keepalive}}}"));
    let site = top
        .iter()
        .fold(site, |site, (key, value)| site.top(key, value));
    (site.start(), origin)
}

#[test]
fn stop_loses_no_request_of_busy_clients() {
    let (mut edge, _origin) = start(&[]);
    let load = Load::start(&edge, 8, &keys(100));
    load.wait_for_more(500);
    edge.begin_stop();
    // Clients that reconnect after `Connection: close` are refused: no request is lost.
    load.end_refused();
    assert!(edge.wait().success());
}

#[test]
fn stop_loses_no_request_of_idle_clients() {
    let (mut edge, _origin) = start(&[]);
    let mut idle: Vec<Connection> = (0..20).map(|_| edge.connect()).collect();
    for connection in &mut idle {
        assert!(!connection.get("/?k=a").unwrap().closes());
    }
    edge.begin_stop();
    for connection in &mut idle {
        let response = connection.get("/?k=a").expect("an answer after TERM");
        assert!(response.status == 200 && response.closes(), "{response:?}");
    }
    assert!(edge.wait().success());
}

#[test]
fn stop_serves_a_connection_just_opened() {
    let (mut edge, _origin) = start(&[]);
    let mut fresh: Vec<Connection> = (0..20).map(|_| edge.connect()).collect();
    edge.begin_stop();
    for connection in &mut fresh {
        assert_eq!(
            connection
                .get("/?k=a")
                .expect("an answer after TERM")
                .status,
            200
        );
    }
    assert!(edge.wait().success());
}

#[test]
fn stop_sends_connection_close_with_the_last_response() {
    let (mut edge, origin) = start(&[]);
    origin.behave(Behaviour::Hold);
    let mut busy = ask(&edge);
    origin.wait_for_requests(1);
    edge.begin_stop();
    origin.behave(Behaviour::Echo);
    let response = busy.response().unwrap();
    assert!(response.status == 200 && response.closes(), "{response:?}");
    assert!(edge.wait().success());
}

#[test]
fn stop_of_an_idle_instance_is_immediate() {
    let (mut edge, _origin) = start_idling("5m", &[("drain_timeout", "5m")]);
    edge.get("/?k=a");
    edge.signal("TERM");
    assert!(edge.wait().success());
}

#[test]
fn stop_waits_for_an_idle_client_at_most_its_idle_time() {
    let (mut edge, _origin) = start_idling("2s", &[("drain_timeout", "5m")]);
    let mut idle = edge.connect();
    idle.get("/?k=a").unwrap();
    edge.begin_stop();
    assert!(edge.wait().success());
}

#[test]
fn stop_by_sigint_drains_like_sigterm() {
    let (mut edge, origin) = start(&[]);
    origin.behave(Behaviour::Hold);
    let mut busy = ask(&edge);
    origin.wait_for_requests(1);
    edge.signal("INT");
    wait_until_draining(&edge);
    origin.behave(Behaviour::Echo);
    assert_eq!(busy.response().unwrap().status, 200);
    assert!(edge.wait().success());
}

#[test]
fn stop_finishes_a_slow_download() {
    let (mut edge, origin) = start(&[]);
    origin.behave(Behaviour::Stall(100_000, 1_000_000));
    let mut download = ask(&edge);
    download.head().unwrap();
    download.exactly(100_000).unwrap();
    edge.begin_stop();
    assert!(edge.exited().is_none());
    origin.behave(Behaviour::Echo);
    assert_eq!(download.exactly(900_000).unwrap().len(), 900_000);
    drop(download); // it would stay idle, and be waited for
    assert!(edge.wait().success());
}

#[test]
fn stop_finishes_a_slow_upload() {
    let (mut edge, origin) = start(&[]);
    let mut upload = edge.connect();
    upload
        .send("POST /?k=a HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n12345")
        .unwrap();
    origin.wait_for_requests(1);
    edge.begin_stop();
    upload.send("67890").unwrap();
    let response = upload.response().unwrap();
    assert_eq!(
        (response.status, response.json()["length"].as_u64()),
        (200, Some(10))
    );
    assert!(edge.wait().success());
}

#[test]
fn stop_ends_at_the_drain_timeout() {
    let (mut edge, origin) = start(&[("drain_timeout", "1s")]);
    origin.behave(Behaviour::Hold);
    let mut stuck = ask(&edge);
    origin.wait_for_requests(1);
    let (_, took) = timed(|| {
        edge.signal("TERM");
        edge.wait()
    });
    assert_about(took, Duration::from_secs(1));
    stuck.time_to_close();
}

#[test]
fn stop_with_a_second_signal_is_immediate() {
    let (mut edge, origin) = start(&[("drain_timeout", "5m")]);
    origin.behave(Behaviour::Hold);
    let mut stuck = ask(&edge);
    origin.wait_for_requests(1);
    edge.begin_stop();
    assert!(
        stuck.idles_for(Duration::from_millis(300)),
        "the first signal cuts nothing"
    );
    edge.signal("TERM");
    edge.wait();
}

#[test]
fn stop_makes_the_instance_not_ready() {
    let (edge, origin) = start(&[]);
    origin.behave(Behaviour::Hold);
    let _busy = ask(&edge);
    origin.wait_for_requests(1);
    edge.signal("TERM");
    wait_until_draining(&edge);
    assert_eq!(edge.admin.get("/healthz").status, 200, "it lives");
    assert_eq!(edge.admin.metric("clockwise_draining", &[]), 1);
}

#[test]
fn start_with_an_address_in_use_is_an_error_naming_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for key in ["listeners", "admin"] {
        let value = format!("{{address: \"{address}\"}}");
        let value = if key == "listeners" {
            format!("[{value}]")
        } else {
            value
        };
        let mut edge = Edge::launch(&ConfigBuilder::of(["127.0.0.1:1"]).top(key, &value).yaml());
        assert!(!edge.wait().success());
        wait::until("the address on stderr", || edge.stderr().contains(&address));
    }
}

#[test]
fn start_after_a_kill_takes_over_the_address() {
    let origin = Origin::start();
    let yaml = ConfigBuilder::of([origin.label()]);
    let first = yaml.start();
    let listeners = format!("[{{address: \"{}\"}}]", first.address);
    first.get("/?k=a");
    drop(first); // by SIGKILL: no farewell
    let second = yaml.top("listeners", &listeners).start();
    assert_eq!(second.send(&Request::get("/?k=a")).status, 200);
}

fn ask(edge: &Edge) -> Connection {
    let mut connection = edge.connect();
    connection
        .send("GET /?k=a HTTP/1.1\r\nHost: h\r\n\r\n")
        .unwrap();
    connection
}

fn wait_until_draining(edge: &Edge) {
    wait::until("the instance to drain", || {
        edge.admin.get("/readyz").status == 503
    });
}
