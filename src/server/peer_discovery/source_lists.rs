//! The lists of sources, between a configuration and the states of its sources.

use std::collections::BTreeMap;

use super::source_state::SourceState;
use crate::config::{Config, DiscoveredPeers, LeftOutPeer, PeerConfig};
use crate::discovery::{SourceId, WatchedSource};
use crate::policy::peer_list::PeersByLabel;

/// All sources of a configuration, with what their lists have to fit.
pub(super) fn watched_sources(config: &Config) -> Vec<WatchedSource> {
    let upstreams = config.upstreams.iter();
    let sources = upstreams.flat_map(|(name, upstream)| {
        upstream.sources.iter().map(|source| WatchedSource {
            id: SourceId {
                upstream: name.clone(),
                source: source.clone(),
            },
            rules: upstream.peer_list_rules(),
            resolver: config.resolver.clone(),
            kubernetes: config.kubernetes.clone(),
        })
    });
    sources.collect()
}

/// The peers of each source, with those that are leaving.
pub(super) fn lists_of(sources: &BTreeMap<SourceId, SourceState>) -> DiscoveredPeers {
    let mut lists = DiscoveredPeers::default();
    for (id, state) in sources {
        lists.set(&id.upstream, &id.source, state.members());
    }
    lists
}

/// Whether peers of an upstream that leave keep their active keys for a while.
pub(super) fn keeps_leaving(config: &Config, upstream: &str) -> bool {
    let upstream = config.upstreams.get(upstream);
    upstream.is_some_and(|upstream| upstream.drain.is_some())
}

/// The peers of a list by label; of two with the same label the first stays.
pub(super) fn by_label(peers: Vec<PeerConfig>) -> PeersByLabel<PeerConfig> {
    let mut list = PeersByLabel::new();
    for peer in peers {
        list.entry(peer.label.clone()).or_insert(peer);
    }
    list
}

/// Records the peers that were left out; with `logs`, those that were not left out before are logged.
pub(super) fn record_left_out(
    sources: &mut BTreeMap<SourceId, SourceState>,
    left_out: &[LeftOutPeer],
    logs: bool,
) {
    for (id, state) in sources {
        let is_own = |peer: &&LeftOutPeer| peer.upstream == id.upstream && peer.source == id.source;
        let own = left_out.iter().filter(is_own);
        let is_new = |peer: &&LeftOutPeer| !state.left_out.contains(&peer.label);
        for peer in own.clone().filter(is_new).filter(|_| logs) {
            log::warn!("{peer}");
        }
        state.left_out = own.map(|peer| peer.label.clone()).collect();
    }
}
