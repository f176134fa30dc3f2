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
use crate::policy::hot_key_spread::WeightedShare;

/// Parts of a unit of weight, and steps of a slow start.
const PARTS_PER_WEIGHT: u16 = 64;
/// A step is not shorter.
const MIN_STEP: Duration = Duration::from_millis(1);

/// What the peers weigh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ServingWeights {
    /// Those that take all their keys.
    pub(super) full: u32,
    /// All that share the load, as far as they do, in parts.
    pub(super) shared_parts: u32,
}

/// The sums as they were counted last.
#[derive(Debug, Default)]
pub(super) struct WeightCache {
    /// The number of changes before it was counted, above the weight of those at home.
    changes_and_full: AtomicU64,
    /// The parts; stored before the other sum.
    shared_parts: AtomicU32,
    /// Until when they hold, if nothing changes; nanoseconds since the process started. 0: they are about to
    /// be replaced.
    valid_until: AtomicU64,
    /// What they have of the key space. Stored before `until`; may be of another count than the weight, which
    /// only moves a hot key's turns among those that serve.
    key_space: AtomicU64,
    last_recount: Mutex<RecountState>,
}

#[derive(Debug, Default)]
struct RecountState {
    /// The moment that it was for.
    at: Duration,
    /// Another configuration says who shares the load.
    is_replaced: bool,
}

impl WeightCache {
    /// What all peers weigh at `now`.
    #[inline]
    pub(super) fn weights(
        &self,
        peers: &[Peer],
        changes: &AtomicU32,
        now: Duration,
    ) -> ServingWeights {
        // The end first: it is stored last.
        let until = self.valid_until.load(Acquire);
        let (counted, changes) = (self.changes_and_full.load(Acquire), changes.load(Acquire));
        let holds = nanos(now) < until;
        if holds && counted >> 32 == u64::from(changes) {
            return ServingWeights {
                full: (counted & 0xffff_ffff) as u32,
                shared_parts: self.shared_parts.load(Acquire),
            };
        }
        self.recount(peers, changes, now)
    }

    /// What they have together at `now`.
    pub(super) fn serving_share(
        &self,
        peers: &[Peer],
        changes: &AtomicU32,
        now: Duration,
    ) -> WeightedShare {
        WeightedShare {
            weight: self.weights(peers, changes, now).full,
            key_space: self.key_space.load(Relaxed),
        }
    }

    #[cold]
    pub(super) fn recount(&self, peers: &[Peer], changes: u32, now: Duration) -> ServingWeights {
        let mut of = self.last_recount.lock();
        let weights = sum_weights(peers, now);
        if of.at <= now {
            of.at = now;
            self.valid_until.store(0, Release);
            if !of.is_replaced {
                for peer in peers {
                    peer.state.update_in_flight_total(now);
                }
            }
            self.shared_parts.store(weights.shared_parts, Release);
            let counted = u64::from(changes) << 32 | u64::from(weights.full);
            self.changes_and_full.store(counted, Release);
            let home = peers.iter().filter(|peer| peer.state.takes_all_keys(now));
            let keys = home.map(|peer| peer.weighted_share.key_space).sum();
            self.key_space.store(keys, Relaxed);
            self.valid_until
                .store(nanos(next_recount(peers, now)), Release);
        }
        weights
    }

    /// From now on another configuration says who shares the load.
    pub(super) fn mark_replaced(&self) {
        self.last_recount.lock().is_replaced = true;
    }
}

/// All of a peer's weight, in parts.
#[inline]
pub(super) fn total_parts(peer: &Peer) -> u16 {
    peer.weight.get().saturating_mul(PARTS_PER_WEIGHT)
}

/// As much of it as shares the load.
#[inline]
pub(super) fn serving_parts(peer: &Peer, now: Duration) -> u32 {
    let whole = u32::from(total_parts(peer));
    if peer.state.takes_all_keys(now) {
        return whole;
    }
    match peer.state.slow_start(now) {
        Some(ramp) if peer.state.is_available(now) => ramp.scale(whole, now),
        _ => 0,
    }
}

fn sum_weights(peers: &[Peer], now: Duration) -> ServingWeights {
    let home = peers.iter().filter(|peer| peer.state.takes_all_keys(now));
    let parts = peers.iter().map(|peer| serving_parts(peer, now));
    ServingWeights {
        full: home.map(|peer| u32::from(peer.weight.get())).sum(),
        shared_parts: parts.fold(0, u32::saturating_add),
    }
}

/// When the sums may be others, if nothing changes.
fn next_recount(peers: &[Peer], now: Duration) -> Duration {
    let available = peers.iter().filter(|peer| peer.state.is_available(now));
    let ramps = available.filter_map(|peer| peer.state.slow_start(now));
    let steps = ramps
        .map(|ramp| now.saturating_add(MIN_STEP.max(ramp.duration / u32::from(PARTS_PER_WEIGHT))));
    steps.chain([next_expiry(peers, now)]).min().unwrap_or(now)
}

/// When the first of the times that keep a peer off the ring, or in a slow start, is over.
fn next_expiry(peers: &[Peer], now: Duration) -> Duration {
    let off = peers
        .iter()
        .filter_map(|peer| peer.state.off_ring_until(now));
    let ramps = peers.iter().filter_map(|peer| peer.state.slow_start(now));
    let ends = off.chain(ramps.map(|ramp| ramp.start.saturating_add(ramp.duration)));
    ends.min().unwrap_or(Duration::MAX)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
