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
use crate::listener::{BindError, Listener, Terms};
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
    backlog: u32,
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
                backlog: written.backlog,
                shared,
            })
        })
        .collect()
}

/// As configured, also for a socket that has been listening already (`listen(2)` may be called again).
pub(super) fn set_backlog(socket: &OwnedFd, address: SocketAddr, backlog: u32) {
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    if let Err(error) = rustix::net::listen(socket, backlog) {
        log::warn!("the backlog of {address} cannot be set: {error}");
    }
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
            backlog,
            shared,
        } in prepared
        {
            // Not before: until now another process may have been the one to serve from it.
            set_backlog(&duplicate, address, backlog);
            let bound = listener.bound().unwrap_or(address);
            let (stop, stopped) = watch::channel(false);
            let snapshot = Arc::clone(&subject.snapshot);
            let terms = move || {
                let snapshot = snapshot.load();
                Terms {
                    limits: snapshot.config.downstream,
                    tls: snapshot.tls.get(&address).cloned(),
                    h2c: snapshot.config.takes_h2c(address),
                }
            };
            let gate = Arc::clone(&subject.gate);
            let handed_over = listener.handed_over();
            let accepting = tokio::spawn(listener.run(Arc::clone(proxy), gate, terms, stopped));
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

    /// Another process accepts from the sockets of these names: they are left to it, with what waits
    /// there. What waits at the others is ours to take.
    pub(super) async fn hand_over(&mut self, kept: &[String]) {
        let mut ours = Vec::new();
        for (&address, open) in &self.0 {
            if kept.contains(&open.name(&address)) {
                open.handed_over.store(true, Ordering::SeqCst);
            } else {
                ours.push(address);
            }
        }
        self.close(|address| ours.contains(&address)).await;
    }

    /// Stops accepting on every address that `keep` does not want, on all of them at once; those
    /// connections drain. Ends when their sockets are closed.
    pub(super) async fn close(&mut self, keep: impl Fn(SocketAddr) -> bool) {
        let all = std::mem::take(&mut self.0);
        let (kept, gone): (BTreeMap<_, _>, BTreeMap<_, _>) =
            all.into_iter().partition(|&(address, _)| keep(address));
        self.0 = kept;
        for open in gone.values() {
            open.stop.send_replace(true);
        }
        for open in gone.into_values() {
            drop(open.duplicate);
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

/// The operators' sockets: the admin address and the control socket. Nobody is answered yet.
#[derive(Debug)]
pub(super) struct Doors {
    closed: Vec<Door>,
    admin: Option<SocketAddr>,
    path: PathBuf,
}

#[derive(Debug)]
struct Door {
    /// Under which it is handed over.
    name: String,
    listener: Listener,
    duplicate: OwnedFd,
    access: Access,
}

/// The operators' sockets in use; none, before they are opened.
#[derive(Debug)]
pub(super) struct OpenDoors {
    open: Vec<OpenDoor>,
    /// The operators' connections.
    gate: Arc<Gate>,
    stop: watch::Sender<bool>,
    path: PathBuf,
    /// Of the control socket's file, which is ours to remove; `None`: the socket was handed over.
    identity: Option<(u64, u64)>,
}

#[derive(Debug)]
struct OpenDoor {
    name: String,
    /// Of the same socket; handed over in an upgrade.
    duplicate: OwnedFd,
    handed_over: Arc<AtomicBool>,
    accepting: JoinHandle<()>,
}

impl Doors {
    /// Takes them from `inherited`, else binds them.
    pub(super) fn bind(
        config: &Config,
        telemetry: &Telemetry,
        inherited: &mut Inherited,
    ) -> Result<Self, super::Error> {
        let mut doors = Vec::new();
        if let Some(admin) = &config.admin {
            doors.push(bind_admin(admin, telemetry, inherited)?);
        }
        let admin = doors.first().and_then(|door| door.listener.bound());
        let path = config.control.clone().unwrap_or_else(control::default_path);
        let name = path.display().to_string();
        let socket = bind_control(&path, inherited)?;
        let listener = Listener::unix(&name, socket, telemetry.metrics.listener(CONTROL));
        doors.push(Door {
            name: format!("{CONTROL} {name}"),
            duplicate: listener.duplicate()?,
            listener,
            access: Access::Control,
        });
        Ok(Self {
            closed: doors,
            admin,
            path,
        })
    }

    /// Where the admin server is bound.
    pub(super) fn admin_address(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Starts to answer operators.
    pub(super) fn open(self, subject: &Arc<Subject>) -> OpenDoors {
        let (stop, stopped) = watch::channel(false);
        let gate = Gate::new(None);
        let open = |door: Door| {
            let app = Admin::serve(Arc::clone(subject), door.access);
            let terms = || Terms {
                limits: config::Downstream::DEFAULT,
                tls: None,
                h2c: false,
            };
            let handed_over = door.listener.handed_over();
            let run = door
                .listener
                .run(app, Arc::clone(&gate), terms, stopped.clone());
            OpenDoor {
                name: door.name,
                duplicate: door.duplicate,
                handed_over,
                accepting: tokio::spawn(run),
            }
        };
        OpenDoors {
            open: self.closed.into_iter().map(open).collect(),
            gate,
            stop,
            identity: control::identity(&self.path),
            path: self.path,
        }
    }
}

impl Default for OpenDoors {
    fn default() -> Self {
        Self {
            open: Vec::new(),
            gate: Gate::new(None),
            stop: watch::channel(false).0,
            path: PathBuf::new(),
            identity: None,
        }
    }
}

impl OpenDoors {
    /// The sockets, to hand over.
    pub(super) fn duplicates(&self) -> impl Iterator<Item = (String, &OwnedFd)> {
        self.open
            .iter()
            .map(|door| (door.name.clone(), &door.duplicate))
    }

    /// Closes them: another process answers, on those of these names and on others of its own.
    pub(super) async fn leave(&mut self, kept: &[String]) {
        for door in &self.open {
            let handed_over = kept.contains(&door.name);
            door.handed_over.store(handed_over, Ordering::SeqCst);
        }
        if kept.contains(&format!("{CONTROL} {}", self.path.display())) {
            self.identity = None;
        }
        self.stop.send_replace(true);
        for door in self.open.drain(..) {
            drop(door.duplicate);
            // One that panicked accepts no more either.
            let _ = door.accepting.await;
        }
        // Now, not when the drain is over: then the name may be another process's.
        self.remove_control();
    }

    /// Waits for the answers that are on their way to operators, for up to a second.
    pub(super) async fn settle(&self) {
        self.stop.send_replace(true);
        let _ = tokio::time::timeout(Duration::from_secs(1), self.gate.empty()).await;
    }

    /// Removes the control socket's file, where it is still ours.
    pub(super) fn remove_control(&mut self) {
        let identity = self.identity.take();
        // Another instance may have put its own in the place of one that somebody removed.
        if identity.is_some() && identity == control::identity(&self.path) {
            control::remove(&self.path);
        }
    }
}

fn bind_admin(
    admin: &config::Admin,
    telemetry: &Telemetry,
    inherited: &mut Inherited,
) -> Result<Door, BindError> {
    let metrics = telemetry.metrics.listener("admin");
    let name = format!("{ADMIN}{}", admin.address);
    let adopted = inherited
        .remove(&name)
        .and_then(|socket| Listener::adopt_tcp(admin.address, socket, metrics.clone()).ok());
    let listener = match adopted {
        Some(listener) => listener,
        None => Listener::tcp(admin.address, DOOR_BACKLOG, metrics)?,
    };
    Ok(Door {
        name,
        duplicate: listener.duplicate()?,
        listener,
        access: Access::Network {
            token: admin.token.clone(),
        },
    })
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
