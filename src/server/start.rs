//! From a configuration to an instance that accepts: all that can fail comes before the first
//! connection.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::chores::Chores;
use super::handover::{News, Predecessor};
use super::instance::Instance;
use super::signals::Signals;
use super::sockets::{self, Doors, Inherited, Listeners, OpenDoors, Prepared};
use super::{Error, Launch, lookup, proxy};
use super::{activation, notify, reload, state_file};
use crate::acme::{self, Keeper};
use crate::admin::Subject;
use crate::config::{self, Config};
use crate::connection::ConnectionLimit;
use crate::lifecycle::{Addresses, Lifecycle, Orders, Stage};
use crate::probe::{ProbeConnectors, Probes};
use crate::snapshot::Snapshot;
use crate::telemetry::{self, Telemetry};
use crate::upstream::PersistedState;

/// Starts an instance: on its own, or in the place of the one that started this process for that.
pub(super) async fn start(
    launch: Launch,
    passed: Vec<TcpListener>,
) -> Result<(Instance, Signals), Error> {
    // First: until its handler is installed, a signal ends the process.
    let mut signals = Signals::install().map_err(Error::Signals)?;
    let mut predecessor = Predecessor::meet().await?;
    let begun = tokio::select! {
        begun = begin(launch, passed, predecessor.as_mut()) => begun,
        () = signals.stop() => Err(Error::Stopped),
    };
    if begun.is_ok() {
        // First: the process before this one may end as soon as it knows, and a service manager that
        // has not heard of another main process then takes the service for ended.
        notify::ready();
    }
    match (&begun, predecessor) {
        (Ok(instance), Some(predecessor)) => predecessor.serving(Arc::clone(&instance.subject)),
        (Err(error), Some(mut predecessor)) => predecessor.refuse(&error.to_string()).await,
        (_, None) => {}
    }
    Ok((begun?, signals))
}

async fn begin(
    launch: Launch,
    passed: Vec<TcpListener>,
    predecessor: Option<&mut Predecessor>,
) -> Result<Instance, Error> {
    let Launch { config, source } = launch;
    let telemetry = open_telemetry(&config)?;
    let addresses = lookup::addresses(&config).await?;
    let snapshot = Snapshot::new(config, &addresses, None, &telemetry.metrics)?;
    // Before anybody is let in: a certificate that is there is shown from the first handshake on.
    acme::recall(&snapshot.config, &snapshot.issued);
    match predecessor {
        None => {
            let inherited = activation::claim(passed, &snapshot.config);
            let memory = remembered(&snapshot.config);
            let mut staged = Staged::build(snapshot, telemetry, source, inherited, &memory).await?;
            // Operators may watch a start.
            staged.open_doors();
            staged.ask_peers(Duration::MAX).await;
            staged.serve();
            Ok(staged.instance)
        }
        Some(predecessor) => {
            let (inherited, memory) = predecessor.take();
            snapshot.tickets.take_over(predecessor.take_tickets());
            let mut staged = Staged::build(snapshot, telemetry, source, inherited, &memory).await?;
            staged.ask_peers(predecessor.patience() / 2).await;
            let news = predecessor.ready(staged.kept.clone()).await?;
            staged.take_note(&news);
            staged.serve();
            // Operators were answered by the process that served until now; none meets one that does not.
            staged.open_doors();
            Ok(staged.instance)
        }
    }
}

/// An instance that has all it needs, and lets nobody in yet.
struct Staged {
    instance: Instance,
    prepared: Vec<Prepared>,
    doors: Option<Doors>,
    admin: Option<SocketAddr>,
    /// The names of the inherited sockets that it goes on with.
    kept: Vec<String>,
}

impl Staged {
    async fn build(
        snapshot: Snapshot,
        telemetry: Arc<Telemetry>,
        source: Option<PathBuf>,
        mut inherited: Inherited,
        memory: &PersistedState,
    ) -> Result<Self, Error> {
        snapshot.recall(memory);
        let config = &snapshot.config;
        let mut kept: Vec<String> = inherited.keys().cloned().collect();
        let prepared = sockets::prepare(config, &telemetry, &Listeners::default(), &mut inherited)?;
        let doors = Doors::bind(config, &telemetry, &mut inherited)?;
        kept.retain(|name| !inherited.contains_key(name));
        let (subject, orders) = subject(snapshot, telemetry);
        let connectors = ProbeConnectors::new();
        let probes = Probes::start(&subject.snapshot.load(), &connectors);
        let instance = Instance {
            proxy: proxy::new(&subject).await.map_err(Error::Proxy)?,
            chores: Chores::new(source.as_deref(), &subject.snapshot.load().config),
            listeners: Listeners::default(),
            doors: OpenDoors::default(),
            subject,
            source,
            orders,
            prober: connectors,
            probes,
            keeper: None,
            upgrading: None,
            reload_due: false,
            reopen_due: false,
        };
        let admin = doors.admin_address();
        Ok(Self {
            instance,
            prepared,
            doors: Some(doors),
            admin,
            kept,
        })
    }

    fn open_doors(&mut self) {
        if let Some(doors) = self.doors.take() {
            self.instance.doors = doors.open(&self.instance.subject);
        }
    }

    async fn ask_peers(&mut self, at_most: Duration) {
        let snapshot = self.instance.subject.snapshot.load_full();
        first_pass(&snapshot, &mut self.instance.probes, at_most).await;
    }

    /// What has become of the peers, and was counted, while this process was made ready.
    fn take_note(&self, news: &News) {
        let subject = &self.instance.subject;
        let snapshot = subject.snapshot.load();
        snapshot.catch_up(&news.before, &news.memory);
        subject.telemetry.metrics.inherit(&news.counters);
    }

    /// Lets the clients in. Nothing here can fail: the process before this one already relies on it.
    fn serve(&mut self) {
        let instance = &mut self.instance;
        let subject = Arc::clone(&instance.subject);
        reload::warn_unverified(&subject.snapshot.load());
        let prepared = std::mem::take(&mut self.prepared);
        instance.listeners.open(prepared, &subject, &instance.proxy);
        subject.lifecycle.set_addresses(Addresses {
            listeners: instance.listeners.addresses(),
            admin: self.admin,
        });
        subject.lifecycle.advance(Stage::Serving);
        // It may begin now: the challenges' answers are given by the listeners.
        instance.keeper = Some(Keeper::start(
            Arc::clone(&subject.snapshot),
            Arc::clone(&subject.telemetry),
        ));
        announce(&subject);
    }
}

/// What a cold start knows of the peers.
fn remembered(config: &Config) -> PersistedState {
    config
        .state_file
        .as_ref()
        .map(state_file::recall)
        .unwrap_or_default()
}

fn subject(snapshot: Snapshot, telemetry: Arc<Telemetry>) -> (Arc<Subject>, Orders) {
    let gate = ConnectionLimit::new(snapshot.config.downstream.max_connections);
    let (lifecycle, orders) = Lifecycle::new();
    let subject = Subject {
        snapshot: Arc::new(ArcSwap::from_pointee(snapshot)),
        telemetry,
        lifecycle: Arc::new(lifecycle),
        gate,
    };
    (Arc::new(subject), orders)
}

/// No request may meet a peer that nobody has asked yet: what is new waits for the answers, for as
/// long as they may take, and `at_most`.
pub(super) async fn first_pass(snapshot: &Snapshot, probes: &mut Probes, at_most: Duration) {
    let healths = snapshot
        .upstreams
        .values()
        .filter_map(|upstream| upstream.config.health.as_ref());
    let longest = healths
        .map(|health| health.timeout)
        .max()
        .unwrap_or(Duration::ZERO);
    let limit = longest
        .saturating_mul(probes.first_pass_rounds())
        .saturating_add(Duration::from_secs(1))
        .min(at_most);
    if !probes.wait_first_pass(limit).await {
        log::warn!("not every peer was asked within {limit:?}; those left stay unknown");
    }
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
