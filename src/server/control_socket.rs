//! The control socket: its default path, and binding it without taking it from a running instance.
//!
//! A process that may issue commands must not meet another user's process on the path. So the default path is in a
//! directory into which no other user can write, and a client checks the process that answers as well.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

use crate::config::SocketAccess;
use crate::downstream::listener::unix;

/// Why the control socket cannot be bound, or its default path must not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Another process listens on the socket.
    #[error(
        "another process listens on the control socket `{0}`; set `control:` to another path, or stop that one"
    )]
    InUse(PathBuf),
    /// The path is a file that is not a socket.
    #[error("`{0}` exists and is not a socket; set `control:` to another path, or remove it")]
    NotASocket(PathBuf),
    /// Another user could replace the socket in the default directory.
    #[error(
        "the directory `{directory}`, the default place of the control socket, {problem}; {remedy}, or set `control:` to a path in a directory of your own"
    )]
    UnsafeDirectory {
        /// The default directory.
        directory: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// What to do about it.
        remedy: &'static str,
    },
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
/// manager or the login session, else in `/run/clockwise` if that exists, else in `clockwise-UID` in the directory for
/// temporary files.
///
/// # Errors
/// [`Error::UnsafeDirectory`] if another user can write into the directory of the login session or the one for temporary
/// files. The other two are made by root, or by the service manager.
pub(crate) fn default_control_path() -> Result<PathBuf, Error> {
    let directory = if let Some(directory) = directory_of("RUNTIME_DIRECTORY") {
        directory
    } else if let Some(directory) = directory_of("XDG_RUNTIME_DIR") {
        // `su` and `sudo -E` leave the variable of another user.
        check_directory(&directory, WRITABLE_BY_OTHERS, "unset `XDG_RUNTIME_DIR`")?;
        directory
    } else if Path::new("/run/clockwise").is_dir() {
        PathBuf::from("/run/clockwise")
    } else {
        let directory = private_directory();
        check_directory(&directory, ACCESSIBLE_BY_OTHERS, "remove it")?;
        directory
    };
    Ok(directory.join("control.sock"))
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
        create_directory(directory).map_err(failed)?;
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

/// Creates a directory that does not exist. That in the directory for temporary files is private from its creation on.
fn create_directory(directory: &Path) -> io::Result<()> {
    if directory != private_directory() {
        return fs::create_dir_all(directory);
    }
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        created => created,
    }?;
    // Another process may have made it since the path was chosen.
    check_directory(directory, ACCESSIBLE_BY_OTHERS, "remove it").map_err(io::Error::other)
}

/// The directory of this user's control socket in the one for temporary files, where any user can take any name.
fn private_directory() -> PathBuf {
    std::env::temp_dir().join(format!("clockwise-{}", own_uid()))
}

/// The directory that an environment variable names; of several that the service manager made, the first one. Relative
/// paths are ignored (XDG Base Directory Specification).
fn directory_of(variable: &str) -> Option<PathBuf> {
    let value = std::env::var_os(variable)?;
    let first = std::env::split_paths(&value).next()?;
    first.is_absolute().then_some(first)
}

/// Checks that a directory belongs to this user, is not a symbolic link, and has none of the `forbidden` bits of a mode.
/// One that does not exist yet is right.
fn check_directory(directory: &Path, forbidden: u32, remedy: &'static str) -> Result<(), Error> {
    let problem = match fs::symlink_metadata(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => format!("cannot be read: {error}"),
        Ok(metadata) if !metadata.is_dir() => "is not a directory".to_owned(),
        Ok(metadata) if metadata.uid() != own_uid() => {
            format!(
                "belongs to user {}, not to user {}",
                metadata.uid(),
                own_uid()
            )
        }
        Ok(metadata) if metadata.mode() & forbidden != 0 => {
            format!("has mode {:04o}, not 0700", metadata.mode() & 0o7777)
        }
        Ok(_) => return Ok(()),
    };
    Err(Error::UnsafeDirectory {
        directory: directory.to_owned(),
        problem,
        remedy,
    })
}

/// The user of this process.
fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Bits of a mode with which other users can replace a file in a directory.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Bits of a mode with which other users can do anything with a directory.
const ACCESSIBLE_BY_OTHERS: u32 = 0o077;
