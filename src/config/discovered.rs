//! The peers that sources have found, in the configuration.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use super::sections::{Config, NoServerName, PeerAddress, PeerConfig, PeerSource, UpstreamConfig};

/// The lists in force, by upstream and source.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct DiscoveredPeers(BTreeMap<String, BTreeMap<PeerSource, Vec<PeerConfig>>>);

impl DiscoveredPeers {
    /// Replaces the list of a source.
    pub(crate) fn set(&mut self, upstream: &str, source: &PeerSource, peers: Vec<PeerConfig>) {
        let sources = self.0.entry(upstream.to_owned()).or_default();
        sources.insert(source.clone(), peers);
    }

    /// Adds the peers of an upstream that its sources have found.
    pub(crate) fn add_upstream(&mut self, name: &str, upstream: &UpstreamConfig) {
        for (index, source) in upstream.sources.iter().enumerate() {
            let peers = upstream.peers.iter();
            let peers = peers.filter(|peer| peer.source == Some(index));
            let peers = peers.map(|peer| PeerConfig {
                source: None,
                ..peer.clone()
            });
            self.set(name, source, peers.collect());
        }
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

#[derive(Clone, Debug, PartialEq, Eq)]
enum LeftOutReason {
    DuplicateLabel,
    DuplicateRingName(String),
    MissingId(&'static str),
    InvalidId(String),
    NoServerName,
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
            "upstream {upstream}: `{source}`: peer {label} is left out: "
        )?;
        match reason {
            LeftOutReason::DuplicateLabel => {
                f.write_str("the upstream has a peer with this label; labels are unique")
            }
            LeftOutReason::DuplicateRingName(name) => write!(
                f,
                "the ring hashes another peer as `{name}`, too; give each an `id` of its own"
            ),
            LeftOutReason::MissingId(dialect) => write!(
                f,
                "dialect `{dialect}` needs the `id` of each peer that a source finds"
            ),
            LeftOutReason::InvalidId(error) => f.write_str(error),
            LeftOutReason::NoServerName => f.write_str(
                "it has no server name to verify; add `server_name` to `tls` of the upstream",
            ),
        }
    }
}

impl Config {
    /// This configuration with these peers besides those that it lists; peers that were found before are replaced. Also
    /// the peers that were left out: of two with the same label the listed one stays, then that of the first source.
    pub(crate) fn with_discovered(&self, found: &DiscoveredPeers) -> (Self, Vec<LeftOutPeer>) {
        let mut config = self.without_discovered();
        let mut left_out = Vec::new();
        for (name, upstream) in &mut config.upstreams {
            upstream.add_discovered(name, found, &mut left_out);
        }
        (config, left_out)
    }

    /// This configuration with only the peers that it lists.
    pub(crate) fn without_discovered(&self) -> Self {
        let mut config = self.clone();
        for upstream in config.upstreams.values_mut() {
            upstream.peers.retain(|peer| peer.source.is_none());
        }
        config
    }

    /// The peers of each source that are in this configuration.
    pub(crate) fn discovered(&self) -> DiscoveredPeers {
        let mut found = DiscoveredPeers::default();
        for (name, upstream) in &self.upstreams {
            found.add_upstream(name, upstream);
        }
        found
    }
}

impl UpstreamConfig {
    /// Whether a peer is a host of which its source, a name of DNS, has found no address. Nothing else looks for one.
    pub(crate) fn is_unresolved_by_source(&self, peer: &PeerConfig) -> bool {
        let source = peer.source.and_then(|index| self.sources.get(index));
        let is_of_dns = matches!(source, Some(PeerSource::Dns(_)));
        is_of_dns && matches!(peer.address, PeerAddress::Name(..))
    }

    fn add_discovered(
        &mut self,
        name: &str,
        found: &DiscoveredPeers,
        left_out: &mut Vec<LeftOutPeer>,
    ) {
        let mut names = MemberNames::of(self);
        let sources = self.sources.clone();
        // The peers that are leaving come last: a label that has moved to another source belongs to that one.
        for is_leaving in [false, true] {
            for (index, source) in sources.iter().enumerate() {
                let peers = found.get(name, source).unwrap_or_default().iter();
                for peer in peers.filter(|peer| peer.is_leaving == is_leaving) {
                    match self.add_peer(peer, index, &mut names) {
                        Err(reason) if !is_leaving => left_out.push(LeftOutPeer {
                            upstream: name.to_owned(),
                            source: source.clone(),
                            label: peer.label.clone(),
                            reason,
                        }),
                        Ok(()) | Err(_) => {}
                    }
                }
            }
        }
    }

    fn add_peer(
        &mut self,
        peer: &PeerConfig,
        source: usize,
        names: &mut MemberNames,
    ) -> Result<(), LeftOutReason> {
        let (server_name, ring_name) = self.admit(peer, names)?;
        names.labels.insert(peer.label.clone());
        names.ring_names.insert(ring_name);
        self.peers.push(PeerConfig {
            source: Some(source),
            server_name,
            ..peer.clone()
        });
        Ok(())
    }

    /// The server name of a peer, and the text that the ring hashes for it.
    fn admit(
        &self,
        peer: &PeerConfig,
        names: &MemberNames,
    ) -> Result<(Option<String>, String), LeftOutReason> {
        if names.labels.contains(&peer.label) {
            return Err(LeftOutReason::DuplicateLabel);
        }
        if self.dialect.numbers_by_order() && peer.id.is_none() {
            return Err(LeftOutReason::MissingId(self.dialect.name()));
        }
        let member = [peer.member()];
        let hashed = self.dialect.hash_names(&member);
        let hashed = hashed.map_err(|error| LeftOutReason::InvalidId(error.to_string()))?;
        let ring_name = hashed.concat();
        if names.ring_names.contains(&ring_name) {
            return Err(LeftOutReason::DuplicateRingName(ring_name));
        }
        let server_name = match &self.transport.tls {
            None => None,
            Some(tls) => tls
                .server_name(peer)
                .map_err(|NoServerName| LeftOutReason::NoServerName)?,
        };
        Ok((server_name, ring_name))
    }
}

/// The names of the members so far.
struct MemberNames {
    labels: HashSet<String>,
    ring_names: HashSet<String>,
}

impl MemberNames {
    fn of(upstream: &UpstreamConfig) -> Self {
        let members: Vec<_> = upstream.members().collect();
        // An id that the dialect cannot hash was refused when the configuration was read.
        let hashed = upstream.dialect.hash_names(&members).unwrap_or_default();
        Self {
            labels: upstream
                .peers
                .iter()
                .map(|peer| peer.label.clone())
                .collect(),
            ring_names: hashed.into_iter().map(String::from).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{parse, parse_peer_list};

    fn config(upstream: &str) -> Config {
        let text = format!(
            "listeners: [{{address: 127.0.0.1:1}}]\nroutes: [{{upstream: app}}]\nupstreams: {{app: {upstream}}}\n"
        );
        parse("test.yaml", &text).unwrap()
    }

    fn found(config: &Config, lists: &[&str]) -> DiscoveredPeers {
        let (mut found, app) = (DiscoveredPeers::default(), &config.upstreams["app"]);
        for (source, list) in app.sources.iter().zip(lists) {
            // Without the upstream's rules, as a list from a name server.
            let rules = self::config("{peers: [127.0.0.1:1]}").upstreams["app"].peer_list_rules();
            let peers = parse_peer_list("list.yaml".as_ref(), list, &rules).unwrap();
            found.set("app", source, peers);
        }
        found
    }

    fn labels(config: &Config) -> Vec<(&str, Option<usize>)> {
        let peers = config.upstreams["app"].peers.iter();
        peers.map(|peer| (&*peer.label, peer.source)).collect()
    }

    #[test]
    fn discovered_peers_follow_the_configured_ones_and_are_replaced() {
        let config = config("{peers: [{file: a}, 127.0.0.1:1, {file: b}]}");
        let (merged, left_out) =
            config.with_discovered(&found(&config, &["[10.0.0.1:1]", "[10.0.0.2:1]"]));
        let expected = [
            ("127.0.0.1:1", None),
            ("10.0.0.1:1", Some(0)),
            ("10.0.0.2:1", Some(1)),
        ];
        assert_eq!((labels(&merged), left_out.len()), (expected.to_vec(), 0));
        assert_eq!(merged.with_discovered(&merged.discovered()).0, merged);
        assert_eq!(merged.without_discovered(), config);
        let (replaced, _) = merged.with_discovered(&found(&config, &["[10.0.0.3:1]"]));
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
            let (merged, left_out) = config.with_discovered(&found(&config, &[list]));
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
    fn leaving_peer_gives_way_to_a_peer_with_its_label() {
        let config = config("{peers: [{file: a}, {file: b}, {label: y, address: '10.0.0.3:1'}]}");
        let x = "[{label: x, address: '10.0.0.1:1'}, {label: y, address: '10.0.0.2:1'}]";
        let found = found(&config, &[x, "[{label: x, address: '10.0.0.4:1'}]"]);
        let source = &config.upstreams["app"].sources[0];
        let mut leaving = found.get("app", source).unwrap().to_vec();
        for peer in &mut leaving {
            peer.is_leaving = true;
        }
        let mut found = found.clone();
        found.set("app", source, leaving);
        let (merged, left_out) = config.with_discovered(&found);
        assert_eq!(labels(&merged), [("y", None), ("x", Some(1))]);
        assert_eq!(left_out, []);
        assert!(
            merged.upstreams["app"]
                .peers
                .iter()
                .all(|peer| !peer.is_leaving)
        );
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
                config.with_discovered(&found(&config, &[&format!("[{address}]")]));
            assert_eq!(left_out, [], "{tls}");
            let name = merged.upstreams["app"].peers[0].server_name.as_deref();
            assert_eq!(name, expected, "{tls}");
        }
    }
}
