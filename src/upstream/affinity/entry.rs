//! One entry of the table, and a set of them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::super::peer_epoch::PeerEpoch;

/// Entries that a key can be in: one cache line.
pub(super) const WAYS: usize = 8;
/// The most sets of a table.
pub(super) const MAX_SETS: usize = 1 << 22;
/// A unit of time is 2^28 ns.
const TIME_UNIT_SHIFT: u32 = 28;

#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct AffinitySet([AtomicU64; WAYS]);

impl AffinitySet {
    pub(super) fn entries(&self) -> impl Iterator<Item = AffinityEntry> {
        self.0.iter().map(AffinityEntry::load)
    }

    /// All entries are looked at, and then it is decided: where among them a key is cannot be foretold, so a
    /// loop that ends there costs more than the looks that it saves.
    #[inline]
    pub(super) fn find(&self, hash: u64) -> Option<(&AtomicU64, AffinityEntry)> {
        let look = |found: u32, (place, cell)| {
            found | u32::from(AffinityEntry::load(cell).matches_tag(hash)) << place
        };
        let found = (0..).zip(&self.0).fold(0, look);
        let cell = self.0.get(found.trailing_zeros() as usize)?;
        // Another thread may have taken its place since.
        Some((cell, AffinityEntry::load(cell))).filter(|(_, entry)| entry.matches_tag(hash))
    }

    /// Puts a new key in the place of the oldest, if nobody else does; true: that was active.
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
        let is_new = cell.compare_exchange(old.0, entry.0, Relaxed, Relaxed);
        is_new.is_ok() && old.is_active(now, idle)
    }
}

/// All that a table of so many sets knows of a key: its tag, and its place with a one above it, which tells
/// how much of the hash that is.
pub(super) const fn pack_key(entry: AffinityEntry, place: u64, sets: usize) -> u64 {
    entry.tag() | sets as u64 | place
}

/// That much of the key's hash, and the number of sets.
pub(super) fn unpack_key(known: u64) -> (u64, usize) {
    let place = known & !TAG_MASK & (2 * MAX_SETS as u64 - 1);
    let sets = 1 << place.checked_ilog2().unwrap_or(0);
    (
        known & TAG_MASK | place & !sets,
        usize::try_from(sets).unwrap_or(1),
    )
}

/// Tag, peer and time, from the top. 0 is vacant, as no entry has the time 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AffinityEntry(u64);

const TIME_BITS: u32 = 28;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;
/// How far ahead of now a time can be, in units: a minute.
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

    /// In units, around the circle of times. Another thread may have read the clock a little later.
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

/// Time in units, around their circle without 0.
pub(super) fn to_units(now: Duration) -> u32 {
    let unit = (now.as_nanos() >> TIME_UNIT_SHIFT) & u128::from(TIME_MASK);
    u32::try_from(unit).unwrap_or_default().max(1)
}

pub(super) fn millis(units: u32) -> u64 {
    (u64::from(units) << TIME_UNIT_SHIFT) / 1_000_000
}
