//! `upstreams`: the named groups of peers.

use std::collections::BTreeMap;

use super::peer_sources::SpannedSource;
use super::peers::SpannedPeer;
use super::{
    BoundedLoadConfig, DiscoveryConfig, HealthConfig, HostHeader, HotKeysConfig,
    MovedStreamsConfig, PeerConfig, PeerSource, RetryConfig, SendProxyConfig, SessionDrainConfig,
    SlowStartConfig, TimeoutsConfig, TransportConfig, health, host_header, key, load_balancing,
    outlier_detection, peer_sources, peers, proxy_protocol, retry, ring, timeouts,
    upstream_protocol,
};
use crate::config::credential_loader::CredentialLoader;
use crate::config::fields::{Fields, entries, entries_in_order};
use crate::config::peer_changes::ChangedPeers;
use crate::config::raw::{YamlEntry, YamlNode};
use crate::config::report::{Problem, Problems, quote};
use crate::config::schema::SectionSchema;
use crate::config::span::Span;
use crate::config::values::percentage;
use crate::key::{KeySource, cookie_to_issue};
use crate::policy::ejection::EjectionPolicy;
use crate::policy::flap_damping;
use crate::predict::LoadRules;
use crate::ring::{Dialect, Member};

/// A named group of peers that share policy.
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamConfig {
    /// The key sources in order; the first one that a request has gives the key.
    pub key: Vec<KeySource>,
    /// The rule for requests that have none of the sources.
    pub missing_key: MissingKey,
    /// The ring dialect: how labels and keys are hashed.
    pub dialect: Dialect,
    /// The peers, labels unique; at least one as configured without sources.
    pub peers: Vec<PeerConfig>,
    /// The sources of further peers, each once.
    pub sources: Vec<PeerSource>,
    /// When the lists of the sources come into force.
    pub discovery: DiscoveryConfig,
    /// Operators' changes of the peers, which `peers` has.
    pub(crate) changed: ChangedPeers,
    /// Active health checks; `None`: off, every peer counts as up.
    pub health: Option<HealthConfig>,
    /// Ejection after failures of real requests; `None`: off.
    pub outlier_detection: Option<EjectionPolicy>,
    /// Retries of failed attempts on other peers.
    pub retry: RetryConfig,
    /// Deadlines of each step of an exchange with a peer.
    pub timeouts: TimeoutsConfig,
    /// The `Host` header sent to peers.
    pub host_header: HostHeader,
    /// PROXY header sent at the start of each connection to a peer; `None`: none.
    pub proxy_protocol: Option<SendProxyConfig>,
    /// The largest share of the keys that a reload may move between peers, 0.0 ..= 1.0; a reload that
    /// would move more is refused. `None`: no limit.
    pub max_moved: Option<f64>,
    /// Bound on a peer's requests in flight, relative to its fair share; `None`: no bound.
    pub bounded_load: Option<BoundedLoadConfig>,
    /// Gradual handover of keys to a new or recovered peer; `None`: all at once.
    pub slow_start: Option<SlowStartConfig>,
    /// Keys that a draining peer keeps for a while; `None`: all move at once.
    pub drain: Option<SessionDrainConfig>,
    /// Distribution of very frequent keys over several peers; `None`: off.
    pub hot_keys: Option<HotKeysConfig>,
    /// Suppression of peers that alternate between up and down; `None`: off.
    pub flap_damping: Option<flap_damping::FlapDampingPolicy>,
    /// Closing of long streams on a peer that no longer owns their key; `None`: off.
    pub close_moved_streams: Option<MovedStreamsConfig>,
    /// Protocol and TLS of the connections to its peers.
    pub transport: TransportConfig,
    /// Whether gRPC-Web calls are translated to gRPC.
    pub grpc_web: bool,
}

impl UpstreamConfig {
    /// The peers as members of the ring.
    pub fn members(&self) -> impl Iterator<Item = Member<'_>> {
        self.peers.iter().map(PeerConfig::member)
    }

    /// The rules that send requests to a peer other than the key's owner.
    pub fn rules(&self) -> LoadRules {
        LoadRules {
            bound: self.bounded_load.map(|load| load.factor),
            wait: self.bounded_load.and_then(|load| load.wait),
            slow_start: self.slow_start.map(|slow_start| slow_start.duration),
            drain: self.drain.is_some(),
            hot_keys: self.hot_keys.map(|hot| (hot.threshold, hot.spread)),
        }
    }

    /// Whether both compute the same hash for every request.
    pub fn hashes_like(&self, other: &Self) -> bool {
        self.key == other.key && self.dialect.hashes_keys_like(other.dialect)
    }
}

/// The rule for a request that has none of the upstream's key sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingKey {
    /// Sends it to the available peers in turn.
    RoundRobin,
    /// Answers 400.
    Reject,
}

const HELP: &str = "write a name below `upstreams:`, and `peers:` below the name";
const MAX_NAME: usize = 64;

const MISSING_KEY: &[(&str, MissingKey)] = &[
    ("round_robin", MissingKey::RoundRobin),
    ("reject", MissingKey::Reject),
];

/// The valid upstreams, and the names of all, with their spans.
pub(super) struct Upstreams<'a> {
    pub(super) resolved: BTreeMap<String, UpstreamConfig>,
    pub(super) names: Vec<(&'a str, Span)>,
    /// The peers of all upstreams with the spans of their addresses.
    pub(super) peers: Vec<(PeerConfig, Span)>,
    /// The spans of each upstream's sources, in their order.
    pub(super) sources: BTreeMap<String, Vec<Span>>,
}

impl Upstreams<'_> {
    fn insert(&mut self, name: &str, spanned: SpannedUpstream) {
        let peers = spanned.upstream.peers.iter().cloned();
        self.peers.extend(peers.zip(spanned.peer_spans));
        self.sources.insert(name.to_owned(), spanned.source_spans);
        self.resolved.insert(name.to_owned(), spanned.upstream);
    }
}

pub(super) fn read<'a>(root: &Fields<'a>, loader: &mut CredentialLoader) -> Upstreams<'a> {
    let mut all = Upstreams {
        resolved: BTreeMap::new(),
        names: Vec::new(),
        peers: Vec::new(),
        sources: BTreeMap::new(),
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
    let listed = entries_in_order(node);
    let is_misplaced = |entry: &&YamlEntry| is_misplaced_key(entry);
    let has_misplaced = root.has("peers") || listed.iter().any(|entry| is_misplaced(&entry));
    for (index, entry) in listed.iter().enumerate() {
        if root.problems.is_full() {
            break;
        }
        if is_misplaced_key(entry) {
            let mut names = listed.get(..index).unwrap_or_default().iter().rev();
            refuse_misplaced_key(
                entry,
                names.find(|entry| !is_misplaced(entry)),
                root.problems,
            );
            continue;
        }
        all.names.push((&entry.key, entry.key_span));
        if has_misplaced && entry.value.is_null() {
            continue;
        }
        check_upstream_name(entry, root.problems);
        if let Some(spanned) = upstream(&entry.value, loader, root.problems) {
            all.insert(&entry.key, spanned);
        }
    }
    all
}

/// Whether the entry is a key of an upstream, one level too high, and not an upstream of that name.
fn is_misplaced_key(entry: &YamlEntry) -> bool {
    let is_upstream = entries_in_order(&entry.value)
        .iter()
        .any(|inner| inner.key == "peers");
    UPSTREAM.keys.contains(&entry.key.as_str()) && !is_upstream
}

/// `above`: the last name before the entry.
fn refuse_misplaced_key(entry: &YamlEntry, above: Option<&YamlEntry>, problems: &Problems) {
    let key = &entry.key;
    let message = format!("`{key}` is a key of an upstream");
    let help = match above {
        Some(name) => format!(
            "indent it, so that it is below {}",
            quote(&format!("{}:", name.key))
        ),
        None => {
            format!("write a name below `upstreams:`, as in `app:`, and `{key}` below the name")
        }
    };
    problems.add(Problem::error(message, entry.key_span).help(help));
}

/// Refuses names that need quoting in URLs, metrics or commands.
fn check_upstream_name(entry: &YamlEntry, problems: &Problems) {
    let name = entry.key.as_str();
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.len() > MAX_NAME || !name.bytes().all(good) {
        let message = format!("{} cannot be the name of an upstream", quote(name));
        let help = format!("use 1 to {MAX_NAME} letters, digits, `-`, `_` or `.`");
        problems.add(Problem::error(message, entry.key_span).help(help));
    }
}

pub(super) static UPSTREAM: SectionSchema = SectionSchema {
    title: "an upstream",
    path: "upstreams.NAME",
    example: "{peers: [10.0.0.1:8080]}",
    keys: &[
        "key",
        "missing_key",
        "ring",
        "peers",
        "health",
        "outlier_detection",
        "retry",
        "timeouts",
        "host_header",
        "proxy_protocol",
        "max_moved",
        "bounded_load",
        "slow_start",
        "drain",
        "hot_keys",
        "flap_damping",
        "close_moved_streams",
        "discovery",
        "protocol",
        "h2",
        "tls",
        "grpc_web",
    ],
    nested: &[
        &key::KEY_SOURCE,
        &ring::RING,
        &peers::PEER,
        &peer_sources::PEER_SOURCE,
        &peer_sources::DISCOVERY,
        &health::HEALTH,
        &outlier_detection::OUTLIER_DETECTION,
        &retry::RETRY,
        &timeouts::TIMEOUTS,
        &proxy_protocol::SEND_PROXY,
        &load_balancing::BOUNDED_LOAD,
        &load_balancing::SLOW_START,
        &load_balancing::DRAIN,
        &load_balancing::HOT_KEYS,
        &load_balancing::FLAP_DAMPING,
        &load_balancing::CLOSE_MOVED_STREAMS,
        &upstream_protocol::H2,
        &upstream_protocol::PEER_TLS,
    ],
    renamed: &[("passive", "outlier_detection")],
};

/// An upstream with the spans of its peers' addresses and of its sources.
struct SpannedUpstream {
    upstream: UpstreamConfig,
    peer_spans: Vec<Span>,
    source_spans: Vec<Span>,
}

fn upstream(
    node: &YamlNode,
    loader: &mut CredentialLoader,
    problems: &Problems,
) -> Option<SpannedUpstream> {
    let fields = Fields::open(node, &UPSTREAM, problems)?;
    let key = fields
        .get("key")
        .map_or_else(key::default, |node| key::read(node, problems));
    let missing_key = missing_key(&fields, &key);
    let dialect = fields
        .get("ring")
        .and_then(|node| ring::read(node, problems))
        .unwrap_or_default();
    let transport = upstream_protocol::read(&fields, loader);
    let (mut peers, sources) = peers::read(&fields, dialect);
    upstream_protocol::assign_server_names(&mut peers, transport.tls.as_ref(), problems);
    upstream_protocol::warn_unverifiable_sources(&sources, transport.tls.as_ref(), problems);
    let address_span = |spanned: SpannedPeer| (spanned.peer, spanned.address_span);
    let (peers, peer_spans): (Vec<_>, Vec<_>) = peers.into_iter().map(address_span).unzip();
    let source_span = |spanned: SpannedSource| (spanned.source, spanned.span);
    let (sources, source_spans): (Vec<_>, Vec<_>) = sources.into_iter().map(source_span).unzip();
    ring::check_size(&fields, dialect, &peers);
    let upstream = UpstreamConfig {
        key,
        missing_key,
        dialect,
        health: health::health(&fields, &transport, &peers, &sources),
        outlier_detection: outlier_detection::read(&fields),
        retry: retry::read(&fields),
        timeouts: timeouts::read(&fields),
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
        discovery: peer_sources::discovery(&fields),
        changed: ChangedPeers::default(),
        transport,
        peers,
        sources,
    };
    Some(SpannedUpstream {
        upstream,
        peer_spans,
        source_spans,
    })
}

fn missing_key(fields: &Fields<'_>, key: &[KeySource]) -> MissingKey {
    let missing_key = fields.choice("missing_key", MissingKey::RoundRobin, MISSING_KEY);
    if let (MissingKey::Reject, Some((_, sticky)), Some(node)) =
        (missing_key, cookie_to_issue(key), fields.get("missing_key"))
    {
        let message = "`missing_key: reject` has no effect";
        let help = format!(
            "clients without the cookie {} get one; remove the line",
            quote(&sticky.name)
        );
        let problem = Problem::warning(message, node.error_span());
        fields.problems.add(problem.help(help));
    }
    missing_key
}
