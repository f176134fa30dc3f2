//! The lists of sources, between a configuration and the states of its sources.

use std::collections::BTreeMap;

use super::source_state::SourceState;
use crate::config::{Config, DiscoveredPeers, PeerConfig, PeerSource};
use crate::discovery::{SourceId, WatchedSource};
use crate::policy::peer_list::PeersByLabel;

/// All sources of a configuration, with what their lists have to fit.
pub(super) fn watched_sources(config: &Config) -> Vec<WatchedSource> {
    let upstreams = config.upstreams.iter();
    let etcd = config.etcd_access();
    let sources = upstreams.flat_map(|(name, upstream)| {
        upstream.sources.iter().map(|source| WatchedSource {
            id: SourceId {
                upstream: name.clone(),
                source: source.clone(),
            },
            rules: upstream.peer_list_rules(),
            resolver: config.resolver.clone(),
            kubernetes: config.kubernetes.clone(),
            etcd: etcd
                .clone()
                .filter(|_| matches!(source, PeerSource::Etcd(_))),
        })
    });
    sources.collect()
}

/// The peers of each source that are in force.
pub(super) fn lists_of(sources: &BTreeMap<SourceId, SourceState>) -> DiscoveredPeers {
    let mut lists = DiscoveredPeers::default();
    for (id, state) in sources {
        lists.set(&id.upstream, &id.source, state.known_peers());
    }
    lists
}

/// The peers of a list by label; of two with the same label the first stays.
pub(super) fn by_label(peers: Vec<PeerConfig>) -> PeersByLabel<PeerConfig> {
    let mut list = PeersByLabel::new();
    for peer in peers {
        list.entry(peer.label.clone()).or_insert(peer);
    }
    list
}
