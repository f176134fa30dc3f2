//! The peers that sources have found, and those of them that cannot be members of their upstreams.

use std::collections::BTreeMap;
use std::fmt;

use super::sections::{PeerConfig, PeerSource};

/// The lists in force, by upstream and source.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct DiscoveredPeers(BTreeMap<String, BTreeMap<PeerSource, Vec<PeerConfig>>>);

impl DiscoveredPeers {
    /// Replaces the list of a source.
    pub(crate) fn set(&mut self, upstream: &str, source: &PeerSource, peers: Vec<PeerConfig>) {
        let sources = self.0.entry(upstream.to_owned()).or_default();
        sources.insert(source.clone(), peers);
    }

    /// The list of a source; `None`: it has none.
    pub(crate) fn get(&self, upstream: &str, source: &PeerSource) -> Option<&[PeerConfig]> {
        Some(self.0.get(upstream)?.get(source)?)
    }
}

/// A peer of a source's list that cannot be a member of its upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LeftOutPeer {
    /// The name of the upstream.
    pub(crate) upstream: String,
    /// The source that has found it.
    pub(crate) source: PeerSource,
    /// The label of the peer.
    pub(crate) label: String,
    reason: LeftOutReason,
}

/// Why a peer cannot be a member of its upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LeftOutReason {
    DuplicateLabel,
    DuplicateRingName(String),
    MissingId(&'static str),
    InvalidId(String),
    NoServerName,
}

impl LeftOutPeer {
    pub(super) fn new(
        upstream: &str,
        source: &PeerSource,
        label: String,
        reason: LeftOutReason,
    ) -> Self {
        Self {
            upstream: upstream.to_owned(),
            source: source.clone(),
            label,
            reason,
        }
    }
}

impl fmt::Display for LeftOutPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            upstream,
            source,
            label,
            reason,
        } = self;
        write!(
            f,
            "upstream {upstream}: `{source}`: peer {label} is left out: {reason}"
        )
    }
}

impl fmt::Display for LeftOutReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DuplicateLabel => {
                f.write_str("the upstream has a peer with this label; labels are unique")
            }
            Self::DuplicateRingName(name) => write!(
                f,
                "the ring hashes another peer as `{name}`, too; give each an `id` of its own"
            ),
            Self::MissingId(dialect) => write!(
                f,
                "dialect `{dialect}` needs the `id` of each peer that a source finds or an operator sets"
            ),
            Self::InvalidId(error) => f.write_str(error),
            Self::NoServerName => f.write_str(
                "it has no server name to verify; add `server_name` to `tls` of the upstream",
            ),
        }
    }
}
