//! Times in nanoseconds of [`clock::since_start`](crate::clock::since_start), in cells that an exchange can share.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// No deadline: a time that is never reached.
pub(super) const NEVER: u64 = u64::MAX;

/// Converts a time to nanoseconds; always below [`NEVER`].
pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(NEVER - 1)
}

/// A `Cell<u64>` that is `Sync`.
///
/// Only one task at a time uses an exchange, but Pingora's traits require `Send + Sync`. `Relaxed` loads and
/// stores are enough: the runtime synchronizes when it moves the task to another thread.
#[derive(Debug)]
pub(super) struct TimeCell(AtomicU64);

impl TimeCell {
    pub(super) fn never() -> Self {
        Self(AtomicU64::new(NEVER))
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    pub(super) fn set(&self, nanos: u64) {
        self.0.store(nanos, Relaxed);
    }
}
