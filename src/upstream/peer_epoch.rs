//! Epochs of peers: which keys recorded for a peer are still its own.

use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

/// A peer, from when it gets keys until it loses them to other peers. The number is unique among the last
/// 2^16 epochs of an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerEpoch(pub u16);

/// The next unused epoch of an upstream.
#[derive(Debug, Default)]
pub(super) struct PeerEpochs(AtomicU16);

impl PeerEpochs {
    /// Starts an epoch.
    pub(super) fn next_epoch(&self) -> PeerEpoch {
        PeerEpoch(self.0.fetch_add(1, Relaxed))
    }
}
