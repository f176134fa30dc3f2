//! `tests/golden/*.txt`: YAML, a line of dashes, and the result of `check`.
//!
//! `BLESS=1 cargo test golden` rewrites the results; read the diff before you commit it. The case
//! `resolved-defaults` shows the whole configuration, any other `resolved-…` the fields that differ from
//! that one, all other cases `ok` and the warnings. TLS files are read in the cases `tls-file-…` only,
//! with 2027-01-01 as the time.

use std::fmt::Write as _;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::{env, fs};

use super::config_dump::{all_fields, changed_fields};
use crate::config::credential_loader::CredentialLoader;
use crate::config::{Config, PeerListError, check_with, parse, parse_peer_list};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
const DEFAULTS: &str = "resolved-defaults";
const TODAY: &str = "2027-01-01T00:00:00Z";
const LINE: &str = "\n----------------------------------------\n";

#[test]
fn config_golden_cases() {
    let bless = env::var_os("BLESS").is_some();
    restrict_key_files();
    let defaults = defaults();
    let (mut broken, mut failures) = (0, String::new());
    for path in cases() {
        let text = fs::read_to_string(&path).unwrap();
        let (yaml, expected) = text.split_once(LINE).unwrap_or((text.trim_end(), ""));
        let actual = result(&path, yaml, &defaults);
        broken += usize::from(actual.contains("error: "));
        if bless {
            fs::write(&path, format!("{yaml}{LINE}{actual}")).unwrap();
        } else if actual != expected {
            let name = path.display();
            write!(failures, "\n{name}\n{}", difference(expected, &actual)).unwrap();
        }
    }
    assert!(failures.is_empty(), "golden cases differ:\n{failures}");
    assert!(broken >= 70, "only {broken} broken cases");
}

/// Sets the modes of the key files, which version control does not keep.
fn restrict_key_files() {
    for entry in fs::read_dir(Path::new(FOLDER).join("tls")).unwrap() {
        let path = entry.unwrap().path();
        let mode = if path.ends_with("world.key") {
            0o644
        } else {
            0o600
        };
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    }
}

fn cases() -> Vec<PathBuf> {
    let entries = fs::read_dir(FOLDER)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut cases: Vec<_> = entries
        .filter(|path| path.extension().is_some_and(|ext| ext == "txt"))
        .collect();
    cases.sort();
    cases
}

/// The configuration with all defaults.
fn defaults() -> Config {
    let path = Path::new(FOLDER).join(DEFAULTS).with_extension("txt");
    let text = fs::read_to_string(path).unwrap();
    parse("test.yaml", text.split(LINE).next().unwrap()).unwrap()
}

fn result(path: &Path, yaml: &str, defaults: &Config) -> String {
    let name = path.file_stem().unwrap().to_string_lossy();
    if name.starts_with("peer-list-") {
        return peer_list_result(yaml, defaults);
    }
    let files = if name.starts_with("tls-file-") {
        CredentialLoader::load_at(TODAY.parse().unwrap())
    } else {
        CredentialLoader::disabled()
    };
    let (config, report) = check_with("test.yaml", &format!("{yaml}\n"), files);
    let mut result = match config {
        Some(config) if name == DEFAULTS => all_fields(&config),
        Some(config) if name.starts_with("resolved-") => changed_fields(&config, defaults),
        Some(_) => "ok\n".to_owned(),
        None => String::new(),
    };
    if !report.is_empty() {
        writeln!(result, "{report}").unwrap();
    }
    result
}

/// The peers of a list, a line each, or its problems.
fn peer_list_result(yaml: &str, defaults: &Config) -> String {
    let rules = defaults.upstreams["app"].peer_list_rules();
    match parse_peer_list(Path::new("peers.yaml"), &format!("{yaml}\n"), &rules) {
        Ok(peers) => peers.iter().fold(String::new(), |mut lines, peer| {
            writeln!(lines, "{peer:?}").unwrap();
            lines
        }),
        Err(PeerListError::Invalid(report)) => format!("{report}\n"),
        Err(error) => format!("{error}\n"),
    }
}

fn difference(expected: &str, actual: &str) -> String {
    let mut shown = String::new();
    for line in expected
        .lines()
        .filter(|line| !actual.lines().any(|other| other == *line))
    {
        writeln!(shown, "- {line}").unwrap();
    }
    for line in actual
        .lines()
        .filter(|line| !expected.lines().any(|other| other == *line))
    {
        writeln!(shown, "+ {line}").unwrap();
    }
    shown
}
