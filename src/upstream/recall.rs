//! What an upstream tells another process of its peers, and makes of what it is told; and what becomes of all
//! that where another configuration does not want it.
//!
//! A process that takes over is told twice: all, when it is asked to, and what has happened since,
//! when it is to serve. In between it has asked the peers itself.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::memory::{HotMemory, PeerMemory};
use super::{Peer, Upstream, ledger};
use crate::config::{self, SessionDrain};
use crate::policy::hot::Hot;

/// The most keys that another process is told of, of the draining peers of one upstream, and of all other
/// peers together: some 8 MB.
pub const MAX_REMEMBERED: usize = 1 << 18;

impl Upstream {
    /// What another process should know of the peers, by label.
    pub fn memory(&self, now: Duration) -> BTreeMap<String, PeerMemory> {
        let memory = |peer: &Peer| {
            let address = peer.address.clone();
            let memory = peer.state.memory(address, self.is_probed(), now);
            (peer.label.to_string(), memory)
        };
        let mut memory = self.peers.iter().map(memory).collect();
        let idle = |peer: &Peer, drain: SessionDrain| {
            let longer = peer.state.ramps_for(now);
            keeps(peer, now).then(|| drain.idle.saturating_add(longer))
        };
        let mut room = MAX_REMEMBERED;
        self.add_keys(&mut memory, &mut room, now, idle);
        memory
    }

    /// Adds to a [`Self::memory`] what a drain to come would need: the keys that all other peers have served
    /// within that time, at most as many as there is `room` for, which gets less by that. Too much to be written
    /// down all the time.
    pub fn remember_keys(
        &self,
        memory: &mut BTreeMap<String, PeerMemory>,
        room: &mut usize,
        within: Duration,
        now: Duration,
    ) {
        let idle =
            |peer: &Peer, drain: SessionDrain| (!keeps(peer, now)).then(|| drain.idle.min(within));
        self.add_keys(memory, room, now, idle);
    }

    /// Adds the keys of the peers for which `idle` says for how long a key is theirs.
    fn add_keys(
        &self,
        memory: &mut BTreeMap<String, PeerMemory>,
        room: &mut usize,
        now: Duration,
        idle: impl Fn(&Peer, SessionDrain) -> Option<Duration>,
    ) {
        let (Some(active), Some(drain)) = (&self.active, self.config.drain) else {
            return;
        };
        let peers = self.peers.iter();
        let of: HashMap<_, _> = peers
            .filter_map(|peer| Some((peer.state.tenure(), (peer, idle(peer, drain)?))))
            .collect();
        if of.is_empty() {
            return;
        }
        let keys = active.remember(|tenure| Some(of.get(&tenure)?.1), now, *room);
        *room -= keys.len();
        for (tenure, key) in keys {
            let label = of.get(&tenure).map(|(peer, _)| &*peer.label);
            if let Some(known) = label.and_then(|label| memory.get_mut(label)) {
                known.active.push(key);
            }
        }
    }

    /// What another process should know of its hot keys.
    pub fn hot_memory(&self, now: Duration) -> Vec<HotMemory> {
        let hot = self.hot.iter().flat_map(|hot| hot.hot(now));
        let memory = hot.map(|hot| HotMemory {
            key: hot.key,
            share: hot.share,
            for_ms: ledger::millis(now.saturating_sub(hot.since)),
        });
        memory.collect()
    }

    /// How long ago all peers were equally cold, in milliseconds, where that still matters.
    pub fn cold_memory(&self, now: Duration) -> Option<u64> {
        let length = self.config.slow_start?.length;
        let ago = now.saturating_sub(self.shared.cold.since());
        (ago < length).then(|| ledger::millis(ago))
    }

    /// Takes over when that was in another process; `None`: so long ago that it does not matter.
    pub fn recall_cold(&self, ago: Option<u64>, now: Duration) {
        let since = |ms| now.saturating_sub(Duration::from_millis(ms));
        self.shared.cold.set(ago.map_or(Duration::ZERO, since));
    }

    /// Takes over the keys that were hot in another process, and no others.
    pub fn recall_hot(&self, memory: &[HotMemory], now: Duration) {
        let known = memory.iter().map(|known| Hot {
            key: known.key,
            share: known.share,
            since: now.saturating_sub(Duration::from_millis(known.for_ms)),
        });
        if let Some(hot) = &self.hot {
            hot.recall(&known.collect::<Vec<_>>(), now);
        }
    }

    /// Takes over what another process knew of the peers; of one that had another address, only
    /// whether an operator took it out. That one, and one that it did not have, is new, and begins slowly.
    pub fn recall(&self, memory: &BTreeMap<String, PeerMemory>, now: Duration) {
        for peer in &self.peers {
            match memory.get(&*peer.label) {
                Some(known) if known.address == peer.address => {
                    peer.state.recall(known, self.is_probed(), now);
                }
                Some(known) => {
                    let ago = Duration::from_millis(known.draining_for_ms);
                    let since = known.draining.then(|| now.saturating_sub(ago));
                    peer.begin_slowly(now);
                    peer.take_drain(since, now);
                }
                None => peer.begin_slowly(now),
            }
        }
        self.recall_keys(memory, now);
        self.settle(now);
    }

    /// Takes over what has become of the peers since another process told of them (`before`), while this one has
    /// served nobody.
    pub fn catch_up(
        &self,
        before: &BTreeMap<String, PeerMemory>,
        memory: &BTreeMap<String, PeerMemory>,
        now: Duration,
    ) {
        for peer in &self.peers {
            match memory.get(&*peer.label) {
                Some(known) if known.address == peer.address => {
                    let before = before.get(&*peer.label);
                    peer.catch_up((before, known), self.is_probed(), now);
                }
                Some(known) => _ = peer.set_draining(known.draining, now),
                None => {}
            }
        }
        self.recall_keys(memory, now);
        self.settle(now);
    }

    /// Once the peers are in the tenures that the keys are for.
    fn recall_keys(&self, memory: &BTreeMap<String, PeerMemory>, now: Duration) {
        let Some(active) = &self.active else {
            return;
        };
        let until = active_until(&self.config, &self.peers, now);
        for peer in &self.peers {
            let known = memory.get(&*peer.label);
            if let Some(known) = known.filter(|known| known.address == peer.address) {
                active.recall(&known.active, peer.state.tenure(), now, until);
            }
        }
    }

    /// Brings to an end what another configuration, or process, has begun and this configuration does not have:
    /// suppressions where flapping is not damped, slow starts where there are none; one of another
    /// length takes that. Once it is in force, since the peers are those of the one before.
    pub fn settle(&self, now: Duration) {
        for peer in &self.peers {
            if self.config.flap_damping.is_none() {
                peer.lift_suppression(now);
            }
            peer.settle_ramp(now);
        }
    }

    /// Takes over which peers operators have taken out, by label, and nothing else.
    pub fn recall_drains<'a>(
        &self,
        drains: impl IntoIterator<Item = (&'a str, bool)>,
        now: Duration,
    ) {
        for (label, draining) in drains {
            if let Some(peer) = self.peer_named(label) {
                peer.set_draining(draining, now);
            }
        }
    }
}

/// Whether a peer keeps keys while it drains, or was left some when that was called off.
fn keeps(peer: &Peer, now: Duration) -> bool {
    peer.state.is_draining() || peer.state.ramp(now).is_some()
}

/// Until when a key may count as active that is not served any more: of a peer in a slow start for as much longer
/// as that has taken when it ends.
pub(super) fn active_until(config: &config::Upstream, peers: &[Peer], now: Duration) -> Duration {
    let idle = config.drain.map_or(Duration::ZERO, |drain| drain.idle);
    let ramp = config.slow_start.map_or(Duration::ZERO, |slow| slow.length);
    let ramped = peers.iter().map(|peer| peer.state.ramps_for(now)).max();
    let longer = ramp.saturating_add(ramped.unwrap_or_default());
    now.saturating_add(idle).saturating_add(longer)
}
