//! A directory with configurations, for commands that need no network.

use std::fs;
use std::path::Path;
use std::process::Output;

use tempfile::TempDir;

use super::edge::{ConfigBuilder, run};

/// A temporary directory, removed when dropped.
pub(crate) struct CommandDir(TempDir);

impl CommandDir {
    /// A directory with a `clockwise.yaml` for the peers `a`, `b` and `c`.
    pub(crate) fn new() -> Self {
        Self::with(&site(["a", "b", "c"]).yaml())
    }

    /// A directory with this `clockwise.yaml`.
    pub(crate) fn with(yaml: &str) -> Self {
        let directory = Self(tempfile::tempdir().expect("a temporary directory"));
        directory.write("clockwise.yaml", yaml);
        directory
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).expect("writable");
    }

    /// Runs a command. Arguments are separated by spaces and contain none.
    pub(crate) fn run(&self, arguments: &str, input: &str) -> Output {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        run(self.path(), &arguments, input)
    }

    /// Runs a command that must succeed; returns its stdout.
    #[track_caller]
    pub(crate) fn print(&self, arguments: &str, input: &str) -> String {
        let output = self.run(arguments, input);
        assert!(output.status.success(), "{arguments}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// Runs a command that must exit with `code`; returns its stderr.
    #[track_caller]
    pub(crate) fn fail(&self, arguments: &str, code: i32) -> String {
        let output = self.run(arguments, "");
        assert_eq!(output.status.code(), Some(code), "{arguments}: {output:?}");
        String::from_utf8(output.stderr).expect("text")
    }

    #[track_caller]
    pub(crate) fn diff(&self, arguments: &str, input: &str) -> String {
        self.print(
            &format!("ring diff -c clockwise.yaml -u app {arguments}"),
            input,
        )
    }

    #[track_caller]
    pub(crate) fn replay(&self, arguments: &str) -> String {
        self.print(
            &format!("ring replay -c clockwise.yaml -u app {arguments}"),
            "",
        )
    }
}

/// A configuration in which only the peers' labels matter.
pub(crate) fn site<const N: usize>(labels: [&str; N]) -> ConfigBuilder {
    ConfigBuilder::of(labels.map(|label| format!("{{address: \"127.0.0.1:1\", label: {label}}}")))
}
