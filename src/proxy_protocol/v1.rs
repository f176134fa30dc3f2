//! Version 1: `PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n`.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::{ProxyAddresses, ProxyHeader, ProxyHeaderError, ProxyHeaderVersion, Transport};

/// What it begins with; a header of the other version never does.
pub(super) const FIRST_BYTE: u8 = b'P';

const SIGNATURE: &[u8] = b"PROXY ";
const CRLF: &[u8] = b"\r\n";

/// Of the whole line, its end included.
const MAX_LINE_LEN: usize = 107;

/// So many bytes certainly belong to the header yet. Its end is seen only when it is there, so that
/// is one at a time.
pub(super) fn bytes_needed(bytes: &[u8]) -> Result<usize, ProxyHeaderError> {
    let begun = bytes
        .iter()
        .zip(SIGNATURE)
        .all(|(byte, wanted)| byte == wanted);
    match bytes {
        _ if !begun => Err(ProxyHeaderError::Signature),
        [.., b'\r', b'\n'] => Ok(0),
        [.., b'\r', _] | [.., b'\n'] => Err(ProxyHeaderError::Syntax),
        _ if bytes.len() >= MAX_LINE_LEN => Err(ProxyHeaderError::TooLong),
        _ => Ok(1),
    }
}

/// Parses a complete line.
pub(super) fn parse(line: &[u8]) -> Result<ProxyHeader, ProxyHeaderError> {
    let line = line
        .strip_prefix(SIGNATURE)
        .and_then(|line| line.strip_suffix(CRLF));
    let mut words = line
        .ok_or(ProxyHeaderError::Syntax)?
        .split(|&byte| byte == b' ');
    let origin = match words.next() {
        // Whatever follows is to be ignored.
        Some(b"UNKNOWN") => ProxyAddresses::Unknown,
        Some(b"TCP4") => parse_addresses::<Ipv4Addr>(words)?,
        Some(b"TCP6") => parse_addresses::<Ipv6Addr>(words)?,
        _ => return Err(ProxyHeaderError::Syntax),
    };
    Ok(ProxyHeader {
        version: ProxyHeaderVersion::V1,
        addresses: origin,
        tlvs: Vec::new(),
    })
}

/// The line for this origin. Where client and destination are of different families, both are written
/// as IPv6.
pub(super) fn write(origin: &ProxyAddresses) -> Vec<u8> {
    match origin {
        ProxyAddresses::Inet {
            transport: Transport::Stream,
            source,
            destination,
        } => match (source.ip(), destination.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                format_line("TCP4", (from, source), (to, destination))
            }
            (from, to) => format_line("TCP6", (to_ipv6(from), source), (to_ipv6(to), destination)),
        },
        _ => b"PROXY UNKNOWN\r\n".to_vec(),
    }
}

fn format_line<T: Display>(family: &str, from: (T, &SocketAddr), to: (T, &SocketAddr)) -> Vec<u8> {
    let ((from, source), (to, destination)) = (from, to);
    let (sent_from, sent_to) = (source.port(), destination.port());
    format!("PROXY {family} {from} {to} {sent_from} {sent_to}\r\n").into_bytes()
}

pub(super) fn to_ipv6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

/// Two addresses and two ports, and nothing more.
fn parse_addresses<'a, T: FromStr + Into<IpAddr>>(
    mut words: impl Iterator<Item = &'a [u8]>,
) -> Result<ProxyAddresses, ProxyHeaderError> {
    let mut address = || utf8(words.next()?)?.parse::<T>().ok().map(Into::into);
    let (from, to) = (address(), address());
    let mut port = || parse_port(utf8(words.next()?)?);
    let (sent_from, sent_to) = (port(), port());
    match (from, to, sent_from, sent_to, words.next()) {
        (Some(from), Some(to), Some(sent_from), Some(sent_to), None) => Ok(ProxyAddresses::Inet {
            transport: Transport::Stream,
            source: SocketAddr::new(from, sent_from),
            destination: SocketAddr::new(to, sent_to),
        }),
        _ => Err(ProxyHeaderError::Syntax),
    }
}

fn utf8(word: &[u8]) -> Option<&str> {
    str::from_utf8(word).ok()
}

/// Decimal, in its only form: without a sign or a zero before it.
fn parse_port(text: &str) -> Option<u16> {
    let plain = text == "0" || text.starts_with(|first: char| matches!(first, '1'..='9'));
    text.parse().ok().filter(|_| plain)
}
