//! A listener: its address, its socket, and the PROXY headers that it accepts.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::tls::TlsConfig;
use crate::client_addr::TrustedProxies;

/// A listening socket and how its connections are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerConfig {
    /// The address to bind.
    pub address: ListenAddress,
    /// Socket options.
    pub socket: SocketOptions,
    /// PROXY headers that are expected from clients; `None`: the client is the socket's peer.
    pub proxy_protocol: Option<AcceptProxyConfig>,
    /// Connections that the kernel may queue before they are accepted (`listen(2)`); the system's
    /// `net.core.somaxconn` caps it.
    pub backlog: u32,
    /// TLS; `None`: plain text.
    pub tls: Option<TlsConfig>,
    /// Whether HTTP/2 without TLS is accepted (prior knowledge, RFC 9113, 3.3).
    pub h2c: bool,
    /// Redirects every request to HTTPS on this port; `None`: requests are served.
    pub https_redirect: Option<u16>,
}

impl ListenerConfig {
    /// A listener without TLS, with default options.
    pub fn plain(address: SocketAddr, backlog: u32) -> Self {
        Self {
            address: ListenAddress::Ip(address),
            socket: SocketOptions::default(),
            proxy_protocol: None,
            backlog,
            tls: None,
            h2c: false,
            https_redirect: None,
        }
    }
}

/// The address of a listener. Its text form is the one in the configuration.
#[derive(Clone, Debug, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub enum ListenAddress {
    /// An IP address and a TCP port; port 0 lets the system choose.
    Ip(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Options of a listening socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SocketOptions {
    /// Whether an IPv6 socket refuses IPv4 (`IPV6_V6ONLY`); `None`: not configured, as `false`.
    pub ipv6_only: Option<bool>,
    /// Other processes of the same user may bind the same address (`SO_REUSEPORT`).
    pub reuse_port: bool,
    /// The address need not be this machine's yet (`IP_FREEBIND`).
    pub freebind: bool,
    /// Permissions of a Unix socket.
    pub access: SocketAccess,
}

/// Permissions of a Unix socket: the mode, owner and group of its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketAccess {
    /// Permission bits, at most 0o777.
    pub mode: u32,
    /// `None`: the user that runs the process.
    pub owner: Option<UnixAccount>,
    /// `None`: the group that runs the process.
    pub group: Option<UnixAccount>,
}

impl SocketAccess {
    /// The default: owner and group may connect.
    pub const MODE: u32 = 0o660;
}

impl Default for SocketAccess {
    fn default() -> Self {
        Self {
            mode: Self::MODE,
            owner: None,
            group: None,
        }
    }
}

/// A user or a group of the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnixAccount {
    /// By number.
    Id(u32),
    /// By name, looked up when the socket is created.
    Name(String),
}

/// PROXY headers that a listener accepts, and the rule for untrusted sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptProxyConfig {
    /// Networks that must send a header and are trusted. On a Unix socket every client is.
    pub from: TrustedProxies,
    /// Limit for the arrival of the complete header; above zero.
    pub timeout: Duration,
    /// Whether connections from other networks are served, without a header; else they are closed.
    pub accept_untrusted: bool,
}
