//! The peers that left: their source no longer has them, or an operator has removed them. The upstream drains them; then they
//! are forgotten.

use std::collections::{BTreeMap, BTreeSet};

use crate::clock;
use crate::config::{Config, LeavingPeer};
use crate::discovery::SourceId;
use crate::snapshot::Snapshot;

/// A peer, by upstream and label.
pub(super) type PeerKey = (String, String);

/// The leaving peers of all upstreams.
#[derive(Clone, Debug, Default)]
pub(super) struct LeavingPeers(BTreeMap<PeerKey, LeavingPeer>);

impl LeavingPeers {
    /// The leaving peers of the process before.
    pub(super) fn restored(leaving: BTreeMap<String, Vec<LeavingPeer>>) -> Self {
        let mut restored = Self::default();
        restored.replace(leaving);
        restored
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a peer is leaving.
    pub(super) fn contains(&self, key: &PeerKey) -> bool {
        self.0.contains_key(key)
    }

    /// The peers that are leaving unless a new configuration has them: those that are leaving already, and those of
    /// `before`. Only of upstreams that let peers drain.
    pub(super) fn candidates(
        &self,
        config: &Config,
        before: Option<&Config>,
    ) -> BTreeMap<String, Vec<LeavingPeer>> {
        let upstreams = config.upstreams.iter();
        let draining = upstreams.filter(|(_, upstream)| upstream.drain.is_some());
        let candidates = draining.map(|(name, _)| {
            let known = self.0.iter().filter(|((upstream, _), _)| upstream == name);
            let known = known.map(|(_, leaving)| leaving.clone());
            let before = before.and_then(|before| before.upstreams.get(name));
            let left = before.into_iter().flat_map(|upstream| {
                let staying = upstream.staying_peers();
                staying.map(move |peer| LeavingPeer::new(peer, upstream))
            });
            (name.clone(), left.chain(known).collect())
        });
        candidates.collect()
    }

    /// Replaces the leaving peers by those of a configuration.
    pub(super) fn replace(&mut self, leaving: BTreeMap<String, Vec<LeavingPeer>>) {
        let peers = leaving.into_iter().flat_map(|(upstream, peers)| {
            let key = move |peer: &LeavingPeer| (upstream.clone(), peer.peer.label.clone());
            peers.into_iter().map(move |peer| (key(&peer), peer))
        });
        self.0 = peers.collect();
    }

    /// Forgets a drained peer.
    pub(super) fn forget(&mut self, key: &PeerKey) {
        self.0.remove(key);
    }

    /// The leaving peers that are drained.
    pub(super) fn drained(&self, snapshot: &Snapshot) -> Vec<PeerKey> {
        let mut drained = Vec::new();
        let names: BTreeSet<_> = self.0.keys().map(|(upstream, _)| upstream).collect();
        for name in names {
            let upstream = snapshot.upstreams.get(name);
            // Reads the table of active keys, once for all peers of an upstream.
            let status = upstream.map(|upstream| upstream.drain_status(clock::since_start()));
            let is_over = |(_, label): &&PeerKey| {
                let peer = upstream.and_then(|upstream| upstream.peer_by_label(label));
                // Without progress the deadline is over, or the peer is down.
                peer.zip(status.as_ref()).is_none_or(|(peer, status)| {
                    status.is_drained(peer) || status.progress(peer).is_none()
                })
            };
            let own = self.0.keys().filter(|(upstream, _)| upstream == name);
            drained.extend(own.filter(is_over).cloned());
        }
        drained
    }

    /// The labels of the peers that a source no longer has.
    pub(super) fn of_source(&self, id: &SourceId) -> Vec<String> {
        let own = self.0.iter().filter(|((upstream, _), leaving)| {
            *upstream == id.upstream && leaving.source.as_ref() == Some(&id.source)
        });
        own.map(|((_, label), _)| label.clone()).collect()
    }
}
