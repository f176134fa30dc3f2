//! One side of a comparison: hypothetical peers of an upstream and their ring.

use super::{KeyPlacement, PeerSetChange, PeerSpec, UnknownPeer};
use crate::ring::{self, Dialect, Ring};

/// Peers and the ring that they make.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    peers: Vec<PeerSpec>,
    ring: Ring,
}

/// Why a scenario cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ScenarioError {
    /// The change names an unknown peer.
    #[error(transparent)]
    UnknownPeer(#[from] UnknownPeer),
    /// The ring of the peers cannot be built.
    #[error(transparent)]
    Ring(#[from] ring::Error),
}

impl Scenario {
    /// Builds the ring of these peers.
    ///
    /// # Errors
    /// The ring cannot be built.
    pub(crate) fn new(dialect: Dialect, peers: Vec<PeerSpec>) -> Result<Self, ring::Error> {
        let ring = Ring::new(dialect, peers.iter().map(PeerSpec::member))?;
        Ok(Self { peers, ring })
    }

    /// Builds the ring of these peers after a change.
    ///
    /// # Errors
    /// See [`ScenarioError`].
    pub(crate) fn after_change(
        dialect: Dialect,
        peers: &[PeerSpec],
        change: &PeerSetChange,
    ) -> Result<Self, ScenarioError> {
        Ok(Self::new(dialect, change.apply(peers)?)?)
    }

    /// The peers, in the ring's order.
    pub(crate) fn peers(&self) -> &[PeerSpec] {
        &self.peers
    }

    /// True if both rings have the same dialect and peers, and all weights of `after` are those here times one factor
    /// other than 1.
    pub(crate) fn is_scaled_to(&self, after: &Self) -> bool {
        let without_weights = |peers: &[PeerSpec]| -> Vec<_> {
            let peers = peers.iter();
            peers
                .map(|peer| (peer.label.clone(), peer.id.clone()))
                .collect()
        };
        let weight = |peer: &PeerSpec| u64::from(peer.weight.thousandths());
        let pairs = self.peers.iter().zip(&after.peers);
        let mut pairs = pairs.map(|(was, is)| (weight(was), weight(is)));
        let Some((from, to)) = pairs.next().filter(|(from, to)| from != to) else {
            return false;
        };
        self.ring.dialect() == after.ring.dialect()
            && without_weights(&self.peers) == without_weights(&after.peers)
            && pairs.all(|(was, is)| was * to == is * from)
    }

    /// The ring of the peers.
    pub(crate) fn ring(&self) -> &Ring {
        &self.ring
    }

    /// The placement of keys while some peers are down.
    ///
    /// # Errors
    /// No peer has one of the labels.
    pub(crate) fn placement<'l>(
        &self,
        down: impl IntoIterator<Item = &'l str>,
    ) -> Result<KeyPlacement<'_>, UnknownPeer> {
        let labels = self.peers.iter().map(|peer| peer.label.as_str());
        KeyPlacement::new(&self.ring, labels).with_down(down)
    }
}
