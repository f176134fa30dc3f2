//! Failures of peers: which peer gets the keys, which requests are retried, and which never are.

use std::time::Duration;

use crate::support::client::{Request, Response};
use crate::support::edge::{ConfigBuilder, Edge};
use crate::support::load::{self, KeyAnswer, Load, keys};
use crate::support::nginx::Nginx;
use crate::support::origin::{Behaviour, Origin};
use crate::support::port::ClosedPort;

// ── a peer goes down under load

#[test]
fn down_peer_moves_only_its_keys_and_gets_them_back() {
    let mut nginx = Nginx::three();
    let edge = probed(&nginx);
    let keys = keys(2_000);
    let walks = edge.predict(&keys, 2);
    let owner = |key: usize| walks[key][0].as_str();
    let load = Load::start(&edge, 8, &keys);
    load.wait_for_more(4_000);
    assert_served(&load.take(), owner);

    let dead = nginx[0].label();
    nginx[0].kill();
    load.wait_for_more(4_000);
    let next_of_walk = |key: usize| {
        walks[key]
            .iter()
            .find(|label| **label != dead)
            .unwrap()
            .as_str()
    };
    let during = load.take();
    // Requests in flight at the time may still have a response of the dead peer.
    let moved: Vec<KeyAnswer> = during
        .into_iter()
        .filter(|answered| answered.peer != dead)
        .collect();
    assert_served(&moved, next_of_walk);
    edge.admin.wait_for_state("app", &dead, "down");
    load.take();
    load.wait_for_more(4_000);
    assert_served(&load.take(), next_of_walk);

    nginx[0].restart();
    edge.admin.wait_for_state("app", &dead, "up");
    load.wait_for_more(100); // the requests in flight
    load.take();
    load.wait_for_more(4_000);
    assert_served(&load.stop(), owner);
}

fn probed(nginx: &[Nginx]) -> Edge {
    let health = "{tcp: true, interval: 1s, timeout: 1s, fall: 2, rise: 2}";
    let site = ConfigBuilder::of(nginx.iter().map(Nginx::label)).app("health", health);
    site.app("retry", "{attempts: 3, timeout: 10s}").start()
}

#[track_caller]
fn assert_served<'a>(answered: &[KeyAnswer], by: impl Fn(usize) -> &'a str) {
    assert!(!answered.is_empty());
    let strays = answered
        .iter()
        .filter(|answered| answered.peer != by(answered.key))
        .count();
    assert_eq!(strays, 0, "of {} requests", answered.len());
}

#[test]
fn failover_reaches_the_only_available_peer_of_100() {
    let up = Origin::start();
    let closed: Vec<ClosedPort> = (0..99).map(|_| ClosedPort::new()).collect();
    let labels = closed
        .iter()
        .map(|closed| closed.address.to_string())
        .chain([up.label()]);
    let edge = ConfigBuilder::of(labels)
        .app(
            "health",
            "{tcp: true, interval: 10s, timeout: 10s, fall: 1, rise: 1}",
        )
        .start();
    for key in keys(500) {
        assert_eq!(edge.get(&format!("/?k={key}")).status, 200);
    }
    assert_eq!(up.requests(), 500);
    assert_eq!(
        edge.admin
            .metric("clockwise_upstream_no_available_peer_total", &[]),
        0
    );
}

#[test]
fn all_peers_down_is_503_with_retry_after() {
    let closed = ClosedPort::new();
    let edge = ConfigBuilder::of([closed.address])
        .app("health", "{tcp: true, interval: 1100ms, fall: 1, rise: 2}")
        .start();
    let mut connection = edge.connect();
    let response = connection.get("/?k=a").unwrap();
    assert_eq!(response.status, 503);
    let two_probes = Some("3");
    assert_eq!(response.header("retry-after"), two_probes);
    assert_eq!(
        connection.get("/?k=b").unwrap().status,
        503,
        "on the same connection"
    );
    edge.admin.wait_for_metric(
        "clockwise_upstream_no_available_peer_total",
        &["upstream=\"app\""],
        2,
    );
}

// ── one request, one failure

const EXHAUSTED: &str = "clockwise_upstream_retries_exhausted_total";

/// Three origins and a key with its walk over them.
struct ThreeOrigins {
    edge: Edge,
    /// In the order of the walk of [`ThreeOrigins::TARGET`].
    walk: Vec<Origin>,
}

impl ThreeOrigins {
    const TARGET: &str = "/?k=user-00001";

    fn start() -> Self {
        Self::with(|site| site.app("retry", "{attempts: 3, timeout: 10s}"))
    }

    fn with(change: impl FnOnce(ConfigBuilder) -> ConfigBuilder) -> Self {
        let mut origins = Origin::some(3);
        let edge = change(ConfigBuilder::of(origins.iter().map(Origin::label))).start();
        let order = edge.admin.walk("app", "user-00001");
        origins.sort_by_key(|origin| order.iter().position(|label| *label == origin.label()));
        Self {
            edge,
            walk: origins,
        }
    }

    fn get(&self) -> Response {
        self.edge.get(Self::TARGET)
    }

    fn post(&self, body: usize) -> Response {
        self.edge
            .send(&Request::post(Self::TARGET, vec![b'x'; body]))
    }

    fn reset_all(&self) {
        for origin in &self.walk {
            origin.behave(Behaviour::Reset);
        }
    }

    /// The number of connections to each origin of the walk.
    fn connections(&self) -> Vec<usize> {
        self.walk.iter().map(Origin::connections).collect()
    }

    /// The number of requests that each origin of the walk has read.
    fn requests(&self) -> Vec<usize> {
        self.walk.iter().map(Origin::requests).collect()
    }
}

#[test]
fn connect_refused_retries_on_the_next_peer() {
    let mut three = ThreeOrigins::start();
    three.walk[0].down();
    let response = three.get();
    assert_eq!((response.status, three.requests()), (200, vec![0, 1, 0]));
    three.walk[1].down();
    assert_eq!((three.get().status, three.requests()), (200, vec![0, 1, 1]));
    three
        .edge
        .admin
        .wait_for_metric("clockwise_upstream_retries_total", &["upstream=\"app\""], 3);
}

#[test]
fn connect_refused_for_a_websocket_retries_on_the_next_peer() {
    let mut three = ThreeOrigins::start();
    three.walk[0].down();
    let response = three.edge.send(&Request::socket(ThreeOrigins::TARGET));
    assert_eq!((response.status, three.requests()), (200, vec![0, 1, 0]));
}

#[test]
fn connect_failure_of_a_post_retries_on_the_next_peer() {
    for length in [0, 10, 1 << 20] {
        let mut three = ThreeOrigins::start();
        three.walk[0].down();
        let response = three.post(length);
        assert_eq!(response.status, 200, "with {length} bytes");
        assert_eq!(response.json()["length"], length);
        assert_eq!(three.requests(), [0, 1, 0]);
    }
}

#[test]
fn reset_before_the_response_retries_a_get() {
    let three = ThreeOrigins::start();
    three.walk[0].behave(Behaviour::Reset);
    assert_eq!((three.get().status, three.requests()), (200, vec![1, 1, 0]));
}

#[test]
fn reset_before_the_response_does_not_retry_a_post() {
    let three = ThreeOrigins::start();
    three.walk[0].behave(Behaviour::Reset);
    assert_eq!(
        (three.post(10).status, three.requests()),
        (502, vec![1, 0, 0])
    );
}

#[test]
fn retry_of_a_put_sends_the_whole_body_again() {
    let three = ThreeOrigins::start();
    three.walk[0].behave(Behaviour::Reset);
    let response = three
        .edge
        .send(&Request::new("PUT", ThreeOrigins::TARGET).body("0123456789"));
    assert_eq!(
        (response.status, response.json()["length"].as_u64()),
        (200, Some(10))
    );
    assert_eq!(three.requests(), [1, 1, 0]);
}

#[test]
fn retry_counts_a_resent_body_once() {
    let three = ThreeOrigins::with(|site| {
        site.app("retry", "{attempts: 3, timeout: 10s}")
            .downstream("{max_body_size: 1000}")
    });
    three.walk[0].behave(Behaviour::Reset);
    let request = Request::new("PUT", ThreeOrigins::TARGET).body(vec![b'x'; 600]);
    let response = three.edge.send(&request);
    assert_eq!((response.status, three.requests()), (200, vec![1, 1, 0]));
}

#[test]
fn stale_reused_connection_is_replaced_on_the_same_peer() {
    let three = ThreeOrigins::start();
    three.walk[0].behave(Behaviour::ResetReused);
    assert_eq!(three.get().status, 200);
    three.edge.settle();
    let second = three.get();
    assert_eq!(
        (second.status, second.json()["connection"].as_u64()),
        (200, Some(2))
    );
    assert_eq!(three.connections(), [2, 0, 0], "the key did not move");
}

#[test]
fn stale_reused_connection_fails_a_post() {
    let three = ThreeOrigins::start();
    three.walk[0].behave(Behaviour::ResetReused);
    assert_eq!(three.get().status, 200);
    three.edge.settle();
    assert_eq!(three.post(10).status, 502);
    assert_eq!(three.connections(), [1, 0, 0]);
}

#[test]
fn retry_attempts_are_limited_by_config() {
    let three = ThreeOrigins::with(|site| site.app("retry", "{attempts: 2, timeout: 10s}"));
    three.reset_all();
    assert_eq!(
        (three.get().status, three.connections()),
        (502, vec![1, 1, 0])
    );
    three
        .edge
        .admin
        .wait_for_metric(EXHAUSTED, &["upstream=\"app\""], 1);
}

#[test]
fn retry_skips_peers_already_tried() {
    let three = ThreeOrigins::with(|site| site.app("retry", "{attempts: 16, timeout: 10s}"));
    three.reset_all();
    assert_eq!(
        (three.get().status, three.connections()),
        (502, vec![1, 1, 1])
    );
    assert_eq!(
        three.edge.admin.metric(EXHAUSTED, &[]),
        0,
        "no limit but the peers' number"
    );
}

#[test]
fn retry_can_be_disabled() {
    let mut three = ThreeOrigins::with(|site| site.app("retry", "off"));
    three.walk[0].down();
    assert_eq!(
        (three.get().status, three.connections()),
        (502, vec![0, 0, 0])
    );
    assert_eq!(three.edge.admin.metric(EXHAUSTED, &[]), 0);
}

#[test]
fn retry_stops_after_the_retry_time() {
    let three = ThreeOrigins::with(|site| {
        site.app("retry", "{attempts: 3, timeout: 300ms}")
            .app("timeouts", "{connect: 20s, first_byte: 20s}")
    });
    three.walk[0].behave(Behaviour::Hold);
    let mut connection = three.edge.connect();
    connection
        .send(format!(
            "GET {} HTTP/1.1\r\nHost: h\r\n\r\n",
            ThreeOrigins::TARGET
        ))
        .unwrap();
    three.walk[0].wait_for_requests(1);
    assert!(connection.idles_for(Duration::from_millis(400)));
    three.walk[0].behave(Behaviour::Reset);
    assert_eq!(connection.response().unwrap().status, 502);
    assert_eq!(three.requests(), [1, 0, 0]);
}

#[test]
fn response_that_has_started_is_never_retried() {
    let three = ThreeOrigins::start();
    three.walk[0].behave(Behaviour::ResetAfter(1000));
    let mut connection = three.edge.connect();
    connection
        .get(ThreeOrigins::TARGET)
        .expect_err("a body cut short, not one that looks whole");
    assert_eq!(three.requests(), [1, 0, 0]);
    three.walk[0].behave(Behaviour::Echo);
    assert_eq!(three.get().status, 200, "the instance still serves");
}

#[test]
fn failover_moves_keys_to_the_next_peer_of_their_walk() {
    let mut three = ThreeOrigins::start();
    let keys = keys(100);
    let dead = three.walk[0].label();
    let walks = three.edge.predict(&keys, 2);
    three.walk[0].down();
    let bodies = load::ask_all(&three.edge, &keys);
    for ((key, walk), body) in keys.iter().zip(walks).zip(bodies) {
        let next_of_walk = walk.iter().find(|label| **label != dead).unwrap();
        assert!(
            body.contains(&format!("\"origin\":\"{next_of_walk}\"")),
            "{key} went astray: {body}"
        );
    }
}
