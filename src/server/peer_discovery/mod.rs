//! The peers of an instance besides those of its configuration: which lists of sources and which changes of operators are in
//! force, and how others come into force.
//!
//! ```text
//!  start ─► first answers, else the lists of the process before ─► snapshot
//!  watchers ─► run_until_due ─► settle, max_lost ─► max_moved ─┐
//!  operator ─► operator_change: checks ─► max_moved ───────────┴─► apply: reload ─► drains of peers that left
//! ```
//!
//! A list or a change comes into force like a changed configuration file, by [`reload`](super::reload): state follows the
//! label, and new peers and addresses are probed first. A start and a reload of the file judge the lists that they read in the
//! same way.

mod apply;
mod change_log;
mod config_reload;
mod events;
mod leaving;
mod max_moved;
mod operator_change;
mod peer_states;
mod source_lists;
mod source_state;
mod start;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use self::peer_states::PeerStates;
use self::source_lists::watched_sources;
use self::source_state::SourceState;
use crate::admin::AppState;
use crate::config::{Config, PeerConfig};
use crate::discovery::{SourceId, SourceUpdate, SourceWatcher};
use crate::telemetry::SourceMetrics;

pub(super) use self::config_reload::PreparedSources;
pub(super) use self::start::{SourceUnavailable, StartedSources, start};

/// The sources of the configuration in force, and operators' changes of its peers.
#[derive(Debug)]
pub(super) struct PeerDiscovery {
    app_state: Arc<AppState>,
    states: PeerStates,
    watchers: BTreeMap<SourceId, SourceWatcher>,
    updates: mpsc::Receiver<SourceUpdate>,
    sender: mpsc::Sender<SourceUpdate>,
    /// When the drains of leaving peers are looked at next.
    next_drain_check: Duration,
}

impl PeerDiscovery {
    /// Continues with the lists of the start, and watches the sources. Must be called inside a Tokio runtime.
    pub(super) fn new(started: StartedSources, app_state: Arc<AppState>) -> Self {
        let (sender, updates) = mpsc::channel(MAX_WAITING_UPDATES);
        let mut discovery = Self {
            app_state,
            states: started.into_states(),
            watchers: BTreeMap::new(),
            updates,
            sender,
            next_drain_check: Duration::ZERO,
        };
        let snapshot = discovery.app_state.snapshot.load_full();
        discovery.watch(&snapshot.config);
        discovery.publish();
        discovery
    }

    /// Watches exactly the sources of this configuration.
    fn watch(&mut self, config: &Config) {
        let wanted = watched_sources(config);
        self.watchers
            .retain(|_, watcher| wanted.contains(&watcher.source));
        for source in wanted {
            let (known, sender) = (self.known_peers(&source.id), self.sender.clone());
            self.watchers
                .entry(source.id.clone())
                .or_insert_with(|| SourceWatcher::start((source, known), sender));
        }
    }

    /// The list of a source in force.
    fn known_peers(&self, id: &SourceId) -> Vec<PeerConfig> {
        let state = self.states.sources.get(id);
        state.map(SourceState::known_peers).unwrap_or_default()
    }

    /// Ends the watches: this process takes no list any more.
    pub(super) fn stop(&mut self) {
        self.watchers.clear();
    }

    fn metrics(&self, id: &SourceId) -> SourceMetrics {
        let metrics = &self.app_state.telemetry.metrics;
        metrics.source(&id.upstream, &id.source.to_string())
    }

    /// Shows the present state of all sources in the admin API and the metrics.
    fn publish(&self) {
        let sources = self.states.sources.iter();
        let statuses = sources.map(|(id, state)| {
            set_gauges(&self.metrics(id), state);
            state.status(id, self.states.leaving.of_source(id))
        });
        self.app_state.sources.replace(statuses.collect());
    }

    /// The same for one source.
    fn publish_source(&self, id: &SourceId) {
        if let Some(state) = self.states.sources.get(id) {
            set_gauges(&self.metrics(id), state);
            let leaving = self.states.leaving.of_source(id);
            self.app_state.sources.set(state.status(id, leaving));
        }
    }
}

fn set_gauges(metrics: &SourceMetrics, state: &SourceState) {
    metrics.peers.set(to_gauge(state.in_force_count()));
    metrics.left_out.set(to_gauge(state.left_out.len()));
    metrics.held.set(i64::from(state.gate.held().is_some()));
    metrics.failing.set(i64::from(state.error.is_some()));
    metrics.read_at.set(state.read_at.unwrap_or_default());
}

fn to_gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Updates that wait until the instance has time for them; more than these make their watchers wait.
const MAX_WAITING_UPDATES: usize = 64;
