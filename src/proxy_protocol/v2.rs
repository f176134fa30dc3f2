//! Version 2, binary:
//!
//! ```text
//!  signature  │ version, command │ family, transport │ length of the rest │ addresses │ TLVs
//!  12 bytes   │ 1 byte           │ 1 byte            │ u16, big-endian    │           │
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::addresses::{ProxyAddresses, Transport, to_ipv6};
use super::error::ProxyHeaderError;
use super::tlv::{self, ProxyTlv};

/// The longest version 2 header that is read or written; bytes. The specification allows 64 KiB, and
/// asks senders to stay well below the size of a first TCP segment.
pub(crate) const MAX_LENGTH: usize = 4096;

/// The first byte of a version 2 header; it distinguishes the versions.
pub(super) const FIRST_BYTE: u8 = b'\r';

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The length of the part before the addresses.
const FIXED_LEN: usize = 16;
/// The length of the field for a Unix socket's name, padded with zeros.
const UNIX_NAME_LEN: usize = 108;

// Version 2 with a command.
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;

// Address family (high 4 bits) and transport (low 4 bits).
const AF_UNSPEC: u8 = 0x00;
const STREAM: u8 = 0x01;
const DATAGRAM: u8 = 0x02;
const AF_INET: u8 = 0x10;
const AF_INET6: u8 = 0x20;
const AF_UNIX: u8 = 0x30;

/// The number of further bytes that certainly belong to the header.
pub(super) fn bytes_needed(bytes: &[u8]) -> Result<usize, ProxyHeaderError> {
    let signature_matches = bytes
        .iter()
        .zip(&SIGNATURE)
        .all(|(byte, wanted)| byte == wanted);
    if !signature_matches {
        return Err(ProxyHeaderError::Signature);
    }
    let Some([_, _, high, low]) = bytes.get(SIGNATURE.len()..FIXED_LEN) else {
        return Ok(FIXED_LEN - bytes.len());
    };
    let length = FIXED_LEN + usize::from(u16::from_be_bytes([*high, *low]));
    if length > MAX_LENGTH {
        return Err(ProxyHeaderError::TooLong);
    }
    Ok(length.saturating_sub(bytes.len()))
}

/// Parses a complete header.
pub(super) fn parse(bytes: &[u8]) -> Result<(ProxyAddresses, Vec<ProxyTlv>), ProxyHeaderError> {
    let (fixed, mut rest) = bytes
        .split_first_chunk::<FIXED_LEN>()
        .ok_or(ProxyHeaderError::Syntax)?;
    let [.., command, family, _, _] = *fixed;
    match command {
        // The specification: the receiver must discard the rest.
        LOCAL => Ok((ProxyAddresses::Local, Vec::new())),
        PROXY => {
            let addresses = parse_addresses(family, &mut rest)?;
            Ok((addresses, tlv::parse(bytes, rest)?))
        }
        _ => Err(ProxyHeaderError::Syntax),
    }
}

/// Encodes a header; `None` if a part or the whole would be too long.
pub(super) fn write(
    addresses: &ProxyAddresses,
    tlvs: &[ProxyTlv],
    checksum: bool,
) -> Option<Vec<u8>> {
    let (command, family, addresses) = encode_addresses(addresses)?;
    let mut bytes = SIGNATURE.to_vec();
    bytes.extend([command, family, 0, 0]);
    bytes.extend(addresses);
    for tlv in tlvs {
        tlv.write(&mut bytes)?;
    }
    let checksum_offset = checksum.then(|| tlv::reserve_checksum(&mut bytes));
    let length = u16::try_from(bytes.len().checked_sub(FIXED_LEN)?).ok()?;
    let length_field = bytes.get_mut(FIXED_LEN - 2..FIXED_LEN)?;
    length_field.copy_from_slice(&length.to_be_bytes());
    if let Some(offset) = checksum_offset {
        tlv::fill_checksum(&mut bytes, offset);
    }
    Some(bytes).filter(|bytes| bytes.len() <= MAX_LENGTH)
}

fn parse_addresses(family: u8, rest: &mut &[u8]) -> Result<ProxyAddresses, ProxyHeaderError> {
    if family == AF_UNSPEC {
        return Ok(ProxyAddresses::Unknown);
    }
    let transport = match family & 0x0f {
        STREAM => Transport::Stream,
        DATAGRAM => Transport::Datagram,
        _ => return Err(ProxyHeaderError::Syntax),
    };
    match family & 0xf0 {
        AF_INET => parse_inet(transport, rest, |octets: [u8; 4]| {
            Ipv4Addr::from(octets).into()
        }),
        AF_INET6 => parse_inet(transport, rest, |octets: [u8; 16]| {
            Ipv6Addr::from(octets).into()
        }),
        AF_UNIX => Ok(ProxyAddresses::Unix {
            transport,
            source: parse_unix_name(rest)?,
            destination: parse_unix_name(rest)?,
        }),
        _ => Err(ProxyHeaderError::Syntax),
    }
}

fn parse_inet<const N: usize>(
    transport: Transport,
    rest: &mut &[u8],
    address: impl Fn([u8; N]) -> IpAddr,
) -> Result<ProxyAddresses, ProxyHeaderError> {
    let (from, to) = (address(take_bytes(rest)?), address(take_bytes(rest)?));
    let mut port = || take_bytes(rest).map(u16::from_be_bytes);
    let (from_port, to_port) = (port()?, port()?);
    Ok(ProxyAddresses::Inet {
        transport,
        source: SocketAddr::new(from, from_port),
        destination: SocketAddr::new(to, to_port),
    })
}

fn parse_unix_name(rest: &mut &[u8]) -> Result<Vec<u8>, ProxyHeaderError> {
    let field: [u8; UNIX_NAME_LEN] = take_bytes(rest)?;
    let zeros = field.iter().rev().take_while(|&&byte| byte == 0).count();
    Ok(field.into_iter().take(UNIX_NAME_LEN - zeros).collect())
}

fn take_bytes<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], ProxyHeaderError> {
    let (taken, left) = rest.split_first_chunk().ok_or(ProxyHeaderError::Syntax)?;
    *rest = left;
    Ok(*taken)
}

/// The command, the family with transport, and the encoded addresses. If the source is IPv4 and the
/// destination IPv6 or vice versa, both are written as IPv6.
fn encode_addresses(addresses: &ProxyAddresses) -> Option<(u8, u8, Vec<u8>)> {
    match addresses {
        ProxyAddresses::Local => Some((LOCAL, AF_UNSPEC, Vec::new())),
        ProxyAddresses::Unknown => Some((PROXY, AF_UNSPEC, Vec::new())),
        ProxyAddresses::Inet {
            transport,
            source,
            destination,
        } => {
            let (family, mut bytes) = match (source.ip(), destination.ip()) {
                (IpAddr::V4(from), IpAddr::V4(to)) => {
                    (AF_INET, [from.octets(), to.octets()].concat())
                }
                (from, to) => (
                    AF_INET6,
                    [to_ipv6(from).octets(), to_ipv6(to).octets()].concat(),
                ),
            };
            bytes.extend(source.port().to_be_bytes());
            bytes.extend(destination.port().to_be_bytes());
            Some((PROXY, family | transport_code(*transport), bytes))
        }
        ProxyAddresses::Unix {
            transport,
            source,
            destination,
        } => {
            let bytes = [encode_unix_name(source)?, encode_unix_name(destination)?].concat();
            Some((PROXY, AF_UNIX | transport_code(*transport), bytes))
        }
    }
}

fn encode_unix_name(name: &[u8]) -> Option<[u8; UNIX_NAME_LEN]> {
    let mut field = [0; UNIX_NAME_LEN];
    field.get_mut(..name.len())?.copy_from_slice(name);
    Some(field)
}

fn transport_code(transport: Transport) -> u8 {
    match transport {
        Transport::Stream => STREAM,
        Transport::Datagram => DATAGRAM,
    }
}
