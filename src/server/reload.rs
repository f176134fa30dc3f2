//! Puts the configuration file in force, in the process that runs.
//!
//! Everything that can fail comes first: read, resolve, look up, build, bind, ask the new peers.
//! Then one swap. Until the swap nothing has changed, so a reload that fails needs no way back, and
//! one that is not wanted any more can be dropped at any time.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::task::{JoinHandle, spawn_blocking};

use super::dns;
use super::instance::ServerInstance;
use super::sockets::{self, InheritedSockets, Listeners, PreparedListener};
use super::start::await_first_probes;
use crate::acme;
use crate::admin::AppState;
use crate::config::{self, Config, ListenAddress};
use crate::lifecycle::{BoundAddresses, ControlError, ControlResult};
use crate::probe::Probes;
use crate::snapshot::{Snapshot, SnapshotDiff, metric_cleanup};
use crate::telemetry::{self, LogWriter, metrics::OperationResult};

/// Reloads, or with `dry_run` says what a reload would change; `force` goes beyond `max_moved`.
///
/// Can be dropped: before the swap nothing has changed then, after it the new configuration is in
/// force, and a listener that it does not have may not be closed yet.
pub(super) async fn reload(
    instance: &mut ServerInstance,
    dry_run: bool,
    force: bool,
) -> ControlResult {
    let done = try_reload(instance, dry_run, force).await;
    let reloads = &instance.app_state.telemetry.metrics.process.reloads;
    if !dry_run {
        reloads.inc(if done.is_ok() {
            OperationResult::Ok
        } else {
            OperationResult::Failed
        });
    }
    done
}

async fn try_reload(instance: &mut ServerInstance, dry_run: bool, force: bool) -> ControlResult {
    // What is written after the watch has looked is for the watch to find.
    instance.background.await_scan().await;
    let Some(source) = instance.config_path.as_deref() else {
        return Err(ControlError::Failed(
            "this instance has no configuration file to read".to_owned(),
        ));
    };
    let before = instance.app_state.snapshot.load_full();
    let (candidate, warnings) = build_candidate(source, &instance.app_state, &before).await?;
    let plan = diff_snapshots(&before, &candidate.snapshot).await?;
    if !force {
        plan.check_max_moved(&candidate.snapshot.config)
            .map_err(|much| ControlError::LimitExceeded(much.to_string()))?;
    }
    if dry_run {
        return Ok(json!({ "dry_run": true, "plan": plan }));
    }
    let ready = prepare_reload(instance, &before, &candidate.snapshot).await?;
    let after = candidate.accept();
    let old_log = swap_snapshot(instance, &before, &after, ready);
    remove_old(instance, &before, &after, old_log).await;
    for warning in warnings {
        log::warn!("{warning}");
    }
    log::info!("generation {} is in force", after.generation);
    warn_unverified(&after);
    Ok(json!({ "generation": after.generation, "plan": plan }))
}

/// Says at every start and every reload where TLS protects nothing.
pub(super) fn warn_unverified(snapshot: &Snapshot) {
    for upstream in snapshot.unverified_upstreams() {
        log::warn!(
            "upstream {upstream}: the certificates of its peers are not verified (`verify: false`)"
        );
    }
}

/// A configuration that is not in force. Its series are in the metrics already; where it never comes
/// in force, they are taken out again.
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
            let kept = self.app_state.snapshot.load();
            let metrics = &self.app_state.telemetry.metrics;
            metric_cleanup::remove_stale(metrics, &self.snapshot.config, Some(&kept.config));
        }
    }
}

/// Reads the file and builds all that follows from it alone; and what it is warned of. The rings of many peers take a while:
/// that is done beside the workers.
async fn build_candidate(
    source: &Path,
    subject: &Arc<AppState>,
    before: &Arc<Snapshot>,
) -> Result<(CandidateSnapshot, Vec<String>), ControlError> {
    let path = source.to_owned();
    let read = move || config::load_with_warnings(&path).map_err(|report| report.render(false));
    let (config, warnings) = run_blocking(read).await?;
    let addresses = dns::resolve_peers_preferring(&config, &before.addresses())
        .await
        .map_err(|error| ControlError::Failed(error.to_string()))?;
    let (subject, before) = (Arc::clone(subject), Arc::clone(before));
    let build = move || {
        let metrics = &subject.telemetry.metrics;
        let snapshot = Snapshot::new(config, &addresses, Some(&before), metrics)
            .map_err(|error| error.to_string())?;
        acme::load_stored(&snapshot.config, &snapshot.managed_certs);
        Ok(CandidateSnapshot {
            snapshot: Arc::new(snapshot),
            app_state: subject,
            accepted: false,
        })
    };
    Ok((run_blocking(build).await?, warnings))
}

async fn diff_snapshots(
    before: &Arc<Snapshot>,
    after: &Arc<Snapshot>,
) -> Result<SnapshotDiff, ControlError> {
    let (before, after) = (Arc::clone(before), Arc::clone(after));
    run_blocking(move || Ok(SnapshotDiff::between(&before, &after))).await
}

async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, ControlError> {
    let done = spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(error.to_string()))
        .map_err(ControlError::Failed)
}

/// What the swap needs, and nobody uses yet.
struct PreparedReload {
    listeners: Vec<PreparedListener>,
    /// Where the access log goes somewhere else.
    log: Option<LogWriter>,
    probes: Probes,
}

/// What still can fail: the new sockets, the log's new file. Then the peers are asked of which
/// nothing is known; what the others' probes say is for the configuration in force alone.
async fn prepare_reload(
    instance: &ServerInstance,
    before: &Snapshot,
    after: &Snapshot,
) -> Result<PreparedReload, ControlError> {
    let telemetry = &instance.app_state.telemetry;
    let mut none = InheritedSockets::new();
    let listeners =
        sockets::prepare_listeners(&after.config, telemetry, &instance.listeners, &mut none)
            .map_err(|error| ControlError::Failed(error.to_string()))?;
    let log = if before.config.access_log == after.config.access_log {
        None
    } else {
        Some(open_log(&instance.app_state, &after.config).await?)
    };
    let mut probes = Probes::start_with_unknown(after, &instance.prober);
    await_first_probes(after, &mut probes, Duration::MAX).await;
    Ok(PreparedReload {
        listeners,
        log,
        probes,
    })
}

async fn open_log(subject: &AppState, config: &Config) -> Result<LogWriter, ControlError> {
    let telemetry = Arc::clone(&subject.telemetry);
    let destination = config.access_log.clone();
    let open = move || {
        telemetry
            .open_log(&destination)
            .map_err(|error| format!("cannot open the access log: {error}"))
    };
    run_blocking(open).await
}

/// The swap: from one line to the next, without a pause in which it could be dropped. Returns the
/// access log before, to be closed.
fn swap_snapshot(
    instance: &mut ServerInstance,
    before: &Snapshot,
    after: &Arc<Snapshot>,
    ready: PreparedReload,
) -> Option<Arc<LogWriter>> {
    let subject = Arc::clone(&instance.app_state);
    let config: &Config = &after.config;
    let drains = after.take_drains(before);
    subject.snapshot.store(Arc::clone(after));
    drains.apply();
    after.managed_certs.notify();
    after.activate(before);
    ready.probes.start_deferred();
    instance.probes = ready.probes;
    subject
        .conn_limit
        .set_limit(config.downstream.max_connections);
    telemetry::error_log::set_level(config.error_log);
    update_socket_options(&instance.listeners, &before.config, config);
    instance
        .listeners
        .open(ready.listeners, &subject, &instance.proxy);
    let mut listeners = instance.listeners.addresses();
    listeners.retain(|open| {
        let mut wanted = config.listeners.iter();
        wanted.any(|listener| listener.address.to_string() == open.configured)
    });
    let admin = subject.lifecycle.addresses().admin;
    subject
        .lifecycle
        .set_addresses(BoundAddresses { listeners, admin });
    ready.log.map(|log| subject.telemetry.replace_log(log))
}

/// Listeners that stay get the options that have changed.
fn update_socket_options(open: &Listeners, before: &Config, after: &Config) {
    for now in &after.listeners {
        let mut before = before.listeners.iter();
        let before = before.find(|before| before.address == now.address);
        if before.is_some_and(|before| before.backlog != now.backlog || before.socket != now.socket)
        {
            open.set_options(now);
        }
    }
}

/// What the configuration before had and this one has not.
async fn remove_old(
    instance: &mut ServerInstance,
    before: &Arc<Snapshot>,
    after: &Arc<Snapshot>,
    old_log: Option<Arc<LogWriter>>,
) {
    let subject = Arc::clone(&instance.app_state);
    let (before, kept) = (Arc::clone(before), Arc::clone(after));
    let cleared: JoinHandle<()> = spawn_blocking(move || {
        drop(old_log);
        let metrics = &subject.telemetry.metrics;
        metric_cleanup::remove_stale(metrics, &before.config, Some(&kept.config));
    });
    let listeners = &after.config.listeners;
    let wanted = |address: &ListenAddress| listeners.iter().any(|one| one.address == *address);
    instance.listeners.close_except(wanted).await;
    // It goes on, whoever waits for it.
    let _ = cleared.await;
}
