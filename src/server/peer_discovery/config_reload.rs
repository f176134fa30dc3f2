//! The sources in a reload of the configuration file: known ones keep their lists, new ones are read once first.

use std::collections::BTreeMap;

use super::PeerDiscovery;
use super::source_lists::{by_label, keeps_leaving, lists_of, record_left_out, watched_sources};
use super::source_state::{SourceState, describe_hold};
use super::start::SourceUnavailable;
use crate::clock;
use crate::config::{Config, LeftOutPeer, PeerConfig, StartMode, UpstreamConfig};
use crate::discovery::{self, KnownSource, LOOKUP_TIMEOUT, SourceId, WatchedSource};
use crate::lifecycle::ControlError;
use crate::policy::peer_list::{DueList, HoldReason, PeerListGate};

/// The sources of a configuration that is not in force yet.
pub(in crate::server) struct PreparedSources {
    sources: BTreeMap<SourceId, SourceState>,
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
        let (mut sources, to_read) = self.states_for(config);
        let mut warnings = Vec::new();
        for (WatchedSource { id, .. }, answer) in
            discovery::read_once(to_read, LOOKUP_TIMEOUT).await
        {
            let Some(state) = sources.get_mut(&id) else {
                continue;
            };
            match answer {
                Ok(peers) => {
                    let keeps = keeps_leaving(config, &id.upstream);
                    if let Some(reason) = take_answer(state, peers, keeps) {
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
        let (merged, left_out) = config.with_discovered(&lists_of(&sources));
        warnings.extend(left_out.iter().map(ToString::to_string));
        let prepared = PreparedSources {
            sources,
            left_out,
            warnings,
        };
        Ok((merged, prepared))
    }

    /// The states of the sources of `config`, and those sources that have to be read: they are new, or their lists have
    /// to fit other rules.
    fn states_for(&self, config: &Config) -> (BTreeMap<SourceId, SourceState>, Vec<KnownSource>) {
        let in_force = self.app_state.snapshot.load();
        let (mut sources, mut to_read) = (BTreeMap::new(), Vec::new());
        for source in watched_sources(config) {
            let Some(upstream) = config.upstreams.get(&source.id.upstream) else {
                continue;
            };
            let limits = upstream.discovery.limits();
            let known = self.sources.get(&source.id).cloned();
            let mut state = known.unwrap_or_else(|| {
                SourceState::new(PeerListGate::new(limits, None), BTreeMap::new())
            });
            state.gate.set_limits(limits);
            let before = in_force.config.upstreams.get(&source.id.upstream);
            if before.is_some_and(|before| has_other_limits(before, upstream)) {
                state.gate.judge_again(clock::since_start());
            }
            if upstream.drain.is_none() {
                state.leaving.clear();
            }
            let known_peers = state.known_peers();
            sources.insert(source.id.clone(), state);
            let watcher = self.watchers.get(&source.id);
            if watcher.is_none_or(|watcher| watcher.source != source) {
                to_read.push((source, known_peers));
            }
        }
        (sources, to_read)
    }

    /// The configuration of [`Self::prepare`] is in force.
    pub(in crate::server) fn commit(&mut self, prepared: PreparedSources) {
        self.sources = prepared.sources;
        record_left_out(&mut self.sources, &prepared.left_out, false);
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
fn take_answer(
    state: &mut SourceState,
    peers: Vec<PeerConfig>,
    keep_leaving: bool,
) -> Option<HoldReason> {
    match state.judge_now(by_label(peers))? {
        DueList::Trusted(peers) => {
            state.confirm(peers, keep_leaving);
            None
        }
        DueList::Held(reason) => Some(reason),
    }
}
