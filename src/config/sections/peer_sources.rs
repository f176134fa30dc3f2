//! Sources of peers in `peers`, and `discovery`: when their lists come into force.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::file_path::path_with_span;
use super::kubernetes::{self, KUBERNETES_SERVICE, KubernetesService};
use super::peer_address::{self, PeerAddress};
use crate::config::fields::{Fields, entries_in_order, text};
use crate::config::raw::YamlNode;
use crate::config::report::{Problem, Problems, quote};
use crate::config::schema::SectionSchema;
use crate::config::span::Span;
use crate::config::values::{InvalidValue, percentage};
use crate::policy::peer_list::PeerListLimits;
use crate::ring::Dialect;

/// Where the peers of an upstream come from, besides those that the configuration lists. Its text form is its name in
/// logs, metrics and the state file.
#[derive(Clone, Debug, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub enum PeerSource {
    /// A file with a list of peers.
    File(PathBuf),
    /// A name of DNS.
    Dns(DnsQuestion),
    /// A service of Kubernetes.
    Kubernetes(KubernetesService),
    /// The keys of etcd with this prefix, which ends with a slash: each is a peer.
    Etcd(String),
}

/// Which records of a name are peers. Names are in lower case; the search domains of the system apply to those that do
/// not end with a dot.
#[derive(Clone, Debug, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub enum DnsQuestion {
    /// `dns`: each address (A, AAAA) is a peer.
    Addresses {
        /// The name.
        name: String,
        /// The port of all peers.
        port: u16,
    },
    /// `srv`: each host and port (SRV, RFC 2782) is a peer.
    Services {
        /// The name.
        name: String,
        /// What the weights of the records are worth.
        weights: SrvWeights,
    },
}

/// What the weights of SRV records are worth.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub enum SrvWeights {
    /// Each peer has the weight 1: servers that write shares change them whenever a peer comes or goes.
    Ignore,
    /// Each peer has the weight of its record, from 1 to 256.
    Record,
}

impl fmt::Display for PeerSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Dns(question) => question.fmt(f),
            Self::Kubernetes(service) => service.fmt(f),
            Self::Etcd(prefix) => write!(f, "etcd:{prefix}"),
        }
    }
}

impl fmt::Display for DnsQuestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addresses { name, port } => write!(f, "dns:{name}:{port}"),
            Self::Services { name, .. } => write!(f, "srv:{name}"),
        }
    }
}

/// When the lists of an upstream's sources come into force.
#[derive(Clone, Debug, PartialEq)]
pub struct DiscoveryConfig {
    /// How long a changed list waits for further changes.
    pub settle: Duration,
    /// The largest share of its peers that a list may lose at once, 0.0 ..= 1.0; a list that loses more, or all, is
    /// held. `None`: every list is trusted.
    pub max_lost: Option<f64>,
}

impl DiscoveryConfig {
    /// The limits as values of the rule that applies them.
    pub(crate) fn limits(&self) -> PeerListLimits {
        PeerListLimits {
            settle: self.settle,
            max_lost: self.max_lost,
        }
    }
}

/// A source with the span of its key.
pub(super) struct SpannedSource {
    pub(super) source: PeerSource,
    pub(super) span: Span,
}

const DEFAULT_SETTLE: Duration = Duration::from_millis(200);
const SETTLE_BOUNDS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(60);
const DEFAULT_MAX_LOST: f64 = 0.5;

pub(super) static PEER_SOURCE: SectionSchema = SectionSchema {
    title: "a source of peers",
    path: "upstreams.NAME.peers[]",
    example: "{file: peers.yaml}",
    keys: &["file", "dns", "srv", "weights", "kubernetes", "etcd"],
    nested: &[&KUBERNETES_SERVICE],
    ..SectionSchema::EMPTY
};

pub(super) static DISCOVERY: SectionSchema = SectionSchema {
    title: "`discovery`",
    path: "upstreams.NAME.discovery",
    example: "{settle: 200ms, max_lost: 50%}",
    keys: &["settle", "max_lost"],
    ..SectionSchema::EMPTY
};

/// The keys that make an item of `peers` a source.
const KINDS: [&str; 5] = ["file", "dns", "srv", "kubernetes", "etcd"];

const MAX_PREFIX: usize = 1024;

const SRV_WEIGHTS: &[(&str, SrvWeights)] = &[
    ("ignore", SrvWeights::Ignore),
    ("record", SrvWeights::Record),
];

/// Whether an item of `peers` is a source instead of a peer.
pub(super) fn is_source(node: &YamlNode) -> bool {
    let mut entries = entries_in_order(node).iter();
    entries.any(|entry| KINDS.contains(&entry.key.as_str()))
}

/// Reads a source.
pub(super) fn source(node: &YamlNode, problems: &Problems) -> Option<SpannedSource> {
    let fields = Fields::open(node, &PEER_SOURCE, problems)?;
    let mut kinds = KINDS.into_iter().filter_map(|kind| fields.get(kind));
    if let (Some(_), Some(second)) = (kinds.next(), kinds.next()) {
        let message = "a source has only one of `file`, `dns`, `srv`, `kubernetes` and `etcd`";
        fields.error(second, message, "make each an item of its own");
        return None;
    }
    if !fields.has("srv") {
        let help = "remove it: only SRV records have weights";
        fields.refuse_key("weights", "needs `srv`", help);
    }
    if let Some(node) = fields.get("dns") {
        let (name, port) = fields.read("dns", name_and_port)?;
        let source = PeerSource::Dns(DnsQuestion::Addresses { name, port });
        let span = node.error_span();
        return Some(SpannedSource { source, span });
    }
    if let Some(node) = fields.get("srv") {
        let name = fields.read("srv", service_name)?;
        let weights = fields.choice("weights", SrvWeights::Ignore, SRV_WEIGHTS);
        let source = PeerSource::Dns(DnsQuestion::Services { name, weights });
        let span = node.error_span();
        return Some(SpannedSource { source, span });
    }
    if let Some(node) = fields.get("kubernetes") {
        let source = PeerSource::Kubernetes(kubernetes::service(&fields)?);
        let span = node.error_span();
        return Some(SpannedSource { source, span });
    }
    if let Some(node) = fields.get("etcd") {
        let source = PeerSource::Etcd(fields.read("etcd", key_prefix)?);
        let span = node.error_span();
        return Some(SpannedSource { source, span });
    }
    let file = path_with_span(&fields, "file")?;
    Some(SpannedSource {
        source: PeerSource::File(file.path),
        span: file.span,
    })
}

fn name_and_port(node: &YamlNode) -> Result<(String, u16), InvalidValue> {
    let text = text(node, "a name and a port like `app.internal:8080`")?;
    let problem = |help| {
        let message = format!("{} is not a name of DNS with a port", quote(text));
        (message, help)
    };
    match peer_address::parse_address(text).map_err(problem)? {
        PeerAddress::Name(name, port) => Ok((name, port)),
        PeerAddress::Ip(_) | PeerAddress::Unix(_) => {
            let help = format!("this is the address of one peer: write it as `- {text}`");
            Err(problem(help))
        }
    }
}

fn service_name(node: &YamlNode) -> Result<String, InvalidValue> {
    let text = text(node, "a name like `_http._tcp.app.internal`")?;
    let message = || format!("{} is not a name of DNS", quote(text));
    if text.contains(':') {
        let help =
            "write the name alone: the ports are in its SRV records; for its addresses use `dns`";
        return Err((message(), help.to_owned()));
    }
    peer_address::check_host_name(text).map_err(|help| (message(), help))?;
    Ok(text.to_ascii_lowercase())
}

/// A prefix of keys. With a slash at its end, `/services/app` does not take the keys of `/services/app2`.
fn key_prefix(node: &YamlNode) -> Result<String, InvalidValue> {
    let text = text(node, "a prefix of keys like `/services/app/`")?;
    if text.is_empty() || text.len() > MAX_PREFIX || text.contains(char::is_control) {
        let message = format!("{} cannot be a prefix of keys", quote(text));
        let help = format!("write 1 to {MAX_PREFIX} bytes, as in `/services/app/`");
        return Err((message, help));
    }
    let slash = if text.ends_with('/') { "" } else { "/" };
    Ok(format!("{text}{slash}"))
}

/// Refuses sources without ids if the dialect numbers peers without `id` by position: each change would renumber the peers after
/// it.
pub(super) fn refuse_sources_without_ids(
    dialect: Dialect,
    sources: &[SpannedSource],
    problems: &Problems,
) {
    if !dialect.numbers_by_order() {
        return;
    }
    for spanned in sources {
        let has_none = match spanned.source {
            PeerSource::File(_) | PeerSource::Etcd(_) => continue,
            PeerSource::Dns(_) => "DNS has none",
            PeerSource::Kubernetes(_) => "Kubernetes has none",
        };
        let message = format!(
            "dialect `{}` needs the `id` of each peer, and {has_none}",
            dialect.name()
        );
        let problem = Problem::error(message, spanned.span);
        problems.add(problem.help("use another dialect, or a `file` with the `id` of each peer"));
    }
}

/// Refuses a source that is listed twice: all its peers would have the labels of others.
pub(super) fn refuse_duplicate_sources(sources: &[SpannedSource], problems: &Problems) {
    for (index, spanned) in sources.iter().enumerate() {
        let mut earlier = sources.iter().take(index);
        // By text: with other `weights` it has the same peers.
        let text = spanned.source.to_string();
        if let Some(first) = earlier.find(|first| first.source.to_string() == text) {
            let message = format!("source {} twice", quote(&text));
            let problem = Problem::error(message, spanned.span).secondary(first.span, "first here");
            problems.add(problem.help("remove one of the two"));
        }
    }
}

/// Reads `discovery` of an upstream.
pub(super) fn discovery(upstream: &Fields<'_>) -> DiscoveryConfig {
    let default = DiscoveryConfig {
        settle: DEFAULT_SETTLE,
        max_lost: Some(DEFAULT_MAX_LOST),
    };
    let Some(fields) = upstream.section("discovery", &DISCOVERY) else {
        return default;
    };
    DiscoveryConfig {
        settle: fields.duration("settle", default.settle, SETTLE_BOUNDS),
        max_lost: fields.or_off("max_lost", default.max_lost, percentage),
    }
}
