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

use super::instance::Instance;
use super::lookup;
use super::sockets::{self, Inherited, Listeners, Prepared};
use super::start::first_pass;
use crate::acme;
use crate::admin::Subject;
use crate::config::{self, Config, ListenAddress};
use crate::lifecycle::{Addresses, Refusal, Reply};
use crate::probe::Probes;
use crate::snapshot::{Plan, Snapshot, series};
use crate::telemetry::{self, LogWriter, metrics::Outcome};

/// Reloads, or with `dry_run` says what a reload would change; `force` goes beyond `max_moved`.
///
/// Can be dropped: before the swap nothing has changed then, after it the new configuration is in
/// force, and a listener that it does not have may not be closed yet.
pub(super) async fn reload(instance: &mut Instance, dry_run: bool, force: bool) -> Reply {
    let done = attempt(instance, dry_run, force).await;
    let reloads = &instance.subject.telemetry.metrics.process.reloads;
    if !dry_run {
        reloads.inc(if done.is_ok() {
            Outcome::Ok
        } else {
            Outcome::Failed
        });
    }
    done
}

async fn attempt(instance: &mut Instance, dry_run: bool, force: bool) -> Reply {
    // What is written after the watch has looked is for the watch to find.
    instance.chores.looked().await;
    let Some(source) = instance.source.as_deref() else {
        return Err(Refusal::Failed(
            "this instance has no configuration file to read".to_owned(),
        ));
    };
    let before = instance.subject.snapshot.load_full();
    let (candidate, warnings) = build(source, &instance.subject, &before).await?;
    let plan = plan(&before, &candidate.snapshot).await?;
    if !force {
        plan.check(&candidate.snapshot.config)
            .map_err(|much| Refusal::Limit(much.to_string()))?;
    }
    if dry_run {
        return Ok(json!({ "dry_run": true, "plan": plan }));
    }
    let ready = prepare(instance, &before, &candidate.snapshot).await?;
    let after = candidate.accept();
    let old_log = put_in_force(instance, &before, &after, ready);
    clear_away(instance, &before, &after, old_log).await;
    for warning in warnings {
        log::warn!("{warning}");
    }
    log::info!("generation {} is in force", after.generation);
    warn_unverified(&after);
    Ok(json!({ "generation": after.generation, "plan": plan }))
}

/// Says at every start and every reload where TLS protects nothing.
pub(super) fn warn_unverified(snapshot: &Snapshot) {
    for upstream in snapshot.unverified() {
        log::warn!(
            "upstream {upstream}: the certificates of its peers are not verified (`verify: false`)"
        );
    }
}

/// A configuration that is not in force. Its series are in the metrics already; where it never comes
/// in force, they are taken out again.
struct Candidate {
    snapshot: Arc<Snapshot>,
    subject: Arc<Subject>,
    accepted: bool,
}

impl Candidate {
    fn accept(mut self) -> Arc<Snapshot> {
        self.accepted = true;
        Arc::clone(&self.snapshot)
    }
}

impl Drop for Candidate {
    fn drop(&mut self) {
        if !self.accepted {
            let kept = self.subject.snapshot.load();
            let metrics = &self.subject.telemetry.metrics;
            series::forget(metrics, &self.snapshot.config, Some(&kept.config));
        }
    }
}

/// Reads the file and builds all that follows from it alone; and what it is warned of. The rings of many peers take a while:
/// that is done beside the workers.
async fn build(
    source: &Path,
    subject: &Arc<Subject>,
    before: &Arc<Snapshot>,
) -> Result<(Candidate, Vec<String>), Refusal> {
    let path = source.to_owned();
    let read = move || config::load_warned(&path).map_err(|report| report.render(false));
    let (config, warnings) = aside(read).await?;
    let addresses = lookup::addresses_near(&config, &before.addresses())
        .await
        .map_err(|error| Refusal::Failed(error.to_string()))?;
    let (subject, before) = (Arc::clone(subject), Arc::clone(before));
    let build = move || {
        let metrics = &subject.telemetry.metrics;
        let snapshot = Snapshot::new(config, &addresses, Some(&before), metrics)
            .map_err(|error| error.to_string())?;
        acme::recall(&snapshot.config, &snapshot.issued);
        Ok(Candidate {
            snapshot: Arc::new(snapshot),
            subject,
            accepted: false,
        })
    };
    Ok((aside(build).await?, warnings))
}

async fn plan(before: &Arc<Snapshot>, after: &Arc<Snapshot>) -> Result<Plan, Refusal> {
    let (before, after) = (Arc::clone(before), Arc::clone(after));
    aside(move || Ok(Plan::between(&before, &after))).await
}

async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, Refusal> {
    let done = spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(error.to_string()))
        .map_err(Refusal::Failed)
}

/// What the swap needs, and nobody uses yet.
struct Ready {
    listeners: Vec<Prepared>,
    /// Where the access log goes somewhere else.
    log: Option<LogWriter>,
    probes: Probes,
}

/// What still can fail: the new sockets, the log's new file. Then the peers are asked of which
/// nothing is known; what the others' probes say is for the configuration in force alone.
async fn prepare(
    instance: &Instance,
    before: &Snapshot,
    after: &Snapshot,
) -> Result<Ready, Refusal> {
    let telemetry = &instance.subject.telemetry;
    let mut none = Inherited::new();
    let listeners = sockets::prepare(&after.config, telemetry, &instance.listeners, &mut none)
        .map_err(|error| Refusal::Failed(error.to_string()))?;
    let log = if before.config.access_log == after.config.access_log {
        None
    } else {
        Some(open_log(&instance.subject, &after.config).await?)
    };
    let mut probes = Probes::start_with_unknown(after, &instance.prober);
    first_pass(after, &mut probes, Duration::MAX).await;
    Ok(Ready {
        listeners,
        log,
        probes,
    })
}

async fn open_log(subject: &Subject, config: &Config) -> Result<LogWriter, Refusal> {
    let telemetry = Arc::clone(&subject.telemetry);
    let destination = config.access_log.clone();
    let open = move || {
        telemetry
            .open_log(&destination)
            .map_err(|error| format!("cannot open the access log: {error}"))
    };
    aside(open).await
}

/// The swap: from one line to the next, without a pause in which it could be dropped. Returns the
/// access log before, to be closed.
fn put_in_force(
    instance: &mut Instance,
    before: &Snapshot,
    after: &Arc<Snapshot>,
    ready: Ready,
) -> Option<Arc<LogWriter>> {
    let subject = Arc::clone(&instance.subject);
    let config: &Config = &after.config;
    let drains = after.take_drains(before);
    subject.snapshot.store(Arc::clone(after));
    drains.settle();
    after.issued.tell();
    after.settle(before);
    ready.probes.start_deferred();
    instance.probes = ready.probes;
    subject.gate.set_limit(config.downstream.max_connections);
    telemetry::log::set(config.error_log);
    set_options(&instance.listeners, &before.config, config);
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
        .set_addresses(Addresses { listeners, admin });
    ready.log.map(|log| subject.telemetry.log_to(log))
}

/// Listeners that stay get the options that have changed.
fn set_options(open: &Listeners, before: &Config, after: &Config) {
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
async fn clear_away(
    instance: &mut Instance,
    before: &Arc<Snapshot>,
    after: &Arc<Snapshot>,
    old_log: Option<Arc<LogWriter>>,
) {
    let subject = Arc::clone(&instance.subject);
    let (before, kept) = (Arc::clone(before), Arc::clone(after));
    let cleared: JoinHandle<()> = spawn_blocking(move || {
        drop(old_log);
        let metrics = &subject.telemetry.metrics;
        series::forget(metrics, &before.config, Some(&kept.config));
    });
    let listeners = &after.config.listeners;
    let wanted = |address: &ListenAddress| listeners.iter().any(|one| one.address == *address);
    instance.listeners.close(wanted).await;
    // It goes on, whoever waits for it.
    let _ = cleared.await;
}
