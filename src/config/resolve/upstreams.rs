//! `upstreams`: the named groups of peers.

use std::collections::BTreeMap;

use super::{
    failure_policy, health, host_header, key, load_balancing, peers, proxy_protocol, ring,
    upstream_protocol,
};
use crate::config::credential_loader::CredentialLoader;
use crate::config::fields::{Fields, entries, entries_in_order};
use crate::config::raw::{YamlEntry, YamlNode};
use crate::config::report::{Problem, Problems, quote};
use crate::config::schema;
use crate::config::settings::{HostHeader, MissingKey, PeerConfig, UpstreamConfig};
use crate::config::span::Span;
use crate::config::values::percentage;
use crate::key::{KeySource, cookie_to_issue};

const HELP: &str = "write `upstreams:`, below it a name, and below that `peers:`";
const MAX_NAME: usize = 64;
const MISSING_KEY: &[(&str, MissingKey)] = &[
    ("round_robin", MissingKey::RoundRobin),
    ("reject", MissingKey::Reject),
];

/// The upstreams that could be read, and all names that were given, with their places.
pub(super) struct Upstreams<'a> {
    pub(super) resolved: BTreeMap<String, UpstreamConfig>,
    pub(super) names: Vec<(&'a str, Span)>,
    /// Every peer with its place.
    pub(super) peers: Vec<(PeerConfig, Span)>,
}

pub(super) fn read<'a>(root: &Fields<'a>, files: &mut CredentialLoader) -> Upstreams<'a> {
    let mut all = Upstreams {
        resolved: BTreeMap::new(),
        names: Vec::new(),
        peers: Vec::new(),
    };
    let Some(node) = root.require("upstreams", HELP) else {
        return all;
    };
    let Some(unique) = entries(node, "`upstreams`", || HELP.to_owned(), root.problems) else {
        return all;
    };
    if unique.is_empty() {
        root.error(node, "the map is empty", HELP);
    }
    for entry in entries_in_order(node)
        .iter()
        .take_while(|_| !root.problems.is_full())
    {
        all.names.push((&entry.key, entry.key_span));
        check_upstream_name(entry, root.problems);
        if let Some((upstream, places)) = upstream(&entry.value, files, root.problems) {
            all.peers.extend(upstream.peers.iter().cloned().zip(places));
            all.resolved.insert(entry.key.clone(), upstream);
        }
    }
    all
}

/// Names stand in URLs, metrics and on command lines.
fn check_upstream_name(entry: &YamlEntry, problems: &Problems) {
    let name = entry.key.as_str();
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.len() > MAX_NAME || !name.bytes().all(good) {
        let message = format!("{} cannot name an upstream", quote(name));
        let help = format!("use 1 to {MAX_NAME} letters, digits, `-`, `_` or `.`");
        problems.add(Problem::error(message, entry.key_span).help(help));
    }
}

fn upstream(
    node: &YamlNode,
    files: &mut CredentialLoader,
    problems: &Problems,
) -> Option<(UpstreamConfig, Vec<Span>)> {
    let fields = Fields::open(node, &schema::UPSTREAM, problems)?;
    let key = fields
        .get("key")
        .map_or_else(key::default, |node| key::read(node, problems));
    let missing_key = missing_key(&fields, &key);
    let dialect = fields
        .get("ring")
        .and_then(|node| ring::read(node, problems))
        .unwrap_or_default();
    let (link, name) = upstream_protocol::read(&fields, files);
    let mut written = peers::read(&fields, dialect);
    upstream_protocol::assign_server_names(&mut written, &link, name.as_ref(), problems);
    let (peers, spans): (Vec<_>, Vec<_>) = written.into_iter().unzip();
    ring::check_size(&fields, dialect, &peers);
    let upstream = UpstreamConfig {
        key,
        missing_key,
        dialect,
        health: health::health(&fields, &link, &peers),
        outlier_detection: failure_policy::outlier_detection(&fields),
        retry: failure_policy::retry(&fields),
        timeouts: failure_policy::timeouts(&fields),
        host_header: fields
            .read("host_header", host_header::read)
            .unwrap_or(HostHeader::Keep),
        proxy_protocol: proxy_protocol::send_proxy(&fields),
        max_moved: fields.or_off("max_moved", None, percentage),
        bounded_load: load_balancing::bounded_load(&fields),
        slow_start: load_balancing::slow_start(&fields),
        drain: load_balancing::drain(&fields),
        hot_keys: load_balancing::hot_keys(&fields),
        flap_damping: load_balancing::flap_damping(&fields),
        close_moved_streams: load_balancing::close_moved_streams(&fields),
        grpc_web: upstream_protocol::grpc_web(&fields),
        transport: link,
        peers,
    };
    Some((upstream, spans))
}

fn missing_key(fields: &Fields<'_>, key: &[KeySource]) -> MissingKey {
    let missing_key = fields.choice("missing_key", MissingKey::RoundRobin, MISSING_KEY);
    if let (MissingKey::Reject, Some((_, sticky)), Some(node)) =
        (missing_key, cookie_to_issue(key), fields.get("missing_key"))
    {
        let message = "no request is without a key";
        let help = format!("one without the cookie {} is given it", quote(&sticky.name));
        let problem = Problem::warning(message, node.error_span());
        fields.problems.add(problem.help(help));
    }
    missing_key
}
