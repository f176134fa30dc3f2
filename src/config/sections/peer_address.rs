//! The address of a peer: IP address and port, host name and port, or the path of a Unix socket.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use super::socket::MAX_SOCKET_PATH;
use crate::config::fields::text;
use crate::config::raw::YamlNode;
use crate::config::report::quote;
use crate::config::values::InvalidValue;

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

/// The address and its text, which is the default label.
pub(super) fn address(node: &YamlNode) -> Result<(PeerAddress, String), InvalidValue> {
    let text = text(node, "an address like `10.0.0.1:8080`")?;
    let address = parse_address(text).map_err(|help| {
        (
            format!("{} is not the address of a peer", quote(text)),
            help,
        )
    })?;
    Ok((address, text.to_owned()))
}

/// Whether `text` can be the address of a peer.
pub(crate) fn is_address(text: &str) -> bool {
    parse_address(text).is_ok()
}

/// Parses the text form of a peer's address.
///
/// # Errors
/// What to write instead.
pub(crate) fn parse_address(text: &str) -> Result<PeerAddress, String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return if address.port() == 0 {
            Err(port_help())
        } else {
            Ok(PeerAddress::Ip(address))
        };
    }
    if let Some(path) = text.strip_prefix("unix:") {
        return parse_socket_path(path).map(PeerAddress::Unix);
    }
    refuse_url(text)?;
    let (host, port) = split_host_port(text)?;
    let port = port
        .parse::<u16>()
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(port_help)?;
    check_host_name(host)?;
    Ok(PeerAddress::Name(host.to_ascii_lowercase(), port))
}

fn parse_socket_path(path: &str) -> Result<PathBuf, String> {
    let example = "as in `unix:/run/app.sock`";
    let odd = |c: char| c.is_control() || c.is_whitespace();
    if !path.starts_with('/') || path.ends_with('/') || path.starts_with("//") {
        Err(format!(
            "write the absolute path of a Unix socket, {example}"
        ))
    } else if path.len() > MAX_SOCKET_PATH {
        Err(format!(
            "the path of a Unix socket has at most {MAX_SOCKET_PATH} bytes"
        ))
    } else if path.contains(odd) {
        Err(format!("use a path without spaces, {example}"))
    } else {
        Ok(PathBuf::from(path))
    }
}

fn port_help() -> String {
    "a port is a number from 1 to 65535".to_owned()
}

fn refuse_url(text: &str) -> Result<(), String> {
    if let Some((scheme, rest)) = text.split_once("://") {
        let host = rest.split('/').next().unwrap_or_default();
        let port = if scheme == "https" { ":443" } else { ":80" };
        let port = if host.contains(':') { "" } else { port };
        let help = format!(
            "write only the host and the port: {}",
            quote(&format!("{host}{port}"))
        );
        return Err(help);
    }
    match text.split_once('/') {
        Some(("", _)) => Err(format!(
            "for a Unix socket write {}",
            quote(&format!("unix:{text}"))
        )),
        Some((host, _)) => Err(format!("a peer has no path: {}", quote(host))),
        None => Ok(()),
    }
}

fn split_host_port(text: &str) -> Result<(&str, &str), String> {
    let brackets = "an IPv6 address has brackets and a port, in quotes: `\"[2001:db8::1]:8080\"`";
    if text.trim_matches(['[', ']']).parse::<Ipv6Addr>().is_ok() {
        return Err(brackets.to_owned());
    }
    match text.rsplit_once(':') {
        None if text.parse::<u16>().is_ok() => Err(format!("add the host: `127.0.0.1:{text}`")),
        None => Err(format!(
            "add the port, as in {}",
            quote(&format!("{text}:80"))
        )),
        Some(("", port)) => Err(format!(
            "add the host: {}",
            quote(&format!("127.0.0.1:{port}"))
        )),
        Some((host, _)) if host.contains(':') && !host.starts_with('[') => Err(brackets.to_owned()),
        Some(parts) => Ok(parts),
    }
}

/// RFC 1123 §2.1, plus `_`, which names of containers may have.
pub(super) fn check_host_name(host: &str) -> Result<(), String> {
    let labels = host.strip_suffix('.').unwrap_or(host).split('.');
    if labels
        .clone()
        .next_back()
        .is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()))
    {
        return Err(format!(
            "{} is not an IPv4 address: four numbers from 0 to 255",
            quote(host)
        ));
    }
    if host.starts_with('[') {
        return Err(format!(
            "{} is not an IPv6 address in brackets",
            quote(host)
        ));
    }
    let bad = labels.clone().find(|label| !is_host_label(label));
    match bad {
        _ if host.len() > 253 => Err("a host name has at most 253 characters".to_owned()),
        Some(label) => Err(format!(
            "{} cannot be part of a host name: use 1 to 63 letters, digits, or `-` between them",
            quote(label)
        )),
        None => Ok(()),
    }
}

fn is_host_label(label: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let hyphens = label.starts_with('-') || label.ends_with('-');
    (1..=63).contains(&label.len()) && !hyphens && label.bytes().all(good)
}
