//! Sockets that the service manager has bound for us (`sd_listen_fds(3)`): `LISTEN_FDS`.
//!
//! A socket belongs to the listener whose address, as configured, is its own. The service manager
//! keeps it while we come and go: clients that connect meanwhile wait in its queue, and ours is not
//! to empty it. After an upgrade it is handed over like any other; `LISTEN_FDS` is for one process.

use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;

use super::inherited_sockets::{InheritedSockets, SHARED_PREFIX};
use crate::config::{Config, ListenAddress};

/// Takes what the service manager passed to this process. What is no TCP listener is closed.
///
/// Changes the environment: call it while the process has one thread.
pub(super) fn take_passed_sockets() -> Vec<TcpListener> {
    let mut passed = ListenFd::from_env();
    let sockets = (0..passed.len()).filter_map(|index| take_socket(&mut passed, index));
    sockets.collect()
}

/// The sockets by the names under which listeners look for theirs. What no listener of `config`
/// wants is closed.
pub(super) fn match_to_listeners(sockets: Vec<TcpListener>, config: &Config) -> InheritedSockets {
    let mut claimed = InheritedSockets::new();
    for socket in sockets {
        match socket.local_addr() {
            Ok(address) if is_configured(config, address) => {
                claimed.insert(format!("{SHARED_PREFIX}{address}"), socket.into());
            }
            Ok(address) => log::warn!(
                "the service manager passed a socket bound to {address}, which no listener names; it is closed"
            ),
            Err(error) => {
                log::warn!("the service manager passed a socket without address: {error}");
            }
        }
    }
    claimed
}

fn take_socket(passed: &mut ListenFd, index: usize) -> Option<TcpListener> {
    let socket = passed.take_tcp_listener(index);
    if let Err(error) = &socket {
        log::warn!("the service manager passed what is no TCP listener: {error}");
        close_unsupported(passed, index);
    }
    socket.ok().flatten()
}

/// Only a socket of a known kind can be closed; others stay open, unused.
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
