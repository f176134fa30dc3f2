//! The directory with the ACME account and the certificates. The functions that are not `async` block.
//!
//! ```text
//!  STORAGE/                        0700
//!    HOST-PATH/                    0700, one per authority: staging and production are kept apart
//!      lock                        the process that holds its flock(2) orders certificates; the others only read
//!      account.json                0600
//!      example.org.pem             0600, private key and chain: one file, so that they always match
//!      example.org.json            0600, failures and renewal window, kept across restarts
//!      answers/                    see `challenge_store.rs`
//! ```
//!
//! Files are replaced atomically. A file may have the only copy of a key: one that cannot be parsed is renamed, and one that
//! can be neither read nor renamed is an error.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use super::challenge_store::ChallengeStore;
use super::files::{Error, io_error, read_file, replace_file, restrict_mode, set_aside};
use crate::certificate::Certificate;
use crate::config::{AcmeConfig, DomainNames};
use crate::policy::cert_renewal::{OrderFailure, OrderFailures};

/// The inode, and the modification time in seconds and nanoseconds: a replaced file has other values.
pub(super) type FileStamp = (u64, i64, i64);

/// The lock of the process that orders certificates; released when dropped, or when the process ends.
#[derive(Debug)]
struct LeaderLock {
    #[expect(dead_code, reason = "kept open: the lock belongs to the descriptor")]
    file: File,
    /// Closed after `file`, as fields are dropped in their order.
    released: watch::Sender<()>,
}

/// The content of `NAME.json`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub(super) struct OrderRecord {
    /// The last failures of one kind: their number, the time of the last one (seconds since 1970), their kind.
    failures: Option<(u32, i64, StoredFailure)>,
    /// The message of the last failure.
    pub(super) error: Option<String>,
    /// The renewal window that the authority suggests (RFC 9773 §4.2): start and end, seconds since 1970.
    pub(super) suggested: Option<(i64, i64)>,
}

/// [`OrderFailure`], as it is written to the file.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum StoredFailure {
    Unreachable,
    Rejected,
    RateLimited,
}

impl OrderRecord {
    /// The last failures of one kind; `None`: none since the last success.
    pub(super) fn failures(&self) -> Option<OrderFailures> {
        let (count, last, kind) = self.failures?;
        let failure = match kind {
            StoredFailure::Unreachable => OrderFailure::Unreachable,
            StoredFailure::Rejected => OrderFailure::Rejected,
            StoredFailure::RateLimited => OrderFailure::RateLimited,
        };
        Some(OrderFailures {
            count,
            last,
            kind: failure,
        })
    }

    pub(super) fn set_failures(&mut self, failures: OrderFailures) {
        let kind = match failures.kind {
            OrderFailure::Unreachable => StoredFailure::Unreachable,
            OrderFailure::Rejected => StoredFailure::Rejected,
            OrderFailure::RateLimited => StoredFailure::RateLimited,
        };
        self.failures = Some((failures.count, failures.last, kind));
    }
}

/// The directory of one authority.
#[derive(Clone, Debug)]
pub(super) struct Storage {
    /// The directory that `acme.storage` names.
    base: PathBuf,
    /// The authority's directory in `base`.
    root: PathBuf,
    /// The lock, once this process has it. All clones share it, and the last one releases it: an operation that still
    /// runs on another thread has a clone, so no other process orders before it has ended.
    lock: Arc<OnceLock<LeaderLock>>,
}

impl Storage {
    pub(super) fn for_authority(acme: &AcmeConfig) -> Self {
        let authority = acme.directory.trim_start_matches("https://");
        let replace_special = |c: char| {
            if c.is_ascii_alphanumeric() || c == '.' {
                c
            } else {
                '-'
            }
        };
        let name: String = authority.chars().map(replace_special).collect();
        Self {
            root: acme.storage.join(name.trim_matches(['-', '.'])),
            base: acme.storage.clone(),
            lock: Arc::default(),
        }
    }

    /// Runs operations on a thread that may block. They go on if the caller is dropped, and the lock, if this process has
    /// it, is not released before they end.
    pub(super) async fn run_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, super::Error> {
        let storage = self.clone();
        // If the caller was dropped, the result is dropped here, before `storage`.
        let done = spawn_blocking(move || (work(&storage), storage)).await;
        let (result, _storage) = done.map_err(super::Error::Panicked)?;
        Ok(result?)
    }

    /// The answers to challenges, which all processes with this storage serve.
    pub(super) fn challenge_store(&self) -> ChallengeStore {
        ChallengeStore::in_directory(&self.root)
    }

    /// Creates the directories, and restricts their mode to the owner.
    pub(super) fn create_directories(&self) -> Result<(), Error> {
        for directory in [&self.base, &self.root] {
            let created = DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory);
            created.map_err(io_error("cannot create", directory))?;
            restrict_mode(directory, 0o700)?;
        }
        Ok(())
    }

    /// Creates the directories, takes the lock, and removes the challenges of the previous leader; `false`: another process
    /// holds the lock.
    pub(super) fn try_lock(&self) -> Result<bool, Error> {
        if self.is_locked() {
            return Ok(true);
        }
        self.create_directories()?;
        let path = self.root.join("lock");
        let mut options = OpenOptions::new();
        let file = options
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path);
        let file = file.map_err(io_error("cannot open", &path))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(error) => return Err(io_error("cannot lock", &path)(error.into())),
        }
        self.challenge_store().clear()?;
        let released = watch::Sender::new(());
        Ok(self.lock.set(LeaderLock { file, released }).is_ok())
    }

    /// Whether this process holds the lock.
    pub(super) fn is_locked(&self) -> bool {
        self.lock.get().is_some()
    }

    /// Drops this clone, and waits until all others are dropped and the lock is released.
    pub(super) async fn release(self) {
        let released = self.lock.get().map(|lock| lock.released.subscribe());
        drop(self);
        if let Some(mut released) = released {
            // No value is ever sent: this ends with an error when the sender is dropped.
            let _ = released.changed().await;
        }
    }

    /// The stamp of the certificate file, to see whether it was replaced; `None`: it is missing or inaccessible.
    pub(super) fn stamp(&self, names: &DomainNames) -> Option<FileStamp> {
        let metadata = fs::metadata(self.path(names, "pem")).ok()?;
        Some((metadata.ino(), metadata.mtime(), metadata.mtime_nsec()))
    }

    /// The stored certificate for `names`; it may have other names if the configuration has changed. A file that
    /// cannot be parsed is renamed. `None`: there is none.
    pub(super) fn certificate(&self, names: &DomainNames) -> Result<Option<Certificate>, Error> {
        let path = self.path(names, "pem");
        let Some(pem) = read_file(&path)? else {
            return Ok(None);
        };
        if let Err(error) = restrict_mode(&path, 0o600) {
            log::error!("acme: {error}");
        }
        match Certificate::read(&pem, &pem, None) {
            Ok(certificate) => Ok(Some(certificate)),
            Err(error) => set_aside(&path, &error.to_string()).map(|()| None),
        }
    }

    /// Stores the private key and the chain, both PEM.
    pub(super) fn store_certificate(
        &self,
        names: &DomainNames,
        key: &str,
        chain: &str,
    ) -> Result<(), Error> {
        replace_file(&self.path(names, "pem"), format!("{key}{chain}").as_bytes())
    }

    /// The stored record for `names`; the default if there is none.
    pub(super) fn record(&self, names: &DomainNames) -> Result<OrderRecord, Error> {
        Ok(Self::read_json(&self.path(names, "json"))?.unwrap_or_default())
    }

    pub(super) fn store_record(
        &self,
        names: &DomainNames,
        record: &OrderRecord,
    ) -> Result<(), Error> {
        let path = self.path(names, "json");
        replace_file(&path, serde_json::json!(record).to_string().as_bytes())
    }

    /// The stored account; `None`: there is none.
    pub(super) fn account<T: DeserializeOwned>(&self) -> Result<Option<T>, Error> {
        Self::read_json(&self.root.join("account.json"))
    }

    pub(super) fn store_account(&self, account: &impl Serialize) -> Result<(), Error> {
        let path = self.root.join("account.json");
        let text = serde_json::to_vec(account).map_err(io::Error::from);
        replace_file(&path, &text.map_err(io_error("cannot write", &path))?)
    }

    /// Renames the file of an account that the authority does not know.
    pub(super) fn set_aside_account(&self) -> Result<(), Error> {
        set_aside(
            &self.root.join("account.json"),
            "the authority does not know this account",
        )
    }

    fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
        let Some(text) = read_file(path)? else {
            return Ok(None);
        };
        match serde_json::from_slice(&text) {
            Ok(parsed) => Ok(Some(parsed)),
            Err(error) => set_aside(path, &error.to_string()).map(|()| None),
        }
    }

    /// The path of a certificate's file. It stays in the directory: a host name in `DomainNames` has no `/`.
    fn path(&self, names: &DomainNames, extension: &str) -> PathBuf {
        self.root.join(format!("{}.{extension}", names.primary()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Two processes with the same storage.
    fn storages() -> (tempfile::TempDir, [Storage; 2]) {
        let directory = tempfile::tempdir().unwrap();
        let storage = || Storage {
            base: directory.path().to_owned(),
            root: directory.path().join("authority"),
            lock: Arc::default(),
        };
        let both = [storage(), storage()];
        (directory, both)
    }

    fn names(name: &str) -> DomainNames {
        DomainNames::new(vec![name.to_owned()]).unwrap()
    }

    #[test]
    fn unreadable_file_is_an_error_with_its_path() {
        let (_directory, [storage, _]) = storages();
        // Root may read every file, so these are directories.
        for file in ["account.json", "a.test.json", "a.test.pem"] {
            fs::create_dir_all(storage.root.join(file)).unwrap();
        }
        let names = names("a.test");
        for (file, error) in [
            ("account.json", storage.account::<OrderRecord>().err()),
            ("a.test.json", storage.record(&names).err()),
            ("a.test.pem", storage.certificate(&names).err()),
        ] {
            let message = error.unwrap().to_string();
            let path = storage.root.join(file);
            assert!(message.contains(path.to_str().unwrap()), "{message}");
            assert!(message.contains("move it away"), "{message}");
        }
    }

    #[test]
    fn invalid_file_is_an_error_if_it_cannot_be_renamed() {
        let (_directory, [storage, _]) = storages();
        // The new name would be longer than a file name may be: 255 bytes.
        let names = names(
            &[
                "a".repeat(60),
                "b".repeat(60),
                "c".repeat(60),
                "d".repeat(60),
            ]
            .join("."),
        );
        fs::create_dir_all(&storage.root).unwrap();
        let path = storage.path(&names, "pem");
        fs::write(&path, "invalid").unwrap();
        let message = storage.certificate(&names).unwrap_err().to_string();
        assert!(message.contains("renaming it failed"), "{message}");
        assert_eq!(fs::read(&path).unwrap(), b"invalid");
    }

    #[test]
    fn invalid_files_of_one_second_are_all_kept() {
        let (_directory, [storage, _]) = storages();
        fs::create_dir_all(&storage.root).unwrap();
        let invalid = ["first", "second", "third"];
        for text in invalid {
            fs::write(storage.path(&names("a.test"), "pem"), text).unwrap();
            assert!(storage.certificate(&names("a.test")).unwrap().is_none());
        }
        let files = fs::read_dir(&storage.root).unwrap();
        let mut kept: Vec<_> = files
            .map(|file| fs::read_to_string(file.unwrap().path()).unwrap())
            .collect();
        kept.sort_unstable();
        assert_eq!(kept, invalid);
    }

    #[tokio::test]
    async fn lock_is_held_until_an_operation_of_an_aborted_task_has_ended() {
        let (_directory, [own, other]) = storages();
        assert!(own.try_lock().unwrap());
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let (end, ends) = mpsc::channel::<()>();
        let task = tokio::spawn({
            let storage = own.clone();
            async move {
                let write = move |_: &Storage| {
                    begun.send(()).unwrap();
                    ends.recv().unwrap();
                    Ok(())
                };
                storage.run_blocking(write).await
            }
        });
        has_begun.await.unwrap();
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        let mut release = std::pin::pin!(own.release());
        assert!(poll_once(release.as_mut()).await.is_none());
        assert!(!other.try_lock().unwrap(), "a write goes on");
        end.send(()).unwrap();
        release.await;
        assert!(other.try_lock().unwrap());
    }

    /// The output of a future that is polled once.
    async fn poll_once<F: Future>(mut future: std::pin::Pin<&mut F>) -> Option<F::Output> {
        std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
            std::task::Poll::Ready(output) => std::task::Poll::Ready(Some(output)),
            std::task::Poll::Pending => std::task::Poll::Ready(None),
        })
        .await
    }

    #[test]
    fn lock_belongs_to_one_process_and_clears_challenges_once() {
        let (_directory, [own, other]) = storages();
        assert!(own.try_lock().unwrap());
        let challenge = own.challenge_store().put_token("abc", "answer").unwrap();
        assert!(own.try_lock().unwrap(), "it is held already");
        assert!(!other.try_lock().unwrap() && !other.is_locked());
        let answers = own.root.join("answers");
        assert_eq!(fs::read_dir(&answers).unwrap().count(), 1);
        std::mem::forget(challenge);
        drop(own);
        assert!(other.try_lock().unwrap());
        assert_eq!(fs::read_dir(&answers).unwrap().count(), 0);
    }
}
