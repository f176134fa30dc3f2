//! Private files, replaced atomically. All functions block.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::clock;

/// The bits of `st_mode` for group and others.
const GROUP_OTHER_MODE: u32 = 0o077;

/// At most this much of a file is read; bytes. A chain is far smaller.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A failed operation on a file.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// `action`: for example `cannot write`.
    #[error("{action} {}: {source}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// A file exists and cannot be read.
    #[error(
        "cannot read {}: {source}; make it readable for the user of this process, or move it away: it is not replaced, \
         because it may have the only copy of a key",
        path.display()
    )]
    Unreadable { path: PathBuf, source: io::Error },
    /// A file cannot be used and cannot be renamed.
    #[error(
        "{} cannot be used: {reason}; renaming it failed: {source}; move it away: it is not replaced, because it may have \
         the only copy of a key",
        path.display()
    )]
    NotSetAside {
        path: PathBuf,
        reason: String,
        source: io::Error,
    },
}

pub(super) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io {
        action,
        path,
        source,
    }
}

/// If group or others have any access to a file, sets its mode to `mode` and logs a warning.
pub(super) fn restrict_mode(path: &Path, mode: u32) -> Result<(), Error> {
    let metadata = fs::metadata(path).map_err(io_error("cannot read", path))?;
    if metadata.mode() & GROUP_OTHER_MODE != 0 {
        let changed = fs::set_permissions(path, Permissions::from_mode(mode));
        changed.map_err(io_error(
            "other users have access, and the mode cannot be changed:",
            path,
        ))?;
        log::warn!(
            "acme: other users had access to {}; its mode is now {mode:o}",
            path.display()
        );
    }
    Ok(())
}

/// The content of a file; `None`: it does not exist.
pub(super) fn read_file(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let mut bytes = Vec::new();
    let result =
        File::open(path).and_then(|file| file.take(MAX_FILE_BYTES).read_to_end(&mut bytes));
    match result {
        Ok(_) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Unreadable {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Renames a file that cannot be used to `FILE.SECONDS.bad` (seconds since 1970), and logs the reason.
pub(super) fn set_aside(path: &Path, reason: &str) -> Result<(), Error> {
    let renamed = free_bad_path(path).and_then(|aside| {
        fs::rename(path, &aside)?;
        Ok(aside)
    });
    match renamed {
        Ok(aside) => {
            let (path, aside) = (path.display(), aside.display());
            log::error!("acme: {path} cannot be used: {reason}; renamed to {aside}");
            Ok(())
        }
        // Another process has renamed it already.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(Error::NotSetAside {
            path: path.to_owned(),
            reason: reason.to_owned(),
            source,
        }),
    }
}

/// A name for [`set_aside`] that no file has: a second file of the same second must not replace the first.
fn free_bad_path(path: &Path) -> io::Result<PathBuf> {
    let mut seconds = clock::wall().as_second();
    loop {
        let mut aside = path.to_owned().into_os_string();
        aside.push(format!(".{seconds}.bad"));
        match fs::symlink_metadata(&aside) {
            Ok(_) => seconds += 1,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(aside.into()),
            Err(error) => return Err(error),
        }
    }
}

/// Replaces a file atomically: writes `FILE.new`, syncs it and renames it. After a crash, the file has either
/// the old content or the new one.
pub(super) fn replace_file(path: &Path, contents: &[u8]) -> Result<(), Error> {
    let mut new = path.to_owned().into_os_string();
    new.push(".new");
    let new = PathBuf::from(new);
    let written = write_synced(&new, contents).and_then(|()| fs::rename(&new, path));
    written.map_err(io_error("cannot write", path))?;
    // Makes the rename itself survive a crash.
    let directory = path.parent().map(File::open);
    directory
        .map_or(Ok(()), |directory| directory?.sync_all())
        .map_err(io_error("cannot write", path))
}

fn write_synced(path: &Path, contents: &[u8]) -> io::Result<()> {
    // A file left by a crash may belong to another user: it is removed, not reused.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(contents)?;
    file.sync_all()
}
