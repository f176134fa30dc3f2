//! What the peers weigh that share an upstream's load: what a bound is a share of. And what they have of the
//! key space, which is what the room for a hot key depends on.
//!
//! One in a slow start counts as far as it has come, by then; one that is not available does not count at all:
//! if it did, the bounds of the rest might not add up to all requests. So what such a peer still holds does
//! not count in their total either: with each count it is set aside, and taken back.
//!
//! Counted anew when a peer may have left the ring or come back, when the time is over that kept
//! one off it or was its slow start, and 64 times in the course of that; between it is four loads.
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

/// Parts of a unit of weight, and steps of a slow start.
const PARTS: u16 = 64;
/// A step is not shorter.
const STEP: Duration = Duration::from_millis(1);

/// What the peers weigh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Weights {
    /// Those that take all their keys.
    pub(super) home: u32,
    /// All that share the load, as far as they do, in parts.
    pub(super) parts: u32,
}

/// The sums as they were counted last.
#[derive(Debug, Default)]
pub(super) struct Serving {
    /// The number of changes before it was counted, above the weight of those at home.
    counted: AtomicU64,
    /// The parts; stored before the other sum.
    parts: AtomicU32,
    /// Until when they hold, if nothing changes; nanoseconds since the process started. 0: they are about to
    /// be replaced.
    until: AtomicU64,
    /// What they have of the key space. Stored before `until`; may be of another count than the weight, which
    /// only moves a hot key's turns among those that serve.
    keys: AtomicU64,
    of: Mutex<Count>,
}

#[derive(Debug, Default)]
struct Count {
    /// The moment that it was for.
    at: Duration,
    /// Another configuration says who shares the load.
    is_replaced: bool,
}

impl Serving {
    /// What all peers weigh at `now`.
    #[inline]
    pub(super) fn weights(&self, peers: &[Peer], changes: &AtomicU32, now: Duration) -> Weights {
        // The end first: it is stored last.
        let until = self.until.load(Acquire);
        let (counted, changes) = (self.counted.load(Acquire), changes.load(Acquire));
        let holds = nanos(now) < until;
        if holds && counted >> 32 == u64::from(changes) {
            return Weights {
                home: (counted & 0xffff_ffff) as u32,
                parts: self.parts.load(Acquire),
            };
        }
        self.count(peers, changes, now)
    }

    /// What they have together at `now`.
    pub(super) fn part(&self, peers: &[Peer], changes: &AtomicU32, now: Duration) -> Part {
        Part {
            weight: self.weights(peers, changes, now).home,
            keys: self.keys.load(Relaxed),
        }
    }

    #[cold]
    pub(super) fn count(&self, peers: &[Peer], changes: u32, now: Duration) -> Weights {
        let mut of = self.of.lock();
        let weights = weigh(peers, now);
        if of.at <= now {
            of.at = now;
            self.until.store(0, Release);
            if !of.is_replaced {
                for peer in peers {
                    peer.state.share_load(now);
                }
            }
            self.parts.store(weights.parts, Release);
            let counted = u64::from(changes) << 32 | u64::from(weights.home);
            self.counted.store(counted, Release);
            let home = peers.iter().filter(|peer| peer.state.is_home(now));
            let keys = home.map(|peer| peer.part.keys).sum();
            self.keys.store(keys, Relaxed);
            self.until.store(nanos(next_count(peers, now)), Release);
        }
        weights
    }

    /// From now on another configuration says who shares the load.
    pub(super) fn replace(&self) {
        self.of.lock().is_replaced = true;
    }
}

/// All of a peer's weight, in parts.
#[inline]
pub(super) fn whole(peer: &Peer) -> u16 {
    peer.weight.get().saturating_mul(PARTS)
}

/// As much of it as shares the load.
#[inline]
pub(super) fn part(peer: &Peer, now: Duration) -> u32 {
    let whole = u32::from(whole(peer));
    if peer.state.is_home(now) {
        return whole;
    }
    match peer.state.ramp(now) {
        Some(ramp) if peer.state.is_available(now) => ramp.part(whole, now),
        _ => 0,
    }
}

fn weigh(peers: &[Peer], now: Duration) -> Weights {
    let home = peers.iter().filter(|peer| peer.state.is_home(now));
    let parts = peers.iter().map(|peer| part(peer, now));
    Weights {
        home: home.map(|peer| u32::from(peer.weight.get())).sum(),
        parts: parts.fold(0, u32::saturating_add),
    }
}

/// When the sums may be others, if nothing changes.
fn next_count(peers: &[Peer], now: Duration) -> Duration {
    let available = peers.iter().filter(|peer| peer.state.is_available(now));
    let ramps = available.filter_map(|peer| peer.state.ramp(now));
    let steps = ramps.map(|ramp| now.saturating_add(STEP.max(ramp.length / u32::from(PARTS))));
    steps.chain([next_end(peers, now)]).min().unwrap_or(now)
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
