//! Peers that are configured by name, while the name has no address.

use std::net::{IpAddr, SocketAddr};

use serde_json::Value;

use crate::support::edge::{ConfigBuilder, Edge};
use crate::support::host_names::HostNames;
use crate::support::load::{ask_all, keys};
use crate::support::origin::Origin;
use crate::support::{port, wait};

/// Two origins; the second is configured by the name `b.test`. Labels are those of the origins.
struct NamedPeer {
    origins: [Origin; 2],
    hosts: HostNames,
}

/// The address of each name: `a.test` is the first origin, the others are at that of the second.
fn addresses<'a>(origins: &[Origin; 2], names: &[&'a str]) -> Vec<(&'a str, IpAddr)> {
    let address = |name: &&'a str| {
        let origin = &origins[usize::from(*name != "a.test")];
        let address: SocketAddr = origin.label().parse().unwrap();
        (*name, address.ip())
    };
    names.iter().map(address).collect()
}

impl NamedPeer {
    fn new(names: &[&str]) -> Self {
        let origins = [Origin::named(), Origin::named()];
        let hosts = HostNames::of(&addresses(&origins, names));
        Self { origins, hosts }
    }

    fn label(&self, index: usize) -> String {
        self.origins[index].label()
    }

    fn by_name(&self, index: usize, name: &str) -> String {
        let label = self.label(index);
        let (_, port) = label.rsplit_once(':').unwrap();
        format!("{{label: \"{label}\", address: \"{name}:{port}\"}}")
    }

    fn site(&self) -> ConfigBuilder {
        let first = format!("\"{}\"", self.label(0));
        ConfigBuilder::of([first, self.by_name(1, "b.test")])
    }

    /// Replaces the names that exist.
    fn set_names(&self, names: &[&str]) {
        self.hosts.set(&addresses(&self.origins, names));
    }

    fn start(&self, site: &ConfigBuilder) -> Edge {
        let mut edge = Edge::launch_with(&site.yaml(), self.hosts.environment());
        edge.wait_until_ready();
        edge
    }

    fn wait_until_up(&self, edge: &Edge, index: usize) {
        edge.admin.wait_for_state("app", &self.label(index), "up");
    }
}

fn peer(edge: &Edge, index: usize) -> Value {
    edge.admin.get("/v1/upstreams/app").json()["peers"][index].take()
}

#[test]
fn unresolved_peer_moves_only_its_keys_and_joins_when_its_name_resolves() {
    let named = NamedPeer::new(&[]);
    let edge = named.start(&named.site().app("health", "{tcp: true, interval: 1s}"));
    let (first, second) = (named.label(0), named.label(1));
    let keys = keys(200);
    let owners: Vec<String> = edge.predict(&keys, 1).into_iter().flatten().collect();
    assert!(owners.contains(&first) && owners.contains(&second));
    assert!(ask_all(&edge, &keys).iter().all(|peer| *peer == first));
    let shown = peer(&edge, 1);
    assert_eq!(
        (shown["state"].as_str(), &shown["address"]),
        (Some("unresolved"), &Value::Null)
    );
    assert_eq!(
        (&shown["available"], &shown["probe"]),
        (&Value::Bool(false), &Value::Null)
    );
    let status = edge.cli(&["status"], "");
    assert!(
        status.contains(&format!("app {second}: unresolved")),
        "{status}"
    );
    let label = format!("peer=\"{second}\"");
    let state = [label.as_str(), "state=\"unresolved\""];
    assert_eq!(edge.admin.metric("clockwise_peer_state", &state), 1);
    // The name is looked up again, and the log has one line.
    let failures = "clockwise_peer_lookup_failures_total";
    edge.admin.wait_for_metric(failures, &[&label], 2);
    edge.wait_for_stderr("it is unresolved and gets no requests", 1);
    // A reload neither fails nor writes another line.
    let reloaded = edge.cli(&["reload"], "");
    assert!(
        reloaded.contains("warning: upstream app: peer"),
        "{reloaded}"
    );
    assert_eq!(edge.stderr().matches("it is unresolved").count(), 1);

    named.set_names(&["b.test"]);
    named.wait_until_up(&edge, 1);
    edge.wait_for_stderr("is resolved, its address is", 1);
    assert_eq!(peer(&edge, 1)["address"], *second);
    assert_eq!(edge.admin.metric("clockwise_peer_state", &state), 0);
    assert_eq!(ask_all(&edge, &keys), owners);
}

#[test]
fn upstream_without_a_resolved_peer_answers_503_until_one_resolves() {
    let named = NamedPeer::new(&[]);
    let site = ConfigBuilder::of([named.by_name(0, "a.test"), named.by_name(1, "b.test")]);
    let edge = named.start(&site);
    assert_eq!(edge.get("/?k=a").status, 503);
    assert_eq!(edge.get("/").status, 503);
    named.set_names(&["a.test"]);
    named.wait_until_up(&edge, 0);
    assert_eq!(edge.get("/?k=a").status, 200);
    assert_eq!(edge.admin.state("app", &named.label(1)), "unresolved");
}

#[test]
fn reload_and_upgrade_keep_the_last_address_of_a_name_that_no_longer_resolves() {
    let named = NamedPeer::new(&["b.test"]);
    let edge = named.start(&named.site());
    let second = named.label(1);
    assert_eq!(edge.admin.state("app", &second), "up");
    named.set_names(&[]);
    edge.rewrite(&named.site().top("pool_size", "7").yaml());
    let reloaded = edge.cli(&["reload"], "");
    assert!(
        reloaded.contains(&format!("it keeps the address {second}")),
        "{reloaded}"
    );
    assert_eq!(edge.admin.state("app", &second), "up");
    // A name that is new in a reload has no last address.
    let third = "{label: c, address: \"c.test:1\"}".to_owned();
    let peers = [named.by_name(1, "b.test"), third];
    edge.rewrite(&ConfigBuilder::of(peers).yaml());
    edge.cli(&["reload"], "");
    assert_eq!(edge.admin.state("app", "c"), "unresolved");
    let before = edge.pid();
    let upgraded = edge.command(&["upgrade"]);
    assert!(upgraded.status.success(), "{upgraded:?}");
    assert_ne!(edge.pid(), before);
    assert_eq!(edge.admin.state("app", &second), "up");
    assert_eq!(edge.admin.state("app", "c"), "unresolved");
    assert_eq!(edge.get("/?k=a").status, 200);
}

#[test]
fn restart_takes_the_last_address_of_a_name_from_the_state_file() {
    let named = NamedPeer::new(&["b.test"]);
    let mut edge = named.start(&named.site().top("state_file", "state.json"));
    edge.signal("TERM");
    assert!(edge.wait().success());
    named.set_names(&[]);
    edge.restart();
    assert_eq!(edge.admin.state("app", &named.label(1)), "up");
    assert!(
        edge.stderr().contains("it keeps the address"),
        "{}",
        edge.stderr()
    );
}

#[test]
fn strict_start_refuses_a_name_that_does_not_resolve() {
    let named = NamedPeer::new(&["b.test"]);
    let strict = named.site().top("start", "strict");
    let edge = named.start(&strict);
    named.set_names(&[]);
    let refused = edge.command(&["reload"]);
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
    let message = String::from_utf8_lossy(&refused.stderr);
    assert!(message.contains("peer `b.test:"), "{message}");
    let mut second = Edge::launch_with(&strict.yaml(), named.hosts.environment());
    assert_eq!(second.wait().code(), Some(1));
    wait::until("the reason on stderr", || {
        second.stderr().contains("peer `b.test:")
    });
}

/// A peer with a closed port is down, not unresolved: the two do not mix.
#[test]
fn unresolved_peer_that_resolves_to_a_closed_port_is_down() {
    let named = NamedPeer::new(&[]);
    let closed = port::free();
    let peers = [
        named.by_name(0, "a.test"),
        format!("{{label: c, address: \"c.test:{}\"}}", closed.port()),
    ];
    named.set_names(&["a.test"]);
    let site = ConfigBuilder::of(peers).app("health", "{tcp: true, interval: 1s}");
    let edge = named.start(&site);
    assert_eq!(edge.admin.state("app", "c"), "unresolved");
    named.set_names(&["a.test", "c.test"]);
    edge.admin.wait_for_state("app", "c", "down");
    assert_eq!(edge.get("/?k=a").status, 200);
}
