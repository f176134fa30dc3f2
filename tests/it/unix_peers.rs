//! Peers on Unix sockets.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::support::client::Request;
use crate::support::edge::{ConfigBuilder, Edge};
use crate::support::load::keys;
use crate::support::nginx::Nginx;

/// Sockets in a directory, each with an nginx that says which one it is.
struct UnixServers {
    directory: TempDir,
    servers: Vec<Nginx>,
}

impl UnixServers {
    fn new(count: usize) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut sockets = Self {
            directory,
            servers: Vec::new(),
        };
        for number in 0..count {
            let label = sockets.label(number);
            let says = format!(
                "listen {label}; location / {{ return 200 \"{label} $host $connection_requests\"; }}"
            );
            sockets.servers.push(Nginx::serving("", &says));
        }
        sockets
    }

    fn path(&self, number: usize) -> PathBuf {
        self.directory.path().join(format!("{number}.sock"))
    }

    /// The address as it is written, which is the label.
    fn label(&self, number: usize) -> String {
        format!("unix:{}", self.path(number).display())
    }

    fn site(&self) -> ConfigBuilder {
        let labels = (0..self.servers.len()).map(|number| format!("\"{}\"", self.label(number)));
        ConfigBuilder::of(labels)
    }
}

#[track_caller]
fn serves(edge: &Edge, key: &str) -> String {
    let response = edge.get(&format!("/?k={key}"));
    assert_eq!(response.status, 200, "{response:?}");
    let text = response.text();
    text.split(' ').next().unwrap().to_owned()
}

#[test]
fn unix_peer_requests_follow_the_ring() {
    let sockets = UnixServers::new(3);
    let edge = sockets.site().start();
    let keys = keys(60);
    for (key, walk) in keys.iter().zip(edge.predict(&keys, 1)) {
        assert_eq!(serves(&edge, key), walk[0]);
    }
    let view = edge.admin.get("/v1/upstreams/app").json();
    assert_eq!(view["peers"][0]["address"], sockets.label(0));
}

#[test]
fn unix_peer_connections_are_reused_and_host_is_localhost() {
    let sockets = UnixServers::new(1);
    let edge = sockets.site().app("host_header", "peer").start();
    let response = |edge: &Edge| {
        let response = edge.get("/?k=a");
        edge.settle();
        response.text()
    };
    let label = sockets.label(0);
    assert_eq!(response(&edge), format!("{label} localhost 1"));
    assert_eq!(response(&edge), format!("{label} localhost 2"));
}

#[test]
fn unix_peer_without_a_server_is_down() {
    let mut sockets = UnixServers::new(2);
    let site = sockets.site().app("retry", "{attempts: 2}");
    let probes = "{http: /, interval: 1s, timeout: 1s, fall: 1, rise: 1}";
    let edge = site.app("health", probes).start();
    let lost = keys(100)
        .into_iter()
        .find(|key| serves(&edge, key) == sockets.label(0));
    let lost = lost.unwrap();
    sockets.servers[0].kill();
    assert_eq!(
        serves(&edge, &lost),
        sockets.label(1),
        "refused, and retried"
    );
    edge.admin.wait_for_state("app", &sockets.label(0), "down");
    fs::remove_file(sockets.path(0)).unwrap();
    assert_eq!(serves(&edge, &lost), sockets.label(1));
    sockets.servers[0].restart();
    edge.admin.wait_for_state("app", &sockets.label(0), "up");
    assert_eq!(serves(&edge, &lost), sockets.label(0), "its keys come back");
}

#[test]
fn unix_peer_gets_upgrade_requests() {
    let sockets = UnixServers::new(1);
    let edge = sockets.site().start();
    // This nginx does not switch: that the request arrives is the point.
    assert_eq!(edge.send(&Request::socket("/?k=a")).status, 200);
}

#[test]
fn unix_peer_commands_and_upgrades_use_its_label() {
    let sockets = UnixServers::new(2);
    let mut edge = Edge::start_replaceable(&sockets.site().yaml());
    let label = sockets.label(0);
    assert!(edge.command(&["drain", "app", &label]).status.success());
    assert_eq!(edge.admin.state("app", &label), "draining");
    let upgrade = edge.command(&["upgrade"]);
    assert!(upgrade.status.success(), "{upgrade:?}");
    assert_eq!(
        edge.admin.state("app", &label),
        "draining",
        "in the new process"
    );
    for key in keys(20) {
        assert_eq!(serves(&edge, &key), sockets.label(1));
    }
    assert!(edge.command(&["enable", "app", &label]).status.success());
    assert_eq!(edge.admin.state("app", &label), "up");
    edge.started().wait();
}

#[test]
fn unix_peer_reload_keeps_state_and_max_moved() {
    let sockets = UnixServers::new(3);
    let site = sockets.site();
    let loose = site.clone().app("max_moved", "90%");
    let edge = loose.start();
    let first = sockets.label(0);
    assert!(edge.command(&["drain", "app", &first]).status.success());
    let fewer = loose.peers([0, 1].map(|number| format!("\"{}\"", sockets.label(number))));
    edge.rewrite(&fewer.yaml());
    assert!(edge.command(&["reload"]).status.success());
    assert_eq!(edge.admin.state("app", &first), "draining");
    let one = site.app("max_moved", "5%").peers([format!("\"{first}\"")]);
    edge.rewrite(&one.yaml());
    let refused = edge.command(&["reload"]);
    assert_eq!(refused.status.code(), Some(3), "{refused:?}");
}
