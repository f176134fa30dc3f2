//! Peers from DNS: a real name server that changes its records, and that fails in each of its ways.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::support::edge::{ConfigBuilder, Edge, run};
use crate::support::load::{Load, ask_all, keys};
use crate::support::name_server::NameServer;
use crate::support::origin::Origin;
use crate::support::process::Process;
use crate::support::{port, wait};

const UPDATES: &str = "clockwise_discovery_updates_total";
const LOOKUP_FAILURES: &str = "clockwise_peer_lookup_failures_total";

/// A site with only this source of peers. Changes come into force without a long wait.
fn site(source: &str, servers: &[SocketAddr]) -> ConfigBuilder {
    let servers: Vec<_> = servers
        .iter()
        .map(|server| format!("\"{server}\""))
        .collect();
    let resolver = format!("{{servers: [{}], timeout: 500ms}}", servers.join(", "));
    ConfigBuilder::of([source])
        .app("discovery", "{settle: 10ms, max_lost: 50%}")
        .top("resolver", &resolver)
}

fn labels(edge: &Edge) -> Vec<String> {
    let view = edge.admin.get("/v1/upstreams/app").json();
    let peers = view["peers"].as_array().expect("`peers`");
    let label = |peer: &Value| peer["label"].as_str().expect("`label`").to_owned();
    let labels: BTreeSet<_> = peers.iter().map(label).collect();
    labels.into_iter().collect()
}

/// A text of each peer, in the order of their labels; `-`: it has none.
fn texts_of_peers(edge: &Edge, key: &str) -> Vec<String> {
    let view = edge.admin.get("/v1/upstreams/app").json();
    let peers = view["peers"].as_array().expect("`peers`");
    let text = |peer: &Value| {
        let label = peer["label"].as_str().expect("`label`").to_owned();
        (label, peer[key].as_str().unwrap_or("-").to_owned())
    };
    let texts: BTreeMap<_, _> = peers.iter().map(text).collect();
    texts.into_values().collect()
}

fn addresses(edge: &Edge) -> Vec<String> {
    texts_of_peers(edge, "address")
}

fn wait_for_addresses(edge: &Edge, expected: &[&str]) {
    wait::until(&format!("the addresses to be {expected:?}"), || {
        addresses(edge) == expected
    });
}

fn wait_for_labels(edge: &Edge, expected: &[&str]) {
    let expected: BTreeSet<_> = expected.iter().copied().collect();
    let expected: Vec<_> = expected.into_iter().collect();
    wait::until(&format!("the peers to be {expected:?}"), || {
        labels(edge) == expected
    });
}

fn source(edge: &Edge) -> Value {
    edge.admin.get("/v1/status").json()["upstreams"]["app"]["sources"][0].take()
}

/// Waits until the source has failed for a reason with this text.
fn wait_for_error(edge: &Edge, text: &str) {
    wait::until(&format!("the source to fail: {text}"), || {
        let error = source(edge)["error"].take();
        error.as_str().is_some_and(|error| error.contains(text))
    });
}

fn updates(edge: &Edge, result: &str) -> u64 {
    edge.admin
        .metric(UPDATES, &[&format!("result=\"{result}\"")])
}

/// Waits for this many further answers or failures.
fn wait_for_lookups(edge: &Edge, result: &str, count: u64) {
    let goal = updates(edge, result) + count;
    wait::until(&format!("{count} lookups with the result {result}"), || {
        updates(edge, result) >= goal
    });
}

fn owners(edge: &Edge, keys: &[String]) -> Vec<String> {
    edge.predict(keys, 1).into_iter().flatten().collect()
}

/// Origins with one port, on addresses of this test process.
fn origins_with_one_port(count: usize) -> Vec<Origin> {
    let first = port::free();
    let IpAddr::V4(host) = first.ip() else {
        panic!("{first} is not IPv4");
    };
    let [a, b, c, d] = host.octets();
    // 127.64.0.0/10 is the tests' own; the networks above are as free.
    let host = |index: usize| Ipv4Addr::new(a, b + 64 * u8::try_from(index).unwrap(), c, d);
    let address = |index| SocketAddr::from((host(index), first.port()));
    (0..count)
        .map(|index| Origin::named_at(address(index)))
        .collect()
}

fn address_records(ttl: u32, origins: &[Origin]) -> Vec<String> {
    let record = |origin: &Origin| format!("{ttl} A {}", origin.address.ip());
    origins.iter().map(record).collect()
}

#[test]
fn peers_follow_the_addresses_of_a_name_under_load_and_move_only_their_own_keys() {
    let origins = origins_with_one_port(3);
    let mut names = NameServer::start();
    names.set("app.test", address_records(0, &origins[..2]));
    let port = origins[0].address.port();
    let edge = site(&format!("{{dns: \"App.test:{port}\"}}"), &[names.address]).start();
    let all: Vec<_> = origins.iter().map(Origin::label).collect();
    let all: Vec<_> = all.iter().map(String::as_str).collect();
    wait_for_labels(&edge, &all[..2]);
    let keys = keys(200);
    let before = owners(&edge, &keys);
    let load = Load::start(&edge, 4, &keys);
    for _ in 0..3 {
        names.set("app.test", address_records(0, &origins));
        wait_for_labels(&edge, &all);
        let with_third = owners(&edge, &keys);
        let moved = before.iter().zip(&with_third).filter(|(was, is)| was != is);
        let targets: BTreeSet<_> = moved.map(|(_, is)| is.as_str()).collect();
        assert_eq!(targets, BTreeSet::from([all[2]]));
        // The order of the answer and its duplicates have no meaning.
        let mut shuffled = address_records(0, &origins[..2]);
        shuffled.reverse();
        names.set("app.test", shuffled);
        wait_for_labels(&edge, &all[..2]);
        assert_eq!(owners(&edge, &keys), before);
    }
    load.wait_for_more(100);
    load.stop();
    assert_eq!(ask_all(&edge, &keys), before);
}

#[test]
fn alias_that_changes_is_followed_within_its_own_time_to_live() {
    let mut names = NameServer::start();
    names.set("a.test", ["300 A 127.0.0.1"]);
    names.set("b.test", ["300 A 127.0.0.2"]);
    names.set("app.test", ["1 CNAME a.test."]);
    let edge = site("{dns: \"app.test:80\"}", &[names.address])
        .app("discovery", "{settle: 10ms, max_lost: off}")
        .start();
    wait_for_labels(&edge, &["127.0.0.1:80"]);
    names.set("app.test", ["1 CNAME b.test."]);
    wait_for_labels(&edge, &["127.0.0.2:80"]);
}

#[test]
fn record_that_is_valid_for_0_s_is_looked_up_once_a_second() {
    let mut names = NameServer::start();
    names.set("app.test", ["0 A 127.0.0.1"]);
    let edge = site("{dns: \"app.test:80\"}", &[names.address]).start();
    wait_for_labels(&edge, &["127.0.0.1:80"]);
    let (questions, took) = wait::timed(|| {
        let before = names.questions();
        // A and AAAA.
        wait::until("three more lookups", || names.questions() >= before + 6);
        names.questions() - before
    });
    assert!(
        took >= Duration::from_millis(1_900),
        "{questions} questions in {took:?}"
    );
}

#[test]
fn addresses_of_a_family_stay_while_the_server_fails_for_it() {
    let mut names = NameServer::start();
    names.set(
        "app.half.test",
        ["1 A 127.0.0.1", "1 A 127.0.0.2", "1 AAAA ::1"],
    );
    let edge = site("{dns: \"app.half.test:80\"}", &[names.address]).start();
    wait_for_labels(&edge, &["127.0.0.1:80", "127.0.0.2:80", "[::1]:80"]);
    // The server now has SERVFAIL for AAAA.
    names.set("app.half.test", ["1 A 127.0.0.1", "1 A 127.0.0.2"]);
    wait_for_error(&edge, "AAAA: ");
    assert!(
        source(&edge)["error"]
            .as_str()
            .unwrap()
            .contains("SERVFAIL")
    );
    assert_eq!(labels(&edge), ["127.0.0.1:80", "127.0.0.2:80", "[::1]:80"]);
    // What it has is followed.
    names.set("app.half.test", ["1 A 127.0.0.1", "1 A 127.0.0.3"]);
    wait_for_labels(&edge, &["127.0.0.1:80", "127.0.0.3:80", "[::1]:80"]);
    names.set(
        "app.half.test",
        ["1 A 127.0.0.1", "1 A 127.0.0.3", "1 AAAA ::1"],
    );
    edge.wait_for_stderr("can be read again", 1);
    assert_eq!(labels(&edge), ["127.0.0.1:80", "127.0.0.3:80", "[::1]:80"]);
}

#[test]
fn family_that_cannot_be_read_at_the_start_does_not_hide_the_other() {
    let mut names = NameServer::start();
    names.set("app.half.test", ["1 A 127.0.0.1"]);
    let edge = site("{dns: \"app.half.test:80\"}", &[names.address]).start();
    wait_for_labels(&edge, &["127.0.0.1:80"]);
    wait_for_error(&edge, "AAAA: ");
}

/// `count` addresses, as records.
fn many(count: u32) -> Vec<String> {
    let address = |index: u32| Ipv4Addr::from_bits(0x7f10_0000 + index);
    (0..count)
        .map(|index| format!("1 A {}", address(index)))
        .collect()
}

#[test]
fn answer_that_is_too_long_for_udp_is_read_by_tcp() {
    let mut names = NameServer::start();
    names.set("app.test", many(4_000));
    let edge = site("{dns: \"app.test:80\"}", &[names.address]).start();
    assert_eq!(labels(&edge).len(), 4_000);
    names.set("app.test", many(200));
    wait::until("the smaller list to be held", || {
        !source(&edge)["held"].is_null()
    });
    assert_eq!(source(&edge)["held"]["peers"], 200);
}

#[test]
fn truncated_answer_without_tcp_is_a_failure_and_not_an_empty_list() {
    let mut names = NameServer::udp_only();
    names.set("app.test", many(3));
    let edge = site("{dns: \"app.test:80\"}", &[names.address]).start();
    assert_eq!(labels(&edge).len(), 3);
    names.set("app.test", many(200));
    wait_for_error(&edge, &names.address.to_string());
    assert_eq!(labels(&edge).len(), 3);
    names.set("app.test", many(4));
    wait::until("the list to be read again", || labels(&edge).len() == 4);
}

#[test]
fn name_servers_are_asked_one_after_the_other_until_one_answers() {
    let mut good = NameServer::start();
    good.set("app.half.test", ["1 A 127.0.0.1", "1 AAAA ::1"]);
    let failing = NameServer::start();
    let closed = port::ClosedPort::new();
    for first in [failing.address, closed.address] {
        let edge = site("{dns: \"app.half.test:80\"}", &[first, good.address]).start();
        wait_for_labels(&edge, &["127.0.0.1:80", "[::1]:80"]);
        wait_for_lookups(&edge, "unchanged", 2);
        assert_eq!(updates(&edge, "failed"), 0);
    }
}

/// A server that says FORMERR to each question with EDNS, as those do that do not know it, in front of a real one.
fn without_edns(server: SocketAddr) -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    let to_server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    to_server.connect(server).unwrap();
    let relay = move || -> io::Result<usize> {
        let mut message = [0; 512];
        let (length, client) = socket.recv_from(&mut message)?;
        let additional_records = u16::from_be_bytes([message[10], message[11]]);
        let length = if additional_records > 0 {
            message[2] |= IS_RESPONSE;
            message[3] = FORMERR;
            length
        } else {
            to_server.send(&message[..length])?;
            to_server.recv(&mut message)?
        };
        socket.send_to(&message[..length], client)
    };
    thread::spawn(move || while relay().is_ok() {});
    address
}

const IS_RESPONSE: u8 = 0x80;
const FORMERR: u8 = 1;

#[test]
fn name_server_that_does_not_know_edns_is_asked_without_it() {
    let mut names = NameServer::start();
    names.set("app.test", ["0 A 127.0.0.1"]);
    let server = without_edns(names.address);
    let edge = site("{dns: \"app.test:80\"}", &[server]).start();
    wait_for_labels(&edge, &["127.0.0.1:80"]);
    wait_for_lookups(&edge, "unchanged", 1);
    assert_eq!(updates(&edge, "failed"), 0);
}

/// The order in `/etc/resolv.conf` of many networks: a server with the internal names, then a public one.
#[test]
fn first_name_server_counts_again_after_one_that_knows_less_has_answered_for_it() {
    let mut internal = NameServer::start();
    let mut public = NameServer::start();
    // An answer of this zone without records is valid for an hour.
    public.set("test", ["3600 SOA ns.test. host.test. 1 2 3 4 3600"]);
    internal.set("app.test", ["0 A 127.0.0.1", "0 A 127.0.0.2"]);
    let servers = [internal.address, public.address];
    let edge = site("{dns: \"app.test:80\"}", &servers).start();
    let before = ["127.0.0.1:80", "127.0.0.2:80"];
    wait_for_labels(&edge, &before);
    internal.down();
    wait::until("the empty list to be held", || {
        source(&edge)["held"]["peers"] == 0
    });
    assert_eq!(labels(&edge), before);
    internal.up();
    wait::until("no list to be held", || source(&edge)["held"].is_null());
    internal.set("app.test", ["0 A 127.0.0.1", "0 A 127.0.0.3"]);
    wait_for_labels(&edge, &["127.0.0.1:80", "127.0.0.3:80"]);
}

/// A server that has only a zone, as the only one or as the first: it knows that the name belongs to another server.
#[test]
fn referral_is_a_failure_and_not_an_empty_list() {
    const NAME: &str = "app.child.parent.test";
    let refers = NameServer::start();
    let mut good = NameServer::start();
    good.set(NAME, ["0 A 127.0.0.1"]);
    for name in [NAME, "alias.parent.test"] {
        let source = format!("{{dns: \"{name}:80\"}}");
        let edge = site(&source, &[refers.address, good.address]).start();
        wait_for_labels(&edge, &["127.0.0.1:80"]);
    }
    // The host of the name server is in each referral, as an addition.
    for name in [NAME, "ns.child.parent.test"] {
        let mut names = NameServer::start();
        names.set(name, ["0 A 127.0.0.1"]);
        let edge = site(&format!("{{dns: \"{name}:80\"}}"), &[names.address])
            .app("discovery", "{settle: 10ms, max_lost: off}")
            .start();
        wait_for_labels(&edge, &["127.0.0.1:80"]);
        names.set(name, [""; 0]);
        wait_for_error(&edge, "referral");
        assert_eq!(labels(&edge), ["127.0.0.1:80"]);
    }
}

#[test]
fn peers_stay_while_no_name_server_answers_with_one_line_for_each_change_of_state() {
    let mut names = NameServer::start();
    names.set("app.test", ["0 A 127.0.0.1"]);
    names.set("silent.test", ["0 A 127.0.0.9"]);
    let edge = site("{dns: \"app.test:80\"}", &[names.address]).start();
    wait_for_labels(&edge, &["127.0.0.1:80"]);
    for times in 1..=2 {
        names.down();
        wait_for_lookups(&edge, "failed", 2);
        assert_eq!(labels(&edge), ["127.0.0.1:80"]);
        names.up();
        edge.wait_for_stderr("can be read again", times);
        let log = edge.stderr();
        assert_eq!(log.matches("cannot be read").count(), times, "{log}");
    }
}

#[test]
fn name_without_records_does_not_empty_an_upstream() {
    let mut names = NameServer::start();
    names.set("app.test", ["0 A 127.0.0.1", "0 A 127.0.0.2"]);
    let edge = site("{dns: \"app.test:80\"}", &[names.address]).start();
    let before = ["127.0.0.1:80", "127.0.0.2:80"];
    wait_for_labels(&edge, &before);
    // No such name; a name with other records only.
    for records in [&[][..], &["0 TXT x"]] {
        names.set("app.test", records);
        wait::until("the empty list to be held", || {
            source(&edge)["held"]["peers"] == 0
        });
        assert_eq!(labels(&edge), before);
        names.set("app.test", ["0 A 127.0.0.1", "0 A 127.0.0.2"]);
        wait::until("no list to be held", || source(&edge)["held"].is_null());
    }
    names.set("app.test", [""; 0]);
    wait::until("the empty list to be held", || {
        source(&edge)["held"]["peers"] == 0
    });
    assert!(edge.command(&["accept", "app"]).status.success());
    wait_for_labels(&edge, &[]);
}

#[test]
fn aliases_in_a_loop_are_a_failure_that_changes_nothing() {
    let mut names = NameServer::start();
    names.set("app.test", ["0 A 127.0.0.1"]);
    names.set("b.test", ["0 CNAME app.test."]);
    let edge = site("{dns: \"app.test:80\"}", &[names.address]).start();
    wait_for_labels(&edge, &["127.0.0.1:80"]);
    names.set("app.test", ["0 CNAME b.test."]);
    wait_for_error(&edge, "loop");
    assert_eq!(labels(&edge), ["127.0.0.1:80"]);
}

const SERVICE: &str = "_http._tcp.app.test";

#[test]
fn services_are_peers_by_the_name_of_their_host_and_keep_their_keys_at_a_new_address() {
    let origins = origins_with_one_port(3);
    let port = origins[0].address.port();
    let mut names = NameServer::start();
    let service = |priority: u8, host: &str| format!("1 SRV {priority} 5 {port} {host}.test.");
    names.set("pod-0.test", address_records(1, &origins[..1]));
    names.set("pod-1.test", address_records(1, &origins[1..2]));
    names.set("spare.test", address_records(1, &origins[..1]));
    let services = [
        service(10, "pod-0"),
        service(10, "POD-1"),
        service(20, "spare"),
    ];
    names.set(SERVICE, services);
    let edge = site(&format!("{{srv: {SERVICE}}}"), &[names.address]).start();
    wait_for_labels(&edge, &["pod-0.test", "pod-1.test"]);
    let keys = keys(200);
    let before = owners(&edge, &keys);
    let load = Load::start(&edge, 4, &keys);
    // The pod is replaced: the same name, another address.
    names.set("pod-1.test", address_records(1, &origins[2..]));
    wait::until("the new address to serve", || origins[2].requests() > 0);
    assert_eq!(owners(&edge, &keys), before);
    // A host without an address keeps its place and its last address.
    names.set("pod-1.test", [""; 0]);
    wait_for_error(&edge, "1 of 2 hosts have no address, as `pod-1.test`");
    assert_eq!(owners(&edge, &keys), before);
    load.stop();
}

/// `localhost` is in the hosts file: an address that only the system's resolver finds.
#[test]
fn service_on_a_host_without_address_waits_for_its_own_name_server() {
    let origins = origins_with_one_port(2);
    let port = origins[0].address.port();
    let mut names = NameServer::start();
    names.set("pod-0.test", address_records(0, &origins[..1]));
    let service = |host: &str| format!("0 SRV 1 5 {port} {host}.");
    names.set(SERVICE, ["pod-0.test", "localhost"].map(service));
    for start in ["tolerant", "strict"] {
        let site = site(&format!("{{srv: {SERVICE}}}"), &[names.address]);
        let edge = site.top("start", start).start();
        wait_for_labels(&edge, &["localhost", "pod-0.test"]);
        wait_for_error(&edge, "1 of 2 hosts have no address, as `localhost`");
        assert_eq!(addresses(&edge), ["-", &origins[0].label()]);
        assert_eq!(texts_of_peers(&edge, "state")[0], "unresolved");
        assert_eq!(edge.admin.metric(LOOKUP_FAILURES, &[]), 0);
        // Changes of the list come into force meanwhile, and so does an address that the host gets.
        names.set("pod-0.test", address_records(0, &origins[1..]));
        wait_for_addresses(&edge, &["-", &origins[1].label()]);
        names.set("localhost", address_records(0, &origins[..1]));
        wait_for_addresses(&edge, &[&origins[0].label(), &origins[1].label()]);
        names.set("localhost", [""; 0]);
        names.set("pod-0.test", address_records(0, &origins[..1]));
    }
    let directory = tempfile::tempdir().unwrap();
    let yaml = site(&format!("{{srv: {SERVICE}}}"), &[names.address]).yaml();
    std::fs::write(directory.path().join("c.yaml"), yaml).unwrap();
    let checked = run(directory.path(), &["check", "-c", "c.yaml"], "");
    let text = String::from_utf8_lossy(&checked.stdout);
    assert!(text.contains("peer localhost has no address"), "{text}");
    assert!(!text.contains("pod-0"), "{text}");
}

/// The address of the host is in the answer, and nothing else can be read: it is followed.
#[test]
fn service_moves_to_the_new_address_of_its_host_while_the_server_fails_for_the_other_family() {
    let mut names = NameServer::start();
    names.set("pod.half.test", ["0 A 127.0.0.1"]);
    names.set(SERVICE, ["0 SRV 1 1 80 pod.half.test."]);
    let edge = site(&format!("{{srv: {SERVICE}}}"), &[names.address]).start();
    wait_for_addresses(&edge, &["127.0.0.1:80"]);
    names.set("pod.half.test", ["0 A 127.0.0.2"]);
    wait_for_addresses(&edge, &["127.0.0.2:80"]);
    // The family of the address in use cannot be read: it stays, and the source says why.
    names.set("pod.half.test", ["0 AAAA ::1"]);
    wait_for_error(
        &edge,
        "1 of 1 hosts could be read only in part, as `pod.half.test`: A: ",
    );
    assert_eq!(addresses(&edge), ["127.0.0.2:80"]);
}

#[test]
fn weights_of_services_count_only_if_the_source_asks_for_them() {
    let mut names = NameServer::start();
    names.set("a.test", ["1 A 127.0.0.1"]);
    names.set("b.test", ["1 A 127.0.0.2"]);
    names.set(SERVICE, ["1 SRV 1 0 80 a.test.", "1 SRV 1 3 80 b.test."]);
    for (weights, expected) in [("ignore", [1, 1]), ("record", [1, 3])] {
        let source = format!("{{srv: {SERVICE}, weights: {weights}}}");
        let edge = site(&source, &[names.address]).start();
        wait_for_labels(&edge, &["a.test", "b.test"]);
        let view = edge.admin.get("/v1/upstreams/app").json();
        let peers = view["peers"].as_array().unwrap();
        let weights: Vec<_> = peers
            .iter()
            .map(|peer| peer["weight"].as_u64().unwrap())
            .collect();
        assert_eq!(weights, expected, "{view}");
    }
}

/// dnsmasq has the address of a service in the same answer, and refuses a question for a type that a name does not have
/// (`findings/nginx_refused_for_one_family.sh`).
#[test]
fn peers_are_found_at_a_server_that_refuses_what_it_does_not_have() {
    let address = port::free();
    let mut command = Command::new("/usr/sbin/dnsmasq");
    command
        .args([
            "--no-daemon",
            "--conf-file=/dev/null",
            "--pid-file=",
            "--user=root",
        ])
        .args(["--no-resolv", "--no-hosts", "--bind-interfaces"])
        .arg(format!("--listen-address={}", address.ip()))
        .arg(format!("--port={}", address.port()))
        .arg("--host-record=a.test,127.0.0.1,1")
        .arg(format!("--srv-host={SERVICE},a.test,80"));
    let _server = Process::listening("dnsmasq", &mut command, address);
    let edge = site(&format!("{{srv: {SERVICE}}}"), &[address]).start();
    assert_eq!(labels(&edge), ["a.test"]);
    wait_for_lookups(&edge, "unchanged", 1);
    let edge = site("{dns: \"a.test:80\"}", &[address]).start();
    assert_eq!(labels(&edge), ["127.0.0.1:80"]);
    wait_for_error(&edge, "AAAA: ");
    assert!(source(&edge)["error"].as_str().unwrap().contains("REFUSED"));
}

#[test]
fn name_in_the_hosts_file_needs_no_name_server() {
    let origin = Origin::named_at(port::free_at(Ipv4Addr::LOCALHOST.into()));
    let port = origin.address.port();
    let edge = ConfigBuilder::of([format!("{{dns: \"localhost:{port}\"}}")]).start();
    assert!(
        labels(&edge).contains(&origin.label()),
        "{:?}",
        labels(&edge)
    );
}

#[test]
fn start_without_a_name_server_serves_the_peers_of_the_process_before() {
    let mut names = NameServer::start();
    names.set("app.test", ["1 A 127.0.0.1", "1 A 127.0.0.2"]);
    let site = site("{dns: \"app.test:80\"}", &[names.address]).top("state_file", "state.json");
    let mut edge = site.start();
    wait_for_labels(&edge, &["127.0.0.1:80", "127.0.0.2:80"]);
    edge.begin_stop();
    edge.wait();
    names.down();
    let ((), took) = wait::timed(|| edge.restart());
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(labels(&edge), ["127.0.0.1:80", "127.0.0.2:80"]);
    names.up();
    edge.wait_for_stderr("can be read again", 1);
}

#[test]
fn commands_look_up_the_peers_of_a_name_unless_they_are_offline() {
    let mut names = NameServer::start();
    names.set("app.test", ["1 A 127.0.0.1", "1 A 127.0.0.2"]);
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("clockwise.yaml");
    std::fs::write(
        &config,
        site("{dns: \"app.test:80\"}", &[names.address]).yaml(),
    )
    .unwrap();
    let config = config.to_str().unwrap();
    let shown = run(
        directory.path(),
        &["ring", "show", "-c", config, "-u", "app"],
        "",
    );
    let text = String::from_utf8_lossy(&shown.stdout);
    assert!(
        text.contains("127.0.0.1:80") && text.contains("127.0.0.2:80"),
        "{shown:?}"
    );
    names.down();
    let failed = run(
        directory.path(),
        &["ring", "show", "-c", config, "-u", "app"],
        "",
    );
    assert!(
        String::from_utf8_lossy(&failed.stderr).contains("dns:app.test:80"),
        "{failed:?}"
    );
    for (arguments, warns) in [(&["check"][..], true), (&["check", "--offline"], false)] {
        let checked = run(directory.path(), &[arguments, &["-c", config]].concat(), "");
        let text = String::from_utf8_lossy(&checked.stdout);
        assert!(checked.status.success(), "{checked:?}");
        assert_eq!(text.contains("dns:app.test:80"), warns, "{text}");
    }
}
