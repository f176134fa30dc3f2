//! The total weight of the peers that share an upstream's load, and their share of the key space.
//!
//! A bound is a share of the total weight; the room for a hot key depends on both. A peer in a slow start
//! counts by its progress. A peer that is not available does not count at all, or the bounds of the others
//! might not add up to all requests; for the same reason its requests are excluded from the total in
//! flight, at each recount.
//!
//! The sums are cached: a request costs four loads. They are recounted when a peer may have left the ring
//! or come back, when an ejection, suppression or slow start ends by time, and in 64 steps of a slow start.
//!
//! Invariant: a recount never replaces the result of a later moment. Two requests that read the clock
//! before and after such an end can recount in either order. If the sum of the earlier one were stored last,
//! it would remain until the next change.

use std::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::time::Duration;

use parking_lot::Mutex;

use super::Peer;
use crate::policy::hot_key_spread::WeightedShare;
use crate::policy::selection::{PARTS_PER_WEIGHT, total_parts};

/// The shortest step of a slow start.
const MIN_STEP: Duration = Duration::from_millis(1);

/// The summed weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ServingWeights {
    /// The weight of the peers that take all their keys.
    pub(super) full: u32,
    /// The weight of the peers that share the load, in parts; a peer in a slow start counts by its progress.
    pub(super) shared_parts: u32,
}

/// The sums of the last recount.
///
/// `valid_until` is stored last and loaded first (release, acquire), so a reader that finds it in the
/// future reads sums of that recount or a later one.
#[derive(Debug, Default)]
pub(super) struct WeightCache {
    /// The number of changes before the recount in the upper half, [`ServingWeights::full`] in the lower.
    changes_and_full: AtomicU64,
    /// [`ServingWeights::shared_parts`]; stored before `changes_and_full`.
    shared_parts: AtomicU32,
    /// When the sums end to hold without a change, nanoseconds on the monotonic clock; 0: a recount is
    /// storing.
    valid_until: AtomicU64,
    /// The key space of the peers that take all their keys. May be of another recount than the weight; that
    /// only shifts a hot key's turns among serving peers.
    key_space: AtomicU64,
    last_recount: Mutex<RecountState>,
}

#[derive(Debug, Default)]
struct RecountState {
    /// The `now` of the last recount that was stored.
    at: Duration,
    /// A newer configuration decides which peers share the load.
    is_replaced: bool,
}

impl WeightCache {
    /// The weights at `now`.
    #[inline]
    pub(super) fn weights(
        &self,
        peers: &[Peer],
        changes: &AtomicU32,
        now: Duration,
    ) -> ServingWeights {
        let valid_until = self.valid_until.load(Acquire);
        let (cached, changes) = (self.changes_and_full.load(Acquire), changes.load(Acquire));
        let is_valid = nanos(now) < valid_until;
        if is_valid && cached >> 32 == u64::from(changes) {
            return ServingWeights {
                full: (cached & 0xffff_ffff) as u32,
                shared_parts: self.shared_parts.load(Acquire),
            };
        }
        self.recount(peers, changes, now)
    }

    /// The weight and the key space of the peers that take all their keys at `now`.
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

    /// Sums up all peers, and stores the sums unless a later moment was stored.
    #[cold]
    pub(super) fn recount(&self, peers: &[Peer], changes: u32, now: Duration) -> ServingWeights {
        let mut last = self.last_recount.lock();
        let weights = sum_weights(peers, now);
        if last.at <= now {
            last.at = now;
            self.valid_until.store(0, Release);
            if !last.is_replaced {
                for peer in peers {
                    peer.state.update_in_flight_total(now);
                }
            }
            self.shared_parts.store(weights.shared_parts, Release);
            let changes_and_full = u64::from(changes) << 32 | u64::from(weights.full);
            self.changes_and_full.store(changes_and_full, Release);
            let full = peers.iter().filter(|peer| peer.state.takes_all_keys(now));
            let key_space = full.map(|peer| peer.weighted_share.key_space).sum();
            self.key_space.store(key_space, Relaxed);
            self.valid_until
                .store(nanos(next_recount(peers, now)), Release);
        }
        weights
    }

    /// Stops recounts from excluding and including peers: a newer configuration does.
    pub(super) fn mark_replaced(&self) {
        self.last_recount.lock().is_replaced = true;
    }
}

/// The part of a peer's weight that shares the load at `now`.
#[inline]
pub(super) fn serving_parts(peer: &Peer, now: Duration) -> u32 {
    let total = u32::from(total_parts(peer.weight.get()));
    if peer.state.takes_all_keys(now) {
        return total;
    }
    match peer.state.slow_start(now) {
        Some(slow_start) if peer.state.is_available(now) => slow_start.scale(total, now),
        _ => 0,
    }
}

fn sum_weights(peers: &[Peer], now: Duration) -> ServingWeights {
    let full = peers.iter().filter(|peer| peer.state.takes_all_keys(now));
    let parts = peers.iter().map(|peer| serving_parts(peer, now));
    ServingWeights {
        full: full.map(|peer| u32::from(peer.weight.get())).sum(),
        shared_parts: parts.fold(0, u32::saturating_add),
    }
}

/// When the sums change next by time alone.
fn next_recount(peers: &[Peer], now: Duration) -> Duration {
    let available = peers.iter().filter(|peer| peer.state.is_available(now));
    let slow_starts = available.filter_map(|peer| peer.state.slow_start(now));
    let steps = slow_starts.map(|slow_start| {
        now.saturating_add(MIN_STEP.max(slow_start.duration / u32::from(PARTS_PER_WEIGHT)))
    });
    steps.chain([next_expiry(peers, now)]).min().unwrap_or(now)
}

/// The first end of an ejection, a suppression or a slow start.
fn next_expiry(peers: &[Peer], now: Duration) -> Duration {
    let off = peers
        .iter()
        .filter_map(|peer| peer.state.off_ring_until(now));
    let slow_starts = peers.iter().filter_map(|peer| peer.state.slow_start(now));
    let ends = off.chain(slow_starts.map(|window| window.start.saturating_add(window.duration)));
    ends.min().unwrap_or(Duration::MAX)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
