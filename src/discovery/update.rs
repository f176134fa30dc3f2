//! What the watcher of a source sends.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

use crate::config::{PeerConfig, PeerSource};

/// A source of an upstream.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SourceId {
    /// The name of the upstream.
    pub upstream: String,
    /// The source.
    pub source: PeerSource,
}

/// What a source says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum FoundList {
    /// All its peers.
    Peers(Vec<PeerConfig>),
    /// All its peers, and a problem: some of them are not as the source says, or are missing.
    Incomplete(Vec<PeerConfig>, String),
    /// The same as the last time.
    Unchanged,
    /// It could not be read, for this reason.
    Failed(String),
}

/// Distinguishes the watchers that one source has had: each has another number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WatcherNumber(u64);

impl WatcherNumber {
    /// A number that no other watcher of this process has.
    pub(super) fn next() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed))
    }
}

/// What a source says, with its name.
#[derive(Debug)]
pub(crate) struct SourceUpdate {
    /// The source.
    pub id: SourceId,
    /// The watcher that has read it.
    pub watcher: WatcherNumber,
    /// What it says.
    pub list: FoundList,
}

/// Sends the updates of one source.
pub(super) struct UpdateSender {
    id: SourceId,
    watcher: WatcherNumber,
    updates: mpsc::Sender<SourceUpdate>,
}

impl UpdateSender {
    pub(super) fn new(
        id: SourceId,
        watcher: WatcherNumber,
        updates: mpsc::Sender<SourceUpdate>,
    ) -> Self {
        Self {
            id,
            watcher,
            updates,
        }
    }

    /// The source.
    pub(super) fn id(&self) -> &SourceId {
        &self.id
    }

    /// Sends an update; false: nothing receives it any more.
    pub(super) async fn send(&self, list: FoundList) -> bool {
        let update = SourceUpdate {
            id: self.id.clone(),
            watcher: self.watcher,
            list,
        };
        self.updates.send(update).await.is_ok()
    }
}
