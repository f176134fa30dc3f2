//! The assembly: from a configuration to a running proxy, through reloads and upgrades, to its end.
//!
//! ```text
//!  start      names resolved ─► snapshot ─► sockets bound or taken over ─► first probes ─► accept
//!                                     │ a failure up to here: exit 1; an old process goes on serving
//!  instance   serves, looks up names without an address again, and carries out commands, one at a time:
//!    reload     read ─► resolve ─► build ─► bind ─► first probes ─► one swap     a failure changes nothing
//!    upgrade    check ─► spawn ─► hand over ─► ready ─► activate ─► drain        a failure changes nothing
//!    TERM, INT  drain ─► exit                                                    a second one: exit at once
//! ```
//!
//! Pingora's own `Server` is not used: its shutdown sleeps a fixed time, its listeners fail inside their tasks, it hands
//! sockets over without an acknowledgement, and each of its services has a runtime of its own. Here there is one
//! runtime, and one `HttpProxy` with its pools of connections to peers.

// from start to end
mod start;

mod instance;

mod drain;
mod edge_app;

// the parts of an instance
mod data_plane;

mod listeners;

mod admin_sockets;

mod background;

mod file_watch;

mod cert_warnings;

mod peer_lookups;

mod peer_discovery;

mod state_file;

// changes
mod config_reader;

mod reload;

mod blocking;

mod hot_restart;
mod http_proxy;

// the system around it
mod process_role;

mod signals;

mod sd_notify;

mod socket_activation;

mod inherited_sockets;

mod control_socket;

mod runtime;

mod supervisor;

mod error;

use std::time::Duration;

pub(crate) use self::control_socket::default_control_path;
pub(crate) use self::drain::ShutdownOutcome;
pub(crate) use self::error::Error;
pub(crate) use self::process_role::is_upgrade_check;
pub(crate) use self::start::StartOptions;
pub(crate) use self::supervisor::{should_supervise, supervise};

/// Runs the proxy until it is stopped. Call it while the process has one thread: it removes the service manager's
/// variables from the environment.
///
/// # Errors
/// [`Error`]: nothing was served.
pub(crate) fn run(options: StartOptions) -> Result<ShutdownOutcome, Error> {
    let passed = socket_activation::take_passed_sockets();
    let runtime = runtime::build_runtime(&options.config).map_err(Error::Runtime)?;
    let served = runtime.block_on(async {
        let (instance, signals) = Box::pin(start::start(options, passed)).await?;
        Ok::<_, Error>(instance.serve(signals).await)
    });
    // Drops the tasks of connections that were aborted; each still writes its line to the access log.
    runtime.shutdown_timeout(Duration::from_secs(1));
    let (outcome, telemetry) = served?;
    telemetry.close();
    Ok(outcome)
}
