//! The state of the sources of peers, as the server reports it.

use std::collections::BTreeMap;

use parking_lot::RwLock;
use serde::Serialize;

/// The sources of the configuration in force, by upstream and name.
#[derive(Debug, Default)]
pub(crate) struct SourceStatuses(RwLock<BTreeMap<(String, String), SourceStatus>>);

impl SourceStatuses {
    /// Replaces the state of one source.
    pub(crate) fn set(&self, status: SourceStatus) {
        let key = (status.upstream.clone(), status.name.clone());
        self.0.write().insert(key, status);
    }

    /// Replaces all states.
    pub(crate) fn replace(&self, statuses: Vec<SourceStatus>) {
        let key = |status: &SourceStatus| (status.upstream.clone(), status.name.clone());
        let statuses = statuses.into_iter().map(|status| (key(&status), status));
        *self.0.write() = statuses.collect();
    }

    /// The states of an upstream's sources, by name.
    pub(crate) fn of_upstream(&self, upstream: &str) -> Vec<SourceStatus> {
        let statuses = self.0.read();
        let statuses = statuses
            .values()
            .filter(|status| status.upstream == upstream);
        statuses.cloned().collect()
    }
}

/// One source of an upstream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct SourceStatus {
    /// The name of the upstream.
    #[serde(skip)]
    pub upstream: String,
    /// The source as text: `file:peers.yaml`.
    #[serde(rename = "source")]
    pub name: String,
    /// Its peers that are in force.
    pub peers: usize,
    /// The labels of peers that it no longer has, and that still drain.
    pub leaving: Vec<String>,
    /// The labels of its peers that cannot be members of the upstream.
    pub left_out: Vec<String>,
    /// Why it could not be read the last time, or why its list could not be put in force.
    pub error: Option<String>,
    /// The list that waits for an operator.
    pub held: Option<HeldStatus>,
    /// When it was read last, in seconds since 1970.
    pub read_at: Option<i64>,
}

/// A list that waits for an operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct HeldStatus {
    /// Its number of peers.
    pub peers: usize,
    /// Why it is held.
    pub reason: String,
}
