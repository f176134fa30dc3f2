//! A name service of the test's own: the program's `getaddrinfo` is that of `host_names.c`, which reads a file of hosts.
//!
//! Not `libnss_wrapper` 1.1.12: the program crashed in it when the file changed during two lookups.

use std::ffi::OsString;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::{NamedTempFile, TempDir};

/// The names that exist, and their addresses. Other names have no address.
pub(crate) struct HostNames {
    directory: TempDir,
}

impl HostNames {
    pub(crate) fn of(names: &[(&str, IpAddr)]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let hosts = Self { directory };
        hosts.set(names);
        hosts
    }

    /// Replaces the names, for all lookups that begin from now on.
    pub(crate) fn set(&self, names: &[(&str, IpAddr)]) {
        let line = |(name, address): &(&str, IpAddr)| format!("{address} {name}\n");
        let lines: Vec<String> = names.iter().map(line).collect();
        // Renamed: a lookup never reads half of the file.
        let new_file = NamedTempFile::new_in(&self.directory).expect("a temporary file");
        fs::write(&new_file, lines.concat()).expect("writable");
        new_file.persist(self.file()).expect("the file is replaced");
    }

    /// The variables of the environment with which a program resolves these names.
    pub(crate) fn environment(&self) -> Vec<(&'static str, OsString)> {
        vec![
            ("LD_PRELOAD", library().into()),
            ("HOST_NAMES_FILE", self.file().into()),
        ]
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("hosts")
    }
}

/// The library, compiled once.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let library = directory.join("host_names.so");
        let new_file = NamedTempFile::new_in(directory).expect("a temporary file");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/host_names.c");
        let mut command = Command::new("cc");
        command.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]);
        let status = command.arg(new_file.path()).arg(source).status();
        assert!(status.expect("cc").success(), "{source}");
        new_file.persist(&library).expect("the library is replaced");
        library
    })
}
