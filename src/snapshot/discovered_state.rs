//! The lists of sources in force, exported to the next process or to a file, and restored.

use std::collections::BTreeMap;

use crate::config::{Config, DiscoveredPeers, PeerConfig, PeerSource, parse_peer_address};
use crate::ring::Weight;
use crate::upstream::PersistedFoundPeer;

/// Lists by upstream, and by source as text.
type PersistedLists = BTreeMap<String, BTreeMap<String, Vec<PersistedFoundPeer>>>;

/// The lists that are in this configuration; an upstream without sources has none.
pub(super) fn export_discovered(config: &Config) -> PersistedLists {
    let found = config.discovered();
    let upstreams = config.upstreams.iter();
    let upstreams = upstreams.filter(|(_, upstream)| !upstream.sources.is_empty());
    let lists = upstreams.map(|(name, upstream)| {
        let list = |source: &PeerSource| {
            let peers = found.get(name, source).unwrap_or_default().iter();
            (source.to_string(), peers.map(export_peer).collect())
        };
        (name.clone(), upstream.sources.iter().map(list).collect())
    });
    lists.collect()
}

/// The lists of another process for the sources of this configuration. A peer with an address or weight that cannot be read is
/// left out.
pub(crate) fn restore_discovered(config: &Config, lists: &PersistedLists) -> DiscoveredPeers {
    let mut found = DiscoveredPeers::default();
    for (name, upstream) in &config.upstreams {
        for source in &upstream.sources {
            let list = lists
                .get(name)
                .and_then(|lists| lists.get(&source.to_string()));
            if let Some(list) = list {
                let peers = list.iter().filter_map(restore_peer);
                found.set(name, source, peers.collect());
            }
        }
    }
    found
}

fn export_peer(peer: &PeerConfig) -> PersistedFoundPeer {
    PersistedFoundPeer {
        label: peer.label.clone(),
        address: peer.address.to_string(),
        weight_thousandths: peer.weight.thousandths(),
        id: peer.id.clone(),
        server_name: peer.server_name.clone(),
        is_leaving: peer.is_leaving,
    }
}

fn restore_peer(peer: &PersistedFoundPeer) -> Option<PeerConfig> {
    Some(PeerConfig {
        address: parse_peer_address(&peer.address).ok()?,
        label: peer.label.clone(),
        weight: Weight::from_thousandths(peer.weight_thousandths)?,
        id: peer.id.clone(),
        server_name: peer.server_name.clone(),
        source: None,
        is_leaving: peer.is_leaving,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn discovered_weight_keeps_its_fraction() {
        let yaml = "listeners: [{address: 127.0.0.1:1}]\nroutes: [{upstream: app}]\n\
                    upstreams: {app: {ring: varnish, peers: [{file: a}]}}\n";
        let config = config::parse("test.yaml", yaml).unwrap();
        let app = &config.upstreams["app"];
        let text = "[{label: x, address: '10.0.0.1:1', weight: 3.7}]";
        let peers = config::parse_peer_list("a".as_ref(), text, &app.peer_list_rules()).unwrap();
        let mut found = DiscoveredPeers::default();
        found.set("app", &app.sources[0], peers.clone());
        let exported = export_discovered(&config.with_discovered(&found).0);
        let restored = restore_discovered(&config, &exported);
        assert_eq!(restored.get("app", &app.sources[0]), Some(&*peers));
    }

    #[test]
    fn discovered_lists_roundtrip_by_upstream_and_source() {
        let yaml = "listeners: [{address: 127.0.0.1:1}]\nroutes: [{upstream: app}]\n\
                    upstreams: {app: {peers: [{file: a}, {file: b}]}, other: {peers: [127.0.0.1:2]}}\n";
        let config = config::parse("test.yaml", yaml).unwrap();
        let app = &config.upstreams["app"];
        let text =
            "[{label: x, address: x.test:1, weight: 3, id: '7'}, 'unix:/run/a.sock', '[::1]:80']";
        let peers = config::parse_peer_list("a".as_ref(), text, &app.peer_list_rules());
        let mut peers = peers.unwrap();
        peers[2].is_leaving = true;
        let mut found = DiscoveredPeers::default();
        found.set("app", &app.sources[0], peers.clone());
        let (merged, left_out) = config.with_discovered(&found);
        assert_eq!(left_out, []);
        let exported = export_discovered(&merged);
        assert_eq!(exported.keys().collect::<Vec<_>>(), ["app"]);
        let json = serde_json::to_string(&exported).unwrap();
        let restored = restore_discovered(&config, &serde_json::from_str(&json).unwrap());
        assert_eq!(restored.get("app", &app.sources[0]), Some(&*peers));
        assert_eq!(restored.get("app", &app.sources[1]), Some(&[][..]));
    }
}
