//! Where the account and the certificates are kept.
//!
//! ```text
//!  STORAGE/                        0700
//!    HOST-PATH/                    0700, one for each authority: staging and production never mix
//!      lock                        whoever has it locked (flock(2)) orders; the others read
//!      account.json                0600
//!      example.org.pem             0600, the private key, then the chain: one file, so that they fit together
//!      example.org.json            0600, failures and the authority's suggestion: they outlive the process
//!      answers/                    what the authority is to see, while it looks: `answers.rs`
//! ```
//!
//! A file is written beside its place, synced and renamed: whoever reads sees the old one or the new one,
//! whole. One that cannot be read is moved aside, never overwritten: it may hold the only copy of a key.
//!
//! Everything here blocks.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::challenge_store::ChallengeStore;
use crate::certificate::Certificate;
use crate::clock;
use crate::config::{AcmeConfig, DomainNames};
use crate::policy::cert_renewal::{OrderFailure, OrderFailures};

/// `st_mode`: anybody but the owner.
const GROUP_OTHER_MODE: u32 = 0o077;

/// No chain is near that.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// What could not be done with which file.
#[derive(Debug, thiserror::Error)]
#[error("{what} {}: {source}", path.display())]
pub(super) struct Error {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Of a file: it is replaced as a whole, so that another one has another number, or another time.
pub(super) type FileStamp = (u64, i64, i64);

/// The right to order; given back when dropped, or when the process ends.
#[derive(Debug)]
pub(super) struct LeaderLock(
    #[expect(dead_code, reason = "held open: the lock is the descriptor's")] File,
);

/// What outlives the process beside the certificate.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub(super) struct OrderRecord {
    /// Failures since the last success: how many, when the last, of which kind.
    failures: Option<(u32, i64, StoredFailure)>,
    /// What the last one was.
    pub(super) error: Option<String>,
    /// Between which times the authority suggests to renew (RFC 9773).
    pub(super) suggested: Option<(i64, i64)>,
}

/// [`Failure`], as it is written.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum StoredFailure {
    Unreachable,
    Refused,
    Limited,
}

impl OrderRecord {
    /// The failures since the last success.
    pub(super) fn failures(&self) -> Option<OrderFailures> {
        let (count, last, kind) = self.failures?;
        let failure = match kind {
            StoredFailure::Unreachable => OrderFailure::Unreachable,
            StoredFailure::Refused => OrderFailure::Rejected,
            StoredFailure::Limited => OrderFailure::RateLimited,
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
            OrderFailure::Rejected => StoredFailure::Refused,
            OrderFailure::RateLimited => StoredFailure::Limited,
        };
        self.failures = Some((failures.count, failures.last, kind));
    }
}

/// The files of one authority.
#[derive(Clone, Debug)]
pub(super) struct Storage {
    /// What the operator named.
    base: PathBuf,
    root: PathBuf,
}

impl Storage {
    pub(super) fn for_authority(acme: &AcmeConfig) -> Self {
        let authority = acme.directory.trim_start_matches("https://");
        let plain = |c: char| {
            if c.is_ascii_alphanumeric() || c == '.' {
                c
            } else {
                '-'
            }
        };
        let name: String = authority.chars().map(plain).collect();
        Self {
            root: acme.storage.join(name.trim_matches(['-', '.'])),
            base: acme.storage.clone(),
        }
    }

    /// What the authority is to see.
    pub(super) fn challenge_store(&self) -> ChallengeStore {
        ChallengeStore::in_directory(&self.root)
    }

    /// Makes the directories, and sees to it that nobody else reads them.
    pub(super) fn create_directories(&self) -> Result<(), Error> {
        for directory in [&self.base, &self.root] {
            let made = DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory);
            made.map_err(io_error("cannot make", directory))?;
            restrict_mode(directory, 0o700)?;
        }
        Ok(())
    }

    /// `None`: another process has it.
    pub(super) fn try_lock(&self) -> Result<Option<LeaderLock>, Error> {
        let path = self.root.join("lock");
        let mut options = OpenOptions::new();
        let file = options
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path);
        let file = file.map_err(io_error("cannot write", &path))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(LeaderLock(file))),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(io_error("cannot lock", &path)(error.into())),
        }
    }

    /// Tells whether the certificate's file is still the one it was; `None`: there is none.
    pub(super) fn stamp(&self, names: &DomainNames) -> Option<FileStamp> {
        let metadata = fs::metadata(self.path(names, "pem")).ok()?;
        Some((metadata.ino(), metadata.mtime(), metadata.mtime_nsec()))
    }

    /// The certificate for `names`, whatever names it has by now; one that cannot be read is moved aside.
    pub(super) fn certificate(&self, names: &DomainNames) -> Option<Certificate> {
        let path = self.path(names, "pem");
        let pem = read_file(&path)?;
        if let Err(error) = restrict_mode(&path, 0o600) {
            log::error!("acme: {error}");
        }
        match Certificate::read(&pem, &pem, None) {
            Ok(certificate) => Some(certificate),
            Err(error) => {
                set_aside(&path, &error.to_string());
                None
            }
        }
    }

    /// Keeps the private key and the chain, both PEM.
    pub(super) fn store_certificate(
        &self,
        names: &DomainNames,
        key: &str,
        chain: &str,
    ) -> Result<(), Error> {
        replace_file(&self.path(names, "pem"), format!("{key}{chain}").as_bytes())
    }

    pub(super) fn record(&self, names: &DomainNames) -> OrderRecord {
        Self::read_json(&self.path(names, "json")).unwrap_or_default()
    }

    pub(super) fn store_record(
        &self,
        names: &DomainNames,
        record: &OrderRecord,
    ) -> Result<(), Error> {
        let path = self.path(names, "json");
        replace_file(&path, serde_json::json!(record).to_string().as_bytes())
    }

    pub(super) fn account<T: DeserializeOwned>(&self) -> Option<T> {
        Self::read_json(&self.root.join("account.json"))
    }

    pub(super) fn store_account(&self, account: &impl Serialize) -> Result<(), Error> {
        let path = self.root.join("account.json");
        let text = serde_json::to_vec(account).map_err(io::Error::from);
        replace_file(&path, &text.map_err(io_error("cannot write", &path))?)
    }

    /// The authority does not know it.
    pub(super) fn set_aside_account(&self) {
        set_aside(
            &self.root.join("account.json"),
            "the authority does not know this account",
        );
    }

    fn read_json<T: DeserializeOwned>(path: &Path) -> Option<T> {
        let text = read_file(path)?;
        let read = serde_json::from_slice(&text);
        read.inspect_err(|error| set_aside(path, &error.to_string()))
            .ok()
    }

    /// The name is a host's: no part of it leads elsewhere.
    fn path(&self, names: &DomainNames, kind: &str) -> PathBuf {
        self.root.join(format!("{}.{kind}", names.primary()))
    }
}

pub(super) fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error { what, path, source }
}

/// Nobody but the owner may look; what others may is taken from them, and said.
fn restrict_mode(path: &Path, mode: u32) -> Result<(), Error> {
    let metadata = fs::metadata(path).map_err(io_error("cannot read", path))?;
    if metadata.mode() & GROUP_OTHER_MODE != 0 {
        let mended = fs::set_permissions(path, Permissions::from_mode(mode));
        mended.map_err(io_error(
            "others can read, and that cannot be changed:",
            path,
        ))?;
        log::warn!(
            "acme: others could read {}; its mode is now {mode:o}",
            path.display()
        );
    }
    Ok(())
}

/// `None`: it is not there, or cannot be read, which is said.
fn read_file(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE_BYTES).read_to_end(&mut bytes));
    match read {
        Ok(_) => Some(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            log::error!("acme: cannot read {}: {error}", path.display());
            None
        }
    }
}

fn set_aside(path: &Path, why: &str) {
    let mut aside = path.to_owned().into_os_string();
    aside.push(format!(".{}.bad", clock::wall().as_second()));
    let moved = fs::rename(path, &aside);
    let (path, aside) = (path.display(), Path::new(&aside).display());
    match moved {
        Ok(()) => log::error!("acme: {path} cannot be used: {why}; it is now {aside}"),
        Err(error) => log::error!("acme: {path} cannot be used: {why}; nor be moved: {error}"),
    }
}

/// Replaces the file as a whole; what is there after a crash is the old one or the new one.
pub(super) fn replace_file(path: &Path, contents: &[u8]) -> Result<(), Error> {
    let mut new = path.to_owned().into_os_string();
    new.push(".new");
    let new = PathBuf::from(new);
    let written = write_synced(&new, contents).and_then(|()| fs::rename(&new, path));
    written.map_err(io_error("cannot write", path))?;
    let directory = path.parent().map(File::open);
    directory
        .map_or(Ok(()), |directory| directory?.sync_all())
        .map_err(io_error("cannot write", path))
}

fn write_synced(path: &Path, contents: &[u8]) -> io::Result<()> {
    // One that was left there may be somebody else's.
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
