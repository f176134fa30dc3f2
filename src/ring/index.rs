//! The sorted points, and a search in them that takes the same time for 3 members and for 1,000.
//!
//! A binary search over 160,000 points takes 17 steps with unpredictable branches: as long as the MD5 of
//! the key takes. Here the top bits of a hash choose a bucket, which has 4 to 8 points on average. The points
//! of the bucket that are below the hash are counted without a branch. The remaining branches are easy to
//! predict, so the processor computes the next key's MD5 while this lookup waits for memory.
//!
//! The table must fit into the L2 cache (160,000 points in less than 1 MiB): a miss costs as much time as
//! another MD5. So a point is 32 bits: 16 bits of its hash after the top bits, the *tail*, and 16 bits of
//! owner. If the tails of point and key are equal, or a bucket has more than [`WINDOW_POINTS`] points, a
//! binary search over the whole hashes follows: less than 1 % of the lookups on a ring of random points. It
//! also limits the cost if all points are in one bucket.
//!
//! ```text
//! hash ── top bits ──► starts[bucket] ── start ──► entries[start ..]: how many tails < tail?  n
//!                                                  entries[start + n]: the owner
//! ```

use super::member::MemberId;

/// The number of points that are compared together, in one or two cache lines.
const WINDOW_POINTS: usize = 16;
/// A bucket has at most 2 to this power points on average, and at least half of that: 4 to 8.
const BUCKET_POINTS_LOG2: u32 = 3;

/// Sorted points, without labels, weights or dialect.
#[derive(Clone, Debug)]
pub(super) struct Index {
    /// The number of points before each bucket, then the number of all points. Empty without points.
    bucket_starts: Box<[u32]>,
    /// The number of top bits that choose the bucket.
    bucket_bits: u32,
    /// The points, ascending, then [`WINDOW_POINTS`] more, from the first point on. So a hash after the last
    /// point finds the first, and a window is always complete. Empty without points.
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

/// The 16 bits of `hash` below its top `bits`.
const fn tail(hash: u32, bits: u32) -> u32 {
    (hash << bits) >> 16
}

impl Index {
    /// The most members that a ring can have.
    pub(super) const MAX_MEMBERS: usize = 1 << u16::BITS;

    /// `points` must be sorted by hash and have at most 2^31 entries.
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

    /// Finds the first point at or after `hash`: its position and owner. If `hash` is above the last point:
    /// the number of points, and the owner of the first point. `None` without points.
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

    /// The owner of the point at position `place`. The positions after the last point repeat the first points,
    /// [`WINDOW_POINTS`] of them.
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

    /// The number of consecutive points with this hash, from position `place` on.
    pub(super) fn run_length(&self, place: usize, hash: u32) -> usize {
        let rest = self.hashes.get(place..).unwrap_or_default();
        rest.iter().take_while(|point| **point == hash).count()
    }

    /// [`Self::locate`] by a binary search over the whole hashes.
    #[cold]
    #[inline(never)]
    fn binary_search(&self, hash: u32) -> Option<(usize, MemberId)> {
        let place = self.hashes.partition_point(|point| *point < hash);
        Some((place, self.owner(place)?))
    }
}

/// Computes [`Index::bucket_starts`] for buckets of the top `bits`; `points` are sorted.
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
