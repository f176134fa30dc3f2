//! What an upstream tells another process of its peers, and makes of what it is told; and what becomes of all
//! that where another configuration does not want it.
//!
//! A process that takes over is told twice: all, when it is asked to, and what has happened since,
//! when it is to serve. In between it has asked the peers itself.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::persisted_state::{PersistedHotKey, PersistedPeer, millis};
use super::{Peer, Upstream};
use crate::config::{self, SessionDrainConfig};
use crate::policy::heavy_hitters::HotKey;

/// The most keys that another process is told of, of the draining peers of one upstream, and of all other
/// peers together: some 8 MB.
pub const MAX_EXPORTED_KEYS: usize = 1 << 18;

impl Upstream {
    /// What another process should know of the peers, by label.
    pub fn export_state(&self, now: Duration) -> BTreeMap<String, PersistedPeer> {
        let memory = |peer: &Peer| {
            let address = peer.address.clone();
            let memory = peer.state.export(address, self.is_probed(), now);
            (peer.label.to_string(), memory)
        };
        let mut memory = self.peers.iter().map(memory).collect();
        let idle = |peer: &Peer, drain: SessionDrainConfig| {
            let longer = peer.state.slow_start_elapsed(now);
            has_keys_to_export(peer, now).then(|| drain.idle.saturating_add(longer))
        };
        let mut room = MAX_EXPORTED_KEYS;
        self.append_active_keys(&mut memory, &mut room, now, idle);
        memory
    }

    /// Adds to a [`Self::memory`] what a drain to come would need: the keys that all other peers have served
    /// within that time, at most as many as there is `room` for, which gets less by that. Too much to be written
    /// down all the time.
    pub fn export_active_keys(
        &self,
        memory: &mut BTreeMap<String, PersistedPeer>,
        room: &mut usize,
        within: Duration,
        now: Duration,
    ) {
        let idle = |peer: &Peer, drain: SessionDrainConfig| {
            (!has_keys_to_export(peer, now)).then(|| drain.idle.min(within))
        };
        self.append_active_keys(memory, room, now, idle);
    }

    /// Adds the keys of the peers for which `idle` says for how long a key is theirs.
    fn append_active_keys(
        &self,
        memory: &mut BTreeMap<String, PersistedPeer>,
        room: &mut usize,
        now: Duration,
        idle: impl Fn(&Peer, SessionDrainConfig) -> Option<Duration>,
    ) {
        let (Some(active), Some(drain)) = (&self.affinity, self.config.drain) else {
            return;
        };
        let peers = self.peers.iter();
        let of: HashMap<_, _> = peers
            .filter_map(|peer| Some((peer.state.epoch(), (peer, idle(peer, drain)?))))
            .collect();
        if of.is_empty() {
            return;
        }
        let keys = active.export(|tenure| Some(of.get(&tenure)?.1), now, *room);
        *room -= keys.len();
        for (tenure, key) in keys {
            let label = of.get(&tenure).map(|(peer, _)| &*peer.label);
            if let Some(known) = label.and_then(|label| memory.get_mut(label)) {
                known.active_keys.push(key);
            }
        }
    }

    /// What another process should know of its hot keys.
    pub fn export_hot_keys(&self, now: Duration) -> Vec<PersistedHotKey> {
        let hot = self.hot_keys.iter().flat_map(|hot| hot.hot_keys(now));
        let memory = hot.map(|hot| PersistedHotKey {
            key: hot.key,
            share: hot.share,
            hot_for_ms: millis(now.saturating_sub(hot.since)),
        });
        memory.collect()
    }

    /// How long ago all peers were equally cold, in milliseconds, where that still matters.
    pub fn export_cold_start(&self, now: Duration) -> Option<u64> {
        let length = self.config.slow_start?.duration;
        let ago = now.saturating_sub(self.shared.cold_start.since());
        (ago < length).then(|| millis(ago))
    }

    /// Takes over when that was in another process; `None`: so long ago that it does not matter.
    pub fn restore_cold_start(&self, ago: Option<u64>, now: Duration) {
        let since = |ms| now.saturating_sub(Duration::from_millis(ms));
        self.shared
            .cold_start
            .set(ago.map_or(Duration::ZERO, since));
    }

    /// Takes over the keys that were hot in another process, and no others.
    pub fn restore_hot_keys(&self, memory: &[PersistedHotKey], now: Duration) {
        let known = memory.iter().map(|known| HotKey {
            key: known.key,
            share: known.share,
            since: now.saturating_sub(Duration::from_millis(known.hot_for_ms)),
        });
        if let Some(hot) = &self.hot_keys {
            hot.restore(&known.collect::<Vec<_>>(), now);
        }
    }

    /// Takes over what another process knew of the peers; of one that had another address, only
    /// whether an operator took it out. That one, and one that it did not have, is new, and begins slowly.
    pub fn restore_state(&self, memory: &BTreeMap<String, PersistedPeer>, now: Duration) {
        for peer in &self.peers {
            match memory.get(&*peer.label) {
                Some(known) if known.address == peer.address => {
                    peer.state.restore(known, self.is_probed(), now);
                }
                Some(known) => {
                    let ago = Duration::from_millis(known.draining_for_ms);
                    let since = known.draining.then(|| now.saturating_sub(ago));
                    peer.begin_slow_start(now);
                    peer.inherit_drain(since, now);
                }
                None => peer.begin_slow_start(now),
            }
        }
        self.restore_affinity(memory, now);
        self.reconcile(now);
    }

    /// Takes over what has become of the peers since another process told of them (`before`), while this one has
    /// served nobody.
    pub fn apply_delta(
        &self,
        before: &BTreeMap<String, PersistedPeer>,
        memory: &BTreeMap<String, PersistedPeer>,
        now: Duration,
    ) {
        for peer in &self.peers {
            match memory.get(&*peer.label) {
                Some(known) if known.address == peer.address => {
                    let before = before.get(&*peer.label);
                    peer.apply_delta((before, known), self.is_probed(), now);
                }
                Some(known) => _ = peer.set_draining(known.draining, now),
                None => {}
            }
        }
        self.restore_affinity(memory, now);
        self.reconcile(now);
    }

    /// Once the peers are in the tenures that the keys are for.
    fn restore_affinity(&self, memory: &BTreeMap<String, PersistedPeer>, now: Duration) {
        let Some(active) = &self.affinity else {
            return;
        };
        let until = affinity_expiry(&self.config, &self.peers, now);
        for peer in &self.peers {
            let known = memory.get(&*peer.label);
            if let Some(known) = known.filter(|known| known.address == peer.address) {
                active.restore(&known.active_keys, peer.state.epoch(), now, until);
            }
        }
    }

    /// Brings to an end what another configuration, or process, has begun and this configuration does not have:
    /// suppressions where flapping is not damped, slow starts where there are none; one of another
    /// length takes that. Once it is in force, since the peers are those of the one before.
    pub fn reconcile(&self, now: Duration) {
        for peer in &self.peers {
            if self.config.flap_damping.is_none() {
                peer.lift_suppression(now);
            }
            peer.reconcile_slow_start(now);
        }
    }

    /// Takes over which peers operators have taken out, by label, and nothing else.
    pub fn restore_drains<'a>(
        &self,
        drains: impl IntoIterator<Item = (&'a str, bool)>,
        now: Duration,
    ) {
        for (label, draining) in drains {
            if let Some(peer) = self.peer_by_label(label) {
                peer.set_draining(draining, now);
            }
        }
    }
}

/// Whether a peer keeps keys while it drains, or was left some when that was called off.
fn has_keys_to_export(peer: &Peer, now: Duration) -> bool {
    peer.state.is_draining() || peer.state.slow_start(now).is_some()
}

/// Until when a key may count as active that is not served any more: of a peer in a slow start for as much longer
/// as that has taken when it ends.
pub(super) fn affinity_expiry(
    config: &config::UpstreamConfig,
    peers: &[Peer],
    now: Duration,
) -> Duration {
    let idle = config.drain.map_or(Duration::ZERO, |drain| drain.idle);
    let ramp = config
        .slow_start
        .map_or(Duration::ZERO, |slow| slow.duration);
    let ramped = peers
        .iter()
        .map(|peer| peer.state.slow_start_elapsed(now))
        .max();
    let longer = ramp.saturating_add(ramped.unwrap_or_default());
    now.saturating_add(idle).saturating_add(longer)
}
