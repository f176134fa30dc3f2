//! Puts a configuration in force in the running process.
//!
//! Everything that can fail comes first: build, compare, bind, probe the new peers. Then one swap. A reload that fails or
//! is dropped before the swap changes nothing.
//!
//! The caller reads the file and resolves names, so that a changed address comes into force in the same way as a
//! changed file.

use std::sync::Arc;

use serde_json::json;

use super::blocking::run_blocking;
use super::data_plane::{DataPlane, warn_unverified};
use super::peer_lookups;
use crate::acme;
use crate::admin::AppState;
use crate::config::Config;
use crate::lifecycle::{ControlError, ControlResult};
use crate::snapshot::{ResolvedAddresses, Snapshot, SnapshotDiff, metric_cleanup};

/// How a reload is done.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ReloadOptions {
    /// Only reports what would change.
    pub(super) dry_run: bool,
    /// Ignores `max_moved`.
    pub(super) force: bool,
}

/// Puts `config` in force, with these `addresses` for the names of its peers.
///
/// Can be dropped at any time: after the swap, the new configuration is in force, but a listener that it does not have may
/// still be open.
pub(super) async fn reload(
    data_plane: &mut DataPlane,
    config: Config,
    addresses: ResolvedAddresses,
    options: ReloadOptions,
) -> ControlResult {
    let app_state = Arc::clone(data_plane.app_state());
    let before = app_state.snapshot.load_full();
    let candidate = build_candidate(&app_state, &before, config, addresses).await?;
    let plan = diff_snapshots(&before, &candidate.snapshot).await?;
    if !options.force {
        plan.check_max_moved(&candidate.snapshot.config)
            .map_err(|exceeded| ControlError::LimitExceeded(exceeded.to_string()))?;
    }
    let config_path = app_state.lifecycle.config_path();
    let config_path = config_path.map(|path| path.display().to_string());
    if options.dry_run {
        return Ok(json!({ "dry_run": true, "config": config_path, "plan": plan }));
    }
    let after = put_in_force(data_plane, &before, candidate).await?;
    warn_unverified(&after);
    Ok(json!({ "generation": after.generation, "config": config_path, "plan": plan }))
}

/// Puts a configuration in force that differs from the one in force only in its peers and their `addresses`. The caller has
/// checked `max_moved`. Can be dropped as [`reload`].
pub(super) async fn reload_peers(
    data_plane: &mut DataPlane,
    config: Config,
    addresses: ResolvedAddresses,
) -> Result<Arc<Snapshot>, ControlError> {
    let app_state = Arc::clone(data_plane.app_state());
    let before = app_state.snapshot.load_full();
    let candidate = build_candidate(&app_state, &before, config, addresses).await?;
    put_in_force(data_plane, &before, candidate).await
}

async fn put_in_force(
    data_plane: &mut DataPlane,
    before: &Arc<Snapshot>,
    candidate: CandidateSnapshot,
) -> Result<Arc<Snapshot>, ControlError> {
    let prepared = data_plane.prepare_swap(before, &candidate.snapshot).await?;
    let after = candidate.accept();
    let old_telemetry = data_plane.swap(before, &after, prepared);
    data_plane.remove_old(before, &after, old_telemetry).await;
    log::info!("generation {} is in force", after.generation);
    Ok(after)
}

/// Puts the configuration in force again, with the addresses that were `found` for names of its peers. No file is read.
///
/// No label changes, so no key moves on the ring. Can be dropped, as [`reload`].
pub(super) async fn reload_addresses(
    data_plane: &mut DataPlane,
    found: &ResolvedAddresses,
) -> Result<(), ControlError> {
    let before = data_plane.app_state().snapshot.load_full();
    let mut addresses = before.addresses();
    if found
        .iter()
        .all(|(name, address)| addresses.get(name) == Some(address))
    {
        return Ok(());
    }
    addresses.extend(found.iter().map(|(name, address)| (name.clone(), *address)));
    let after = reload_peers(data_plane, before.config.clone(), addresses).await?;
    peer_lookups::log_new_addresses(&before, &after);
    Ok(())
}

/// A snapshot that is not in force. Its metric series exist already; without [`Self::accept`], its drop removes them.
struct CandidateSnapshot {
    snapshot: Arc<Snapshot>,
    app_state: Arc<AppState>,
    accepted: bool,
}

impl CandidateSnapshot {
    fn accept(mut self) -> Arc<Snapshot> {
        self.accepted = true;
        Arc::clone(&self.snapshot)
    }
}

impl Drop for CandidateSnapshot {
    fn drop(&mut self) {
        if !self.accepted {
            let in_force = self.app_state.snapshot.load();
            let metrics = &self.app_state.telemetry.metrics;
            metric_cleanup::remove_stale(metrics, &self.snapshot.config, Some(&in_force.config));
        }
    }
}

/// Builds the snapshot on a blocking thread: large rings take time, and stored certificates are read from files.
async fn build_candidate(
    app_state: &Arc<AppState>,
    before: &Arc<Snapshot>,
    config: Config,
    addresses: ResolvedAddresses,
) -> Result<CandidateSnapshot, ControlError> {
    let (app_state, before) = (Arc::clone(app_state), Arc::clone(before));
    let build = move || {
        let metrics = &app_state.telemetry.metrics;
        let snapshot = Snapshot::new(config, &addresses, Some(&before), metrics)
            .map_err(|error| error.to_string())?;
        acme::load_stored(&snapshot.config, &snapshot.managed_certs);
        Ok(CandidateSnapshot {
            snapshot: Arc::new(snapshot),
            app_state,
            accepted: false,
        })
    };
    run_blocking(build).await
}

async fn diff_snapshots(
    before: &Arc<Snapshot>,
    after: &Arc<Snapshot>,
) -> Result<SnapshotDiff, ControlError> {
    let (before, after) = (Arc::clone(before), Arc::clone(after));
    run_blocking(move || Ok(SnapshotDiff::between(&before, &after))).await
}
