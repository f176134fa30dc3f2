//! The commands: output and exit codes.

use std::collections::HashSet;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::support::client::{self, Request};
use crate::support::command_dir::CommandDir;
use crate::support::edge::{ConfigBuilder, binary, run};
use crate::support::load::keys;
use crate::support::port;
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
    let status = Command::new("sh")
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

/// The lines of the README with the ports of a demo, and those that the demo prints: each as a user pastes them.
#[test]
fn demo_commands_pasted_as_one_block_move_the_keys_of_one_origin_and_back() {
    let directory = tempfile::tempdir().unwrap();
    let mut demo = Process::spawn(binary(directory.path()).arg("demo"));
    let printed = wait::value("the instructions of the demo", || {
        assert!(demo.exited().is_none(), "the demo ended: {}", demo.stdout());
        Some(demo.stdout()).filter(|text| text.contains("Ctrl-C"))
    });
    let urls = curl_urls(&printed);
    let address = |target: &str| {
        let url = urls.iter().find(|url| url.contains(target));
        let host = url.and_then(|url| url.split('/').next());
        host.unwrap_or_else(|| panic!("no {target} in: {printed}"))
    };
    wait::until("the demo to answer", || {
        let proxy = address("?user=").parse().unwrap();
        client::try_send(proxy, &Request::get("/")).is_ok_and(|answer| answer.status == 200)
    });
    let readme = include_str!("../../README.md")
        .replace("127.0.0.1:8080", address("?user="))
        .replace("127.0.0.1:9000", address("/keys"));
    for block in [&printed, &printed, &readme] {
        let reports: Vec<String> = curl_urls(block)
            .iter()
            .map(|url| {
                let (host, target) = url.split_once('/').unwrap();
                let request = Request::get(&format!("/{target}")).header("Host", host);
                client::send(host.parse().unwrap(), &request).text()
            })
            .filter(|answer| answer.contains(" keys on origin "))
            .collect();
        assert_moved_and_back(&reports);
    }
    demo.signal("TERM");
    assert!(demo.wait().success());
}

/// The URLs of the lines that begin with `curl`, without `http://`.
fn curl_urls(text: &str) -> Vec<String> {
    let lines = text.lines().map(str::trim_start);
    let urls = lines.filter_map(|line| line.strip_prefix("curl ")?.split_whitespace().next());
    let urls = urls.map(|url| {
        url.trim_matches('\'')
            .trim_start_matches("http://")
            .to_owned()
    });
    urls.collect()
}

/// What `/keys` said with all origins, without b, and with b again.
#[track_caller]
fn assert_moved_and_back(reports: &[String]) {
    let number = |report: &str, suffix: &str| -> Option<u64> {
        let line = report.lines().find(|line| line.ends_with(suffix))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let owners = |report: &str| {
        ["a", "b", "c"].map(|name| number(report, &format!(" keys on origin {name}")))
    };
    let moved = |report: &str| number(report, " keys moved since the last call");
    let [all, without, again] = reports else {
        panic!("three reports expected: {reports:#?}");
    };
    let [_, of_b, _] = owners(all);
    assert!(of_b.is_some_and(|keys| keys > 0), "{all}");
    assert_eq!(
        (owners(without)[1], moved(without)),
        (None, of_b),
        "{without}"
    );
    assert_eq!(
        (owners(again), moved(again)),
        (owners(all), of_b),
        "{again}"
    );
}

#[test]
fn help_lists_every_command() {
    let dir = CommandDir::new();
    let help = dir.print("--help", "");
    let commands: HashSet<&str> = help.split_whitespace().collect();
    for command in ["run", "check", "demo", "status", "drain", "enable", "ring"] {
        assert!(commands.contains(command), "{command} in {help}");
    }
    for (command, option) in [
        ("drain", "--force"),
        ("reload", "--dry-run"),
        ("upgrade", "--force"),
    ] {
        let help = dir.print(&format!("{command} --help"), "");
        assert!(help.contains(option), "{option} in {help}");
    }
    dir.fail("enable app a --force", 2);
}

#[test]
fn version_names_compiler_and_tls_library() {
    let version = CommandDir::new().print("--version", "");
    let begin = format!("clockwise {} (", env!("CARGO_PKG_VERSION"));
    for part in [&*begin, "rustc 1.", "rustls 0.", "ring 0."] {
        assert!(version.contains(part), "{part} in {version}");
    }
}

/// What `build.rs` says of the commit, with this profile and these variables: the build script itself, in a repository.
fn built_version(repository: &Path, profile: &str, commit: &str) -> String {
    let mut script = Command::new(repository.join("build-script"));
    script
        .current_dir(repository)
        .env("CARGO_MANIFEST_DIR", repository)
        .env("PROFILE", profile)
        .env("CLOCKWISE_COMMIT", commit)
        .env("RUSTC", "rustc");
    let output = script.output().expect("the build script");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines = text.lines();
    let version = lines.find_map(|line| line.strip_prefix("cargo::rustc-env=CLOCKWISE_BUILD="));
    version.expect("the variable").to_owned()
}

/// A debug build does not: each commit would compile everything again.
#[test]
fn release_build_names_its_commit() {
    let directory = tempfile::tempdir().unwrap();
    let repository = directory.path();
    let succeeds = |command: &mut Command| {
        let output = command.current_dir(repository).output().expect("a program");
        assert!(output.status.success(), "{command:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=a", "-c", "user.email=a@a.test"]);
        succeeds(git.args(["-c", "commit.gpgsign=false"]).args(arguments))
    };
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("build.rs");
    let mut compile = Command::new("rustc");
    succeeds(
        compile
            .args(["--edition", "2024", "-o", "build-script"])
            .arg(source),
    );
    let is_named = |profile: &str, commit: &str, expected: &str| {
        let version = built_version(repository, profile, commit);
        let named = version.strip_prefix("commit ");
        let named = named.map_or("", |rest| rest.split_once(", ").unwrap().0);
        assert_eq!(named, expected, "{profile}, {commit:?}: {version}");
        assert!(version.contains("rustc 1."), "{version}");
    };
    is_named("release", "", ""); // a source archive
    is_named("release", "1234abcd", "1234abcd");
    git(&["init", "--quiet"]);
    fs::write(repository.join("file"), "one").unwrap();
    git(&["add", "file"]);
    git(&["commit", "--quiet", "--message", "one"]);
    let commit = git(&["rev-parse", "--short=12", "HEAD"]);
    is_named("release", "", &commit);
    is_named("release", "1234abcd", "1234abcd");
    is_named("debug", "", "");
    is_named("debug", "1234abcd", "1234abcd");
    fs::write(repository.join("file"), "two").unwrap();
    is_named("release", "", &format!("{commit}-dirty"));
}

/// The warnings of `check`, as lines and messages.
fn host_warnings(directory: &Path, file: &str) -> Vec<(u64, String)> {
    let output = run(directory, &["check", "-c", file, "--json"], "");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let warnings = text.lines().map(|line| {
        let problem: Value = serde_json::from_str(line).unwrap();
        assert_eq!(problem["severity"], "warning", "{problem}");
        assert!(!problem["help"].as_str().unwrap().is_empty(), "{problem}");
        let message = problem["message"].as_str().unwrap().to_owned();
        (problem["line"].as_u64().unwrap(), message)
    });
    warnings.collect()
}

/// One value of each kind that is valid, but not on this machine; each would keep `run` from its start but the state file and the name.
#[test]
fn check_warns_of_what_run_would_refuse_on_this_machine() {
    let dir = CommandDir::new();
    let held = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [taken, admin] = [0, 1].map(|index: usize| held[index].local_addr().unwrap());
    dir.write("file", "");
    let yaml = format!(
        "listeners:\n- {{address: \"{taken}\"}}\n- address: \"192.0.2.77:80\"\n- address: unix:file\n\
         - address: \"127.0.0.1:0\"\n\
         routes: [{{upstream: app}}]\nupstreams:\n  app:\n    peers:\n    - 127.0.0.1:1\n    - label: b\n      address: no-such.invalid:80\n\
         admin:\n  address: \"{admin}\"\n\
         access_log: {{path: missing/access.log}}\ncontrol: file\nstate_file: missing/state.json\n"
    );
    dir.write("bad.yaml", &yaml);
    let warnings = host_warnings(dir.path(), "bad.yaml");
    let expected = [
        (
            2,
            format!("cannot listen on `{taken}`: Address already in use"),
        ),
        (
            3,
            "cannot listen on `192.0.2.77:80`: Cannot assign".to_owned(),
        ),
        (
            4,
            "cannot listen on `unix:file`: the file exists and is not a socket".to_owned(),
        ),
        (12, "peer `no-such.invalid:80`: ".to_owned()),
        (
            14,
            format!("cannot listen on `{admin}`: Address already in use"),
        ),
        (
            15,
            "cannot open the access log `missing/access.log`: No such file".to_owned(),
        ),
        (
            16,
            "cannot bind the control socket `file`: the file exists".to_owned(),
        ),
        (
            17,
            "cannot write the state file `missing/state.json`: No such file".to_owned(),
        ),
    ];
    assert_eq!(warnings.len(), expected.len(), "{warnings:?}");
    for ((line, message), (expected_line, begin)) in warnings.iter().zip(&expected) {
        let is_expected = line == expected_line && message.starts_with(begin);
        assert!(is_expected, "{line}: {message}");
    }
    assert_eq!(
        dir.print("check -c bad.yaml --offline", ""),
        "bad.yaml: ok\n"
    );
    dir.fail("run -c bad.yaml", 1);
    drop(held);
}

/// An upgrade checks with a program of any version, which need not know `--offline`.
#[test]
fn check_of_an_upgrade_does_not_look_at_the_machine() {
    let dir = CommandDir::new();
    let yaml = "routes: [{upstream: app}]\nupstreams: {app: {peers: [\"127.0.0.1:1\"]}}\n\
                listeners: [{address: \"192.0.2.77:80\"}]\ncontrol: c.sock\nadmin: off\n";
    dir.write("bad.yaml", yaml);
    assert_eq!(host_warnings(dir.path(), "bad.yaml").len(), 1);
    let mut check = binary(dir.path());
    let check = check.env("CLOCKWISE_UPGRADE_CHECK", "1");
    let output = check.args(["check", "-c", "bad.yaml"]).output().unwrap();
    assert_eq!(output.stdout, b"bad.yaml: ok\n");
}

#[test]
fn check_does_not_warn_of_what_the_running_instance_has() {
    let ports = [port::free(), port::free()];
    let edge = ConfigBuilder::of(["127.0.0.1:1"])
        .top("listeners", &format!("[{{address: \"{}\"}}]", ports[0]))
        .top("admin", &format!("{{address: \"{}\"}}", ports[1]))
        .start();
    assert_eq!(host_warnings(edge.directory(), "clockwise.yaml"), []);
    // Of another instance they would be in use.
    let yaml = fs::read_to_string(edge.directory().join("clockwise.yaml")).unwrap();
    let other = yaml.replace("control:", "control: other.sock #");
    fs::write(edge.directory().join("other.yaml"), other).unwrap();
    let warnings = host_warnings(edge.directory(), "other.yaml");
    let in_use = |(_, message): &(u64, String)| message.contains("already in use");
    assert!(
        warnings.len() == 2 && warnings.iter().all(in_use),
        "{warnings:?}"
    );
    assert!(!edge.directory().join("other.sock").exists());
}

/// On a terminal, which `script` (bsdutils) makes.
#[test]
fn messages_are_coloured_only_if_the_user_and_the_terminal_want_it() {
    let dir = CommandDir::with("listeners: []\n");
    for (variables, coloured) in [
        (&[("TERM", "xterm")][..], true),
        (&[("TERM", "xterm"), ("NO_COLOR", "")], true),
        (&[("TERM", "xterm"), ("NO_COLOR", "1")], false),
        (&[("TERM", "dumb")], false),
        (&[], false),
    ] {
        for arguments in ["check", "run", "ring show -u app"] {
            let program = binary(dir.path()).get_program().display().to_string();
            let command = format!("{program} {arguments} -c clockwise.yaml");
            let output = Command::new("script")
                .args(["-qec", &command, "/dev/null"])
                .current_dir(dir.path())
                .env_remove("NO_COLOR")
                .env_remove("TERM")
                .envs(variables.iter().copied())
                .output()
                .expect("script runs");
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(text.contains("error"), "{arguments}: {text}");
            assert_eq!(text.contains('\u{1b}'), coloured, "{variables:?}: {text}");
        }
    }
}
