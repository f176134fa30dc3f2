//! Puts lists in force that are due, or that an operator accepts, and forgets drained peers.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;

use super::PeerDiscovery;
use super::leaving::PeerKey;
use super::max_moved::exceeds_max_moved;
use super::peer_states::PeerStates;
use super::source_state::describe_hold;
use crate::clock;
use crate::config::{Config, PeerConfig};
use crate::discovery::{self, SourceId};
use crate::lifecycle::{ControlError, ControlResult};
use crate::policy::peer_list::{DueList, HoldReason, PeersByLabel};
use crate::server::blocking::run_blocking;
use crate::server::data_plane::DataPlane;
use crate::server::peer_lookups::{self, LookupWarning, PeerLookups};
use crate::server::reload;
use crate::snapshot::Snapshot;
use crate::telemetry::SourceUpdateResult;

/// New lists, each with its source.
type NewLists = Vec<(SourceId, PeersByLabel<PeerConfig>)>;

impl PeerDiscovery {
    /// Puts the trusted lists in force at the end of their wait, and forgets the drained peers. What
    /// fails is tried again later. Can be dropped as [`reload::reload`].
    pub(in crate::server) async fn apply_due(
        &mut self,
        data_plane: &mut DataPlane,
        lookups: &mut PeerLookups,
    ) {
        let lists = self.take_due();
        let lists = self.hold_moving(lists).await;
        let forgotten = self.take_drained(&lists);
        if !lists.is_empty() || !forgotten.is_empty() {
            self.put_or_retry(lists, &forgotten, data_plane, lookups)
                .await;
        }
        self.publish();
    }

    /// Puts the held lists of an upstream in force for an operator.
    ///
    /// # Errors
    /// The upstream does not exist, no list is held, or it cannot be put in force.
    pub(in crate::server) async fn accept(
        &mut self,
        upstream: &str,
        data_plane: &mut DataPlane,
        lookups: &mut PeerLookups,
    ) -> ControlResult {
        let sources = self
            .states
            .sources
            .iter()
            .filter(|(id, _)| id.upstream == upstream);
        let held = sources.filter_map(|(id, state)| {
            let held = state.gate.held()?;
            Some((id.clone(), held.peers.clone()))
        });
        let lists: NewLists = held.collect();
        if lists.is_empty() {
            return Err(ControlError::Failed(format!(
                "upstream `{upstream}` holds no list of peers back: nothing was changed"
            )));
        }
        let accepted: Vec<_> = lists.iter().map(|(id, _)| id.source.to_string()).collect();
        let accepted_ids: Vec<_> = lists.iter().map(|(id, _)| id.clone()).collect();
        log::info!("upstream {upstream}: the operator accepts the list that was held");
        let result = self.put_in_force(lists, &[], data_plane, lookups).await;
        if result.is_ok() {
            for id in &accepted_ids {
                if let Some(state) = self.states.sources.get_mut(id) {
                    state.gate.forget_peak();
                }
            }
        }
        self.publish();
        result?;
        let generation = self.app_state.snapshot.load().generation;
        let sources = self.app_state.sources.of_upstream(upstream);
        Ok(json!({
            "upstream": upstream, "accepted": accepted, "generation": generation, "sources": sources,
        }))
    }

    /// The trusted lists at the end of their wait; the others are held from now on.
    fn take_due(&mut self) -> NewLists {
        let mut lists = NewLists::new();
        let mut held = Vec::new();
        for (id, state) in &mut self.states.sources {
            let was_held = state.gate.held().is_some();
            match state.gate.take_due(clock::since_start()) {
                Some(DueList::Trusted(peers)) => lists.push((id.clone(), peers)),
                Some(DueList::Held(reason)) => held.push((id.clone(), reason, was_held)),
                None => {}
            }
        }
        for (id, reason, was_held) in held {
            self.report_hold(&id, reason, was_held);
        }
        lists
    }

    /// Holds the lists of each upstream of which they would move more keys than `max_moved` allows; returns the others.
    async fn hold_moving(&mut self, lists: NewLists) -> NewLists {
        let snapshot = self.app_state.snapshot.load_full();
        let mut exceeded = Vec::new();
        let upstreams: BTreeSet<_> = lists.iter().map(|(id, _)| id.upstream.clone()).collect();
        for upstream in upstreams {
            let is_first = |(id, _): &(SourceId, _)| {
                let state = self.states.sources.get(id);
                state.is_none_or(|state| state.gate.in_force().is_none())
            };
            let own = lists.iter().filter(|(id, _)| id.upstream == upstream);
            let before = snapshot.config.upstreams.get(&upstream);
            let Some(before) = before.filter(|config| config.max_moved.is_some()) else {
                continue;
            };
            // The first list of a source has no predecessor; to hold it would leave its peers out.
            if own.clone().any(is_first) {
                continue;
            }
            let mut after = self.config_with(&snapshot.config, own);
            let (before, after) = (before.clone(), after.upstreams.remove(&upstream));
            let judge = move || Ok(after.and_then(|after| exceeds_max_moved(&before, &after)));
            // A judgement that panicked holds nothing back.
            if let Ok(Some(reason)) = run_blocking(judge).await {
                exceeded.push((upstream, reason));
            }
        }
        let mut allowed = NewLists::new();
        for (id, peers) in lists {
            let found = exceeded
                .iter()
                .find(|(upstream, _)| *upstream == id.upstream);
            match (found, self.states.sources.get_mut(&id)) {
                (Some((_, reason)), Some(state)) => {
                    let was_held = state.gate.held().is_some();
                    state.gate.hold(peers, *reason);
                    self.report_hold(&id, *reason, was_held);
                }
                _ => allowed.push((id, peers)),
            }
        }
        allowed
    }

    /// The configuration with these lists instead of those in force, without leaving peers.
    fn config_with<'a>(
        &self,
        in_force: &Config,
        lists: impl Iterator<Item = &'a (SourceId, PeersByLabel<PeerConfig>)>,
    ) -> Config {
        let mut states = self.states.clone();
        for (id, peers) in lists {
            if let Some(state) = states.sources.get_mut(id) {
                state.confirm(peers.clone());
            }
        }
        states.staying(in_force)
    }

    fn report_hold(&self, id: &SourceId, reason: HoldReason, was_held: bool) {
        self.metrics(id).updates.inc(match reason {
            HoldReason::Lost { .. } | HoldReason::Shrunk { .. } => SourceUpdateResult::Distrusted,
            HoldReason::Moved { .. } => SourceUpdateResult::Held,
        });
        let SourceId { upstream, source } = id;
        let why = describe_hold(reason);
        let message = format!(
            "upstream {upstream}: a list of `{source}` is held: {why}; the list before it stays in force; to accept it, run `clockwise accept {upstream}`"
        );
        // A source with lists that change while they are held must not fill the log.
        if was_held {
            log::debug!("{message}");
        } else {
            log::warn!("{message}");
        }
    }

    /// The leaving peers that are drained, and do not return with one of these lists.
    fn take_drained(&mut self, lists: &NewLists) -> Vec<PeerKey> {
        self.next_drain_check = clock::since_start().saturating_add(DRAIN_CHECK_INTERVAL);
        let snapshot = self.app_state.snapshot.load();
        let mut drained = self.states.leaving.drained(&snapshot);
        drained.retain(|(upstream, label)| {
            let mut own = lists.iter().filter(|(id, _)| id.upstream == *upstream);
            !own.any(|(_, peers)| peers.contains_key(label))
        });
        drained
    }

    /// Puts the lists in force: all in one step, and if that fails each upstream alone, since one of them must not keep
    /// the others back.
    async fn put_or_retry(
        &mut self,
        lists: NewLists,
        forgotten: &[PeerKey],
        data_plane: &mut DataPlane,
        lookups: &mut PeerLookups,
    ) {
        let all = self.put_in_force(lists.clone(), forgotten, data_plane, lookups);
        let Err(error) = all.await else {
            return;
        };
        if !forgotten.is_empty() {
            log::warn!("cannot remove the drained peers: {error}; trying again");
            self.next_drain_check = clock::since_start().saturating_add(RETRY_INTERVAL);
        }
        let upstreams: BTreeSet<_> = lists.iter().map(|(id, _)| id.upstream.clone()).collect();
        if upstreams.len() < 2 {
            self.retry_later(lists, &error);
            return;
        }
        for upstream in upstreams {
            let own = lists.iter().filter(|(id, _)| id.upstream == upstream);
            let own: NewLists = own.cloned().collect();
            let put = self.put_in_force(own.clone(), &[], data_plane, lookups);
            if let Err(error) = put.await {
                self.retry_later(own, &error);
            }
        }
    }

    fn retry_later(&mut self, lists: NewLists, error: &ControlError) {
        let due = clock::since_start().saturating_add(RETRY_INTERVAL);
        for (id, peers) in lists {
            self.metrics(&id).updates.inc(SourceUpdateResult::Failed);
            let Some(state) = self.states.sources.get_mut(&id) else {
                continue;
            };
            state.gate.retry(peers, due);
            let reason = error.to_string();
            if state.apply_error.as_ref() != Some(&reason) {
                let SourceId { upstream, source } = &id;
                log::error!(
                    "upstream {upstream}: a list of `{source}` cannot be put in force: {reason}; trying again every {RETRY_INTERVAL:?}"
                );
                state.apply_error = Some(reason);
            }
        }
    }

    /// Puts lists in force, without peers that are forgotten, by a reload of the configuration in force.
    async fn put_in_force(
        &mut self,
        lists: NewLists,
        forgotten: &[PeerKey],
        data_plane: &mut DataPlane,
        lookups: &mut PeerLookups,
    ) -> Result<(), ControlError> {
        let mut states = self.states.clone();
        for key in forgotten {
            states.leaving.forget(key);
        }
        for (id, peers) in &lists {
            if let Some(state) = states.sources.get_mut(id) {
                state.confirm(peers.clone());
            }
        }
        self.put_states_in_force(states, data_plane, lookups)
            .await?;
        for (upstream, label) in forgotten {
            log::info!("upstream {upstream}: peer {label} is removed: its drain is over");
        }
        for (id, peers) in lists {
            self.metrics(&id).updates.inc(SourceUpdateResult::Applied);
            let SourceId { upstream, source } = &id;
            log::info!(
                "upstream {upstream}: the {} peers of `{source}` are in force",
                peers.len()
            );
        }
        Ok(())
    }
}

impl PeerDiscovery {
    /// Puts states in force, by a reload of the configuration in force; returns the warnings of names that were looked up.
    pub(super) async fn put_states_in_force(
        &mut self,
        mut states: PeerStates,
        data_plane: &mut DataPlane,
        lookups: &mut PeerLookups,
    ) -> Result<Vec<LookupWarning>, ControlError> {
        let before = self.app_state.snapshot.load_full();
        let (config, left_out) = states.compose(&before.config, Some(&before.config));
        let warnings = if config == before.config {
            Vec::new()
        } else {
            reload_with(config, &before, data_plane, lookups).await?
        };
        self.states = states;
        self.states.record_left_out(&left_out, true);
        Ok(warnings)
    }
}

/// Reloads with this configuration, which differs from the one in force only in its peers. `max_moved` was checked by the
/// caller: leaving peers stay on the ring while they drain, so the ring moves fewer keys now, and the rest later.
async fn reload_with(
    config: Config,
    before: &Snapshot,
    data_plane: &mut DataPlane,
    lookups: &mut PeerLookups,
) -> Result<Vec<LookupWarning>, ControlError> {
    let resolution = discovery::resolve_new_names(&config, &before.config, LOOKUP_TIMEOUT)
        .await
        .map_err(|error| ControlError::Failed(error.to_string()))?;
    let mut addresses = before.addresses();
    addresses.extend(resolution.addresses);
    let warnings = peer_lookups::warnings(&config, &addresses, &resolution.failures);
    let after = reload::reload_peers(data_plane, config, addresses).await?;
    peer_lookups::log_changes(&warnings, before, &after);
    lookups.update(&resolution.failures, &after);
    Ok(warnings)
}

/// The longest time for the names of new peers; a name without an address by then is looked up again later.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);

/// How often a list is tried again that could not be put in force.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// How often the drains of leaving peers are looked at.
const DRAIN_CHECK_INTERVAL: Duration = Duration::from_secs(1);
