//! The state file: the state of the peers that a cold start takes over from an earlier process.
//!
//! It is written to a second file and renamed, so that a reader never finds half of it. Only its age decides whether it
//! is used, not how the process that wrote it ended: the state of a moment ago is better than none.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use crate::clock;
use crate::config::StateFileConfig;
use crate::snapshot::Snapshot;
use crate::telemetry::error_log::LogRateLimit;
use crate::upstream::PersistedState;

#[derive(Debug, Deserialize, Serialize)]
struct StateFileContents {
    format: u32,
    /// The time of writing (RFC 3339).
    written_at: String,
    peer_state: PersistedState,
}

/// Loads the file; the empty state if it is missing, too old or unreadable. The last two are logged.
pub(super) fn load(file: &StateFileConfig) -> PersistedState {
    match read_contents(&file.path) {
        Ok(state) => accept_if_fresh(file, state),
        Err(error) if error.kind() == io::ErrorKind::NotFound => PersistedState::default(),
        Err(error) => {
            log::warn!(
                "the state file `{}` is ignored: {error}",
                file.path.display()
            );
            PersistedState::default()
        }
    }
}

/// Keeps the file up to date. It is written on a blocking thread, as a disk may be slow.
#[derive(Debug, Default)]
pub(super) struct StateFileWriter {
    inner: Arc<StateFileInner>,
    write_task: Option<JoinHandle<()>>,
}

impl StateFileWriter {
    /// Starts to write the state, if it has changed since the last write and no write is in progress. Must be called
    /// inside a Tokio runtime.
    pub(super) fn write_in_background(&mut self, file: &StateFileConfig, snapshot: Arc<Snapshot>) {
        if self
            .write_task
            .as_ref()
            .is_some_and(|task| !task.is_finished())
        {
            return;
        }
        let (inner, file) = (Arc::clone(&self.inner), file.clone());
        // An error is logged, and the write is tried again in the next round.
        let write = move || drop(inner.write_if_changed(&file, &snapshot));
        self.write_task = Some(tokio::task::spawn_blocking(write));
    }

    /// Writes the state, if it has changed since the last write. Must be called inside a Tokio runtime.
    pub(super) async fn write_now(
        &self,
        file: StateFileConfig,
        snapshot: Arc<Snapshot>,
    ) -> io::Result<()> {
        let inner = Arc::clone(&self.inner);
        let write = move || inner.write_if_changed(&file, &snapshot);
        let written = tokio::task::spawn_blocking(write).await;
        written.map_err(io::Error::other)?
    }

    /// Never writes again: from now on another process writes the file.
    pub(super) fn release(&self) {
        self.inner.released.store(true, Ordering::SeqCst);
    }

    /// Writes for the last time. Blocks until the disk has it.
    pub(super) fn write_and_release(&self, file: &StateFileConfig, snapshot: &Snapshot) {
        // An error is logged.
        let _ = self.inner.write_if_changed(file, snapshot);
        self.release();
    }
}

/// Shared by the write tasks.
#[derive(Debug)]
struct StateFileInner {
    /// Locked during a write, so that one task writes at a time.
    last_written: Mutex<LastWrite>,
    released: AtomicBool,
    error_log_limit: LogRateLimit,
}

/// What this process has written last.
#[derive(Debug, Default)]
struct LastWrite {
    /// The generation of the configuration; 0: none.
    generation: u64,
    /// The state in the file, without elapsed times; `None`: it was not written, or that has failed.
    state: Option<PersistedState>,
}

impl Default for StateFileInner {
    fn default() -> Self {
        Self {
            last_written: Mutex::default(),
            released: AtomicBool::default(),
            error_log_limit: LogRateLimit::every(WRITE_ERROR_INTERVAL),
        }
    }
}

impl StateFileInner {
    /// Writes the state, unless the file has it already. A write that failed is tried again the next time.
    fn write_if_changed(&self, file: &StateFileConfig, snapshot: &Snapshot) -> io::Result<()> {
        let mut last = self.last_written.lock();
        // Under the lock: state that was exported earlier could overwrite a newer one.
        let state = snapshot.persisted_state();
        let timeless = state.without_elapsed_times();
        // A write that was started before a change must not undo the write of the change.
        let is_outdated = self.is_released() || snapshot.generation < last.generation;
        if is_outdated || (last.state.as_ref() == Some(&timeless) && is_recent(file)) {
            return Ok(());
        }
        let written = self.replace_file(&file.path, &state);
        if let Err(error) = &written {
            self.log_write_error(file, error);
        }
        *last = LastWrite {
            generation: snapshot.generation,
            state: written.is_ok().then_some(timeless),
        };
        written
    }

    fn replace_file(&self, path: &Path, state: &PersistedState) -> io::Result<()> {
        let new_file = path.with_extension("new");
        write_contents(&new_file, state)?;
        // Released meanwhile: by now the file may be the new process's.
        if self.is_released() {
            return Ok(());
        }
        std::fs::rename(&new_file, path)
    }

    fn is_released(&self) -> bool {
        self.released.load(Ordering::SeqCst)
    }

    /// Logs an error, but not each: a full disk would fill the log.
    fn log_write_error(&self, file: &StateFileConfig, error: &io::Error) {
        if self
            .error_log_limit
            .try_acquire(clock::since_start())
            .is_some()
        {
            log::warn!(
                "cannot write the state file `{}`: {error}; trying again",
                file.path.display()
            );
        }
    }
}

/// Whether the file on disk is younger than half of `max_age`, and so need not be written again yet.
fn is_recent(file: &StateFileConfig) -> bool {
    let modified = std::fs::metadata(&file.path)
        .and_then(|metadata| metadata.modified())
        .ok();
    let age = modified.and_then(|modified| modified.elapsed().ok());
    age.is_some_and(|age| age < file.max_age / 2)
}

fn accept_if_fresh(file: &StateFileConfig, contents: StateFileContents) -> PersistedState {
    let written_at = contents.written_at.parse::<jiff::Timestamp>();
    // `unsigned_abs`: after the clock was set back, the file may be from the future.
    let age = written_at.map(|written_at| clock::wall().duration_since(written_at).unsigned_abs());
    match age {
        Ok(age) if contents.format == FORMAT_VERSION && age <= file.max_age => PersistedState {
            // Keys that were hot then need not be hot now.
            hot_keys: BTreeMap::new(),
            ..contents.peer_state.aged(age)
        },
        Ok(_) if contents.format != FORMAT_VERSION => {
            log::info!(
                "the state file `{}` is ignored: it has format {}, this version reads format {FORMAT_VERSION}",
                file.path.display(),
                contents.format
            );
            PersistedState::default()
        }
        Ok(age) => {
            log::info!(
                "the state file `{}` is ignored, except for the changes of peers by operators: it is {age:?} old, more than `max_age`",
                file.path.display()
            );
            // A decision of an operator does not age, as the configuration does not.
            PersistedState {
                peer_changes: contents.peer_state.peer_changes,
                ..PersistedState::default()
            }
        }
        Err(error) => {
            log::warn!(
                "the state file `{}` is ignored: {error}",
                file.path.display()
            );
            PersistedState::default()
        }
    }
}

fn read_contents(path: &Path) -> io::Result<StateFileContents> {
    Ok(serde_json::from_slice(&std::fs::read(path)?)?)
}

fn write_contents(path: &Path, state: &PersistedState) -> io::Result<()> {
    let contents = StateFileContents {
        format: FORMAT_VERSION,
        written_at: clock::wall().to_string(),
        peer_state: state.clone(),
    };
    let mut file = std::fs::File::create(path)?;
    file.write_all(&serde_json::to_vec(&contents)?)?;
    file.sync_all()
}

/// The format of the file; raised with every incompatible change.
const FORMAT_VERSION: u32 = 2;

/// How often it is logged that the file cannot be written.
const WRITE_ERROR_INTERVAL: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::snapshot::ResolvedAddresses;
    use crate::telemetry::Metrics;

    const YAML: &str = "
listeners: [{address: 127.0.0.1:1}]
routes: [{upstream: app}]
upstreams: {app: {peers: [127.0.0.1:2]}}
";

    /// A configuration in force with one peer, which drains.
    fn snapshot(directory: &Path) -> Snapshot {
        let source = directory.join("clockwise.yaml");
        std::fs::write(&source, YAML).unwrap();
        let config = config::load(&source).unwrap();
        let metrics = Metrics::new("1", jiff::Timestamp::UNIX_EPOCH);
        let snapshot = Snapshot::new(config, &ResolvedAddresses::new(), None, &metrics).unwrap();
        snapshot.upstreams["app"].peers()[0].set_draining(true, clock::since_start());
        snapshot
    }

    fn state_file(path: &Path) -> StateFileConfig {
        StateFileConfig {
            path: path.to_owned(),
            max_age: Duration::from_secs(60),
        }
    }

    /// Which peers drain, without the time since when: that changes from one moment to the next.
    fn drains(state: &PersistedState) -> Vec<(&str, bool)> {
        let peers = state.upstreams.values().flatten();
        peers
            .map(|(label, peer)| (label.as_str(), peer.draining))
            .collect()
    }

    #[test]
    fn state_file_is_restored_until_it_is_too_old() {
        let directory = tempfile::tempdir().unwrap();
        let snapshot = snapshot(directory.path());
        let file = state_file(&directory.path().join("state.json"));
        assert_eq!(load(&file), PersistedState::default());
        StateFileWriter::default().write_and_release(&file, &snapshot);
        assert!(load(&file).upstreams["app"]["127.0.0.1:2"].draining);
        assert_eq!(drains(&load(&file)), drains(&snapshot.persisted_state()));
        let strict = StateFileConfig {
            max_age: Duration::ZERO,
            ..file.clone()
        };
        assert_eq!(load(&strict), PersistedState::default());
        std::fs::write(&file.path, "{").unwrap();
        assert_eq!(load(&file), PersistedState::default());
    }

    #[test]
    fn state_file_write_failure_is_retried() {
        let directory = tempfile::tempdir().unwrap();
        let snapshot = snapshot(directory.path());
        let file = state_file(&directory.path().join("later/state.json"));
        let inner = StateFileInner::default();
        inner.write_if_changed(&file, &snapshot).unwrap_err();
        std::fs::create_dir(directory.path().join("later")).unwrap();
        inner.write_if_changed(&file, &snapshot).unwrap();
        assert_eq!(drains(&load(&file)), drains(&snapshot.persisted_state()));
    }

    #[test]
    fn state_file_owned_by_another_process_is_not_written() {
        let directory = tempfile::tempdir().unwrap();
        let snapshot = snapshot(directory.path());
        let file = state_file(&directory.path().join("state.json"));
        let writer = StateFileWriter::default();
        writer.release();
        writer.inner.write_if_changed(&file, &snapshot).unwrap();
        assert!(!file.path.exists());
    }
}
