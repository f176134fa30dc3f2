//! Periodic work of an instance, independent of its requests: watches files, logs certificate warnings and
//! finished drains, writes the state file, keeps the service manager's watchdog alive.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::cert_warnings::LoggedCertWarnings;
use super::file_watch::{FileWatch, watched_files};
use super::sd_notify::Watchdog;
use super::state_file::StateFileWriter;
use crate::admin::AppState;
use crate::clock;
use crate::config::Config;
use crate::snapshot::Snapshot;

/// What the periodic work found that the instance has to act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BackgroundEvent {
    /// The configuration file, or a file that it names, has changed.
    ConfigFileChanged,
}

/// The periodic work, and its state between two rounds.
#[derive(Debug, Default)]
pub(super) struct BackgroundTasks {
    state_file: StateFileWriter,
    file_watch: FileWatch,
    cert_warnings: LoggedCertWarnings,
    drains: LoggedDrains,
    /// When the next round is due, and the next scan of the watched files.
    next_round: Duration,
    next_scan: Duration,
    watchdog: Option<Watchdog>,
}

impl BackgroundTasks {
    /// Starts the work of an instance that has just read the configuration file. Must be called inside a Tokio runtime.
    pub(super) fn new(config_path: Option<&Path>, config: &Config) -> Self {
        let mut background = Self {
            watchdog: Watchdog::start(),
            ..Self::default()
        };
        if let Some(path) = config_path {
            background.file_watch.start_first_scan(path, config);
        }
        background
    }

    /// Gives the watch and the logged warnings a new start. A reload reads the files anyway, so their present contents
    /// are not a change.
    pub(super) fn note_reload(&mut self, config_path: Option<&Path>, config: &Config) {
        self.file_watch.reset();
        self.cert_warnings = LoggedCertWarnings::default();
        if let Some(path) = config_path {
            self.file_watch.start_scan(watched_files(path, config));
        }
    }

    /// Waits for the scan that [`Self::note_reload`] started, so that a file that is written from now on is a change.
    pub(super) async fn await_scan(&mut self) {
        self.file_watch.finish_scan().await;
    }

    /// Does the periodic work until the instance has to act. Cancel-safe: a round is due at its time, however often this is
    /// called.
    pub(super) async fn run_until_event(
        &mut self,
        app_state: &AppState,
        config: &Config,
        config_path: Option<&Path>,
    ) -> BackgroundEvent {
        loop {
            let snapshot = app_state.snapshot.load();
            self.cert_warnings.log_new(config, &snapshot.managed_certs);
            self.drains.log_new(&snapshot);
            let pause = config
                .watch
                .map_or(STATE_FILE_INTERVAL, |watch| watch.min(STATE_FILE_INTERVAL));
            self.wait_for_round(pause).await;
            if let Some(file) = &config.state_file {
                self.state_file
                    .write_in_background(file, app_state.snapshot.load_full());
            }
            if let (Some(interval), Some(path)) = (config.watch, config_path)
                && clock::since_start() >= self.next_scan
            {
                self.next_scan = clock::since_start().saturating_add(interval);
                self.file_watch.start_scan(watched_files(path, config));
            }
            // A file system that hangs delays its own scan, not the rest of the round.
            let changed = tokio::time::timeout(pause, self.file_watch.finish_scan()).await;
            if config.watch.is_some() && changed == Ok(true) {
                return BackgroundEvent::ConfigFileChanged;
            }
        }
    }

    /// Waits until the next round is due: at most `pause` from now, and `pause` after the last one.
    async fn wait_for_round(&mut self, pause: Duration) {
        let latest = clock::since_start().saturating_add(pause);
        if self.next_round.is_zero() || self.next_round > latest {
            self.next_round = latest;
        }
        tokio::time::sleep(self.next_round.saturating_sub(clock::since_start())).await;
        self.next_round = clock::since_start().saturating_add(pause);
    }

    /// Stops the watchdog and the writes of the state file: from now on the new process does both.
    pub(super) fn release(&mut self) {
        self.watchdog = None;
        self.state_file.release();
    }

    /// Writes the state file, and waits until the disk has it; without `state_file` there is nothing to do.
    ///
    /// # Errors
    /// It cannot be written; it is tried again later.
    pub(super) async fn save_state(&mut self, app_state: &AppState) -> io::Result<()> {
        let snapshot = app_state.snapshot.load_full();
        match snapshot.config.state_file.clone() {
            Some(file) => self.state_file.write_now(file, snapshot).await,
            None => Ok(()),
        }
    }

    /// Writes the state file for the last time.
    pub(super) fn write_state_file(&mut self, app_state: &AppState) {
        let snapshot = app_state.snapshot.load();
        if let Some(file) = &snapshot.config.state_file {
            self.state_file.write_and_release(file, &snapshot);
        }
    }
}

/// The drained peers that were logged, by upstream and label.
#[derive(Debug, Default)]
struct LoggedDrains(BTreeSet<(Arc<str>, Arc<str>)>);

impl LoggedDrains {
    fn log_new(&mut self, snapshot: &Snapshot) {
        let now = clock::since_start();
        let mut drained = BTreeSet::new();
        for upstream in snapshot.upstreams.values() {
            let status = upstream.drain_status(now);
            let peers = upstream.peers().iter();
            let peers = peers.filter(|peer| status.is_drained(peer));
            drained.extend(peers.map(|peer| (Arc::clone(&upstream.name), Arc::clone(&peer.label))));
        }
        for (name, label) in drained.difference(&self.0) {
            log::info!(
                "upstream {name}: peer {label} is drained: it has no requests and keeps no keys"
            );
        }
        self.0 = drained;
    }
}

/// How often the state file is brought up to date.
const STATE_FILE_INTERVAL: Duration = Duration::from_secs(2);
