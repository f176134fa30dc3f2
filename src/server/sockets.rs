//! The sockets of the process: the clients' listeners, which come and go, and the operators' doors.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pingora_proxy::HttpProxy;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::control;
use crate::admin::{Access, Admin, Subject};
use crate::config::{self, Config};
use crate::connection::Gate;
use crate::lifecycle::BoundAddress;
use crate::listener::{BindError, Listener};
use crate::proxy::Edge;
use crate::telemetry::Telemetry;

/// Listening sockets that another process handed over, by name: what nobody takes is closed.
pub(super) type Inherited = BTreeMap<String, OwnedFd>;

/// The name under which the control socket is handed over; other sockets have their address.
pub(super) const CONTROL: &str = "control";
/// What a listener's address is prefixed with where the service manager keeps the socket, too.
pub(super) const SHARED: &str = "shared ";
/// What the admin socket's address is prefixed with.
pub(super) const ADMIN: &str = "admin ";

/// Connections that may wait for an operator's answer.
const DOOR_BACKLOG: u32 = 128;

/// A listener that is bound and does not accept yet.
#[derive(Debug)]
pub(super) struct Prepared {
    address: SocketAddr,
    listener: Listener,
    duplicate: OwnedFd,
    shared: bool,
}

/// The listeners of `config` that `open` does not have: taken from `inherited`, else bound.
///
/// # Errors
/// The first one that cannot be had; those before it are closed again.
pub(super) fn prepare(
    config: &Config,
    telemetry: &Telemetry,
    open: &Listeners,
    inherited: &mut Inherited,
) -> Result<Vec<Prepared>, BindError> {
    let missing = config
        .listeners
        .iter()
        .filter(|written| !open.has(written.address));
    missing
        .map(|written| {
            let address = written.address;
            let metrics = telemetry.metrics.listener(&address.to_string());
            let kept = inherited.remove(&format!("{SHARED}{address}"));
            let shared = kept.is_some();
            let adopted = kept
                .or_else(|| inherited.remove(&address.to_string()))
                .and_then(|socket| Listener::adopt_tcp(address, socket, metrics.clone()).ok());
            let listener = match adopted {
                Some(listener) => listener,
                None => Listener::tcp(address, written.backlog, metrics)?,
            };
            // What waits when we close it is for whoever the service manager starts next.
            listener.handed_over().store(shared, Ordering::SeqCst);
            let duplicate = listener.duplicate()?;
            Ok(Prepared {
                address,
                listener,
                duplicate,
                shared,
            })
        })
        .collect()
}

/// The clients' listeners that accept.
#[derive(Debug, Default)]
pub(super) struct Listeners(BTreeMap<SocketAddr, Open>);

#[derive(Debug)]
struct Open {
    bound: SocketAddr,
    /// Of the same socket; handed over in an upgrade.
    duplicate: OwnedFd,
    shared: bool,
    handed_over: Arc<AtomicBool>,
    stop: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl Open {
    /// Under which it is handed over.
    fn name(&self, address: &SocketAddr) -> String {
        let prefix = if self.shared { SHARED } else { "" };
        format!("{prefix}{address}")
    }
}

impl Listeners {
    /// Starts to accept.
    pub(super) fn open(
        &mut self,
        prepared: Vec<Prepared>,
        subject: &Arc<Subject>,
        proxy: &Arc<HttpProxy<Edge>>,
    ) {
        for Prepared {
            address,
            listener,
            duplicate,
            shared,
        } in prepared
        {
            let bound = listener.bound().unwrap_or(address);
            let (stop, stopped) = watch::channel(false);
            let snapshot = Arc::clone(&subject.snapshot);
            let limits = move || snapshot.load().config.downstream;
            let gate = Arc::clone(&subject.gate);
            let handed_over = listener.handed_over();
            let accepting = tokio::spawn(listener.run(Arc::clone(proxy), gate, limits, stopped));
            self.0.insert(
                address,
                Open {
                    bound,
                    duplicate,
                    shared,
                    handed_over,
                    stop,
                    accepting,
                },
            );
        }
    }

    /// Whether this address, as configured, is listened on.
    pub(super) fn has(&self, address: SocketAddr) -> bool {
        self.0.contains_key(&address)
    }

    /// Where clients connect.
    pub(super) fn addresses(&self) -> Vec<BoundAddress> {
        let address = |(&configured, open): (&SocketAddr, &Open)| BoundAddress {
            configured,
            bound: open.bound,
        };
        self.0.iter().map(address).collect()
    }

    /// Another process accepts from the same sockets from now on: closing them must not disturb it.
    pub(super) fn hand_over(&self) {
        for open in self.0.values() {
            open.handed_over.store(true, Ordering::SeqCst);
        }
    }

    /// Stops accepting on every address that `keep` does not want; those connections drain. Ends
    /// when their sockets are closed.
    pub(super) async fn close(&mut self, keep: impl Fn(SocketAddr) -> bool) {
        let gone: Vec<_> = self
            .0
            .keys()
            .copied()
            .filter(|&address| !keep(address))
            .collect();
        for address in gone {
            let Some(open) = self.0.remove(&address) else {
                continue;
            };
            drop(open.duplicate);
            open.stop.send_replace(true);
            // One that panicked accepts no more either.
            let _ = open.accepting.await;
            log::info!("no longer listening on {}", open.bound);
        }
    }

    /// The sockets, to hand over.
    pub(super) fn duplicates(&self) -> impl Iterator<Item = (String, &OwnedFd)> {
        self.0
            .iter()
            .map(|(address, open)| (open.name(address), &open.duplicate))
    }
}

/// The operators' sockets: the admin address and the control socket.
#[derive(Debug)]
pub(super) struct Doors {
    admin: Option<(Listener, SocketAddr, Access)>,
    control: Listener,
    path: PathBuf,
}

/// The operators' sockets in use; none, before they are opened.
#[derive(Debug)]
pub(super) struct OpenDoors {
    sockets: Vec<(String, OwnedFd)>,
    /// The operators' connections.
    gate: Arc<Gate>,
    stop: watch::Sender<bool>,
    accepting: Vec<JoinHandle<()>>,
    handed_over: Vec<Arc<AtomicBool>>,
    path: PathBuf,
    /// Of the control socket's file, which is ours to remove; `None`: the socket was handed over.
    identity: Option<(u64, u64)>,
}

impl Doors {
    /// Takes them from `inherited`, else binds them.
    pub(super) fn bind(
        config: &Config,
        telemetry: &Telemetry,
        inherited: &mut Inherited,
    ) -> Result<Self, super::Error> {
        let admin = match &config.admin {
            Some(admin) => Some(bind_admin(admin, telemetry, inherited)?),
            None => None,
        };
        let path = config.control.clone().unwrap_or_else(control::default_path);
        let socket = bind_control(&path, inherited)?;
        let name = path.display().to_string();
        let control = Listener::unix(&name, socket, telemetry.metrics.listener(CONTROL));
        Ok(Self {
            admin,
            control,
            path,
        })
    }

    /// Where the admin server is bound.
    pub(super) fn admin_address(&self) -> Option<SocketAddr> {
        self.admin
            .as_ref()
            .and_then(|(listener, ..)| listener.bound())
    }

    /// Starts to answer operators.
    pub(super) fn open(self, subject: &Arc<Subject>) -> Result<OpenDoors, BindError> {
        let (stop, stopped) = watch::channel(false);
        let mut open = OpenDoors {
            stop,
            identity: control::identity(&self.path),
            path: self.path,
            ..OpenDoors::default()
        };
        let admin = self
            .admin
            .map(|(listener, address, access)| (format!("{ADMIN}{address}"), listener, access));
        let control = (
            format!("{CONTROL} {}", open.path.display()),
            self.control,
            Access::Control,
        );
        for (name, listener, access) in admin.into_iter().chain([control]) {
            open.sockets.push((name, listener.duplicate()?));
            open.handed_over.push(listener.handed_over());
            let app = Admin::serve(Arc::clone(subject), access);
            let limits = config::Downstream::DEFAULT;
            let accepting =
                listener.run(app, Arc::clone(&open.gate), move || limits, stopped.clone());
            open.accepting.push(tokio::spawn(accepting));
        }
        Ok(open)
    }
}

impl Default for OpenDoors {
    fn default() -> Self {
        Self {
            sockets: Vec::new(),
            gate: Gate::new(None),
            stop: watch::channel(false).0,
            accepting: Vec::new(),
            handed_over: Vec::new(),
            path: PathBuf::new(),
            identity: None,
        }
    }
}

impl OpenDoors {
    /// The sockets, to hand over.
    pub(super) fn duplicates(&self) -> impl Iterator<Item = (String, &OwnedFd)> {
        self.sockets
            .iter()
            .map(|(name, socket)| (name.clone(), socket))
    }

    /// Closes them: another process answers on the same sockets now.
    pub(super) async fn leave(&mut self) {
        for handed_over in &self.handed_over {
            handed_over.store(true, Ordering::SeqCst);
        }
        self.sockets.clear();
        self.stop.send_replace(true);
        for accepting in self.accepting.drain(..) {
            // One that panicked accepts no more either.
            let _ = accepting.await;
        }
        self.identity = None;
    }

    /// Waits for the answers that are on their way to operators, for up to a second.
    pub(super) async fn settle(&self) {
        self.stop.send_replace(true);
        let _ = tokio::time::timeout(Duration::from_secs(1), self.gate.empty()).await;
    }

    /// Removes the control socket's file, where it is still ours.
    pub(super) fn remove_control(&self) {
        // Another instance may have put its own in the place of one that somebody removed.
        if self.identity.is_some() && self.identity == control::identity(&self.path) {
            control::remove(&self.path);
        }
    }
}

fn bind_admin(
    admin: &config::Admin,
    telemetry: &Telemetry,
    inherited: &mut Inherited,
) -> Result<(Listener, SocketAddr, Access), BindError> {
    let metrics = telemetry.metrics.listener("admin");
    let adopted = inherited
        .remove(&format!("{ADMIN}{}", admin.address))
        .and_then(|socket| Listener::adopt_tcp(admin.address, socket, metrics.clone()).ok());
    let listener = match adopted {
        Some(listener) => listener,
        None => Listener::tcp(admin.address, DOOR_BACKLOG, metrics)?,
    };
    Ok((
        listener,
        admin.address,
        Access::Network {
            token: admin.token.clone(),
        },
    ))
}

fn bind_control(path: &Path, inherited: &mut Inherited) -> Result<UnixListener, control::Error> {
    let adopt = |socket: OwnedFd| {
        let socket = std::os::unix::net::UnixListener::from(socket);
        socket.set_nonblocking(true)?;
        UnixListener::from_std(socket)
    };
    match inherited.remove(&format!("{CONTROL} {}", path.display())) {
        Some(socket) => adopt(socket).map_err(|source| control::Error::Bind {
            path: path.to_owned(),
            source,
        }),
        None => control::bind(path),
    }
}
