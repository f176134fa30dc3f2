//! Puts the configuration file in force, in the process that runs.
//!
//! Everything that can fail comes first: read, resolve, look up, build, bind, ask the new peers.
//! Then one swap. Until the swap nothing has changed, so a reload that fails needs no way back.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::instance::Instance;
use super::lookup;
use super::sockets::{self, Inherited, Prepared};
use super::start::first_pass;
use crate::admin::Subject;
use crate::config::{self, Config};
use crate::lifecycle::{Addresses, Refusal, Reply};
use crate::probe::Probes;
use crate::snapshot::{Plan, Snapshot};
use crate::telemetry::{self, metrics::Outcome};

/// Reloads, or with `dry_run` says what a reload would change; `force` goes beyond `max_moved`.
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
    let subject = Arc::clone(&instance.subject);
    let Some(source) = instance.source.as_deref() else {
        return Err(Refusal::Failed(
            "this instance has no configuration file to read".to_owned(),
        ));
    };
    let before = subject.snapshot.load_full();
    let after = Arc::new(build(source, &subject, &before).await?);
    let plan = Plan::between(&before, &after);
    let allowed = plan
        .check(&after.config)
        .map_err(|much| Refusal::Limit(much.to_string()));
    if dry_run || (allowed.is_err() && !force) {
        forget(&subject, &after, &before);
        if !force {
            allowed?;
        }
        return Ok(json!({ "dry_run": true, "plan": plan }));
    }
    match prepare(instance, &after).await {
        Ok((prepared, probes)) => put_in_force(instance, &after, prepared, probes).await,
        Err(refusal) => {
            forget(&subject, &after, &before);
            return Err(refusal);
        }
    }
    forget(&subject, &before, &after);
    log::info!("generation {} is in force", after.generation);
    Ok(json!({ "generation": after.generation, "plan": plan }))
}

/// Reads the file and builds all that follows from it alone. The rings of many peers take a while:
/// that is done beside the workers.
async fn build(
    source: &Path,
    subject: &Arc<Subject>,
    before: &Arc<Snapshot>,
) -> Result<Snapshot, Refusal> {
    let path = source.to_owned();
    let read = move || config::load(&path).map_err(|report| report.render(false));
    let config = aside(read).await?;
    let addresses = lookup::addresses(&config)
        .await
        .map_err(|error| Refusal::Failed(error.to_string()))?;
    let (subject, before) = (Arc::clone(subject), Arc::clone(before));
    let build = move || {
        let metrics = &subject.telemetry.metrics;
        Snapshot::new(config, &addresses, Some(&before), metrics).map_err(|error| error.to_string())
    };
    aside(build).await
}

async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, Refusal> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(error.to_string()))
        .map_err(Refusal::Failed)
}

/// What still can fail: the new sockets, the log's new file. Then the peers are asked.
async fn prepare(
    instance: &Instance,
    after: &Snapshot,
) -> Result<(Vec<Prepared>, Probes), Refusal> {
    let telemetry = &instance.subject.telemetry;
    let failed = |error: String| Refusal::Failed(error);
    let mut none = Inherited::new();
    let prepared = sockets::prepare(&after.config, telemetry, &instance.listeners, &mut none)
        .map_err(|error| failed(error.to_string()))?;
    let before = instance.subject.snapshot.load_full();
    if before.config.access_log != after.config.access_log {
        let (telemetry, log) = (Arc::clone(telemetry), after.config.access_log.clone());
        aside(move || {
            telemetry
                .log_to(&log)
                .map_err(|error| format!("cannot open the access log: {error}"))
        })
        .await?;
    }
    let mut probes = Probes::start(after, &instance.prober);
    first_pass(after, &mut probes, Duration::MAX).await;
    Ok((prepared, probes))
}

async fn put_in_force(
    instance: &mut Instance,
    after: &Arc<Snapshot>,
    prepared: Vec<Prepared>,
    probes: Probes,
) {
    let subject = Arc::clone(&instance.subject);
    let config: &Config = &after.config;
    subject.snapshot.store(Arc::clone(after));
    instance.probes = probes;
    subject.gate.set_limit(config.downstream.max_connections);
    telemetry::log::set(config.error_log);
    instance.listeners.open(prepared, &subject, &instance.proxy);
    let wanted = |address| {
        config
            .listeners
            .iter()
            .any(|listener| listener.address == address)
    };
    instance.listeners.close(wanted).await;
    let admin = subject.lifecycle.addresses().admin;
    subject.lifecycle.set_addresses(Addresses {
        listeners: instance.listeners.addresses(),
        admin,
    });
}

/// Takes what only `gone` has out of the metrics.
fn forget(subject: &Subject, gone: &Snapshot, kept: &Snapshot) {
    let metrics = &subject.telemetry.metrics;
    for (name, upstream) in &gone.upstreams {
        let keeps = kept.upstreams.get(name);
        for peer in upstream.peers() {
            if keeps.is_none_or(|kept| kept.peer_named(&peer.label).is_none()) {
                metrics.remove_peer(name, &peer.label);
            }
        }
        if keeps.is_none() {
            metrics.remove_upstream(name);
        }
    }
    for route in &gone.config.routes {
        if !kept
            .config
            .routes
            .iter()
            .any(|kept| kept.matches == route.matches)
        {
            metrics.remove_route(&route.matches.to_string());
        }
    }
    for listener in &gone.config.listeners {
        if !kept
            .config
            .listeners
            .iter()
            .any(|kept| kept.address == listener.address)
        {
            metrics.remove_listener(&listener.address.to_string());
        }
    }
}
