//! What the draining peers of an upstream keep, counted once for all of them.

use std::collections::HashMap;
use std::time::Duration;

use super::active::Tenure;
use super::{Peer, Upstream};
use crate::ring::Hash;

/// What the draining peers of an upstream keep, as of one moment.
#[derive(Debug)]
pub struct Kept<'a> {
    upstream: &'a Upstream,
    now: Duration,
    /// How many keys are with each peer; nothing where none drains.
    keys: HashMap<Tenure, usize>,
}

/// What a draining peer keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remains {
    /// Its keys that are still active.
    pub keys: usize,
    /// How much longer it may keep them.
    pub left: Duration,
}

impl Upstream {
    /// What its draining peers keep: goes over the table of active keys once, if there are any.
    pub fn kept(&self, now: Duration) -> Kept<'_> {
        let drains = self.peers.iter().any(|peer| peer.state.is_draining());
        let table = self.active.as_ref().zip(self.config.drain);
        let keys = table
            .filter(|_| drains)
            .map(|(active, drain)| active.held(now, drain.idle));
        Kept {
            upstream: self,
            now,
            keys: keys.unwrap_or_default(),
        }
    }

    /// Records that a request, or a stream, goes on: its key is still with the peer that it was at home with when
    /// it came, in that tenure, unless another has served it since. When it is to be recorded next; `None`: it
    /// need not be, as no drain of the peer would keep it.
    pub fn renew(
        &self,
        (label, tenure): (&str, Tenure),
        key: Hash,
        now: Duration,
    ) -> Option<Duration> {
        let (drain, active) = (self.config.drain?, self.active.as_ref()?);
        let peer = self.peer_named(label)?;
        if peer.state.tenure() != tenure {
            return None;
        }
        active.renew(key.0, tenure, now, drain.idle);
        self.renewal()
    }

    /// How often a request that goes on is to be recorded.
    pub fn renewal(&self) -> Option<Duration> {
        self.config.drain.map(|drain| drain.idle / 3)
    }
}

impl Kept<'_> {
    /// What a peer keeps; `None`: nothing, or it is not draining.
    pub fn remains(&self, peer: &Peer) -> Option<Remains> {
        let drain = self.upstream.config.drain?;
        let drains_for = peer.state.drains_for(self.now)?;
        let left = drain.deadline.checked_sub(drains_for)?;
        let keys = self.keys.get(&peer.state.tenure()).copied();
        (!left.is_zero()).then_some(Remains {
            keys: keys.unwrap_or(0),
            left,
        })
    }

    /// Whether a draining peer has nothing left: no request, and no key that it keeps.
    pub fn is_drained(&self, peer: &Peer) -> bool {
        peer.state.is_draining()
            && peer.state.in_flight() == 0
            && self.remains(peer).is_none_or(|kept| kept.keys == 0)
    }
}
