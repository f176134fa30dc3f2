//! The assembly: from a configuration to a running proxy, and to its end.
//!
//! ```text
//!  config ─► names looked up ─► snapshot ─► sockets bound ─► first probes ─► accept ─► serve
//!                                                │ any failure until here: said, exit 1
//!                                                ▼
//!                    TERM, INT: stop accepting, drain, exit ◄── a second one: exit at once
//! ```
//!
//! No Pingora `Server`: its shutdown sleeps a fixed time, its listeners fail inside their tasks, and
//! each of its services has a runtime of its own. Here is one runtime, and one `HttpProxy` with one
//! pool of upstream connections.

mod control;
mod drain;
mod lookup;
mod signals;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use pingora_core::server::configuration::ServerConf;
use pingora_proxy::{HttpProxy, http_proxy};
use tokio::sync::watch;

pub use self::control::default_path as default_control_path;
use self::drain::Drain;
use self::signals::Signals;
use crate::admin::{Access, Admin, Subject};
use crate::config::{self, Config};
use crate::connection::Gate;
use crate::lifecycle::{Addresses, BoundAddress, Lifecycle, Stage};
use crate::listener::{BindError, Listener};
use crate::probe::{Prober, Probes};
use crate::proxy::Edge;
use crate::snapshot::{self, Snapshot};
use crate::telemetry::{self, Telemetry};

/// Why the proxy could not start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The runtime's threads could not be started.
    #[error("cannot start the worker threads: {0}")]
    Runtime(std::io::Error),
    /// A peer's name has no address.
    #[error(transparent)]
    Lookup(#[from] lookup::Error),
    /// The configuration could not be put in force.
    #[error(transparent)]
    Snapshot(#[from] snapshot::Error),
    /// A listener's address cannot be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The control socket cannot be had.
    #[error(transparent)]
    Control(#[from] control::Error),
    /// The access log cannot be written.
    #[error("cannot open the access log `{path}`: {source}")]
    AccessLog {
        /// Where it should go.
        path: String,
        /// Why it cannot.
        source: std::io::Error,
    },
    /// No signal can be waited for.
    #[error("cannot wait for signals: {0}")]
    Signals(std::io::Error),
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Every connection came to its own end.
    Drained,
    /// The drain's time was over, or a second signal came; connections were cut.
    Cut,
}

/// Runs the proxy until it is told to stop.
///
/// # Errors
/// [`Error`]: nothing was served.
pub fn run(config: Config) -> Result<Ending, Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads(&config).get())
        .thread_name("clockwise")
        .enable_all()
        .build()
        .map_err(Error::Runtime)?;
    let ending = runtime.block_on(async { Server::start(config).await?.serve().await });
    // Tasks of connections that were cut are dropped here; each still writes its log line.
    runtime.shutdown_timeout(Duration::from_secs(1));
    let (ending, telemetry) = ending?;
    telemetry.close();
    Ok(ending)
}

fn threads(config: &Config) -> NonZeroUsize {
    let cores = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    config.threads.unwrap_or_else(cores)
}

/// A proxy whose sockets are bound.
struct Server {
    subject: Arc<Subject>,
    signals: Signals,
    listeners: Vec<Listener>,
    /// What answers operators, on its sockets.
    doors: Vec<(Listener, Access)>,
    control: PathBuf,
    probes: Probes,
}

impl Server {
    /// Everything that can fail, before anything is accepted.
    async fn start(config: Config) -> Result<Self, Error> {
        // First: until its handler is installed, a signal ends the process.
        let signals = Signals::install().map_err(Error::Signals)?;
        let telemetry = open_telemetry(&config)?;
        let addresses = lookup::addresses(&config).await?;
        let snapshot = Snapshot::new(config, &addresses, None, &telemetry.metrics)?;
        let config = &snapshot.config;
        let listeners = bind_listeners(config, &telemetry)?;
        let (doors, control) = bind_doors(config, &telemetry)?;
        let lifecycle = Arc::new(Lifecycle::new());
        lifecycle.set_addresses(addresses_of(config, &listeners, &doors));
        let probes = Probes::start(&snapshot, &Prober::new());
        let gate = Gate::new(config.downstream.max_connections);
        let snapshot = Arc::new(ArcSwap::from_pointee(snapshot));
        let subject = Arc::new(Subject {
            snapshot,
            telemetry,
            lifecycle,
            gate,
        });
        Ok(Self {
            subject,
            signals,
            listeners,
            doors,
            control,
            probes,
        })
    }

    /// Serves until a signal; then drains.
    async fn serve(mut self) -> Result<(Ending, Arc<Telemetry>), Error> {
        let subject = Arc::clone(&self.subject);
        // Operators are served to the very end, past the drain.
        let (_admin_stop, admin_watch) = watch::channel(false);
        for (listener, access) in std::mem::take(&mut self.doors) {
            let app = Admin::serve(Arc::clone(&subject), access);
            let limits = config::Downstream::DEFAULT;
            tokio::spawn(listener.run(app, Gate::new(None), move || limits, admin_watch.clone()));
        }
        self.first_pass().await;
        let (stop, stopped) = watch::channel(false);
        let accepting = self.accept(&stopped);
        subject.lifecycle.advance(Stage::Serving);
        announce(&subject);
        self.signals.until_stop(&subject.telemetry).await;
        let drain = Drain {
            subject: &subject,
            stop,
            accepting,
        };
        let ending = drain.run(&mut self.signals).await;
        drop(self.probes);
        control::remove(&self.control);
        Ok((ending, Arc::clone(&subject.telemetry)))
    }

    /// No request may meet a peer that nobody has asked yet: the listeners wait for the answers.
    async fn first_pass(&mut self) {
        let snapshot = self.subject.snapshot.load_full();
        let healths = snapshot
            .upstreams
            .values()
            .filter_map(|upstream| upstream.config.health.as_ref());
        let longest = healths
            .map(|health| health.timeout)
            .max()
            .unwrap_or_default();
        // Twice: with very many peers, some wait for others before they are asked.
        if !self.probes.first_pass(longest * 2).await {
            log::warn!(
                "not every peer was asked within {:?}; those left stay unknown",
                longest * 2
            );
        }
    }

    fn accept(&mut self, stopped: &watch::Receiver<bool>) -> Vec<tokio::task::JoinHandle<()>> {
        let proxy = Arc::new(new_proxy(&self.subject));
        let listeners = std::mem::take(&mut self.listeners);
        listeners
            .into_iter()
            .map(|listener| {
                let snapshot = Arc::clone(&self.subject.snapshot);
                let limits = move || snapshot.load().config.downstream;
                let gate = Arc::clone(&self.subject.gate);
                tokio::spawn(listener.run(Arc::clone(&proxy), gate, limits, stopped.clone()))
            })
            .collect()
    }
}

fn new_proxy(subject: &Subject) -> HttpProxy<Edge> {
    let config = &subject.snapshot.load().config;
    let conf = ServerConf {
        threads: threads(config).get(),
        upstream_keepalive_pool_size: config.pool_size,
        // Our own rule decides (`policy::retry`); this one is only in its way. Zero would mean that
        // nothing is proxied at all.
        max_retries: 2 * crate::upstream::MAX_ATTEMPTS,
        ..ServerConf::default()
    };
    http_proxy(
        &Arc::new(conf),
        Edge::new(
            Arc::clone(&subject.snapshot),
            Arc::clone(&subject.telemetry),
        ),
    )
}

fn bind_listeners(config: &Config, telemetry: &Telemetry) -> Result<Vec<Listener>, BindError> {
    let bind = |listener: &config::Listener| {
        let metrics = telemetry.metrics.listener(&listener.address.to_string());
        Listener::tcp(listener.address, listener.backlog, metrics)
    };
    config.listeners.iter().map(bind).collect()
}

/// Connections that may wait for an operator's answer.
const DOOR_BACKLOG: u32 = 128;

fn bind_doors(
    config: &Config,
    telemetry: &Telemetry,
) -> Result<(Vec<(Listener, Access)>, PathBuf), Error> {
    let mut doors = Vec::new();
    if let Some(admin) = &config.admin {
        let listener = Listener::tcp(
            admin.address,
            DOOR_BACKLOG,
            telemetry.metrics.listener("admin"),
        )?;
        doors.push((
            listener,
            Access::Network {
                token: admin.token.clone(),
            },
        ));
    }
    let path = config.control.clone().unwrap_or_else(control::default_path);
    let socket = control::bind(&path)?;
    let name = path.display().to_string();
    doors.push((
        Listener::unix(&name, socket, telemetry.metrics.listener("control")),
        Access::Control,
    ));
    Ok((doors, path))
}

fn addresses_of(
    config: &Config,
    listeners: &[Listener],
    doors: &[(Listener, Access)],
) -> Addresses {
    let listeners = config
        .listeners
        .iter()
        .zip(listeners)
        .filter_map(|(written, listener)| {
            Some(BoundAddress {
                configured: written.address,
                bound: listener.bound()?,
            })
        });
    Addresses {
        listeners: listeners.collect(),
        admin: doors.iter().find_map(|(listener, _)| listener.bound()),
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
