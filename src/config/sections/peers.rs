//! `peers`: the servers of an upstream.

use std::collections::HashMap;
use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use super::server_name;
use super::socket::MAX_SOCKET_PATH;
use crate::config::fields::{
    Fields, collect_until_full, items, parse_or_report, text, with_alternative,
};
use crate::config::raw::YamlNode;
use crate::config::report::{Problem, Problems, quote};
use crate::config::schema::SectionSchema;
use crate::config::span::Span;
use crate::config::values::{InvalidValue, number};
use crate::ring::{Dialect, Member, Weight};

/// A server of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// The address to connect to.
    pub address: PeerAddress,
    /// Its name, unique in the upstream; places it on the ring unless there is an `id`.
    pub label: String,
    /// Its share of the keys, relative to the other peers.
    pub weight: Weight,
    /// The text that the ring's dialect hashes instead of the label.
    pub id: Option<String>,
    /// The DNS name or IP address for SNI and certificate verification; `None`: the host of the
    /// client's request, or no TLS.
    pub server_name: Option<String>,
}

impl PeerConfig {
    /// The peer as a member of the ring.
    pub fn member(&self) -> Member<'_> {
        Member {
            label: &self.label,
            id: self.id.as_deref(),
            weight: self.weight,
        }
    }
}

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

const HELP: &str = "list the servers, as in `peers: [10.0.0.1:8080, 10.0.0.2:8080]`";
const MAX_LABEL: usize = 255;

/// The peers of an upstream.
pub(super) fn read(upstream: &Fields<'_>, dialect: Dialect) -> Vec<SpannedPeer> {
    let Some(node) = upstream.require("peers", HELP) else {
        return Vec::new();
    };
    let problems = upstream.problems;
    let peers = collect_until_full(items(node, HELP, problems), problems, |item| {
        peer(item, problems)
    });
    refuse_duplicate_labels(&peers, problems);
    check_ring_ids(dialect, &peers, problems);
    warn_positional_ids(dialect, &peers, problems);
    peers
}

/// A peer with the spans of its label, `id` and `server_name`; without these keys, of its address.
pub(super) struct SpannedPeer {
    pub(super) peer: PeerConfig,
    pub(super) address_span: Span,
    pub(super) label_span: Span,
    id_span: Span,
    pub(super) server_name_span: Span,
}

pub(super) static PEER: SectionSchema = SectionSchema {
    title: "a peer",
    path: "upstreams.NAME.peers[]",
    example: "{address: 10.0.0.1:8080, weight: 2}",
    keys: &["address", "label", "weight", "id", "server_name"],
    ..SectionSchema::EMPTY
};

fn peer(node: &YamlNode, problems: &Problems) -> Option<SpannedPeer> {
    if node.text().is_some() {
        let (address, label) = parse_or_report(node, problems, address)?;
        let peer = PeerConfig {
            address,
            label,
            weight: Weight::ONE,
            id: None,
            server_name: None,
        };
        return Some(SpannedPeer {
            peer,
            address_span: node.error_span(),
            label_span: node.error_span(),
            id_span: node.error_span(),
            server_name_span: node.error_span(),
        });
    }
    let fields = Fields::open(node, &PEER, problems)?;
    let weight = fields.read("weight", weight).unwrap_or(Weight::ONE);
    let label_given = fields.read("label", label);
    let id_given = fields.read("id", id);
    let at = fields.require("address", "write `{address: 10.0.0.1:8080}`")?;
    let (address, written) = parse_or_report(at, problems, address)?;
    let peer = PeerConfig {
        address,
        label: label_given.unwrap_or(written),
        weight,
        id: id_given,
        server_name: own_server_name(&fields),
    };
    let label_span = fields.get("label").unwrap_or(at).error_span();
    let id_span = fields.get("id").map_or(label_span, YamlNode::error_span);
    let server_name_span = fields.get("server_name").unwrap_or(at).error_span();
    Some(SpannedPeer {
        peer,
        address_span: at.error_span(),
        label_span,
        id_span,
        server_name_span,
    })
}

/// `server_name` of a peer. An invalid one is reported, and returned empty so that it does not count as
/// missing.
fn own_server_name(fields: &Fields<'_>) -> Option<String> {
    fields.get("server_name")?;
    Some(
        fields
            .read("server_name", server_name::read)
            .unwrap_or_default(),
    )
}

fn weight(node: &YamlNode) -> Result<Weight, InvalidValue> {
    let most = u64::from(Weight::MAX.get());
    let weight = number("weight", node, &(1..=most)).map_err(|(message, help)| {
        let help = if node.is_plain("0") {
            with_alternative(help, "remove the peer")
        } else {
            help
        };
        (message, help)
    })?;
    let weight = u16::try_from(weight).ok().and_then(Weight::new);
    weight.ok_or_else(|| {
        (
            "the weight is out of range".to_owned(),
            format!("use 1 to {most}"),
        )
    })
}

/// A label. Without whitespace: tables of the command line are separated by tabs.
fn label(node: &YamlNode) -> Result<String, InvalidValue> {
    let label = text(node, "a label")?;
    let bad = label.is_empty() || label.len() > MAX_LABEL;
    if bad || label.contains(|c: char| c.is_control() || c.is_whitespace()) {
        let help = format!("use 1 to {MAX_LABEL} bytes without spaces");
        return Err((format!("{} cannot be a label", quote(label)), help));
    }
    Ok(label.to_owned())
}

/// An id: any text, since other systems allow more than a label.
fn id(node: &YamlNode) -> Result<String, InvalidValue> {
    let id = text(node, "an id")?;
    if id.is_empty() || id.len() > MAX_LABEL {
        let help = format!("use 1 to {MAX_LABEL} bytes");
        return Err((format!("{} cannot be an id", quote(id)), help));
    }
    Ok(id.to_owned())
}

/// Refuses ids that the dialect cannot hash, and ids that two peers share.
fn check_ring_ids(dialect: Dialect, peers: &[SpannedPeer], problems: &Problems) {
    for SpannedPeer { peer, id_span, .. } in peers {
        if let Err(error) = dialect.hash_names(&[peer.member()]) {
            let help = "the dialect hashes the server's number; use a number, or remove `id` to number the peers in order";
            problems.add(Problem::error(error.to_string(), *id_span).help(help));
        }
    }
    let members: Vec<_> = peers.iter().map(|spanned| spanned.peer.member()).collect();
    let names = dialect.hash_names(&members).unwrap_or_default();
    let mut seen = HashMap::new();
    for (spanned, name) in peers.iter().zip(&names) {
        let first = seen.insert(name, spanned);
        // Equal labels are reported by `refuse_duplicate_labels`.
        if let Some(first) = first.filter(|first| first.peer.label != spanned.peer.label) {
            let message = format!("the ring hashes two peers as {}", quote(name));
            let problem =
                Problem::error(message, spanned.id_span).secondary(first.id_span, "first here");
            problems.add(problem.help("give each an `id` of its own"));
        }
    }
}

/// Warns of dialects that number the peers by their position in the list.
fn warn_positional_ids(dialect: Dialect, peers: &[SpannedPeer], problems: &Problems) {
    let without_id = peers.iter().find(|spanned| spanned.peer.id.is_none());
    if let (true, true, Some(first)) = (dialect.numbers_by_order(), peers.len() > 1, without_id) {
        let message = format!(
            "dialect `{}` numbers peers without `id` by position: if this one is removed, others are renumbered and their keys move",
            dialect.name()
        );
        let help = "add an `id` to every peer: its present number in the list, from 1";
        problems.add(Problem::warning(message, first.id_span).help(help));
    }
}

fn refuse_duplicate_labels(peers: &[SpannedPeer], problems: &Problems) {
    let mut seen: HashMap<&str, Span> = HashMap::new();
    for SpannedPeer {
        peer, label_span, ..
    } in peers
    {
        if let Some(first) = seen.get(peer.label.as_str()) {
            let message = format!("two peers with the label {}", quote(&peer.label));
            let problem = Problem::error(message, *label_span).secondary(*first, "first here");
            problems.add(problem.help(
                "the label places a peer on the ring: remove one peer, or give it a `label` of its own",
            ));
        } else {
            seen.insert(&peer.label, *label_span);
        }
    }
}

/// The address and its text, which is the default label.
fn address(node: &YamlNode) -> Result<(PeerAddress, String), InvalidValue> {
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

/// The error is a help text.
fn parse_address(text: &str) -> Result<PeerAddress, String> {
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
fn check_host_name(host: &str) -> Result<(), String> {
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
