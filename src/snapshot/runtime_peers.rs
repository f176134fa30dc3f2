//! The runtime peers of a configuration in force, exported to the next process or to a file, and restored.

use std::collections::BTreeMap;

use crate::config::{
    Config, DiscoveredPeers, LeavingPeer, OperatorChange, PeerChange, PeerChanges, PeerConfig,
    PeerSource, RuntimePeers, UpstreamConfig, parse_peer_address,
};
use crate::ring::Weight;
use crate::upstream::{
    PersistedChangeKind, PersistedFoundPeer, PersistedLeavingPeer, PersistedPeerChange,
    PersistedState,
};

/// Lists by upstream, and by source as text.
type PersistedLists = BTreeMap<String, BTreeMap<String, Vec<PersistedFoundPeer>>>;

/// The lists of the sources of this configuration; an upstream without sources has none.
pub(super) fn export_lists(config: &Config, runtime: &RuntimePeers) -> PersistedLists {
    let upstreams = config.upstreams.iter();
    let upstreams = upstreams.filter(|(_, upstream)| !upstream.sources.is_empty());
    let lists = upstreams.map(|(name, upstream)| {
        let list = |source: &PeerSource| {
            let peers = runtime.lists.get(name, source).unwrap_or_default().iter();
            (source.to_string(), peers.map(export_peer).collect())
        };
        (name.clone(), upstream.sources.iter().map(list).collect())
    });
    lists.collect()
}

/// The changes of operators, by upstream and label.
pub(super) fn export_changes(
    runtime: &RuntimePeers,
) -> BTreeMap<String, BTreeMap<String, PersistedPeerChange>> {
    let export = |(label, operator): (&String, &OperatorChange)| {
        let change = match &operator.change {
            PeerChange::Set(peer) => PersistedChangeKind::Set(export_peer(peer)),
            PeerChange::Weight(weight) => {
                PersistedChangeKind::WeightThousandths(weight.thousandths())
            }
            PeerChange::Remove => PersistedChangeKind::Remove,
        };
        let since = operator.since;
        (label.clone(), PersistedPeerChange { since, change })
    };
    let upstreams = runtime.changes.iter();
    upstreams
        .map(|(name, changes)| (name.clone(), changes.iter().map(export).collect()))
        .collect()
}

/// The leaving peers, by upstream.
pub(super) fn export_leaving(
    runtime: &RuntimePeers,
) -> BTreeMap<String, Vec<PersistedLeavingPeer>> {
    let export = |leaving: &LeavingPeer| PersistedLeavingPeer {
        peer: export_peer(&leaving.peer),
        source: leaving.source.as_ref().map(ToString::to_string),
    };
    let upstreams = runtime.leaving.iter();
    upstreams
        .map(|(name, leaving)| (name.clone(), leaving.iter().map(export).collect()))
        .collect()
}

/// The runtime peers of another process for the upstreams and sources of this configuration. A peer with an address or
/// weight that cannot be read is left out.
pub(crate) fn restore_runtime_peers(config: &Config, state: &PersistedState) -> RuntimePeers {
    let mut runtime = RuntimePeers::default();
    for (name, upstream) in &config.upstreams {
        restore_lists(&mut runtime.lists, (name, upstream), &state.discovered);
        if let Some(changes) = state.peer_changes.get(name) {
            runtime
                .changes
                .insert(name.clone(), restore_changes(changes));
        }
        if let Some(leaving) = state.leaving.get(name) {
            let restore = |leaving| restore_leaving(leaving, upstream);
            let leaving = leaving.iter().filter_map(restore).collect();
            runtime.leaving.insert(name.clone(), leaving);
        }
    }
    runtime
}

fn restore_lists(
    found: &mut DiscoveredPeers,
    (name, upstream): (&str, &UpstreamConfig),
    lists: &PersistedLists,
) {
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

fn restore_changes(changes: &BTreeMap<String, PersistedPeerChange>) -> PeerChanges {
    let mut restored = PeerChanges::default();
    for (label, persisted) in changes {
        let change = match &persisted.change {
            PersistedChangeKind::Set(peer) => restore_peer(peer).map(PeerChange::Set),
            PersistedChangeKind::WeightThousandths(weight) => {
                Weight::from_thousandths(*weight).map(PeerChange::Weight)
            }
            PersistedChangeKind::Remove => Some(PeerChange::Remove),
        };
        if let Some(change) = change {
            let since = persisted.since;
            restored.restore(label.clone(), OperatorChange { change, since });
        }
    }
    restored
}

fn restore_leaving(
    persisted: &PersistedLeavingPeer,
    upstream: &UpstreamConfig,
) -> Option<LeavingPeer> {
    let mut sources = upstream.sources.iter();
    let source = persisted.source.as_ref();
    Some(LeavingPeer {
        peer: restore_peer(&persisted.peer)?,
        source: source.and_then(|text| sources.find(|known| known.to_string() == *text).cloned()),
    })
}

fn export_peer(peer: &PeerConfig) -> PersistedFoundPeer {
    PersistedFoundPeer {
        label: peer.label.clone(),
        address: peer.address.to_string(),
        weight_thousandths: peer.weight.thousandths(),
        id: peer.id.clone(),
        server_name: peer.server_name.clone(),
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
        is_leaving: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    const TEXT: &str =
        "[{label: x, address: x.test:1, weight: 3.7, id: '7'}, 'unix:/run/a.sock', '[::1]:80']";

    #[test]
    fn runtime_peers_roundtrip_by_upstream_and_source() {
        let yaml = "listeners: [{address: 127.0.0.1:1}]\nroutes: [{upstream: app}]\n\
                    upstreams: {app: {ring: varnish, peers: [{file: a}, {file: b}]}, other: {peers: [127.0.0.1:2]}}\n";
        let config = config::parse("test.yaml", yaml).unwrap();
        let app = &config.upstreams["app"];
        let peers = config::parse_peer_list("a".as_ref(), TEXT, &app.peer_list_rules()).unwrap();
        let mut runtime = RuntimePeers::default();
        runtime
            .lists
            .set("app", &app.sources[0], peers[..2].to_vec());
        runtime.lists.set("app", &app.sources[1], Vec::new());
        for (upstream, label) in [("app", "new"), ("other", "127.0.0.1:2")] {
            let set = PeerConfig {
                label: label.to_owned(),
                ..peers[2].clone()
            };
            let changes = runtime.changes.entry(upstream.to_owned()).or_default();
            changes.set(set, 7);
            changes.set_weight("x", peers[0].weight, 8);
            changes.remove("unix:/run/a.sock", true, 9);
        }
        let sources = [("found", Some(app.sources[1].clone())), ("listed", None)];
        let leaving = sources.map(|(label, source)| LeavingPeer {
            peer: PeerConfig {
                label: label.to_owned(),
                ..peers[2].clone()
            },
            source,
        });
        runtime.leaving.insert("app".to_owned(), leaving.to_vec());
        let (merged, left_out) = config.with_runtime_peers(&runtime);
        assert_eq!(left_out, []);
        let in_force = merged.runtime_peers();
        let state = PersistedState {
            discovered: export_lists(&merged, &in_force),
            peer_changes: export_changes(&in_force),
            leaving: export_leaving(&in_force),
            ..PersistedState::default()
        };
        assert_eq!(state.discovered.keys().collect::<Vec<_>>(), ["app"]);
        let json = serde_json::to_string(&state).unwrap();
        let restored = restore_runtime_peers(&config, &serde_json::from_str(&json).unwrap());
        let (again, _) = config.with_runtime_peers(&restored);
        assert_eq!(again, merged);
        assert_eq!(
            (restored.changes, restored.lists),
            (runtime.changes, in_force.lists)
        );
    }
}
