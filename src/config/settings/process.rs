//! The process itself: admin server, logs, state file.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The admin HTTP server. Its debug output keeps the token secret.
#[derive(Clone, PartialEq, Eq)]
pub struct AdminConfig {
    /// The address to bind.
    pub address: SocketAddr,
    /// Asked for as `Authorization: Bearer …`; must be set where the address is not loopback.
    pub token: Option<String>,
}

impl fmt::Debug for AdminConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = self.token.as_ref().map(|_| "…");
        f.debug_struct("AdminConfig")
            .field("address", &self.address)
            .field("token", &token)
            .finish()
    }
}

/// Where the access log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLogConfig {
    /// No access log.
    Off,
    /// Standard output.
    Stdout,
    /// A file, appended to, reopened on SIGUSR1.
    File(PathBuf),
}

/// What the process says about itself, on stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorLogConfig {
    /// The least severe message that is written.
    pub level: log::LevelFilter,
}

/// The file by which a cold restart remembers drains and health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateFileConfig {
    /// Replaced as a whole with every change, so its directory must be writable.
    pub path: PathBuf,
    /// How old the file may be at a start; an older one tells too little about now and is left alone.
    pub max_age: Duration,
}
