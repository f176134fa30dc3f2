//! Version 2: a signature, 4 bytes that say what follows and for how long, addresses, extensions.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::extension::{self, Extension};
use super::text::v6;
use super::{Header, MAX_LENGTH, Malformed, Origin, Transport, Version};

/// What it begins with; a header of the other version never does.
pub(super) const FIRST: u8 = b'\r';

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and transport, length of the rest.
const FIXED: usize = 16;
/// Of the fields for a Unix socket's name.
const NAME: usize = 108;

const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;

const UNSPECIFIED: u8 = 0x00;
const STREAM: u8 = 0x01;
const DATAGRAM: u8 = 0x02;
const V4: u8 = 0x10;
const V6: u8 = 0x20;
const UNIX: u8 = 0x30;

/// So many bytes certainly belong to the header yet.
pub(super) fn missing(bytes: &[u8]) -> Result<usize, Malformed> {
    let begun = bytes
        .iter()
        .zip(&SIGNATURE)
        .all(|(byte, wanted)| byte == wanted);
    if !begun {
        return Err(Malformed::Signature);
    }
    let Some([_, _, high, low]) = bytes.get(SIGNATURE.len()..FIXED) else {
        return Ok(FIXED - bytes.len());
    };
    let length = FIXED + usize::from(u16::from_be_bytes([*high, *low]));
    if length > MAX_LENGTH {
        return Err(Malformed::TooLong);
    }
    Ok(length.saturating_sub(bytes.len()))
}

/// Parses a complete header.
pub(super) fn parse(bytes: &[u8]) -> Result<Header, Malformed> {
    let (fixed, mut rest) = bytes
        .split_first_chunk::<FIXED>()
        .ok_or(Malformed::Syntax)?;
    let [.., command, family, _, _] = *fixed;
    let header = |origin, extensions| Header {
        version: Version::Two,
        origin,
        extensions,
    };
    match command {
        // Whatever follows is to be discarded.
        LOCAL => Ok(header(Origin::Local, Vec::new())),
        PROXY => {
            let origin = origin(family, &mut rest)?;
            Ok(header(origin, extension::parse(bytes, rest)?))
        }
        _ => Err(Malformed::Syntax),
    }
}

/// The header as it is sent; `None`: it would be too long.
pub(super) fn write(origin: &Origin, extensions: &[Extension], checksum: bool) -> Option<Vec<u8>> {
    let (command, family, addresses) = addresses(origin)?;
    let mut bytes = SIGNATURE.to_vec();
    bytes.extend([command, family, 0, 0]);
    bytes.extend(addresses);
    for extension in extensions {
        extension.write(&mut bytes)?;
    }
    let sum = checksum.then(|| extension::reserve_checksum(&mut bytes));
    let length = u16::try_from(bytes.len().checked_sub(FIXED)?).ok()?;
    let place = bytes.get_mut(FIXED - 2..FIXED)?;
    place.copy_from_slice(&length.to_be_bytes());
    if let Some(place) = sum {
        extension::fill_checksum(&mut bytes, place);
    }
    Some(bytes).filter(|bytes| bytes.len() <= MAX_LENGTH)
}

fn origin(family: u8, rest: &mut &[u8]) -> Result<Origin, Malformed> {
    if family == UNSPECIFIED {
        return Ok(Origin::Unknown);
    }
    let transport = match family & 0x0f {
        STREAM => Transport::Stream,
        DATAGRAM => Transport::Datagram,
        _ => return Err(Malformed::Syntax),
    };
    match family & 0xf0 {
        V4 => internet(transport, rest, |octets: [u8; 4]| {
            Ipv4Addr::from(octets).into()
        }),
        V6 => internet(transport, rest, |octets: [u8; 16]| {
            Ipv6Addr::from(octets).into()
        }),
        UNIX => Ok(Origin::Unix {
            transport,
            source: name(rest)?,
            destination: name(rest)?,
        }),
        _ => Err(Malformed::Syntax),
    }
}

fn internet<const N: usize>(
    transport: Transport,
    rest: &mut &[u8],
    address: impl Fn([u8; N]) -> IpAddr,
) -> Result<Origin, Malformed> {
    let (from, to) = (address(take(rest)?), address(take(rest)?));
    let mut port = || take(rest).map(u16::from_be_bytes);
    let (sent_from, sent_to) = (port()?, port()?);
    Ok(Origin::Internet {
        transport,
        source: SocketAddr::new(from, sent_from),
        destination: SocketAddr::new(to, sent_to),
    })
}

fn name(rest: &mut &[u8]) -> Result<Vec<u8>, Malformed> {
    let field: [u8; NAME] = take(rest)?;
    let zeros = field.iter().rev().take_while(|&&byte| byte == 0).count();
    Ok(field.into_iter().take(NAME - zeros).collect())
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (taken, left) = rest.split_first_chunk().ok_or(Malformed::Syntax)?;
    *rest = left;
    Ok(*taken)
}

/// Command, family with transport, and the addresses. Where client and destination are of different
/// families, both are written as IPv6.
fn addresses(origin: &Origin) -> Option<(u8, u8, Vec<u8>)> {
    match origin {
        Origin::Local => Some((LOCAL, UNSPECIFIED, Vec::new())),
        Origin::Unknown => Some((PROXY, UNSPECIFIED, Vec::new())),
        Origin::Internet {
            transport,
            source,
            destination,
        } => {
            let (family, mut bytes) = match (source.ip(), destination.ip()) {
                (IpAddr::V4(from), IpAddr::V4(to)) => (V4, [from.octets(), to.octets()].concat()),
                (from, to) => (V6, [v6(from).octets(), v6(to).octets()].concat()),
            };
            bytes.extend(source.port().to_be_bytes());
            bytes.extend(destination.port().to_be_bytes());
            Some((PROXY, family | number(*transport), bytes))
        }
        Origin::Unix {
            transport,
            source,
            destination,
        } => {
            let bytes = [field(source)?, field(destination)?].concat();
            Some((PROXY, UNIX | number(*transport), bytes))
        }
    }
}

fn field(name: &[u8]) -> Option<[u8; NAME]> {
    let mut field = [0; NAME];
    field.get_mut(..name.len())?.copy_from_slice(name);
    Some(field)
}

fn number(transport: Transport) -> u8 {
    match transport {
        Transport::Stream => STREAM,
        Transport::Datagram => DATAGRAM,
    }
}
