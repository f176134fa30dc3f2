//! Starts an instance from a configuration. Every step that can fail comes before the first connection is accepted.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::admin_sockets::AdminSockets;
use super::error::Error;
use super::hot_restart::PredecessorHandle;
use super::inherited_sockets::InheritedSockets;
use super::instance::ServerInstance;
use super::listeners::{self, Listeners, PreparedListener};
use super::peer_discovery::{self, StartedSources};
use super::signals::Signals;
use super::{peer_lookups, sd_notify, socket_activation, state_file};
use crate::acme;
use crate::admin::{AppState, SourceStatuses};
use crate::config::{self, Config, StartMode};
use crate::discovery;
use crate::downstream::ConnectionLimit;
use crate::lifecycle::{ControlReceiver, Lifecycle};
use crate::snapshot::{ResolvedAddresses, Snapshot};
use crate::telemetry::{self, Telemetry};
use crate::upstream::PersistedState;

/// The arguments that a proxy is started with.
#[derive(Debug)]
pub(crate) struct StartOptions {
    /// The configuration.
    pub config: Config,
    /// The absolute path of the file that a reload reads; `None`: the instance cannot be reloaded or upgraded.
    pub config_path: Option<PathBuf>,
}

/// Starts an instance, or takes over from the process that started this one.
pub(super) async fn start(
    options: StartOptions,
    passed: Vec<TcpListener>,
) -> Result<(ServerInstance, Signals), Error> {
    // First: until a handler is installed, a signal ends the process.
    let mut signals = Signals::install().map_err(Error::Signals)?;
    let mut predecessor = PredecessorHandle::connect().await?;
    let started = tokio::select! {
        started = start_instance(options, passed, predecessor.as_mut()) => started,
        () = signals.recv_stop() => Err(Error::StoppedDuringStart),
    };
    if started.is_ok() {
        // Before the old process learns of it and may exit: a service manager that does not know the new main process
        // by then considers the service ended.
        sd_notify::ready();
    }
    match (&started, predecessor) {
        (Ok(instance), Some(predecessor)) => {
            predecessor.announce_serving(Arc::clone(instance.app_state()));
        }
        (Err(error), Some(mut predecessor)) => {
            predecessor.send_start_failure(&error.to_string()).await;
        }
        (_, None) => {}
    }
    Ok((started?, signals))
}

async fn start_instance(
    options: StartOptions,
    passed: Vec<TcpListener>,
    predecessor: Option<&mut PredecessorHandle>,
) -> Result<ServerInstance, Error> {
    let StartOptions {
        config,
        config_path,
    } = options;
    let telemetry = open_telemetry(&config)?;
    let (state, lookup_time) = match &predecessor {
        None => (load_persisted_state(&config), discovery::LOOKUP_TIMEOUT),
        // A quarter of the time that the old process waits: name servers that are down must not end an upgrade.
        Some(predecessor) => (
            predecessor.peer_state().clone(),
            discovery::LOOKUP_TIMEOUT.min(predecessor.ready_timeout() / 4),
        ),
    };
    let mut sources = peer_discovery::start(&config, &state, lookup_time).await?;
    let config = sources.merge_into(&config);
    let last = last_addresses(&config, &state);
    let all_known = discovery::peer_names(&config).len() == last.len();
    let lookup_time = if all_known && config.start == StartMode::Tolerant {
        lookup_time.min(KNOWN_ADDRESSES)
    } else {
        lookup_time
    };
    let resolution = discovery::resolve_peers(&config, &last, lookup_time).await?;
    let (addresses, failures) = (resolution.addresses, resolution.failures);
    peer_lookups::log_warnings(
        &peer_lookups::warnings(&config, &addresses, &failures),
        None,
    );
    let snapshot = Snapshot::new(config, &addresses, None, &telemetry.metrics)?;
    // Before the first connection: its handshake needs the stored certificates.
    acme::load_stored(&snapshot.config, &snapshot.managed_certs);
    let mut instance = match predecessor {
        None => start_alone(snapshot, sources, telemetry, config_path, (passed, &state)).await?,
        Some(predecessor) => {
            take_over(snapshot, sources, telemetry, config_path, predecessor).await?
        }
    };
    instance.retry_lookups(&failures);
    Ok(instance)
}

/// The last addresses of the configured names, from the old process or the state file.
/// The longest time for the names of peers, if all their addresses are known from the process before: a start without a
/// name server must not take long. Names that fail are looked up again later.
const KNOWN_ADDRESSES: Duration = Duration::from_secs(2);

fn last_addresses(config: &Config, state: &PersistedState) -> ResolvedAddresses {
    let names = discovery::peer_names(config).into_iter();
    names
        .filter_map(|name| {
            let address = *state.resolved_names.get(&name.to_string())?;
            Some((name, address))
        })
        .collect()
}

async fn start_alone(
    snapshot: Snapshot,
    sources: StartedSources,
    telemetry: Arc<Telemetry>,
    config_path: Option<PathBuf>,
    (passed, state): (Vec<TcpListener>, &PersistedState),
) -> Result<ServerInstance, Error> {
    let inherited = socket_activation::match_to_listeners(passed, &snapshot.config);
    let inherited = (inherited, state);
    let mut prepared =
        PreparedInstance::new(snapshot, sources, telemetry, config_path, inherited).await?;
    // Before the probes: operators can follow the start.
    prepared.open_admin_sockets();
    prepared.instance.run_first_probes(Duration::MAX).await;
    prepared.start_accepting();
    Ok(prepared.instance)
}

async fn take_over(
    snapshot: Snapshot,
    sources: StartedSources,
    telemetry: Arc<Telemetry>,
    config_path: Option<PathBuf>,
    predecessor: &mut PredecessorHandle,
) -> Result<ServerInstance, Error> {
    let (inherited, state) = predecessor.take_sockets_and_state();
    snapshot
        .session_tickets
        .import_keys(predecessor.take_ticket_keys());
    let inherited = (inherited, &state);
    let mut prepared =
        PreparedInstance::new(snapshot, sources, telemetry, config_path, inherited).await?;
    // Half of the time that the old process waits; the other half is for the steps before and after.
    prepared
        .instance
        .run_first_probes(predecessor.ready_timeout() / 2)
        .await;
    let delta = predecessor
        .await_activation(prepared.adopted_sockets.clone())
        .await?;
    delta.apply(prepared.instance.app_state());
    prepared.start_accepting();
    // Not earlier: the old process answers operators until this one serves.
    prepared.open_admin_sockets();
    Ok(prepared.instance)
}

/// An instance with bound sockets that accepts nothing yet.
struct PreparedInstance {
    instance: ServerInstance,
    listeners: Vec<PreparedListener>,
    admin_sockets: Option<AdminSockets>,
    admin_address: Option<SocketAddr>,
    /// The names of the inherited sockets that this process keeps.
    adopted_sockets: Vec<String>,
}

impl PreparedInstance {
    async fn new(
        snapshot: Snapshot,
        sources: StartedSources,
        telemetry: Arc<Telemetry>,
        config_path: Option<PathBuf>,
        (mut inherited, state): (InheritedSockets, &PersistedState),
    ) -> Result<Self, Error> {
        snapshot.restore(state);
        let config = &snapshot.config;
        let mut adopted_sockets: Vec<String> = inherited.keys().cloned().collect();
        let listeners = listeners::prepare_listeners(
            config,
            &telemetry,
            &Listeners::default(),
            &mut inherited,
        )?;
        let admin_sockets = AdminSockets::bind(config, &telemetry, &mut inherited)?;
        adopted_sockets.retain(|name| !inherited.contains_key(name));
        let (app_state, commands) = new_app_state(snapshot, telemetry, config_path);
        let instance = ServerInstance::new(app_state, commands, sources)
            .await
            .map_err(Error::Proxy)?;
        Ok(Self {
            instance,
            listeners,
            admin_address: admin_sockets.admin_address(),
            admin_sockets: Some(admin_sockets),
            adopted_sockets,
        })
    }

    fn open_admin_sockets(&mut self) {
        if let Some(sockets) = self.admin_sockets.take() {
            self.instance.open_admin_sockets(sockets);
        }
    }

    fn start_accepting(&mut self) {
        let listeners = std::mem::take(&mut self.listeners);
        self.instance.start_accepting(listeners, self.admin_address);
        log_addresses(self.instance.app_state());
    }
}

/// The state file's contents, if there is a state file.
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
    config_path: Option<PathBuf>,
) -> (Arc<AppState>, ControlReceiver) {
    let conn_limit = ConnectionLimit::new(snapshot.config.downstream.max_connections);
    let (lifecycle, commands) = Lifecycle::new(config_path);
    let app_state = AppState {
        snapshot: Arc::new(ArcSwap::from_pointee(snapshot)),
        telemetry,
        lifecycle: Arc::new(lifecycle),
        conn_limit,
        sources: SourceStatuses::default(),
    };
    (Arc::new(app_state), commands)
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

fn log_addresses(app_state: &AppState) {
    let addresses = app_state.lifecycle.addresses();
    for listener in &addresses.listeners {
        log::info!("listening on {}", listener.bound);
    }
    if let Some(admin) = addresses.admin {
        log::info!("admin on http://{admin}/");
    }
}
