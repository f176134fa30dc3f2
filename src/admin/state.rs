//! The state that the admin API shows and changes.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::source_status::SourceStatuses;
use crate::downstream::ConnectionLimit;
use crate::lifecycle::Lifecycle;
use crate::snapshot::Snapshot;
use crate::telemetry::Telemetry;

/// Handles to the shared state of the process.
#[derive(Debug)]
pub(crate) struct AppState {
    /// The configuration in force.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Metrics and logs.
    pub telemetry: Arc<Telemetry>,
    /// The stage of the process, and the channel for control commands.
    pub lifecycle: Arc<Lifecycle>,
    /// The number of open client connections.
    pub conn_limit: Arc<ConnectionLimit>,
    /// The sources of peers.
    pub sources: SourceStatuses,
}
