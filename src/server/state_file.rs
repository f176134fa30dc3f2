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
use crate::config::StateFile;
use crate::snapshot::Snapshot;
use crate::telemetry::log::Occasionally;
use crate::upstream::PersistedState;

/// The format; another number means another format.
const FORMAT: u32 = 1;

/// How often it is said that the file cannot be written.
const COMPLAIN: Duration = Duration::from_secs(60);

#[derive(Debug, Deserialize, Serialize)]
struct State {
    format: u32,
    /// When it was written (RFC 3339).
    written: String,
    memory: PersistedState,
}

/// What the file remembers; nothing if it is not there, too old, or not to be read. Says so.
pub(super) fn recall(file: &StateFile) -> PersistedState {
    match read(&file.path) {
        Ok(state) => fresh(file, state),
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
pub(super) struct Keeper {
    book: Arc<Book>,
    writing: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Has what is known now written, where that differs from what was written last; not while the
    /// write before is still under way. Call within the runtime.
    pub(super) fn keep(&mut self, file: &StateFile, snapshot: Arc<Snapshot>) {
        if self
            .writing
            .as_ref()
            .is_some_and(|writing| !writing.is_finished())
        {
            return;
        }
        let (book, file) = (Arc::clone(&self.book), file.clone());
        let write = move || book.write(&file, &snapshot);
        self.writing = Some(tokio::task::spawn_blocking(write));
    }

    /// From now on the file is another process's to write.
    pub(super) fn leave(&self) {
        self.book.closed.store(true, Ordering::SeqCst);
    }

    /// Writes for the last time. Blocks for as long as the disk does.
    pub(super) fn finish(&self, file: &StateFile, snapshot: &Snapshot) {
        self.book.write(file, snapshot);
        self.leave();
    }
}

/// What is written, and by one at a time.
#[derive(Debug)]
struct Book {
    /// What has happened according to the file, where this process has written it.
    last: Mutex<Option<PersistedState>>,
    closed: AtomicBool,
    complaints: Occasionally,
}

impl Default for Book {
    fn default() -> Self {
        Self {
            last: Mutex::default(),
            closed: AtomicBool::default(),
            complaints: Occasionally::every(COMPLAIN),
        }
    }
}

impl Book {
    /// A write that failed is tried again the next time.
    fn write(&self, file: &StateFile, snapshot: &Snapshot) {
        let mut last = self.last.lock();
        // Only now: whoever was written before us knew less.
        let memory = snapshot.memory();
        let events = memory.without_elapsed_times();
        if self.is_closed() || (last.as_ref() == Some(&events) && is_young(file)) {
            return;
        }
        *last = match self.replace(&file.path, &memory) {
            Ok(()) => Some(events),
            Err(error) => {
                self.complain(file, &error);
                None
            }
        };
    }

    fn replace(&self, path: &Path, memory: &PersistedState) -> io::Result<()> {
        let beside = path.with_extension("new");
        write(&beside, memory)?;
        if self.is_closed() {
            return Ok(());
        }
        std::fs::rename(&beside, path)
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Not every time: a full disk would fill the log.
    fn complain(&self, file: &StateFile, error: &io::Error) {
        if self.complaints.now(clock::since_start()).is_some() {
            log::warn!(
                "the state file `{}` cannot be written: {error}; trying again",
                file.path.display()
            );
        }
    }
}

/// Whether the file on disk will still count for a while: half of its age is not over.
fn is_young(file: &StateFile) -> bool {
    let age = std::fs::metadata(&file.path)
        .and_then(|found| found.modified())
        .ok();
    let age = age.and_then(|written| written.elapsed().ok());
    age.is_some_and(|age| age < file.max_age / 2)
}

fn fresh(file: &StateFile, state: State) -> PersistedState {
    let written = state.written.parse::<jiff::Timestamp>();
    let age = written.map(|written| clock::wall().duration_since(written).unsigned_abs());
    match age {
        Ok(age) if state.format == FORMAT && age <= file.max_age => PersistedState {
            // What was hot then says nothing about now.
            hot_keys: BTreeMap::new(),
            ..state.memory.aged(age)
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

fn read(path: &Path) -> io::Result<State> {
    Ok(serde_json::from_slice(&std::fs::read(path)?)?)
}

fn write(path: &Path, memory: &PersistedState) -> io::Result<()> {
    let state = State {
        format: FORMAT,
        written: clock::wall().to_string(),
        memory: memory.clone(),
    };
    let mut file = std::fs::File::create(path)?;
    file.write_all(&serde_json::to_vec(&state)?)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::snapshot::Addresses;
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
        let snapshot = Snapshot::new(config, &Addresses::new(), None, &metrics).unwrap();
        snapshot.upstreams["app"].peers()[0].set_draining(true, clock::since_start());
        snapshot
    }

    fn state_file(path: &Path) -> StateFile {
        StateFile {
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
    fn what_was_kept_is_recalled_until_it_is_too_old() {
        let directory = tempfile::tempdir().unwrap();
        let snapshot = snapshot(directory.path());
        let file = state_file(&directory.path().join("state.json"));
        assert_eq!(recall(&file), PersistedState::default());
        Keeper::default().finish(&file, &snapshot);
        assert!(recall(&file).upstreams["app"]["127.0.0.1:2"].draining);
        assert_eq!(drains(&recall(&file)), drains(&snapshot.memory()));
        let strict = StateFile {
            max_age: Duration::ZERO,
            ..file.clone()
        };
        assert_eq!(recall(&strict), PersistedState::default());
        std::fs::write(&file.path, "{").unwrap();
        assert_eq!(recall(&file), PersistedState::default());
    }

    #[test]
    fn a_write_that_failed_is_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        let snapshot = snapshot(directory.path());
        let file = state_file(&directory.path().join("later/state.json"));
        let book = Book::default();
        book.write(&file, &snapshot);
        std::fs::create_dir(directory.path().join("later")).unwrap();
        book.write(&file, &snapshot);
        assert_eq!(drains(&recall(&file)), drains(&snapshot.memory()));
    }

    #[test]
    fn a_file_that_is_left_to_another_process_is_not_written() {
        let directory = tempfile::tempdir().unwrap();
        let snapshot = snapshot(directory.path());
        let file = state_file(&directory.path().join("state.json"));
        let keeper = Keeper::default();
        keeper.leave();
        keeper.book.write(&file, &snapshot);
        assert!(!file.path.exists());
    }
}
