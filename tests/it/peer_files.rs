//! Peers from files: changed in every way, emptied, broken, missing, held and accepted.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::slice;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::edge::{ConfigBuilder, Edge, run};
use crate::support::list_file::{ListFile, labelled, list, quoted};
use crate::support::load::{Load, ask_all, keys};
use crate::support::origin::{Behaviour, Origin};
use crate::support::wait;

const UPDATES: &str = "clockwise_discovery_updates_total";

fn shown_peers(edge: &Edge) -> Vec<Value> {
    let view = edge.admin.get("/v1/upstreams/app").json();
    view["peers"].as_array().expect("`peers`").clone()
}

/// The labels of the peers, sorted.
fn labels(edge: &Edge) -> Vec<String> {
    let label = |peer: &Value| peer["label"].as_str().expect("`label`").to_owned();
    let mut labels: Vec<String> = shown_peers(edge).iter().map(label).collect();
    labels.sort();
    labels
}

fn wait_for_labels(edge: &Edge, expected: &[String]) {
    let expected: Vec<_> = expected
        .iter()
        .map(|label| label.trim_matches('"'))
        .collect();
    wait::until(&format!("the peers to be {expected:?}"), || {
        labels(edge) == expected
    });
}

fn sources(edge: &Edge) -> Vec<Value> {
    let mut status = edge.admin.get("/v1/status").json();
    let sources = status["upstreams"]["app"]["sources"].take();
    sources.as_array().expect("`sources`").clone()
}

fn source(edge: &Edge) -> Value {
    sources(edge).swap_remove(0)
}

/// Waits until the next list is held; returns the reason.
fn wait_until_held(edge: &Edge) -> String {
    wait::value("a list to be held", || {
        let reason = source(edge)["held"]["reason"].as_str()?.to_owned();
        Some(reason)
    })
}

/// The label of the owner of each key, and the number of keys with another owner than before.
fn moved(
    edge: &Edge,
    keys: &[String],
    before: &mut Vec<String>,
) -> BTreeMap<(String, String), usize> {
    let owners: Vec<String> = edge.predict(keys, 1).into_iter().flatten().collect();
    let mut moved = BTreeMap::new();
    for (was, is) in before.iter().zip(&owners).filter(|(was, is)| was != is) {
        *moved.entry((was.clone(), is.clone())).or_default() += 1;
    }
    *before = owners;
    moved
}

#[test]
fn peers_follow_a_file_that_changes_in_place_by_rename_and_by_config_map() {
    let origins: Vec<Origin> = (0..3).map(|_| Origin::named()).collect();
    let mut peers = quoted(&origins);
    peers.sort();
    let file = ListFile::with(&peers[..1]);
    let edge = file.site().app("health", "{tcp: true}").start();
    wait_for_labels(&edge, &peers[..1]);
    fs::write(file.path(), list(&peers[..2])).unwrap();
    wait_for_labels(&edge, &peers[..2]);
    file.replace(&peers);
    wait_for_labels(&edge, &peers);
    file.replace_text(&format!("{{\"peers\": [{}]}}", peers[..2].join(", ")));
    wait_for_labels(&edge, &peers[..2]);
    let shown = edge.admin.get("/v1/upstreams/app").json();
    let expected = format!("file:{}", file.path().display());
    assert_eq!(shown["peers"][0]["source"], *expected, "{shown}");

    // As Kubernetes writes a ConfigMap: peers.yaml -> ..data/peers.yaml, ..data -> ..1
    let folder = file.folder();
    let version = |name: &str, peers: &[String]| {
        fs::create_dir(folder.join(name)).unwrap();
        fs::write(folder.join(name).join("peers.yaml"), list(peers)).unwrap();
        symlink(name, folder.join("..data_tmp")).unwrap();
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    };
    version("..1", &peers);
    symlink("..data/peers.yaml", folder.join("link")).unwrap();
    fs::rename(folder.join("link"), file.path()).unwrap();
    wait_for_labels(&edge, &peers);
    version("..2", &peers[1..]);
    fs::remove_dir_all(folder.join("..1")).unwrap();
    wait_for_labels(&edge, &peers[1..]);
    version("..3", &peers);
    wait_for_labels(&edge, &peers);
    assert_eq!(edge.admin.metric("clockwise_discovery_peers", &[]), 3);
    // A reload of the file changes nothing of the list.
    let reloaded = edge.cli(&["reload"], "");
    assert!(!reloaded.contains("upstream app"), "{reloaded}");
    assert_eq!(labels(&edge).len(), 3);
}

#[test]
fn list_that_is_empty_half_lost_or_broken_changes_nothing_until_it_is_accepted() {
    let origins: Vec<Origin> = (0..4).map(|_| Origin::named()).collect();
    let mut peers = quoted(&origins);
    peers.sort();
    let file = ListFile::with(&peers);
    let edge = file.site().start();
    wait_for_labels(&edge, &peers);
    let (held, failing) = ("clockwise_discovery_held", "clockwise_discovery_failing");

    file.replace_text("[]\n");
    assert_eq!(
        wait_until_held(&edge),
        "it is empty, and 4 peers are in force"
    );
    file.replace_text("- 127.0.0.1\n");
    edge.wait_for_stderr("peers.yaml:1:3", 1);
    wait::until("the source to fail", || {
        edge.admin.metric(failing, &[]) == 1
    });
    let error = source(&edge)["error"].to_string();
    assert!(error.contains("peers.yaml:1:3"), "{error}");
    fs::remove_file(file.path()).unwrap();
    edge.admin
        .wait_for_metric(UPDATES, &["result=\"failed\""], 2);
    // Another error is no change of state: one line in the log.
    assert_eq!(edge.stderr().matches("cannot be read:").count(), 1);
    assert_eq!((labels(&edge).len(), edge.admin.metric(held, &[])), (4, 1));
    let keys = keys(100);
    assert_eq!(ask_all(&edge, &keys).len(), 100);

    file.replace(&peers[..1]);
    edge.wait_for_stderr("can be read again", 1);
    edge.admin
        .wait_for_metric(UPDATES, &["result=\"distrusted\""], 2);
    let reason = wait_until_held(&edge);
    assert!(reason.contains("lost 3 of the 4"), "{reason}");
    assert_eq!(labels(&edge).len(), 4);
    let status = edge.cli(&["status"], "");
    assert!(status.contains("clockwise accept app"), "{status}");
    let accepted = edge.cli(&["accept", "app"], "");
    assert!(accepted.contains("1 peers"), "{accepted}");
    wait_for_labels(&edge, &peers[..1]);
    assert_eq!(edge.admin.metric(held, &[]), 0);
    let again = edge.command(&["accept", "app"]);
    assert_eq!(again.status.code(), Some(4), "{again:?}");
    let unknown = edge.command(&["accept", "other"]);
    assert_eq!(unknown.status.code(), Some(4), "{unknown:?}");
}

#[test]
fn held_list_is_dropped_when_a_better_one_follows() {
    let origins: Vec<Origin> = (0..4).map(|_| Origin::named()).collect();
    let mut peers = quoted(&origins);
    peers.sort();
    let file = ListFile::with(&peers);
    let edge = file.site().start();
    file.replace(&peers[..1]);
    wait_until_held(&edge);
    file.replace(&peers[..3]);
    wait_for_labels(&edge, &peers[..3]);
    assert_eq!(source(&edge)["held"], Value::Null);
    // With `max_lost: off` an operator has said that every list is right.
    edge.rewrite(&file.site().app("discovery", "{max_lost: off}").yaml());
    edge.cli(&["reload"], "");
    file.replace_text("[]\n");
    wait_for_labels(&edge, &[]);
    assert_eq!(edge.get("/?k=a").status, 503);
    file.replace(&peers);
    wait_for_labels(&edge, &peers);
    assert_eq!(edge.get("/?k=a").status, 200);
}

#[test]
fn new_address_of_a_label_moves_no_key_and_keeps_the_counters() {
    let origins: Vec<Origin> = (0..4).map(|_| Origin::named()).collect();
    let peers = |second: usize| {
        vec![
            labelled("x", &origins[0]),
            labelled("y", &origins[second]),
            labelled("z", &origins[2]),
        ]
    };
    let file = ListFile::with(&peers(1));
    let edge = file.site().app("health", "{tcp: true}").start();
    let keys = keys(2_000);
    let mut owners: Vec<String> = edge.predict(&keys, 1).into_iter().flatten().collect();
    let before = ask_all(&edge, &keys);
    let attempts = || {
        edge.admin
            .metric("clockwise_peer_attempts_total", &["peer=\"y\""])
    };
    let counted = attempts();
    file.replace(&peers(3));
    let (old, new) = (origins[1].label(), origins[3].label());
    wait::until("the new address", || {
        shown_peers(&edge)[1]["address"] == *new
    });
    assert_eq!(moved(&edge, &keys, &mut owners), BTreeMap::new());
    let after = ask_all(&edge, &keys);
    let expected: Vec<_> = before
        .iter()
        .map(|peer| if *peer == old { &new } else { peer })
        .collect();
    assert_eq!(after.iter().collect::<Vec<_>>(), expected);
    assert!(counted > 0 && attempts() >= 2 * counted, "{counted}");
}

#[test]
fn vanished_peer_moves_only_its_keys_and_finishes_its_requests() {
    let origins: Vec<Origin> = (0..3).map(|_| Origin::named()).collect();
    let list = |last: usize| -> Vec<String> {
        let named = ["a", "b", "c"].iter().zip(&origins).take(last);
        named
            .map(|(label, origin)| labelled(label, origin))
            .collect()
    };
    let file = ListFile::with(&list(3));
    let edge = file.site().start();
    let keys = keys(2_000);
    let mut owners: Vec<String> = edge.predict(&keys, 1).into_iter().flatten().collect();
    let of_c = keys.iter().zip(&owners).find(|(_, owner)| *owner == "c");
    let (key, _) = of_c.unwrap();
    origins[2].behave(Behaviour::Hold);
    let mut held = edge.connect();
    let request = format!("GET /?k={key} HTTP/1.1\r\nHost: h\r\n\r\n");
    held.send(request).unwrap();
    origins[2].wait_for_requests(1);
    file.replace(&list(2));
    wait_for_labels(&edge, &["a".to_owned(), "b".to_owned()]);
    let moves = moved(&edge, &keys, &mut owners);
    assert!(
        !moves.is_empty() && moves.keys().all(|(from, _)| from == "c"),
        "{moves:?}"
    );
    origins[2].behave(Behaviour::Echo);
    assert_eq!(held.response().unwrap().status, 200);
    file.replace(&list(3));
    wait_for_labels(&edge, &["a".to_owned(), "b".to_owned(), "c".to_owned()]);
    let moves = moved(&edge, &keys, &mut owners);
    assert!(
        !moves.is_empty() && moves.keys().all(|(_, to)| to == "c"),
        "{moves:?}"
    );
}

#[test]
fn vanished_peer_keeps_its_active_keys_until_its_drain_is_over() {
    let origins: Vec<Origin> = (0..2).map(|_| Origin::named()).collect();
    let list = |last: usize| -> Vec<String> {
        let named = ["a", "b"].iter().zip(&origins).take(last);
        named
            .map(|(label, origin)| labelled(label, origin))
            .collect()
    };
    let file = ListFile::with(&list(2));
    let drain = |time: &str| format!("{{idle: {time}, deadline: {time}}}");
    let edge = file.site().app("drain", &drain("1h")).start();
    let keys = keys(50);
    let before = ask_all(&edge, &keys);
    file.replace(&list(1));
    edge.admin.wait_for_state("app", "b", "draining");
    assert_eq!(ask_all(&edge, &keys), before, "active keys stay");
    assert_eq!(source(&edge)["leaving"][0], "b");
    // New keys go to the other peer.
    let others: Vec<String> = (0..50).map(|number| format!("other-{number}")).collect();
    let first = origins[0].label();
    assert!(ask_all(&edge, &others).iter().all(|peer| *peer == first));
    // A peer that returns is not drained any more.
    file.replace(&list(2));
    edge.admin.wait_for_state("app", "b", "up");
    file.replace(&list(1));
    edge.admin.wait_for_state("app", "b", "draining");
    edge.rewrite(&file.site().app("drain", &drain("1s")).yaml());
    edge.cli(&["reload"], "");
    wait_for_labels(&edge, &["a".to_owned()]);
    edge.wait_for_stderr("peer b is removed: its drain is over", 1);
    assert!(ask_all(&edge, &keys).iter().all(|peer| *peer == first));
}

#[test]
fn configuration_file_is_watched_while_a_peer_leaves() {
    let origins = [Origin::start(), Origin::start()];
    let named: Vec<String> = ["a", "b"]
        .iter()
        .zip(&origins)
        .map(|(label, origin)| labelled(label, origin))
        .collect();
    let file = ListFile::with(&named);
    let site = |drain: &str| file.site().app("drain", drain).top("watch", "2s");
    let edge = site("{idle: 1h, deadline: 1h}").start();
    ask_all(&edge, &keys(50));
    file.replace(&named[..1]);
    edge.admin.wait_for_state("app", "b", "draining");
    edge.rewrite(&site("{idle: 1s, deadline: 1s}").yaml());
    wait_for_labels(&edge, &["a".to_owned()]);
}

#[test]
fn label_that_moves_to_another_source_or_into_the_configuration_is_not_drained() {
    let origins = [Origin::named(), Origin::named()];
    let [a, b] = [labelled("a", &origins[0]), labelled("b", &origins[1])];
    let [first, second] = [&b, &a].map(|peer| ListFile::with(slice::from_ref(peer)));
    let source = |file: &ListFile| format!("{{file: \"{}\"}}", file.path().display());
    let site = |peers: Vec<String>| {
        let site = ConfigBuilder::of(peers).app("drain", "{idle: 1h, deadline: 1h}");
        let discovery = "{settle: 10ms, max_lost: off}";
        site.app("discovery", discovery)
    };
    let edge = site(vec![source(&first), source(&second)]).start();
    let keys = keys(50);
    let before = ask_all(&edge, &keys);
    first.replace(&[]);
    edge.admin.wait_for_state("app", "b", "draining");
    second.replace(&[a.clone(), b.clone()]);
    edge.admin.wait_for_state("app", "b", "up");
    wait::until("the first source to forget its peer", || {
        sources(&edge)
            .iter()
            .all(|source| source["leaving"] == json!([]) && source["left_out"] == json!([]))
    });
    assert_eq!(ask_all(&edge, &keys), before);
    second.replace(&[a]);
    edge.admin.wait_for_state("app", "b", "draining");
    edge.rewrite(&site(vec![source(&first), source(&second), b]).yaml());
    edge.cli(&["reload"], "");
    edge.admin.wait_for_state("app", "b", "up");
    assert_eq!(ask_all(&edge, &keys), before);
}

#[test]
fn peer_that_stops_answering_is_found_down_while_the_list_changes_all_the_time() {
    let origins: Vec<Origin> = (0..3).map(|_| Origin::start()).collect();
    let list = |last: usize| -> Vec<String> {
        let named = ["a", "b", "c"].iter().zip(&origins).take(last);
        named
            .map(|(label, origin)| labelled(label, origin))
            .collect()
    };
    let file = ListFile::with(&list(2));
    let health = "{http: /, interval: 1s, timeout: 1s, fall: 1, rise: 1}";
    let edge = file.site().app("health", health).start();
    edge.admin.wait_for_state("app", "b", "up");
    origins[1].behave(Behaviour::Hold);
    let mut changes = 0;
    wait::until("the peer to be down", || {
        changes += 1;
        let count = 2 + changes % 2;
        file.replace(&list(count));
        wait_for_labels(&edge, &["a", "b", "c"].map(str::to_owned)[..count]);
        edge.admin.state("app", "b") == "down"
    });
}

#[test]
fn leaving_peer_cannot_be_enabled() {
    let origins = [Origin::start(), Origin::start()];
    let [a, b] = [labelled("a", &origins[0]), labelled("b", &origins[1])];
    let file = ListFile::with(&[a.clone(), b.clone()]);
    let edge = file.site().app("drain", "{idle: 1h, deadline: 1h}").start();
    ask_all(&edge, &keys(50));
    file.replace(slice::from_ref(&a));
    edge.admin.wait_for_state("app", "b", "draining");
    let refused = edge.command(&["enable", "app", "b"]);
    let text = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success(), "{text}");
    assert!(text.contains("has left its source"), "{text}");
    // An operator's drain outlives the return of the peer.
    edge.cli(&["drain", "app", "b"], "");
    file.replace(&[a, b]);
    wait::until("the peer to have returned", || {
        source(&edge)["leaving"] == json!([])
    });
    assert_eq!(edge.admin.state("app", "b"), "draining");
    edge.cli(&["enable", "app", "b"], "");
    edge.admin.wait_for_state("app", "b", "up");
}

#[test]
fn held_list_comes_into_force_when_the_limit_that_holds_it_is_removed() {
    let origins: Vec<Origin> = (0..3).map(|_| Origin::start()).collect();
    let peers = quoted(&origins);
    let file = ListFile::with(&peers);
    let edge = file.site().start();
    file.replace(&peers[..1]);
    wait_until_held(&edge);
    let loose = "{settle: 10ms, max_lost: off}";
    edge.rewrite(&file.site().app("discovery", loose).yaml());
    edge.cli(&["reload"], "");
    wait_for_labels(&edge, &[origins[0].label()]);
    assert_eq!(source(&edge)["held"], Value::Null);
}

#[test]
fn list_that_loses_its_peers_one_by_one_is_held() {
    let mut origins: Vec<Origin> = (0..4).map(|_| Origin::start()).collect();
    origins.sort_by_key(Origin::label);
    let (peers, labels): (Vec<_>, Vec<_>) = (
        quoted(&origins),
        origins.iter().map(Origin::label).collect(),
    );
    let file = ListFile::with(&peers);
    let edge = file.site().start();
    for left in [3, 2] {
        file.replace(&peers[..left]);
        wait_for_labels(&edge, &labels[..left]);
    }
    file.replace(&peers[..1]);
    let reason = wait_until_held(&edge);
    assert!(
        reason.contains("4 were in force within the last minute"),
        "{reason}"
    );
    edge.cli(&["accept", "app"], "");
    wait_for_labels(&edge, &labels[..1]);
    // What an operator has accepted is the new measure.
    file.replace(&peers[..2]);
    wait_for_labels(&edge, &labels[..2]);
    file.replace(&peers[..1]);
    wait_for_labels(&edge, &labels[..1]);
}

#[test]
fn list_that_would_move_more_than_max_moved_is_held_until_it_is_accepted() {
    let origins: Vec<Origin> = (0..4).map(|_| Origin::named()).collect();
    let mut peers = quoted(&origins);
    peers.sort();
    let file = ListFile::with(&peers);
    let edge = file.site().app("max_moved", "10%").start();
    wait_for_labels(&edge, &peers);
    file.replace(&peers[..3]);
    let reason = wait_until_held(&edge);
    assert!(reason.contains("`max_moved` allows 10 %"), "{reason}");
    assert_eq!(edge.admin.metric(UPDATES, &["result=\"held\""]), 1);
    assert_eq!(labels(&edge).len(), 4);
    // An upgrade moves no more than a reload: the list stays held.
    let upgraded = edge.command(&["upgrade"]);
    assert!(upgraded.status.success(), "{upgraded:?}");
    assert_eq!(labels(&edge).len(), 4);
    wait_until_held(&edge);
    let accepted = edge.admin.post("/v1/upstreams/app/accept");
    assert_eq!(accepted.status, 200, "{accepted:?}");
    wait_for_labels(&edge, &peers[..3]);
}

#[test]
fn upgrade_and_restart_keep_the_list_of_a_file_that_is_missing() {
    let origins: Vec<Origin> = (0..3).map(|_| Origin::named()).collect();
    let mut peers = quoted(&origins);
    peers.sort();
    let file = ListFile::with(&peers);
    let site = file.site().top("state_file", "state.json");
    let mut edge = site.start();
    let keys = keys(300);
    let before = ask_all(&edge, &keys);
    fs::remove_file(file.path()).unwrap();
    let upgraded = edge.command(&["upgrade"]);
    assert!(upgraded.status.success(), "{upgraded:?}");
    wait_for_labels(&edge, &peers);
    assert_eq!(ask_all(&edge, &keys), before);
    edge.stop_serving();
    edge.restart();
    wait_for_labels(&edge, &peers);
    assert_eq!(ask_all(&edge, &keys), before);
    edge.wait_for_stderr("the 3 peers that it had before serve", 1);
    // The file is back, without one of the three.
    file.replace(&peers[..2]);
    wait_for_labels(&edge, &peers[..2]);
}

#[test]
fn start_without_the_file_is_tolerant_or_strict() {
    let origin = Origin::named();
    let file = ListFile::new();
    let edge = file.site().start();
    assert_eq!(edge.get("/?k=a").status, 503);
    let peers = quoted(slice::from_ref(&origin));
    file.replace(&peers);
    wait_for_labels(&edge, &peers);
    assert_eq!(edge.get("/?k=a").status, 200);

    let missing = ListFile::new();
    let strict = missing.site().top("start", "strict");
    let mut refused = Edge::launch(&strict.yaml());
    assert_eq!(refused.wait().code(), Some(1));
    refused.wait_for_stderr("with `start: tolerant`", 1);
    // A reload that adds the source is refused, too.
    edge.rewrite(&strict.yaml());
    let reloaded = edge.command(&["reload"]);
    assert_eq!(reloaded.status.code(), Some(4), "{reloaded:?}");
    assert_eq!(edge.get("/?k=a").status, 200);
}

#[test]
fn reload_adds_and_removes_sources_and_keeps_the_lists_of_the_others() {
    let origins: Vec<Origin> = (0..3).map(|_| Origin::named()).collect();
    let mut peers = quoted(&origins);
    peers.sort();
    let (one, two) = (ListFile::with(&peers[..1]), ListFile::with(&peers[1..2]));
    let edge = one.site().start();
    wait_for_labels(&edge, &peers[..1]);
    let sources = [&one, &two].map(|file| format!("{{file: \"{}\"}}", file.path().display()));
    edge.rewrite(&one.site().peers(sources).yaml());
    let planned = edge.cli(&["reload", "--dry-run"], "");
    assert!(
        planned.contains(&format!("peer {}: added", peers[1].trim_matches('"'))),
        "{planned}"
    );
    assert_eq!(labels(&edge).len(), 1);
    edge.cli(&["reload"], "");
    wait_for_labels(&edge, &peers[..2]);
    two.replace(&peers[1..]);
    wait_for_labels(&edge, &peers);
    edge.rewrite(&one.site().yaml());
    edge.cli(&["reload"], "");
    wait_for_labels(&edge, &peers[..1]);
    let path = two.path().display().to_string();
    wait::until("its series to go", || {
        !edge.admin.get("/metrics").text().contains(&path)
    });
}

/// A directory with two configurations: peer `a` and the list `one.list`, or the list `two.list`.
struct CommandFiles(TempDir);

impl CommandFiles {
    fn new() -> Self {
        let files = Self(tempfile::tempdir().expect("a temporary directory"));
        for name in ["one", "two"] {
            let yaml = format!(
                "listeners: [{{address: \"127.0.0.1:0\"}}]\nadmin: off\ncontrol: c.sock\nroutes: [{{upstream: app}}]\n\
                 upstreams:\n  app:\n    key: {{query: k}}\n    peers:\n      - {{label: a, address: \"127.0.0.1:1\"}}\n      - {{file: {name}.list}}\n"
            );
            files.write(&format!("{name}.yaml"), &yaml);
        }
        files
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).expect("writable");
    }

    /// Runs a command; returns its exit code and its output.
    fn ask(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = run(self.0.path(), arguments, "k\n");
        let text = String::from_utf8([output.stdout, output.stderr].concat());
        (output.status.code(), text.expect("UTF-8"))
    }
}

#[test]
fn ring_commands_read_the_files_of_sources() {
    let files = CommandFiles::new();
    files.write("one.list", "- {label: b, address: \"127.0.0.1:2\"}\n");
    let two = "- {label: b, address: \"127.0.0.1:3\"}\n- {label: c, address: \"127.0.0.1:4\"}\n";
    files.write("two.list", two);
    let (code, text) = files.ask(&["ring", "show", "-c", "one.yaml", "-u", "app"]);
    assert!(code == Some(0) && text.contains("\nb "), "{text}");
    let diff = [
        "ring", "diff", "-c", "one.yaml", "--to", "two.yaml", "-u", "app",
    ];
    let (code, text) = files.ask(&[&diff[..], &["--max-moved", "1"]].concat());
    assert!(code == Some(3) && text.contains("\nc "), "{text}");
    files.write("one.list", "- {label: b, adress: \"127.0.0.1:2\"}\n");
    let (code, text) = files.ask(&["ring", "owner", "-c", "one.yaml", "-u", "app", "-"]);
    assert!(code == Some(1) && text.contains("one.list:1:14"), "{text}");
}

#[test]
fn check_reports_the_problems_of_a_list_at_their_place() {
    let files = CommandFiles::new();
    let check = |text: &str, options: &[&str]| {
        files.write("one.list", text);
        files.ask(&[&["check", "-c", "one.yaml"], options].concat())
    };
    let (code, text) = check("- {label: b, address: \"127.0.0.1:2\"}\n", &[]);
    assert_eq!((code, text.trim()), (Some(0), "one.yaml: ok"));
    let (code, text) = check("- {label: a, address: \"127.0.0.1:2\"}\n", &[]);
    let is_warned = text.contains("one.yaml:10:16") && text.contains("peer a is left out");
    assert!(code == Some(0) && is_warned, "{text}");
    let misspelt = "- {label: b, adress: \"127.0.0.1:2\"}\n";
    let (code, text) = check(misspelt, &["--offline"]);
    let is_placed = text.contains("one.list:1:14") && text.contains("did you mean `address`?");
    assert!(code == Some(1) && is_placed, "{text}");
    let (code, text) = check(misspelt, &["--json"]);
    let is_json = text.contains("\"file\":\"one.list\",\"line\":1");
    assert!(code == Some(1) && is_json, "{text}");
    let (code, text) = files.ask(&["check", "-c", "two.yaml"]);
    let is_warned = text.contains("`two.list`: the file cannot be read");
    assert!(code == Some(0) && is_warned, "{text}");
}

#[test]
fn hundred_changes_of_a_file_under_load_fail_no_request() {
    let origins: Vec<Origin> = (0..6).map(|_| Origin::named()).collect();
    // Scaled up and down, and a replaced server behind a stable name.
    let list = |round: usize| {
        let mut peers = vec![
            labelled("a", &origins[0]),
            labelled("b", &origins[1]),
            labelled("c", &origins[2 + round % 2]),
        ];
        if !round.is_multiple_of(3) {
            peers.push(labelled("d", &origins[4]));
        }
        if round % 4 > 1 {
            peers.push(labelled("e", &origins[5]));
        }
        peers
    };
    let file = ListFile::with(&list(0));
    let site = file.site().app("health", "{tcp: true, interval: 1s}");
    let edge = site.start();
    let keys = keys(10_000);
    let load = Load::start(&edge, 4, &keys);
    let applied = || edge.admin.metric(UPDATES, &["result=\"applied\""]);
    let started = applied();
    for round in 1..=100 {
        file.replace(&list(round));
        let goal = started + round as u64;
        wait::until("the change to be in force", || applied() >= goal);
    }
    load.wait_for_more(1_000);
    let answers = load.stop();
    assert!(answers.len() > 1_000);
    // The ring depends on labels alone: what is left is what the list says.
    let mut owners: Vec<String> = edge.predict(&keys, 1).into_iter().flatten().collect();
    let by_label: BTreeMap<_, _> = ["a", "b", "c", "d", "e"]
        .into_iter()
        .zip([0, 1, 2, 4, 5].map(|index: usize| origins[index].label()))
        .collect();
    let expected: Vec<_> = owners
        .iter()
        .map(|owner| &by_label[owner.as_str()])
        .collect();
    let served = ask_all(&edge, &keys);
    assert_eq!(served.iter().collect::<Vec<_>>(), expected);
    assert_eq!(moved(&edge, &keys, &mut owners), BTreeMap::new());
}
