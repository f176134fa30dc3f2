//! What the watcher of a source sends.

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
    /// The same as the last time.
    Unchanged,
    /// It could not be read, for this reason.
    Failed(String),
}

/// What a source says, with its name.
#[derive(Debug)]
pub(crate) struct SourceUpdate {
    /// The source.
    pub id: SourceId,
    /// What it says.
    pub list: FoundList,
}

/// Sends the updates of one source.
pub(super) struct UpdateSender {
    id: SourceId,
    updates: mpsc::Sender<SourceUpdate>,
}

impl UpdateSender {
    pub(super) fn new(id: SourceId, updates: mpsc::Sender<SourceUpdate>) -> Self {
        Self { id, updates }
    }

    /// Sends an update; false: nothing receives it any more.
    pub(super) async fn send(&self, list: FoundList) -> bool {
        let id = self.id.clone();
        self.updates.send(SourceUpdate { id, list }).await.is_ok()
    }
}
