//! The sockets of operators: the admin address and the control socket.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::control_socket;
use super::error::Error;
use super::inherited_sockets::{ADMIN_PREFIX, CONTROL_NAME, InheritedSockets};
use crate::admin::{Access, AdminApp, AppState};
use crate::config::{self, Config};
use crate::downstream::ConnectionLimit;
use crate::downstream::listener::{BindError, ConnectionConfig, Listener, unix};
use crate::telemetry::Telemetry;

/// The admin address and the control socket, bound; requests are not answered yet.
#[derive(Debug)]
pub(super) struct AdminSockets {
    sockets: Vec<AdminSocket>,
    admin_address: Option<SocketAddr>,
    control_path: PathBuf,
}

#[derive(Debug)]
struct AdminSocket {
    /// The name in a hot restart.
    name: String,
    listener: Listener,
    duplicate: OwnedFd,
    access: Access,
}

/// The admin address and the control socket, answering requests. By default none is open.
#[derive(Debug)]
pub(super) struct OpenAdminSockets {
    sockets: Vec<OpenAdminSocket>,
    /// Counts the connections of operators; without a limit.
    conn_limit: Arc<ConnectionLimit>,
    stop: watch::Sender<bool>,
    control_path: PathBuf,
    /// The file of the control socket; `None`: it was handed over, or is removed.
    control_file: Option<unix::SocketFile>,
}

#[derive(Debug)]
struct OpenAdminSocket {
    name: String,
    /// A second descriptor of the socket, to hand over in an upgrade.
    duplicate: OwnedFd,
    handed_over: Arc<AtomicBool>,
    accept_task: JoinHandle<()>,
}

impl AdminSockets {
    /// Takes each socket from `inherited`, else binds it.
    pub(super) fn bind(
        config: &Config,
        telemetry: &Telemetry,
        inherited: &mut InheritedSockets,
    ) -> Result<Self, Error> {
        let mut sockets = Vec::new();
        if let Some(admin) = &config.admin {
            sockets.push(bind_admin(admin, telemetry, inherited)?);
        }
        let admin_address = sockets
            .first()
            .and_then(|socket: &AdminSocket| socket.listener.local_addr());
        let path = match &config.control {
            Some(path) => path.clone(),
            None => control_socket::default_control_path()?,
        };
        let name = path.display().to_string();
        let socket = bind_control(&path, inherited)?;
        let listener = Listener::from_unix(&name, socket, telemetry.metrics.listener(CONTROL_NAME));
        sockets.push(AdminSocket {
            name: format!("{CONTROL_NAME} {name}"),
            duplicate: listener.duplicate_fd()?,
            listener,
            access: Access::Control,
        });
        Ok(Self {
            sockets,
            admin_address,
            control_path: path,
        })
    }

    /// The address of the admin server, with the port that the kernel chose; `None`: it is off.
    pub(super) fn admin_address(&self) -> Option<SocketAddr> {
        self.admin_address
    }

    /// Starts to answer requests. Must be called inside a Tokio runtime.
    pub(super) fn open(self, app_state: &Arc<AppState>) -> OpenAdminSockets {
        let (stop, stopped) = watch::channel(false);
        let conn_limit = ConnectionLimit::new(None);
        let open = |socket: AdminSocket| {
            let app = AdminApp::http_server(Arc::clone(app_state), socket.access);
            let connection_config = || ConnectionConfig {
                limits: config::DownstreamConfig::DEFAULT,
                proxy_protocol: None,
                tls: None,
                h2c: false,
                responder: None,
            };
            let handed_over = socket.listener.handed_over();
            let accept = socket.listener.run(
                app,
                Arc::clone(&conn_limit),
                connection_config,
                stopped.clone(),
            );
            OpenAdminSocket {
                name: socket.name,
                duplicate: socket.duplicate,
                handed_over,
                accept_task: tokio::spawn(accept),
            }
        };
        OpenAdminSockets {
            sockets: self.sockets.into_iter().map(open).collect(),
            conn_limit,
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
    /// The sockets by name, to hand over.
    pub(super) fn duplicates(&self) -> impl Iterator<Item = (String, &OwnedFd)> {
        self.sockets
            .iter()
            .map(|socket| (socket.name.clone(), &socket.duplicate))
    }

    /// Closes all sockets: the new process answers, on those it has adopted and on its own.
    pub(super) async fn hand_over(&mut self, adopted: &[String]) {
        for socket in &self.sockets {
            let handed_over = adopted.contains(&socket.name);
            socket.handed_over.store(handed_over, Ordering::SeqCst);
        }
        let name = format!("{CONTROL_NAME} {}", self.control_path.display());
        if let Some(file) = self.control_file.take_if(|_| adopted.contains(&name)) {
            file.keep_file();
        }
        self.stop.send_replace(true);
        for socket in self.sockets.drain(..) {
            drop(socket.duplicate);
            // A task that panicked accepts no more either.
            let _ = socket.accept_task.await;
        }
        // Not at the end of the drain: another process may then have a socket of that name.
        self.remove_control_file();
    }

    /// Stops accepting, and waits up to a second for responses that are being sent.
    pub(super) async fn finish_responses(&self) {
        self.stop.send_replace(true);
        let _ =
            tokio::time::timeout(Duration::from_secs(1), self.conn_limit.wait_until_empty()).await;
    }

    /// Removes the file of the control socket, unless the new process has adopted it.
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
    let config = config::ListenerConfig::plain(admin.address, ADMIN_BACKLOG);
    let listener = match inherited.remove(&name) {
        Some(socket) => Listener::adopt(&config, socket, false, metrics)?,
        None => Listener::bind(&config, metrics)?,
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

/// Connections that may wait in the queue of the admin address.
const ADMIN_BACKLOG: u32 = 128;
