//! The addresses in a PROXY header.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The addresses of the connection that a PROXY header describes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ProxyAddresses {
    /// The sender's own connection, as for its health checks (`LOCAL`).
    Local,
    /// A client's connection; the sender does not know the addresses (`UNKNOWN`, `UNSPEC`).
    Unknown,
    /// A client's connection over IP.
    Inet {
        /// The transport between client and sender.
        transport: Transport,
        /// The client's address.
        source: SocketAddr,
        /// The address that the client connected to.
        destination: SocketAddr,
    },
    /// A client's connection over a Unix socket.
    Unix {
        /// The transport between client and sender.
        transport: Transport,
        /// The name of the client's socket, without trailing zeros; empty if it has no name.
        source: Vec<u8>,
        /// The name of the socket that the client connected to.
        destination: Vec<u8>,
    },
}

/// The transport between a client and the sender of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// A stream: TCP, or a Unix socket.
    Stream,
    /// Datagrams: UDP, or a Unix socket.
    Datagram,
}

/// The address as IPv6; an IPv4 address becomes a mapped one.
pub(super) fn to_ipv6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}
