//! The peers of an upstream, composed of those that its configuration lists, those that its sources have found, the changes
//! of operators, and the peers that are leaving.
//!
//! ```text
//!  listed in the configuration ─┐
//!  lists of the sources ────────┼─► changes of operators, by label ─► members of the ring
//!  leaving peers ───────────────┘   (until they are drained; not if a member has the label)
//! ```
//!
//! A [`Config`] with runtime peers keeps what they were made of, so that it can be taken apart again.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::discovered::{DiscoveredPeers, LeftOutPeer, LeftOutReason};
use super::peer_changes::{ChangedPeers, PeerChange, PeerChanges};
use super::sections::{Config, NoServerName, PeerAddress, PeerConfig, PeerSource, UpstreamConfig};
use crate::ring::Weight;

/// What a running instance has besides its configuration, by upstream.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct RuntimePeers {
    /// The lists of the sources.
    pub(crate) lists: DiscoveredPeers,
    /// The changes of operators.
    pub(crate) changes: BTreeMap<String, PeerChanges>,
    /// The peers that no list has any more, and that still drain.
    pub(crate) leaving: BTreeMap<String, Vec<LeavingPeer>>,
}

/// A peer that is to be forgotten once it is drained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LeavingPeer {
    /// The peer as it was.
    pub(crate) peer: PeerConfig,
    /// The source that had found it; `None`: the configuration or an operator had listed it.
    pub(crate) source: Option<PeerSource>,
}

impl RuntimePeers {
    /// Adds what an upstream was composed of.
    pub(crate) fn add_upstream(&mut self, name: &str, upstream: &UpstreamConfig) {
        for (index, source) in upstream.sources.iter().enumerate() {
            let peers = upstream.listed_peers();
            let found = peers.filter(|peer| peer.source == Some(index));
            let found = found.map(|peer| PeerConfig {
                source: None,
                ..peer.clone()
            });
            self.lists.set(name, source, found.collect());
        }
        let changes = &upstream.changed.changes;
        if !changes.is_empty() {
            self.changes.insert(name.to_owned(), changes.clone());
        }
        let leaving = upstream.leaving_peers();
        if !leaving.is_empty() {
            self.leaving.insert(name.to_owned(), leaving);
        }
    }
}

impl From<DiscoveredPeers> for RuntimePeers {
    fn from(lists: DiscoveredPeers) -> Self {
        Self {
            lists,
            ..Self::default()
        }
    }
}

impl LeavingPeer {
    /// A peer of this upstream, from now on leaving.
    pub(crate) fn new(peer: &PeerConfig, upstream: &UpstreamConfig) -> Self {
        let source = peer.source.and_then(|index| upstream.sources.get(index));
        Self {
            peer: PeerConfig {
                source: None,
                is_leaving: false,
                ..peer.clone()
            },
            source: source.cloned(),
        }
    }
}

impl Config {
    /// This configuration with these peers besides those that it lists; runtime peers that it had are replaced. Also the
    /// peers of lists that were left out: of two with the same label the listed one stays, then that of the first source.
    pub(crate) fn with_runtime_peers(&self, runtime: &RuntimePeers) -> (Self, Vec<LeftOutPeer>) {
        let mut config = self.without_runtime_peers();
        let mut left_out = Vec::new();
        for (name, upstream) in &mut config.upstreams {
            upstream.add_runtime_peers(name, runtime, &mut left_out);
        }
        (config, left_out)
    }

    /// This configuration with only the peers that it lists.
    pub(crate) fn without_runtime_peers(&self) -> Self {
        let mut config = self.clone();
        for upstream in config.upstreams.values_mut() {
            let listed = upstream.listed_peers().filter(|peer| peer.source.is_none());
            upstream.peers = listed.cloned().collect();
            upstream.changed = ChangedPeers::default();
        }
        config
    }

    /// The peers that are leaving, by upstream.
    pub(crate) fn leaving_peers(&self) -> BTreeMap<String, Vec<LeavingPeer>> {
        let upstreams = self.upstreams.iter();
        let leaving = upstreams.map(|(name, upstream)| (name.clone(), upstream.leaving_peers()));
        leaving.filter(|(_, peers)| !peers.is_empty()).collect()
    }

    /// The runtime peers that are in this configuration.
    pub(crate) fn runtime_peers(&self) -> RuntimePeers {
        let mut runtime = RuntimePeers::default();
        for (name, upstream) in &self.upstreams {
            runtime.add_upstream(name, upstream);
        }
        runtime
    }
}

impl UpstreamConfig {
    /// Whether a peer is a host of which its source, a name of DNS, has found no address. Nothing else looks for one.
    pub(crate) fn is_unresolved_by_source(&self, peer: &PeerConfig) -> bool {
        let source = peer.source.and_then(|index| self.sources.get(index));
        let is_of_dns = matches!(source, Some(PeerSource::Dns(_)));
        is_of_dns && matches!(peer.address, PeerAddress::Name(..))
    }

    /// The peers of the configuration and of the sources, without the changes of operators.
    pub(crate) fn listed_peers(&self) -> impl Iterator<Item = &PeerConfig> {
        let peers = if self.changed.changes.is_empty() {
            &self.peers
        } else {
            &self.changed.unchanged
        };
        peers.iter().filter(|peer| !peer.is_leaving)
    }

    /// The members that are not leaving.
    pub(crate) fn staying_peers(&self) -> impl Iterator<Item = &PeerConfig> {
        self.peers.iter().filter(|peer| !peer.is_leaving)
    }

    fn leaving_peers(&self) -> Vec<LeavingPeer> {
        let leaving = self.peers.iter().filter(|peer| peer.is_leaving);
        leaving.map(|peer| LeavingPeer::new(peer, self)).collect()
    }

    fn add_runtime_peers(
        &mut self,
        name: &str,
        runtime: &RuntimePeers,
        left_out: &mut Vec<LeftOutPeer>,
    ) {
        let none = PeerChanges::default();
        let changes = runtime.changes.get(name).unwrap_or(&none);
        let mut composed = ComposedPeers::of_configured(self, changes);
        for (index, source) in self.sources.iter().enumerate() {
            for peer in runtime.lists.get(name, source).unwrap_or_default() {
                if let Err(reason) = composed.add_found(peer, index) {
                    let label = peer.label.clone();
                    left_out.push(LeftOutPeer::new(name, source, label, reason));
                }
            }
        }
        composed.note_missing_labels();
        for leaving in runtime.leaving.get(name).into_iter().flatten() {
            composed.add_leaving(leaving);
        }
        let ComposedPeers {
            members,
            listed,
            without_effect,
            ..
        } = composed;
        self.peers = members;
        if !changes.is_empty() {
            self.changed = ChangedPeers {
                changes: changes.clone(),
                unchanged: listed,
                without_effect,
            };
        }
    }

    /// The server name of a peer, and the text that the ring hashes for it.
    fn admit(&self, peer: &PeerConfig) -> Result<(Option<String>, String), LeftOutReason> {
        if self.dialect.numbers_by_order() && peer.id.is_none() {
            return Err(LeftOutReason::MissingId(self.dialect.name()));
        }
        let member = [peer.member()];
        let hashed = self.dialect.hash_names(&member);
        let hashed = hashed.map_err(|error| LeftOutReason::InvalidId(error.to_string()))?;
        Ok((self.server_name_of(peer)?, hashed.concat()))
    }

    fn server_name_of(&self, peer: &PeerConfig) -> Result<Option<String>, LeftOutReason> {
        let Some(tls) = &self.transport.tls else {
            return Ok(None);
        };
        let name = tls.server_name(peer);
        name.map_err(|NoServerName| LeftOutReason::NoServerName)
    }

    /// Why a change cannot have an effect in this upstream, whatever its other peers are.
    fn refuse_change(&self, label: &str, change: &PeerChange) -> Result<(), String> {
        match change {
            PeerChange::Set(peer) => {
                self.admit(peer).map_err(|reason| reason.to_string())?;
                self.refuse_weight(peer.weight)
            }
            PeerChange::Weight(weight) => self.refuse_weight(*weight),
            PeerChange::Remove => {
                let from_it = self.peers.iter().skip_while(|peer| peer.label != label);
                let mut later = from_it.skip(1);
                if self.dialect.numbers_by_order() && later.any(|peer| peer.id.is_none()) {
                    return Err(format!(
                        "dialect `{}` numbers peers without `id` by position, so those after it would be renumbered; add an `id` to every peer",
                        self.dialect.name()
                    ));
                }
                Ok(())
            }
        }
    }

    fn refuse_weight(&self, weight: Weight) -> Result<(), String> {
        let (dialect, name) = (self.dialect, self.dialect.name());
        if weight.has_fraction() && !dialect.allows_fractions() {
            return Err(format!(
                "dialect `{name}` has no weights with a fraction, and it is {weight}"
            ));
        }
        let least = dialect.least_weight();
        if weight < least {
            return Err(format!(
                "{weight} is not a weight of dialect `{name}`; the least is {least}"
            ));
        }
        Ok(())
    }
}

/// The peers of an upstream while they are put together.
struct ComposedPeers<'a> {
    /// With only the peers that the configuration lists.
    upstream: &'a UpstreamConfig,
    changes: &'a PeerChanges,
    without_effect: BTreeMap<String, String>,
    members: Vec<PeerConfig>,
    /// The labels of `members`.
    labels: HashSet<String>,
    /// The texts that the ring hashes for `members`.
    ring_names: HashSet<String>,
    /// The peers without changes.
    listed: Vec<PeerConfig>,
    /// The labels of `listed`.
    listed_labels: HashSet<String>,
}

impl<'a> ComposedPeers<'a> {
    /// The peers that the configuration lists, with their changes, and those that operators have added.
    fn of_configured(upstream: &'a UpstreamConfig, changes: &'a PeerChanges) -> Self {
        let labels = upstream.peers.iter().map(|peer| peer.label.clone());
        let mut composed = Self {
            upstream,
            changes,
            without_effect: BTreeMap::new(),
            members: Vec::new(),
            labels: HashSet::new(),
            ring_names: HashSet::new(),
            listed: upstream.peers.clone(),
            listed_labels: labels.collect(),
        };
        for (label, operator) in changes.iter() {
            if let Err(reason) = upstream.refuse_change(label, &operator.change) {
                composed.without_effect.insert(label.clone(), reason);
            }
        }
        // Each round finds one more change without effect.
        loop {
            composed.members = composed.configured_members();
            let Some((label, name)) = composed.place_members() else {
                return composed;
            };
            let reason = LeftOutReason::DuplicateRingName(name).to_string();
            composed.without_effect.insert(label, reason);
        }
    }

    fn configured_members(&self) -> Vec<PeerConfig> {
        let configured = self.upstream.peers.iter();
        let configured = configured.filter_map(|peer| match self.effective_change(&peer.label) {
            None => Some(peer.clone()),
            Some(PeerChange::Set(set)) => Some(self.with_server_name(set)),
            Some(PeerChange::Weight(weight)) => Some(PeerConfig {
                weight: *weight,
                ..peer.clone()
            }),
            Some(PeerChange::Remove) => None,
        });
        let added = self.changes.iter().filter_map(|(label, _)| {
            let is_added = !self.listed_labels.contains(label);
            match self.effective_change(label).filter(|_| is_added)? {
                PeerChange::Set(set) => Some(self.with_server_name(set)),
                PeerChange::Weight(_) | PeerChange::Remove => None,
            }
        });
        configured.chain(added).collect()
    }

    fn with_server_name(&self, set: &PeerConfig) -> PeerConfig {
        // A peer without a name to verify was refused before.
        let server_name = self.upstream.server_name_of(set).unwrap_or_default();
        PeerConfig {
            server_name,
            ..set.clone()
        }
    }

    /// The change of a peer, unless it is without effect.
    fn effective_change(&self, label: &str) -> Option<&'a PeerChange> {
        let operator = self.changes.get(label)?;
        (!self.without_effect.contains_key(label)).then_some(&operator.change)
    }

    /// Takes the names of the members; a peer that was set with a name that another one has, and that name.
    fn place_members(&mut self) -> Option<(String, String)> {
        let members: Vec<_> = self.members.iter().map(PeerConfig::member).collect();
        // An id that the dialect cannot hash was refused before.
        let names = self
            .upstream
            .dialect
            .hash_names(&members)
            .unwrap_or_default();
        let mut label_of: HashMap<&str, &str> = HashMap::new();
        for (peer, name) in self.members.iter().zip(&names) {
            let Some(other) = label_of.insert(name.as_ref(), peer.label.as_str()) else {
                continue;
            };
            let is_set =
                |label: &&str| matches!(self.effective_change(label), Some(PeerChange::Set(_)));
            let set = [peer.label.as_str(), other].into_iter().filter(is_set);
            if let Some(label) = set.max() {
                return Some((label.to_owned(), name.to_string()));
            }
        }
        let names = label_of.keys().map(|name| (*name).to_owned()).collect();
        self.ring_names = names;
        self.labels = self.members.iter().map(|peer| peer.label.clone()).collect();
        None
    }

    /// Adds a peer of the list of the source with this index.
    fn add_found(&mut self, peer: &PeerConfig, index: usize) -> Result<(), LeftOutReason> {
        if self.listed_labels.contains(&peer.label) {
            return Err(LeftOutReason::DuplicateLabel);
        }
        let (server_name, ring_name) = self.upstream.admit(peer)?;
        let listed = PeerConfig {
            source: Some(index),
            server_name,
            ..peer.clone()
        };
        match self.effective_change(&peer.label) {
            Some(PeerChange::Set(_) | PeerChange::Remove) => {}
            Some(PeerChange::Weight(weight)) => self.add_member(
                PeerConfig {
                    weight: *weight,
                    ..listed.clone()
                },
                ring_name,
            )?,
            None => self.add_member(listed.clone(), ring_name)?,
        }
        self.listed_labels.insert(peer.label.clone());
        if !self.changes.is_empty() {
            self.listed.push(listed);
        }
        Ok(())
    }

    fn add_member(&mut self, peer: PeerConfig, ring_name: String) -> Result<(), LeftOutReason> {
        if self.ring_names.contains(&ring_name) {
            return Err(LeftOutReason::DuplicateRingName(ring_name));
        }
        self.labels.insert(peer.label.clone());
        self.ring_names.insert(ring_name);
        self.members.push(peer);
        Ok(())
    }

    /// Notes the changes of peers that no list has.
    fn note_missing_labels(&mut self) {
        for (label, operator) in self.changes.iter() {
            let needs_peer = !matches!(operator.change, PeerChange::Set(_));
            if needs_peer && !self.listed_labels.contains(label) {
                let reason = "no peer has this label now".to_owned();
                self.without_effect.entry(label.clone()).or_insert(reason);
            }
        }
    }

    /// Adds a peer that drains, unless a member has its label or its place on the ring.
    fn add_leaving(&mut self, leaving: &LeavingPeer) {
        let LeavingPeer { peer, source } = leaving;
        if self.labels.contains(&peer.label) {
            return;
        }
        let Ok((server_name, ring_name)) = self.upstream.admit(peer) else {
            return;
        };
        let mut sources = self.upstream.sources.iter();
        let index = sources.position(|known| Some(known) == source.as_ref());
        let peer = PeerConfig {
            source: index,
            is_leaving: true,
            server_name,
            ..peer.clone()
        };
        // Another peer with the name has taken its keys over.
        let _ = self.add_member(peer, ring_name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::{btree_map, btree_set, vec};
    use proptest::prelude::*;

    use crate::config::{OperatorChange, parse, parse_peer_list};

    fn config(upstream: &str) -> Config {
        let text = format!(
            "listeners: [{{address: 127.0.0.1:1}}]\nroutes: [{{upstream: app}}]\nupstreams: {{app: {upstream}}}\n"
        );
        parse("test.yaml", &text).unwrap()
    }

    fn found(config: &Config, lists: &[&str]) -> RuntimePeers {
        let (mut found, app) = (DiscoveredPeers::default(), &config.upstreams["app"]);
        for (source, list) in app.sources.iter().zip(lists) {
            // Without the upstream's rules, as a list from a name server.
            let rules = self::config("{peers: [127.0.0.1:1]}").upstreams["app"].peer_list_rules();
            let peers = parse_peer_list("list.yaml".as_ref(), list, &rules).unwrap();
            found.set("app", source, peers);
        }
        found.into()
    }

    fn labels(config: &Config) -> Vec<(&str, Option<usize>)> {
        let peers = config.upstreams["app"].peers.iter();
        peers.map(|peer| (&*peer.label, peer.source)).collect()
    }

    #[test]
    fn discovered_peers_follow_the_configured_ones_and_are_replaced() {
        let config = config("{peers: [{file: a}, 127.0.0.1:1, {file: b}]}");
        let (merged, left_out) =
            config.with_runtime_peers(&found(&config, &["[10.0.0.1:1]", "[10.0.0.2:1]"]));
        let expected = [
            ("127.0.0.1:1", None),
            ("10.0.0.1:1", Some(0)),
            ("10.0.0.2:1", Some(1)),
        ];
        assert_eq!((labels(&merged), left_out.len()), (expected.to_vec(), 0));
        assert_eq!(merged.with_runtime_peers(&merged.runtime_peers()).0, merged);
        assert_eq!(merged.without_runtime_peers(), config);
        let (replaced, _) = merged.with_runtime_peers(&found(&config, &["[10.0.0.3:1]"]));
        let expected = [("127.0.0.1:1", None), ("10.0.0.3:1", Some(0))];
        assert_eq!(labels(&replaced), expected);
    }

    #[test]
    fn discovered_peer_that_cannot_be_a_member_is_left_out_with_the_reason() {
        for (upstream, list, reason) in [
            (
                "peers: [{file: a}, 10.0.0.1:1]",
                "[10.0.0.1:1]",
                "labels are unique",
            ),
            (
                "ring: nginx, peers: [{file: a}, {address: 10.0.0.1:1, id: x}]",
                "[{address: 10.0.0.2:1, id: x}]",
                "another peer as `x`",
            ),
            (
                "ring: haproxy, peers: [{file: a}]",
                "[10.0.0.1:1]",
                "needs the `id`",
            ),
            (
                "ring: haproxy, peers: [{file: a}]",
                "[{address: 10.0.0.1:1, id: x}]",
                "x",
            ),
            (
                "tls: true, peers: [{file: a}]",
                "[10.0.0.1:1]",
                "no server name",
            ),
        ] {
            let config = config(&format!("{{{upstream}}}"));
            let configured = config.upstreams["app"].peers.len();
            let (merged, left_out) = config.with_runtime_peers(&found(&config, &[list]));
            assert_eq!(
                merged.upstreams["app"].peers.len(),
                configured,
                "{upstream}"
            );
            let [left_out] = &*left_out else {
                panic!("{upstream}: {left_out:?}");
            };
            assert!(left_out.to_string().contains(reason), "{left_out}");
        }
    }

    #[test]
    fn discovered_peer_gets_the_server_name_of_its_upstream() {
        for (tls, address, expected) in [
            ("tls: off", "10.0.0.1:1", None),
            ("tls: true", "a.test:1", Some("a.test")),
            ("tls: {server_name: b.test}", "10.0.0.1:1", Some("b.test")),
            ("health: off, tls: {server_name: host}", "10.0.0.1:1", None),
        ] {
            let config = config(&format!("{{{tls}, peers: [{{file: a}}]}}"));
            let (merged, left_out) =
                config.with_runtime_peers(&found(&config, &[&format!("[{address}]")]));
            assert_eq!(left_out, [], "{tls}");
            let name = merged.upstreams["app"].peers[0].server_name.as_deref();
            assert_eq!(name, expected, "{tls}");
        }
    }

    fn peer(label: &str, address: &str) -> PeerConfig {
        let list = format!("[{{label: '{label}', address: '{address}'}}]");
        let rules = config("{peers: [127.0.0.1:1]}").upstreams["app"].peer_list_rules();
        parse_peer_list("a".as_ref(), &list, &rules)
            .unwrap()
            .remove(0)
    }

    fn with_id(peer: PeerConfig, id: &str) -> PeerConfig {
        PeerConfig {
            id: Some(id.to_owned()),
            ..peer
        }
    }

    fn weight(weight: u16) -> Weight {
        Weight::new(weight).unwrap()
    }

    /// `LABEL=PORT*WEIGHT` of each peer, a leaving one with `-`, and the labels of changes without effect.
    fn shown(config: &Config) -> String {
        let app = &config.upstreams["app"];
        let peers = app.peers.iter().map(|peer| {
            let leaving = if peer.is_leaving { "-" } else { "" };
            let port = peer.address.to_string();
            let port = port.rsplit(':').next().unwrap().to_owned();
            format!("{leaving}{}={port}*{}", peer.label, peer.weight)
        });
        let labels = app.changed.without_effect.keys();
        let without_effect = labels.map(|label| format!("!{label}"));
        peers.chain(without_effect).collect::<Vec<_>>().join(" ")
    }

    type Change = fn(&mut PeerChanges);

    #[test]
    fn changes_lie_over_the_peers_of_the_configuration_and_of_sources() {
        let config = config(
            "{peers: [{label: a, address: '10.0.0.1:1'}, {file: f}, {label: b, address: '10.0.0.1:2'}]}",
        );
        let lists = found(
            &config,
            &[
                "[{label: c, address: '10.0.0.1:3'}, {label: d, address: '10.0.0.1:4'}, {label: a, address: '10.0.0.1:5'}]",
            ],
        );
        let edited = |edit: fn(&mut PeerChanges)| {
            let mut runtime = lists.clone();
            edit(runtime.changes.entry("app".to_owned()).or_default());
            let (merged, _) = config.with_runtime_peers(&runtime);
            assert_eq!(merged.without_runtime_peers(), config);
            let again = merged.with_runtime_peers(&merged.runtime_peers()).0;
            assert_eq!(again, merged);
            shown(&merged)
        };
        let cases: [(&str, Change); 10] = [
            ("a=1*1 b=2*1 c=3*1 d=4*1", |_| {}),
            ("a=9*1 b=2*1 c=3*1 d=4*1", |changes| {
                changes.set(peer("a", "x:9"), 1);
            }),
            ("a=1*1 b=2*1 c=9*1 d=4*1", |changes| {
                changes.set(peer("c", "x:9"), 1);
            }),
            ("a=1*1 b=2*1 e=9*1 c=3*1 d=4*1", |changes| {
                changes.set(peer("e", "x:9"), 1);
            }),
            ("b=2*1 c=3*1 d=4*1", |changes| changes.remove("a", true, 1)),
            ("a=1*1 b=2*1 d=4*1", |changes| changes.remove("c", true, 1)),
            ("a=1*7 b=2*1 c=3*1 d=4*7", |changes| {
                changes.set_weight("a", weight(7), 1);
                changes.set_weight("d", weight(7), 1);
            }),
            ("a=1*1 b=2*1 c=3*1 d=4*1 !e !f", |changes| {
                changes.set_weight("e", weight(7), 1);
                changes.remove("f", true, 1);
            }),
            ("a=1*1 b=2*1 e=9*7 c=3*1 d=4*1", |changes| {
                changes.set(peer("e", "x:9"), 1);
                changes.set_weight("e", weight(7), 2);
            }),
            ("a=1*1 b=2*1 c=3*1 d=4*1", |changes| {
                changes.set(peer("e", "x:9"), 1);
                changes.remove("e", false, 2);
            }),
        ];
        for (expected, edit) in cases {
            assert_eq!(edited(edit), expected);
        }
    }

    #[test]
    fn change_that_does_not_fit_the_configuration_is_without_effect() {
        let fraction = Weight::from_thousandths(1500).unwrap();
        for (upstream, change, label, reason) in [
            (
                "ring: nginx, peers: [{label: a, address: '10.0.0.1:1', id: x}]",
                PeerChange::Set(with_id(peer("b", "x:9"), "x")),
                "b",
                "another peer as `x`",
            ),
            (
                "ring: haproxy, peers: [{label: a, address: '10.0.0.1:1', id: 5}]",
                PeerChange::Set(peer("a", "x:9")),
                "a",
                "needs the `id`",
            ),
            (
                "ring: haproxy, peers: [{label: a, address: '10.0.0.1:1'}, {label: b, address: '10.0.0.1:2'}]",
                PeerChange::Remove,
                "a",
                "would be renumbered",
            ),
            (
                "peers: [{label: a, address: '10.0.0.1:1'}]",
                PeerChange::Weight(fraction),
                "a",
                "no weights with a fraction",
            ),
            (
                "tls: true, peers: [{label: a, address: 'a.test:1'}]",
                PeerChange::Set(peer("a", "10.0.0.1:9")),
                "a",
                "no server name",
            ),
        ] {
            let config = config(&format!("{{{upstream}}}"));
            let mut runtime = RuntimePeers::default();
            let changes = runtime.changes.entry("app".to_owned()).or_default();
            changes.restore(label.to_owned(), OperatorChange { change, since: 1 });
            let (merged, _) = config.with_runtime_peers(&runtime);
            let app = &merged.upstreams["app"];
            assert_eq!(app.peers, config.upstreams["app"].peers, "{upstream}");
            let found = &app.changed.without_effect[label];
            assert!(found.contains(reason), "{upstream}: {found}");
        }
    }

    #[test]
    fn place_on_the_ring_belongs_to_the_operator_before_sources_and_after_the_file() {
        let config =
            config("{ring: nginx, peers: [{label: a, address: '10.0.0.1:1', id: x}, {file: f}]}");
        let lists = found(&config, &["[{label: c, address: '10.0.0.1:3', id: y}]"]);
        let changed = |edits: &[(&str, Option<&str>)]| {
            let mut runtime = lists.clone();
            let changes = runtime.changes.entry("app".to_owned()).or_default();
            for (label, id) in edits {
                match id {
                    Some(id) => changes.set(with_id(peer(label, "x:9"), id), 1),
                    None => changes.remove(label, true, 1),
                }
            }
            let (merged, left_out) = config.with_runtime_peers(&runtime);
            let left_out = left_out
                .iter()
                .map(|left_out| format!(" ?{}", left_out.label));
            shown(&merged) + &left_out.collect::<String>()
        };
        assert_eq!(changed(&[("n", Some("y"))]), "a=1*1 n=9*1 ?c");
        assert_eq!(changed(&[("n", Some("x"))]), "a=1*1 c=3*1 !n");
        // A removed peer leaves its place.
        assert_eq!(changed(&[("a", None), ("n", Some("x"))]), "n=9*1 c=3*1");
        assert_eq!(
            changed(&[("a", Some("z")), ("n", Some("x"))]),
            "a=9*1 n=9*1 c=3*1"
        );
        // One of the two changes makes the other one fit.
        assert_eq!(
            changed(&[("m", Some("z")), ("n", Some("z"))]),
            "a=1*1 m=9*1 c=3*1 !n"
        );
    }

    #[test]
    fn leaving_peer_stays_until_its_label_or_its_place_is_taken() {
        let config = config("{ring: nginx, peers: [{label: a, address: '10.0.0.1:1'}, {file: f}]}");
        let source = &config.upstreams["app"].sources[0];
        let leaving = |label: &str, id: &str, source: Option<&PeerSource>| LeavingPeer {
            peer: with_id(peer(label, "x:9"), id),
            source: source.cloned(),
        };
        let mut runtime = found(&config, &["[{label: c, address: '10.0.0.1:3', id: y}]"]);
        let left = [
            leaving("a", "p", None),
            leaving("c", "q", Some(source)),
            leaving("d", "y", None),
            leaving("e", "e", Some(source)),
            leaving("g", "g", None),
        ];
        runtime.leaving.insert("app".to_owned(), left.to_vec());
        let (merged, _) = config.with_runtime_peers(&runtime);
        assert_eq!(shown(&merged), "a=1*1 c=3*1 -e=9*1 -g=9*1");
        assert_eq!(merged.leaving_peers()["app"], left[3..]);
        assert_eq!(merged.without_runtime_peers(), config);
        assert_eq!(merged.with_runtime_peers(&merged.runtime_peers()).0, merged);
    }

    /// An edit of one label: set with this port, a weight, or removed.
    #[derive(Clone, Debug)]
    enum Edit {
        Set(u16),
        Weight(u16),
        Remove,
    }

    fn edits() -> impl Strategy<Value = BTreeMap<String, Vec<Edit>>> {
        let edit = prop_oneof![
            (1..100_u16).prop_map(Edit::Set),
            (1..9_u16).prop_map(Edit::Weight),
            Just(Edit::Remove)
        ];
        btree_map("[a-j]", vec(edit, 1..4), 0..6)
    }

    /// A configuration with peers from `a` to `h`, and lists of two sources.
    fn runtime() -> impl Strategy<Value = (Config, RuntimePeers)> {
        let labels = || btree_set("[a-h]", 0..5);
        (labels(), labels(), labels()).prop_map(|(configured, one, two)| {
            let line = |label: &String| format!("{{label: {label}, address: '10.0.0.1:1'}}, ");
            let configured: String = configured.iter().map(line).collect();
            let config = config(&format!(
                "{{peers: [{configured}{{file: a}}, {{file: b}}]}}"
            ));
            let list = |labels: &std::collections::BTreeSet<String>, port: u16| -> Vec<_> {
                let address = format!("10.0.0.2:{port}");
                labels.iter().map(|label| peer(label, &address)).collect()
            };
            let mut runtime = RuntimePeers::default();
            let sources = &config.upstreams["app"].sources;
            runtime.lists.set("app", &sources[0], list(&one, 2));
            runtime.lists.set("app", &sources[1], list(&two, 3));
            (config, runtime)
        })
    }

    fn apply<'a>(
        changes: &mut PeerChanges,
        config: &Config,
        edits: impl Iterator<Item = (&'a String, &'a Vec<Edit>)>,
    ) {
        let app = &config.upstreams["app"];
        for (label, edits) in edits {
            let is_listed = app.listed_peers().any(|peer| peer.label == *label);
            for edit in edits {
                match edit {
                    Edit::Set(port) => changes.set(peer(label, &format!("x:{port}")), 1),
                    Edit::Weight(number) => changes.set_weight(label, weight(*number), 1),
                    Edit::Remove => changes.remove(label, is_listed, 1),
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn changes_never_touch_other_labels((config, runtime) in runtime(), edits in edits()) {
            let (before, _) = config.with_runtime_peers(&runtime);
            let mut changed = runtime;
            apply(changed.changes.entry("app".to_owned()).or_default(), &before, edits.iter());
            let (after, _) = config.with_runtime_peers(&changed);
            let others = |config: &Config| -> Vec<PeerConfig> {
                let peers = config.upstreams["app"].peers.iter();
                peers.filter(|peer| !edits.contains_key(&peer.label)).cloned().collect()
            };
            prop_assert_eq!(others(&before), others(&after));
            let listed = |config: &Config| -> Vec<PeerConfig> {
                config.upstreams["app"].listed_peers().cloned().collect()
            };
            prop_assert_eq!(listed(&before), listed(&after));
            prop_assert_eq!(after.without_runtime_peers(), config);
            let again = after.with_runtime_peers(&after.runtime_peers()).0;
            prop_assert_eq!(again, after);
        }

        #[test]
        fn reset_of_every_change_restores_the_peers((config, runtime) in runtime(), edits in edits()) {
            let (before, _) = config.with_runtime_peers(&runtime);
            let mut changes = PeerChanges::default();
            apply(&mut changes, &before, edits.iter());
            for label in edits.keys() {
                changes.reset(Some(label));
            }
            let mut reset = runtime;
            reset.changes.insert("app".to_owned(), changes);
            prop_assert_eq!(config.with_runtime_peers(&reset).0, before);
        }

        #[test]
        fn order_of_changes_of_different_labels_has_no_meaning((config, runtime) in runtime(), edits in edits()) {
            let (before, _) = config.with_runtime_peers(&runtime);
            let (mut forwards, mut backwards) = (PeerChanges::default(), PeerChanges::default());
            apply(&mut forwards, &before, edits.iter());
            apply(&mut backwards, &before, edits.iter().rev());
            prop_assert_eq!(forwards, backwards);
        }
    }
}
