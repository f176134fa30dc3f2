//! The loop of the sources: takes what the watchers send, until a list is due.

use std::time::Duration;

use super::PeerDiscovery;
use super::source_lists::by_label;
use crate::clock;
use crate::discovery::{FoundList, SourceUpdate, SourceWatcher};
use crate::policy::peer_list::OfferOutcome;
use crate::telemetry::SourceUpdateResult;

impl PeerDiscovery {
    /// Takes updates until [`apply_due`](Self::apply_due) has something to do; never ends while `is_paused`. Cancel-safe.
    pub(in crate::server) async fn run_until_due(&mut self, is_paused: bool) {
        loop {
            let due = self.next_due().filter(|_| !is_paused);
            let wait = async {
                match due {
                    Some(due) => tokio::time::sleep(due.saturating_sub(clock::since_start())).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(update) = self.updates.recv() => self.take_update(update),
                () = wait => return,
            }
        }
    }

    fn next_due(&self) -> Option<Duration> {
        let sources = self.states.sources.values();
        let lists = sources.filter_map(|state| state.gate.next_due());
        let has_leaving = !self.states.leaving.is_empty();
        let drains = has_leaving.then_some(self.next_drain_check);
        lists.chain(drains).min()
    }

    fn take_update(&mut self, update: SourceUpdate) {
        let SourceUpdate { id, watcher, list } = update;
        // A reload may have replaced the watcher meanwhile: its lists fit other rules.
        let is_present = |present: &SourceWatcher| present.number == watcher;
        if !self.watchers.get(&id).is_some_and(is_present) {
            return;
        }
        // A reload may have removed the source meanwhile; then its metrics are gone, too.
        let metrics = self
            .states
            .sources
            .contains_key(&id)
            .then(|| self.metrics(&id));
        let (Some(metrics), Some(state)) = (metrics, self.states.sources.get_mut(&id)) else {
            return;
        };
        let in_force = state.in_force_count();
        let (upstream, source) = (&id.upstream, &id.source);
        let (peers, problem) = match list {
            FoundList::Peers(peers) => (Some(peers), None),
            FoundList::Incomplete(peers, problem) => {
                let message = format!("upstream {upstream}: `{source}`: {problem}");
                (Some(peers), Some((state.note_incomplete(problem), message)))
            }
            FoundList::Unchanged => (None, None),
            FoundList::Failed(error) => {
                let message = format!(
                    "upstream {upstream}: `{source}` cannot be read: {error}; its {in_force} peers stay"
                );
                (None, Some((state.note_failure(error), message)))
            }
        };
        let is_failure = problem.is_some();
        match problem {
            None if state.note_success() => {
                log::info!("upstream {upstream}: `{source}` can be read again");
            }
            None => {}
            Some((true, message)) => log::warn!("{message}"),
            Some((false, message)) => log::debug!("{message}"),
        }
        let outcome = peers.map_or(OfferOutcome::Unchanged, |peers| {
            state.gate.offer(by_label(peers), clock::since_start())
        });
        if is_failure {
            metrics.updates.inc(SourceUpdateResult::Failed);
        } else if outcome == OfferOutcome::Unchanged {
            metrics.updates.inc(SourceUpdateResult::Unchanged);
        }
        self.publish_source(&id);
    }
}
