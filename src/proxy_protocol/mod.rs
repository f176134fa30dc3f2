//! The header of the PROXY protocol (haproxy.org, `proxy-protocol.txt`), versions 1 and 2: whoever
//! passes a connection on says before its first byte whose it is.
//!
//! Not here: whom to believe, how long to wait, what to do without a header. Our own code, as no crate
//! reads it as the specification has it: `ppp` and `proxy-header` do not verify checksums;
//! `proxy-protocol-rs` refuses `UNSPEC` and takes `+80` for a port.
//!
//! Invariants: a [`Reader`] takes no byte from behind the header, and never more than [`MAX_LENGTH`];
//! what is read was well formed to its last byte.

mod tlv;
mod v1;
mod v2;

use std::net::SocketAddr;

pub use self::tlv::{ProxyTlv, TlsTlv};

/// The longest header that is read or written, in bytes. The specification allows 64 KiB, and asks
/// senders to stay well below the size of a first segment.
pub const MAX_LENGTH: usize = 4096;

/// What is said of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    /// How it is written.
    pub version: ProxyHeaderVersion,
    /// Whose connection it is.
    pub addresses: ProxyAddresses,
    /// What else is said; version 1 says nothing else.
    pub tlvs: Vec<ProxyTlv>,
}

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeaderVersion {
    /// One line of text.
    V1,
    /// Binary.
    V2,
}

/// Whose connection it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyAddresses {
    /// The sender's own, as in its health checks (`LOCAL`).
    Local,
    /// Somebody's whose address the sender cannot say (`UNKNOWN`, `UNSPEC`).
    Unknown,
    /// A client's at an Internet address.
    Inet {
        /// How the client speaks to the sender.
        transport: Transport,
        /// The client's address.
        source: SocketAddr,
        /// The address that the client connected to.
        destination: SocketAddr,
    },
    /// A client's on the sender's machine.
    Unix {
        /// How the client speaks to the sender.
        transport: Transport,
        /// The name of the client's socket, without the zeros behind it; empty: it has none.
        source: Vec<u8>,
        /// That of the socket that the client connected to.
        destination: Vec<u8>,
    },
}

/// How a client speaks to the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A stream: TCP, or a Unix socket.
    Stream,
    /// Datagrams: UDP, or a Unix socket.
    Datagram,
}

/// Why what came is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyHeaderError {
    /// It does not begin like one.
    #[error("no header of the PROXY protocol")]
    Signature,
    /// It is longer than it may be: 107 bytes in version 1, [`MAX_LENGTH`] in version 2.
    #[error("the header is too long")]
    TooLong,
    /// It begins like one, and goes on against the rules.
    #[error("the header is against the rules")]
    Syntax,
    /// It is not what the sender wrote (RFC 4960, appendix B).
    #[error("the header's checksum is wrong")]
    Checksum,
}

impl ProxyHeader {
    /// The header as it is sent; with its checksum, where the version has one and it is wanted.
    /// `None`: it would be longer than [`MAX_LENGTH`], or a Unix socket's name longer than 108 bytes.
    pub fn write(&self, checksum: bool) -> Option<Vec<u8>> {
        match self.version {
            ProxyHeaderVersion::V1 => Some(v1::write(&self.addresses)),
            ProxyHeaderVersion::V2 => v2::write(&self.addresses, &self.tlvs, checksum),
        }
    }

    /// How the client spoke TLS to the sender, where that is said.
    pub fn tls(&self) -> Option<&TlsTlv> {
        self.tlvs.iter().find_map(|extension| match extension {
            ProxyTlv::Tls(tls) => Some(tls),
            _ => None,
        })
    }

    /// The name that the client asked the sender for.
    pub fn authority(&self) -> Option<&[u8]> {
        self.tlvs.iter().find_map(|extension| match extension {
            ProxyTlv::Authority(name) => Some(name.as_slice()),
            _ => None,
        })
    }

    /// What the sender calls the connection.
    pub fn unique_id(&self) -> Option<&[u8]> {
        self.tlvs.iter().find_map(|extension| match extension {
            ProxyTlv::UniqueId(id) => Some(id.as_slice()),
            _ => None,
        })
    }
}

/// Gathers a header from a stream, and leaves what is behind it.
#[derive(Debug, Default)]
pub struct ProxyHeaderReader {
    bytes: Vec<u8>,
}

impl ProxyHeaderReader {
    /// Takes those of the bytes that belong to the header; how many these are. Fewer than were
    /// offered: it is complete.
    ///
    /// # Errors
    /// [`Malformed`], as soon as it shows.
    pub fn consume(&mut self, offered: &[u8]) -> Result<usize, ProxyHeaderError> {
        let mut rest = offered;
        loop {
            let wanted = self.bytes_needed()?.min(rest.len());
            let Some((taken, left)) = rest.split_at_checked(wanted).filter(|_| wanted > 0) else {
                return Ok(offered.len() - rest.len());
            };
            self.bytes.extend_from_slice(taken);
            rest = left;
        }
    }

    /// The header; `None`: it is not complete.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(&self) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
        if self.bytes_needed()? > 0 {
            return Ok(None);
        }
        match self.bytes.first() {
            Some(&v1::FIRST_BYTE) => v1::parse(&self.bytes).map(Some),
            _ => v2::parse(&self.bytes).map(Some),
        }
    }

    /// So many bytes certainly belong to it yet; 0: it is complete.
    fn bytes_needed(&self) -> Result<usize, ProxyHeaderError> {
        match self.bytes.first() {
            None => Ok(1),
            Some(&v1::FIRST_BYTE) => v1::bytes_needed(&self.bytes),
            Some(&v2::FIRST_BYTE) => v2::bytes_needed(&self.bytes),
            Some(_) => Err(ProxyHeaderError::Signature),
        }
    }
}

#[cfg(test)]
mod tests;
