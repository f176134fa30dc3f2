//! The files of Unix sockets: bound without taking one that is in use, and at no time open to anybody
//! who may not connect.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::unistd::{Group, User};

use crate::config::{SocketAccess, UnixAccount};

/// A socket's file that is ours: removed when this is dropped, where it still has its name.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and number: somebody may have put another in its place.
    file_id: (u64, u64),
}

impl SocketFile {
    /// The file that has this name now; `None`: there is none.
    pub fn existing(path: &Path) -> Option<Self> {
        let path = path.to_owned();
        file_id(&path).map(|identity| Self {
            path,
            file_id: identity,
        })
    }

    /// It is another process's from here on, and stays.
    pub fn keep_file(mut self) {
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

/// Binds a socket. A file that a dead process left is replaced; one that is answered on is not.
///
/// # Errors
/// It is in use, something else has its name, or the system says no.
pub fn bind(path: &Path, access: &SocketAccess) -> io::Result<UnixListener> {
    if UnixStream::connect(path).is_ok() {
        let text = "another process answers on it; give another file, or stop that one";
        return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
    }
    remove_socket_file(path);
    if path.symlink_metadata().is_ok() {
        let text = "the file exists and is no socket; give another, or remove it";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
    }
    bind_then_rename(path, access)
}

/// Gives a socket's file its mode, owner and group.
///
/// # Errors
/// The system knows no such account, or says no.
pub fn set_access(path: &Path, access: &SocketAccess) -> io::Result<()> {
    let owner = access.owner.as_ref().map(resolve_uid).transpose()?;
    let group = access.group.as_ref().map(resolve_gid).transpose()?;
    if owner.is_some() || group.is_some() {
        chown(path, owner, group)?;
    }
    fs::set_permissions(path, Permissions::from_mode(access.mode))
}

/// Removes a socket's file; anything else of that name is left alone.
fn remove_socket_file(path: &Path) {
    let found = fs::symlink_metadata(path);
    if found.is_ok_and(|found| found.file_type().is_socket()) {
        // If it stays, the next start says so.
        let _ = fs::remove_file(path);
    }
}

/// Bound under a name that only we know, given its access, then renamed: nobody can connect who may
/// not.
fn bind_then_rename(path: &Path, access: &SocketAccess) -> io::Result<UnixListener> {
    let hidden = path.with_file_name(format!(".{:08x}", rand::random::<u32>()));
    let listener = UnixListener::bind(&hidden)?;
    let placed = fs::set_permissions(&hidden, Permissions::from_mode(0o600))
        .and_then(|()| set_access(&hidden, access))
        .and_then(|()| fs::rename(&hidden, path));
    if let Err(error) = placed {
        remove_socket_file(&hidden);
        return Err(error);
    }
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn file_id(path: &Path) -> Option<(u64, u64)> {
    let found = fs::symlink_metadata(path).ok()?;
    Some((found.dev(), found.ino()))
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

fn unknown_account_error(what: &str, name: &str) -> io::Error {
    let text = format!("the system has no {what} `{name}`");
    io::Error::new(io::ErrorKind::NotFound, text)
}
