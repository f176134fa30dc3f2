//! A peer: one server of an upstream.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::ring::{Member, Weight};

/// A server of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// The address to connect to.
    pub address: PeerAddress,
    /// Its name, unique in the upstream; places it on the ring unless there is an `id`.
    pub label: String,
    /// Its share of the keys, relative to the other peers.
    pub weight: Weight,
    /// The text that the ring's dialect hashes instead of the label.
    pub id: Option<String>,
    /// The DNS name or IP address for SNI and certificate verification; `None`: the host of the
    /// client's request, or no TLS.
    pub server_name: Option<String>,
}

impl PeerConfig {
    /// The peer as a member of the ring.
    pub fn member(&self) -> Member<'_> {
        Member {
            label: &self.label,
            id: self.id.as_deref(),
            weight: self.weight,
        }
    }
}

/// The address of a peer; a host name is resolved when the configuration is loaded. Its text form is
/// the one in the configuration.
#[derive(Clone, Debug, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub enum PeerAddress {
    /// A literal IP address and port.
    Ip(SocketAddr),
    /// A host name and port.
    Name(String, u16),
    /// The absolute path of a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
