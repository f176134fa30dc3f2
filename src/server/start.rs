//! From a configuration to an instance that accepts: all that can fail comes before the first
//! connection.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use pingora_core::server::configuration::ServerConf;
use pingora_proxy::{HttpProxy, http_proxy};

use super::chores::Chores;
use super::handover::Predecessor;
use super::instance::Instance;
use super::signals::Signals;
use super::sockets::{self, Doors, Listeners, OpenDoors, Prepared};
use super::{Error, Launch, lookup, threads};
use super::{activation, notify, state_file};
use crate::admin::Subject;
use crate::config::{self, Config};
use crate::connection::Gate;
use crate::lifecycle::{Addresses, Lifecycle, Orders, Stage};
use crate::probe::{Prober, Probes};
use crate::proxy::Edge;
use crate::snapshot::Snapshot;
use crate::telemetry::{self, Telemetry};
use crate::upstream::Memory;

/// Starts an instance: on its own, or in the place of the one that started this process for that.
pub(super) async fn start(
    launch: Launch,
    passed: Vec<TcpListener>,
) -> Result<(Instance, Signals), Error> {
    // First: until its handler is installed, a signal ends the process.
    let mut signals = Signals::install().map_err(Error::Signals)?;
    let mut predecessor = Predecessor::meet()?;
    let begun = tokio::select! {
        begun = begin(launch, passed, predecessor.as_mut()) => begun,
        () = signals.stop() => Err(Error::Stopped),
    };
    match begun {
        Ok(instance) => {
            if let Some(predecessor) = predecessor {
                instance.succeed(predecessor)?;
            }
            notify::ready();
            Ok((instance, signals))
        }
        Err(error) => {
            if let Some(predecessor) = predecessor {
                predecessor.refuse(&error.to_string());
            }
            Err(error)
        }
    }
}

async fn begin(
    launch: Launch,
    passed: Vec<TcpListener>,
    predecessor: Option<&mut Predecessor>,
) -> Result<Instance, Error> {
    let Launch { config, source } = launch;
    let succeeds = predecessor.is_some();
    let telemetry = open_telemetry(&config)?;
    let addresses = lookup::addresses(&config).await?;
    let snapshot = Snapshot::new(config, &addresses, None, &telemetry.metrics)?;
    let (mut inherited, memory) = match predecessor {
        Some(predecessor) => predecessor.take(),
        None => (
            activation::claim(passed, &snapshot.config),
            remembered(&snapshot.config),
        ),
    };
    snapshot.recall(&memory);
    let config = &snapshot.config;
    let prepared = sockets::prepare(config, &telemetry, &Listeners::default(), &mut inherited)?;
    let doors = Doors::bind(config, &telemetry, &mut inherited)?;
    let (subject, orders) = subject(snapshot, telemetry);
    let connectors = Prober::new();
    let probes = Probes::start(&subject.snapshot.load(), &connectors);
    let mut instance = Instance {
        proxy: Arc::new(new_proxy(&subject)),
        chores: Chores::new(source.as_deref()),
        listeners: Listeners::default(),
        doors: OpenDoors::default(),
        subject,
        source,
        orders,
        prober: connectors,
        probes,
    };
    // Operators may watch a start, but not one behind the back of the process that serves.
    if succeeds {
        accept(&mut instance, prepared, doors.admin_address()).await;
        instance.doors = doors.open(&instance.subject)?;
    } else {
        let admin = doors.admin_address();
        instance.doors = doors.open(&instance.subject)?;
        accept(&mut instance, prepared, admin).await;
    }
    announce(&instance.subject);
    Ok(instance)
}

/// Asks the peers, then lets the clients in.
async fn accept(instance: &mut Instance, prepared: Vec<Prepared>, admin: Option<SocketAddr>) {
    let subject = Arc::clone(&instance.subject);
    first_pass(&subject.snapshot.load(), &mut instance.probes).await;
    instance.listeners.open(prepared, &subject, &instance.proxy);
    let listeners = instance.listeners.addresses();
    subject
        .lifecycle
        .set_addresses(Addresses { listeners, admin });
    subject.lifecycle.advance(Stage::Serving);
}

/// What a cold start knows of the peers.
fn remembered(config: &Config) -> Memory {
    config
        .state_file
        .as_ref()
        .map(state_file::recall)
        .unwrap_or_default()
}

fn subject(snapshot: Snapshot, telemetry: Arc<Telemetry>) -> (Arc<Subject>, Orders) {
    let gate = Gate::new(snapshot.config.downstream.max_connections);
    let (lifecycle, orders) = Lifecycle::new();
    let subject = Subject {
        snapshot: Arc::new(ArcSwap::from_pointee(snapshot)),
        telemetry,
        lifecycle: Arc::new(lifecycle),
        gate,
    };
    (Arc::new(subject), orders)
}

/// No request may meet a peer that nobody has asked yet: what is new waits for the answers.
pub(super) async fn first_pass(snapshot: &Snapshot, probes: &mut Probes) {
    let healths = snapshot
        .upstreams
        .values()
        .filter_map(|upstream| upstream.config.health.as_ref());
    let longest = healths
        .map(|health| health.timeout)
        .max()
        .unwrap_or(Duration::ZERO);
    let limit = longest.saturating_mul(probes.rounds()) + Duration::from_secs(1);
    if !probes.first_pass(limit).await {
        log::warn!("not every peer was asked within {limit:?}; those left stay unknown");
    }
}

fn new_proxy(subject: &Subject) -> HttpProxy<Edge> {
    let config = &subject.snapshot.load().config;
    let conf = ServerConf {
        threads: threads(config).get(),
        upstream_keepalive_pool_size: config.pool_size,
        // Our own rule decides (`policy::retry`); this one is only in its way. Zero would mean that
        // nothing is proxied at all.
        max_retries: 2 * crate::upstream::MAX_ATTEMPTS,
        ..ServerConf::default()
    };
    let edge = Edge::new(
        Arc::clone(&subject.snapshot),
        Arc::clone(&subject.telemetry),
    );
    let mut proxy = http_proxy(&Arc::new(conf), edge);
    // Refused all the same, but by us: counted, logged, and told what is allowed.
    let options = proxy.server_options.get_or_insert_default();
    options.allow_connect_method_proxying = true;
    proxy
}

fn open_telemetry(config: &Config) -> Result<Arc<Telemetry>, Error> {
    let path = match &config.access_log {
        config::AccessLog::File(path) => path.display().to_string(),
        config::AccessLog::Stdout | config::AccessLog::Off => "stdout".to_owned(),
    };
    let telemetry = Telemetry::open(config).map_err(|source| Error::AccessLog { path, source })?;
    telemetry::log::count_panics(telemetry.metrics.process.panics.clone());
    Ok(Arc::new(telemetry))
}

fn announce(subject: &Subject) {
    let addresses = subject.lifecycle.addresses();
    for listener in &addresses.listeners {
        log::info!("listening on {}", listener.bound);
    }
    if let Some(admin) = addresses.admin {
        log::info!("admin on http://{admin}/");
    }
}
