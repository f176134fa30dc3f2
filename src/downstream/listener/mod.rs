//! Binds sockets and accepts connections, the first step of the request path.
//!
//! Pingora's accept loop is not used, for three reasons: a port that cannot be bound must be an error before the
//! first request, the number of connections is limited, and a listener that closes first serves the connections
//! in the kernel's accept queue.

mod accept;
pub(crate) mod bind;
mod connection_task;
mod socket;
pub(crate) mod unix;

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::net::UnixListener;

use self::socket::ListenSocket;
use crate::config::ListenerConfig;
use crate::telemetry::error_log::LogRateLimit;
use crate::telemetry::metrics::ListenerMetrics;

pub(crate) use self::bind::BindError;
pub(crate) use self::connection_task::ConnectionConfig;
#[cfg(test)]
pub(crate) use self::connection_task::future_size;

/// The shortest time between two warnings of one listener about failed accepts.
const WARNING_INTERVAL: Duration = Duration::from_secs(10);

/// A bound socket with its metrics; [`run`](Self::run) accepts from it.
#[derive(Debug)]
pub(crate) struct Listener {
    /// The address as configured; port 0 stays 0.
    pub configured_address: Arc<str>,
    /// The metrics of this listener.
    pub metrics: Arc<ListenerMetrics>,
    socket: ListenSocket,
    handed_over: Arc<AtomicBool>,
    accept_warnings: LogRateLimit,
}

impl Listener {
    /// Binds the configured address. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// [`BindError`], with the address and what to do.
    pub(crate) fn bind(
        config: &ListenerConfig,
        metrics: ListenerMetrics,
    ) -> Result<Self, BindError> {
        let socket =
            bind::bind(config).map_err(|source| BindError::new(&config.address, source))?;
        Ok(Self::new(config.address.to_string(), socket, metrics))
    }

    /// Takes over a listening socket that another process bound for this listener; `shared` means that the
    /// service manager owns it. If the descriptor is not such a socket, it is dropped, and the address is
    /// bound instead. If the other process has blocked new connections before its close, they are allowed
    /// again.
    ///
    /// # Errors
    /// [`BindError`], if the socket was bound with an option that cannot be changed now.
    pub(crate) fn adopt(
        config: &ListenerConfig,
        socket: OwnedFd,
        shared: bool,
        metrics: ListenerMetrics,
    ) -> Result<Self, BindError> {
        bind::check_rebind(&socket, config, shared)?;
        match bind::adopt(config, socket) {
            Ok(socket) => Ok(Self::new(config.address.to_string(), socket, metrics)),
            Err(_) => Self::bind(config, metrics),
        }
    }

    /// Wraps a Unix socket that is already bound.
    pub(crate) fn from_unix(path: &str, socket: UnixListener, metrics: ListenerMetrics) -> Self {
        Self::new(path.to_owned(), ListenSocket::Unix(socket), metrics)
    }

    fn new(configured_address: String, socket: ListenSocket, metrics: ListenerMetrics) -> Self {
        Self {
            configured_address: configured_address.into(),
            metrics: Arc::new(metrics),
            socket,
            handed_over: Arc::default(),
            accept_warnings: LogRateLimit::every(WARNING_INTERVAL),
        }
    }

    /// Duplicates the socket's descriptor, for a process that takes over; the socket stays open until
    /// both are closed.
    ///
    /// # Errors
    /// [`BindError`], if the process has no file descriptor left.
    pub(crate) fn duplicate_fd(&self) -> Result<OwnedFd, BindError> {
        let duplicate = match &self.socket {
            ListenSocket::Tcp(socket) => socket.as_fd().try_clone_to_owned(),
            ListenSocket::Unix(socket) => socket.as_fd().try_clone_to_owned(),
        };
        duplicate.map_err(|source| BindError::new(&self.configured_address, source))
    }

    /// A flag to set before the shutdown of [`run`](Self::run) if another process accepts from the same
    /// socket: the connections in the accept queue are then left to that process.
    pub(crate) fn handed_over(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.handed_over)
    }

    /// The bound address, with the port that the kernel chose; `None` for a Unix socket.
    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        match &self.socket {
            ListenSocket::Tcp(socket) => socket.local_addr().ok(),
            ListenSocket::Unix(_) => None,
        }
    }

    /// The bound address for log lines; that of a Unix socket is as configured.
    pub(crate) fn display_address(&self) -> String {
        let bound = self.local_addr().map(|address| address.to_string());
        bound.unwrap_or_else(|| self.configured_address.to_string())
    }
}
