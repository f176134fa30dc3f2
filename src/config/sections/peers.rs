//! `peers`: the servers of an upstream.

use std::collections::HashMap;

use super::peer_address::{PeerAddress, address};
use super::peer_sources::{self, SpannedSource};
use super::server_name;
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
    /// The source that has found it, an index into the upstream's `sources`; `None`: written in the configuration.
    pub source: Option<usize>,
    /// Whether its source no longer has it, or an operator has removed it: it drains, and is then forgotten.
    pub is_leaving: bool,
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

const HELP: &str = "list the servers, as in `peers: [10.0.0.1:8080, 10.0.0.2:8080]`";
const MAX_LABEL: usize = 255;

/// The peers of an upstream, and the sources of further ones.
pub(super) fn read(
    upstream: &Fields<'_>,
    dialect: Dialect,
) -> (Vec<SpannedPeer>, Vec<SpannedSource>) {
    let (mut peers, mut sources) = (Vec::new(), Vec::new());
    let Some(node) = upstream.require("peers", HELP) else {
        return (peers, sources);
    };
    let problems = upstream.problems;
    let items = items(node, HELP, problems).iter();
    for item in items.take_while(|_| !problems.is_full()) {
        if peer_sources::is_source(item) {
            sources.extend(peer_sources::source(item, problems));
        } else {
            peers.extend(peer(item, None, dialect, problems));
        }
    }
    peer_sources::refuse_duplicate_sources(&sources, problems);
    peer_sources::refuse_sources_without_ids(dialect, &sources, problems);
    refuse_duplicate_labels(&peers, problems);
    check_ring_ids(dialect, &peers, problems);
    warn_positional_ids(dialect, &peers, problems);
    (peers, sources)
}

/// The peers of a list that a source has found.
pub(super) fn read_found(
    items: &[YamlNode],
    dialect: Dialect,
    problems: &Problems,
) -> Vec<SpannedPeer> {
    let peers = collect_until_full(items, problems, |item| {
        if peer_sources::is_source(item) {
            let problem = Problem::error("a source within a list of peers", item.error_span());
            problems.add(problem.help("list it in `peers` of the upstream instead"));
            return None;
        }
        peer(item, None, dialect, problems)
    });
    refuse_duplicate_labels(&peers, problems);
    require_ids(dialect, &peers, problems);
    check_ring_ids(dialect, &peers, problems);
    peers
}

/// The peer of a source that has each peer as an item of its own. `name` is its label unless the item has one.
pub(super) fn read_single(
    item: &YamlNode,
    name: &str,
    dialect: Dialect,
    problems: &Problems,
) -> Option<SpannedPeer> {
    let peer = peer(item, Some(name), dialect, problems)?;
    let only = std::slice::from_ref(&peer);
    require_ids(dialect, only, problems);
    check_ring_ids(dialect, only, problems);
    if let Err((message, help)) = check_label(&peer.peer.label) {
        problems.add(Problem::error(message, peer.label_span).help(help));
    }
    Some(peer)
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

/// `name` is its label unless it has one; `None`: its address is.
fn peer(
    node: &YamlNode,
    name: Option<&str>,
    dialect: Dialect,
    problems: &Problems,
) -> Option<SpannedPeer> {
    if node.text().is_some() {
        let (address, written) = parse_or_report(node, problems, address)?;
        let peer = PeerConfig {
            address,
            label: name.map_or(written, str::to_owned),
            weight: Weight::ONE,
            id: None,
            server_name: None,
            source: None,
            is_leaving: false,
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
    let weight = fields.read("weight", |node| weight(node, dialect));
    let weight = weight.unwrap_or(Weight::ONE);
    let label_given = fields.read("label", label);
    let id_given = fields.read("id", id);
    let at = fields.require("address", "write `{address: 10.0.0.1:8080}`")?;
    let (address, written) = parse_or_report(at, problems, address)?;
    let peer = PeerConfig {
        address,
        label: label_given.unwrap_or_else(|| name.map_or(written, str::to_owned)),
        weight,
        id: id_given,
        server_name: own_server_name(&fields),
        source: None,
        is_leaving: false,
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

/// A weight; with a fraction only if the dialect places it.
pub(super) fn weight(node: &YamlNode, dialect: Dialect) -> Result<Weight, InvalidValue> {
    let Some(text) = node.plain().filter(|text| text.contains('.')) else {
        return whole_weight(node);
    };
    let least = dialect.least_weight();
    if !dialect.allows_fractions() {
        return whole_weight(node).map_err(|(message, help)| {
            let help =
                format!("{help}; only dialects `varnish` and `ats` have weights with a fraction");
            (message, help)
        });
    }
    let weight = thousandths(text).and_then(Weight::from_thousandths);
    weight.filter(|weight| *weight >= least).ok_or_else(|| {
        (
            format!(
                "{} is not a weight of dialect `{}`",
                quote(text),
                dialect.name()
            ),
            format!(
                "use {least} to {}, with at most three decimals",
                Weight::MAX
            ),
        )
    })
}

/// A decimal fraction in thousandths.
fn thousandths(text: &str) -> Option<u32> {
    let (whole, decimals) = text.split_once('.')?;
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if decimals.is_empty() || decimals.len() > 3 || !all_digits(decimals) || !all_digits(whole) {
        return None;
    }
    let fraction: u32 = format!("{decimals:0<3}").parse().ok()?;
    let whole: u32 = whole.parse().ok()?;
    whole.checked_mul(1000)?.checked_add(fraction)
}

fn whole_weight(node: &YamlNode) -> Result<Weight, InvalidValue> {
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
    check_label(label).map(|()| label.to_owned())
}

fn check_label(label: &str) -> Result<(), InvalidValue> {
    let bad = label.is_empty() || label.len() > MAX_LABEL;
    if bad || label.contains(|c: char| c.is_control() || c.is_whitespace()) {
        let help = format!("use 1 to {MAX_LABEL} bytes without spaces");
        return Err((format!("{} cannot be a label", quote(label)), help));
    }
    Ok(())
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
            problems.add(problem.help(shared_id_help(dialect, &first.peer, &spanned.peer)));
        }
    }
}

fn shared_id_help(dialect: Dialect, first: &PeerConfig, second: &PeerConfig) -> String {
    if dialect.ignores_ports() && (first.id.is_none() || second.id.is_none()) {
        return format!(
            "dialect `{}` hashes a peer without `id` by its host, without the port: give each an `id`, the parent's `hash_string`; without one, Traffic Server gives the points of a host to its first parent",
            dialect.name()
        );
    }
    "give each an `id` of its own".to_owned()
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

/// Refuses peers without `id` in a list that changes by itself, if the dialect numbers them by their position: each
/// change would renumber the peers after it.
fn require_ids(dialect: Dialect, peers: &[SpannedPeer], problems: &Problems) {
    let without_id = peers.iter().filter(|spanned| spanned.peer.id.is_none());
    for spanned in without_id.filter(|_| dialect.numbers_by_order()) {
        let message = format!(
            "dialect `{}` numbers peers without `id` by position, which changes with the list",
            dialect.name()
        );
        let problem = Problem::error(message, spanned.id_span);
        problems.add(problem.help("add an `id`: the number of the server"));
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
