//! The commands: output and exit codes.

use std::collections::HashSet;
use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::support::client::{self, Request};
use crate::support::command_dir::CommandDir;
use crate::support::edge::{ConfigBuilder, binary};
use crate::support::load::keys;
use crate::support::process::Process;
use crate::support::wait::{self, timed};

#[test]
fn check_of_a_valid_configuration_succeeds() {
    CommandDir::new().print("check -c clockwise.yaml", "");
}

#[test]
fn check_reports_every_problem_with_its_position() {
    let yaml = "listeners: [{address: \"127.0.0.1:0\"}]\nroutes: [{upstream: nowhere}]\nupstreams:\n  app: {peers: [x], wieght: 1}\n";
    let errors = CommandDir::with(yaml).fail("check -c clockwise.yaml", 1);
    for part in [
        "clockwise.yaml:2:",
        "clockwise.yaml:4:",
        "nowhere",
        "wieght",
    ] {
        assert!(errors.contains(part), "{part} in {errors}");
    }
}

#[test]
fn run_refuses_an_invalid_configuration() {
    let errors = CommandDir::with("listeners: []\n").fail("run -c clockwise.yaml", 1);
    assert!(errors.contains("clockwise.yaml"), "{errors}");
    CommandDir::new().fail("run -c missing.yaml", 1);
    CommandDir::new().fail("check -c missing.yaml", 1);
}

#[test]
fn command_line_error_exits_with_2() {
    let dir = CommandDir::new();
    for arguments in [
        "frobnicate",
        "ring",
        "ring owner -c clockwise.yaml a",
        "run --nonsense",
        "drain app",
    ] {
        dir.fail(arguments, 2);
    }
}

#[test]
fn control_command_without_an_instance_exits_with_4() {
    let dir = CommandDir::new();
    for command in ["status", "drain app a", "enable app a"] {
        let errors = dir.fail(&format!("{command} --control nobody.sock"), 4);
        assert!(errors.contains("nobody.sock"), "{errors}");
    }
}

#[test]
fn ring_owner_prints_one_line_per_key() {
    let dir = CommandDir::new();
    let text = dir.print("ring owner -c clockwise.yaml -u app kim lee", "");
    let lines: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split('\t').collect())
        .collect();
    assert_eq!([lines[0][0], lines[1][0]], ["kim", "lee"]);
    assert!(
        lines
            .iter()
            .all(|line| line.len() == 2 && ["a", "b", "c"].contains(&line[1])),
        "{text}"
    );
    assert_eq!(
        dir.print("ring owner -c clockwise.yaml -u app -", "kim\nlee\n"),
        text
    );
}

#[test]
fn ring_owner_skips_peers_that_are_down() {
    let dir = CommandDir::new();
    let input = keys(50).join("\n");
    let walks = dir.print("ring owner -c clockwise.yaml -u app --walk 3 -", &input);
    let without = dir.print("ring owner -c clockwise.yaml -u app --down a -", &input);
    for (walk, line) in walks.lines().zip(without.lines()) {
        let heir = walk
            .split('\t')
            .skip(1)
            .find(|label| *label != "a")
            .unwrap();
        assert_eq!(line.split('\t').nth(1), Some(heir));
    }
    let all = "ring owner -c clockwise.yaml -u app --down a --down b --down c kim";
    assert_eq!(dir.print(all, ""), "kim\t(none)\n");
}

#[test]
fn ring_owner_reads_a_million_keys() {
    let dir = CommandDir::new();
    let keys: Vec<String> = (0..1_000_000)
        .map(|number| format!("key-{number}"))
        .collect();
    let input = keys.join("\n");
    let (text, took) = timed(|| dir.print("ring owner -c clockwise.yaml -u app -", &input));
    assert_eq!(text.lines().count(), 1_000_000);
    assert!(text.lines().last().unwrap().starts_with("key-999999\t"));
    assert!(took < Duration::from_secs(60), "{took:?}");
}

#[test]
fn ring_owner_with_a_closed_pipe_exits_silently() {
    let dir = CommandDir::new();
    let program = env!("CARGO_BIN_EXE_clockwise");
    let script = format!(
        "seq 1000000 | {program} ring owner -c clockwise.yaml -u app - 2>errors | head -1 >first"
    );
    let status = std::process::Command::new("sh")
        .arg("-c")
        .arg(script)
        .current_dir(dir.path())
        .status();
    assert!(status.unwrap().success());
    assert_eq!(fs::read_to_string(dir.path().join("errors")).unwrap(), "");
}

#[test]
fn ring_show_prints_points_and_shares() {
    let dir = CommandDir::new();
    let text = dir.print("ring show -c clockwise.yaml -u app", "");
    assert!(
        ["a", "b", "c", "160"]
            .iter()
            .all(|word| text.contains(word)),
        "{text}"
    );
    let json: Value =
        serde_json::from_str(&dir.print("ring show -c clockwise.yaml -u app --json", "")).unwrap();
    let shares: f64 = json["peers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|peer| peer["share"].as_f64().unwrap())
        .sum();
    assert!((shares - 1.0).abs() < 1e-6, "{json}");
}

#[test]
fn ring_show_writes_an_svg() {
    let dir = CommandDir::new();
    dir.print("ring show -c clockwise.yaml -u app --svg ring.svg", "");
    assert!(
        fs::read_to_string(dir.path().join("ring.svg"))
            .unwrap()
            .contains("<svg")
    );
}

#[test]
fn ring_command_with_an_unknown_upstream_is_an_input_error() {
    let dir = CommandDir::new();
    let errors = dir.fail("ring owner -c clockwise.yaml -u ap kim", 1);
    assert!(errors.contains("`ap`"), "{errors}");
    dir.fail("ring owner -c clockwise.yaml -u app --down x kim", 1);
}

#[test]
fn listing_commands_support_json() {
    let dir = CommandDir::new();
    let text = dir.print(
        "ring owner -c clockwise.yaml -u app --walk 2 --json kim",
        "",
    );
    let first: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(first["key"], "kim");
    assert_eq!(first["walk"].as_array().unwrap().len(), 2);
}

#[test]
fn status_command_describes_the_running_instance() {
    let edge = ConfigBuilder::of(["{address: \"127.0.0.1:1\", label: alpha}"]).start();
    let text = edge.cli(&["status"], "");
    assert!(
        text.contains("serving") && text.contains("app: 1 of 1 peers"),
        "{text}"
    );
    let json: Value = serde_json::from_str(&edge.cli(&["status", "--json"], "")).unwrap();
    assert_eq!(json["listeners"][0]["bound"], edge.address.to_string());
}

#[test]
fn demo_starts_and_prints_its_address() {
    let directory = tempfile::tempdir().unwrap();
    let mut demo = Process::spawn(binary(directory.path()).arg("demo"));
    let url = wait::value("the URL of the demo", || {
        assert!(demo.exited().is_none(), "the demo ended: {}", demo.stdout());
        let text = demo.stdout();
        let word = text
            .split_whitespace()
            .find(|word| word.starts_with("http://"))?;
        Some(
            word.trim_start_matches("http://")
                .trim_end_matches('/')
                .to_owned(),
        )
    });
    let address = url.split('/').next().unwrap().parse().unwrap();
    wait::until("the demo to answer", || {
        client::try_send(address, &Request::get("/")).is_ok_and(|answer| answer.status == 200)
    });
    demo.signal("TERM");
    assert!(demo.wait().success());
}

#[test]
fn help_lists_every_command() {
    let dir = CommandDir::new();
    let help = dir.print("--help", "");
    let commands: HashSet<&str> = help.split_whitespace().collect();
    for command in ["run", "check", "demo", "status", "drain", "enable", "ring"] {
        assert!(commands.contains(command), "{command} in {help}");
    }
}

#[test]
fn version_names_compiler_and_tls_library() {
    let version = CommandDir::new().print("--version", "");
    let begin = format!("clockwise {} (", env!("CARGO_PKG_VERSION"));
    for part in [&*begin, "rustc 1.", "rustls 0.", "ring 0."] {
        assert!(version.contains(part), "{part} in {version}");
    }
}
