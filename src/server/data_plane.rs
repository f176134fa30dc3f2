//! The part of an instance that serves clients, and how it goes from one snapshot to the next.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};

use super::blocking::run_blocking;
use super::edge_app::{self, EdgeApp};
use super::inherited_sockets::InheritedSockets;
use super::listeners::{self, Listeners, PreparedListener};
use crate::admin::AppState;
use crate::config::{Config, ListenAddress};
use crate::lifecycle::{BoundAddresses, ControlError, ProcessStage};
use crate::probe::{FirstPass, PreparedProbes, ProbeConnectors, Probes};
use crate::snapshot::{Snapshot, metric_cleanup};
use crate::telemetry::{self, PreparedTelemetry, ReplacedTelemetry};

/// Listeners, proxy and probes, all working by the snapshot in force.
pub(super) struct DataPlane {
    app_state: Arc<AppState>,
    app: Arc<EdgeApp>,
    listeners: Listeners,
    probe_connectors: ProbeConnectors,
    probes: Probes,
    /// The first probes of the start.
    first_pass: FirstPass,
}

/// Everything that a snapshot needs to come into force: prepared, and not in use yet.
pub(super) struct PreparedSwap {
    listeners: Vec<PreparedListener>,
    telemetry: PreparedTelemetry,
    probes: PreparedProbes,
}

impl DataPlane {
    /// Builds the proxy and starts the probes; accepts nothing yet. Must be called inside a Tokio runtime.
    pub(super) async fn new(app_state: Arc<AppState>) -> io::Result<Self> {
        let probe_connectors = ProbeConnectors::new();
        let snapshot = app_state.snapshot.load_full();
        let (probes, first_pass) = Probes::start(&snapshot, &probe_connectors);
        Ok(Self {
            app: edge_app::build_app(&app_state).await?,
            listeners: Listeners::default(),
            probe_connectors,
            probes,
            first_pass,
            app_state,
        })
    }

    pub(super) fn app_state(&self) -> &Arc<AppState> {
        &self.app_state
    }

    /// Waits until each peer was probed once, for at most this time.
    pub(super) async fn run_first_probes(&mut self, at_most: Duration) {
        await_first_probes(&mut self.first_pass, at_most).await;
    }

    /// Accepts connections. Nothing here can fail: an old process already relies on this one.
    pub(super) fn start_accepting(
        &mut self,
        prepared: Vec<PreparedListener>,
        admin: Option<SocketAddr>,
    ) {
        let app_state = &self.app_state;
        warn_unverified(&app_state.snapshot.load());
        self.listeners.open(prepared, app_state, &self.app);
        app_state.lifecycle.set_addresses(BoundAddresses {
            listeners: self.listeners.addresses(),
            admin,
        });
        app_state.lifecycle.advance(ProcessStage::Serving);
    }

    /// Does all of a swap that can fail, or takes time: binds new listeners, opens new destinations of telemetry, and probes the
    /// peers without a known state. The others are probed for the snapshot in force alone until it is replaced.
    pub(super) async fn prepare_swap(
        &self,
        before: &Arc<Snapshot>,
        after: &Arc<Snapshot>,
    ) -> Result<PreparedSwap, ControlError> {
        let telemetry = &self.app_state.telemetry;
        let mut inherited = InheritedSockets::new();
        let listeners =
            listeners::prepare_listeners(&after.config, telemetry, &self.listeners, &mut inherited)
                .map_err(|error| ControlError::Failed(error.to_string()))?;
        let telemetry = self.prepare_telemetry(before, after).await?;
        let mut probes = self.probes.prepare(before, after, &self.probe_connectors);
        await_first_probes(&mut probes.first_pass, Duration::MAX).await;
        Ok(PreparedSwap {
            listeners,
            telemetry,
            probes,
        })
    }

    async fn prepare_telemetry(
        &self,
        before: &Arc<Snapshot>,
        after: &Arc<Snapshot>,
    ) -> Result<PreparedTelemetry, ControlError> {
        let telemetry = Arc::clone(&self.app_state.telemetry);
        let (before, after) = (Arc::clone(before), Arc::clone(after));
        run_blocking(move || telemetry.prepare(&before.config, &after.config)).await
    }

    /// Puts a snapshot in force, without an `await`: it cannot be dropped half-way. Returns the destinations of
    /// telemetry that were replaced, to be closed.
    pub(super) fn swap(
        &mut self,
        before: &Snapshot,
        after: &Arc<Snapshot>,
        prepared: PreparedSwap,
    ) -> ReplacedTelemetry {
        let app_state = &self.app_state;
        let config: &Config = &after.config;
        let drains = after.take_drains(before);
        app_state.snapshot.store(Arc::clone(after));
        drains.apply();
        after.managed_certs.notify();
        after.activate(before);
        self.probes.adopt(prepared.probes);
        app_state
            .conn_limit
            .set_limit(config.downstream.max_connections);
        telemetry::error_log::set_level(config.error_log);
        self.update_socket_options(&before.config, config);
        self.listeners
            .open(prepared.listeners, app_state, &self.app);
        // Listeners that are closed next are not shown any more.
        let mut listeners = self.listeners.addresses();
        listeners.retain(|open| {
            let mut configured = config.listeners.iter();
            configured.any(|listener| listener.address.to_string() == open.configured)
        });
        let admin = app_state.lifecycle.addresses().admin;
        app_state
            .lifecycle
            .set_addresses(BoundAddresses { listeners, admin });
        app_state.telemetry.replace(prepared.telemetry)
    }

    /// Sets the socket options that have changed for listeners that stay open.
    fn update_socket_options(&self, before: &Config, after: &Config) {
        for listener in &after.listeners {
            let mut before = before.listeners.iter();
            let before = before.find(|before| before.address == listener.address);
            if before.is_some_and(|before| {
                before.backlog != listener.backlog || before.socket != listener.socket
            }) {
                self.listeners.set_options(listener);
            }
        }
    }

    /// Removes what only the snapshot before had: listeners, metric series, destinations of telemetry.
    pub(super) async fn remove_old(
        &mut self,
        before: &Arc<Snapshot>,
        after: &Arc<Snapshot>,
        old_telemetry: ReplacedTelemetry,
    ) {
        let app_state = Arc::clone(&self.app_state);
        let (before, in_force) = (Arc::clone(before), Arc::clone(after));
        let cleanup: JoinHandle<()> = spawn_blocking(move || {
            drop(old_telemetry);
            let metrics = &app_state.telemetry.metrics;
            metric_cleanup::remove_stale(metrics, &before.config, Some(&in_force.config));
        });
        let configured = &after.config.listeners;
        let is_configured =
            |address: &ListenAddress| configured.iter().any(|one| one.address == *address);
        self.listeners.close_except(is_configured).await;
        // If this is dropped, the clean-up continues.
        let _ = cleanup.await;
    }

    /// The listeners' sockets by name, to hand over.
    pub(super) fn duplicates(&self) -> impl Iterator<Item = (String, &OwnedFd)> {
        self.listeners.duplicates()
    }

    /// Closes the listeners that the new process has adopted.
    pub(super) async fn hand_over_listeners(&mut self, adopted: &[String]) {
        self.listeners.hand_over(adopted).await;
    }

    /// Stops accepting, and begins to drain the connections; [`close_listeners`](Self::close_listeners) must follow at
    /// once.
    pub(super) fn begin_close(&mut self) {
        self.listeners.begin_close();
    }

    /// Closes all listeners; open connections continue.
    pub(super) async fn close_listeners(&mut self) {
        self.listeners.close_except(|_| false).await;
    }
}

/// Waits until each new peer was probed once, so that no request goes to a peer of unknown health. Takes as long as the
/// probes' timeouts allow, and at most `at_most`.
async fn await_first_probes(first_pass: &mut FirstPass, at_most: Duration) {
    let limit = first_pass.limit().saturating_add(Duration::from_secs(1));
    let limit = limit.min(at_most);
    if !first_pass.wait(limit).await {
        log::warn!(
            "not every peer was probed within {limit:?}; the health of the others is unknown"
        );
    }
}

/// Warns, at each start and reload of a file, of upstreams with TLS that does not verify the peers.
pub(super) fn warn_unverified(snapshot: &Snapshot) {
    for upstream in snapshot.unverified_upstreams() {
        log::warn!(
            "upstream {upstream}: the certificates of its peers are not verified (`verify: false`)"
        );
    }
}
