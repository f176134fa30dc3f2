//! Sources of peers in `peers`, and `discovery`: when their lists come into force.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::file_path::path_with_span;
use crate::config::fields::{Fields, entries_in_order};
use crate::config::raw::YamlNode;
use crate::config::report::{Problem, Problems, quote};
use crate::config::schema::SectionSchema;
use crate::config::span::Span;
use crate::config::values::percentage;
use crate::policy::peer_list::PeerListLimits;

/// Where the peers of an upstream come from, besides those that the configuration lists. Its text form is its name in
/// logs, metrics and the state file.
#[derive(Clone, Debug, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub enum PeerSource {
    /// A file with a list of peers.
    File(PathBuf),
}

impl fmt::Display for PeerSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{}", path.display()),
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
    keys: &["file"],
    ..SectionSchema::EMPTY
};

pub(super) static DISCOVERY: SectionSchema = SectionSchema {
    title: "`discovery`",
    path: "upstreams.NAME.discovery",
    example: "{settle: 200ms, max_lost: 50%}",
    keys: &["settle", "max_lost"],
    ..SectionSchema::EMPTY
};

/// Whether an item of `peers` is a source instead of a peer.
pub(super) fn is_source(node: &YamlNode) -> bool {
    let mut entries = entries_in_order(node).iter();
    entries.any(|entry| PEER_SOURCE.keys.contains(&entry.key.as_str()))
}

/// Reads a source.
pub(super) fn source(node: &YamlNode, problems: &Problems) -> Option<SpannedSource> {
    let fields = Fields::open(node, &PEER_SOURCE, problems)?;
    let file = path_with_span(&fields, "file")?;
    Some(SpannedSource {
        source: PeerSource::File(file.path),
        span: file.span,
    })
}

/// Refuses a source that is listed twice: all its peers would have the labels of others.
pub(super) fn refuse_duplicate_sources(sources: &[SpannedSource], problems: &Problems) {
    for (index, spanned) in sources.iter().enumerate() {
        let mut earlier = sources.iter().take(index);
        if let Some(first) = earlier.find(|first| first.source == spanned.source) {
            let message = format!("source {} twice", quote(&spanned.source.to_string()));
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
