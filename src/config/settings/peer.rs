//! A peer: one server of an upstream.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::ring::{Member, Weight};

/// One server of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// Where it listens.
    pub address: PeerAddress,
    /// Its name, unique in its upstream; places it on the ring where there is no `id`.
    pub label: String,
    /// How much of the key space it gets, relative to the others.
    pub weight: Weight,
    /// What the ring's dialect hashes for it, where that is not the label.
    pub id: Option<String>,
    /// The name that it is asked for in TLS and must prove, or its IP address; `None`: the one that
    /// the client asked for, or no TLS.
    pub server_name: Option<String>,
}

impl PeerConfig {
    /// The peer as the ring takes it.
    pub fn member(&self) -> Member<'_> {
        Member {
            label: &self.label,
            id: self.id.as_deref(),
            weight: self.weight,
        }
    }
}

/// Where a peer listens: an address, or a name that is looked up when the configuration is loaded.
/// As text it is what an operator writes.
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
