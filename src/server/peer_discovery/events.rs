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
        match list {
            FoundList::Failed(error) => {
                metrics.updates.inc(SourceUpdateResult::Failed);
                let message = format!(
                    "upstream {upstream}: `{source}` cannot be read: {error}; its {in_force} peers stay"
                );
                if state.note_failure(error) {
                    log::warn!("{message}");
                } else {
                    log::debug!("{message}");
                }
            }
            list => {
                if state.note_success() {
                    log::info!("upstream {upstream}: `{source}` can be read again");
                }
                let peers = match list {
                    FoundList::Peers(peers) => Some(by_label(peers)),
                    FoundList::Unchanged | FoundList::Failed(_) => None,
                };
                let outcome = peers.map_or(OfferOutcome::Unchanged, |peers| {
                    state.gate.offer(peers, clock::since_start())
                });
                if outcome == OfferOutcome::Unchanged {
                    metrics.updates.inc(SourceUpdateResult::Unchanged);
                }
            }
        }
        self.publish_source(&id);
    }
}
