//! Exports an upstream's state for another process and restores it there; reconciles it with another
//! configuration.
//!
//! A process that takes over restores twice: all state at its start, and the changes since then just before
//! it serves. In between it has probed the peers itself.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::persisted_state::{PersistedHotKey, PersistedPeer, millis};
use super::{Peer, Upstream};
use crate::config::{self, SessionDrainConfig};
use crate::policy::heavy_hitters::HotKey;

/// The most active keys in an export: of the peers of one upstream that keep keys (draining or in a slow
/// start), and again of all other peers of all upstreams. About 8 MB.
pub(crate) const MAX_EXPORTED_KEYS: usize = 1 << 18;

impl Upstream {
    /// Exports the state of the peers by label, with the active keys of peers that are draining or in a
    /// slow start.
    pub fn export_state(&self, now: Duration) -> BTreeMap<String, PersistedPeer> {
        let export = |peer: &Peer| {
            let address = peer.address.clone();
            let exported = peer.state.export(address, self.is_probed(), now);
            (peer.label.to_string(), exported)
        };
        let mut peers = self.peers.iter().map(export).collect();
        let idle = |peer: &Peer, drain: SessionDrainConfig| {
            let extra = peer.state.slow_start_elapsed(now);
            has_keys_to_export(peer, now).then(|| drain.idle.saturating_add(extra))
        };
        let mut room = MAX_EXPORTED_KEYS;
        self.append_active_keys(&mut peers, &mut room, now, idle);
        peers
    }

    /// Adds the active keys of all other peers to an [`Self::export_state`], for later drains: the keys
    /// served `within` that time, at most `room` of them. Reduces `room` by their number. Not for a state
    /// file, which is written often: the keys take too many bytes.
    pub fn export_active_keys(
        &self,
        exported: &mut BTreeMap<String, PersistedPeer>,
        room: &mut usize,
        within: Duration,
        now: Duration,
    ) {
        let idle = |peer: &Peer, drain: SessionDrainConfig| {
            (!has_keys_to_export(peer, now)).then(|| drain.idle.min(within))
        };
        self.append_active_keys(exported, room, now, idle);
    }

    /// Adds the keys of the peers for which `idle` returns a time: keys with a request within that time.
    fn append_active_keys(
        &self,
        exported: &mut BTreeMap<String, PersistedPeer>,
        room: &mut usize,
        now: Duration,
        idle: impl Fn(&Peer, SessionDrainConfig) -> Option<Duration>,
    ) {
        let (Some(affinity), Some(drain)) = (&self.affinity, self.config.drain) else {
            return;
        };
        let peers = self.peers.iter();
        let idle_by_epoch: HashMap<_, _> = peers
            .filter_map(|peer| Some((peer.state.epoch(), (peer, idle(peer, drain)?))))
            .collect();
        if idle_by_epoch.is_empty() {
            return;
        }
        let idle_of = |epoch| Some(idle_by_epoch.get(&epoch)?.1);
        let keys = affinity.export(idle_of, now, *room);
        *room -= keys.len();
        for (epoch, key) in keys {
            let label = idle_by_epoch.get(&epoch).map(|(peer, _)| &*peer.label);
            if let Some(peer) = label.and_then(|label| exported.get_mut(label)) {
                peer.active_keys.push(key);
            }
        }
    }

    /// Exports the hot keys.
    pub fn export_hot_keys(&self, now: Duration) -> Vec<PersistedHotKey> {
        let hot_keys = self.hot_keys.iter().flat_map(|hot| hot.hot_keys(now));
        let exported = hot_keys.map(|hot| PersistedHotKey {
            key: hot.key,
            share: hot.share,
            hot_for_ms: millis(now.saturating_sub(hot.since)),
        });
        exported.collect()
    }

    /// Exports how many milliseconds ago all peers were equally cold; `None`: longer ago than a slow start
    /// takes.
    pub fn export_cold_start(&self, now: Duration) -> Option<u64> {
        let duration = self.config.slow_start?.duration;
        let ago = now.saturating_sub(self.shared.cold_start.since());
        (ago < duration).then(|| millis(ago))
    }

    /// Restores that time from another process.
    pub fn restore_cold_start(&self, ms_ago: Option<u64>, now: Duration) {
        let since = |ms| now.saturating_sub(Duration::from_millis(ms));
        self.shared
            .cold_start
            .set(ms_ago.map_or(Duration::ZERO, since));
    }

    /// Replaces the hot keys by those of another process.
    pub fn restore_hot_keys(&self, exported: &[PersistedHotKey], now: Duration) {
        let restored = exported.iter().map(|hot| HotKey {
            key: hot.key,
            share: hot.share,
            since: now.saturating_sub(Duration::from_millis(hot.hot_for_ms)),
        });
        if let Some(hot) = &self.hot_keys {
            hot.restore(&restored.collect::<Vec<_>>(), now);
        }
    }

    /// Restores the state of the peers from another process. A peer that had another address there keeps
    /// only an operator's drain; such a peer, and one that is missing in the export, is new and starts
    /// slowly.
    pub fn restore_state(&self, exported: &BTreeMap<String, PersistedPeer>, now: Duration) {
        for peer in &self.peers {
            match exported.get(&*peer.label) {
                Some(exported) if exported.address == peer.address => {
                    peer.state.restore(exported, self.is_probed(), now);
                }
                Some(exported) => {
                    let ago = Duration::from_millis(exported.draining_for_ms);
                    let since = exported.draining.then(|| now.saturating_sub(ago));
                    peer.begin_slow_start(now);
                    peer.inherit_drain(since, now);
                }
                None => peer.begin_slow_start(now),
            }
        }
        self.restore_affinity(exported, now);
        self.reconcile(now);
    }

    /// Takes over what changed in another process since its first export (`before`). This process has
    /// probed the peers meanwhile, but served no request.
    pub fn apply_delta(
        &self,
        before: &BTreeMap<String, PersistedPeer>,
        exported: &BTreeMap<String, PersistedPeer>,
        now: Duration,
    ) {
        for peer in &self.peers {
            match exported.get(&*peer.label) {
                Some(exported) if exported.address == peer.address => {
                    let before = before.get(&*peer.label);
                    peer.apply_delta((before, exported), self.is_probed(), now);
                }
                Some(exported) => _ = peer.set_draining(exported.draining, now),
                None => {}
            }
        }
        self.restore_affinity(exported, now);
        self.reconcile(now);
    }

    /// Restores the active keys; after the peers, since keys are recorded for the current epochs.
    fn restore_affinity(&self, exported: &BTreeMap<String, PersistedPeer>, now: Duration) {
        let Some(affinity) = &self.affinity else {
            return;
        };
        let expires_at = affinity_expiry(&self.config, &self.peers, now);
        for peer in &self.peers {
            let exported = exported.get(&*peer.label);
            if let Some(exported) = exported.filter(|exported| exported.address == peer.address) {
                let keys = &exported.active_keys;
                affinity.restore(keys, peer.state.epoch(), now, expires_at);
            }
        }
    }

    /// Adjusts state from a previous configuration or process to this configuration: ends suppressions
    /// without flap damping and slow starts without `slow_start`, rescales slow starts to another
    /// duration, and drains the peers that are leaving, and no others. Called once the configuration is in force, because it shares its peers' state with the
    /// previous one.
    pub fn reconcile(&self, now: Duration) {
        for (peer, configured) in self.peers.iter().zip(&self.config.peers) {
            peer.set_leaving(configured.is_leaving, now);
            if self.config.flap_damping.is_none() {
                peer.lift_suppression(now);
            }
            peer.reconcile_slow_start(now);
        }
    }

    /// Restores only which peers operators drain, by label.
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

/// Whether a peer may keep keys: it is draining, or in a slow start after a cancelled drain.
fn has_keys_to_export(peer: &Peer, now: Duration) -> bool {
    peer.state.is_draining() || peer.state.slow_start(now).is_some()
}

/// The time at which the keys that are active at `now` are no longer active, if no request uses them again. A peer in a
/// slow start keeps its keys longer, by the time since the slow start began.
pub(super) fn affinity_expiry(
    config: &config::UpstreamConfig,
    peers: &[Peer],
    now: Duration,
) -> Duration {
    let idle = config.drain.map_or(Duration::ZERO, |drain| drain.idle);
    let duration = config
        .slow_start
        .map_or(Duration::ZERO, |slow_start| slow_start.duration);
    let elapsed = peers
        .iter()
        .map(|peer| peer.state.slow_start_elapsed(now))
        .max();
    let extra = duration.saturating_add(elapsed.unwrap_or_default());
    now.saturating_add(idle).saturating_add(extra)
}
