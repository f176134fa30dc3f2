//! The drain of a peer by an operator: refused if no other peer would take keys.

use std::time::Duration;

use super::{Peer, Upstream};

/// Why a drain is refused: no other peer of the upstream takes keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastPeer;

impl Upstream {
    /// Drains a peer of this upstream; false: it was draining already.
    ///
    /// # Errors
    /// [`LastPeer`], unless `force` is set.
    pub fn drain_peer(&self, peer: &Peer, force: bool, now: Duration) -> Result<bool, LastPeer> {
        let _lock = self.shared.removal_lock.lock();
        if !force && self.is_last(peer, now) {
            return Err(LastPeer);
        }
        Ok(peer.set_draining(true, now))
    }

    /// Whether a peer is the only one that takes keys. While no peer is available, the last resorts do.
    fn is_last(&self, peer: &Peer, now: Duration) -> bool {
        let mut others = self.peers.iter().filter(|other| other.label != peer.label);
        if peer.state.is_available(now) {
            !others.any(|other| other.state.is_available(now))
        } else {
            let takes_keys = |peer: &Peer| peer.state.is_available(now) || peer.state.may_be_up();
            takes_keys(peer) && !others.any(takes_keys)
        }
    }
}
