//! The process itself: admin server, logs, state file.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The admin HTTP server. Its `Debug` output hides the token.
#[derive(Clone, PartialEq, Eq)]
pub struct AdminConfig {
    /// The address to bind.
    pub address: SocketAddr,
    /// Required as `Authorization: Bearer …`; always set if the address is not loopback.
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

/// The target of the access log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLogConfig {
    /// No access log.
    Off,
    /// Standard output.
    Stdout,
    /// A file, appended to and reopened on SIGUSR1.
    File(PathBuf),
}

/// The error log, on stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorLogConfig {
    /// The least severe message that is written.
    pub level: log::LevelFilter,
}

/// The file that keeps drains and health states across restarts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateFileConfig {
    /// Replaced as a whole with every change: its directory must be writable.
    pub path: PathBuf,
    /// The maximum age at a start; an older file is ignored, since its health states are out of date.
    pub max_age: Duration,
}
