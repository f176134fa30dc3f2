//! Why the proxy could not start.

use super::{control_socket, hot_restart, peer_discovery};
use crate::discovery;
use crate::downstream::listener::BindError;
use crate::snapshot;

/// Why the proxy could not start; nothing was served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The runtime's threads could not be started.
    #[error("cannot start the worker threads: {0}")]
    Runtime(std::io::Error),
    /// A peer's name has no address.
    #[error(transparent)]
    Discovery(#[from] discovery::Error),
    /// A source has no list of peers.
    #[error(transparent)]
    Sources(#[from] peer_discovery::SourceUnavailable),
    /// A snapshot could not be built from the configuration.
    #[error(transparent)]
    Snapshot(#[from] snapshot::Error),
    /// A listener's address cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The control socket cannot be bound.
    #[error(transparent)]
    ControlSocket(#[from] control_socket::Error),
    /// The access log cannot be opened.
    #[error("cannot open the access log `{path}`: {source}")]
    AccessLog {
        /// The file, or `stdout`.
        path: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// A signal to stop came before the first connection was accepted.
    #[error("stopped by a signal before it served")]
    StoppedDuringStart,
    /// Pingora's proxy could not be built.
    #[error("cannot build the proxy: {0}")]
    Proxy(std::io::Error),
    /// The signal handlers cannot be installed.
    #[error("cannot install the signal handlers: {0}")]
    Signals(std::io::Error),
    /// The old process did not hand over, or not as this version expects.
    #[error("cannot take over from the running instance: {0}")]
    HotRestart(#[from] hot_restart::Error),
}
