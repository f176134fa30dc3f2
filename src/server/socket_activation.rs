//! Socket activation: sockets that the service manager has bound (`sd_listen_fds(3)`, `LISTEN_FDS`).
//!
//! A socket belongs to the listener that is configured with its address. The service manager keeps it open while the
//! proxy restarts: clients that connect meanwhile wait in its queue, which the proxy must not empty when it stops. In an
//! upgrade the socket is handed over like any other; `LISTEN_FDS` is for the first process alone.

use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;

use super::inherited_sockets::{InheritedSockets, SHARED_PREFIX};
use crate::config::{Config, ListenAddress};

/// Takes the sockets that the service manager passed to this process. Those that are no TCP listeners are closed.
///
/// Changes the environment: call it while the process has one thread.
pub(super) fn take_passed_sockets() -> Vec<TcpListener> {
    let mut passed = ListenFd::from_env();
    let sockets = (0..passed.len()).filter_map(|index| take_socket(&mut passed, index));
    sockets.collect()
}

/// The sockets by the names of their listeners. A socket without a listener in `config` is closed.
pub(super) fn match_to_listeners(sockets: Vec<TcpListener>, config: &Config) -> InheritedSockets {
    let mut matched = InheritedSockets::new();
    for socket in sockets {
        match socket.local_addr() {
            Ok(address) if is_configured(config, address) => {
                matched.insert(format!("{SHARED_PREFIX}{address}"), socket.into());
            }
            Ok(address) => log::warn!(
                "the service manager passed a socket bound to {address}, which no listener names; it is closed"
            ),
            Err(error) => {
                log::warn!(
                    "the service manager passed a socket without an address: {error}; it is closed"
                );
            }
        }
    }
    matched
}

fn take_socket(passed: &mut ListenFd, index: usize) -> Option<TcpListener> {
    let socket = passed.take_tcp_listener(index);
    if let Err(error) = &socket {
        log::warn!("the service manager passed a socket that is not a TCP listener: {error}");
        close_unsupported(passed, index);
    }
    socket.ok().flatten()
}

/// Closes a Unix or UDP socket; `listenfd` cannot take others, so they stay open, unused.
fn close_unsupported(passed: &mut ListenFd, index: usize) {
    let _ = passed.take_unix_listener(index);
    let _ = passed.take_udp_socket(index);
    let _ = passed.take_unix_datagram(index);
}

fn is_configured(config: &Config, address: SocketAddr) -> bool {
    config
        .listeners
        .iter()
        .any(|listener| listener.address == ListenAddress::Ip(address))
}
