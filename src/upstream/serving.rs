//! The weight of the peers that share an upstream's load: what a bound is a share of. And what they have of the
//! key space, which is what the room for a hot key depends on.
//!
//! One in a slow start, or that drains, takes some of the load off the others, but is not counted on:
//! if it were, the bounds of the rest might not add up to all requests.
//!
//! Counted anew when a peer may have left the ring or come back, and when the time is over that kept
//! one off it or was its slow start; between that it is three loads.
//!
//! Invariant: a count is never replaced by one of an earlier moment. Two requests that come before and after
//! such a time are counted for one after the other, in either order; if the earlier one had the last word, its
//! sum would stand until the next change.

use std::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::time::Duration;

use parking_lot::Mutex;

use super::Peer;
use crate::policy::spread::Part;

/// The sum as it was counted last.
#[derive(Debug, Default)]
pub(super) struct Serving {
    /// The number of changes before it was counted, above the sum.
    counted: AtomicU64,
    /// Until when it holds, if nothing changes; nanoseconds since the process started. 0: it is about to
    /// be replaced.
    until: AtomicU64,
    /// What they have of the key space. Stored before `until`; may be of another count than the weight, which
    /// only moves a hot key's turns among those that serve.
    keys: AtomicU64,
    /// The moment that it was counted for.
    of: Mutex<Duration>,
}

impl Serving {
    /// The sum of the weights of all peers that take all their keys at `now`.
    #[inline]
    pub(super) fn weight(&self, peers: &[Peer], changes: &AtomicU32, now: Duration) -> u32 {
        // The end first: it is stored last.
        let until = self.until.load(Acquire);
        let (counted, changes) = (self.counted.load(Acquire), changes.load(Acquire));
        let holds = nanos(now) < until;
        if holds && counted >> 32 == u64::from(changes) {
            return (counted & 0xffff_ffff) as u32;
        }
        self.count(peers, changes, now)
    }

    /// What they have together at `now`.
    pub(super) fn part(&self, peers: &[Peer], changes: &AtomicU32, now: Duration) -> Part {
        Part {
            weight: self.weight(peers, changes, now),
            keys: self.keys.load(Relaxed),
        }
    }

    #[cold]
    pub(super) fn count(&self, peers: &[Peer], changes: u32, now: Duration) -> u32 {
        let mut of = self.of.lock();
        let home = || peers.iter().filter(|peer| peer.state.is_home(now));
        let weight = home().map(|peer| u32::from(peer.weight.get())).sum();
        if *of <= now {
            *of = now;
            self.until.store(0, Release);
            let counted = u64::from(changes) << 32 | u64::from(weight);
            self.counted.store(counted, Release);
            let keys = home().map(|peer| peer.part.keys).sum();
            self.keys.store(keys, Relaxed);
            self.until.store(nanos(next_end(peers, now)), Release);
        }
        weight
    }
}

/// When the first of the times that keep a peer off the ring, or in a slow start, is over.
fn next_end(peers: &[Peer], now: Duration) -> Duration {
    let off = peers.iter().filter_map(|peer| peer.state.off(now));
    let ramps = peers.iter().filter_map(|peer| peer.state.ramp(now));
    let ends = off.chain(ramps.map(|ramp| ramp.began.saturating_add(ramp.length)));
    ends.min().unwrap_or(Duration::MAX)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
