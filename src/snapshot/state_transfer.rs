//! State of the peers that outlives a snapshot: exported to the next process or to a file, and restored.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Snapshot;
use super::runtime_peers::{export_changes, export_leaving, export_lists};
use crate::clock;
use crate::upstream::{DrainHandover, MAX_EXPORTED_KEYS, PersistedState};

/// Added to a time span in which keys were active: the clock of the keys ticks a few times a second.
const ACTIVITY_TICK: Duration = Duration::from_secs(1);

impl Snapshot {
    /// The state for the next process: [`Self::persisted_state`], and the recently served keys of all peers,
    /// at most [`MAX_EXPORTED_KEYS`].
    pub(crate) fn state_for_successor(&self) -> PersistedState {
        self.state_with_keys(Duration::MAX)
    }

    /// The same, with only the keys served since `then`, the time of an earlier export.
    pub(crate) fn state_since(&self, then: Duration) -> PersistedState {
        let since = clock::since_start().saturating_sub(then);
        self.state_with_keys(since.saturating_add(ACTIVITY_TICK))
    }

    fn state_with_keys(&self, within: Duration) -> PersistedState {
        let (mut state, mut free_keys) = (self.persisted_state(), MAX_EXPORTED_KEYS);
        let now = clock::since_start();
        for (name, upstream) in &self.upstreams {
            if let Some(peers) = state.upstreams.get_mut(name) {
                upstream.export_active_keys(peers, &mut free_keys, within, now);
            }
        }
        state
    }

    /// The state of the peers, without served keys.
    pub(crate) fn persisted_state(&self) -> PersistedState {
        let now = clock::since_start();
        let upstreams = self
            .upstreams
            .iter()
            .map(|(name, upstream)| (name.clone(), upstream.export_state(now)));
        let hot = self
            .upstreams
            .iter()
            .map(|(name, upstream)| (name.clone(), upstream.export_hot_keys(now)));
        let cold = self
            .upstreams
            .iter()
            .filter_map(|(name, upstream)| Some((name.clone(), upstream.export_cold_start(now)?)));
        let runtime = self.config.runtime_peers();
        PersistedState {
            upstreams: upstreams.collect(),
            hot_keys: hot.filter(|(_, hot)| !hot.is_empty()).collect(),
            cold_start_ms_ago: cold.collect(),
            resolved_names: self
                .addresses()
                .into_iter()
                .map(|(name, address)| (name.to_string(), address))
                .collect(),
            discovered: export_lists(&self.config, &runtime),
            peer_changes: export_changes(&runtime),
            leaving: export_leaving(&runtime),
        }
    }

    /// Restores only which peers are drained by the operator.
    pub(crate) fn restore_drains(&self, state: &PersistedState) {
        let now = clock::since_start();
        for (name, upstream) in &self.upstreams {
            let peers = state.upstreams.get(name).into_iter().flatten();
            let drains = peers.map(|(label, peer)| (label.as_str(), peer.draining));
            upstream.restore_drains(drains, now);
        }
    }

    /// Takes over the drains that operators started or ended since this configuration was built from
    /// `previous`; call [`PendingDrains::apply`] once it is in force.
    pub(crate) fn take_drains(&self, previous: &Self) -> PendingDrains {
        let now = clock::since_start();
        let upstreams = self.upstreams.iter();
        let pairs =
            upstreams.filter_map(|(name, after)| Some((previous.upstreams.get(name)?, after)));
        PendingDrains(
            pairs
                .flat_map(|(before, after)| after.hand_over_drains(before, now))
                .collect(),
        )
    }

    /// Applies what has changed in the previous process since it exported `before`.
    pub(crate) fn apply_delta(&self, before: &PersistedState, state: &PersistedState) {
        let (now, none) = (clock::since_start(), BTreeMap::new());
        for (name, upstream) in &self.upstreams {
            if let Some(peers) = state.upstreams.get(name) {
                upstream.restore_cold_start(state.cold_start_ms_ago.get(name).copied(), now);
                let before = before.upstreams.get(name).unwrap_or(&none);
                upstream.apply_delta(before, peers, now);
                let hot = state.hot_keys.get(name).map_or(&[][..], Vec::as_slice);
                upstream.restore_hot_keys(hot, now);
            }
        }
    }

    /// Restores the state that another process exported.
    pub(crate) fn restore(&self, state: &PersistedState) {
        let now = clock::since_start();
        for (name, upstream) in &self.upstreams {
            if let Some(peers) = state.upstreams.get(name) {
                // First: the slow start of a new peer depends on it.
                upstream.restore_cold_start(state.cold_start_ms_ago.get(name).copied(), now);
                upstream.restore_state(peers, now);
            } else {
                upstream.reconcile(now);
            }
            if let Some(hot) = state.hot_keys.get(name) {
                upstream.restore_hot_keys(hot, now);
            }
        }
    }
}

/// Drain commands during a reload: a command to a peer that is about to be replaced also applies to its
/// replacement.
#[derive(Debug)]
pub(crate) struct PendingDrains(Vec<DrainHandover>);

impl PendingDrains {
    /// Applies the commands that arrived while the configurations were exchanged.
    pub(crate) fn apply(self) {
        let now = clock::since_start();
        self.0.into_iter().for_each(|drain| drain.finish(now));
    }
}
