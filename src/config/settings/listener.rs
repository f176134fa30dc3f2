//! A listener: its address, its socket, and the PROXY headers that it accepts.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::tls::TlsConfig;
use crate::client_addr::TrustedProxies;

/// A socket that clients connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerConfig {
    /// Where it is bound.
    pub address: ListenAddress,
    /// How its socket is made.
    pub socket: SocketOptions,
    /// Who says with a header of the PROXY protocol whose connections these are; `None`: nobody does.
    pub proxy_protocol: Option<AcceptProxyConfig>,
    /// Connections that the kernel may queue before they are accepted (`listen(2)`); the system's
    /// `net.core.somaxconn` caps it.
    pub backlog: u32,
    /// What its connections are encrypted with; `None`: they are not.
    pub tls: Option<TlsConfig>,
    /// Where they are not, clients may begin with HTTP/2.
    pub h2c: bool,
    /// Every request is sent on to HTTPS on this port; `None`: it is served.
    pub https_redirect: Option<u16>,
}

impl ListenerConfig {
    /// A plain one at this address, with every option as it is where nothing is written.
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

/// Where a listener is bound.
#[derive(Clone, Debug, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub enum ListenAddress {
    /// An IP address and a TCP port; port 0 lets the system choose.
    Ip(SocketAddr),
    /// The file of a Unix socket.
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

/// How a listener's socket is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SocketOptions {
    /// An IPv6 socket takes no IPv4; `None`: not written, as if `false`.
    pub ipv6_only: Option<bool>,
    /// Other processes of the same user may bind the same address (`SO_REUSEPORT`).
    pub reuse_port: bool,
    /// The address need not be this machine's yet (`IP_FREEBIND`).
    pub freebind: bool,
    /// Who may connect to a Unix socket.
    pub access: SocketAccess,
}

/// Who may connect to a Unix socket: the mode, owner and group of its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketAccess {
    /// Permission bits, at most 0o777.
    pub mode: u32,
    /// `None`: who runs the process.
    pub owner: Option<UnixAccount>,
    /// `None`: the group of who runs the process.
    pub group: Option<UnixAccount>,
}

impl SocketAccess {
    /// For the owner and the group, as it is between two programs that know of each other.
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

/// A user or group of the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnixAccount {
    /// By number.
    Id(u32),
    /// By name; looked up when the socket is made.
    Name(String),
}

/// Who says whose connections these are (the PROXY protocol), and what becomes of the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptProxyConfig {
    /// Networks that are believed, and must say it. On a Unix socket everybody is.
    pub from: TrustedProxies,
    /// How long a whole header may take; above zero.
    pub timeout: Duration,
    /// Who connects from elsewhere is served without a header; else its connection is closed.
    pub accept_untrusted: bool,
}
