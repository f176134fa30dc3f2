//! The control socket: its default path, and binding it without taking it from a running instance.

use std::io;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

use crate::config::SocketAccess;
use crate::downstream::listener::unix;

/// Why the control socket cannot be bound.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Another process listens on the socket.
    #[error(
        "the control socket `{0}` is in use by a running instance; set `control:` to another path, or stop that one"
    )]
    InUse(PathBuf),
    /// The path is a file that is not a socket.
    #[error("`{0}` exists and is not a socket; set `control:` to another path, or remove it")]
    NotASocket(PathBuf),
    /// The system refused to bind it.
    #[error(
        "cannot bind the control socket `{path}`: {source}; set `control:` to a path that can be written"
    )]
    Bind {
        /// The path of the socket.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// The path of the control socket if the configuration has no `control:`. It is in the runtime directory of the service
/// manager or the login session, else in `/run/clockwise` if that exists, else in the directory for temporary files.
pub(crate) fn default_control_path() -> PathBuf {
    let runtime_directory = ["RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"]
        .iter()
        .find_map(std::env::var_os);
    match runtime_directory {
        Some(directory) => PathBuf::from(directory).join("control.sock"),
        None if Path::new("/run/clockwise").is_dir() => {
            PathBuf::from("/run/clockwise/control.sock")
        }
        None => std::env::temp_dir().join(format!("clockwise-{}.sock", uid())),
    }
}

/// Binds the control socket with mode 0600. Replaces a socket file on which no process listens any more. Must be called
/// inside a Tokio runtime.
pub(super) fn bind_control_socket(path: &Path) -> Result<UnixListener, Error> {
    let failed = |source| Error::Bind {
        path: path.to_owned(),
        source,
    };
    if let Some(directory) = path
        .parent()
        .filter(|directory| !directory.as_os_str().is_empty())
    {
        std::fs::create_dir_all(directory).map_err(failed)?;
    }
    let private = SocketAccess {
        mode: 0o600,
        ..SocketAccess::default()
    };
    match unix::bind(path, &private) {
        Ok(listener) => UnixListener::from_std(listener).map_err(failed),
        Err(error) => Err(match error.kind() {
            io::ErrorKind::AddrInUse => Error::InUse(path.to_owned()),
            io::ErrorKind::AlreadyExists => Error::NotASocket(path.to_owned()),
            _ => failed(error),
        }),
    }
}

/// The user id, so that the sockets of two users in one directory have different names.
fn uid() -> u32 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").map_or(0, |process| process.uid())
}
