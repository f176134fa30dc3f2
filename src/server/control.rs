//! The control socket: where it is, and how it is bound without taking one that is in use.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

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
pub fn default_path() -> PathBuf {
    let made = ["RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"]
        .iter()
        .find_map(std::env::var_os);
    match made {
        Some(directory) => PathBuf::from(directory).join("control.sock"),
        None if Path::new("/run/clockwise").is_dir() => {
            PathBuf::from("/run/clockwise/control.sock")
        }
        None => std::env::temp_dir().join(format!("clockwise-{}.sock", user())),
    }
}

/// Binds the control socket, mode 0600. A file that a dead process left is replaced; one that is
/// answered on is not.
pub(super) fn bind(path: &Path) -> Result<UnixListener, Error> {
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
    if UnixStream::connect(path).is_ok() {
        return Err(Error::InUse(path.to_owned()));
    }
    remove(path);
    if path.symlink_metadata().is_ok() {
        return Err(Error::NotASocket(path.to_owned()));
    }
    bind_private(path).map_err(failed)
}

/// Tells one file from another of the same name.
pub(super) fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    std::fs::symlink_metadata(path)
        .ok()
        .map(|found| (found.dev(), found.ino()))
}

/// Removes a socket's file; anything else of that name is left alone.
pub(super) fn remove(path: &Path) {
    use std::os::unix::fs::FileTypeExt;
    let is_socket =
        std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if is_socket {
        // If it stays, the next start says so.
        let _ = std::fs::remove_file(path);
    }
}

/// Bound under a name that only we know, made private, then renamed: at no time can anybody else
/// connect.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let hidden = path.with_extension(format!("{:08x}", rand::random::<u32>()));
    let listener = UnixListener::bind(&hidden)?;
    std::fs::set_permissions(&hidden, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&hidden, path)?;
    Ok(listener)
}

/// The user's number, so that two users' sockets in one directory do not meet.
fn user() -> u32 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").map_or(0, |process| process.uid())
}
