//! One side of a comparison: an upstream's peers as they would be, on their ring.

use super::{KeyPlacement, PeerSetChange, PeerSpec, UnknownPeer};
use crate::ring::{self, Dialect, Ring};

/// Peers on their ring.
#[derive(Clone, Debug)]
pub struct Scenario {
    peers: Vec<PeerSpec>,
    ring: Ring,
}

/// Why there is no such side.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScenarioError {
    /// The change names a peer that is not there.
    #[error(transparent)]
    UnknownPeer(#[from] UnknownPeer),
    /// The peers make no ring.
    #[error(transparent)]
    Ring(#[from] ring::Error),
}

impl Scenario {
    /// These peers.
    ///
    /// # Errors
    /// They make no ring.
    pub fn new(dialect: Dialect, peers: Vec<PeerSpec>) -> Result<Self, ring::Error> {
        let ring = Ring::new(dialect, peers.iter().map(PeerSpec::member))?;
        Ok(Self { peers, ring })
    }

    /// These peers after a change.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn after_change(
        dialect: Dialect,
        peers: &[PeerSpec],
        change: &PeerSetChange,
    ) -> Result<Self, ScenarioError> {
        Ok(Self::new(dialect, change.apply(peers)?)?)
    }

    /// The peers, in the ring's order.
    pub fn peers(&self) -> &[PeerSpec] {
        &self.peers
    }

    /// Their ring.
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Who has which keys while these peers are down.
    ///
    /// # Errors
    /// A label that no peer has.
    pub fn placement<'l>(
        &self,
        down: impl IntoIterator<Item = &'l str>,
    ) -> Result<KeyPlacement<'_>, UnknownPeer> {
        let labels = self.peers.iter().map(|peer| peer.label.as_str());
        KeyPlacement::new(&self.ring, labels).with_down(down)
    }
}
