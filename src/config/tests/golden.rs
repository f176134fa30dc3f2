//! `tests/golden/*.txt`: YAML, a line of dashes, and what is said about it.
//!
//! `BLESS=1 cargo test golden` rewrites the answers; read the diff before you commit it. A case named
//! `resolved-…` shows the whole configuration, any other `ok` and the warnings. The
//! files for TLS are looked at in the cases named `tls-file-…`, as on the first day of 2027.

use std::fmt::Write as _;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::{env, fs};

use crate::config::check_with;
use crate::config::credential_loader::CredentialLoader;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
const TODAY: &str = "2027-01-01T00:00:00Z";
const LINE: &str = "\n----------------------------------------\n";

#[test]
fn config_golden_cases() {
    let bless = env::var_os("BLESS").is_some();
    guard_keys();
    let (mut broken, mut failures) = (0, String::new());
    for path in cases() {
        let text = fs::read_to_string(&path).unwrap();
        let (yaml, expected) = text.split_once(LINE).unwrap_or((text.trim_end(), ""));
        let actual = answer(&path, yaml);
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

/// Version control does not keep who may read a file.
fn guard_keys() {
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

fn answer(path: &Path, yaml: &str) -> String {
    let name = path.file_name().unwrap().to_string_lossy();
    let files = if name.starts_with("tls-file-") {
        CredentialLoader::load_at(TODAY.parse().unwrap())
    } else {
        CredentialLoader::disabled()
    };
    let (config, report) = check_with("test.yaml", &format!("{yaml}\n"), files);
    let mut answer = match config {
        Some(config) if name.starts_with("resolved-") => format!("{config:#?}\n"),
        Some(_) => "ok\n".to_owned(),
        None => String::new(),
    };
    if !report.is_empty() {
        writeln!(answer, "{report}").unwrap();
    }
    answer
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
