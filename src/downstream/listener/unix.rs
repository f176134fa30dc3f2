//! Unix sockets and their files: a file that is in use is not replaced, and a new file never has wider
//! permissions than configured, not even for a moment.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::unistd::{Group, User};

use crate::config::{SocketAccess, UnixAccount};

/// A socket's file that this process owns; removed on drop, unless it was replaced by another file.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Device and inode number, to notice that the file was replaced.
    file_id: (u64, u64),
}

impl SocketFile {
    /// The file that exists at `path`, if any.
    pub(crate) fn existing(path: &Path) -> Option<Self> {
        let path = path.to_owned();
        file_id(&path).map(|file_id| Self { path, file_id })
    }

    /// Leaves the file in place: another process owns it from now on.
    pub(crate) fn keep_file(mut self) {
        self.path = PathBuf::new();
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if file_id(&self.path) == Some(self.file_id) {
            remove_socket_file(&self.path);
        }
    }
}

/// Binds a socket. A file that an ended process left is replaced.
///
/// # Errors
/// If another process listens on the path, the file is not a socket, or a system call fails.
pub(crate) fn bind(path: &Path, access: &SocketAccess) -> io::Result<UnixListener> {
    match UnixStream::connect(path) {
        Ok(_) => {
            let text = "another process listens there; stop it, or set another path";
            return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
        }
        // Whether a process listens is not known: its socket must not be taken from it.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
        Err(_) => {}
    }
    match path.symlink_metadata() {
        Ok(metadata) if metadata.file_type().is_socket() => {
            fs::remove_file(path).map_err(|error| {
                let text = format!("the socket of an ended process cannot be removed: {error}");
                io::Error::new(error.kind(), text)
            })?;
        }
        Ok(_) => {
            let text = "the file exists and is not a socket; remove it, or set another path";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
        }
        Err(_) => {}
    }
    bind_then_rename(path, access)
}

/// Sets the mode, owner and group of a socket's file.
///
/// # Errors
/// If the system has no such user or group, or a system call fails.
pub(crate) fn set_access(path: &Path, access: &SocketAccess) -> io::Result<()> {
    let owner = access.owner.as_ref().map(resolve_uid).transpose()?;
    let group = access.group.as_ref().map(resolve_gid).transpose()?;
    if owner.is_some() || group.is_some() {
        chown(path, owner, group)?;
    }
    fs::set_permissions(path, Permissions::from_mode(access.mode))
}

/// Removes a socket's file; any other kind of file stays.
fn remove_socket_file(path: &Path) {
    let metadata = fs::symlink_metadata(path);
    if metadata.is_ok_and(|metadata| metadata.file_type().is_socket()) {
        // If this fails, the next bind reports it.
        let _ = fs::remove_file(path);
    }
}

/// Binds under a random name, sets mode and owner, then renames: clients cannot connect before the
/// permissions are right.
fn bind_then_rename(path: &Path, access: &SocketAccess) -> io::Result<UnixListener> {
    let temporary = path.with_file_name(format!(".{:08x}", rand::random::<u32>()));
    let listener = UnixListener::bind(&temporary)?;
    let renamed = fs::set_permissions(&temporary, Permissions::from_mode(0o600))
        .and_then(|()| set_access(&temporary, access))
        .and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = renamed {
        remove_socket_file(&temporary);
        return Err(error);
    }
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn file_id(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

fn resolve_uid(account: &UnixAccount) -> io::Result<u32> {
    match account {
        UnixAccount::Id(id) => Ok(*id),
        UnixAccount::Name(name) => match User::from_name(name)? {
            Some(user) => Ok(user.uid.as_raw()),
            None => Err(unknown_account_error("user", name)),
        },
    }
}

fn resolve_gid(account: &UnixAccount) -> io::Result<u32> {
    match account {
        UnixAccount::Id(id) => Ok(*id),
        UnixAccount::Name(name) => match Group::from_name(name)? {
            Some(group) => Ok(group.gid.as_raw()),
            None => Err(unknown_account_error("group", name)),
        },
    }
}

fn unknown_account_error(kind: &str, name: &str) -> io::Error {
    let text = format!("the system has no {kind} `{name}`");
    io::Error::new(io::ErrorKind::NotFound, text)
}
