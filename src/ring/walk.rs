//! The distinct members in clockwise order.

use super::{Hash, MemberId, Ring};

/// Members that a walk remembers without an allocation.
const INLINE: usize = 1024;
const WORD: usize = u64::BITS as usize;

/// Every member of a ring once, in clockwise order from a hash; made by [`Ring::walk`].
///
/// Allocates nothing on a ring of up to 1,024 members.
#[derive(Clone, Debug)]
pub struct Walk<'a> {
    ring: &'a Ring,
    cursor: Cursor,
}

impl<'a> Walk<'a> {
    pub(super) fn new(ring: &'a Ring, hash: Hash) -> Self {
        Self {
            ring,
            cursor: Cursor::new(ring, hash),
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
    /// The place of the next point.
    at: usize,
    /// Points that were not looked at yet.
    round: usize,
    /// Members that were not seen yet.
    left: usize,
    seen: Seen,
}

impl Cursor {
    /// A walk of `ring` from `hash`.
    pub fn new(ring: &Ring, hash: Hash) -> Self {
        let at = ring.locate(hash).map_or(0, |(place, _)| ring.wrap(place));
        Self {
            at,
            round: ring.len(),
            left: ring.members(),
            seen: Seen::new(ring.members()),
        }
    }

    /// The next member. `ring` must be the one that the cursor was made for; another gives its
    /// members in no useful order.
    pub fn next(&mut self, ring: &Ring) -> Option<MemberId> {
        while self.left > 0 && self.round > 0 {
            let member = self.step(ring)?;
            if self.seen.insert(member) {
                self.left -= 1;
                return Some(member);
            }
        }
        None
    }

    /// The owner of the next point.
    fn step(&mut self, ring: &Ring) -> Option<MemberId> {
        let member = ring.index.owner(self.at)?;
        self.round -= 1;
        self.at = ring.wrap(self.at + 1);
        Some(member)
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
