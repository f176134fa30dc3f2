//! Notices changes in the folders of a file, by inotify.
//!
//! The folder is watched, not the file: a file that is replaced by a rename is another file. A `ConfigMap` of Kubernetes
//! replaces the link `..data` in the folder; a file behind a symbolic link changes in the folder of its target, which is
//! watched, too. What no watch sees (a link further up in the path, a network file system) is found by the next slow read.

use std::collections::BTreeSet;
use std::ffi::{CStr, OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

/// The link that a `ConfigMap` of Kubernetes switches.
const CONFIG_MAP_LINK: &str = "..data";

/// Events that a write in place, a rename, a link or a removal ends with.
const EVENTS: WatchFlags = WatchFlags::CLOSE_WRITE
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);

/// Events after which the path may lead to another folder than the one that is watched, or changes may be unknown.
const LOST: ReadFlags = ReadFlags::IGNORED
    .union(ReadFlags::MOVE_SELF)
    .union(ReadFlags::QUEUE_OVERFLOW);

/// The bytes of the events that are read at once; one event has at most 272.
const BUFFER: usize = 4096;

/// A watch of the folders in which a file can change.
#[derive(Debug)]
pub(super) struct FolderWatch {
    inotify: AsyncFd<OwnedFd>,
    places: WatchedPlaces,
}

/// What has been noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FolderChange {
    /// The file may have changed.
    File,
    /// It may have changed, and the watch no longer sees its folder.
    WatchLost,
}

/// The folders of a file and of its target, and the names in them that matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WatchedPlaces {
    folders: BTreeSet<PathBuf>,
    names: BTreeSet<OsString>,
}

impl WatchedPlaces {
    /// The places of the file at `path`, as links lead there now.
    pub(super) fn of(path: &Path) -> Self {
        let mut places = Self {
            folders: BTreeSet::new(),
            names: BTreeSet::from([CONFIG_MAP_LINK.into()]),
        };
        places.add(path);
        if let Ok(target) = path.canonicalize() {
            places.add(&target);
        }
        places
    }

    fn add(&mut self, path: &Path) {
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        self.folders
            .insert(folder.unwrap_or(Path::new(".")).to_owned());
        self.names.extend(path.file_name().map(OsStr::to_owned));
    }

    fn concerns(&self, name: &CStr) -> bool {
        self.names.contains(OsStr::from_bytes(name.to_bytes()))
    }
}

impl FolderWatch {
    /// Watches these places. Must be called inside a Tokio runtime.
    ///
    /// # Errors
    /// A folder does not exist, or the user has too many watches (`fs.inotify.max_user_instances`, `max_user_watches`).
    #[expect(
        deprecated,
        reason = "`AsyncFd::register` is `unsafe`; an `OwnedFd` is the same descriptor until it is dropped"
    )]
    pub(super) fn start(places: WatchedPlaces) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        for folder in &places.folders {
            inotify::add_watch(&inotify, folder, EVENTS)?;
        }
        Ok(Self {
            inotify: AsyncFd::new(inotify)?,
            places,
        })
    }

    /// What is watched.
    pub(super) fn places(&self) -> &WatchedPlaces {
        &self.places
    }

    /// Waits until the file may have changed. Cancel-safe.
    ///
    /// # Errors
    /// The kernel's queue cannot be read.
    pub(super) async fn changed(&self) -> io::Result<FolderChange> {
        loop {
            let mut ready = self.inotify.readable().await?;
            match self.drain()? {
                Some(change) => return Ok(change),
                None => ready.clear_ready(),
            }
        }
    }

    /// Reads all events; `None`: no event is about the file.
    fn drain(&self) -> Result<Option<FolderChange>, Errno> {
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let mut events = inotify::Reader::new(self.inotify.get_ref(), &mut buffer);
        let mut change = None;
        loop {
            match events.next() {
                Ok(event) if event.events().intersects(LOST) => {
                    change = Some(FolderChange::WatchLost);
                }
                Ok(event) => {
                    let name = event.file_name();
                    if name.is_some_and(|name| self.places.concerns(name)) {
                        change.get_or_insert(FolderChange::File);
                    }
                }
                Err(Errno::AGAIN) => return Ok(change),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    use super::*;

    /// Whether `change` is noticed; an event of another file in the folder before it is not.
    async fn notices(path: &Path, change: impl FnOnce()) -> bool {
        let watch = FolderWatch::start(WatchedPlaces::of(path)).unwrap();
        fs::write(path.with_file_name("other"), "x").unwrap();
        assert_eq!(watch.drain(), Ok(None), "another file");
        change();
        let soon = Duration::from_secs(10);
        tokio::time::timeout(soon, watch.changed()).await.is_ok()
    }

    #[tokio::test]
    async fn changes_of_a_file_are_noticed_in_place_by_rename_and_by_link() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let file = at("peers.yaml");
        assert!(
            notices(&file, || fs::write(&file, "a").unwrap()).await,
            "created"
        );
        assert!(
            notices(&file, || fs::write(&file, "b").unwrap()).await,
            "in place"
        );
        let rename = || {
            fs::write(at("new"), "c").unwrap();
            fs::rename(at("new"), &file).unwrap();
        };
        assert!(notices(&file, rename).await, "renamed");
        assert!(
            notices(&file, || fs::remove_file(&file).unwrap()).await,
            "removed"
        );

        // As a `ConfigMap` does it: peers.yaml -> ..data/peers.yaml, ..data -> ..1
        for version in ["..1", "..2"] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("peers.yaml"), version).unwrap();
        }
        symlink("..1", at("..data")).unwrap();
        symlink("..data/peers.yaml", &file).unwrap();
        let switch = || {
            symlink("..2", at("..data_tmp")).unwrap();
            fs::rename(at("..data_tmp"), at("..data")).unwrap();
        };
        assert!(notices(&file, switch).await, "ConfigMap");
        let target = at("..2").join("peers.yaml");
        assert!(
            notices(&file, || fs::write(target, "d").unwrap()).await,
            "target"
        );
    }

    #[tokio::test]
    async fn folder_that_is_replaced_ends_its_watch() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at("a")).unwrap();
        for replace in [
            &(|| fs::rename(at("a"), at("b")).unwrap()) as &dyn Fn(),
            &|| fs::remove_dir(at("a")).unwrap(),
        ] {
            fs::create_dir_all(at("a")).unwrap();
            let path = at("a").join("peers.yaml");
            let watch = FolderWatch::start(WatchedPlaces::of(&path)).unwrap();
            replace();
            let change = watch.changed().await.unwrap();
            assert_eq!(change, FolderChange::WatchLost);
        }
    }

    #[tokio::test]
    async fn folder_that_does_not_exist_is_an_error() {
        let path = Path::new("/nonexistent/peers.yaml");
        let started = FolderWatch::start(WatchedPlaces::of(path));
        assert_eq!(started.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
