//! Sockets as they are asked for: Unix sockets, both families of IP, shared ports; and in an upgrade
//! or a reload they are what they were.

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

/// Another listener, for whoever asks where the first one is.
const TCP: &str = "{address: \"127.0.0.1:0\"}";

#[test]
fn a_unix_socket_is_served_with_its_mode_and_its_end() {
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
fn whoever_may_connect_to_a_unix_socket_is_believed() {
    let (_origin, edge) = beside("unix:http.sock", "proxy_protocol: {timeout: 2s}");
    let mut connection = Connection::unix(&edge.directory().join("http.sock")).unwrap();
    connection
        .send("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n")
        .unwrap();
    let echo = connection.get("/?k=a").unwrap().text();
    assert!(echo.contains("\"192.0.2.1\""), "{echo}");
}

#[test]
fn tls_is_spoken_on_a_unix_socket_too() {
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
fn a_file_that_a_dead_process_left_is_replaced_and_one_in_use_is_not() {
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
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("another process answers on it"), "{said}");
    assert!(curl(&file).contains("origin"), "the old one is in force");
}

#[test]
fn an_upgrade_hands_a_unix_socket_over_and_a_reload_changes_its_mode() {
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
    assert!(!file.exists(), "nobody listens there any more");
}

#[test]
fn a_reload_that_fails_leaves_no_file_behind() {
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
fn an_account_that_is_not_there_is_said() {
    let origin = Origin::start();
    let mut edge = Edge::launch(&with(&origin, "unix:http.sock", "group: no-such-group").yaml());
    wait::until("it to give up", || edge.started().exited().is_some());
    let said = edge.started().stderr();
    assert!(said.contains("no group `no-such-group`"), "{said}");
    assert!(!edge.directory().join("http.sock").exists());
}

#[test]
fn ipv6_is_served_and_takes_ipv4_where_it_may() {
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
        echo.contains("\"127.0.0.1\"") && !echo.contains("ffff"),
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
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(
            !refused.status.success() && said.contains("ipv6_only: false"),
            "{command}: {said}"
        );
    }
    assert_eq!(client::send(free, &Request::get("/?k=a")).status, 200);
}

#[test]
fn a_port_is_shared_only_where_both_want_it() {
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
    let said = three.started().stderr();
    assert!(said.contains("another process has it"), "{said}");
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
