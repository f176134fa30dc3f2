//! Points that own the hashes on both sides of them (dialect `haproxy`).
//!
//! A hash belongs to the nearest point; of two at the same distance, to the one before it. With all
//! members up, every arc ends half-way between two points, and the index searches these ends as in any
//! other dialect. With a member down the arcs differ, so after the owner is refused, the points
//! themselves are searched outward from the hash.

use super::hash::{Hash, low_half};
use super::member::MemberId;

/// The points themselves (not the ends of their arcs), ascending.
#[derive(Clone, Debug)]
pub(super) struct NearestPoints {
    points: Box<[(u32, u16)]>,
}

impl NearestPoints {
    pub(super) fn new(points: &[(u32, u16)]) -> Self {
        Self {
            points: points.into(),
        }
    }

    /// Keeps the points of the members that are up.
    pub(super) fn of_members(&self, is_up: impl Fn(MemberId) -> bool) -> Self {
        let points = self.points.iter().copied();
        Self {
            points: points
                .filter(|(_, owner)| is_up(MemberId((*owner).into())))
                .collect(),
        }
    }

    /// The ends of the arcs, ascending: half-way between a point and the next. The arc of the last point
    /// may end beyond hash 0; its end then comes first.
    pub(super) fn arc_ends(&self) -> Vec<(u32, u16)> {
        let following = self.points.iter().cycle().skip(1);
        let end = |(point, next): (&(u32, u16), &(u32, u16))| {
            let half = distance(point.0, next.0) / 2;
            (point.0.wrapping_add(half), point.1)
        };
        let mut ends: Vec<_> = self.points.iter().zip(following).map(end).collect();
        if let ([first, ..], [.., last], [.., end]) = (&*self.points, &*self.points, &mut *ends)
            && first.0 == last.0
        {
            // All points have one hash: from the last to the first is the whole circle.
            end.0 = last.0.wrapping_add(1 << 31);
        }
        if let ([.., before, last], [_, _, ..]) = (&*ends, &*self.points)
            && last.0 < before.0
        {
            ends.rotate_right(1);
        }
        ends
    }

    /// The owners of all points, the nearest to `hash` first.
    pub(super) fn owners_outward(&self, hash: Hash) -> impl Iterator<Item = MemberId> {
        let mut outward = OutwardCursor::new(self, hash);
        std::iter::from_fn(move || outward.next(self))
    }
}

/// A search outward from a hash, point by point. Does not borrow the points.
#[derive(Clone, Debug)]
pub(super) struct OutwardCursor {
    hash: u32,
    /// The index of the next unseen point at or after the hash.
    after: usize,
    /// The index of the next unseen point before the hash.
    before: usize,
    /// The number of unseen points.
    remaining: usize,
}

impl OutwardCursor {
    pub(super) fn new(nearest: &NearestPoints, hash: Hash) -> Self {
        let (count, hash) = (nearest.points.len(), low_half(hash.0));
        let after = nearest.points.partition_point(|(point, _)| *point < hash);
        Self {
            hash,
            after: if after == count { 0 } else { after },
            before: after.checked_sub(1).unwrap_or(count.saturating_sub(1)),
            remaining: count,
        }
    }

    /// The owner of the next point. `nearest` must be the value that the cursor was made for.
    pub(super) fn next(&mut self, nearest: &NearestPoints) -> Option<MemberId> {
        self.remaining = self.remaining.checked_sub(1)?;
        let points = &nearest.points;
        let (before, after) = (points.get(self.before)?, points.get(self.after)?);
        // A point at the hash itself counts as a whole circle before it: distance 0 - 1 wraps.
        let back = distance(before.0, self.hash).wrapping_sub(1);
        let owner = if back < distance(self.hash, after.0) {
            self.before = self.before.checked_sub(1).unwrap_or(points.len() - 1);
            before.1
        } else {
            self.after = (self.after + 1) % points.len();
            after.1
        };
        Some(MemberId(owner.into()))
    }
}

/// The clockwise distance, mod 2^32.
const fn distance(from: u32, to: u32) -> u32 {
    to.wrapping_sub(from)
}
