//! Peers from etcd: a real cluster with keys that change, and that fails in each of its ways.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::support::edge::{ConfigBuilder, Edge, run};
use crate::support::etcd::Etcd;
use crate::support::load::{Load, ask_all, keys};
use crate::support::origin::Origin;
use crate::support::tls::Authority;
use crate::support::{port, wait};

const SOURCE: &str = "{etcd: /services/app}";

/// A site with only this source of peers. Changes come into force without a long wait.
fn site_of(access: &str) -> ConfigBuilder {
    ConfigBuilder::of([SOURCE])
        .app("discovery", "{settle: 10ms, max_lost: 50%}")
        .top("etcd", access)
}

fn site(etcd: &Etcd) -> ConfigBuilder {
    site_of(&format!("{{endpoints: {}}}", etcd.endpoints()))
}

/// The key of a peer.
fn key(name: &str) -> String {
    format!("/services/app/{name}")
}

fn labels(edge: &Edge) -> Vec<String> {
    let label = |peer: &Value| peer["label"].as_str().expect("`label`").to_owned();
    let labels: BTreeSet<_> = shown_peers(edge).iter().map(label).collect();
    labels.into_iter().collect()
}

fn shown_peers(edge: &Edge) -> Vec<Value> {
    let view = edge.admin.get("/v1/upstreams/app").json();
    view["peers"].as_array().expect("`peers`").clone()
}

/// The address of a peer in force.
fn address(edge: &Edge, label: &str) -> Option<String> {
    let peers = shown_peers(edge);
    let peer = peers.iter().find(|peer| peer["label"] == label)?;
    peer["address"].as_str().map(str::to_owned)
}

fn wait_for_labels(edge: &Edge, expected: &[&str]) {
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

fn owners(edge: &Edge, keys: &[String]) -> Vec<String> {
    let owner = |key: &String| edge.admin.walk("app", key).swap_remove(0);
    keys.iter().map(owner).collect()
}

/// The pairs of owners before and after, of the keys that moved.
fn moves(before: &[String], after: &[String]) -> BTreeSet<(String, String)> {
    let pairs = before.iter().zip(after).filter(|(was, is)| was != is);
    pairs.map(|(was, is)| (was.clone(), is.clone())).collect()
}

#[test]
fn peers_follow_the_keys_of_a_prefix_and_move_only_their_own_keys() {
    let etcd = Etcd::start();
    let origins: Vec<Origin> = (0..4).map(|_| Origin::named()).collect();
    etcd.put(&key("a"), &origins[0].label());
    etcd.put(&key("b"), &origins[1].label());
    // Not below the prefix.
    etcd.put("/services/app2/x", &origins[2].label());
    etcd.put("/services/app", &origins[2].label());
    let edge = site(&etcd).start();
    wait_for_labels(&edge, &["a", "b"]);
    assert_eq!(source(&edge)["source"], "etcd:/services/app/");
    let keys = keys(500);
    let before = owners(&edge, &keys);

    etcd.put(
        &key("rack1/c"),
        &format!("{{\"address\": \"{}\"}}", origins[2].label()),
    );
    wait_for_labels(&edge, &["a", "b", "rack1/c"]);
    let with_third = owners(&edge, &keys);
    let moved = moves(&before, &with_third);
    assert!(moved.iter().all(|(_, to)| to == "rack1/c"), "{moved:?}");
    assert!(!moved.is_empty());

    // Another address of a label moves no key.
    etcd.put(&key("b"), &origins[3].label());
    wait::until("the new address", || {
        address(&edge, "b") == Some(origins[3].label())
    });
    assert_eq!(owners(&edge, &keys), with_third);
    let of_b = keys
        .iter()
        .zip(&with_third)
        .find(|(_, owner)| *owner == "b");
    let answer = edge.get(&format!("/?k={}", of_b.unwrap().0));
    assert_eq!(answer.text(), origins[3].label());

    etcd.delete(&key("rack1/c"));
    wait_for_labels(&edge, &["a", "b"]);
    assert_eq!(owners(&edge, &keys), before);
}

#[test]
fn value_may_be_json_with_a_weight_and_a_label() {
    let etcd = Etcd::start();
    etcd.put(
        &key("1"),
        "{\"address\": \"127.0.0.1:1\", \"weight\": 3, \"label\": \"cache-1\"}",
    );
    etcd.put(
        &key("2"),
        "{\"address\": \"cache-2.invalid:1\", \"label\": \"cache-2\"}",
    );
    let edge = site(&etcd).start();
    wait_for_labels(&edge, &["cache-1", "cache-2"]);
    let weights: Vec<_> = shown_peers(&edge)
        .iter()
        .map(|peer| peer["weight"].clone())
        .collect();
    assert_eq!(weights, [3, 1]);
}

#[test]
fn bad_value_changes_only_what_is_reported() {
    let etcd = Etcd::start();
    etcd.put(&key("a"), "127.0.0.1:1");
    etcd.put(&key("b"), "127.0.0.1:2");
    let edge = site(&etcd).start();
    wait_for_labels(&edge, &["a", "b"]);
    etcd.put(&key("b"), "127.0.0.1");
    wait_for_error(
        &edge,
        "/services/app/b:1:1: `127.0.0.1` is not the address of a peer",
    );
    assert_eq!(address(&edge, "b").as_deref(), Some("127.0.0.1:2"));
    // The other keys are followed; a new key with a bad value is left out.
    etcd.put(&key("c"), "{\"adress\": \"127.0.0.1:3\"}");
    etcd.put(&key("d"), "127.0.0.1:4");
    wait_for_labels(&edge, &["a", "b", "d"]);
    wait_for_error(&edge, "the first of 2 problems");
    assert_eq!(edge.admin.metric("clockwise_discovery_failing", &[]), 1);
    let checked = edge.cli(&["check"], "");
    for expected in [
        "/services/app/b:1:1",
        "did you mean `address`?",
        "it is left out",
    ] {
        assert!(checked.contains(expected), "{checked}");
    }
    // A restart keeps what the process before knew.
    let site = site(&etcd).top("state_file", "state.json");
    let mut restarted = Edge::start(&site.yaml());
    wait_for_labels(&restarted, &["a", "d"]);
    etcd.put(&key("b"), "127.0.0.1:5");
    etcd.delete(&key("c"));
    wait_for_labels(&restarted, &["a", "b", "d"]);
    edge.wait_for_stderr("can be read again", 1);
    restarted.begin_stop();
    restarted.wait();
    etcd.put(&key("b"), "nonsense");
    restarted.restart();
    wait_for_labels(&restarted, &["a", "b", "d"]);
    wait_for_error(&restarted, "the peer that it had before stays");
    edge.wait_for_stderr("`nonsense`", 1);
    let log = edge.stderr();
    let warnings = log
        .lines()
        .filter(|line| line.contains(" warn ") && line.contains("etcd:"));
    assert_eq!(
        warnings.count(),
        2,
        "one line for each change of state: {log}"
    );
}

#[test]
fn peer_goes_with_the_lease_of_its_key() {
    let etcd = Etcd::start();
    etcd.put(&key("a"), "127.0.0.1:1");
    let lease = etcd.put_leased(&key("b"), "127.0.0.1:2", 2);
    etcd.put_leased(&key("c"), "127.0.0.1:3", 2);
    // A value that is set without the lease is not the lease's any more.
    etcd.put(&key("c"), "127.0.0.1:3");
    let edge = site(&etcd).start();
    wait::until("all peers", || {
        etcd.keep_alive(&lease);
        labels(&edge) == ["a", "b", "c"]
    });
    wait_for_labels(&edge, &["a", "c"]);
    assert_eq!(etcd.keep_alive(&lease), None);
}

#[test]
fn prefix_without_keys_is_an_empty_list_that_is_held() {
    let etcd = Etcd::start();
    etcd.put(&key("a"), "127.0.0.1:1");
    let edge = site(&etcd).start();
    wait_for_labels(&edge, &["a"]);
    etcd.delete(&key("a"));
    wait::until("the empty list to be held", || {
        source(&edge)["held"]["peers"] == 0
    });
    assert_eq!(labels(&edge), ["a"]);
    etcd.put(&key("a"), "127.0.0.1:1");
    wait::until("no list to be held", || source(&edge)["held"].is_null());
    // A first list may be empty.
    let empty = site(&etcd).peers(["{etcd: /other}", "127.0.0.1:9"]).start();
    wait_for_labels(&empty, &["127.0.0.1:9"]);
}

#[test]
fn list_of_several_pages_is_complete_and_a_change_of_one_key_is_seen() {
    let etcd = Etcd::start();
    let name = |number: usize| format!("n{number:04}");
    let pair = |number: usize| {
        (
            key(&name(number)),
            format!("127.1.{}.{}:1", number / 200, number % 200),
        )
    };
    let pairs: Vec<_> = (0..2_345).map(pair).collect();
    etcd.put_all(&pairs);
    let edge = site(&etcd).start();
    let all: Vec<_> = (0..2_345).map(name).collect();
    assert_eq!(labels(&edge), all);
    etcd.delete(&key("n2000"));
    wait::until("one peer less", || labels(&edge).len() == 2_344);
}

#[test]
fn changes_in_a_compacted_history_are_found_by_a_new_list() {
    let mut etcd = Etcd::start();
    etcd.put(&key("a"), "127.0.0.1:1");
    etcd.put(&key("b"), "127.0.0.1:2");
    let edge = site(&etcd).start();
    wait_for_labels(&edge, &["a", "b"]);
    etcd.kill(0);
    etcd.hidden(|etcd| {
        etcd.put(&key("c"), "127.0.0.1:3");
        etcd.delete(&key("b"));
        etcd.compact();
    });
    assert_eq!(labels(&edge), ["a", "b"]);
    etcd.restart(0);
    wait_for_labels(&edge, &["a", "c"]);
    etcd.put(&key("d"), "127.0.0.1:4");
    wait_for_labels(&edge, &["a", "c", "d"]);
}

#[test]
fn restore_from_an_older_snapshot_is_noticed_and_its_keys_are_followed() {
    let mut etcd = Etcd::start();
    etcd.put(&key("a"), "127.0.0.1:1");
    etcd.put(&key("b"), "127.0.0.1:2");
    let snapshot = etcd.save();
    etcd.put(&key("c"), "127.0.0.1:3");
    let edge = site(&etcd).start();
    wait_for_labels(&edge, &["a", "b", "c"]);
    etcd.restore(&snapshot);
    wait_for_labels(&edge, &["a", "b"]);
    edge.wait_for_stderr("the revision went back from", 1);
    // A watch from the old revision would see nothing.
    etcd.put(&key("d"), "127.0.0.1:4");
    wait_for_labels(&edge, &["a", "b", "d"]);
}

#[test]
fn restart_of_etcd_loses_no_request_and_is_one_line_for_each_change_of_state() {
    let mut etcd = Etcd::start();
    let origins: Vec<Origin> = (0..3).map(|_| Origin::named()).collect();
    for (name, origin) in ["a", "b"].iter().zip(&origins) {
        etcd.put(&key(name), &origin.label());
    }
    let edge = site(&etcd).start();
    wait_for_labels(&edge, &["a", "b"]);
    let load = Load::start(&edge, 4, &keys(200));
    for times in 1..=2 {
        etcd.kill(0);
        wait_for_error(&edge, "Connection refused");
        assert_eq!(labels(&edge), ["a", "b"]);
        etcd.restart(0);
        let name = ["c", "d"][times - 1];
        etcd.put(&key(name), &origins[2].label());
        let ((), took) =
            wait::timed(|| wait::until("the new peer", || address(&edge, name).is_some()));
        assert!(took < Duration::from_secs(10), "right again after {took:?}");
        edge.wait_for_stderr("can be read again", times);
        let log = edge.stderr();
        assert_eq!(log.matches("cannot be read").count(), times, "{log}");
        etcd.delete(&key(name));
        wait_for_labels(&edge, &["a", "b"]);
    }
    load.wait_for_more(100);
    load.stop();
}

#[test]
fn member_that_is_silent_counts_as_lost() {
    let etcd = Etcd::start();
    etcd.put(&key("a"), "127.0.0.1:1");
    let edge = site(&etcd).start();
    wait_for_labels(&edge, &["a"]);
    etcd.pause(0);
    // PINGs for 9 s at most, and then a request for 5 s.
    wait::until_due(Duration::from_secs(14), "the silence to be noticed", || {
        edge.stderr().contains("cannot be read")
    });
    assert_eq!(labels(&edge), ["a"]);
    etcd.resume(0);
    edge.wait_for_stderr("can be read again", 1);
    etcd.put(&key("b"), "127.0.0.1:2");
    wait_for_labels(&edge, &["a", "b"]);
}

#[test]
fn loss_of_one_member_changes_nothing_and_without_a_majority_the_list_stays() {
    let mut etcd = Etcd::cluster(3);
    etcd.put(&key("a"), "127.0.0.1:1");
    etcd.put(&key("b"), "127.0.0.1:2");
    let edge = site(&etcd).start();
    wait_for_labels(&edge, &["a", "b"]);
    let mut names = vec!["a", "b"];
    for (member, name) in [(0, "c"), (1, "d"), (2, "e")] {
        etcd.kill(member);
        // With the member that a watch may have lost, the others answer.
        wait::until("the others to answer", || {
            let others: Vec<_> = (0..3).filter(|&other| other != member).collect();
            others.iter().all(|&other| etcd.answers(other))
        });
        etcd.put(&key(name), "127.0.0.1:3");
        names.push(name);
        wait_for_labels(&edge, &names);
        etcd.restart(member);
    }
    // The election of a leader may have taken longer than the grace.
    let failures = edge.stderr().matches("cannot be read").count();
    etcd.kill(0);
    etcd.kill(1);
    edge.wait_for_stderr("cannot be read", failures + 1);
    assert_eq!(labels(&edge), names);
    etcd.launch(0);
    etcd.restart(1);
    edge.wait_for_stderr("can be read again", failures + 1);
    etcd.put(&key("f"), "127.0.0.1:3");
    names.push("f");
    wait_for_labels(&edge, &names);
    let log = edge.stderr();
    assert_eq!(log.matches("cannot be read").count(), failures + 1, "{log}");
}

#[test]
fn user_is_authenticated_again_after_a_restart_of_etcd() {
    let mut etcd = Etcd::start();
    etcd.put(&key("a"), "127.0.0.1:1");
    for command in [
        &["user", "add", "root:r00t"][..],
        &["user", "grant-role", "root", "root"],
        &["role", "add", "edge"],
        &[
            "role",
            "grant-permission",
            "edge",
            "--prefix=true",
            "read",
            "/services/app/",
        ],
        &["user", "add", "edge:pass word"],
        &["user", "grant-role", "edge", "edge"],
        &["auth", "enable"],
    ] {
        etcd.control(command);
    }
    etcd.authenticate("r00t");
    let directory = tempfile::tempdir().unwrap();
    let password = directory.path().join("password");
    let access = format!(
        "{{endpoints: {}, user: edge, password_file: \"{}\"}}",
        etcd.endpoints(),
        password.display()
    );
    write_secret(&password, "wrong\n");
    let edge = site_of(&access).start();
    wait_for_error(&edge, "authentication failed");
    write_secret(&password, "pass word\n");
    edge.cli(&["reload"], "");
    wait_for_labels(&edge, &["a"]);
    // The tokens of the process before are lost.
    etcd.kill(0);
    etcd.restart(0);
    etcd.control(&["put", &key("b"), "127.0.0.1:2"]);
    wait_for_labels(&edge, &["a", "b"]);
    // No permission for the prefix is an error, not an empty list.
    let other = site_of(&access)
        .peers(["{etcd: /other/}", "127.0.0.1:9"])
        .start();
    wait_for_error(&other, "permission denied");
    assert_eq!(labels(&edge), ["a", "b"]);
}

fn write_secret(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn user_of_a_cluster_without_users_is_no_error() {
    let etcd = Etcd::start();
    etcd.put(&key("a"), "127.0.0.1:1");
    let directory = tempfile::tempdir().unwrap();
    let password = directory.path().join("password");
    write_secret(&password, "secret");
    let access = format!(
        "{{endpoints: {}, user: edge, password_file: \"{}\"}}",
        etcd.endpoints(),
        password.display()
    );
    let edge = site_of(&access).start();
    wait_for_labels(&edge, &["a"]);
}

#[test]
fn cluster_with_tls_is_verified_and_gets_the_client_certificate() {
    let authority = Authority::new();
    let etcd = Etcd::with_tls(&authority);
    etcd.control(&["put", &key("a"), "127.0.0.1:1"]);
    let path = |file: &str| authority.path(file).display().to_string();
    let access = |tls: &str| format!("{{endpoints: {}, tls: {tls}}}", etcd.endpoints());
    let (ca, other) = (path("ca.crt"), Authority::new());
    let certificate = format!(
        "cert: \"{}\", key: \"{}\"",
        path("client.crt"),
        path("client.key")
    );
    let edge = site_of(&access(&format!("{{ca: \"{ca}\", {certificate}}}"))).start();
    wait_for_labels(&edge, &["a"]);
    etcd.control(&["put", &key("b"), "127.0.0.1:2"]);
    wait_for_labels(&edge, &["a", "b"]);
    let other_ca = other.path("ca.crt").display().to_string();
    for (tls, problem) in [
        (format!("{{ca: \"{ca}\"}}"), "ertificate"),
        (
            format!("{{ca: \"{other_ca}\", {certificate}}}"),
            "invalid peer certificate",
        ),
    ] {
        let refused = site_of(&access(&tls)).start();
        wait_for_error(&refused, problem);
        assert_eq!(labels(&refused), [""; 0]);
    }
}

#[test]
fn start_without_etcd_serves_the_peers_of_the_process_before() {
    let mut etcd = Etcd::start();
    let origins: Vec<Origin> = (0..2).map(|_| Origin::named()).collect();
    etcd.put(&key("a"), &origins[0].label());
    etcd.put(&key("b"), &origins[1].label());
    let site = site(&etcd).top("state_file", "state.json");
    let mut edge = site.start();
    wait_for_labels(&edge, &["a", "b"]);
    let keys = keys(100);
    let before = ask_all(&edge, &keys);
    let upgraded = edge.command(&["upgrade"]);
    assert!(upgraded.status.success(), "{upgraded:?}");
    assert_eq!(ask_all(&edge, &keys), before);
    crate::support::process::signal(edge.pid(), "TERM");
    wait::until("all processes to exit", || {
        edge.exited();
        edge.processes().is_empty()
    });
    etcd.kill(0);
    let ((), took) = wait::timed(|| edge.restart());
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(ask_all(&edge, &keys), before);
    edge.wait_for_stderr("the 2 peers that it had before serve", 1);
    etcd.restart(0);
    edge.wait_for_stderr("can be read again", 1);
    // A member that never answers does not keep the start.
    let silent = port::FullBacklog::new();
    let access = format!("{{endpoints: [\"http://{}\"]}}", silent.address);
    let (silent_edge, took) = wait::timed(|| site_of(&access).start());
    assert!(took < Duration::from_secs(15), "{took:?}");
    assert_eq!(silent_edge.get("/?k=a").status, 503);
}

#[test]
fn commands_read_the_keys_unless_they_are_offline() {
    let mut etcd = Etcd::start();
    etcd.put(&key("a"), "127.0.0.1:1");
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("clockwise.yaml"), site(&etcd).yaml()).unwrap();
    let ask = |arguments: &[&str]| {
        let output = run(
            directory.path(),
            &[arguments, &["-c", "clockwise.yaml"]].concat(),
            "k\n",
        );
        let text = String::from_utf8([output.stdout, output.stderr].concat());
        (output.status.code(), text.expect("UTF-8"))
    };
    let owner = ["ring", "owner", "-u", "app", "-"];
    assert_eq!(ask(&owner), (Some(0), "k\ta\n".to_owned()));
    etcd.put(&key("b"), "nonsense");
    let (code, text) = ask(&owner);
    assert!(
        code == Some(1) && text.contains("/services/app/b:1:1"),
        "{text}"
    );
    etcd.kill(0);
    let (code, text) = ask(&owner);
    assert!(
        code == Some(1) && text.contains("`etcd:/services/app/`: http://"),
        "{text}"
    );
    let (code, text) = ask(&["check"]);
    assert!(
        code == Some(0) && text.contains("Connection refused"),
        "{text}"
    );
    let (code, text) = ask(&["check", "--offline"]);
    assert_eq!((code, text.trim()), (Some(0), "clockwise.yaml: ok"));
}

#[test]
fn hundred_changes_of_keys_under_load_fail_no_request() {
    let etcd = Etcd::start();
    let origins: Vec<Origin> = (0..6).map(|_| Origin::named()).collect();
    // Scaled up and down, and a replaced server behind a stable name.
    let list = |round: usize| {
        let mut peers = BTreeMap::from([("a", 0), ("b", 1), ("c", 2 + round % 2)]);
        if !round.is_multiple_of(3) {
            peers.insert("d", 4);
        }
        if round % 4 > 1 {
            peers.insert("e", 5);
        }
        peers
    };
    let change = |before: &BTreeMap<&str, usize>, after: &BTreeMap<&str, usize>| {
        for name in before.keys().filter(|name| !after.contains_key(*name)) {
            etcd.delete(&key(name));
        }
        for (name, origin) in after
            .iter()
            .filter(|(name, at)| before.get(*name) != Some(at))
        {
            etcd.put(&key(name), &origins[*origin].label());
        }
    };
    change(&BTreeMap::new(), &list(0));
    let edge = site(&etcd)
        .app("health", "{tcp: true, interval: 1s}")
        .start();
    let keys = keys(10_000);
    let load = Load::start(&edge, 4, &keys);
    for round in 1..=100 {
        change(&list(round - 1), &list(round));
        let expected: BTreeMap<_, _> = list(round)
            .into_iter()
            .map(|(name, origin)| (name.to_owned(), origins[origin].label()))
            .collect();
        wait::until("the change to be in force", || {
            let shown = shown_peers(&edge).into_iter().map(|peer| {
                let text = |key: &str| peer[key].as_str().expect("text").to_owned();
                (text("label"), text("address"))
            });
            shown.collect::<BTreeMap<_, _>>() == expected
        });
    }
    load.wait_for_more(1_000);
    assert!(load.stop().len() > 1_000);
    let owners: Vec<String> = edge.predict(&keys, 1).into_iter().flatten().collect();
    let end = list(100);
    let expected: Vec<_> = owners
        .iter()
        .map(|owner| origins[end[owner.as_str()]].label())
        .collect();
    assert_eq!(ask_all(&edge, &keys), expected);
}
