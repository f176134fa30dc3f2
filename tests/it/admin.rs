//! The admin API, on the control socket and on the admin address.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

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
    assert_hash(&answer["hash"]);
    assert_eq!(answer["walk"].as_array().unwrap().len(), origins.len());
    for query in ["", "?key="] {
        let path = format!("/v1/upstreams/app/owner{query}");
        assert_eq!(edge.admin.get(&path).status, 400, "{query}");
    }
}

/// The form of the access log: hexadecimal, 8 digits for 32 bits.
fn assert_hash(hash: &serde_json::Value) {
    let text = hash.as_str().expect("a hash is text");
    let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    assert!(text.len() == 8 && text.bytes().all(digit), "{text}");
}

/// What a client asks for, and what it gets; a client that names no format must get one that every collector reads.
#[test]
fn metrics_are_text_0_0_4_unless_the_client_asks_for_openmetrics() {
    let (edge, _origins) = start();
    for (accept, expected) in [
        (None, "text/plain; version=0.0.4; charset=utf-8"),
        (Some("*/*"), "text/plain; version=0.0.4; charset=utf-8"),
        (
            Some("application/openmetrics-text; q=0, text/plain"),
            "text/plain; version=0.0.4; charset=utf-8",
        ),
        (
            Some(
                "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            ),
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        ),
    ] {
        let mut request = Request::get("/metrics");
        if let Some(accept) = accept {
            request = request.header("Accept", accept);
        }
        let response = over_tcp(&edge, &request);
        assert_eq!(
            response.header("content-type"),
            Some(expected),
            "{accept:?}"
        );
        assert_eq!(response.header("vary"), Some("accept"));
        let is_openmetrics = response.text().ends_with("# EOF\n");
        assert_eq!(
            is_openmetrics,
            expected.contains("openmetrics"),
            "{accept:?}"
        );
    }
}

/// After requests, so that each kind of metric has samples.
#[test]
fn metrics_pass_promtool() {
    let (edge, _origins) = start();
    edge.get("/?k=a");
    edge.admin.wait_for_metric(
        "clockwise_upstream_requests_total",
        &["upstream=\"app\"", "class=\"2xx\""],
        1,
    );
    let metrics = edge.admin.get("/metrics").text();
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool runs: tests/install.sh");
    let mut stdin = promtool.stdin.take().unwrap();
    stdin.write_all(metrics.as_bytes()).unwrap();
    drop(stdin);
    let done = promtool.wait_with_output().unwrap();
    let found = String::from_utf8_lossy(&done.stderr) + String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{found}");
}

#[test]
fn admin_command_with_a_wrong_parameter_changes_nothing() {
    let (edge, origins) = start();
    let label = origins[0].label();
    let unchanged = || {
        let state = edge.admin.state("app", &label);
        (state, status(&edge)["generation"].as_u64(), edge.pid())
    };
    let before = unchanged();
    let wrong_everywhere = [
        "dry-run",
        "DRY_RUN",
        "dry_run=yes",
        "force=yes",
        "force&x=1",
        "x",
        "%66orce%00",
        "force&force",
    ];
    let more: [&[&str]; 6] = [
        &["dry_run&dry_run=false", "dry_run=1&dry_run=1"],
        &["dry_run", "dry%5Frun", "dry_run=false"],
        &["dry_run", "dry_run=true", "config=%2Fx"],
        &["dry_run", "force"],
        &["dry_run", "force"],
        &["dry_run", "force"],
    ];
    for (path, more) in command_paths(&label).iter().zip(more) {
        for query in more.iter().chain(&wrong_everywhere) {
            let target = format!("{path}?{query}");
            let over_tcp = over_tcp(&edge, &Request::post(&target, ""));
            for answer in [edge.admin.post(&target), over_tcp] {
                assert_eq!(answer.status, 400, "{target}: {answer:?}");
            }
        }
    }
    for query in ["without=x&moved=yes", "to=yes", "dry_run"] {
        let target = format!("/v1/upstreams/app/diff?{query}");
        assert_eq!(edge.admin.post(&target).status, 400, "{query}");
    }
    assert_eq!(unchanged(), before);
}

#[test]
fn admin_command_with_a_body_changes_nothing() {
    let (edge, origins) = start();
    let (pid, label) = (edge.pid(), origins[0].label());
    for path in command_paths(&label) {
        for body in ["dry_run", "{\"dry_run\":true}"] {
            let answer = edge.admin.post_body(&path, body);
            assert_eq!(answer.status, 400, "{path} with `{body}`: {answer:?}");
        }
        let mut chunked = edge.admin.connect();
        let head = format!("POST {path} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked");
        chunked
            .send(format!("{head}\r\n\r\n1\r\nx\r\n0\r\n\r\n"))
            .unwrap();
        assert_eq!(chunked.response().unwrap().status, 400, "{path}");
    }
    assert_eq!(edge.admin.state("app", &label), "up");
    assert_eq!(status(&edge)["generation"], 1);
    assert_eq!(edge.pid(), pid);
}

/// All paths that change something.
fn command_paths(label: &str) -> [String; 6] {
    let peer = format!("/v1/upstreams/app/peers/{label}");
    [
        "/v1/reload".to_owned(),
        "/v1/upgrade".to_owned(),
        format!("{peer}/drain"),
        format!("{peer}/enable"),
        "/v1/certificates/a.test/renew".to_owned(),
        "/v1/certificates/a.test/revoke".to_owned(),
    ]
}

#[test]
fn admin_flag_without_a_value_true_or_1_is_on() {
    let (edge, _origins) = start();
    for query in [
        "dry_run",
        "dry_run=true",
        "dry_run=1",
        "dry%5Frun",
        "force&dry_run",
    ] {
        let answer = edge.admin.post(&format!("/v1/reload?{query}")).json();
        assert_eq!(answer["dry_run"], true, "{query}: {answer}");
    }
    assert_eq!(status(&edge)["generation"], 1);
    for (query, generation) in [("dry_run=false", 2), ("dry_run=0&force=1", 3), ("", 4)] {
        let answer = edge.admin.post(&format!("/v1/reload?{query}")).json();
        assert_eq!(answer["generation"], generation, "{query}: {answer}");
    }
    let mut empty = edge.admin.connect();
    let head = "POST /v1/reload HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked";
    empty.send(format!("{head}\r\n\r\n0\r\n\r\n")).unwrap();
    assert_eq!(
        empty.response().unwrap().status,
        200,
        "an empty body is none"
    );
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
    assert_eq!(over_tcp(&edge, &Request::get("/<>")).status, 404);
    assert_eq!(edge.admin.get("/readyz").status, 200);
}

#[test]
fn admin_drain_from_another_site_is_403() {
    let (edge, origins) = start();
    let address = status(&edge)["admin"].as_str().unwrap().to_owned();
    let own = format!("http://{address}");
    let path = format!("/v1/upstreams/app/peers/{}/drain", origins[0].label());
    for fields in [
        vec![("Origin", "http://evil.test")],
        vec![("Origin", own.as_str()), ("Origin", "http://evil.test")],
        vec![("Sec-Fetch-Site", "cross-site")],
        vec![("Sec-Fetch-Site", "same-site")],
    ] {
        let post = fields
            .iter()
            .fold(Request::post(&path, ""), |post, (name, value)| {
                post.header(name, value)
            });
        let response = over_tcp(&edge, &post);
        assert_eq!(response.status, 403, "{fields:?}: {response:?}");
    }
    assert_ne!(edge.admin.state("app", &origins[0].label()), "draining");
    let own_page = Request::post(&path, "")
        .header("Origin", &own)
        .header("Sec-Fetch-Site", "same-origin");
    assert_eq!(over_tcp(&edge, &own_page).status, 200);
}

#[test]
fn admin_host_that_is_no_address_is_refused() {
    let (edge, _origins) = start();
    let address = status(&edge)["admin"].as_str().unwrap().parse().unwrap();
    for (host, status) in [
        ("evil.test", 403),
        ("[::1].evil.test", 400),
        ("[[::1]]", 400),
        ("[127.0.0.1]", 400),
        ("127.0.0.1:9900:1", 400),
    ] {
        let request = Request::get("/v1/status").header("Host", host);
        assert_eq!(client::send(address, &request).status, status, "{host}");
    }
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
