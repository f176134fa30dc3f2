//! What `run` would meet on this machine: ports, paths and names, for the warnings of `clockwise check`.
//!
//! Nothing is created, written or replaced. What the running instance of the same control socket has open is not in its
//! own way: a reload and an upgrade keep it.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::fs::Access;
use serde_json::Value;

use super::control;
use crate::config::{
    self, AccessLogConfig, CheckedConfig, ListenAddress, ListenerConfig, Report, Span, StartMode,
};
use crate::downstream::listener::bind;
use crate::{discovery, server};

/// How long one name may take. Shorter than at the start: `check` is also an operator's first step in an outage.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);

const PERMISSION_HELP: &str =
    "allow it for the user that runs Clockwise; `check` answers for the user that runs `check`";

/// Adds a warning to the report for each value that `run` would fail with on this machine.
pub(super) fn add_warnings(checked: &CheckedConfig, report: &mut Report) {
    let CheckedConfig { config, places } = checked;
    let mut warn = |place: Option<Span>, message: String, help: &str| {
        report.add_warning(place, message, help);
    };
    let control_path = match &config.control {
        Some(path) => Ok(path.clone()),
        None => server::default_control_path(),
    };
    let instance = match &control_path {
        Ok(path) => RunningInstance::find(path),
        Err(_) => RunningInstance::Absent,
    };

    for (listener, place) in config.listeners.iter().zip(&places.listeners) {
        check_listener(listener, &instance, |message, help| {
            warn(Some(*place), message, help);
        });
    }
    if let Some(admin) = &config.admin {
        let listener = ListenerConfig::plain(admin.address, 1);
        check_listener(&listener, &instance, |message, help| {
            warn(places.admin, message, help);
        });
    }
    match control_path {
        Ok(path) => {
            if let Some((reason, help)) = instance.control_problem(&path) {
                let path = path.display();
                let message = format!("cannot bind the control socket `{path}`: {reason}");
                warn(places.control, message, help);
            }
        }
        Err(error) => warn(places.control, error.to_string(), PERMISSION_HELP),
    }
    if let AccessLogConfig::File(path) = &config.access_log
        && let Err(error) = try_append(path)
    {
        let message = format!("cannot open the access log `{}`: {error}", path.display());
        warn(places.access_log, message, path_help(&error));
    }
    if let Some(file) = &config.state_file
        && let Err(error) = try_directory(file.path.parent())
    {
        let path = file.path.display();
        let message = format!("cannot write the state file `{path}`: {error}");
        warn(places.state_file, message, path_help(&error));
    }
    for (address, reason) in unresolved_peers(config) {
        let place = places.peers.get(&address).copied();
        let help = match config.start {
            StartMode::Tolerant => {
                "check the name, or write its IP address; a peer without an address gets no requests"
            }
            StartMode::Strict => {
                "check the name, or write its IP address; with `start: strict` it keeps `run` from starting"
            }
        };
        warn(place, format!("peer `{address}`: {reason}"), help);
    }
}

/// The instance that a reload or an upgrade of this configuration would change.
#[derive(Debug)]
enum RunningInstance {
    /// The addresses that it listens on, as configured.
    Answers(HashSet<String>),
    /// Its socket belongs to another user, another program answers there, or nothing answers in time.
    Unknown,
    Absent,
}

impl RunningInstance {
    fn find(control_path: &Path) -> Self {
        match control::status_at(control_path) {
            Ok(Some(status)) => Self::Answers(listen_addresses(&status)),
            Err(error) if is_without_listener(&error) => Self::Absent,
            Ok(None) | Err(_) => Self::Unknown,
        }
    }

    /// Whether the address can be in use by the instance itself.
    fn may_have(&self, address: &str) -> bool {
        match self {
            Self::Answers(addresses) => addresses.contains(address),
            Self::Unknown => true,
            Self::Absent => false,
        }
    }

    /// Why the control socket could not be bound, and what to do.
    fn control_problem(&self, path: &Path) -> Option<(String, &'static str)> {
        match self {
            Self::Answers(_) => None,
            Self::Unknown | Self::Absent => socket_problem(path),
        }
    }
}

fn is_without_listener(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}

fn listen_addresses(status: &Value) -> HashSet<String> {
    let listeners = status.get("listeners").and_then(Value::as_array);
    let listeners = listeners.into_iter().flatten();
    let listeners = listeners.filter_map(|listener| listener.get("address"));
    let all = listeners.chain(status.get("admin"));
    all.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn check_listener(
    listener: &ListenerConfig,
    instance: &RunningInstance,
    mut warn: impl FnMut(String, &str),
) {
    let address = listener.address.to_string();
    match &listener.address {
        ListenAddress::Ip(_) => match bind::try_bind(listener) {
            Err(error) if !(error.is_in_use() && instance.may_have(&address)) => {
                let reason = format!("cannot listen on `{address}`: {}", error.reason());
                warn(reason, error.hint().trim_start_matches("; "));
            }
            _ => {}
        },
        ListenAddress::Unix(path) => {
            if !instance.may_have(&address)
                && let Some((reason, help)) = socket_problem(path)
            {
                warn(format!("cannot listen on `{address}`: {reason}"), help);
            }
        }
    }
}

/// Why a Unix socket cannot be bound. Missing directories are created by `run`.
fn socket_problem(path: &Path) -> Option<(String, &'static str)> {
    if UnixStream::connect(path).is_ok() {
        let help = "stop that process, or set another path";
        return Some(("another process listens there".to_owned(), help));
    }
    let found = fs::symlink_metadata(path);
    if found.is_ok_and(|found| !found.file_type().is_socket()) {
        let help = "remove it, or set another path";
        return Some(("the file exists and is not a socket".to_owned(), help));
    }
    let mut ancestors = path.ancestors().skip(1);
    let existing = ancestors.find(|directory| is_current(directory) || directory.exists());
    let error = try_directory(existing).err()?;
    Some((error.to_string(), path_help(&error)))
}

fn is_current(directory: &Path) -> bool {
    directory.as_os_str().is_empty()
}

/// Opens a file as the access log does, but never creates one.
fn try_append(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        // Opening a named pipe could disturb its reader.
        Ok(found) if found.file_type().is_fifo() => {
            rustix::fs::access(path, Access::WRITE_OK).map_err(io::Error::from)
        }
        Ok(_) => File::options().append(true).open(path).map(drop),
        Err(error) if error.kind() == io::ErrorKind::NotFound => try_directory(path.parent()),
        Err(error) => Err(error),
    }
}

/// Whether files can be created in a directory; `None` and an empty path are the current one.
fn try_directory(directory: Option<&Path>) -> io::Result<()> {
    let directory = directory.filter(|directory| !is_current(directory));
    let directory = directory.unwrap_or(Path::new("."));
    if !fs::metadata(directory)?.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    Ok(rustix::fs::access(
        directory,
        Access::WRITE_OK | Access::EXEC_OK,
    )?)
}

fn path_help(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "create the directory, or set another path",
        io::ErrorKind::PermissionDenied => PERMISSION_HELP,
        _ => "set another path",
    }
}

fn unresolved_peers(config: &config::Config) -> Vec<(config::PeerAddress, String)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let Ok(runtime) = runtime else {
        return Vec::new();
    };
    let unresolved = runtime.block_on(discovery::find_unresolved(config, LOOKUP_TIMEOUT));
    // A lookup without an answer still has its thread.
    runtime.shutdown_background();
    unresolved
}
