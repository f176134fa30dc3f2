//! Epochs of peers.

use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

/// A peer from when it is given its keys until it loses them to others; the number is its own among those that
/// an upstream has had, or the last 2^16 of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerEpoch(pub u16);

/// The tenures of an upstream's peers so far.
#[derive(Debug, Default)]
pub(super) struct PeerEpochs(AtomicU16);

impl PeerEpochs {
    /// A new one.
    pub(super) fn next_epoch(&self) -> PeerEpoch {
        PeerEpoch(self.0.fetch_add(1, Relaxed))
    }
}
