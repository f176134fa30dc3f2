//! Iterates over the distinct members in clockwise order, or in the order that a dialect has instead.

use super::hash::Hash;
use super::key::{HashedKey, KeyPosition};
use super::lookup::{LookupOrder, Ring};
use super::member::MemberId;
use super::nearest::OutwardCursor;

/// The most members of a ring for which a walk allocates nothing.
const INLINE_MEMBERS: usize = 1024;
const WORD_BITS: usize = u64::BITS as usize;

/// Every member of a ring once, in clockwise order from a key; made by [`Ring::walk`].
///
/// Allocates nothing on a ring of up to 1,024 members that has points.
#[derive(Clone, Debug)]
pub struct Walk<'a> {
    ring: &'a Ring,
    cursor: WalkCursor,
}

impl Ring {
    /// Iterates over the members in clockwise order from a key: the owner first, every member once.
    pub fn walk(&self, key: &HashedKey) -> Walk<'_> {
        Walk::new(self, key)
    }
}

impl<'a> Walk<'a> {
    fn new(ring: &'a Ring, key: &HashedKey) -> Self {
        Self {
            ring,
            cursor: WalkCursor::new(ring, key),
        }
    }
}

impl Iterator for Walk<'_> {
    type Item = MemberId;

    fn next(&mut self) -> Option<MemberId> {
        self.cursor.next(self.ring)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.cursor.remaining))
    }
}

impl std::iter::FusedIterator for Walk<'_> {}

/// A [`Walk`] that does not borrow its ring, so that one struct can own both.
#[derive(Clone, Debug)]
pub struct WalkCursor {
    source: MemberSource,
    /// The number of members not yet returned.
    remaining: usize,
    seen: MemberSet,
}

/// Where the members come from, with repetitions.
#[derive(Clone, Debug)]
enum MemberSource {
    Clockwise {
        /// The index of the next point.
        at: usize,
        /// The number of unvisited points.
        remaining: usize,
    },
    Outward(OutwardCursor),
    /// The members as ranked: the dialect has no points.
    Ranked(std::vec::IntoIter<MemberId>),
}

impl WalkCursor {
    /// Starts a walk of `ring` at `key`.
    pub fn new(ring: &Ring, key: &HashedKey) -> Self {
        Self {
            source: MemberSource::new(ring, key),
            remaining: ring.members(),
            seen: MemberSet::new(ring.members()),
        }
    }

    /// The next member. `ring` must be the ring that the cursor was made for; another ring's members come
    /// in no useful order.
    pub fn next(&mut self, ring: &Ring) -> Option<MemberId> {
        while self.remaining > 0 {
            // Members without points (too light for one) come after all others.
            let member = self
                .source
                .next_member(ring)
                .or_else(|| self.seen.first_missing(ring))?;
            if self.seen.insert(member) {
                self.remaining -= 1;
                return Some(member);
            }
        }
        None
    }
}

impl MemberSource {
    fn new(ring: &Ring, key: &HashedKey) -> Self {
        match &key.0 {
            KeyPosition::Hash(hash) => Self::from_hash(ring, *hash),
            KeyPosition::Scored(scores) => Self::Ranked(scores.walk().into_iter()),
        }
    }

    fn from_hash(ring: &Ring, hash: Hash) -> Self {
        match &ring.order {
            LookupOrder::Nearest(nearest) => Self::Outward(OutwardCursor::new(nearest, hash)),
            LookupOrder::Clockwise | LookupOrder::Rendezvous(_) => Self::Clockwise {
                at: ring.locate(hash).map_or(0, |(place, _)| ring.wrap(place)),
                remaining: ring.len(),
            },
        }
    }

    /// The owner of the next point.
    fn next_member(&mut self, ring: &Ring) -> Option<MemberId> {
        match (self, &ring.order) {
            (Self::Clockwise { at, remaining }, _) => {
                *remaining = remaining.checked_sub(1)?;
                let member = ring.index.owner(*at)?;
                *at = ring.wrap(*at + 1);
                Some(member)
            }
            (Self::Outward(outward), LookupOrder::Nearest(nearest)) => outward.next(nearest),
            (Self::Outward(_), _) => None,
            (Self::Ranked(members), _) => members.next(),
        }
    }
}

/// A set of members, one bit each.
#[derive(Clone, Debug)]
enum MemberSet {
    Inline([u64; INLINE_MEMBERS / WORD_BITS]),
    Heap(Vec<u64>),
}

impl MemberSet {
    fn new(members: usize) -> Self {
        if members <= INLINE_MEMBERS {
            Self::Inline([0; INLINE_MEMBERS / WORD_BITS])
        } else {
            Self::Heap(vec![0; members.div_ceil(WORD_BITS)])
        }
    }

    /// The member with the lowest number that is not in the set.
    fn first_missing(&self, ring: &Ring) -> Option<MemberId> {
        let words = match self {
            Self::Inline(words) => words.as_slice(),
            Self::Heap(words) => words,
        };
        let is_missing = |member: &MemberId| {
            let word = words.get(member.index() / WORD_BITS);
            word.is_some_and(|word| word >> (member.index() % WORD_BITS) & 1 == 0)
        };
        (0..ring.members).map(MemberId).find(is_missing)
    }

    /// Adds a member; false if it was in the set already.
    fn insert(&mut self, member: MemberId) -> bool {
        let words = match self {
            Self::Inline(words) => words.as_mut_slice(),
            Self::Heap(words) => words,
        };
        let bit = 1 << (member.index() % WORD_BITS);
        words
            .get_mut(member.index() / WORD_BITS)
            .is_some_and(|word| {
                let new = *word & bit == 0;
                *word |= bit;
                new
            })
    }
}
