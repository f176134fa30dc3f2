//! A running proxy: handles signals, commands and changed files, one at a time, until it shuts down.

mod peers;
mod upgrade;

use std::io;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::admin_sockets::{AdminSockets, OpenAdminSockets};
use super::background::{BackgroundEvent, BackgroundTasks};
use super::data_plane::DataPlane;
use super::drain::{self, ShutdownOutcome};
use super::hot_restart::{CompletedUpgrade, PendingUpgrade, StandbyProcess, send_reply};
use super::listeners::PreparedListener;
use super::peer_discovery::{PeerDiscovery, StartedSources};
use super::peer_lookups::{self, PeerLookups};
use super::reload::{self, ReloadOptions};
use super::signals::{Signal, Signals};
use super::{config_reader, sd_notify};
use crate::acme::CertManager;
use crate::admin::AppState;
use crate::discovery;
use crate::lifecycle::{
    ControlCommand, ControlError, ControlReceiver, ControlResult, ProcessStage,
};
use crate::snapshot::ResolvedAddresses;
use crate::telemetry::Telemetry;
use crate::telemetry::metrics::OperationResult;

/// A running proxy.
pub(super) struct ServerInstance {
    app_state: Arc<AppState>,
    commands: ControlReceiver,
    data_plane: DataPlane,
    admin_sockets: OpenAdminSockets,
    background: BackgroundTasks,
    lookups: PeerLookups,
    discovery: PeerDiscovery,
    /// Orders certificates, or loads those that the leader has ordered; `None` before the instance
    /// accepts, and during the drain.
    cert_manager: Option<CertManager>,
    /// The upgrade in progress. No reload runs until it ends, so that the sockets and the state that were handed over
    /// stay current.
    upgrade: Option<PendingUpgrade>,
    /// A signal or a changed file requested a reload during the upgrade.
    reload_pending: bool,
    /// The log files were reopened during the upgrade, so the new process may have opened the old ones.
    reopen_pending: bool,
}

/// An event that the instance handles.
enum InstanceEvent {
    Signal(Signal),
    Command(ControlCommand, oneshot::Sender<ControlResult>),
    Background(BackgroundEvent),
    /// Names of peers that could not be resolved before have these addresses.
    PeersResolved(ResolvedAddresses),
    /// Lists of peers are due, or the drains of peers that left are to be looked at.
    PeersDiscovered,
    /// The new process of the upgrade in progress is ready, or failed.
    StandbyResult(Box<Result<StandbyProcess, ControlError>>),
}

/// `Continue`: keep serving. `Break`: begin the drain; `Some`: a new process has taken over.
type LoopControl<T = ()> = ControlFlow<Option<CompletedUpgrade>, T>;

// Start.
impl ServerInstance {
    /// Creates an instance that accepts nothing yet. Must be called inside a Tokio runtime.
    pub(super) async fn new(
        app_state: Arc<AppState>,
        commands: ControlReceiver,
        sources: StartedSources,
    ) -> io::Result<Self> {
        let data_plane = DataPlane::new(Arc::clone(&app_state)).await?;
        let snapshot = app_state.snapshot.load_full();
        Ok(Self {
            data_plane,
            background: BackgroundTasks::new(app_state.lifecycle.config_path(), &snapshot.config),
            lookups: PeerLookups::default(),
            discovery: PeerDiscovery::new(sources, Arc::clone(&app_state)),
            admin_sockets: OpenAdminSockets::default(),
            app_state: Arc::clone(&app_state),
            commands,
            cert_manager: None,
            upgrade: None,
            reload_pending: false,
            reopen_pending: false,
        })
    }

    pub(super) fn app_state(&self) -> &Arc<AppState> {
        &self.app_state
    }

    /// Counts the names that could not be resolved at a start or reload, and schedules further lookups.
    pub(super) fn retry_lookups(&mut self, failures: &[discovery::Error]) {
        self.lookups
            .replace(failures, &self.app_state.snapshot.load());
    }

    /// Starts to serve the control socket and the admin server.
    pub(super) fn open_admin_sockets(&mut self, sockets: AdminSockets) {
        self.admin_sockets = sockets.open(&self.app_state);
    }

    /// Waits until each peer was probed once, at most for the given time.
    pub(super) async fn run_first_probes(&mut self, at_most: Duration) {
        self.data_plane.run_first_probes(at_most).await;
    }

    /// Accepts connections. Nothing here can fail: an old process already relies on this one.
    pub(super) fn start_accepting(
        &mut self,
        listeners: Vec<PreparedListener>,
        admin: Option<SocketAddr>,
    ) {
        self.data_plane.start_accepting(listeners, admin);
        // Not earlier: the listeners answer the challenges of a certificate order.
        self.cert_manager = Some(CertManager::start(
            Arc::clone(&self.app_state.snapshot),
            Arc::clone(&self.app_state.telemetry),
        ));
    }
}

// The event loop.
impl ServerInstance {
    /// Serves until a stop signal arrives or a new process has taken over; then drains.
    pub(super) async fn serve(mut self, mut signals: Signals) -> (ShutdownOutcome, Arc<Telemetry>) {
        let completed = loop {
            let event = self.next_event(&mut signals).await;
            if let ControlFlow::Break(completed) = self.handle_event(event, &mut signals).await {
                break completed;
            }
        };
        sd_notify::stopping(completed.is_some());
        self.shut_down(signals, completed).await
    }

    async fn next_event(&mut self, signals: &mut Signals) -> InstanceEvent {
        // During an upgrade, lists wait: the new process reads the sources itself.
        let is_upgrading = self.upgrade.is_some();
        let standby = async {
            match &mut self.upgrade {
                Some(upgrade) => upgrade.wait_standby().await,
                None => std::future::pending().await,
            }
        };
        let snapshot = self.app_state.snapshot.load_full();
        let background = self.background.run_until_event(
            &self.app_state,
            &snapshot.config,
            self.app_state.lifecycle.config_path(),
        );
        tokio::select! {
            signal = signals.recv() => InstanceEvent::Signal(signal),
            event = background => InstanceEvent::Background(event),
            found = self.lookups.run_until_found(&snapshot) => InstanceEvent::PeersResolved(found),
            () = self.discovery.run_until_due(is_upgrading) => InstanceEvent::PeersDiscovered,
            Some((command, reply_to)) = self.commands.recv() => InstanceEvent::Command(command, reply_to),
            standby = standby => InstanceEvent::StandbyResult(Box::new(standby)),
        }
    }

    async fn handle_event(&mut self, event: InstanceEvent, signals: &mut Signals) -> LoopControl {
        match event {
            InstanceEvent::Signal(Signal::Stop) => self.begin_shutdown().await,
            InstanceEvent::Signal(Signal::ReopenLogs) => {
                self.app_state.telemetry.reopen();
                self.reopen_pending = self.upgrade.is_some();
                LoopControl::Continue(())
            }
            InstanceEvent::Signal(Signal::Reload)
            | InstanceEvent::Background(BackgroundEvent::ConfigFileChanged) => {
                self.reload_and_log(signals).await
            }
            InstanceEvent::PeersResolved(found) => self.apply_addresses(signals, found).await,
            InstanceEvent::PeersDiscovered => self.apply_discovered(signals).await,
            InstanceEvent::Signal(Signal::Upgrade) => {
                self.start_upgrade(signals, false, None).await
            }
            InstanceEvent::Command(ControlCommand::Upgrade { force }, reply_to) => {
                self.start_upgrade(signals, force, Some(reply_to)).await
            }
            InstanceEvent::Command(ControlCommand::Reload { dry_run, force }, reply_to) => {
                let result = match self.upgrade {
                    Some(_) => Err(upgrade_in_progress()),
                    None => {
                        self.reload(signals, ReloadOptions { dry_run, force })
                            .await?
                    }
                };
                send_reply(Some(reply_to), result);
                LoopControl::Continue(())
            }
            InstanceEvent::Command(ControlCommand::AcceptPeers { upstream }, reply_to) => {
                let result = self.accept_peers(signals, &upstream).await?;
                send_reply(Some(reply_to), result);
                LoopControl::Continue(())
            }
            InstanceEvent::Command(ControlCommand::ChangePeers(request), reply_to) => {
                let result = self.change_peers(signals, &request).await?;
                send_reply(Some(reply_to), result);
                LoopControl::Continue(())
            }
            InstanceEvent::StandbyResult(standby) => {
                self.activate_successor(*standby, signals).await
            }
        }
    }

    /// Begins the drain. Cancels an upgrade first: its new process must not serve after the stop.
    async fn begin_shutdown(&mut self) -> LoopControl {
        if let Some(upgrade) = self.upgrade.take() {
            upgrade.cancel().await;
        }
        LoopControl::Break(None)
    }
}

// Reload.
impl ServerInstance {
    /// Reloads for a signal or a changed file; errors go to the log.
    async fn reload_and_log(&mut self, signals: &mut Signals) -> LoopControl {
        if self.upgrade.is_some() {
            log::warn!("reload: postponed until the upgrade in progress ends");
            self.reload_pending = true;
            return LoopControl::Continue(());
        }
        self.reload_pending = false;
        if let Err(error) = self.reload(signals, ReloadOptions::default()).await? {
            log::error!("reload: {error}");
        }
        LoopControl::Continue(())
    }

    /// Reloads from the configuration file. Resolving names and probing peers take time, so a stop signal ends the
    /// reload. Before the new snapshot is in force, only the file watch and the logged warnings are reset.
    async fn reload(
        &mut self,
        signals: &mut Signals,
        options: ReloadOptions,
    ) -> LoopControl<ControlResult> {
        sd_notify::reloading();
        if !options.dry_run {
            let snapshot = self.app_state.snapshot.load();
            self.background
                .note_reload(self.app_state.lifecycle.config_path(), &snapshot.config);
        }
        let result = tokio::select! {
            biased;
            () = signals.recv_stop() => return LoopControl::Break(None),
            result = self.reload_config_file(options) => result,
        };
        sd_notify::ready();
        LoopControl::Continue(result)
    }

    async fn reload_config_file(&mut self, options: ReloadOptions) -> ControlResult {
        let result = self.try_reload_config_file(options).await;
        if !options.dry_run {
            let reloads = &self.app_state.telemetry.metrics.process.reloads;
            reloads.inc(if result.is_ok() {
                OperationResult::Ok
            } else {
                OperationResult::Failed
            });
        }
        result
    }

    async fn try_reload_config_file(&mut self, options: ReloadOptions) -> ControlResult {
        // After a dry run, a change that the scan in progress finds must still be reported.
        if !options.dry_run {
            // Before the file is read: a later write is detected by the next scan, an earlier one is read below.
            self.background.await_scan().await;
        }
        let Some(path) = self.app_state.lifecycle.config_path() else {
            return Err(ControlError::Failed(
                "this instance has no configuration file to read".to_owned(),
            ));
        };
        let before = self.app_state.snapshot.load_full();
        let loaded = config_reader::load(path, &before.addresses(), &self.discovery).await?;
        let (config, addresses) = (loaded.config, loaded.addresses);
        let source_warnings = loaded.sources.warnings.clone();
        let mut result = reload::reload(&mut self.data_plane, config, addresses, options).await?;
        if !options.dry_run {
            self.discovery.commit(loaded.sources);
            for warning in loaded.warnings {
                log::warn!("{warning}");
            }
            peer_lookups::log_changes(
                &loaded.lookup_warnings,
                &before,
                &self.app_state.snapshot.load(),
            );
            self.retry_lookups(&loaded.lookup_failures);
        }
        peer_lookups::add_to_result(&mut result, source_warnings, loaded.lookup_warnings);
        Ok(result)
    }

    /// Puts the addresses that were found for peers in force; if that fails, their names are looked up again.
    async fn apply_addresses(
        &mut self,
        signals: &mut Signals,
        found: ResolvedAddresses,
    ) -> LoopControl {
        let result = if self.upgrade.is_some() {
            // The new process looks the names up itself.
            Err(upgrade_in_progress())
        } else {
            tokio::select! {
                biased;
                () = signals.recv_stop() => return LoopControl::Break(None),
                result = reload::reload_addresses(&mut self.data_plane, &found) => result,
            }
        };
        if let Err(error) = result {
            self.lookups.retry_later(found, &error);
        }
        LoopControl::Continue(())
    }
}

// Shutdown.
impl ServerInstance {
    async fn shut_down(
        mut self,
        mut signals: Signals,
        mut completed: Option<CompletedUpgrade>,
    ) -> (ShutdownOutcome, Arc<Telemetry>) {
        let app_state = Arc::clone(&self.app_state);
        if completed.is_none() {
            // Before `/readyz` shows the drain: from then on every response must close its connection.
            self.data_plane.begin_close();
        }
        app_state.lifecycle.advance(ProcessStage::Draining);
        if let Some(completed) = &mut completed {
            self.hand_over_sockets(completed).await;
        } else {
            // Certificates are ordered again after the next start.
            self.cert_manager = None;
        }
        self.discovery.stop();
        let mut successor = completed.map(|completed| completed.successor);
        let outcome = drain::run(
            &mut self.data_plane,
            &mut self.commands,
            &mut signals,
            successor.as_mut(),
            &app_state,
        )
        .await;
        match &mut successor {
            Some(successor) => {
                let counters = app_state.telemetry.metrics.export_counters();
                let open = app_state.conn_limit.open_connections() as u64;
                successor.send_final_counters(open, counters).await;
            }
            None => self.background.write_state_file(&app_state),
        }
        self.admin_sockets.finish_responses().await;
        self.admin_sockets.remove_control_file();
        (outcome, Arc::clone(&app_state.telemetry))
    }

    /// Hands the sockets over to the new process. The admin sockets are closed before the final state is exported, so
    /// that the state has every drain that an operator began. The upgrade command gets its reply last.
    async fn hand_over_sockets(&mut self, completed: &mut CompletedUpgrade) {
        let successor = &mut completed.successor;
        self.admin_sockets
            .hand_over(&successor.adopted_sockets)
            .await;
        self.background.release();
        // Releases the lock on the certificates' storage, which the new process tries to take every second.
        self.cert_manager = None;
        let state = self.app_state.snapshot.load().persisted_state();
        let open = self.app_state.conn_limit.open_connections() as u64;
        successor.send_final_state(open, state).await;
        // Before the reply: a client that connects after the reply must reach the new process.
        self.data_plane
            .hand_over_listeners(&successor.adopted_sockets)
            .await;
        completed.reply(self.app_state.lifecycle.config_path());
    }
}

fn upgrade_in_progress() -> ControlError {
    ControlError::Busy("an upgrade is in progress".to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use arc_swap::ArcSwap;

    use super::*;
    use crate::admin::SourceStatuses;
    use crate::config;
    use crate::downstream::ConnectionLimit;
    use crate::lifecycle::Lifecycle;
    use crate::snapshot::{ResolvedAddresses, Snapshot};

    fn app_state(path: &Path) -> (Arc<AppState>, ControlReceiver) {
        let config = config::load(path).unwrap();
        let telemetry = Telemetry::open(&config).unwrap();
        let addresses = ResolvedAddresses::new();
        let snapshot = Snapshot::new(config, &addresses, None, &telemetry.metrics).unwrap();
        let (lifecycle, commands) = Lifecycle::new(Some(path.to_owned()));
        let app_state = AppState {
            snapshot: Arc::new(ArcSwap::from_pointee(snapshot)),
            telemetry: Arc::new(telemetry),
            lifecycle: Arc::new(lifecycle),
            conn_limit: ConnectionLimit::new(None),
            sources: SourceStatuses::default(),
        };
        (Arc::new(app_state), commands)
    }

    #[tokio::test]
    async fn watched_file_change_is_reported_after_a_dry_run() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("clockwise.yaml");
        let write = |pool_size: u32| {
            let yaml = format!(
                "watch: 1s\naccess_log: off\npool_size: {pool_size}\n\
                 listeners: [{{address: 127.0.0.1:1}}]\nroutes: [{{upstream: app}}]\n\
                 upstreams: {{app: {{peers: [127.0.0.1:2]}}}}\n"
            );
            std::fs::write(&path, yaml).unwrap();
        };
        write(1);
        let (app_state, commands) = app_state(&path);
        write(2);
        let sources = StartedSources::default();
        let instance = ServerInstance::new(Arc::clone(&app_state), commands, sources);
        let mut instance = instance.await.unwrap();
        let dry_run = ReloadOptions {
            dry_run: true,
            force: false,
        };
        instance.reload_config_file(dry_run).await.unwrap();
        let snapshot = app_state.snapshot.load_full();
        let changed =
            instance
                .background
                .run_until_event(&app_state, &snapshot.config, Some(path.as_path()));
        let changed = tokio::time::timeout(Duration::from_secs(10), changed).await;
        assert_eq!(changed, Ok(BackgroundEvent::ConfigFileChanged));
    }
}
