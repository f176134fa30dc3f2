//! The distinct members in clockwise order, or in the order that a dialect has instead.

use super::key::{Hash, Key, Place};
use super::nearest::Outward;
use super::{MemberId, Order, Ring};

/// Members that a walk remembers without an allocation.
const INLINE: usize = 1024;
const WORD: usize = u64::BITS as usize;

/// Every member of a ring once, in clockwise order from a key; made by [`Ring::walk`].
///
/// Allocates nothing on a ring of up to 1,024 members that has points.
#[derive(Clone, Debug)]
pub struct Walk<'a> {
    ring: &'a Ring,
    cursor: Cursor,
}

impl<'a> Walk<'a> {
    pub(super) fn new(ring: &'a Ring, key: &Key) -> Self {
        Self {
            ring,
            cursor: Cursor::new(ring, key),
        }
    }
}

impl Iterator for Walk<'_> {
    type Item = MemberId;

    fn next(&mut self) -> Option<MemberId> {
        self.cursor.next(self.ring)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.cursor.left))
    }
}

impl std::iter::FusedIterator for Walk<'_> {}

/// A [`Walk`] that does not hold its ring, for those who own both.
#[derive(Clone, Debug)]
pub struct Cursor {
    way: Way,
    /// Members that were not seen yet.
    left: usize,
    seen: Seen,
}

/// From point to point.
#[derive(Clone, Debug)]
enum Way {
    Clockwise {
        /// The place of the next point.
        at: usize,
        /// Points that were not looked at yet.
        round: usize,
    },
    Outward(Outward),
    /// There are no points.
    Down(std::vec::IntoIter<MemberId>),
}

impl Cursor {
    /// A walk of `ring` from `key`.
    pub fn new(ring: &Ring, key: &Key) -> Self {
        Self {
            way: Way::new(ring, key),
            left: ring.members(),
            seen: Seen::new(ring.members()),
        }
    }

    /// The next member. `ring` must be the one that the cursor was made for; another gives its
    /// members in no useful order.
    pub fn next(&mut self, ring: &Ring) -> Option<MemberId> {
        while self.left > 0 {
            // Who is too light for a point comes after all who have one.
            let member = self.way.step(ring).or_else(|| self.seen.missing(ring))?;
            if self.seen.insert(member) {
                self.left -= 1;
                return Some(member);
            }
        }
        None
    }
}

impl Way {
    fn new(ring: &Ring, key: &Key) -> Self {
        match &key.0 {
            Place::Hash(hash) => Self::along(ring, *hash),
            Place::Ranked(ranking) => Self::Down(ranking.walk().into_iter()),
        }
    }

    fn along(ring: &Ring, hash: Hash) -> Self {
        match &ring.order {
            Order::Nearest(nearest) => Self::Outward(Outward::new(nearest, hash)),
            Order::Clockwise | Order::Scores(_) => Self::Clockwise {
                at: ring.locate(hash).map_or(0, |(place, _)| ring.wrap(place)),
                round: ring.len(),
            },
        }
    }

    /// The owner of the next point.
    fn step(&mut self, ring: &Ring) -> Option<MemberId> {
        match (self, &ring.order) {
            (Self::Clockwise { at, round }, _) => {
                *round = round.checked_sub(1)?;
                let member = ring.index.owner(*at)?;
                *at = ring.wrap(*at + 1);
                Some(member)
            }
            (Self::Outward(outward), Order::Nearest(nearest)) => outward.next(nearest),
            (Self::Outward(_), _) => None,
            (Self::Down(members), _) => members.next(),
        }
    }
}

/// A set of members, one bit each.
#[derive(Clone, Debug)]
enum Seen {
    Inline([u64; INLINE / WORD]),
    Heap(Vec<u64>),
}

impl Seen {
    fn new(members: usize) -> Self {
        if members <= INLINE {
            Self::Inline([0; INLINE / WORD])
        } else {
            Self::Heap(vec![0; members.div_ceil(WORD)])
        }
    }

    /// The first member of the ring that is not in the set.
    fn missing(&self, ring: &Ring) -> Option<MemberId> {
        let words = match self {
            Self::Inline(words) => words.as_slice(),
            Self::Heap(words) => words,
        };
        let is_missing = |member: &MemberId| {
            let word = words.get(member.index() / WORD);
            word.is_some_and(|word| word >> (member.index() % WORD) & 1 == 0)
        };
        (0..ring.members).map(MemberId).find(is_missing)
    }

    /// True where the member is new to the set.
    fn insert(&mut self, member: MemberId) -> bool {
        let words = match self {
            Self::Inline(words) => words.as_mut_slice(),
            Self::Heap(words) => words,
        };
        let bit = 1 << (member.index() % WORD);
        words.get_mut(member.index() / WORD).is_some_and(|word| {
            let new = *word & bit == 0;
            *word |= bit;
            new
        })
    }
}
