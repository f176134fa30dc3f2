//! The sockets of the process: the clients' listeners, which come and go, and the operators' doors.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::control_socket;
use super::pingora_setup::PingoraProxy;
use crate::admin::{Access, AdminApp, AppState};
use crate::config::{self, Config, ListenAddress};
use crate::downstream::ConnectionLimit;
use crate::downstream::listener::{BindError, ConnectionConfig, Listener, bind, unix};
use crate::lifecycle::BoundAddress;
use crate::snapshot::Snapshot;
use crate::telemetry::Telemetry;

/// Listening sockets that another process handed over, by name: what nobody takes is closed.
pub(super) type InheritedSockets = BTreeMap<String, OwnedFd>;

/// The name under which the control socket is handed over; other sockets have their address.
pub(super) const CONTROL_NAME: &str = "control";
/// What a listener's address is prefixed with where the service manager keeps the socket, too.
pub(super) const SHARED_PREFIX: &str = "shared ";
/// What the admin socket's address is prefixed with.
pub(super) const ADMIN_PREFIX: &str = "admin ";

/// Connections that may wait for an operator's answer.
const ADMIN_BACKLOG: u32 = 128;

/// A listener that is bound and does not accept yet.
#[derive(Debug)]
pub(super) struct PreparedListener {
    config: config::ListenerConfig,
    listener: Listener,
    duplicate: OwnedFd,
    /// That of a Unix socket which was just bound: where it does not come to be served, it goes.
    file: Option<unix::SocketFile>,
    shared: bool,
}

/// The listeners of `config` that `open` does not have: taken from `inherited`, else bound.
///
/// # Errors
/// The first one that cannot be had; those before it are closed again.
pub(super) fn prepare_listeners(
    config: &Config,
    telemetry: &Telemetry,
    open: &Listeners,
    inherited: &mut InheritedSockets,
) -> Result<Vec<PreparedListener>, BindError> {
    open.check_options(config)?;
    let missing = config.listeners.iter();
    let missing = missing.filter(|written| !open.contains(&written.address));
    missing
        .map(|written| prepare_listener(written, telemetry, inherited))
        .collect()
}

fn prepare_listener(
    written: &config::ListenerConfig,
    telemetry: &Telemetry,
    inherited: &mut InheritedSockets,
) -> Result<PreparedListener, BindError> {
    let name = written.address.to_string();
    let metrics = telemetry.metrics.listener(&name);
    let kept = inherited.remove(&format!("{SHARED_PREFIX}{name}"));
    let shared = kept.is_some();
    let (listener, file) = match kept.or_else(|| inherited.remove(&name)) {
        Some(socket) => (Listener::adopt(written, socket, shared, metrics)?, None),
        None => (
            Listener::bind(written, metrics)?,
            owned_socket_file(&written.address),
        ),
    };
    // What waits when we close it is for whoever the service manager starts next.
    listener.handed_over().store(shared, Ordering::SeqCst);
    Ok(PreparedListener {
        config: written.clone(),
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

/// By which a listener's connections are served: those of the configuration in force.
fn connection_config(
    snapshot: &Arc<ArcSwap<Snapshot>>,
    address: &ListenAddress,
) -> impl Fn() -> ConnectionConfig + Send + Sync + use<> {
    let (snapshot, address) = (Arc::clone(snapshot), address.clone());
    move || {
        let snapshot = snapshot.load();
        ConnectionConfig {
            limits: snapshot.config.downstream,
            proxy_protocol: snapshot.proxy_protocol.get(&address).cloned(),
            tls: snapshot.tls.get(&address).cloned(),
            h2c: snapshot.config.allows_h2c(&address),
        }
    }
}

/// The clients' listeners that accept.
#[derive(Debug, Default)]
pub(super) struct Listeners(BTreeMap<ListenAddress, OpenListener>);

#[derive(Debug)]
struct OpenListener {
    bound: String,
    /// Of a Unix socket, where it is ours to remove.
    file: Option<unix::SocketFile>,
    /// Of the same socket; handed over in an upgrade.
    duplicate: OwnedFd,
    shared: bool,
    handed_over: Arc<AtomicBool>,
    stop: watch::Sender<bool>,
    accept_task: JoinHandle<()>,
}

impl OpenListener {
    /// Under which it is handed over.
    fn handover_name(&self, address: &ListenAddress) -> String {
        let prefix = if self.shared { SHARED_PREFIX } else { "" };
        format!("{prefix}{address}")
    }
}

impl Listeners {
    /// Starts to accept.
    pub(super) fn open(
        &mut self,
        prepared: Vec<PreparedListener>,
        subject: &Arc<AppState>,
        proxy: &Arc<PingoraProxy>,
    ) {
        for PreparedListener {
            config: written,
            listener,
            duplicate,
            file,
            shared,
        } in prepared
        {
            // Not before: until now another process may have been the one to serve from it.
            bind::set_options(&duplicate, &written);
            let (stop, stopped) = watch::channel(false);
            let terms = connection_config(&subject.snapshot, &written.address);
            let gate = Arc::clone(&subject.conn_limit);
            let open = OpenListener {
                bound: listener.display_address(),
                file: if shared {
                    None
                } else {
                    file.or_else(|| owned_socket_file(&written.address))
                },
                duplicate,
                shared,
                handed_over: listener.handed_over(),
                stop,
                accept_task: tokio::spawn(listener.run(Arc::clone(proxy), gate, terms, stopped)),
            };
            self.0.insert(written.address, open);
        }
    }

    /// Whether those that stay can be as `config` has them.
    fn check_options(&self, config: &Config) -> Result<(), BindError> {
        for written in &config.listeners {
            if let Some(open) = self.0.get(&written.address) {
                bind::check_rebind(&open.duplicate, written, open.shared)?;
            }
        }
        Ok(())
    }

    /// Gives one that stays the options that a socket takes while it listens.
    pub(super) fn set_options(&self, written: &config::ListenerConfig) {
        if let Some(open) = self.0.get(&written.address) {
            bind::set_options(&open.duplicate, written);
        }
    }

    /// Whether this address, as configured, is listened on.
    pub(super) fn contains(&self, address: &ListenAddress) -> bool {
        self.0.contains_key(address)
    }

    /// Where clients connect.
    pub(super) fn addresses(&self) -> Vec<BoundAddress> {
        let address = |(configured, open): (&ListenAddress, &OpenListener)| BoundAddress {
            configured: configured.to_string(),
            bound: open.bound.clone(),
        };
        self.0.iter().map(address).collect()
    }

    /// Another process accepts from the sockets of these names: they are left to it, with what waits
    /// there. What waits at the others is ours to take.
    pub(super) async fn hand_over(&mut self, kept: &[String]) {
        let mut ours = Vec::new();
        for (address, open) in &mut self.0 {
            if kept.contains(&open.handover_name(address)) {
                open.handed_over.store(true, Ordering::SeqCst);
                if let Some(file) = open.file.take() {
                    file.keep_file();
                }
            } else {
                ours.push(address.clone());
            }
        }
        self.close_except(|address| ours.contains(address)).await;
    }

    /// Stops accepting on every address that `keep` does not want, on all of them at once; those
    /// connections drain. Ends when their sockets are closed.
    pub(super) async fn close_except(&mut self, keep: impl Fn(&ListenAddress) -> bool) {
        let all = std::mem::take(&mut self.0);
        let (kept, mut gone): (BTreeMap<_, _>, BTreeMap<_, _>) =
            all.into_iter().partition(|(address, _)| keep(address));
        self.0 = kept;
        for open in gone.values_mut() {
            // Whoever comes from here on finds nobody, instead of waiting in vain.
            open.file = None;
            open.stop.send_replace(true);
        }
        for open in gone.into_values() {
            drop(open.duplicate);
            // One that panicked accepts no more either.
            let _ = open.accept_task.await;
            log::info!("no longer listening on {}", open.bound);
        }
    }

    /// The sockets, to hand over.
    pub(super) fn duplicates(&self) -> impl Iterator<Item = (String, &OwnedFd)> {
        self.0
            .iter()
            .map(|(address, open)| (open.handover_name(address), &open.duplicate))
    }
}

/// The operators' sockets: the admin address and the control socket. Nobody is answered yet.
#[derive(Debug)]
pub(super) struct AdminSockets {
    sockets: Vec<AdminSocket>,
    admin_address: Option<SocketAddr>,
    control_path: PathBuf,
}

#[derive(Debug)]
struct AdminSocket {
    /// Under which it is handed over.
    name: String,
    listener: Listener,
    duplicate: OwnedFd,
    access: Access,
}

/// The operators' sockets in use; none, before they are opened.
#[derive(Debug)]
pub(super) struct OpenAdminSockets {
    sockets: Vec<OpenAdminSocket>,
    /// The operators' connections.
    conn_limit: Arc<ConnectionLimit>,
    stop: watch::Sender<bool>,
    control_path: PathBuf,
    /// That of the control socket; `None`: it was handed over.
    control_file: Option<unix::SocketFile>,
}

#[derive(Debug)]
struct OpenAdminSocket {
    name: String,
    /// Of the same socket; handed over in an upgrade.
    duplicate: OwnedFd,
    handed_over: Arc<AtomicBool>,
    accept_task: JoinHandle<()>,
}

impl AdminSockets {
    /// Takes them from `inherited`, else binds them.
    pub(super) fn bind(
        config: &Config,
        telemetry: &Telemetry,
        inherited: &mut InheritedSockets,
    ) -> Result<Self, super::Error> {
        let mut doors = Vec::new();
        if let Some(admin) = &config.admin {
            doors.push(bind_admin(admin, telemetry, inherited)?);
        }
        let admin = doors.first().and_then(|door| door.listener.local_addr());
        let path = config
            .control
            .clone()
            .unwrap_or_else(control_socket::default_control_path);
        let name = path.display().to_string();
        let socket = bind_control(&path, inherited)?;
        let listener = Listener::from_unix(&name, socket, telemetry.metrics.listener(CONTROL_NAME));
        doors.push(AdminSocket {
            name: format!("{CONTROL_NAME} {name}"),
            duplicate: listener.duplicate_fd()?,
            listener,
            access: Access::Control,
        });
        Ok(Self {
            sockets: doors,
            admin_address: admin,
            control_path: path,
        })
    }

    /// Where the admin server is bound.
    pub(super) fn admin_address(&self) -> Option<SocketAddr> {
        self.admin_address
    }

    /// Starts to answer operators.
    pub(super) fn open(self, subject: &Arc<AppState>) -> OpenAdminSockets {
        let (stop, stopped) = watch::channel(false);
        let gate = ConnectionLimit::new(None);
        let open = |door: AdminSocket| {
            let app = AdminApp::http_server(Arc::clone(subject), door.access);
            let terms = || ConnectionConfig {
                limits: config::DownstreamConfig::DEFAULT,
                proxy_protocol: None,
                tls: None,
                h2c: false,
            };
            let handed_over = door.listener.handed_over();
            let run = door
                .listener
                .run(app, Arc::clone(&gate), terms, stopped.clone());
            OpenAdminSocket {
                name: door.name,
                duplicate: door.duplicate,
                handed_over,
                accept_task: tokio::spawn(run),
            }
        };
        OpenAdminSockets {
            sockets: self.sockets.into_iter().map(open).collect(),
            conn_limit: gate,
            stop,
            control_file: unix::SocketFile::existing(&self.control_path),
            control_path: self.control_path,
        }
    }
}

impl Default for OpenAdminSockets {
    fn default() -> Self {
        Self {
            sockets: Vec::new(),
            conn_limit: ConnectionLimit::new(None),
            stop: watch::channel(false).0,
            control_path: PathBuf::new(),
            control_file: None,
        }
    }
}

impl OpenAdminSockets {
    /// The sockets, to hand over.
    pub(super) fn duplicates(&self) -> impl Iterator<Item = (String, &OwnedFd)> {
        self.sockets
            .iter()
            .map(|door| (door.name.clone(), &door.duplicate))
    }

    /// Closes them: another process answers, on those of these names and on others of its own.
    pub(super) async fn hand_over(&mut self, kept: &[String]) {
        for door in &self.sockets {
            let handed_over = kept.contains(&door.name);
            door.handed_over.store(handed_over, Ordering::SeqCst);
        }
        let name = format!("{CONTROL_NAME} {}", self.control_path.display());
        if let Some(file) = self.control_file.take_if(|_| kept.contains(&name)) {
            file.keep_file();
        }
        self.stop.send_replace(true);
        for door in self.sockets.drain(..) {
            drop(door.duplicate);
            // One that panicked accepts no more either.
            let _ = door.accept_task.await;
        }
        // Now, not when the drain is over: then the name may be another process's.
        self.remove_control_file();
    }

    /// Waits for the answers that are on their way to operators, for up to a second.
    pub(super) async fn finish_responses(&self) {
        self.stop.send_replace(true);
        let _ =
            tokio::time::timeout(Duration::from_secs(1), self.conn_limit.wait_until_empty()).await;
    }

    /// Removes the control socket's file, where it is still ours.
    pub(super) fn remove_control_file(&mut self) {
        self.control_file = None;
    }
}

fn bind_admin(
    admin: &config::AdminConfig,
    telemetry: &Telemetry,
    inherited: &mut InheritedSockets,
) -> Result<AdminSocket, BindError> {
    let metrics = telemetry.metrics.listener("admin");
    let name = format!("{ADMIN_PREFIX}{}", admin.address);
    let written = config::ListenerConfig::plain(admin.address, ADMIN_BACKLOG);
    let listener = match inherited.remove(&name) {
        Some(socket) => Listener::adopt(&written, socket, false, metrics)?,
        None => Listener::bind(&written, metrics)?,
    };
    Ok(AdminSocket {
        name,
        duplicate: listener.duplicate_fd()?,
        listener,
        access: Access::Network {
            token: admin.token.clone(),
        },
    })
}

fn bind_control(
    path: &Path,
    inherited: &mut InheritedSockets,
) -> Result<UnixListener, control_socket::Error> {
    let adopt = |socket: OwnedFd| {
        let socket = std::os::unix::net::UnixListener::from(socket);
        socket.set_nonblocking(true)?;
        UnixListener::from_std(socket)
    };
    match inherited.remove(&format!("{CONTROL_NAME} {}", path.display())) {
        Some(socket) => adopt(socket).map_err(|source| control_socket::Error::Bind {
            path: path.to_owned(),
            source,
        }),
        None => control_socket::bind_control_socket(path),
    }
}
