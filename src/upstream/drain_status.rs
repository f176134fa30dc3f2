//! What the draining peers of an upstream keep, counted once for all of them.

use std::collections::HashMap;
use std::time::Duration;

use super::peer_epoch::PeerEpoch;
use super::{Peer, Upstream};
use crate::ring::Hash;

/// What the draining peers of an upstream keep, as of one moment.
#[derive(Debug)]
pub struct DrainStatus<'a> {
    upstream: &'a Upstream,
    now: Duration,
    /// How many keys are with each peer; nothing where none drains.
    active_keys: HashMap<PeerEpoch, usize>,
}

/// What a draining peer keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerDrainProgress {
    /// Its keys that are still active.
    pub active_keys: usize,
    /// How much longer it may keep them.
    pub time_left: Duration,
}

impl Upstream {
    /// What its draining peers keep: goes over the table of active keys once, if there are any.
    pub fn drain_status(&self, now: Duration) -> DrainStatus<'_> {
        let drains = self.peers.iter().any(|peer| peer.state.is_draining());
        let table = self.affinity.as_ref().zip(self.config.drain);
        let keys = table
            .filter(|_| drains)
            .map(|(active, drain)| active.active_keys_by_peer(now, drain.idle));
        DrainStatus {
            upstream: self,
            now,
            active_keys: keys.unwrap_or_default(),
        }
    }

    /// Records that a request, or a stream, goes on: its key is still with the peer that it was at home with when
    /// it came, in that tenure, unless another has served it since. When it is to be recorded next; `None`: it
    /// need not be, as no drain of the peer would keep it.
    pub fn refresh_affinity(
        &self,
        (label, tenure): (&str, PeerEpoch),
        key: Hash,
        now: Duration,
    ) -> Option<Duration> {
        let (drain, active) = (self.config.drain?, self.affinity.as_ref()?);
        let peer = self.peer_by_label(label)?;
        if peer.state.epoch() != tenure {
            return None;
        }
        active.refresh(key.0, tenure, now, drain.idle);
        self.affinity_refresh_interval()
    }

    /// How often a request that goes on is to be recorded.
    pub fn affinity_refresh_interval(&self) -> Option<Duration> {
        self.config.drain.map(|drain| drain.idle / 3)
    }
}

impl DrainStatus<'_> {
    /// What a peer keeps; `None`: nothing, or it is not draining.
    pub fn progress(&self, peer: &Peer) -> Option<PeerDrainProgress> {
        let drain = self.upstream.config.drain?;
        let drains_for = peer.state.draining_for(self.now)?;
        let left = drain.deadline.checked_sub(drains_for)?;
        let keys = self.active_keys.get(&peer.state.epoch()).copied();
        (!left.is_zero()).then_some(PeerDrainProgress {
            active_keys: keys.unwrap_or(0),
            time_left: left,
        })
    }

    /// Whether a draining peer has nothing left: no request, and no key that it keeps.
    pub fn is_drained(&self, peer: &Peer) -> bool {
        peer.state.is_draining()
            && peer.state.in_flight() == 0
            && self.progress(peer).is_none_or(|kept| kept.active_keys == 0)
    }
}
