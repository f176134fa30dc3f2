//! Binds listening sockets, and applies a changed configuration to sockets that already listen.
//!
//! Some options are fixed at bind time, others can be changed while a socket listens. A change that
//! would need a new socket is an error, because closing the old one would lose the connections in
//! its accept queue.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use super::socket::ListenSocket;
use super::unix;
use crate::config::{ListenAddress, ListenerConfig};

/// Why a listener cannot be bound or taken over.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}{}", bind_hint(source))]
pub(crate) struct BindError {
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

impl BindError {
    /// Whether another socket has the address.
    pub(crate) fn is_in_use(&self) -> bool {
        self.source.kind() == io::ErrorKind::AddrInUse
    }

    /// The system's error.
    pub(crate) fn reason(&self) -> &io::Error {
        &self.source
    }

    /// What to do; may be empty.
    pub(crate) fn hint(&self) -> &'static str {
        bind_hint(&self.source)
    }
}

fn bind_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        // An error of our own: its text says what to do.
        _ if error.raw_os_error().is_none() => "",
        io::ErrorKind::AddrInUse => "; another process listens there (find it with `ss -ltnp`)",
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need the capability CAP_NET_BIND_SERVICE"
        }
        io::ErrorKind::AddrNotAvailable => {
            "; no interface of this machine has that address (if it is added later, set `freebind: true`)"
        }
        _ => "",
    }
}

/// Binds the configured address.
pub(super) fn bind(config: &ListenerConfig) -> io::Result<ListenSocket> {
    match &config.address {
        ListenAddress::Ip(address) => {
            let socket = bind_tcp(*address, config)?;
            listen_socket(socket.into())
        }
        ListenAddress::Unix(path) => {
            let socket = unix::bind(path, &config.socket.access)?;
            UnixListener::from_std(socket).map(ListenSocket::Unix)
        }
    }
}

/// Takes over a listening socket that another process bound for this listener, and removes the filter with
/// which that process may have blocked new connections.
pub(super) fn adopt(config: &ListenerConfig, socket: OwnedFd) -> io::Result<ListenSocket> {
    SockRef::from(&socket).set_nonblocking(true)?;
    match &config.address {
        ListenAddress::Ip(_) => {
            match SockRef::from(&socket).detach_filter() {
                // NotFound: the socket has no filter, the usual case.
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            listen_socket(socket.into())
        }
        ListenAddress::Unix(_) => UnixListener::from_std(socket.into()).map(ListenSocket::Unix),
    }
}

/// The accepted sockets inherit `TCP_NODELAY`: a system call for each is saved. Responses are collected into one write by
/// `BufferedSocket`, so the kernel must not delay it (Nagle). Connections that were complete before do not have it.
fn listen_socket(socket: std::net::TcpListener) -> io::Result<ListenSocket> {
    if let Err(error) = SockRef::from(&socket).set_tcp_nodelay(true) {
        log::warn!("cannot set TCP_NODELAY of a listener: {error}");
    }
    TcpListener::from_std(socket).map(ListenSocket::Tcp)
}

/// Checks that this configuration can be applied to a listening socket without binding it again. If the
/// service manager owns the socket (`shared`), a key that is not set leaves the socket's option unchanged.
///
/// # Errors
/// [`BindError`], if `ipv6_only` would have to change.
pub(crate) fn check_rebind(
    socket: &OwnedFd,
    config: &ListenerConfig,
    shared: bool,
) -> Result<(), BindError> {
    let is_v6 = matches!(config.address, ListenAddress::Ip(SocketAddr::V6(_)));
    let wanted = config.socket.ipv6_only;
    if !is_v6 || (shared && wanted.is_none()) {
        return Ok(());
    }
    let wanted = wanted.unwrap_or(false);
    match SockRef::from(socket).only_v6() {
        Ok(found) if found != wanted => {
            let text = format!(
                "its socket was bound with `ipv6_only: {found}`, which cannot change while it is open; stop and start Clockwise, or use another port"
            );
            Err(BindError::new(&config.address, io::Error::other(text)))
        }
        _ => Ok(()),
    }
}

/// Sets the options that can change while a socket listens: the backlog (`listen(2)` may be called
/// again), `reuse_port`, and the mode and owner of a Unix socket. Errors are only logged.
pub(crate) fn set_options(socket: &OwnedFd, config: &ListenerConfig) {
    let warn = |option: &str, error: io::Error| {
        log::warn!("cannot set {option} of {}: {error}", config.address);
    };
    let backlog = i32::try_from(config.backlog).unwrap_or(i32::MAX);
    if let Err(error) = rustix::net::listen(socket, backlog) {
        warn("`backlog`", error.into());
    }
    match &config.address {
        ListenAddress::Ip(_) => {
            let reuse = config.socket.reuse_port;
            if let Err(error) = SockRef::from(&socket.as_fd()).set_reuse_port(reuse) {
                warn("`reuse_port`", error);
            }
        }
        ListenAddress::Unix(path) => {
            if let Err(error) = unix::set_access(path, &config.socket.access) {
                warn("mode or owner", error);
            }
        }
    }
}

/// Whether a TCP listener can be bound, without listening: no client can connect meanwhile.
///
/// # Errors
/// [`BindError`], as in binding it.
pub(crate) fn try_bind(config: &ListenerConfig) -> Result<(), BindError> {
    let ListenAddress::Ip(address) = config.address else {
        return Ok(());
    };
    let bound = bound_socket(address, config);
    bound
        .map(drop)
        .map_err(|source| BindError::new(&config.address, source))
}

fn bind_tcp(address: SocketAddr, config: &ListenerConfig) -> io::Result<Socket> {
    let socket = bound_socket(address, config)?;
    socket.listen(i32::try_from(config.backlog).unwrap_or(i32::MAX))?;
    Ok(socket)
}

fn bound_socket(address: SocketAddr, config: &ListenerConfig) -> io::Result<Socket> {
    let options = &config.socket;
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not fail while connections of the previous process are in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(options.reuse_port)?;
    if address.is_ipv6() {
        // Default: `[::]` accepts IPv4 too, whatever `net.ipv6.bindv6only` is.
        socket.set_only_v6(options.ipv6_only.unwrap_or(false))?;
        socket.set_freebind_v6(options.freebind)?;
    } else {
        socket.set_freebind_v4(options.freebind)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::downstream::DownstreamSocket;

    #[tokio::test]
    async fn accepted_sockets_inherit_nodelay_of_a_bound_and_of_an_adopted_listener() {
        let config = ListenerConfig::plain("127.0.0.1:0".parse().unwrap(), 16);
        let plain = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        for listener in [bind(&config), adopt(&config, plain.into())] {
            let listener = listener.unwrap();
            let ListenSocket::Tcp(socket) = &listener else {
                panic!("not TCP");
            };
            let address = socket.local_addr().unwrap();
            let _client = std::net::TcpStream::connect(address).unwrap();
            let (accepted, _) = listener.accept().await.unwrap();
            assert!(matches!(accepted, DownstreamSocket::Tcp(tcp) if tcp.nodelay().unwrap()));
        }
    }
}
