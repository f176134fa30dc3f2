//! The lists with which an instance starts.
//!
//! The lists of the process before (from the state file, or from an upgrade) are in force first. What the sources say at
//! the start is then judged like any change: an empty file must not empty an upstream because the process was restarted.
//! Without a process before, the first answer of a source counts.

use std::collections::BTreeSet;
use std::time::Duration;

use super::change_log::log_changes;
use super::leaving::LeavingPeers;
use super::max_moved::exceeds_max_moved;
use super::peer_states::PeerStates;
use super::source_lists::{by_label, watched_sources};
use super::source_state::{SourceState, describe_hold};
use crate::config::{Config, PeerConfig, StartMode};
use crate::discovery::{self, SourceId, WatchedSource};
use crate::policy::peer_list::{DueList, HoldReason, PeerListGate, PeersByLabel};
use crate::snapshot::restore_runtime_peers;
use crate::upstream::PersistedState;

/// The longest time for the first answers, all sources together.
const FIRST_ANSWERS: Duration = Duration::from_secs(5);

/// The same, if the lists of the process before can serve meanwhile: a start without any source must not take long.
const KNOWN_ANSWERS: Duration = Duration::from_secs(2);

/// A source has no list, with `start: strict`.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "upstream `{upstream}`: the peers of `{name}` are not known: {reason}; with `start: tolerant` the upstream starts without them"
)]
pub(crate) struct SourceUnavailable {
    upstream: String,
    /// The source as text.
    name: String,
    reason: String,
}

impl SourceUnavailable {
    pub(super) fn new(id: &SourceId, reason: &str) -> Self {
        Self {
            upstream: id.upstream.clone(),
            name: id.source.to_string(),
            reason: reason.to_owned(),
        }
    }
}

/// The sources at the start, each with the list in force, and the changes of operators.
#[derive(Debug, Default)]
pub(in crate::server) struct StartedSources {
    states: PeerStates,
    /// The configuration with the peers of the process before.
    known: Option<Config>,
}

/// Reads all sources once, at most for `at_most`; a source without an answer keeps the list that `state` has.
///
/// # Errors
/// With `start: strict`, the first source without an answer.
pub(in crate::server) async fn start(
    config: &Config,
    state: &PersistedState,
    at_most: Duration,
) -> Result<StartedSources, SourceUnavailable> {
    let mut started = StartedSources::known(config, state);
    let known = |source: WatchedSource| {
        let state = started.states.sources.get(&source.id);
        let known = state.map(SourceState::known_peers).unwrap_or_default();
        (source, known)
    };
    let sources: Vec<_> = watched_sources(config).into_iter().map(known).collect();
    let all_known = sources.iter().all(|(_, known)| !known.is_empty());
    let limit = if all_known && config.start == StartMode::Tolerant {
        KNOWN_ANSWERS
    } else {
        FIRST_ANSWERS
    };
    let answers = discovery::read_once(sources, limit.min(at_most)).await;
    let mut trusted = Vec::new();
    for (WatchedSource { id, .. }, answer) in answers {
        match answer {
            Ok(peers) => trusted.extend(started.take_answer(id, peers)),
            Err(reason) if config.start == StartMode::Strict => {
                return Err(SourceUnavailable::new(&id, &reason));
            }
            Err(reason) => started.note_failure(&id, reason),
        }
    }
    for (id, peers) in started.hold_moving(config, trusted) {
        if let Some(state) = started.states.sources.get_mut(&id) {
            state.confirm(peers);
        }
    }
    Ok(started)
}

impl StartedSources {
    /// The peers of the process before.
    fn known(config: &Config, state: &PersistedState) -> Self {
        let known = restore_runtime_peers(config, state);
        let source = |WatchedSource { id, .. }: WatchedSource| {
            let limits = config.upstreams.get(&id.upstream)?.discovery.limits();
            let in_force = known.lists.get(&id.upstream, &id.source);
            let in_force = by_label(in_force.unwrap_or_default().to_vec());
            // A process before that knew no peer knows no more than a first start.
            let in_force = Some(in_force).filter(|peers| !peers.is_empty());
            Some((id, SourceState::new(PeerListGate::new(limits, in_force))))
        };
        let sources = watched_sources(config).into_iter();
        let states = PeerStates {
            sources: sources.filter_map(source).collect(),
            changes: known.changes,
            leaving: LeavingPeers::restored(known.leaving),
        };
        Self {
            known: Some(states.staying(config)),
            states,
        }
    }

    /// Judges the first answer of a source; returns it if it can come into force.
    fn take_answer(
        &mut self,
        id: SourceId,
        peers: Vec<PeerConfig>,
    ) -> Option<(SourceId, PeersByLabel<PeerConfig>)> {
        let state = self.states.sources.get_mut(&id)?;
        match state.judge_now(by_label(peers))? {
            DueList::Trusted(peers) => Some((id, peers)),
            DueList::Held(reason) => {
                warn_held(&id, reason);
                None
            }
        }
    }

    fn note_failure(&mut self, id: &SourceId, reason: String) {
        let Some(state) = self.states.sources.get_mut(id) else {
            return;
        };
        let (upstream, source, known) = (&id.upstream, &id.source, state.in_force_count());
        let consequence = match known {
            0 => "it has no peers from this source yet".to_owned(),
            known => format!("the {known} peers that it had before serve"),
        };
        log::warn!("upstream {upstream}: `{source}` cannot be read: {reason}; {consequence}");
        state.note_failure(reason);
    }

    /// Holds the lists of each upstream of which they would move more keys than `max_moved` allows, compared with the
    /// process before; returns the others.
    fn hold_moving(
        &mut self,
        config: &Config,
        lists: Vec<(SourceId, PeersByLabel<PeerConfig>)>,
    ) -> Vec<(SourceId, PeersByLabel<PeerConfig>)> {
        let mut after = self.states.clone();
        for (id, peers) in &lists {
            if let Some(state) = after.sources.get_mut(id) {
                state.confirm(peers.clone());
            }
        }
        let (before, after) = (self.states.staying(config), after.staying(config));
        let is_first = |(id, _): &&(SourceId, _)| {
            let state = self.states.sources.get(id);
            state.is_none_or(|state| state.gate.in_force().is_none())
        };
        let firsts = lists.iter().filter(is_first);
        let first: BTreeSet<_> = firsts.map(|(id, _)| id.upstream.clone()).collect();
        let mut allowed = Vec::new();
        for (id, peers) in lists {
            let exceeded = if first.contains(&id.upstream) {
                None
            } else {
                let before = before.upstreams.get(&id.upstream);
                before
                    .zip(after.upstreams.get(&id.upstream))
                    .and_then(|(before, after)| exceeds_max_moved(before, after))
            };
            match (exceeded, self.states.sources.get_mut(&id)) {
                (Some(reason), Some(state)) => {
                    state.gate.hold(peers, reason);
                    warn_held(&id, reason);
                }
                _ => allowed.push((id, peers)),
            }
        }
        allowed
    }

    /// The configuration with the peers of these sources and the changes of operators. Logs the peers that are left out,
    /// and the changes.
    pub(in crate::server) fn merge_into(&mut self, config: &Config) -> Config {
        let known = self.known.take();
        let (config, left_out) = self.states.compose(config, known.as_ref());
        self.states.record_left_out(&left_out, true);
        log_changes(&config);
        config
    }

    pub(super) fn into_states(self) -> PeerStates {
        self.states
    }
}

fn warn_held(id: &SourceId, reason: HoldReason) {
    let SourceId { upstream, source } = id;
    let why = describe_hold(reason);
    log::warn!(
        "upstream {upstream}: the list of `{source}` is held: {why}; the list of the process before serves; to accept it, run `clockwise accept {upstream}`"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::upstream::{PersistedFoundPeer, PersistedLeavingPeer};

    /// The labels with which an instance starts, and whether a list is held. `file`: its text; `known`: the labels of the
    /// process before.
    async fn started(settings: &str, file: Option<&str>, known: &[&str]) -> Result<String, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("peers.yaml");
        if let Some(text) = file {
            std::fs::write(&path, text).unwrap();
        }
        let yaml = format!(
            "listeners: [{{address: 127.0.0.1:1}}]\nroutes: [{{upstream: app}}]\nstart: {}\n\
             upstreams: {{app: {{{}, peers: [{{file: {}}}]}}}}\n",
            if settings == "strict" {
                "strict"
            } else {
                "tolerant"
            },
            if settings == "strict" {
                "drain: off"
            } else {
                settings
            },
            path.display()
        );
        let config = config::parse("test.yaml", &yaml).unwrap();
        let peer = |label: &&str| PersistedFoundPeer {
            label: label.trim_start_matches('-').to_owned(),
            address: "10.0.0.1:80".to_owned(),
            weight_thousandths: 1000,
            id: None,
            server_name: None,
        };
        let mut state = PersistedState::default();
        let source = format!("file:{}", path.display());
        let (leaving, in_force): (Vec<&str>, Vec<&str>) =
            known.iter().partition(|label| label.starts_with('-'));
        let leaving = leaving.iter().map(|label| PersistedLeavingPeer {
            peer: peer(label),
            source: Some(source.clone()),
        });
        state.leaving.insert("app".to_owned(), leaving.collect());
        let sources = state.discovered.entry("app".to_owned()).or_default();
        sources.insert(source.clone(), in_force.iter().map(peer).collect());
        let started = start(&config, &state, Duration::MAX).await;
        let mut started = started.map_err(|error| error.to_string())?;
        let held = started
            .states
            .sources
            .values()
            .any(|state| state.gate.held().is_some());
        let merged = started.merge_into(&config);
        let peers = merged.upstreams["app"].peers.iter();
        let labels = peers.map(|peer| {
            let leaving = if peer.is_leaving { "-" } else { "" };
            format!("{leaving}{}", peer.label)
        });
        let labels = labels.collect::<Vec<_>>().join(" ");
        Ok(if held {
            format!("{labels} held")
        } else {
            labels
        })
    }

    fn list(labels: &str) -> Option<String> {
        let peer = |label: &str| format!("- {{label: {label}, address: '10.0.0.1:80'}}\n");
        let text: String = labels.split_whitespace().map(peer).collect();
        Some(text).map(|text| {
            if text.is_empty() {
                "[]".to_owned()
            } else {
                text
            }
        })
    }

    #[tokio::test]
    async fn start_judges_the_first_answer_by_the_list_of_the_process_before() {
        const DRAIN: &str = "drain: {idle: 1m}";
        for (settings, file, known, expected) in [
            // A first start takes what the source says.
            ("drain: off", list("a b"), &[][..], "a b"),
            ("drain: off", list(""), &[], ""),
            ("max_moved: 1%", list("a b"), &[], "a b"),
            ("drain: off", None, &[], ""),
            // A restart and an upgrade continue.
            ("drain: off", None, &["a", "b"], "a b"),
            ("drain: off", Some("- x".to_owned()), &["a", "b"], "a b"),
            ("drain: off", list("a b c"), &["a", "b"], "a b c"),
            ("drain: off", list("b"), &["a", "b"], "b"),
            ("drain: off", list(""), &["a", "b"], "a b held"),
            ("discovery: {max_lost: off}", list(""), &["a", "b"], ""),
            ("max_moved: 1%", list("a b c"), &["a", "b"], "a b held"),
            // Peers that left meanwhile drain, and those that drained already go on.
            (DRAIN, list("b"), &["a", "b"], "b -a"),
            (DRAIN, list("b c"), &["-a", "b"], "b c -a"),
            (DRAIN, list("a b"), &["-a", "b"], "a b"),
            (DRAIN, None, &["-a", "b"], "b -a"),
            ("drain: off", list("b"), &["-a", "b"], "b"),
        ] {
            let labels = started(settings, file.as_deref(), known).await;
            let labels = labels.unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(labels, expected, "{settings}, {file:?} after {known:?}");
        }
    }

    #[tokio::test]
    async fn strict_start_refuses_a_source_that_cannot_be_read() {
        let error = started("strict", None, &["a"]).await.unwrap_err();
        assert!(
            error.contains("upstream `app`: the peers of `file:/"),
            "{error}"
        );
        let labels = started("strict", list("a").as_deref(), &[]).await;
        assert_eq!(labels.as_deref(), Ok("a"));
    }
}
