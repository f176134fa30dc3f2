//! The ring: labels and weights in, indices out.
//!
//! Every member puts points on the circle of 2^32 hashes; a key is hashed onto the same circle and
//! belongs to the member of the next point clockwise. Which points a label gets and how a key is
//! hashed is a [`Dialect`]; everything else here is the same for all of them.
//!
//! ```
//! use clockwise::ring::{Dialect, Ring, Weight};
//!
//! let ring = Ring::new(Dialect::default(), [("a:80", Weight::ONE), ("b:80", Weight::ONE)])?;
//! let hash = ring.hash(b"some key");
//! let owner = ring.owner(hash);
//! let next = ring.find(hash, |member| Some(member) != owner);
//! assert_ne!(owner, next);
//! # Ok::<(), clockwise::ring::Error>(())
//! ```
//!
//! The ring knows no addresses, no health and no load. A member that is down stays on it and is
//! stepped over by [`Ring::find`]; that gives the same answer as a ring built without it, so a
//! flip of health costs no rebuild.
//!
//! Invariants:
//! * the ring is a function of the *set* of members: their order changes the [`MemberId`]s, never
//!   the label that an answer stands for;
//! * points on one hash are all kept, the smallest label first;
//! * a lookup allocates nothing and costs the same for any number of points.

mod circle;
mod dialect;
mod diff;
mod digest;
mod index;
mod ketama;
mod label;
mod walk;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::num::NonZeroU16;

pub use dialect::Dialect;
pub use diff::{Move, overlay};
use index::Index;
pub use walk::{Cursor, Walk};

/// How much of the key space a member gets, relative to the others: 1 ..= 256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weight(NonZeroU16);

impl Weight {
    /// The smallest weight, and the default.
    pub const ONE: Self = Self(NonZeroU16::MIN);
    /// The largest weight.
    pub const MAX: Self = Self(NonZeroU16::MIN.saturating_add(255));

    /// A weight; `None` outside 1 ..= 256.
    pub fn new(weight: u16) -> Option<Self> {
        NonZeroU16::new(weight)
            .map(Self)
            .filter(|w| *w <= Self::MAX)
    }

    /// The weight as a number.
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

impl Default for Weight {
    fn default() -> Self {
        Self::ONE
    }
}

/// A member of a ring: its place in the order in which the members were given, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u32);

impl MemberId {
    /// The same, to index a slice with.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A place on the circle of 2^32 hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub u32);

/// Why a ring cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Two members have the same label.
    #[error("the label `{0}` is given to two members; give one of them a label of its own")]
    DuplicateLabel(String),
    /// There are more than [`Ring::MAX_MEMBERS`] members.
    #[error("the ring would have {0} members, at most {max} are possible", max = Ring::MAX_MEMBERS)]
    TooManyMembers(usize),
    /// The members' weights ask for more than [`Ring::MAX_POINTS`] points.
    #[error(
        "the ring would have {0} points, at most {max} are possible; divide the weights by a \
         common factor or ask for fewer points",
        max = Ring::MAX_POINTS
    )]
    TooManyPoints(u64),
    /// The dialect's number is out of its bounds.
    #[error("`{0:?}` is out of bounds")]
    Dialect(Dialect),
}

/// All points of all members, sorted, with an index for lookups that cost the same at any size.
#[derive(Clone, Debug)]
pub struct Ring {
    dialect: Dialect,
    /// How far a hash is turned clockwise before the search for the first point at or after it.
    turn: u32,
    members: u32,
    index: Index,
}

impl Ring {
    /// The most points that a ring can have, 2^26: about 1 GiB. The bound turns a slip in the
    /// weights of a large upstream into an error before it turns into an empty machine.
    pub const MAX_POINTS: u32 = 1 << 26;

    /// The most members that a ring can have, 2^16.
    pub const MAX_MEMBERS: usize = Index::MAX_MEMBERS;

    /// Builds the ring of the given labels and weights. No members make an empty ring.
    pub fn new<'a>(
        dialect: Dialect,
        members: impl IntoIterator<Item = (&'a str, Weight)>,
    ) -> Result<Self, Error> {
        let members: Vec<_> = members.into_iter().collect();
        check_members(&members)?;
        let total = check_total(dialect, &members)?;
        let mut points = Vec::with_capacity(total as usize);
        for (member, (label, weight)) in (0..=u16::MAX).zip(&members) {
            dialect.place(label, *weight, &mut |hash| points.push((hash, member)));
        }
        let labels: Vec<_> = members.into_iter().map(|(label, _)| label).collect();
        Ok(Self::from_points(dialect, &labels, points))
    }

    /// The ring of no members.
    pub fn empty() -> Self {
        Self::from_points(Dialect::default(), &[], Vec::new())
    }

    /// The ring of these points, each a hash and its owner's place among the labels.
    fn from_points(dialect: Dialect, labels: &[&str], points: Vec<(u32, u16)>) -> Self {
        Self {
            dialect,
            turn: dialect.turn(),
            members: u32::try_from(labels.len()).unwrap_or(u32::MAX),
            index: Index::new(&sorted(labels, points)),
        }
    }

    /// The hash of a key.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> Hash {
        self.dialect.hash(key)
    }

    /// The member that a hash belongs to; `None` where the ring is empty.
    #[inline]
    pub fn owner(&self, hash: Hash) -> Option<MemberId> {
        let (_, owner) = self.locate(hash)?;
        Some(owner)
    }

    /// The first member clockwise from a hash for which `accept` is true; `None` where it is true
    /// for none.
    ///
    /// `accept` is asked about the owner first, and may be asked about a member more than once. One
    /// round of the points ends the search.
    #[inline]
    pub fn find(&self, hash: Hash, mut accept: impl FnMut(MemberId) -> bool) -> Option<MemberId> {
        let (at, owner) = self.locate(hash)?;
        if accept(owner) {
            return Some(owner);
        }
        self.find_after(at, accept)
    }

    /// The distinct members in clockwise order from a hash: the owner first, every member once.
    pub fn walk(&self, hash: Hash) -> Walk<'_> {
        Walk::new(self, hash)
    }

    /// How many of the 2^32 hashes belong to each member, by [`MemberId`]. They add up to 2^32,
    /// but for an empty ring, which has no shares.
    pub fn shares(&self) -> Vec<u64> {
        let mut shares = vec![0; self.members()];
        let mut before = self
            .index
            .last()
            .map_or(0, |last| i64::from(last) - (1 << 32));
        for (hash, owner) in self.points() {
            if let Some(share) = shares.get_mut(owner.index()) {
                *share += i64::from(hash).abs_diff(before);
            }
            before = i64::from(hash);
        }
        shares
    }

    /// All points in clockwise order from 0, each with its owner.
    pub fn points(&self) -> impl ExactSizeIterator<Item = (u32, MemberId)> {
        self.index.points()
    }

    /// The number of points.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// True where there is no point, so that no hash has an owner.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of members.
    pub const fn members(&self) -> usize {
        self.members as usize
    }

    /// How labels and keys are placed.
    pub const fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The place of the point that owns a hash, and its member.
    #[inline]
    fn locate(&self, hash: Hash) -> Option<(usize, MemberId)> {
        self.index.locate(hash.0.wrapping_add(self.turn))
    }

    /// A place one past the last point is the first point's.
    fn wrap(&self, place: usize) -> usize {
        if place < self.len() { place } else { 0 }
    }

    /// The members of the points after the one at `at`, one round, that one last.
    fn clockwise(&self, at: usize) -> impl Iterator<Item = MemberId> {
        let places = (at + 1..self.len()).chain(0..=at);
        places.filter_map(|place| self.index.owner(place))
    }

    /// [`Self::find`] once the point at `at` was refused.
    ///
    /// Few refusals are settled within a few steps. After as many steps as there are members it is
    /// more likely that all refuse, which asking each of them once settles; so a search in which
    /// nobody accepts ends after 2 questions per member, not after a round of all points.
    #[cold]
    #[inline(never)]
    fn find_after(&self, at: usize, mut accept: impl FnMut(MemberId) -> bool) -> Option<MemberId> {
        let mut rest = self.clockwise(self.wrap(at));
        let near = rest
            .by_ref()
            .take(self.members())
            .find(|member| accept(*member));
        if near.is_some() {
            return near;
        }
        if !(0..self.members).map(MemberId).any(&mut accept) {
            return None;
        }
        rest.find(|member| accept(*member))
    }
}

/// Labels must differ: two members of one label would have the same points.
fn check_members(members: &[(&str, Weight)]) -> Result<(), Error> {
    if members.len() > Ring::MAX_MEMBERS {
        return Err(Error::TooManyMembers(members.len()));
    }
    let mut seen = HashSet::with_capacity(members.len());
    match members.iter().find(|(label, _)| !seen.insert(*label)) {
        Some((label, _)) => Err(Error::DuplicateLabel((*label).to_owned())),
        None => Ok(()),
    }
}

/// The number of points of all members.
fn check_total(dialect: Dialect, members: &[(&str, Weight)]) -> Result<u32, Error> {
    if !dialect.is_valid() {
        return Err(Error::Dialect(dialect));
    }
    let weight: u64 = members
        .iter()
        .map(|(_, weight)| u64::from(weight.get()))
        .sum();
    let total = weight * u64::from(dialect.points_per_weight());
    let fits = u32::try_from(total)
        .ok()
        .filter(|total| *total <= Ring::MAX_POINTS);
    fits.ok_or(Error::TooManyPoints(total))
}

/// The points by hash, those of one hash by label.
///
/// Each is packed into one word, hash above rank of the label, which sorts several times faster
/// than pairs with a label to compare.
fn sorted(labels: &[&str], points: Vec<(u32, u16)>) -> Vec<(u32, u16)> {
    let mut by_label: Vec<_> = (0..=u16::MAX).zip(labels).collect();
    by_label.sort_unstable_by_key(|(_, label)| **label);
    let mut ranks = vec![0; labels.len()];
    for (rank, (member, _)) in (0_u64..).zip(&by_label) {
        if let Some(place) = ranks.get_mut(usize::from(*member)) {
            *place = rank;
        }
    }
    let pack = |(hash, member): (u32, u16)| {
        let rank = ranks.get(usize::from(member))?;
        Some(u64::from(hash) << 32 | rank)
    };
    let mut packed: Vec<_> = points.into_iter().filter_map(pack).collect();
    packed.sort_unstable();
    let unpack = |word: u64| {
        let (rank, hash) = split(word);
        by_label
            .get(rank as usize)
            .map(|(member, _)| (hash, *member))
    };
    packed.into_iter().filter_map(unpack).collect()
}

/// A packed point's rank and hash.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the word is these two halves"
)]
const fn split(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}
