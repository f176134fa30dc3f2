//! Version 1, a line of text: `PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n`.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::addresses::{ProxyAddresses, Transport, to_ipv6};
use super::error::ProxyHeaderError;

/// The first byte of a version 1 header; it distinguishes the versions.
pub(super) const FIRST_BYTE: u8 = b'P';

const SIGNATURE: &[u8] = b"PROXY ";
const CRLF: &[u8] = b"\r\n";

/// The longest line, with its CRLF; bytes.
const MAX_LINE_LEN: usize = 107;

/// The number of further bytes that certainly belong to the header: one at a time, because the length
/// is known only at its end.
pub(super) fn bytes_needed(bytes: &[u8]) -> Result<usize, ProxyHeaderError> {
    let signature_matches = bytes
        .iter()
        .zip(SIGNATURE)
        .all(|(byte, wanted)| byte == wanted);
    match bytes {
        _ if !signature_matches => Err(ProxyHeaderError::Signature),
        [.., b'\r', b'\n'] => Ok(0),
        [.., b'\r', _] | [.., b'\n'] => Err(ProxyHeaderError::Syntax),
        _ if bytes.len() >= MAX_LINE_LEN => Err(ProxyHeaderError::TooLong),
        _ => Ok(1),
    }
}

/// Parses a complete line.
pub(super) fn parse(line: &[u8]) -> Result<ProxyAddresses, ProxyHeaderError> {
    let line = line
        .strip_prefix(SIGNATURE)
        .and_then(|line| line.strip_suffix(CRLF));
    let mut words = line
        .ok_or(ProxyHeaderError::Syntax)?
        .split(|&byte| byte == b' ');
    match words.next() {
        // The specification: the receiver must ignore the rest of the line.
        Some(b"UNKNOWN") => Ok(ProxyAddresses::Unknown),
        Some(b"TCP4") => parse_addresses::<Ipv4Addr>(words),
        Some(b"TCP6") => parse_addresses::<Ipv6Addr>(words),
        _ => Err(ProxyHeaderError::Syntax),
    }
}

/// Formats the line. If the source is IPv4 and the destination IPv6 or vice versa, both are written as
/// IPv6.
pub(super) fn write(addresses: &ProxyAddresses) -> Vec<u8> {
    match addresses {
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
    let (from_port, to_port) = (source.port(), destination.port());
    format!("PROXY {family} {from} {to} {from_port} {to_port}\r\n").into_bytes()
}

/// Parses two addresses and two ports; nothing may follow.
fn parse_addresses<'a, T: FromStr + Into<IpAddr>>(
    mut words: impl Iterator<Item = &'a [u8]>,
) -> Result<ProxyAddresses, ProxyHeaderError> {
    let mut address = || utf8(words.next()?)?.parse::<T>().ok().map(Into::into);
    let (from, to) = (address(), address());
    let mut port = || parse_port(utf8(words.next()?)?);
    let (from_port, to_port) = (port(), port());
    match (from, to, from_port, to_port, words.next()) {
        (Some(from), Some(to), Some(from_port), Some(to_port), None) => Ok(ProxyAddresses::Inet {
            transport: Transport::Stream,
            source: SocketAddr::new(from, from_port),
            destination: SocketAddr::new(to, to_port),
        }),
        _ => Err(ProxyHeaderError::Syntax),
    }
}

fn utf8(word: &[u8]) -> Option<&str> {
    str::from_utf8(word).ok()
}

/// Parses a decimal port without a sign or leading zeros, as the specification demands.
fn parse_port(text: &str) -> Option<u16> {
    let canonical = text == "0" || text.starts_with(|first: char| matches!(first, '1'..='9'));
    text.parse().ok().filter(|_| canonical)
}
