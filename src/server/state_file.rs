//! The state file: what a cold restart remembers of the peers.
//!
//! Written as a whole into a file beside it and renamed, so that it is never half there. Only its
//! age counts, not its process: whatever ended that one, what was known a moment ago is better than
//! nothing.

use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::clock;
use crate::config::StateFile;
use crate::upstream::Memory;

/// The format; another number means another format.
const FORMAT: u32 = 1;

#[derive(Debug, Deserialize, Serialize)]
struct State {
    format: u32,
    /// When it was written (RFC 3339).
    written: String,
    memory: Memory,
}

/// What the file remembers; nothing if it is not there, too old, or not to be read. Says so.
pub(super) fn recall(file: &StateFile) -> Memory {
    match read(&file.path) {
        Ok(state) => fresh(file, state),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Memory::default(),
        Err(error) => {
            log::warn!(
                "the state file `{}` is ignored: {error}",
                file.path.display()
            );
            Memory::default()
        }
    }
}

/// Writes what is known now, where that differs from what was written last.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    last: Option<Memory>,
}

impl Keeper {
    /// Blocks for as long as the disk does.
    pub(super) fn keep(&mut self, file: &StateFile, memory: Memory) {
        if self.last.as_ref() == Some(&memory) && is_young(file) {
            return;
        }
        if let Err(error) = write(&file.path, &memory) {
            log::warn!(
                "the state file `{}` cannot be written: {error}",
                file.path.display()
            );
        }
        // Not tried again before something changes: a full disk would fill the log.
        self.last = Some(memory);
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

fn fresh(file: &StateFile, state: State) -> Memory {
    let written = state.written.parse::<jiff::Timestamp>();
    let age = written.map(|written| clock::wall().duration_since(written).unsigned_abs());
    match age {
        Ok(age) if state.format == FORMAT && age <= file.max_age => state.memory,
        Ok(age) => {
            log::info!(
                "the state file `{}` is {age:?} old: it is ignored",
                file.path.display()
            );
            Memory::default()
        }
        Err(error) => {
            log::warn!(
                "the state file `{}` is ignored: {error}",
                file.path.display()
            );
            Memory::default()
        }
    }
}

fn read(path: &Path) -> io::Result<State> {
    Ok(serde_json::from_slice(&std::fs::read(path)?)?)
}

fn write(path: &Path, memory: &Memory) -> io::Result<()> {
    let state = State {
        format: FORMAT,
        written: clock::wall().to_string(),
        memory: memory.clone(),
    };
    let beside = path.with_extension("new");
    let mut file = std::fs::File::create(&beside)?;
    file.write_all(&serde_json::to_vec(&state)?)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::upstream::PeerMemory;

    fn memory() -> Memory {
        let peer = PeerMemory {
            address: ([127, 0, 0, 1], 1).into(),
            up: Some(false),
            draining: true,
            ejected_for_ms: 0,
        };
        let peers = BTreeMap::from([("a".to_owned(), peer)]);
        Memory {
            upstreams: BTreeMap::from([("app".to_owned(), peers)]),
        }
    }

    #[test]
    fn what_was_kept_is_recalled_until_it_is_too_old() {
        let directory = tempfile::tempdir().unwrap();
        let file = StateFile {
            path: directory.path().join("state.json"),
            max_age: Duration::from_secs(60),
        };
        assert_eq!(recall(&file), Memory::default());
        Keeper::default().keep(&file, memory());
        assert_eq!(recall(&file), memory());
        let strict = StateFile {
            max_age: Duration::ZERO,
            ..file.clone()
        };
        assert_eq!(recall(&strict), Memory::default());
        std::fs::write(&file.path, "{").unwrap();
        assert_eq!(recall(&file), Memory::default());
    }
}
