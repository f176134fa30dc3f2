//! Makes listening sockets, and finds out whether one that is there is what is wanted.
//!
//! Some options hold from the bind on, others can be changed while a socket listens: what cannot be
//! had without closing it, which would lose who waits, is refused.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use super::{ListenSocket, unix};
use crate::config::{ListenAddress, ListenerConfig as Written};

/// Why a listener cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}{}", bind_hint(source))]
pub struct BindError {
    address: String,
    source: io::Error,
}

impl BindError {
    pub(super) fn new(address: &impl ToString, source: io::Error) -> Self {
        Self {
            address: address.to_string(),
            source,
        }
    }
}

fn bind_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        // Where there is a text of our own, it says what to do.
        _ if error.raw_os_error().is_none() => "",
        io::ErrorKind::AddrInUse => "; another process has it (try `ss -ltnp`)",
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need the capability CAP_NET_BIND_SERVICE"
        }
        io::ErrorKind::AddrNotAvailable => {
            "; no interface of this machine has that address (or has it yet: `freebind: true`)"
        }
        _ => "",
    }
}

/// Binds what is written; does not let anybody in who could not come before.
pub(super) fn bind(written: &Written) -> io::Result<ListenSocket> {
    match &written.address {
        ListenAddress::Ip(address) => {
            let socket = bind_tcp(*address, written)?;
            TcpListener::from_std(socket.into()).map(ListenSocket::Tcp)
        }
        ListenAddress::Unix(path) => {
            let socket = unix::bind(path, &written.socket.access)?;
            UnixListener::from_std(socket).map(ListenSocket::Unix)
        }
    }
}

/// Takes a socket that another process bound for this listener.
pub(super) fn adopt(written: &Written, socket: OwnedFd) -> io::Result<ListenSocket> {
    SockRef::from(&socket).set_nonblocking(true)?;
    match &written.address {
        ListenAddress::Ip(_) => {
            match SockRef::from(&socket).detach_filter() {
                // There is none to detach, nearly always.
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            TcpListener::from_std(socket.into()).map(ListenSocket::Tcp)
        }
        ListenAddress::Unix(_) => UnixListener::from_std(socket.into()).map(ListenSocket::Unix),
    }
}

/// Whether a socket that listens can be what is written without being bound anew; one that the
/// service manager keeps is as it was made there, where nothing is written.
///
/// # Errors
/// What cannot be changed.
pub fn check_rebind(socket: &OwnedFd, written: &Written, shared: bool) -> Result<(), BindError> {
    let is_v6 = matches!(written.address, ListenAddress::Ip(SocketAddr::V6(_)));
    let wanted = written.socket.ipv6_only;
    if !is_v6 || (shared && wanted.is_none()) {
        return Ok(());
    }
    let wanted = wanted.unwrap_or(false);
    match SockRef::from(socket).only_v6() {
        Ok(found) if found != wanted => {
            let text = format!(
                "its socket was bound with `ipv6_only: {found}`, which holds until it is closed; stop and start instead, or take another port"
            );
            Err(BindError::new(&written.address, io::Error::other(text)))
        }
        _ => Ok(()),
    }
}

/// Gives a socket that listens the options that it takes then: the backlog (`listen(2)` may be called
/// again), whether others may bind the address, who may connect to a Unix socket.
pub fn set_options(socket: &OwnedFd, written: &Written) {
    let complain = |what: &str, error: io::Error| {
        log::warn!("{what} of {} cannot be set: {error}", written.address);
    };
    let backlog = i32::try_from(written.backlog).unwrap_or(i32::MAX);
    if let Err(error) = rustix::net::listen(socket, backlog) {
        complain("the backlog", error.into());
    }
    match &written.address {
        ListenAddress::Ip(_) => {
            let reuse = written.socket.reuse_port;
            if let Err(error) = SockRef::from(&socket.as_fd()).set_reuse_port(reuse) {
                complain("`reuse_port`", error);
            }
        }
        ListenAddress::Unix(path) => {
            if let Err(error) = unix::set_access(path, &written.socket.access) {
                complain("mode or owner", error);
            }
        }
    }
}

fn bind_tcp(address: SocketAddr, written: &Written) -> io::Result<Socket> {
    let options = &written.socket;
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    // A restarted server must not wait for its predecessor's connections to be forgotten.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(options.reuse_port)?;
    if address.is_ipv6() {
        // `[::]` takes IPv4 as well, whatever the system's default is.
        socket.set_only_v6(options.ipv6_only.unwrap_or(false))?;
        socket.set_freebind_v6(options.freebind)?;
    } else {
        socket.set_freebind_v4(options.freebind)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(written.backlog).unwrap_or(i32::MAX))?;
    Ok(socket)
}
