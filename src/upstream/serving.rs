//! The weight of the peers that share an upstream's load: what a bound is a share of.
//!
//! One in a slow start, or that drains, takes some of the load off the others, but is not counted on:
//! if it were, the bounds of the rest might not add up to all requests.
//!
//! Counted anew when a peer may have left the ring or come back, and when the time is over that kept
//! one off it or was its slow start; between that it is two loads.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::Peer;

/// The sum as it was counted last.
#[derive(Debug)]
pub(super) struct Serving {
    /// The number of changes before it was counted, above the sum.
    counted: AtomicU64,
    /// Until when it holds, if nothing changes; nanoseconds since the process started.
    until: AtomicU64,
}

impl Serving {
    pub(super) fn new() -> Self {
        Self {
            counted: AtomicU64::new(0),
            until: AtomicU64::new(0),
        }
    }

    /// The sum of the weights of all peers that take all their keys at `now`.
    pub(super) fn weight(&self, peers: &[Peer], changes: &AtomicU32, now: Duration) -> u32 {
        let (counted, changes) = (self.counted.load(Relaxed), changes.load(Relaxed));
        let holds = now.as_nanos() < u128::from(self.until.load(Relaxed));
        if holds && counted >> 32 == u64::from(changes) {
            return (counted & 0xffff_ffff) as u32;
        }
        self.count(peers, changes, now)
    }

    #[cold]
    fn count(&self, peers: &[Peer], changes: u32, now: Duration) -> u32 {
        let home = peers.iter().filter(|peer| peer.state.is_home(now));
        let weight = home.map(|peer| u32::from(peer.weight.get())).sum();
        let off = peers.iter().filter_map(|peer| peer.state.off(now));
        let ramps = peers.iter().filter_map(|peer| peer.state.ramp(now));
        let ends = off.chain(ramps.map(|ramp| ramp.began.saturating_add(ramp.length)));
        let until = ends.min().map_or(u64::MAX, |until| {
            u64::try_from(until.as_nanos()).unwrap_or(u64::MAX)
        });
        self.until.store(until, Relaxed);
        let counted = u64::from(changes) << 32 | u64::from(weight);
        self.counted.store(counted, Relaxed);
        weight
    }
}
