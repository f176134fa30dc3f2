//! The PROXY protocol, versions 1 and 2 (haproxy.org, `proxy-protocol.txt`): a header at the start of a
//! connection, in which a proxy sends the address of its client.
//!
//! This module parses and writes headers; which sources are trusted, timeouts, and what a missing
//! header means are decided by its callers. It is our own code because no crate follows the
//! specification: `ppp` and `proxy-header` do not verify checksums; `proxy-protocol-rs` refuses
//! `UNSPEC` and accepts `+80` as a port.
//!
//! Invariants: a [`ProxyHeaderReader`] consumes no byte after the header, and at most [`MAX_LENGTH`](v2::MAX_LENGTH)
//! bytes; a header that it returns is well-formed to its last byte.

mod addresses;
mod error;
mod tlv;
mod v1;
mod v2;

pub(crate) use self::addresses::{ProxyAddresses, Transport};
pub(crate) use self::error::ProxyHeaderError;
pub(crate) use self::tlv::{ProxyTlv, TlsTlv};

/// A header: the sender's information about a connection that it forwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProxyHeader {
    /// The version of the protocol.
    pub version: ProxyHeaderVersion,
    /// The client's addresses.
    pub addresses: ProxyAddresses,
    /// Further information; empty in version 1.
    pub tlvs: Vec<ProxyTlv>,
}

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeaderVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

impl ProxyHeader {
    /// Encodes the header; `checksum` adds one in version 2. `None` if the header would be longer than
    /// [`MAX_LENGTH`](v2::MAX_LENGTH), a Unix socket's name longer than 108 bytes, or a unique id than 128.
    pub(crate) fn write(&self, checksum: bool) -> Option<Vec<u8>> {
        match self.version {
            ProxyHeaderVersion::V1 => Some(v1::write(&self.addresses)),
            ProxyHeaderVersion::V2 => v2::write(&self.addresses, &self.tlvs, checksum),
        }
    }

    /// The TLS session between client and sender, if the header has it.
    pub(crate) fn tls(&self) -> Option<&TlsTlv> {
        self.tlvs.iter().find_map(|tlv| match tlv {
            ProxyTlv::Tls(tls) => Some(tls),
            _ => None,
        })
    }

    /// The host name that the client asked for, as by SNI.
    pub(crate) fn authority(&self) -> Option<&[u8]> {
        self.tlvs.iter().find_map(|tlv| match tlv {
            ProxyTlv::Authority(name) => Some(name.as_slice()),
            _ => None,
        })
    }

    /// The sender's id of the connection.
    pub(crate) fn unique_id(&self) -> Option<&[u8]> {
        self.tlvs.iter().find_map(|tlv| match tlv {
            ProxyTlv::UniqueId(id) => Some(id.as_slice()),
            _ => None,
        })
    }
}

/// Collects a header from a stream, byte-exact, and parses it.
#[derive(Debug, Default)]
pub(crate) struct ProxyHeaderReader {
    bytes: Vec<u8>,
}

impl ProxyHeaderReader {
    /// Takes the bytes that belong to the header, and returns how many. If they are fewer than offered,
    /// the header is complete.
    ///
    /// # Errors
    /// [`ProxyHeaderError`], at the first byte that cannot be in a header.
    pub(crate) fn consume(&mut self, offered: &[u8]) -> Result<usize, ProxyHeaderError> {
        let mut rest = offered;
        loop {
            let wanted = self.bytes_needed()?.min(rest.len());
            let Some((taken, after)) = rest.split_at_checked(wanted).filter(|_| wanted > 0) else {
                return Ok(offered.len() - rest.len());
            };
            self.bytes.extend_from_slice(taken);
            rest = after;
        }
    }

    /// Parses the header; `None` if it is not complete.
    ///
    /// # Errors
    /// [`ProxyHeaderError`], if it is malformed.
    pub(crate) fn parse(&self) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
        if self.bytes_needed()? > 0 {
            return Ok(None);
        }
        if let Some(&v1::FIRST_BYTE) = self.bytes.first() {
            Ok(Some(ProxyHeader {
                version: ProxyHeaderVersion::V1,
                addresses: v1::parse(&self.bytes)?,
                tlvs: Vec::new(),
            }))
        } else {
            let (addresses, tlvs) = v2::parse(&self.bytes)?;
            Ok(Some(ProxyHeader {
                version: ProxyHeaderVersion::V2,
                addresses,
                tlvs,
            }))
        }
    }

    /// The number of further bytes that certainly belong to the header; 0 when it is complete.
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
