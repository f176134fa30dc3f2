//! A directory with configurations, and commands that are run in it without a network.

use std::fs;
use std::path::Path;
use std::process::Output;

use tempfile::TempDir;

use super::edge::{ConfigBuilder, run};

/// The directory; gone when dropped.
pub(crate) struct CommandDir(TempDir);

impl CommandDir {
    /// `clockwise.yaml` with the peers `a`, `b` and `c`.
    pub(crate) fn new() -> Self {
        Self::with(&site(["a", "b", "c"]).yaml())
    }

    /// `clockwise.yaml` with this text.
    pub(crate) fn with(yaml: &str) -> Self {
        let desk = Self(tempfile::tempdir().expect("a temporary directory"));
        desk.write("clockwise.yaml", yaml);
        desk
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).expect("writable");
    }

    /// The command with these arguments, which have no spaces in them.
    pub(crate) fn run(&self, arguments: &str, input: &str) -> Output {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        run(self.path(), &arguments, input)
    }

    /// What a command prints that succeeds.
    #[track_caller]
    pub(crate) fn print(&self, arguments: &str, input: &str) -> String {
        let output = self.run(arguments, input);
        assert!(output.status.success(), "{arguments}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// What a command complains of that exits with `code`.
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

/// Peers of which nothing counts but the labels.
pub(crate) fn site<const N: usize>(labels: [&str; N]) -> ConfigBuilder {
    ConfigBuilder::of(labels.map(|label| format!("{{address: \"127.0.0.1:1\", label: {label}}}")))
}
