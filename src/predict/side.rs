//! One side of a comparison: an upstream's peers as they would be, on their ring.

use super::{Change, Peer, Placement, Unknown};
use crate::ring::{self, Dialect, Ring};

/// Peers on their ring.
#[derive(Clone, Debug)]
pub struct Side {
    peers: Vec<Peer>,
    ring: Ring,
}

/// Why there is no such side.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The change names a peer that is not there.
    #[error(transparent)]
    Unknown(#[from] Unknown),
    /// The peers make no ring.
    #[error(transparent)]
    Ring(#[from] ring::Error),
}

impl Side {
    /// These peers.
    ///
    /// # Errors
    /// They make no ring.
    pub fn new(dialect: Dialect, peers: Vec<Peer>) -> Result<Self, ring::Error> {
        let ring = Ring::new(dialect, peers.iter().map(Peer::member))?;
        Ok(Self { peers, ring })
    }

    /// These peers after a change.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn changed(dialect: Dialect, peers: &[Peer], change: &Change) -> Result<Self, Refused> {
        Ok(Self::new(dialect, change.apply(peers)?)?)
    }

    /// The peers, in the ring's order.
    pub fn peers(&self) -> &[Peer] {
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
    ) -> Result<Placement<'_>, Unknown> {
        let labels = self.peers.iter().map(|peer| peer.label.as_str());
        Placement::new(&self.ring, labels).with_down(down)
    }
}
