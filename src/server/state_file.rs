//! The state file: what a cold restart remembers of the peers.
//!
//! Written as a whole into a file beside it and renamed, so that it is never half there. Only its
//! age counts, not its process: whatever ended that one, what was known a moment ago is better than
//! nothing.

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

/// The format; another number means another format.
const FORMAT_VERSION: u32 = 1;

/// How often it is said that the file cannot be written.
const WRITE_ERROR_INTERVAL: Duration = Duration::from_secs(60);

#[derive(Debug, Deserialize, Serialize)]
struct StateFileContents {
    format: u32,
    /// When it was written (RFC 3339).
    written_at: String,
    peer_state: PersistedState,
}

/// What the file remembers; nothing if it is not there, too old, or not to be read. Says so.
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

/// Keeps the file up to date from beside the task that asks for it: a disk may take its time.
#[derive(Debug, Default)]
pub(super) struct StateFileWriter {
    inner: Arc<StateFileInner>,
    write_task: Option<JoinHandle<()>>,
}

impl StateFileWriter {
    /// Has what is known now written, where that differs from what was written last; not while the
    /// write before is still under way. Call within the runtime.
    pub(super) fn write_in_background(&mut self, file: &StateFileConfig, snapshot: Arc<Snapshot>) {
        if self
            .write_task
            .as_ref()
            .is_some_and(|writing| !writing.is_finished())
        {
            return;
        }
        let (book, file) = (Arc::clone(&self.inner), file.clone());
        let write = move || book.write_if_changed(&file, &snapshot);
        self.write_task = Some(tokio::task::spawn_blocking(write));
    }

    /// From now on the file is another process's to write.
    pub(super) fn release(&self) {
        self.inner.released.store(true, Ordering::SeqCst);
    }

    /// Writes for the last time. Blocks for as long as the disk does.
    pub(super) fn write_and_release(&self, file: &StateFileConfig, snapshot: &Snapshot) {
        self.inner.write_if_changed(file, snapshot);
        self.release();
    }
}

/// What is written, and by one at a time.
#[derive(Debug)]
struct StateFileInner {
    /// What has happened according to the file, where this process has written it.
    last_written: Mutex<Option<PersistedState>>,
    released: AtomicBool,
    error_log_limit: LogRateLimit,
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
    /// A write that failed is tried again the next time.
    fn write_if_changed(&self, file: &StateFileConfig, snapshot: &Snapshot) {
        let mut last = self.last_written.lock();
        // Only now: whoever was written before us knew less.
        let memory = snapshot.persisted_state();
        let events = memory.without_elapsed_times();
        if self.is_released() || (last.as_ref() == Some(&events) && is_recent(file)) {
            return;
        }
        *last = match self.replace_file(&file.path, &memory) {
            Ok(()) => Some(events),
            Err(error) => {
                self.log_write_error(file, &error);
                None
            }
        };
    }

    fn replace_file(&self, path: &Path, memory: &PersistedState) -> io::Result<()> {
        let beside = path.with_extension("new");
        write_contents(&beside, memory)?;
        if self.is_released() {
            return Ok(());
        }
        std::fs::rename(&beside, path)
    }

    fn is_released(&self) -> bool {
        self.released.load(Ordering::SeqCst)
    }

    /// Not every time: a full disk would fill the log.
    fn log_write_error(&self, file: &StateFileConfig, error: &io::Error) {
        if self
            .error_log_limit
            .try_acquire(clock::since_start())
            .is_some()
        {
            log::warn!(
                "the state file `{}` cannot be written: {error}; trying again",
                file.path.display()
            );
        }
    }
}

/// Whether the file on disk will still count for a while: half of its age is not over.
fn is_recent(file: &StateFileConfig) -> bool {
    let age = std::fs::metadata(&file.path)
        .and_then(|found| found.modified())
        .ok();
    let age = age.and_then(|written| written.elapsed().ok());
    age.is_some_and(|age| age < file.max_age / 2)
}

fn accept_if_fresh(file: &StateFileConfig, state: StateFileContents) -> PersistedState {
    let written = state.written_at.parse::<jiff::Timestamp>();
    let age = written.map(|written| clock::wall().duration_since(written).unsigned_abs());
    match age {
        Ok(age) if state.format == FORMAT_VERSION && age <= file.max_age => PersistedState {
            // What was hot then says nothing about now.
            hot_keys: BTreeMap::new(),
            ..state.peer_state.aged(age)
        },
        Ok(age) => {
            log::info!(
                "the state file `{}` is {age:?} old: it is ignored",
                file.path.display()
            );
            PersistedState::default()
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

fn write_contents(path: &Path, memory: &PersistedState) -> io::Result<()> {
    let state = StateFileContents {
        format: FORMAT_VERSION,
        written_at: clock::wall().to_string(),
        peer_state: memory.clone(),
    };
    let mut file = std::fs::File::create(path)?;
    file.write_all(&serde_json::to_vec(&state)?)?;
    file.sync_all()
}

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

    /// A configuration in force whose one peer drains.
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

    /// Who drains; for how long is another matter from one moment to the next.
    fn drains(memory: &PersistedState) -> Vec<(&str, bool)> {
        let peers = memory.upstreams.values().flatten();
        peers
            .map(|(label, known)| (label.as_str(), known.draining))
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
        let book = StateFileInner::default();
        book.write_if_changed(&file, &snapshot);
        std::fs::create_dir(directory.path().join("later")).unwrap();
        book.write_if_changed(&file, &snapshot);
        assert_eq!(drains(&load(&file)), drains(&snapshot.persisted_state()));
    }

    #[test]
    fn state_file_owned_by_another_process_is_not_written() {
        let directory = tempfile::tempdir().unwrap();
        let snapshot = snapshot(directory.path());
        let file = state_file(&directory.path().join("state.json"));
        let keeper = StateFileWriter::default();
        keeper.release();
        keeper.inner.write_if_changed(&file, &snapshot);
        assert!(!file.path.exists());
    }
}
