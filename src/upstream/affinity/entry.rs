//! The layout of the affinity table: sets of eight entries, each one word.
//!
//! ```text
//!   hash ── mix ─┬─ set (8 entries, one cache line)
//!                └─ tag ── entry: tag (20 bits) | peer (16) | time of the last request (28, in units of 0.27 s)
//! ```
//!
//! Every access is `Relaxed`: an entry is one word and refers to no other memory.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::super::peer_epoch::PeerEpoch;

/// Entries of a set: one cache line.
pub(super) const WAYS: usize = 8;
/// The most sets of a table.
pub(super) const MAX_SETS: usize = 1 << 22;
/// The unit of time is 2^28 ns.
const TIME_UNIT_SHIFT: u32 = 28;

/// The entries in which a key can be.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct AffinitySet([AtomicU64; WAYS]);

impl AffinitySet {
    pub(super) fn entries(&self) -> impl Iterator<Item = AffinityEntry> {
        self.0.iter().map(AffinityEntry::load)
    }

    /// The entry of a key and its cell. All entries are compared without a branch: the position of the key is
    /// unpredictable, so a loop that ends at it would cost more by mispredictions than it saves.
    #[inline]
    pub(super) fn find(&self, hash: u64) -> Option<(&AtomicU64, AffinityEntry)> {
        let compare = |matches: u32, (index, cell)| {
            matches | u32::from(AffinityEntry::load(cell).matches_tag(hash)) << index
        };
        let matches = (0..).zip(&self.0).fold(0, compare);
        let cell = self.0.get(matches.trailing_zeros() as usize)?;
        // Another thread may have replaced the entry meanwhile.
        Some((cell, AffinityEntry::load(cell))).filter(|(_, entry)| entry.matches_tag(hash))
    }

    /// Replaces the oldest entry by a new key, unless another thread does; true if the oldest was active.
    #[cold]
    pub(super) fn insert(&self, entry: AffinityEntry, now: u32, idle: Duration) -> bool {
        let entries = self.0.iter().map(|cell| (AffinityEntry::load(cell), cell));
        // A vacant entry is older than any other.
        let age = |old: AffinityEntry| {
            if old.is_vacant() {
                u32::MAX
            } else {
                old.age(now)
            }
        };
        let Some((old, cell)) = entries.max_by_key(|(old, _)| age(*old)) else {
            return false;
        };
        let replaced = cell.compare_exchange(old.0, entry.0, Relaxed, Relaxed);
        replaced.is_ok() && old.is_active(now, idle)
    }
}

/// Packs the bits of a key's hash that a table with `sets` sets stores: the tag, and the index of the key's set. The
/// bit above the index marks the number of bits of the index. This restores the key in a table of the same size.
pub(super) const fn pack_key(entry: AffinityEntry, index: u64, sets: usize) -> u64 {
    entry.tag() | sets as u64 | index
}

/// The known part of the key's hash, and the number of sets of its table.
pub(super) fn unpack_key(packed: u64) -> (u64, usize) {
    let index = packed & !TAG_MASK & (2 * MAX_SETS as u64 - 1);
    let sets = 1 << index.checked_ilog2().unwrap_or(0);
    (
        packed & TAG_MASK | index & !sets,
        usize::try_from(sets).unwrap_or(1),
    )
}

/// Tag, peer and time, from the top. 0 is vacant: no entry has the time 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AffinityEntry(u64);

const TIME_BITS: u32 = 28;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;
/// How far a time can be ahead of `now`, in units: about a minute.
const MAX_CLOCK_SKEW: u64 = 256;
const TAG_MASK: u64 = !0 << (TIME_BITS + 16);

impl AffinityEntry {
    pub(super) const fn new(hash: u64, peer: PeerEpoch, now: u32) -> Self {
        Self(hash & TAG_MASK | (peer.0 as u64) << TIME_BITS | now as u64)
    }

    fn load(cell: &AtomicU64) -> Self {
        Self(cell.load(Relaxed))
    }

    pub(super) fn store(self, cell: &AtomicU64) {
        cell.store(self.0, Relaxed);
    }

    /// Vacates the cell, unless it holds another entry by now.
    pub(super) fn clear(self, cell: &AtomicU64) {
        let _ = cell.compare_exchange(self.0, 0, Relaxed, Relaxed);
    }

    pub(super) const fn is_vacant(self) -> bool {
        self.0 & TIME_MASK == 0
    }

    const fn matches_tag(self, hash: u64) -> bool {
        ((self.0 ^ hash) & TAG_MASK == 0) & !self.is_vacant()
    }

    const fn tag(self) -> u64 {
        self.0 & TAG_MASK
    }

    pub(super) const fn epoch(self) -> PeerEpoch {
        PeerEpoch((self.0 >> TIME_BITS & 0xffff) as u16)
    }

    /// The age in units, modulo 2^28. A time a little ahead of `now` has the age 0: another thread read the
    /// clock later.
    pub(super) const fn age(self, now: u32) -> u32 {
        let age = (now as u64).wrapping_sub(self.0) & TIME_MASK;
        if age > TIME_MASK - MAX_CLOCK_SKEW {
            0
        } else {
            age as u32
        }
    }

    pub(super) fn is_active(self, now: u32, idle: Duration) -> bool {
        !self.is_vacant() && u128::from(self.age(now)) <= idle.as_nanos() >> TIME_UNIT_SHIFT
    }
}

/// A time in units, modulo 2^28, never 0.
pub(super) fn to_units(now: Duration) -> u32 {
    let unit = (now.as_nanos() >> TIME_UNIT_SHIFT) & u128::from(TIME_MASK);
    u32::try_from(unit).unwrap_or_default().max(1)
}

pub(super) fn millis(units: u32) -> u64 {
    (u64::from(units) << TIME_UNIT_SHIFT) / 1_000_000
}
