//! A source that is a file: read when its folder changes, and every ten seconds.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::folder_watch::{FolderChange, FolderWatch, WatchedPlaces};
use super::update::{FoundList, UpdateSender};
use crate::config::{self, PeerConfig, PeerListError, PeerListRules};

/// The longest time until a change is found that no watch has noticed.
const READ_INTERVAL: Duration = Duration::from_secs(10);

/// Reads the list in a file.
///
/// # Errors
/// The file cannot be read, or its list has an error.
pub(crate) fn read_source_file(
    path: &Path,
    rules: &PeerListRules,
) -> Result<Vec<PeerConfig>, PeerListError> {
    let text = config::read_peer_list_file(path)?;
    config::parse_peer_list(path, &text, rules)
}

/// Reads the file on a blocking thread, as a disk may be slow.
pub(super) async fn read(path: &Path, rules: &PeerListRules) -> Result<Vec<PeerConfig>, String> {
    let (path, rules) = (path.to_owned(), rules.clone());
    let read = move || read_source_file(&path, &rules).map_err(|error| error.to_string());
    let joined = tokio::task::spawn_blocking(read).await;
    joined.unwrap_or_else(|error| Err(error.to_string()))
}

/// Sends what the file says, at once and after each change, until nothing receives it any more.
pub(super) async fn watch(path: PathBuf, rules: PeerListRules, updates: UpdateSender) {
    let mut watched = WatchedFile {
        path: path.clone(),
        rules,
        last: None,
    };
    let mut folders: Option<FolderWatch> = None;
    loop {
        // Before the file is read: a later change is noticed.
        let places = WatchedPlaces::of(&path);
        if folders
            .as_ref()
            .is_none_or(|watch| *watch.places() != places)
        {
            folders = start_watch(&path, places);
        }
        let (read, list) = watched.read().await;
        watched = read;
        if !updates.send(list).await {
            return;
        }
        wait_for_change(&mut folders).await;
    }
}

/// Waits for a change or for [`READ_INTERVAL`]. A watch that has lost its folder is started again before the next read.
async fn wait_for_change(folders: &mut Option<FolderWatch>) {
    let changed = async {
        match folders.as_ref() {
            Some(watch) => watch.changed().await,
            None => std::future::pending().await,
        }
    };
    match tokio::time::timeout(READ_INTERVAL, changed).await {
        Ok(Ok(FolderChange::File)) | Err(_) => {}
        Ok(Ok(FolderChange::WatchLost)) => *folders = None,
        Ok(Err(error)) => {
            log::warn!("cannot read the changes of a folder: {error}");
            *folders = None;
            // An error that returns at once must not read the file in a loop.
            tokio::time::sleep(READ_INTERVAL).await;
        }
    }
}

/// Without a watch, a change is found by the next read.
fn start_watch(path: &Path, places: WatchedPlaces) -> Option<FolderWatch> {
    match FolderWatch::start(places) {
        Ok(watch) => Some(watch),
        Err(error) => {
            log::debug!(
                "cannot watch the folder of `{}`: {error}; the file is read every {READ_INTERVAL:?}",
                path.display()
            );
            None
        }
    }
}

/// The file and its last text: a list of 10,000 peers is not parsed again if nothing has changed.
struct WatchedFile {
    path: PathBuf,
    rules: PeerListRules,
    last: Option<LastText>,
}

struct LastText {
    text: String,
    /// The problem with the text; `None`: it is a list.
    error: Option<String>,
}

impl WatchedFile {
    /// Reads the file on a blocking thread.
    async fn read(self) -> (Self, FoundList) {
        let copy = (self.path.clone(), self.rules.clone());
        let joined = tokio::task::spawn_blocking(move || {
            let mut file = self;
            let list = file.read_now();
            (file, list)
        });
        joined.await.unwrap_or_else(|error| {
            let (path, rules) = copy;
            let last = None;
            (
                Self { path, rules, last },
                FoundList::Failed(error.to_string()),
            )
        })
    }

    fn read_now(&mut self) -> FoundList {
        let text = match config::read_peer_list_file(&self.path) {
            Ok(text) => text,
            Err(error) => {
                self.last = None;
                return FoundList::Failed(error.to_string());
            }
        };
        if let Some(last) = self.last.as_ref().filter(|last| last.text == text) {
            return match &last.error {
                None => FoundList::Unchanged,
                Some(error) => FoundList::Failed(error.clone()),
            };
        }
        let parsed = config::parse_peer_list(&self.path, &text, &self.rules);
        let error = parsed.as_ref().err().map(ToString::to_string);
        self.last = Some(LastText {
            text,
            error: error.clone(),
        });
        match (parsed, error) {
            (Ok(peers), _) => FoundList::Peers(peers),
            (Err(_), error) => FoundList::Failed(error.unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_of_peers_is_parsed_only_when_its_text_has_changed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("peers.yaml");
        let yaml = "listeners: [{address: 127.0.0.1:1}]\nroutes: [{upstream: app}]\nupstreams: {app: {peers: [{file: a}]}}\n";
        let config = config::parse("test.yaml", yaml).unwrap();
        let mut file = WatchedFile {
            path: path.clone(),
            rules: config.upstreams["app"].peer_list_rules(),
            last: None,
        };
        let mut read = |text: Option<&str>| {
            match text {
                Some(text) => std::fs::write(&path, text).unwrap(),
                None => std::fs::remove_file(&path).unwrap(),
            }
            match file.read_now() {
                FoundList::Peers(peers) => format!("{} peers", peers.len()),
                FoundList::Unchanged => "unchanged".to_owned(),
                FoundList::Failed(error) | FoundList::Incomplete(_, error) => error,
            }
        };
        assert_eq!(read(Some("- 10.0.0.1:1\n- 10.0.0.2:1\n")), "2 peers");
        assert_eq!(read(Some("- 10.0.0.1:1\n- 10.0.0.2:1\n")), "unchanged");
        assert_eq!(read(Some("[]")), "0 peers");
        assert_eq!(read(Some("{\"peers\": [\"10.0.0.1:1\"]}")), "1 peers");
        for _ in 0..2 {
            let error = read(Some("- 10.0.0.1\n"));
            assert!(error.contains("peers.yaml:1:3: "), "{error}");
        }
        for (text, problem) in [
            ("", "the file is empty"),
            ("peers:\n", "`peers` is empty"),
            ("- {file: b.yaml}\n", "a source within a list"),
            ("- 10.0.0.1:1\n- 10.0.0.1:1\n", "two peers with the label"),
            ("- 10.0.0.1:1\n- {", "peers.yaml:2"),
            ("listeners: []\n", "a list of peers needs `peers`"),
            ("10.0.0.1:1\n", "expected a list"),
        ] {
            let error = read(Some(text));
            assert!(error.contains(problem), "{text:?}: {error}");
        }
        assert!(read(None).contains("cannot be read"));
        assert_eq!(read(Some("- 10.0.0.1:1\n")), "1 peers");
    }
}
