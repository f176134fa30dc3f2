//! The Tokio runtime that serves.

use std::io;
use std::num::NonZeroUsize;

use crate::config::Config;

/// Builds the runtime with the configured number of threads.
pub(super) fn build_runtime(config: &Config) -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(worker_threads(config).get())
        .thread_name("clockwise")
        .enable_all()
        .build()
}

/// `threads` of the configuration; by default one per CPU that this process may use.
pub(super) fn worker_threads(config: &Config) -> NonZeroUsize {
    let cores = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    config.threads.unwrap_or_else(cores)
}
