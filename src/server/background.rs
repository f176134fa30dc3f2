//! What an instance does beside its work, once in a while: looks whether its configuration file, or
//! one that it names, has changed, tells which certificates need their operator and which drains are over, writes
//! its state file, and shows the service manager that it lives.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::task::JoinHandle;

use super::sd_notify::Watchdog;
use super::state_file::StateFileWriter;
use crate::admin::AppState;
use crate::certificate::CertWarning;
use crate::clock;
use crate::config::{self, Config};
use crate::snapshot::Snapshot;
use crate::tls::ManagedCerts;

/// How often the state file is brought up to date.
const STATE_FILE_INTERVAL: Duration = Duration::from_secs(2);

/// What is looked at of a file: more than any that is read may have.
const MAX_DIGEST_BYTES: u64 = 32 * 1024 * 1024;

/// The chores, and what they remember from time to time.
#[derive(Debug, Default)]
pub(super) struct BackgroundTasks {
    state_file: StateFileWriter,
    file_watch: FileWatch,
    cert_warnings: LoggedCertWarnings,
    drains: LoggedDrains,
    /// Time since the file was looked at.
    since_scan: Duration,
    watchdog: Option<Watchdog>,
}

impl BackgroundTasks {
    /// For an instance that has just read `source`. Call within the runtime.
    pub(super) fn new(source: Option<&Path>, config: &Config) -> Self {
        let mut chores = Self {
            watchdog: Watchdog::start(),
            ..Self::default()
        };
        if let Some(source) = source {
            chores.file_watch.start_first_scan(source, config);
        }
        chores
    }

    /// The files are being read for another reason: what they hold now is nothing new.
    pub(super) fn note_reload(&mut self, source: Option<&Path>, config: &Config) {
        self.file_watch.reset();
        self.cert_warnings = LoggedCertWarnings::default();
        if let Some(source) = source {
            self.file_watch.start_scan(watched_files(source, config));
        }
    }

    /// Waits for a look under way, so that what is written from now on is something new.
    pub(super) async fn await_scan(&mut self) {
        self.file_watch.has_changed().await;
    }

    /// Does the chores until a watched file has changed. Can be dropped and called again.
    pub(super) async fn run_until_config_change(
        &mut self,
        subject: &AppState,
        config: &Config,
        source: Option<&Path>,
    ) {
        loop {
            let snapshot = subject.snapshot.load();
            self.cert_warnings.log_new(config, &snapshot.managed_certs);
            self.drains.log_new(&snapshot);
            let pause = config
                .watch
                .map_or(STATE_FILE_INTERVAL, |watch| watch.min(STATE_FILE_INTERVAL));
            tokio::time::sleep(pause).await;
            if let Some(file) = &config.state_file {
                self.state_file
                    .write_in_background(file, subject.snapshot.load_full());
            }
            self.since_scan += pause;
            if let (Some(watch), Some(source)) = (config.watch, source)
                && self.since_scan >= watch
            {
                self.since_scan = Duration::ZERO;
                self.file_watch.start_scan(watched_files(source, config));
            }
            // A file system that hangs keeps nothing waiting but its own file.
            let differs = tokio::time::timeout(pause, self.file_watch.has_changed()).await;
            if config.watch.is_some() && differs == Ok(true) {
                return;
            }
        }
    }

    /// From now on the signs of life, and the state file, must come from another process.
    pub(super) fn release(&mut self) {
        self.watchdog = None;
        self.state_file.release();
    }

    /// The last time, at the process's end.
    pub(super) fn write_state_file(&mut self, subject: &AppState) {
        let snapshot = subject.snapshot.load();
        if let Some(file) = &snapshot.config.state_file {
            self.state_file.write_and_release(file, &snapshot);
        }
    }
}

/// What the log was told about the certificates in force: once, and anew after a reload.
#[derive(Debug, Default)]
struct LoggedCertWarnings(BTreeSet<(PathBuf, CertWarning)>);

impl LoggedCertWarnings {
    fn log_new(&mut self, config: &Config, issued: &ManagedCerts) {
        let now = clock::wall().as_second();
        let of_files = config.credentials.warnings(now);
        let of_files = of_files.map(|(file, concern)| (file.to_owned(), concern));
        let of_orders = issued
            .warnings(config.acme_certificate_names(), now)
            .into_iter();
        let of_orders = of_orders.map(|(name, concern)| (PathBuf::from(name), concern));
        for (file, concern) in of_files.chain(of_orders) {
            if self.0.insert((file.clone(), concern)) {
                let level = match concern {
                    CertWarning::Expired(_) => log::Level::Error,
                    _ => log::Level::Warn,
                };
                let (file, help) = (file.display(), concern.help());
                log::log!(level, "{file}: {concern}; {help}");
            }
        }
    }
}

/// The peers, by upstream and label, whose drain is over, as the log was told.
#[derive(Debug, Default)]
struct LoggedDrains(BTreeSet<(Arc<str>, Arc<str>)>);

impl LoggedDrains {
    fn log_new(&mut self, snapshot: &Snapshot) {
        let now = clock::since_start();
        let mut over = BTreeSet::new();
        for upstream in snapshot.upstreams.values() {
            let kept = upstream.drain_status(now);
            let drained = upstream.peers().iter();
            let drained = drained.filter(|peer| kept.is_drained(peer));
            over.extend(drained.map(|peer| (Arc::clone(&upstream.name), Arc::clone(&peer.label))));
        }
        for (name, label) in over.difference(&self.0) {
            log::info!(
                "upstream {name}: peer {label} is drained: it has no request and keeps no key"
            );
        }
        self.0 = over;
    }
}

/// The configuration's file and those that it names.
fn watched_files(source: &Path, config: &Config) -> Vec<PathBuf> {
    let all = [source].into_iter().chain(config.files());
    all.map(Path::to_owned).collect()
}

/// Files that are looked at, from beside the task that asks: a disk may take its time.
///
/// Contents, not times: links are swapped, and files written anew with what they held. A file that
/// is not there for a moment is being replaced; one that was not there from the beginning is awaited.
#[derive(Debug, Default)]
struct FileWatch {
    /// What each held when it was last there; `None`: it never was.
    digests: HashMap<PathBuf, Option<FileDigest>>,
    scan_task: Option<JoinHandle<FileScan>>,
}

/// What was found in a look.
#[derive(Debug, Default)]
struct FileScan {
    /// What each file holds; `None`: it is not there.
    files: Vec<(PathBuf, Option<FileDigest>)>,
    /// They are not what is in force.
    config_changed: bool,
}

impl FileScan {
    fn read(files: impl IntoIterator<Item = PathBuf>) -> Self {
        let found = |file: PathBuf| {
            let digest = digest_file(&file).ok();
            (file, digest)
        };
        Self {
            files: files.into_iter().map(found).collect(),
            config_changed: false,
        }
    }
}

/// Of a file's contents: some of them are secret.
type FileDigest = [u8; 32];

impl FileWatch {
    /// What is found next is nothing new.
    fn reset(&mut self) {
        *self = Self::default();
    }

    /// The first look of an instance. What it has in force was read before that, and may have been
    /// replaced meanwhile.
    fn start_first_scan(&mut self, source: &Path, config: &Config) {
        let (source, in_force) = (source.to_owned(), config.clone());
        let look = move || {
            // In this order: what is replaced between the two is found now, and after them by the next look.
            let found = FileScan::read(watched_files(&source, &in_force));
            let is_same = || config::load(&source).is_ok_and(|now| now == in_force);
            FileScan {
                config_changed: in_force.watch.is_some() && !is_same(),
                ..found
            }
        };
        self.scan_task = Some(tokio::task::spawn_blocking(look));
    }

    /// Has them read, where that is not under way.
    fn start_scan(&mut self, files: impl IntoIterator<Item = PathBuf>) {
        if self.scan_task.is_none() {
            let files: Vec<PathBuf> = files.into_iter().collect();
            let look = move || FileScan::read(files);
            self.scan_task = Some(tokio::task::spawn_blocking(look));
        }
    }

    /// Ends the look under way; whether it found something else than the one before. Can be dropped
    /// and called again.
    async fn has_changed(&mut self) -> bool {
        let Some(looking) = &mut self.scan_task else {
            return false;
        };
        let found = looking.await.unwrap_or_default();
        self.scan_task = None;
        let mut differs = found.config_changed;
        for (file, now) in found.files {
            let before = self.digests.get(&file).copied();
            differs |= now.is_some() && before.is_some_and(|before| before != now);
            self.digests.insert(file, now.or(before.flatten()));
        }
        differs
    }
}

/// A path may have come to lead to a pipe, whose end never comes, or to something as long.
fn digest_file(file: &Path) -> io::Result<FileDigest> {
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut contents = Vec::new();
    File::open(file)?
        .take(MAX_DIGEST_BYTES)
        .read_to_end(&mut contents)?;
    Ok(Sha256::digest(contents).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watched_file_differs_only_with_its_contents() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        let mut watched = FileWatch::default();
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(async {
            let mut look = async |contents: Option<&str>| {
                match contents {
                    Some(contents) => std::fs::write(&file, contents).unwrap(),
                    None => std::fs::remove_file(&file).unwrap(),
                }
                watched.start_scan([file.clone()]);
                watched.has_changed().await
            };
            assert!(!look(Some("a")).await, "the first look");
            assert!(!look(Some("a")).await, "written anew");
            assert!(look(Some("b")).await, "changed");
            assert!(!look(None).await, "being replaced");
            assert!(look(Some("a")).await, "replaced");
            watched.reset();
            watched.start_scan([file.clone()]);
            assert!(!watched.has_changed().await, "read for another reason");
        });
    }

    #[test]
    fn watched_file_replaced_before_the_first_check_is_a_change() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("clockwise.yaml");
        let write = |watch: &str| {
            let rest = "routes: [{upstream: app}]\nupstreams: {app: {peers: [127.0.0.1:9001]}}\n";
            let yaml = format!("watch: {watch}\nlisteners: [{{address: 127.0.0.1:80}}]\n{rest}");
            std::fs::write(&file, yaml).unwrap();
        };
        write("1s");
        let in_force = config::load(&file).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(async {
            let mut watched = FileWatch::default();
            watched.start_first_scan(&file, &in_force);
            assert!(!watched.has_changed().await);
            write("2s");
            watched.start_first_scan(&file, &in_force);
            assert!(watched.has_changed().await);
        });
    }

    #[test]
    fn watched_file_that_appears_later_is_a_change() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        let mut watched = FileWatch::default();
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(async {
            for _ in 0..2 {
                watched.start_scan([file.clone()]);
                assert!(!watched.has_changed().await, "not there yet");
            }
            std::fs::write(&file, "a").unwrap();
            watched.start_scan([file.clone()]);
            assert!(watched.has_changed().await);
        });
    }
}
