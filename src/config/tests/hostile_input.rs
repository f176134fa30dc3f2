//! Hostile and damaged files: a report in bounded time, with the place of every problem.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use proptest::prelude::*;

use crate::config::{Diagnostic, Report, check_text, load, parse};

const MINIMAL: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/conf/minimal.yaml"));
const REFERENCE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/conf/clockwise.yaml"));

/// CPU time, generous for a build without optimizations; a hang takes minutes.
const SOON: Duration = Duration::from_secs(20);

fn problems(text: &str) -> Vec<Diagnostic> {
    soon(|| {
        let (config, report) = check_text("test.yaml", text);
        assert_eq!(config.is_none(), report.has_errors());
        assert!(report.to_string().len() < 1 << 20, "the report is too long");
        report.diagnostics()
    })
}

fn soon<T>(run: impl FnOnce() -> T) -> T {
    let start = cpu_time();
    let result = run();
    let taken = cpu_time().saturating_sub(start);
    assert!(taken < SOON, "took {taken:?}");
    result
}

/// The CPU time of this thread: other tests, and other programs, do not count.
fn cpu_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(now).unwrap()
}

fn only(problems: &[Diagnostic]) -> (Option<usize>, Option<usize>, &str) {
    assert_eq!(problems.len(), 1, "{problems:?}");
    (problems[0].line, problems[0].column, &problems[0].message)
}

fn refused(path: &Path) -> String {
    let report: Report = soon(|| load(path)).unwrap_err();
    only(&report.diagnostics()).2.to_owned()
}

#[test]
fn config_file_of_100_mb_is_refused_unread() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("big.yaml");
    File::create(&path).unwrap().set_len(100_000_000).unwrap();
    assert_eq!(refused(&path), "the file is bigger than 16 MiB");
}

#[test]
fn config_file_must_be_a_regular_file() {
    assert_eq!(
        refused(Path::new("/dev/zero")),
        "this is not a regular file"
    );
    assert_eq!(
        refused(Path::new("/dev/stdin")),
        "this is not a regular file"
    );
    assert_eq!(refused(Path::new("/")), "this is a directory");
    assert!(refused(Path::new("/no/such/file")).starts_with("the file cannot be read: No such"));
}

#[test]
fn config_file_that_is_a_fifo_is_refused_without_blocking() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe.yaml");
    let made = Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    assert_eq!(refused(&path), "this is not a regular file");
}

#[test]
fn config_file_with_size_zero_is_read_with_a_limit() {
    // Files in `/proc` are regular and have size zero.
    let report = soon(|| load(Path::new("/proc/self/status"))).unwrap_err();
    assert!(report.has_errors());
}

#[test]
fn config_with_invalid_utf8_reports_the_first_bad_byte() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("latin.yaml");
    fs::write(&path, b"threads: 4\nlisteners: # f\xfcr alle\n").unwrap();
    let report = load(&path).unwrap_err();
    assert_eq!(
        only(&report.diagnostics()),
        (Some(2), Some(15), "this byte is not UTF-8")
    );
    assert!(report.to_string().contains("listeners: # f"));
}

#[test]
fn config_with_bom_and_crlf_is_parsed_alike() {
    let plain = parse("test.yaml", MINIMAL).unwrap();
    let windows = format!("\u{feff}{}", MINIMAL.replace('\n', "\r\n"));
    assert_eq!(parse("test.yaml", &windows).unwrap(), plain);
}

#[test]
fn config_with_bom_and_crlf_reports_correct_positions() {
    let text = "\u{feff}treads: x\r\n".to_owned() + &MINIMAL.replace('\n', "\r\n") + "pool: x\r\n";
    let found = problems(&text);
    let places: Vec<_> = found
        .iter()
        .map(|problem| (problem.line, problem.column))
        .collect();
    assert_eq!(
        places,
        [(Some(1), Some(1)), (Some(1), Some(9)), (Some(12), Some(1))]
    );
}

#[test]
fn config_with_deep_nesting_is_an_error() {
    for (open, message) in [
        ("[", "levels"),
        ("{a: ", "levels"),
        ("- ", "levels"),
        ("? ", "levels"),
    ] {
        let found = problems(&open.repeat(100_000));
        assert!(only(&found).2.contains(message), "{open}: {found:?}");
        assert!(found[0].line.is_some());
    }
    let mut staircase = String::new();
    for level in 0..1000 {
        writeln!(staircase, "{}a:", " ".repeat(level)).unwrap();
    }
    assert_eq!(
        only(&problems(&staircase)).2,
        "more than 64 levels of nesting"
    );
}

#[test]
fn config_with_deep_nesting_through_aliases_is_an_error() {
    let nest = |inner: &str| format!("{}{inner}{}", "[".repeat(40), "]".repeat(40));
    let text = format!("a: &a {}\nb: &b {}\n", nest("x"), nest("*a"));
    assert_eq!(only(&problems(&text)).2, "more than 64 levels of nesting");
}

#[test]
fn config_alias_bomb_is_an_error() {
    let mut text = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
    for level in 1..20 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        writeln!(text, "a{level}: &a{level} [{aliases}]").unwrap();
    }
    let found = problems(&text);
    assert_eq!(
        only(&found).2,
        "more than 1000000 values, repeated aliases included"
    );
    assert_eq!(found[0].line, Some(6));
}

#[test]
fn config_of_maximum_size_is_parsed_in_bounded_time() {
    let pieces = [
        "[",
        "{",
        "]",
        "a",
        "a: ",
        "- ",
        "- a\n",
        "a: 1\n",
        "\"",
        "'",
        "|\n",
        "# c\n",
        "&a ",
        "*a ",
        "!t ",
        "%d\n",
        "---\n",
        "\n",
        "\t",
        " ",
        "? a\n",
        ": ",
        "[a, ",
        "a,",
        "\u{1f600}",
        "\\",
        "[]\n",
        "- {}\n",
    ];
    for piece in pieces {
        let found = problems(&piece.repeat((16 << 20) / piece.len()));
        assert!(!found.is_empty(), "{piece:?}");
    }
}

#[test]
fn config_problems_are_limited_to_100() {
    let unknown: String = (0..100_000).fold(String::new(), |mut text, i| {
        writeln!(text, "key{i}: 1").unwrap();
        text
    });
    assert_eq!(problems(&unknown).len(), 100);
    let routes = "- {path: x, upstream: none}\n".repeat(100_000);
    assert_eq!(
        problems(&format!("{MINIMAL}\nx: 1\nroutes:\n{routes}")).len(),
        2
    );
    let text = MINIMAL.replace("  - upstream: app\n", &routes);
    assert_eq!(problems(&text).len(), 100);
}

#[test]
fn config_with_ten_thousand_peers_and_routes_is_parsed() {
    let (mut routes, mut peers) = (String::new(), String::new());
    for i in 0..10_000 {
        writeln!(routes, "  - {{path: /{i}, upstream: app}}").unwrap();
        writeln!(
            peers,
            "      - {{address: 10.0.{}.{}:80, label: p{i}, weight: 2}}",
            i / 256,
            i % 256
        )
        .unwrap();
    }
    let text = format!(
        "listeners: [{{address: 0.0.0.0:80}}]\nroutes:\n{routes}upstreams:\n  app:\n    peers:\n{peers}"
    );
    let config = soon(|| parse("test.yaml", &text)).unwrap();
    assert_eq!(config.routes.len(), 10_000);
    assert_eq!(config.upstreams["app"].peers.len(), 10_000);
}

#[test]
fn config_debug_output_hides_the_token() {
    let text = format!("{MINIMAL}\nadmin: {{address: 0.0.0.0:9900, token: hunter2}}\n");
    let config = parse("test.yaml", &text).unwrap();
    assert_eq!(
        config.admin.as_ref().unwrap().token.as_deref(),
        Some("hunter2")
    );
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn config_problems_serialize_to_json() {
    let text = MINIMAL.replace("127.0.0.1:9002", "127.0.0.1");
    let json = serde_json::to_value(problems(&text)).unwrap();
    let expected = serde_json::json!([{
        "severity": "error", "file": "test.yaml", "line": 10, "column": 9,
        "message": "`127.0.0.1` is not the address of a peer",
        "help": "add the port, as in `127.0.0.1:80`",
    }]);
    assert_eq!(json, expected);
}

#[test]
fn config_report_is_coloured_only_on_request() {
    let (_, report) = check_text("test.yaml", "threads: 0\n");
    assert!(!report.render(false).contains('\u{1b}'));
    assert!(report.render(true).contains('\u{1b}'));
}

/// The reference configuration with parts replaced or removed.
fn mutated() -> impl Strategy<Value = String> {
    let splice = (
        any::<prop::sample::Index>(),
        0..40_usize,
        prop_oneof![Just(String::new()), "[ -~\n\t]{1,12}"],
    );
    prop::collection::vec(splice, 1..6).prop_map(|splices| {
        let mut text: Vec<char> = REFERENCE.chars().collect();
        for (at, length, new) in splices {
            let start = at.index(text.len());
            let end = (start + length).min(text.len());
            text.splice(start..end, new.chars());
        }
        text.into_iter().collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn config_of_random_text_does_not_panic(text in any::<String>()) {
        problems(&text);
    }

    #[test]
    fn config_of_random_yaml_does_not_panic(text in "([a-z_]{1,6}: |- |\\[|\\]|\\{|\\}|, |&a |\\*a|\"|'|#|\n|  |[0-9]{1,3}|off|é){0,60}") {
        problems(&text);
    }

    #[test]
    fn config_of_a_mutated_reference_does_not_panic(text in mutated()) {
        let lines = text.lines().count().max(1);
        for problem in problems(&text) {
            prop_assert!(problem.line.is_none_or(|line| (1..=lines + 1).contains(&line)), "{problem:?}");
        }
    }
}
