//! Version 2: a signature, 4 bytes that say what follows and for how long, addresses, extensions.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::tlv::{self, ProxyTlv};
use super::v1::to_ipv6;
use super::{
    MAX_LENGTH, ProxyAddresses, ProxyHeader, ProxyHeaderError, ProxyHeaderVersion, Transport,
};

/// What it begins with; a header of the other version never does.
pub(super) const FIRST_BYTE: u8 = b'\r';

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and transport, length of the rest.
const FIXED_LEN: usize = 16;
/// Of the fields for a Unix socket's name.
const UNIX_NAME_LEN: usize = 108;

const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;

const AF_UNSPEC: u8 = 0x00;
const STREAM: u8 = 0x01;
const DATAGRAM: u8 = 0x02;
const AF_INET: u8 = 0x10;
const AF_INET6: u8 = 0x20;
const AF_UNIX: u8 = 0x30;

/// So many bytes certainly belong to the header yet.
pub(super) fn bytes_needed(bytes: &[u8]) -> Result<usize, ProxyHeaderError> {
    let begun = bytes
        .iter()
        .zip(&SIGNATURE)
        .all(|(byte, wanted)| byte == wanted);
    if !begun {
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
pub(super) fn parse(bytes: &[u8]) -> Result<ProxyHeader, ProxyHeaderError> {
    let (fixed, mut rest) = bytes
        .split_first_chunk::<FIXED_LEN>()
        .ok_or(ProxyHeaderError::Syntax)?;
    let [.., command, family, _, _] = *fixed;
    let header = |origin, extensions| ProxyHeader {
        version: ProxyHeaderVersion::V2,
        addresses: origin,
        tlvs: extensions,
    };
    match command {
        // Whatever follows is to be discarded.
        LOCAL => Ok(header(ProxyAddresses::Local, Vec::new())),
        PROXY => {
            let origin = parse_addresses(family, &mut rest)?;
            Ok(header(origin, tlv::parse(bytes, rest)?))
        }
        _ => Err(ProxyHeaderError::Syntax),
    }
}

/// The header as it is sent; `None`: it would be too long.
pub(super) fn write(
    origin: &ProxyAddresses,
    extensions: &[ProxyTlv],
    checksum: bool,
) -> Option<Vec<u8>> {
    let (command, family, addresses) = encode_addresses(origin)?;
    let mut bytes = SIGNATURE.to_vec();
    bytes.extend([command, family, 0, 0]);
    bytes.extend(addresses);
    for extension in extensions {
        extension.write(&mut bytes)?;
    }
    let sum = checksum.then(|| tlv::reserve_checksum(&mut bytes));
    let length = u16::try_from(bytes.len().checked_sub(FIXED_LEN)?).ok()?;
    let place = bytes.get_mut(FIXED_LEN - 2..FIXED_LEN)?;
    place.copy_from_slice(&length.to_be_bytes());
    if let Some(place) = sum {
        tlv::fill_checksum(&mut bytes, place);
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
    let (sent_from, sent_to) = (port()?, port()?);
    Ok(ProxyAddresses::Inet {
        transport,
        source: SocketAddr::new(from, sent_from),
        destination: SocketAddr::new(to, sent_to),
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

/// Command, family with transport, and the addresses. Where client and destination are of different
/// families, both are written as IPv6.
fn encode_addresses(origin: &ProxyAddresses) -> Option<(u8, u8, Vec<u8>)> {
    match origin {
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
