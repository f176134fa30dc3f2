//! The admin API, on the control socket and on the admin address.

use std::os::unix::fs::PermissionsExt;

use crate::support::client::{self, Request, Response};
use crate::support::edge::{ConfigBuilder, Edge};
use crate::support::origin::Origin;

fn start() -> (Edge, Vec<Origin>) {
    let origins = Origin::some(3);
    (
        ConfigBuilder::of(origins.iter().map(Origin::label)).start(),
        origins,
    )
}

fn status(edge: &Edge) -> serde_json::Value {
    edge.admin.get("/v1/status").json()
}

/// The same request over TCP.
fn over_tcp(edge: &Edge, request: &Request) -> Response {
    let address = status(edge)["admin"]
        .as_str()
        .expect("an admin address")
        .to_owned();
    let request = request.clone().header("Host", &address);
    client::send(address.parse().unwrap(), &request)
}

#[test]
fn admin_health_and_readiness_are_200() {
    let (edge, _origins) = start();
    for path in ["/healthz", "/readyz"] {
        assert_eq!(edge.admin.get(path).status, 200);
        assert_eq!(over_tcp(&edge, &Request::get(path)).status, 200);
    }
}

#[test]
fn control_socket_is_accessible_by_the_owner_only() {
    let (edge, _origins) = start();
    let mode = std::fs::metadata(edge.control())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn control_socket_is_removed_at_exit() {
    let (mut edge, _origins) = start();
    edge.signal("TERM");
    assert!(edge.wait().success());
    assert!(!edge.control().exists());
}

#[test]
fn status_shows_version_and_listeners() {
    let (edge, _origins) = start();
    let status = status(&edge);
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["listeners"][0]["address"], "127.0.0.1:0");
    assert_eq!(status["listeners"][0]["bound"], edge.address.to_string());
    assert_eq!(status["generation"], 1);
}

#[test]
fn admin_upstream_lists_its_peers() {
    let (edge, origins) = start();
    let view = edge.admin.get("/v1/upstreams/app").json();
    let labels: Vec<&str> = view["peers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|peer| peer["label"].as_str().unwrap())
        .collect();
    assert_eq!(labels.len(), origins.len());
    assert!(
        origins
            .iter()
            .all(|origin| labels.contains(&origin.label().as_str())),
        "{view}"
    );
    assert_eq!(edge.admin.get("/v1/upstreams/nothing").status, 404);
}

#[test]
fn admin_drain_and_enable_return_the_peer() {
    let (edge, origins) = start();
    let label = origins[0].label();
    let post = |order: &str| {
        let path = format!("/v1/upstreams/app/peers/{label}/{order}");
        edge.admin.post(&path).json()
    };
    let (drained, enabled) = (post("drain"), post("enable"));
    assert_eq!(
        (&drained["drained"], &enabled["drained"]),
        (&true.into(), &false.into())
    );
    assert_eq!(drained["share_now"], 0.0);
    assert!(
        enabled["share"].as_f64().is_some_and(|share| share > 0.0),
        "{enabled}"
    );
    assert_eq!(enabled["share_now"], enabled["share"]);
}

#[test]
fn admin_owner_returns_key_hash_and_walk() {
    let (edge, origins) = start();
    let answer = edge
        .admin
        .get("/v1/upstreams/app/owner?key=a%20b%26c")
        .json();
    assert_eq!(answer["key"], "a b&c");
    assert!(answer["hash"].is_u64(), "{answer}");
    assert_eq!(answer["walk"].as_array().unwrap().len(), origins.len());
    for query in ["", "?key="] {
        let path = format!("/v1/upstreams/app/owner{query}");
        assert_eq!(edge.admin.get(&path).status, 400, "{query}");
    }
}

#[test]
fn metrics_are_in_the_prometheus_text_format() {
    let (edge, _origins) = start();
    edge.get("/?k=a");
    edge.admin.wait_for_metric(
        "clockwise_upstream_requests_total",
        &["upstream=\"app\"", "class=\"2xx\""],
        1,
    );
    let response = edge.admin.get("/metrics");
    assert!(
        response
            .header("content-type")
            .unwrap()
            .contains("version="),
        "{response:?}"
    );
    for line in response
        .text()
        .lines()
        .filter(|line| !line.starts_with('#'))
    {
        assert!(line.starts_with("clockwise_"), "{line}");
        assert!(
            line.rsplit_once(' ').unwrap().1.parse::<f64>().is_ok(),
            "{line}"
        );
    }
}

#[test]
fn admin_unknown_path_or_method_is_refused() {
    let (edge, _origins) = start();
    assert_eq!(edge.admin.get("/v1/nothing").status, 404);
    assert_eq!(edge.admin.post("/v1/status").status, 405);
    assert_eq!(
        over_tcp(&edge, &Request::get("/v1/upstreams/%ff/owner?key=%zz")).status,
        404
    );
    assert_eq!(edge.admin.get("/readyz").status, 200);
}

#[test]
fn admin_drain_from_another_origin_is_403() {
    let (edge, origins) = start();
    let path = format!("/v1/upstreams/app/peers/{}/drain", origins[0].label());
    let request = Request::post(&path, "")
        .header("Origin", "http://evil.test")
        .header("Sec-Fetch-Site", "cross-site");
    let response = over_tcp(&edge, &request);
    assert_eq!(response.status, 403, "{response:?}");
    let rebound = Request::get("/v1/status").header("Host", "evil.test");
    let address = status(&edge)["admin"].as_str().unwrap().parse().unwrap();
    assert_eq!(
        client::send(address, &rebound).status,
        403,
        "a foreign name for this address"
    );
    assert_ne!(edge.admin.state("app", &origins[0].label()), "draining");
}

#[test]
fn admin_token_is_required_where_configured() {
    let origin = Origin::start();
    let edge = ConfigBuilder::of([origin.label()])
        .top(
            "admin",
            "{address: \"127.0.0.1:0\", token: s3cret-enough-for-a-test}",
        )
        .start();
    let request = Request::get("/v1/status");
    assert_eq!(over_tcp(&edge, &request).status, 401);
    assert_eq!(
        over_tcp(
            &edge,
            &request.clone().header("Authorization", "Bearer wrong")
        )
        .status,
        401
    );
    let right = request.header("Authorization", "Bearer s3cret-enough-for-a-test");
    assert_eq!(over_tcp(&edge, &right).status, 200);
    assert_eq!(
        edge.admin.get("/v1/status").status,
        200,
        "the socket's mode is its own guard"
    );
}
