//! The progress of drains: the keys that draining peers still keep, counted once for all peers of an upstream.

use std::collections::HashMap;
use std::time::Duration;

use super::peer_epoch::PeerEpoch;
use super::{Peer, Upstream};
use crate::ring::Hash;

/// The keys of an upstream's draining peers at one moment.
#[derive(Debug)]
pub struct DrainStatus<'a> {
    upstream: &'a Upstream,
    now: Duration,
    /// The active keys of each peer; empty if no peer is draining.
    active_keys: HashMap<PeerEpoch, usize>,
}

/// The progress of one peer's drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerDrainProgress {
    /// The keys that it keeps: those that are still active.
    pub active_keys: usize,
    /// The time to the deadline, until which it may keep them.
    pub time_left: Duration,
}

impl Upstream {
    /// The status of drains. Scans the affinity table once if a peer is draining.
    pub fn drain_status(&self, now: Duration) -> DrainStatus<'_> {
        let is_draining = self.peers.iter().any(|peer| peer.state.is_draining());
        let table = self.affinity.as_ref().zip(self.config.drain);
        let keys = table
            .filter(|_| is_draining)
            .map(|(table, drain)| table.active_keys_by_peer(now, drain.idle));
        DrainStatus {
            upstream: self,
            now,
            active_keys: keys.unwrap_or_default(),
        }
    }

    /// Records that a request or a stream continues at a peer, in the epoch of its admission. The time until it
    /// is to be recorded again; `None`: no more, because a drain of the peer would no longer keep the key.
    pub fn refresh_affinity(
        &self,
        (label, epoch): (&str, PeerEpoch),
        key: Hash,
        now: Duration,
    ) -> Option<Duration> {
        let (drain, affinity) = (self.config.drain?, self.affinity.as_ref()?);
        let peer = self.peer_by_label(label)?;
        if peer.state.epoch() != epoch {
            return None;
        }
        affinity.refresh(key.0, epoch, now, drain.idle);
        self.affinity_refresh_interval()
    }

    /// The interval at which a request that continues is to be recorded.
    pub fn affinity_refresh_interval(&self) -> Option<Duration> {
        self.config.drain.map(|drain| drain.idle / 3)
    }
}

impl DrainStatus<'_> {
    /// The progress of a peer's drain; `None`: it is not draining, or keeps no keys any more.
    pub fn progress(&self, peer: &Peer) -> Option<PeerDrainProgress> {
        let drain = self.upstream.config.drain?;
        let elapsed = peer.state.draining_for(self.now)?;
        let time_left = drain.deadline.checked_sub(elapsed)?;
        let keys = self.active_keys.get(&peer.state.epoch()).copied();
        (!time_left.is_zero()).then_some(PeerDrainProgress {
            active_keys: keys.unwrap_or(0),
            time_left,
        })
    }

    /// Whether a draining peer has no request in flight and keeps no key.
    pub fn is_drained(&self, peer: &Peer) -> bool {
        peer.state.is_draining()
            && peer.state.in_flight() == 0
            && self
                .progress(peer)
                .is_none_or(|progress| progress.active_keys == 0)
    }
}
