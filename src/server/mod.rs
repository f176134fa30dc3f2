//! The assembly: from a configuration to a running proxy, through its changes, to its end.
//!
//! ```text
//!  start     names looked up ─► snapshot ─► sockets bound, or taken over ─► first probes ─► accept
//!                                     │ any failure until here: said, exit 1 (a predecessor serves on)
//!  instance  serves, and carries out orders, one at a time:
//!    reload      parse ─► resolve ─► bind ─► first probes ─► one swap       a failure changes nothing
//!    upgrade     check ─► spawn ─► hand over ─► ready ─► go ─► drain         a failure changes nothing
//!    TERM, INT   drain ─► exit                                             a second one: exit at once
//! ```
//!
//! No Pingora `Server`: its shutdown sleeps a fixed time, its listeners fail inside their tasks, it
//! hands sockets over without an acknowledgement, and each of its services has a runtime of its own.
//! Here is one runtime, and one `HttpProxy` with its pools of connections to peers.

mod background;
mod control_socket;
mod dns;
mod drain;
mod handover;
mod instance;
mod pingora_setup;
mod reload;
mod sd_notify;
mod signals;
mod socket_activation;
mod sockets;
mod start;
mod state_file;
mod supervisor;
mod upgrade;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

pub use self::control_socket::default_control_path;
pub use self::handover::is_successor;
pub use self::supervisor::{Error as SupervisorError, should_supervise, supervise};
use crate::config::Config;
use crate::downstream::listener::BindError;
use crate::snapshot;

/// What a proxy is started with.
#[derive(Debug)]
pub struct StartOptions {
    /// The configuration.
    pub config: Config,
    /// The file it came from, to be read again on reload; `None`: it cannot be reloaded.
    pub config_path: Option<PathBuf>,
}

/// Why the proxy could not start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The runtime's threads could not be started.
    #[error("cannot start the worker threads: {0}")]
    Runtime(std::io::Error),
    /// A peer's name has no address.
    #[error(transparent)]
    Dns(#[from] dns::Error),
    /// The configuration could not be put in force.
    #[error(transparent)]
    Snapshot(#[from] snapshot::Error),
    /// A listener's address cannot be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The control socket cannot be had.
    #[error(transparent)]
    ControlSocket(#[from] control_socket::Error),
    /// The access log cannot be written.
    #[error("cannot open the access log `{path}`: {source}")]
    AccessLog {
        /// Where it should go.
        path: String,
        /// Why it cannot.
        source: std::io::Error,
    },
    /// A signal to stop came before anything was served.
    #[error("stopped before it served")]
    StoppedDuringStart,
    /// The proxy could not be made.
    #[error("cannot make the proxy: {0}")]
    Proxy(std::io::Error),
    /// No signal can be waited for.
    #[error("cannot wait for signals: {0}")]
    Signals(std::io::Error),
    /// The process that should hand its sockets over did not, or not as it should.
    #[error("cannot take over from the running instance: {0}")]
    HotRestart(#[from] handover::Error),
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownOutcome {
    /// Every connection came to its own end.
    Drained,
    /// The drain's time was over, or a second signal came; connections were cut.
    Forced,
}

/// Runs the proxy until it is told to stop. Call it while the process has one thread: it takes what
/// the service manager passed out of the environment.
///
/// # Errors
/// [`Error`]: nothing was served.
pub fn run(launch: StartOptions) -> Result<ShutdownOutcome, Error> {
    let passed = socket_activation::take_passed_sockets();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(worker_threads(&launch.config).get())
        .thread_name("clockwise")
        .enable_all()
        .build()
        .map_err(Error::Runtime)?;
    let served = runtime.block_on(async {
        let (instance, signals) = start::start(launch, passed).await?;
        Ok::<_, Error>(instance.serve(signals).await)
    });
    // Tasks of connections that were cut are dropped here; each still writes its log line.
    runtime.shutdown_timeout(Duration::from_secs(1));
    let (ending, telemetry) = served?;
    telemetry.close();
    Ok(ending)
}

fn worker_threads(config: &Config) -> NonZeroUsize {
    let cores = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    config.threads.unwrap_or_else(cores)
}
