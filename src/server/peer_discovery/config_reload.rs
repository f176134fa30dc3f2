//! The sources in a reload of the configuration file: known ones keep their lists, new ones are read once first.

use std::collections::BTreeMap;

use super::PeerDiscovery;
use super::operator_change::hiding_changes;
use super::peer_states::PeerStates;
use super::source_lists::{by_label, watched_sources};
use super::source_state::{SourceState, describe_hold};
use super::start::SourceUnavailable;
use crate::clock;
use crate::config::{Config, LeftOutPeer, PeerChanges, PeerConfig, StartMode, UpstreamConfig};
use crate::discovery::{self, KnownSource, LOOKUP_TIMEOUT, SourceId, WatchedSource};
use crate::lifecycle::ControlError;
use crate::policy::peer_list::{DueList, HoldReason, PeerListGate};

/// The sources of a configuration that is not in force yet.
pub(in crate::server) struct PreparedSources {
    states: PeerStates,
    left_out: Vec<LeftOutPeer>,
    /// What the operator has to know, one line each.
    pub(in crate::server) warnings: Vec<String>,
}

impl PeerDiscovery {
    /// The sources of `config`, read from its file, and `config` with their peers. Nothing is changed.
    ///
    /// # Errors
    /// With `start: strict`, the first new source that cannot be read.
    pub(in crate::server) async fn prepare(
        &self,
        config: &Config,
    ) -> Result<(Config, PreparedSources), ControlError> {
        let (mut states, to_read) = self.states_for(config);
        // What sources lose by this reading is leaving; what the file no longer lists is not.
        let before = (!to_read.is_empty()).then(|| states.staying(config));
        let mut warnings = self.dropped_changes(config);
        for (WatchedSource { id, .. }, answer) in
            discovery::read_once(to_read, LOOKUP_TIMEOUT).await
        {
            let Some(state) = states.sources.get_mut(&id) else {
                continue;
            };
            match answer {
                Ok(peers) => {
                    if let Some(reason) = take_answer(state, peers) {
                        let SourceId { upstream, source } = &id;
                        let why = describe_hold(reason);
                        warnings.push(format!(
                            "upstream {upstream}: the list of `{source}` is held: {why}"
                        ));
                    }
                }
                Err(reason) if config.start == StartMode::Strict => {
                    let error = SourceUnavailable::new(&id, &reason);
                    return Err(ControlError::Failed(error.to_string()));
                }
                Err(reason) => {
                    let (SourceId { upstream, source }, peers) = (&id, state.in_force_count());
                    warnings.push(format!(
                        "upstream {upstream}: `{source}` cannot be read: {reason}; its {peers} peers stay"
                    ));
                    state.note_failure(reason);
                }
            }
        }
        let (merged, left_out) = states.compose(config, before.as_ref());
        warnings.extend(left_out.iter().map(ToString::to_string));
        warnings.extend(hiding_changes(&merged));
        let prepared = PreparedSources {
            states,
            left_out,
            warnings,
        };
        Ok((merged, prepared))
    }

    /// The states for `config`, and those of its sources that have to be read: they are new, or their lists have to fit
    /// other rules.
    fn states_for(&self, config: &Config) -> (PeerStates, Vec<KnownSource>) {
        let in_force = self.app_state.snapshot.load();
        let (mut sources, mut to_read) = (BTreeMap::new(), Vec::new());
        for source in watched_sources(config) {
            let Some(upstream) = config.upstreams.get(&source.id.upstream) else {
                continue;
            };
            let limits = upstream.discovery.limits();
            let known = self.states.sources.get(&source.id).cloned();
            let mut state =
                known.unwrap_or_else(|| SourceState::new(PeerListGate::new(limits, None)));
            state.gate.set_limits(limits);
            let before = in_force.config.upstreams.get(&source.id.upstream);
            if before.is_some_and(|before| has_other_limits(before, upstream)) {
                state.gate.judge_again(clock::since_start());
            }
            let known_peers = state.known_peers();
            sources.insert(source.id.clone(), state);
            let watcher = self.watchers.get(&source.id);
            if watcher.is_none_or(|watcher| watcher.source != source) {
                to_read.push((source, known_peers));
            }
        }
        let mut changes = self.states.changes.clone();
        changes.retain(|upstream, _| config.upstreams.contains_key(upstream));
        let states = PeerStates {
            sources,
            changes,
            leaving: self.states.leaving.clone(),
        };
        (states, to_read)
    }

    /// Warnings of changes that are forgotten, since `config` does not have their upstream.
    fn dropped_changes(&self, config: &Config) -> Vec<String> {
        let changes = self.states.changes.iter();
        let dropped = changes
            .filter(|(name, changes)| !changes.is_empty() && !config.upstreams.contains_key(*name));
        let warning = |(name, changes): (&String, &PeerChanges)| {
            format!(
                "upstream {name} is removed: operators' changes of {} of its peers are forgotten",
                changes.len()
            )
        };
        dropped.map(warning).collect()
    }

    /// The configuration of [`Self::prepare`] is in force.
    pub(in crate::server) fn commit(&mut self, prepared: PreparedSources) {
        self.states = prepared.states;
        self.states.record_left_out(&prepared.left_out, false);
        let snapshot = self.app_state.snapshot.load_full();
        self.watch(&snapshot.config);
        self.publish();
    }
}

/// Whether a list that one configuration holds may come into force with the other.
fn has_other_limits(before: &UpstreamConfig, after: &UpstreamConfig) -> bool {
    before.discovery.limits() != after.discovery.limits() || before.max_moved != after.max_moved
}

/// Puts what a source says in force, if it is trusted; else returns the reason.
fn take_answer(state: &mut SourceState, peers: Vec<PeerConfig>) -> Option<HoldReason> {
    match state.judge_now(by_label(peers))? {
        DueList::Trusted(peers) => {
            state.confirm(peers);
            None
        }
        DueList::Held(reason) => Some(reason),
    }
}
