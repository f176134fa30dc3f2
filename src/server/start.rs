//! From a configuration to an instance that accepts: all that can fail comes before the first
//! connection.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::background::BackgroundTasks;
use super::handover::{PredecessorHandle, StateDelta};
use super::instance::ServerInstance;
use super::signals::Signals;
use super::sockets::{
    self, AdminSockets, InheritedSockets, Listeners, OpenAdminSockets, PreparedListener,
};
use super::{Error, StartOptions, dns, pingora_setup};
use super::{reload, sd_notify, socket_activation, state_file};
use crate::acme::{self, CertManager};
use crate::admin::AppState;
use crate::config::{self, Config};
use crate::downstream::ConnectionLimit;
use crate::lifecycle::{BoundAddresses, ControlReceiver, Lifecycle, ProcessStage};
use crate::probe::{ProbeConnectors, Probes};
use crate::snapshot::Snapshot;
use crate::telemetry::{self, Telemetry};
use crate::upstream::PersistedState;

/// Starts an instance: on its own, or in the place of the one that started this process for that.
pub(super) async fn start(
    launch: StartOptions,
    passed: Vec<TcpListener>,
) -> Result<(ServerInstance, Signals), Error> {
    // First: until its handler is installed, a signal ends the process.
    let mut signals = Signals::install().map_err(Error::Signals)?;
    let mut predecessor = PredecessorHandle::connect().await?;
    let begun = tokio::select! {
        begun = start_instance(launch, passed, predecessor.as_mut()) => begun,
        () = signals.recv_stop() => Err(Error::StoppedDuringStart),
    };
    if begun.is_ok() {
        // First: the process before this one may end as soon as it knows, and a service manager that
        // has not heard of another main process then takes the service for ended.
        sd_notify::ready();
    }
    match (&begun, predecessor) {
        (Ok(instance), Some(predecessor)) => {
            predecessor.announce_serving(Arc::clone(&instance.app_state))
        }
        (Err(error), Some(mut predecessor)) => {
            predecessor.send_start_failure(&error.to_string()).await
        }
        (_, None) => {}
    }
    Ok((begun?, signals))
}

async fn start_instance(
    launch: StartOptions,
    passed: Vec<TcpListener>,
    predecessor: Option<&mut PredecessorHandle>,
) -> Result<ServerInstance, Error> {
    let StartOptions {
        config,
        config_path: source,
    } = launch;
    let telemetry = open_telemetry(&config)?;
    let addresses = dns::resolve_peers(&config).await?;
    let snapshot = Snapshot::new(config, &addresses, None, &telemetry.metrics)?;
    // Before anybody is let in: a certificate that is there is shown from the first handshake on.
    acme::load_stored(&snapshot.config, &snapshot.managed_certs);
    match predecessor {
        None => {
            let inherited = socket_activation::match_to_listeners(passed, &snapshot.config);
            let memory = load_persisted_state(&snapshot.config);
            let mut staged =
                PreparedInstance::build(snapshot, telemetry, source, inherited, &memory).await?;
            // Operators may watch a start.
            staged.open_admin_sockets();
            staged.run_first_probes(Duration::MAX).await;
            staged.start_accepting();
            Ok(staged.instance)
        }
        Some(predecessor) => {
            let (inherited, memory) = predecessor.take_sockets_and_state();
            snapshot
                .session_tickets
                .import_keys(predecessor.take_ticket_keys());
            let mut staged =
                PreparedInstance::build(snapshot, telemetry, source, inherited, &memory).await?;
            staged
                .run_first_probes(predecessor.ready_timeout() / 2)
                .await;
            let news = predecessor
                .await_activation(staged.adopted_sockets.clone())
                .await?;
            staged.apply_state_delta(&news);
            staged.start_accepting();
            // Operators were answered by the process that served until now; none meets one that does not.
            staged.open_admin_sockets();
            Ok(staged.instance)
        }
    }
}

/// An instance that has all it needs, and lets nobody in yet.
struct PreparedInstance {
    instance: ServerInstance,
    listeners: Vec<PreparedListener>,
    admin_sockets: Option<AdminSockets>,
    admin_address: Option<SocketAddr>,
    /// The names of the inherited sockets that it goes on with.
    adopted_sockets: Vec<String>,
}

impl PreparedInstance {
    async fn build(
        snapshot: Snapshot,
        telemetry: Arc<Telemetry>,
        source: Option<PathBuf>,
        mut inherited: InheritedSockets,
        memory: &PersistedState,
    ) -> Result<Self, Error> {
        snapshot.restore(memory);
        let config = &snapshot.config;
        let mut kept: Vec<String> = inherited.keys().cloned().collect();
        let prepared =
            sockets::prepare_listeners(config, &telemetry, &Listeners::default(), &mut inherited)?;
        let doors = AdminSockets::bind(config, &telemetry, &mut inherited)?;
        kept.retain(|name| !inherited.contains_key(name));
        let (subject, orders) = new_app_state(snapshot, telemetry);
        let connectors = ProbeConnectors::new();
        let probes = Probes::start(&subject.snapshot.load(), &connectors);
        let instance = ServerInstance {
            proxy: pingora_setup::build_proxy(&subject)
                .await
                .map_err(Error::Proxy)?,
            background: BackgroundTasks::new(source.as_deref(), &subject.snapshot.load().config),
            listeners: Listeners::default(),
            admin_sockets: OpenAdminSockets::default(),
            app_state: subject,
            config_path: source,
            commands: orders,
            prober: connectors,
            probes,
            cert_manager: None,
            upgrade: None,
            reload_pending: false,
            reopen_pending: false,
        };
        let admin = doors.admin_address();
        Ok(Self {
            instance,
            listeners: prepared,
            admin_sockets: Some(doors),
            admin_address: admin,
            adopted_sockets: kept,
        })
    }

    fn open_admin_sockets(&mut self) {
        if let Some(doors) = self.admin_sockets.take() {
            self.instance.admin_sockets = doors.open(&self.instance.app_state);
        }
    }

    async fn run_first_probes(&mut self, at_most: Duration) {
        let snapshot = self.instance.app_state.snapshot.load_full();
        await_first_probes(&snapshot, &mut self.instance.probes, at_most).await;
    }

    /// What has become of the peers, and was counted, while this process was made ready.
    fn apply_state_delta(&self, news: &StateDelta) {
        let subject = &self.instance.app_state;
        let snapshot = subject.snapshot.load();
        snapshot.apply_delta(&news.baseline, &news.peer_state);
        subject.telemetry.metrics.carry_over(&news.counters);
    }

    /// Lets the clients in. Nothing here can fail: the process before this one already relies on it.
    fn start_accepting(&mut self) {
        let instance = &mut self.instance;
        let subject = Arc::clone(&instance.app_state);
        reload::warn_unverified(&subject.snapshot.load());
        let prepared = std::mem::take(&mut self.listeners);
        instance.listeners.open(prepared, &subject, &instance.proxy);
        subject.lifecycle.set_addresses(BoundAddresses {
            listeners: instance.listeners.addresses(),
            admin: self.admin_address,
        });
        subject.lifecycle.advance(ProcessStage::Serving);
        // It may begin now: the challenges' answers are given by the listeners.
        instance.cert_manager = Some(CertManager::start(
            Arc::clone(&subject.snapshot),
            Arc::clone(&subject.telemetry),
        ));
        log_addresses(&subject);
    }
}

/// What a cold start knows of the peers.
fn load_persisted_state(config: &Config) -> PersistedState {
    config
        .state_file
        .as_ref()
        .map(state_file::load)
        .unwrap_or_default()
}

fn new_app_state(
    snapshot: Snapshot,
    telemetry: Arc<Telemetry>,
) -> (Arc<AppState>, ControlReceiver) {
    let gate = ConnectionLimit::new(snapshot.config.downstream.max_connections);
    let (lifecycle, orders) = Lifecycle::new();
    let subject = AppState {
        snapshot: Arc::new(ArcSwap::from_pointee(snapshot)),
        telemetry,
        lifecycle: Arc::new(lifecycle),
        conn_limit: gate,
    };
    (Arc::new(subject), orders)
}

/// No request may meet a peer that nobody has asked yet: what is new waits for the answers, for as
/// long as they may take, and `at_most`.
pub(super) async fn await_first_probes(
    snapshot: &Snapshot,
    probes: &mut Probes,
    at_most: Duration,
) {
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
        config::AccessLogConfig::File(path) => path.display().to_string(),
        config::AccessLogConfig::Stdout | config::AccessLogConfig::Off => "stdout".to_owned(),
    };
    let telemetry = Telemetry::open(config).map_err(|source| Error::AccessLog { path, source })?;
    telemetry::error_log::count_panics(telemetry.metrics.process.panics.clone());
    Ok(Arc::new(telemetry))
}

fn log_addresses(subject: &AppState) {
    let addresses = subject.lifecycle.addresses();
    for listener in &addresses.listeners {
        log::info!("listening on {}", listener.bound);
    }
    if let Some(admin) = addresses.admin {
        log::info!("admin on http://{admin}/");
    }
}
