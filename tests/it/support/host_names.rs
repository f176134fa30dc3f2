//! A name service of the test's own: the program's `getaddrinfo` reads a file of hosts, through `libnss_wrapper`.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

/// The names that exist, and their addresses. Other names have no address.
pub(crate) struct HostNames {
    directory: TempDir,
    changes: u64,
}

impl HostNames {
    pub(crate) fn of(names: &[(&str, IpAddr)]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut hosts = Self {
            directory,
            changes: 0,
        };
        hosts.set(names);
        hosts
    }

    /// Replaces the names. The library reads the file again if its time of change differs by a second.
    pub(crate) fn set(&mut self, names: &[(&str, IpAddr)]) {
        let line = |(name, address): &(&str, IpAddr)| format!("{address} {name}\n");
        let lines: Vec<String> = names.iter().map(line).collect();
        fs::write(self.file(), lines.concat()).expect("writable");
        self.changes += 1;
        let modified = SystemTime::now() + Duration::from_secs(2 * self.changes);
        let file = File::options()
            .append(true)
            .open(self.file())
            .expect("a file");
        file.set_modified(modified).expect("a time of change");
    }

    /// The variables of the environment with which a program resolves these names.
    pub(crate) fn environment(&self) -> Vec<(&'static str, OsString)> {
        vec![
            ("LD_PRELOAD", "libnss_wrapper.so".into()),
            ("NSS_WRAPPER_HOSTS", self.file().into()),
        ]
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("hosts")
    }
}
