//! The sorted points, and a search among them that costs the same for 3 members and for 1,000.
//!
//! A binary search over 160,000 points takes 17 steps, each a branch that cannot be predicted: as
//! much time as the MD5 before it. Here the top bits of a hash choose a bucket of 4 to 8 points,
//! and the points in it that lie below the hash are counted without a branch. No branch depends on
//! the hash, so the processor computes the next key's digest while this lookup waits for memory.
//!
//! What it waits for must be small enough for the cache beside the core (160,000 points in less
//! than 1 MiB), for a miss there costs as much as the MD5 again. So a point is one word: the 16
//! bits of its hash below the top bits, its *tail*, and 16 bits of owner. Whatever the two cannot
//! decide is left to a binary search over the whole hashes, a few times in a thousand lookups: a
//! tail equal to the hash's, and a bucket with more than [`WINDOW`] points. It also bounds the cost
//! for points that an enemy chose.
//!
//! ```text
//! hash ── top bits ──► starts[bucket] ── place ──► entries[place ..]: how many tails < tail?  n
//!                                                  entries[place + n]: the owner
//! ```

use super::member::MemberId;

/// Points that are compared at once, in one or two cache lines.
const WINDOW_POINTS: usize = 16;
/// A bucket for every 4 to 8 points.
const BUCKET_POINTS_LOG2: u32 = 3;

/// Sorted points. It knows nothing of labels, weights or dialects.
#[derive(Clone, Debug)]
pub(super) struct Index {
    /// The number of points before each bucket, and of all of them. Empty without points.
    bucket_starts: Box<[u32]>,
    /// How many top bits choose the bucket.
    bucket_bits: u32,
    /// The points, ascending; then [`WINDOW`] times the first, to which the hashes after the last
    /// belong. Empty without points.
    entries: Box<[PackedPoint]>,
    /// The points' hashes, ascending.
    hashes: Box<[u32]>,
}

/// A point's tail and owner.
#[derive(Clone, Copy, Debug)]
struct PackedPoint(u32);

impl PackedPoint {
    fn new(hash: u32, owner: u16, bits: u32) -> Self {
        Self(tail(hash, bits) << 16 | u32::from(owner))
    }

    const fn tail(self) -> u32 {
        self.0 >> 16
    }

    const fn owner(self) -> MemberId {
        MemberId(self.0 & 0xffff)
    }
}

/// The 16 bits below the top bits.
const fn tail(hash: u32, bits: u32) -> u32 {
    (hash << bits) >> 16
}

impl Index {
    /// The most members that a ring can have.
    pub(super) const MAX_MEMBERS: usize = 1 << u16::BITS;

    /// The points must be sorted by hash, and be 2^31 or fewer.
    pub(super) fn new(points: &[(u32, u16)]) -> Self {
        let bits = points.len().next_power_of_two().ilog2();
        let bits = bits.saturating_sub(BUCKET_POINTS_LOG2).max(1);
        let entries = points
            .iter()
            .map(|(hash, owner)| PackedPoint::new(*hash, *owner, bits));
        let first = entries.clone().cycle().take(WINDOW_POINTS);
        Self {
            bucket_starts: bucket_starts(points, bits),
            bucket_bits: bits,
            entries: entries.clone().chain(first).collect(),
            hashes: points.iter().map(|(hash, _)| *hash).collect(),
        }
    }

    /// The first point at or after `hash`: its place, or the number of points where there is none,
    /// and its owner, or the first point's.
    #[inline]
    pub(super) fn locate(&self, hash: u32) -> Option<(usize, MemberId)> {
        let bucket = (hash >> (u32::BITS - self.bucket_bits)) as usize;
        let [start, end] = *self.bucket_starts.get(bucket..)?.first_chunk()?;
        let window = self
            .entries
            .get(start as usize..)?
            .first_chunk::<WINDOW_POINTS>()?;
        let tail = tail(hash, self.bucket_bits);
        let below: u32 = window
            .iter()
            .zip(start..)
            .map(|(entry, place)| u32::from(place < end && entry.tail() < tail))
            .sum();
        let place = start + below;
        let entry = *self.entries.get(place as usize)?;
        if entry.tail() == tail || (end - start) as usize > WINDOW_POINTS {
            return self.binary_search(hash);
        }
        Some((place as usize, entry.owner()))
    }

    /// The owner of the point at `place`; after the last point the first comes once more.
    #[inline]
    pub(super) fn owner(&self, place: usize) -> Option<MemberId> {
        self.entries.get(place).map(|entry| entry.owner())
    }

    /// All points, ascending.
    pub(super) fn points(&self) -> impl ExactSizeIterator<Item = (u32, MemberId)> {
        let owners = self.entries.iter().map(|entry| entry.owner());
        self.hashes.iter().copied().zip(owners)
    }

    /// The number of points.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.hashes.len()
    }

    /// How many points from `place` on lie on this hash.
    pub(super) fn run_length(&self, place: usize, hash: u32) -> usize {
        let rest = self.hashes.get(place..).unwrap_or_default();
        rest.iter().take_while(|point| **point == hash).count()
    }

    /// [`Self::locate`] by the whole hashes.
    #[cold]
    #[inline(never)]
    fn binary_search(&self, hash: u32) -> Option<(usize, MemberId)> {
        let place = self.hashes.partition_point(|point| *point < hash);
        Some((place, self.owner(place)?))
    }
}

/// [`Index::starts`].
fn bucket_starts(points: &[(u32, u16)], bits: u32) -> Box<[u32]> {
    if points.is_empty() {
        return Box::default();
    }
    let mut place = 0;
    let mut buckets = points
        .iter()
        .map(|(hash, _)| hash >> (u32::BITS - bits))
        .peekable();
    let before = |bucket| {
        while buckets.next_if(|point| *point < bucket).is_some() {
            place += 1;
        }
        place
    };
    (0..=1 << bits).map(before).collect()
}
