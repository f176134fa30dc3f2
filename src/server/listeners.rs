//! The listeners of clients: bound, opened, given options, handed over, closed.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::edge_app::EdgeApp;
use super::inherited_sockets::{InheritedSockets, SHARED_PREFIX};
use crate::admin::AppState;
use crate::config::{self, Config, ListenAddress};
use crate::downstream::PartialRequestResponder;
use crate::downstream::listener::{BindError, ConnectionConfig, Listener, bind, unix};
use crate::lifecycle::BoundAddress;
use crate::phases::PartialRequests;
use crate::telemetry::Telemetry;

/// A listener that is bound and does not accept yet.
#[derive(Debug)]
pub(super) struct PreparedListener {
    config: config::ListenerConfig,
    listener: Listener,
    duplicate: OwnedFd,
    /// The file of a Unix socket that was just bound; removed if the listener is dropped before it accepts.
    file: Option<unix::SocketFile>,
    /// Whether the service manager keeps the socket open as well.
    shared: bool,
}

/// Prepares the listeners of `config` that are not `open`: each taken from `inherited`, else bound.
///
/// # Errors
/// The first listener that cannot be bound; those before it are closed again.
pub(super) fn prepare_listeners(
    config: &Config,
    telemetry: &Telemetry,
    open: &Listeners,
    inherited: &mut InheritedSockets,
) -> Result<Vec<PreparedListener>, BindError> {
    open.check_options(config)?;
    let missing = config.listeners.iter();
    let missing = missing.filter(|listener| !open.contains(&listener.address));
    missing
        .map(|listener| prepare_listener(listener, telemetry, inherited))
        .collect()
}

fn prepare_listener(
    config: &config::ListenerConfig,
    telemetry: &Telemetry,
    inherited: &mut InheritedSockets,
) -> Result<PreparedListener, BindError> {
    let name = config.address.to_string();
    let metrics = telemetry.metrics.listener(&name);
    let shared_socket = inherited.remove(&format!("{SHARED_PREFIX}{name}"));
    let shared = shared_socket.is_some();
    let (listener, file) = match shared_socket.or_else(|| inherited.remove(&name)) {
        Some(socket) => (Listener::adopt(config, socket, shared, metrics)?, None),
        None => (
            Listener::bind(config, metrics)?,
            owned_socket_file(&config.address),
        ),
    };
    // Connections that wait in the queue of a shared socket are left to the process that the service manager starts
    // next.
    listener.handed_over().store(shared, Ordering::SeqCst);
    Ok(PreparedListener {
        config: config.clone(),
        duplicate: listener.duplicate_fd()?,
        listener,
        file,
        shared,
    })
}

fn owned_socket_file(address: &ListenAddress) -> Option<unix::SocketFile> {
    match address {
        ListenAddress::Unix(path) => unix::SocketFile::existing(path),
        ListenAddress::Ip(_) => None,
    }
}

/// How the connections of a listener are served: read from the configuration in force, for each connection.
fn connection_config(
    app_state: &AppState,
    address: &ListenAddress,
) -> impl Fn() -> ConnectionConfig + Send + Sync + use<> {
    let (snapshot, address) = (Arc::clone(&app_state.snapshot), address.clone());
    let responder: Arc<dyn PartialRequestResponder> = Arc::new(PartialRequests::new(
        Arc::clone(&snapshot),
        Arc::clone(&app_state.telemetry),
    ));
    move || {
        let snapshot = snapshot.load();
        ConnectionConfig {
            limits: snapshot.config.downstream,
            proxy_protocol: snapshot.proxy_protocol.get(&address).cloned(),
            tls: snapshot.tls.get(&address).cloned(),
            h2c: snapshot.config.allows_h2c(&address),
            responder: Some(Arc::clone(&responder)),
        }
    }
}

/// The listeners that accept, by configured address.
#[derive(Debug, Default)]
pub(super) struct Listeners(BTreeMap<ListenAddress, OpenListener>);

#[derive(Debug)]
struct OpenListener {
    /// The address with the port that the kernel chose.
    bound: String,
    /// The file of a Unix socket, if it is ours to remove.
    file: Option<unix::SocketFile>,
    /// A second descriptor of the socket, to hand over in an upgrade.
    duplicate: OwnedFd,
    /// Whether the service manager keeps the socket open as well.
    shared: bool,
    handed_over: Arc<AtomicBool>,
    stop: watch::Sender<bool>,
    accept_task: JoinHandle<()>,
}

impl OpenListener {
    /// The name of the socket in a hot restart.
    fn handover_name(&self, address: &ListenAddress) -> String {
        let prefix = if self.shared { SHARED_PREFIX } else { "" };
        format!("{prefix}{address}")
    }

    /// Stops accepting; the connections of this listener begin to drain.
    fn begin_close(&mut self) {
        // The file first: a client that connects from now on is refused, not left in a queue that nothing reads.
        self.file = None;
        self.stop.send_replace(true);
    }
}

impl Listeners {
    /// Starts to accept. Must be called inside a Tokio runtime.
    pub(super) fn open(
        &mut self,
        prepared: Vec<PreparedListener>,
        app_state: &Arc<AppState>,
        app: &Arc<EdgeApp>,
    ) {
        for PreparedListener {
            config,
            listener,
            duplicate,
            file,
            shared,
        } in prepared
        {
            // Not earlier: the socket's options are shared with the old process, which accepted from it until now.
            bind::set_options(&duplicate, &config);
            let (stop, stopped) = watch::channel(false);
            let connection_config = connection_config(app_state, &config.address);
            let conn_limit = Arc::clone(&app_state.conn_limit);
            let handed_over = listener.handed_over();
            let open = OpenListener {
                bound: listener.display_address(),
                file: if shared {
                    None
                } else {
                    file.or_else(|| owned_socket_file(&config.address))
                },
                duplicate,
                shared,
                handed_over,
                stop,
                accept_task: tokio::spawn(listener.run(
                    Arc::clone(app),
                    conn_limit,
                    connection_config,
                    stopped,
                )),
            };
            self.0.insert(config.address, open);
        }
    }

    /// Checks that the open listeners can take the options of `config`.
    fn check_options(&self, config: &Config) -> Result<(), BindError> {
        for listener in &config.listeners {
            if let Some(open) = self.0.get(&listener.address) {
                bind::check_rebind(&open.duplicate, listener, open.shared)?;
            }
        }
        Ok(())
    }

    /// Sets the options that a socket takes while it listens.
    pub(super) fn set_options(&self, config: &config::ListenerConfig) {
        if let Some(open) = self.0.get(&config.address) {
            bind::set_options(&open.duplicate, config);
        }
    }

    /// Whether the configured address is listened on.
    fn contains(&self, address: &ListenAddress) -> bool {
        self.0.contains_key(address)
    }

    /// The addresses, as configured and as bound.
    pub(super) fn addresses(&self) -> Vec<BoundAddress> {
        let address = |(configured, open): (&ListenAddress, &OpenListener)| BoundAddress {
            configured: configured.to_string(),
            bound: open.bound.clone(),
        };
        self.0.iter().map(address).collect()
    }

    /// Closes the listeners that the new process has adopted, and leaves their queues and files to it. The others stay
    /// open: the connections in their queues are for this process.
    pub(super) async fn hand_over(&mut self, adopted: &[String]) {
        let mut not_adopted = Vec::new();
        for (address, open) in &mut self.0 {
            if adopted.contains(&open.handover_name(address)) {
                open.handed_over.store(true, Ordering::SeqCst);
                if let Some(file) = open.file.take() {
                    file.keep_file();
                }
            } else {
                not_adopted.push(address.clone());
            }
        }
        self.close_except(|address| not_adopted.contains(address))
            .await;
    }

    /// Stops accepting on every address; [`close_except`](Self::close_except) must follow at once.
    pub(super) fn begin_close(&mut self) {
        self.0.values_mut().for_each(OpenListener::begin_close);
    }

    /// Stops accepting on every address that `keep` does not match, on all of them at once, and waits until their
    /// sockets are closed. Open connections continue.
    pub(super) async fn close_except(&mut self, keep: impl Fn(&ListenAddress) -> bool) {
        let all = std::mem::take(&mut self.0);
        let (remaining, mut closing): (BTreeMap<_, _>, BTreeMap<_, _>) =
            all.into_iter().partition(|(address, _)| keep(address));
        self.0 = remaining;
        closing.values_mut().for_each(OpenListener::begin_close);
        for open in closing.into_values() {
            drop(open.duplicate);
            // A task that panicked accepts no more either.
            let _ = open.accept_task.await;
            log::info!("no longer listening on {}", open.bound);
        }
    }

    /// The sockets by name, to hand over.
    pub(super) fn duplicates(&self) -> impl Iterator<Item = (String, &OwnedFd)> {
        self.0
            .iter()
            .map(|(address, open)| (open.handover_name(address), &open.duplicate))
    }
}
