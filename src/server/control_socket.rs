//! The control socket: where it is, and how it is bound without taking one that is in use.

use std::io;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

use crate::config::SocketAccess;
use crate::downstream::listener::unix;

/// Why the control socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process answers on it.
    #[error(
        "the control socket `{0}` is in use by a running instance; set `control:` to another path, or stop that one"
    )]
    InUse(PathBuf),
    /// Something else has its name.
    #[error("`{0}` exists and is not a socket; set `control:` to another path, or remove it")]
    NotASocket(PathBuf),
    /// The system says no.
    #[error(
        "cannot bind the control socket `{path}`: {source}; set `control:` to a path that can be written"
    )]
    Bind {
        /// Where it should be.
        path: PathBuf,
        /// Why it cannot.
        source: io::Error,
    },
}

/// Where the control socket is when the configuration does not say: the runtime directory that the
/// service manager or the login session made, else that of the system's services, else `/tmp`.
pub fn default_control_path() -> PathBuf {
    let made = ["RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"]
        .iter()
        .find_map(std::env::var_os);
    match made {
        Some(directory) => PathBuf::from(directory).join("control.sock"),
        None if Path::new("/run/clockwise").is_dir() => {
            PathBuf::from("/run/clockwise/control.sock")
        }
        None => std::env::temp_dir().join(format!("clockwise-{}.sock", uid())),
    }
}

/// Binds the control socket, mode 0600. A file that a dead process left is replaced; one that is
/// answered on is not.
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

/// The user's number, so that two users' sockets in one directory do not meet.
fn uid() -> u32 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").map_or(0, |process| process.uid())
}
