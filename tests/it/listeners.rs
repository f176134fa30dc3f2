//! Listener sockets: Unix, IPv4 and IPv6, shared ports; kept across upgrades and reloads.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::Path;

use crate::support::client::{Connection, Request};
use crate::support::edge::{ConfigBuilder, Edge};
use crate::support::origin::Origin;
use crate::support::tls::Authority;
use crate::support::{client, curl, port, wait};

/// A second listener, by which the harness knows the instance's address.
const TCP: &str = "{address: \"127.0.0.1:0\"}";

#[test]
fn unix_listener_has_its_mode_and_is_removed_at_exit() {
    let (_origin, edge) = beside("unix:http.sock", "mode: 0640");
    let file = edge.directory().join("http.sock");
    let found = fs::metadata(&file).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.mode() & 0o777, 0o640);
    let answer = curl(&file);
    assert!(answer.contains("\"target\":\"/?k=a\""), "{answer}");
    let status = edge.admin.get("/v1/status").json();
    assert_eq!(status["listeners"][1]["bound"], "unix:http.sock");
    edge.signal("TERM");
    wait::until("the file to be removed", || !file.exists());
}

#[test]
fn unix_listener_trusts_every_client_with_a_proxy_header() {
    let (_origin, edge) = beside("unix:http.sock", "proxy_protocol: {timeout: 2s}");
    let mut connection = Connection::unix(&edge.directory().join("http.sock")).unwrap();
    connection
        .send("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n")
        .unwrap();
    let echo = connection.get("/?k=a").unwrap().text();
    assert!(echo.contains("\"192.0.2.1\""), "{echo}");
}

#[test]
fn unix_listener_supports_tls() {
    let authority = Authority::new();
    let tls = authority.issue("a", &["a.test"]);
    let (_origin, edge) = beside("unix:http.sock", &format!("tls: {tls}"));
    let file = edge.directory().join("http.sock");
    let ca = authority.path("ca.crt").display().to_string();
    let output = curl::curl()
        .args(["--cacert", &ca, "--unix-socket"])
        .args([file.as_os_str(), "https://a.test/?k=a".as_ref()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn unix_listener_replaces_a_stale_socket_file_but_not_one_in_use() {
    let origin = Origin::start();
    let site = ConfigBuilder::of([origin.label()]);
    let listeners = format!("[{TCP}, {{address: \"unix:http.sock\"}}]");
    let site = site.top("listeners", &listeners);
    let mut edge = site.start();
    let file = edge.directory().join("http.sock");
    edge.signal("KILL");
    wait::until("it to be gone", || edge.started().exited().is_some());
    assert!(file.exists());
    edge.restart();
    assert!(curl(&file).contains("origin"));

    let taken = tempfile::tempdir().unwrap();
    let theirs = taken.path().join("s");
    let _theirs = UnixListener::bind(&theirs).unwrap();
    let other = format!("[{TCP}, {{address: \"unix:{}\"}}]", theirs.display());
    edge.rewrite(&site.top("listeners", &other).yaml());
    let refused = edge.command(&["reload"]);
    assert!(!refused.status.success());
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains("another process listens there"), "{text}");
    assert!(curl(&file).contains("origin"), "the old one is in force");
}

#[test]
fn unix_listener_survives_upgrade_and_changes_mode_on_reload() {
    let (origin, edge) = beside("unix:http.sock", "mode: 0600");
    let file = edge.directory().join("http.sock");
    let inode = fs::metadata(&file).unwrap().ino();
    let before = edge.pid();
    assert!(edge.command(&["upgrade"]).status.success());
    assert_ne!(edge.pid(), before);
    wait::until("the old process to end", || {
        edge.processes() == [edge.pid()]
    });
    assert_eq!(fs::metadata(&file).unwrap().ino(), inode, "the same socket");
    assert!(curl(&file).contains("origin"));
    edge.rewrite(&with(&origin, "unix:http.sock", "mode: 0666").yaml());
    assert!(edge.command(&["reload"]).status.success());
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o666);
    edge.rewrite(
        &ConfigBuilder::of([origin.label()])
            .top("listeners", &format!("[{TCP}]"))
            .yaml(),
    );
    assert!(edge.command(&["reload"]).status.success());
    assert!(!file.exists(), "the socket is removed");
}

#[test]
fn unix_listener_file_is_removed_when_a_reload_fails() {
    let origin = Origin::start();
    let edge = with(&origin, "unix:one.sock", "mode: 0600").start();
    let taken = TcpListener::bind(port::free()).unwrap();
    let listeners = format!(
        "[{TCP}, {{address: \"unix:one.sock\", mode: 0600}}, {{address: \"unix:two.sock\"}}, {{address: \"{}\"}}]",
        taken.local_addr().unwrap()
    );
    edge.rewrite(
        &ConfigBuilder::of([origin.label()])
            .top("listeners", &listeners)
            .yaml(),
    );
    assert!(!edge.command(&["reload"]).status.success());
    assert!(!edge.directory().join("two.sock").exists());
    assert!(curl(&edge.directory().join("one.sock")).contains("origin"));
}

#[test]
fn unix_listener_with_an_unknown_group_is_an_error() {
    let origin = Origin::start();
    let mut edge = Edge::launch(&with(&origin, "unix:http.sock", "group: no-such-group").yaml());
    wait::until("it to give up", || edge.started().exited().is_some());
    edge.wait_for_stderr("no group `no-such-group`", 1);
    assert!(!edge.directory().join("http.sock").exists());
}

#[test]
fn ipv6_listener_accepts_ipv4_unless_ipv6_only() {
    let free = port::free();
    let six: SocketAddr = format!("[::1]:{}", free.port()).parse().unwrap();
    // An IPv4 address in IPv6's clothes: what `[::]` takes, without a socket that the world can reach.
    let dressed = format!("[::ffff:{}]:{}", free.ip(), free.port());
    let origin = Origin::start();
    let listeners =
        format!("[{TCP}, {{address: \"{six}\", ipv6_only: true}}, {{address: \"{dressed}\"}}]");
    let edge = ConfigBuilder::of([origin.label()])
        .top("listeners", &listeners)
        .start();
    for address in [six, free] {
        assert_eq!(
            client::send(address, &Request::get("/?k=a")).status,
            200,
            "{address}"
        );
    }
    let echo = client::send(free, &Request::get("/?k=a")).text();
    assert!(
        echo.contains("\"127.0.0.1\"") && !echo.contains("::ffff"),
        "{echo}"
    );
    let only = listeners.replace(
        &format!("\"{dressed}\""),
        &format!("\"{dressed}\", ipv6_only: true"),
    );
    edge.rewrite(
        &ConfigBuilder::of([origin.label()])
            .top("listeners", &only)
            .yaml(),
    );
    for command in ["reload", "upgrade"] {
        let refused = edge.command(&[command]);
        let output = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(
            !refused.status.success() && output.contains("ipv6_only: false"),
            "{command}: {output}"
        );
    }
    assert_eq!(client::send(free, &Request::get("/?k=a")).status, 200);
}

#[test]
fn reuse_port_requires_both_processes_to_set_it() {
    let address = port::free();
    let origin = Origin::start();
    let with = |more: &str| {
        let listener = format!("[{{address: \"{address}\"{more}}}]");
        ConfigBuilder::of([origin.label()]).top("listeners", &listener)
    };
    let one = with(", reuse_port: true").start();
    let two = with(", reuse_port: true").start();
    wait::until("both to be asked", || {
        one.get("/?k=a");
        let asked = |edge: &Edge| {
            edge.admin.metric(
                "clockwise_listener_accepted_connections_total",
                &[&format!("listener=\"{address}\"")],
            )
        };
        asked(&one) > 0 && asked(&two) > 0
    });
    let mut three = Edge::launch(&with("").yaml());
    wait::until("it to give up", || three.started().exited().is_some());
    three.wait_for_stderr("another process listens there", 1);
}

fn beside(address: &str, more: &str) -> (Origin, Edge) {
    let origin = Origin::start();
    let edge = with(&origin, address, more).start();
    (origin, edge)
}

fn with(origin: &Origin, address: &str, more: &str) -> ConfigBuilder {
    let listeners = format!("[{TCP}, {{address: \"{address}\", {more}}}]");
    ConfigBuilder::of([origin.label()]).top("listeners", &listeners)
}

/// What `curl` gets over a Unix socket.
fn curl(file: &Path) -> String {
    let output = curl::curl()
        .arg("--unix-socket")
        .arg(file)
        .arg("http://test/?k=a")
        .output()
        .expect("curl");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}
