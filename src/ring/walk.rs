//! The distinct members in clockwise order, or in the order that a dialect has instead.

use super::hash::Hash;
use super::key::{HashedKey, KeyPosition};
use super::lookup::{LookupOrder, Ring};
use super::member::MemberId;
use super::nearest::OutwardCursor;

/// Members that a walk remembers without an allocation.
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
    /// The distinct members in clockwise order from a key: the owner first, every member once.
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

/// A [`Walk`] that does not hold its ring, for those who own both.
#[derive(Clone, Debug)]
pub struct WalkCursor {
    source: MemberSource,
    /// Members that were not seen yet.
    remaining: usize,
    seen: MemberSet,
}

/// From point to point.
#[derive(Clone, Debug)]
enum MemberSource {
    Clockwise {
        /// The place of the next point.
        at: usize,
        /// Points that were not looked at yet.
        round: usize,
    },
    Outward(OutwardCursor),
    /// There are no points.
    Ranked(std::vec::IntoIter<MemberId>),
}

impl WalkCursor {
    /// A walk of `ring` from `key`.
    pub fn new(ring: &Ring, key: &HashedKey) -> Self {
        Self {
            source: MemberSource::new(ring, key),
            remaining: ring.members(),
            seen: MemberSet::new(ring.members()),
        }
    }

    /// The next member. `ring` must be the one that the cursor was made for; another gives its
    /// members in no useful order.
    pub fn next(&mut self, ring: &Ring) -> Option<MemberId> {
        while self.remaining > 0 {
            // Who is too light for a point comes after all who have one.
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
            KeyPosition::Scored(ranking) => Self::Ranked(ranking.walk().into_iter()),
        }
    }

    fn from_hash(ring: &Ring, hash: Hash) -> Self {
        match &ring.order {
            LookupOrder::Nearest(nearest) => Self::Outward(OutwardCursor::new(nearest, hash)),
            LookupOrder::Clockwise | LookupOrder::Rendezvous(_) => Self::Clockwise {
                at: ring.locate(hash).map_or(0, |(place, _)| ring.wrap(place)),
                round: ring.len(),
            },
        }
    }

    /// The owner of the next point.
    fn next_member(&mut self, ring: &Ring) -> Option<MemberId> {
        match (self, &ring.order) {
            (Self::Clockwise { at, round }, _) => {
                *round = round.checked_sub(1)?;
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

    /// The first member of the ring that is not in the set.
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

    /// True where the member is new to the set.
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
