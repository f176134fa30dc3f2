//! Predictions: `ring diff`, `ring replay`, and the same over HTTP.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::Value;

use crate::support::client::Request;
use crate::support::command_dir::{CommandDir, site};
use crate::support::edge::{ConfigBuilder, run};
use crate::support::load::keys;
use crate::support::origin::Origin;
use crate::support::wait::timed;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// `key -> label` of lines with two columns.
fn owners(text: &str) -> HashMap<&str, &str> {
    text.lines()
        .map(|line| line.split_once('\t').unwrap())
        .collect()
}

#[test]
fn ring_diff_without_a_peer_matches_golden() {
    let text = CommandDir::new().diff("--without b --keys -", &keys(1000).join("\n"));
    assert_eq!(text, include_str!("golden/diff-without.txt"));
}

#[test]
fn ring_diff_of_two_files_equals_the_same_change_by_options() {
    let dir = CommandDir::new();
    dir.write("then.yaml", &site(["a", "c", "d"]).yaml());
    let text = dir.diff("--to then.yaml", "");
    assert_eq!(text, dir.diff("--without b --add d", ""));
    assert_eq!(
        dir.diff("--to clockwise.yaml", "").lines().last(),
        Some("moved 0.00000000 % of the key space: 0 of 4294967296 hashes")
    );
}

#[test]
fn ring_diff_remarks_if_only_the_scale_of_all_weights_moves_keys() {
    let dir = CommandDir::new();
    let remark = |arguments: &str| {
        let text = dir.diff(arguments, "");
        text.lines()
            .find_map(|line| line.strip_prefix("note: ").map(str::to_owned))
    };
    assert_eq!(
        remark("--weight a=2 --weight b=2 --weight c=2").as_deref(),
        Some(
            "all weights change by the same factor; in dialect `ketama` weights count absolutely, so keys move; equal weights of 1 would do"
        )
    );
    for arguments in [
        "--weight a=2 --weight b=2",
        "--weight a=2 --weight b=2 --weight c=3",
        "--weight a=2 --weight b=2 --weight c=2 --down a",
        "--weight a=2 --weight b=2 --without c",
        "--without b",
    ] {
        assert_eq!(remark(arguments), None, "{arguments}");
    }
}

#[test]
fn ring_diff_of_a_down_peer_equals_its_removal() {
    let dir = CommandDir::new();
    let moved = |arguments: &str| json(&dir.diff(&format!("{arguments} --json"), ""));
    let (death, removal) = (moved("--down b"), moved("--without b"));
    assert_eq!(death["moved"], removal["moved"]);
    assert_eq!(death["pairs"], removal["pairs"]);
    let back = moved("--down-before b");
    assert_eq!(back["moved"], death["moved"]);
    let all = moved("--down a --down b --down c");
    assert_eq!(all["moved"]["share"], 1.0);
    assert_eq!(all["pairs"][0]["to"], Value::Null);
}

#[test]
fn ring_diff_counts_a_million_keys_as_ring_owner_does() {
    let dir = CommandDir::new();
    let mut input = String::new();
    for number in 0..1_000_000 {
        let _ = writeln!(input, "user-{number}");
    }
    dir.write("then.yaml", &site(["a", "c", "d"]).yaml());
    let before = dir.print("ring owner -c clockwise.yaml -u app -", &input);
    let after = dir.print("ring owner -c then.yaml -u app -", &input);
    let mut measured: HashMap<(&str, &str), u64> = HashMap::new();
    let mut lines = String::new();
    for (was, is) in before.lines().zip(after.lines()) {
        let (key, from) = was.split_once('\t').unwrap();
        let to = is.split_once('\t').unwrap().1;
        if from != to {
            *measured.entry((from, to)).or_default() += 1;
            let _ = writeln!(lines, "{key}\t{from}\t{to}");
        }
    }
    let report = json(&dir.diff("--to then.yaml --keys - --json", &input));
    let counted: HashMap<_, _> = report["counted"]["pairs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pair| {
            let end = |name: &str| pair[name].as_str().unwrap();
            ((end("from"), end("to")), pair["keys"].as_u64().unwrap())
        })
        .collect();
    assert_eq!(counted, measured);
    assert_eq!(report["counted"]["keys"], 1_000_000);
    assert_eq!(report["counted"]["moved"], measured.values().sum::<u64>());
    assert_eq!(dir.diff("--to then.yaml --keys - --moved", &input), lines);
}

#[test]
fn ring_diff_over_max_moved_exits_with_3() {
    let dir = CommandDir::new();
    let ask =
        |limit: &str| format!("ring diff -c clockwise.yaml -u app --down b --max-moved {limit}");
    let errors = dir.fail(&ask("2.5%"), 3);
    assert!(
        errors.contains("of the key space would move, more than the allowed 2.5 %"),
        "{errors}"
    );
    dir.print(&ask("60"), "");
    dir.fail(&ask("-1"), 2);
    dir.fail(&ask("101"), 2);
    let exact = json(&dir.diff("--down b --json", ""))["moved"]["share"]
        .as_f64()
        .unwrap()
        * 100.0;
    dir.print(&ask(&format!("{exact:.30}")), "");
    dir.fail(&ask(&format!("{:.30}", exact - 1e-9)), 3);
    dir.write("keys", "one\n");
    let owner = dir.print("ring owner -c clockwise.yaml -u app one", "");
    let label = owners(&owner)["one"];
    let errors = dir.fail(
        &format!("ring diff -c clockwise.yaml -u app --down {label} --keys keys --max-moved 80"),
        3,
    );
    assert_eq!(
        errors,
        "1 of 1 keys would move, more than the allowed 80 %\n"
    );
}

#[test]
fn ring_diff_with_invalid_arguments_is_refused() {
    let dir = CommandDir::new();
    for (arguments, code, part) in [
        ("", 2, "required"),
        ("--add x=300", 2, "not a weight"),
        ("--without x", 1, "there is no peer `x`; there are: a, b, c"),
        ("--weight x=2", 1, "`x`"),
        ("--down x", 1, "`x`"),
        ("--down-before x", 1, "`x`"),
        ("--add a", 1, "`a`"),
        ("--to nowhere.yaml", 1, "nowhere.yaml"),
        ("--down a --keys nowhere", 1, "nowhere"),
        ("--down a --moved", 2, "--keys"),
    ] {
        let all = format!("ring diff -c clockwise.yaml -u app {arguments}");
        let errors = dir.fail(all.trim_end(), code);
        assert!(errors.contains(part), "{arguments}: {errors}");
    }
}

#[test]
fn ring_diff_of_another_dialect_is_an_estimate() {
    let dir = CommandDir::new();
    let circle = site(["a", "b", "c"]).app("ring", "{dialect: circle}");
    dir.write("then.yaml", &circle.yaml());
    let report = json(&dir.diff("--to then.yaml --keys - --json", &keys(1000).join("\n")));
    assert_eq!(report["exact"], false);
    let (expected, counted) = (&report["moved"]["share"], &report["counted"]["moved"]);
    let difference = expected.as_f64().unwrap() - counted.as_f64().unwrap() / 1000.0;
    assert!(difference.abs() < 0.1, "{report}");
}

/// A log of a request each 10 ms, each of 25 ms, ten thousand in all.
fn log(dir: &CommandDir) -> String {
    let hash = |key: &str| {
        let text = dir.print(
            &format!("ring owner -c clockwise.yaml -u app --json {key}"),
            "",
        );
        json(&text)["hash"].as_str().unwrap().to_owned()
    };
    let keys: Vec<_> = (0..50).map(|number| hash(&format!("k{number}"))).collect();
    let mut log = String::new();
    for number in 0..10_000_usize {
        let (second, milli) = (number / 100, number % 100 * 10);
        let (minute, second) = (second / 60, second % 60);
        let key = &keys[number * number % 50];
        let _ = writeln!(
            log,
            "{{\"time\":\"2026-01-02T03:{minute:02}:{second:02}.{milli:03}Z\",\"path\":\"/\",\"sent\":100,\"duration\":0.025,\"upstream\":\"app\",\"peer\":\"a\",\"key_source\":\"query\",\"key_hash\":\"{key}\"}}"
        );
    }
    log
}

#[test]
fn ring_replay_output_matches_golden() {
    let dir = CommandDir::new();
    let mut text = log(&dir);
    text.insert_str(text.find('\n').unwrap() + 1, "not a line\n");
    text.push_str(
        "{\"time\":\"2026-01-02T03:00:00Z\",\"sent\":1,\"duration\":1,\"upstream\":\"other\"}\n",
    );
    dir.write("access.log", &text);
    let shown = dir.replay("--log access.log --down b --bounded-load 1.25");
    assert_eq!(shown, include_str!("golden/replay.txt"));
}

#[test]
fn ring_replay_totals_are_consistent() {
    let dir = CommandDir::new();
    dir.write("access.log", &log(&dir));
    let report = json(&dir.replay("--log access.log --weight a=3 --json"));
    let sum = |when: &str, of: &str| -> u64 {
        let peers = report[when]["peers"].as_array().unwrap();
        peers.iter().map(|peer| peer[of].as_u64().unwrap()).sum()
    };
    for when in ["now", "after"] {
        assert_eq!(sum(when, "requests"), 10_000);
        assert_eq!(sum(when, "bytes"), 1_000_000);
        assert_eq!(sum(when, "overflow"), 0);
        let peers = report[when]["peers"].as_array().unwrap();
        let busy: f64 = peers
            .iter()
            .map(|peer| peer["mean_in_flight"].as_f64().unwrap())
            .sum();
        assert!((busy - 2.5).abs() < 0.01, "{report}");
    }
    assert_eq!(report["moved"].as_u64().unwrap(), {
        let of = |when: &str| report[when]["peers"][0]["requests"].as_u64().unwrap();
        of("after") - of("now")
    });
}

#[test]
fn ring_replay_reads_a_million_lines_in_seconds() {
    let dir = CommandDir::new();
    dir.write("access.log", &log(&dir).repeat(100));
    let (report, took) = timed(|| json(&dir.replay("--log access.log --json")));
    assert_eq!(report["requests"], 1_000_000);
    assert!(took < Duration::from_secs(60), "{took:?}");
}

#[test]
fn ring_replay_without_matching_lines_is_an_input_error() {
    let dir = CommandDir::new();
    dir.write("empty.log", "");
    dir.write("other.log", "no\n");
    let ask = |rest: &str| format!("ring replay -c clockwise.yaml -u app {rest}");
    dir.fail(&ask("--log empty.log"), 1);
    let errors = dir.fail(&ask("--log other.log"), 1);
    assert!(errors.contains("line 1"), "{errors}");
    dir.fail(&ask("--log nowhere.log"), 1);
    dir.fail(&ask("--log empty.log --bounded-load 1"), 2);
}

/// What the proxy logs is what the replay reads.
#[test]
fn ring_replay_of_our_access_log_hits_the_logged_peers() {
    let origins = Origin::some(3);
    let edge = ConfigBuilder::of(origins.iter().map(Origin::label))
        .top("access_log", "{path: access.log}")
        .start();
    for key in keys(50) {
        edge.send(&Request::get(&format!("/?k={key}")));
    }
    edge.log_lines(50);
    let log = edge.access_log();
    let config = edge.directory().join("clockwise.yaml");
    let arguments = ["ring", "replay", "-u", "app", "--json", "-c"].map(str::to_owned);
    let arguments: Vec<String> = arguments
        .into_iter()
        .chain([
            config.display().to_string(),
            "--log".to_owned(),
            log.display().to_string(),
        ])
        .collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let output = run(edge.directory(), &arguments, "");
    let report = json(&String::from_utf8(output.stdout).unwrap());
    assert_eq!(
        (&report["requests"], &report["as_logged"]),
        (&50.into(), &50.into()),
        "{report}"
    );
}

#[test]
fn admin_diff_equals_ring_diff() {
    let peers =
        ["a", "b", "c"].map(|label| format!("{{address: \"127.0.0.1:1\", label: {label}}}"));
    let edge = ConfigBuilder::of(peers).start();
    let dir = CommandDir::new();
    let ask = |query: &str| edge.admin.get(&format!("/v1/upstreams/app/diff?{query}"));
    for (query, arguments) in [
        ("without=b", "--without b"),
        ("down=b", "--down b"),
        ("add=d=2&weight=a=3", "--add d=2 --weight a=3"),
        ("add=%5B%3A%3A1%5D:80", "--add [::1]:80"),
    ] {
        let answer = ask(query);
        assert_eq!(answer.status, 200, "{answer:?}");
        let (answer, printed) = (
            answer.json(),
            json(&dir.diff(&format!("{arguments} --json"), "")),
        );
        assert_eq!(answer["moved"], printed["moved"], "{query}");
        assert_eq!(answer["pairs"], printed["pairs"], "{query}");
    }
    for (query, status) in [
        ("", 400),
        ("what=1", 400),
        ("add=d=x", 400),
        ("down=x", 422),
        ("up=x", 422),
    ] {
        assert_eq!(ask(query).status, status, "{query}");
    }
    assert_eq!(ask(&vec!["down=a"; 257].join("&")).status, 400);
    let heavy: Vec<_> = (0..150)
        .map(|number| format!("add=p{number}=256"))
        .collect();
    assert_eq!(ask(&heavy.join("&")).status, 422);
    assert_eq!(edge.admin.get("/v1/upstreams/none/diff?down=a").status, 404);
}

#[test]
fn admin_diff_starts_with_the_peers_down_now() {
    let peers =
        ["a", "b", "c"].map(|label| format!("{{address: \"127.0.0.1:1\", label: {label}}}"));
    let edge = ConfigBuilder::of(peers).start();
    edge.admin.post("/v1/upstreams/app/peers/b/drain");
    let ask = |query: &str| {
        edge.admin
            .get(&format!("/v1/upstreams/app/diff?{query}"))
            .json()
    };
    let removal = ask("without=b");
    assert_eq!(removal["moved"]["hashes"], 0, "{removal}");
    assert_eq!(removal["down_now"], serde_json::json!(["b"]));
    let back = ask("up=b");
    assert!(back["moved"]["share"].as_f64().unwrap() > 0.1, "{back}");
}

/// The log of another proxy, as far as it has the keys.
#[test]
fn ring_replay_reads_the_keys_format() {
    let dir = CommandDir::new();
    let (keys, mut text) = (keys(1000), String::new());
    for (number, key) in keys.iter().enumerate() {
        writeln!(text, "{}.5\t{key}\t0.25\t10", 1_700_000_000 + number).unwrap();
    }
    dir.write("keys.log", &(text + "1700000999.5\t\t0.25\nno\n"));
    let report = json(&dir.replay("--format keys --log keys.log --without b --json"));
    assert_eq!(
        (
            &report["requests"],
            &report["malformed"],
            &report["as_logged"]
        ),
        (&1001.into(), &1.into(), &Value::Null)
    );
    let counted = json(&dir.diff("--without b --keys - --json", &keys.join("\n")));
    let moved = counted["counted"]["moved"].as_u64().unwrap();
    // The one without a key may have another turn.
    let replayed = report["moved"].as_u64().unwrap();
    assert!(replayed == moved || replayed == moved + 1, "{report}");
    let shown = dir.replay("--format keys --log keys.log");
    assert!(!shown.contains("as in the log"), "{shown}");
}

#[test]
fn ring_replay_spreads_hot_keys_and_starts_new_peers_slowly() {
    let dir = CommandDir::new();
    let site = site(["a", "b", "c"]).app("hot_keys", "{share: 10%}");
    dir.write("clockwise.yaml", &site.app("slow_start", "30s").yaml());
    let lines = (0..4000).map(|number| format!("{}.{:03}\tk\n", number / 1000, number % 1000));
    dir.write("keys.log", &lines.collect::<String>());
    let report = json(&dir.replay("--format keys --log keys.log --add d --json"));
    let starting = "slow start from the first request on: d";
    let notes = report["notes"].as_array().unwrap();
    assert!(notes.contains(&starting.into()), "{report}");
    for when in ["now", "after"] {
        assert_eq!(report[when]["spread"], 3000, "{report}");
    }
    let shown = dir.replay("--format keys --log keys.log --add d");
    for part in [starting, "3000 requests of hot keys were spread"] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
}

#[test]
fn ring_replay_without_hash_ownership_reports_substitute_keys() {
    let dir = CommandDir::new();
    let caddy = site(["a", "b", "c"]).app("ring", "caddy");
    dir.write("clockwise.yaml", &caddy.yaml());
    dir.write("access.log", &log(&dir));
    let report = json(&dir.replay("--log access.log --down b --json"));
    assert_eq!(
        (&report["stand_ins"], &report["as_logged"]),
        (&json("true"), &Value::Null)
    );
    for when in ["now", "after"] {
        let peers = report[when]["peers"].as_array().unwrap();
        let requests: u64 = peers
            .iter()
            .map(|peer| peer["requests"].as_u64().unwrap())
            .sum();
        assert_eq!(requests, 10_000, "{report}");
    }
    assert_eq!(report["moved"], report["now"]["peers"][1]["requests"]);
    let shown = dir.replay("--log access.log");
    assert!(shown.contains("only their hashes"), "{shown}");
    // The keys themselves are reported exactly.
    let report = json(&dir.diff("--down b --keys - --json", "k1\nk2\nk3\n"));
    assert_eq!(report["counted"]["keys"], 3, "{report}");
}
