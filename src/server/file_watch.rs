//! Watches the configuration file and the files it names, and reports a change of their contents.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tokio::task::JoinHandle;

use crate::config::{self, Config};

/// The configuration file and the files it names.
pub(super) fn watched_files(config_path: &Path, config: &Config) -> Vec<PathBuf> {
    let all = [config_path].into_iter().chain(config.files());
    all.map(Path::to_owned).collect()
}

/// Compares the contents of files with the last scan. A scan runs on a blocking thread, as a disk may be slow.
///
/// It compares contents, not modification times: a symbolic link may be switched to a file of the same age, and a file
/// may be rewritten unchanged. A file that disappears is not a change: it is probably being replaced. A file that was
/// missing in the first scan is a change when it appears.
#[derive(Debug, Default)]
pub(super) struct FileWatch {
    /// The digest of each file when it last existed; `None`: it has not existed yet.
    digests: HashMap<PathBuf, Option<FileDigest>>,
    scan_task: Option<JoinHandle<FileScan>>,
}

/// The result of one scan.
#[derive(Debug, Default)]
struct FileScan {
    /// The digest of each file; `None`: it is missing.
    files: Vec<(PathBuf, Option<FileDigest>)>,
    /// With `watch`: the configuration file differs from the configuration in force, or cannot be loaded.
    config_changed: bool,
}

impl FileScan {
    fn read(files: impl IntoIterator<Item = PathBuf>) -> Self {
        let scan = |file: PathBuf| {
            let digest = digest_file(&file).ok();
            (file, digest)
        };
        Self {
            files: files.into_iter().map(scan).collect(),
            config_changed: false,
        }
    }
}

/// SHA-256 of a file's contents. The contents are not kept, since some are private keys.
type FileDigest = [u8; 32];

impl FileWatch {
    /// Forgets all digests, and abandons a scan in progress; the next scan reports no change.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    /// Starts the first scan of an instance. The files may have been replaced since the configuration in force was
    /// read from them, so the configuration is read again and compared. Must be called inside a Tokio runtime.
    pub(super) fn start_first_scan(&mut self, config_path: &Path, config: &Config) {
        // The file does not have the peers that sources have found.
        let (path, in_force) = (config_path.to_owned(), config.without_runtime_peers());
        let scan = move || {
            // Digests first: a change between the two steps shows in the comparison, a later one in the next scan.
            let scan = FileScan::read(watched_files(&path, &in_force));
            let is_same = || config::load(&path).is_ok_and(|now| now == in_force);
            FileScan {
                config_changed: in_force.watch.is_some() && !is_same(),
                ..scan
            }
        };
        self.scan_task = Some(tokio::task::spawn_blocking(scan));
    }

    /// Starts a scan, unless one is in progress. Must be called inside a Tokio runtime.
    pub(super) fn start_scan(&mut self, files: impl IntoIterator<Item = PathBuf>) {
        if self.scan_task.is_none() {
            let files: Vec<PathBuf> = files.into_iter().collect();
            let scan = move || FileScan::read(files);
            self.scan_task = Some(tokio::task::spawn_blocking(scan));
        }
    }

    /// Waits for the scan in progress, makes its digests the new baseline, and returns whether a file has changed since
    /// the scan before; `false` if no scan is in progress. Cancel-safe.
    pub(super) async fn finish_scan(&mut self) -> bool {
        let Some(task) = &mut self.scan_task else {
            return false;
        };
        let scan = task.await.unwrap_or_default();
        self.scan_task = None;
        let mut changed = scan.config_changed;
        for (file, now) in scan.files {
            let before = self.digests.get(&file).copied();
            changed |= now.is_some() && before.is_some_and(|before| before != now);
            self.digests.insert(file, now.or(before.flatten()));
        }
        changed
    }
}

/// Returns the digest of a regular file only: the path may lead to a pipe by now, and reading that never ends.
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

/// The bytes of a file that are compared: more than the configuration reader accepts.
const MAX_DIGEST_BYTES: u64 = 32 * 1024 * 1024;

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
            let mut scan = async |contents: Option<&str>| {
                match contents {
                    Some(contents) => std::fs::write(&file, contents).unwrap(),
                    None => std::fs::remove_file(&file).unwrap(),
                }
                watched.start_scan([file.clone()]);
                watched.finish_scan().await
            };
            assert!(!scan(Some("a")).await, "the first scan");
            assert!(!scan(Some("a")).await, "written again unchanged");
            assert!(scan(Some("b")).await, "changed");
            assert!(!scan(None).await, "being replaced");
            assert!(scan(Some("a")).await, "replaced");
            watched.reset();
            watched.start_scan([file.clone()]);
            assert!(!watched.finish_scan().await, "read by a reload");
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
            assert!(!watched.finish_scan().await);
            write("2s");
            watched.start_first_scan(&file, &in_force);
            assert!(watched.finish_scan().await);
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
                assert!(!watched.finish_scan().await, "not there yet");
            }
            std::fs::write(&file, "a").unwrap();
            watched.start_scan([file.clone()]);
            assert!(watched.finish_scan().await);
        });
    }
}
