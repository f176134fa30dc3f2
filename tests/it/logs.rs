//! The access log and the error log: complete, rotated without loss, never blocking requests.

use std::fs;

use serde_json::Value;

use crate::support::client::Request;
use crate::support::edge::{ConfigBuilder, Edge};
use crate::support::log::lines;
use crate::support::origin::Origin;
use crate::support::wait;

/// One origin behind an instance that logs to `access.log` in its own directory.
fn logging() -> (Edge, Origin) {
    let origin = Origin::start();
    let edge = ConfigBuilder::of([origin.label()])
        .app("key", "[{header: x-user}]")
        .top("access_log", "{path: access.log}")
        .start();
    (edge, origin)
}

#[test]
fn access_log_line_has_request_and_result() {
    let (edge, origin) = logging();
    let request = Request::post("/a/b?secret=1", "12345")
        .header("Host", "Shop.test")
        .header("X-User", "kim");
    edge.echo(&request.header("X-Request-Id", "mine-1"));
    let line = &edge.log_lines(1)[0];
    let label = origin.label();
    for (field, value) in [
        ("client", "127.0.0.1"),
        ("method", "POST"),
        ("host", "Shop.test"),
        ("path", "/a/b"),
        ("upstream", "app"),
        ("peer", &label),
        ("key_source", "header"),
        ("request_id", "mine-1"),
    ] {
        assert_eq!(line[field], value, "{field} in {line}");
    }
    assert_eq!(
        (&line["status"], &line["attempts"]),
        (&200.into(), &1.into()),
        "{line}"
    );
    assert!(line["time"].as_str().unwrap().ends_with('Z'), "{line}");
    let owner = edge.admin.get("/v1/upstreams/app/owner?key=kim").json();
    assert_eq!(line["key_hash"], owner["hash"], "{line}");
}

#[test]
fn access_log_includes_refused_requests() {
    let (edge, _origin) = logging();
    let site = edge.send(&Request::new("GET", "/x").header("X-User", ""));
    assert_eq!(site.status, 200);
    // Two connections are served side by side: their lines are in order only if the second request waits.
    edge.log_lines(1);
    edge.send(&Request::get(&format!("/{}", "x".repeat(9000))));
    let lines = edge.log_lines(2);
    let statuses: Vec<u64> = lines
        .iter()
        .map(|line| line["status"].as_u64().unwrap())
        .collect();
    assert_eq!(statuses, [200, 414]);
}

#[test]
fn access_log_line_cannot_be_broken_by_client_bytes() {
    let (edge, _origin) = logging();
    let request = Request::get("/a\"b\\c")
        .header("Host", "h\"h")
        .header("X-User", "kim");
    edge.send(&request.header("X-Request-Id", "\"}{\\"));
    edge.log_lines(1);
}

#[test]
fn access_log_is_reopened_on_sigusr1() {
    let (edge, _origin) = logging();
    let (log, rotated) = (edge.access_log(), edge.directory().join("access.log.1"));
    edge.get("/1");
    assert_eq!(edge.log_lines(1)[0]["path"], "/1");
    fs::rename(&log, &rotated).unwrap();
    edge.get("/2");
    assert_eq!(lines(&rotated, 2)[1]["path"], "/2", "the open file goes on");
    edge.signal("USR1");
    wait::until("the log to be reopened", || log.exists());
    edge.get("/3");
    assert_eq!(edge.log_lines(1)[0]["path"], "/3");
    assert_eq!(lines(&rotated, 2).len(), 2);
}

#[test]
fn access_log_can_go_to_stdout() {
    let origin = Origin::start();
    let edge = ConfigBuilder::of([origin.label()])
        .top("access_log", "{path: stdout}")
        .start();
    edge.get("/here");
    wait::until("a line on stdout", || edge.stdout().contains("\"/here\""));
    serde_json::from_str::<Value>(edge.stdout().lines().next().unwrap()).unwrap();
}

#[test]
fn access_log_loses_no_line_at_exit() {
    let (mut edge, _origin) = logging();
    let mut connection = edge.connect();
    for _ in 0..500 {
        connection.get("/").unwrap();
    }
    drop(connection);
    edge.signal("TERM");
    assert!(edge.wait().success());
    assert_eq!(edge.log_lines(500).len(), 500);
}

#[test]
fn access_log_that_is_not_writable_drops_and_counts_lines() {
    let origin = Origin::start();
    let site = ConfigBuilder::of([origin.label()]).top("access_log", "{path: /dev/full}");
    let edge = site.start();
    let mut connection = edge.connect();
    // Lines of 8 kB: the few megabytes that may wait are full after some 1,100 of them.
    let target = format!("/{}?k=a", "x".repeat(8000));
    for _ in 0..1500 {
        assert_eq!(connection.get(&target).unwrap().status, 200);
    }
    edge.admin
        .wait_for_metric("clockwise_access_log_dropped_lines_total", &[], 100);
}

#[test]
fn access_log_that_cannot_be_opened_is_a_start_error() {
    let mut edge = Edge::launch(
        &ConfigBuilder::of(["127.0.0.1:1"])
            .top("access_log", "{path: /nowhere/access.log}")
            .yaml(),
    );
    assert!(!edge.wait().success());
    wait::until("the path on stderr", || {
        edge.stderr().contains("/nowhere/access.log")
    });
}

#[test]
fn error_log_level_is_applied() {
    let origin = Origin::start();
    let site = ConfigBuilder::of([origin.label()]);
    let quiet = site.clone().top("error_log", "{level: off}").start();
    quiet.get("/?k=a");
    assert_eq!(quiet.stderr(), "");
    let talking = site.top("error_log", "{level: debug}").start();
    talking.get("/?k=a");
    wait::until("something on stderr", || !talking.stderr().is_empty());
}
