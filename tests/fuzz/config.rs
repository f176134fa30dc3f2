//! Configuration files: no text makes the reader fail in another way than with a report; every problem has its place; what
//! loads is the same when it is read again.

use std::fs;
use std::path::{Path, PathBuf};

use clockwise::measured::load;
use tempfile::TempDir;

/// Pieces of YAML that are easy to get wrong.
pub(crate) const PIECES: &[&[u8]] = &[
    b"\n",
    b"\n  ",
    b"\n    ",
    b"\n- ",
    b": ",
    b":",
    b", ",
    b"{",
    b"}",
    b"[",
    b"]",
    b"{}",
    b"[]",
    b"&a ",
    b"*a",
    b"<<: *a",
    b"!!str ",
    b"!!binary ",
    b"|\n  ",
    b">-\n  ",
    b"'",
    b"\"",
    b"\\",
    b"\t",
    b"#",
    b"---\n",
    b"...\n",
    b"? ",
    b"%YAML 1.1\n",
    b"\0",
    b"\xff",
    "é\u{2028}".as_bytes(),
    "\u{feff}".as_bytes(),
    b"0",
    b"-1",
    b"0x10",
    b"1e9",
    b".inf",
    b"99999999999999999999",
    b"off",
    b"on",
    b"true",
    b"~",
    b"null",
    b"1s",
    b"1KiB",
    b"10%",
    b"[::]:80",
    b"127.0.0.1:0",
    b"unix:/a",
    b"${HOME}",
    b"admin: ",
    b"listeners: ",
    b"routes: ",
    b"upstreams: ",
    b"downstream: ",
    b"peers: ",
    b"key: ",
    b"ring: ",
    b"health: ",
    b"timeouts: ",
    b"tls: ",
    b"cookie: ",
    b"header: ",
    b"weight: ",
    b"address: ",
    b"upstream: ",
    b"bounded_load: ",
];

/// The documented configuration and the examples.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let conf = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
    let files =
        [&conf, &conf.join("examples")].map(|folder| fs::read_dir(folder).expect("a folder"));
    let paths = files
        .into_iter()
        .flatten()
        .flatten()
        .map(|file| file.path());
    let yaml = paths.filter(|path| path.extension().is_some_and(|kind| kind == "yaml"));
    yaml.map(|path| fs::read(path).expect("readable")).collect()
}

/// Loads inputs from a file of its own.
pub(crate) struct Loader {
    directory: TempDir,
}

/// What became of an input, without what differs in most inputs.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) enum Outcome {
    Loaded,
    /// The problems, without the values that they quote.
    Refused(Vec<String>),
}

impl Loader {
    pub(crate) fn new() -> Self {
        Self {
            directory: tempfile::tempdir().expect("a temporary directory"),
        }
    }

    /// Checks an input.
    pub(crate) fn check(&self, input: &[u8]) -> Outcome {
        let file = self.write(input);
        let again = load(&file);
        match load(&file) {
            Ok(config) => {
                assert_eq!(
                    again.ok().as_ref(),
                    Some(&config),
                    "{}",
                    input.escape_ascii()
                );
                Outcome::Loaded
            }
            Err(report) => {
                let same = again.err().map(|again| again.to_string());
                assert_eq!(same, Some(report.to_string()), "{}", input.escape_ascii());
                let lines = input.split(|&byte| byte == b'\n').count();
                let problems = report.diagnostics();
                assert!(!problems.is_empty(), "{}", input.escape_ascii());
                let shape = problems.iter().map(|problem| {
                    let has_place = match (problem.line, problem.column) {
                        // The file is missing, too large, empty or not text; or a key of the top level is missing.
                        (None, None) => {
                            problems.len() == 1
                                || problem.message.starts_with("the configuration needs")
                        }
                        (Some(line), Some(column)) => (1..=lines + 1).contains(&line) && column > 0,
                        _ => false,
                    };
                    assert!(has_place, "{problem:?}: {}", input.escape_ascii());
                    problem
                        .message
                        .split('`')
                        .next()
                        .unwrap_or_default()
                        .to_owned()
                });
                let mut shape: Vec<String> = shape.collect();
                shape.sort();
                shape.dedup();
                shape.truncate(3);
                Outcome::Refused(shape)
            }
        }
    }

    fn write(&self, text: &[u8]) -> PathBuf {
        let file = self.directory.path().join("clockwise.yaml");
        fs::write(&file, text).expect("writable");
        file
    }
}
