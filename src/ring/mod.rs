//! The ring: labels and weights in, indices out.
//!
//! Every member puts points on the circle of 2^32 hashes; a key is hashed onto the same circle and
//! belongs to the member of the next point clockwise. Which points a member gets and how a key is
//! hashed is a [`Dialect`]; everything else here is the same for all of them. Some dialects, which place
//! keys as another system does, have hashes of 64 bits, or look for the *nearest* point, or have no
//! points at all; then "clockwise" means the order in which that system goes on.
//!
//! ```
//! use clockwise::ring::{Dialect, Ring, Weight};
//!
//! let ring = Ring::new(Dialect::default(), [("a:80", Weight::ONE), ("b:80", Weight::ONE)])?;
//! let key = ring.key(b"some key");
//! let owner = ring.owner(&key);
//! let next = ring.find(&key, |member| Some(member) != owner);
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
//!   the label that an answer stands for; but for dialects of systems in which the order counts;
//! * points on one hash are all kept, the smallest name first; but where another system does not;
//! * a lookup allocates nothing and costs the same for any number of points; where there are none, it is
//!   the key that costs something for each member, once.

mod build;
mod dialect;
mod index;
mod key;
mod md5;
mod nearest;
mod overlay;
mod rendezvous;
mod shares;
mod walk;

#[cfg(test)]
mod tests;

use std::num::NonZeroU16;

use build::SortedPoints;
use dialect::OwnerRule;
pub use dialect::{Dialect, DialectOptionValue, ats, caddy, envoy, haproxy, twemproxy, varnish};
use index::Index;
use key::KeyPosition;
pub use key::{Hash, HashedKey};
use nearest::NearestPoints;
pub use overlay::{OverlayRun, overlay, overlay_available};
use rendezvous::Rendezvous;
pub use walk::{Walk, WalkCursor};

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

/// A member as it is given to the ring; a label and a weight are enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// Its name among the members.
    pub label: &'a str,
    /// What the dialect hashes for it, where that is not the label.
    pub id: Option<&'a str>,
    /// How much of the key space it gets.
    pub weight: Weight,
}

impl<'a> From<(&'a str, Weight)> for Member<'a> {
    fn from((label, weight): (&'a str, Weight)) -> Self {
        Self {
            label,
            id: None,
            weight,
        }
    }
}

/// Stands between the parts of a key that some dialects hash one by one: the unit separator of ASCII,
/// which no header field can have (RFC 9110 §5.5).
pub const KEY_PART_SEPARATOR: u8 = 0x1f;

/// Why a ring cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Two members have the same label or id, so that they would have the same points.
    #[error("`{0}` places two members; give one of them a label or an id of its own")]
    DuplicateMember(String),
    /// A member's id is none that its dialect can hash.
    #[error("the id `{0}` is not a number from 1 to {max}", max = haproxy::Haproxy::MAX_ID)]
    InvalidId(String),
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
    /// An option of the dialect is out of its bounds.
    #[error("`{0:?}` is out of bounds")]
    InvalidOptions(Dialect),
}

/// All points of all members, sorted, with an index for lookups that cost the same at any size.
#[derive(Clone, Debug)]
pub struct Ring {
    dialect: Dialect,
    /// How far a hash is turned clockwise before the search for the first arc that ends at or after
    /// it.
    hash_offset: u32,
    members: u32,
    /// Where each member's arcs end: at its points, but for dialects in which a point owns hashes on
    /// both sides.
    index: Index,
    /// The lower halves of the ends, where hashes have 64 bits; the index has the upper halves.
    low_halves: Box<[u32]>,
    order: LookupOrder,
}

/// In which order the members are asked once the owner was refused.
#[derive(Clone, Debug)]
enum LookupOrder {
    Clockwise,
    Nearest(NearestPoints),
    Rendezvous(Rendezvous),
}

impl Ring {
    /// The most points that a ring can have, 2^26: about 1 GiB. The bound turns a slip in the
    /// weights of a large upstream into an error before it turns into an empty machine.
    pub const MAX_POINTS: u32 = 1 << 26;

    /// The most members that a ring can have, 2^16.
    pub const MAX_MEMBERS: usize = Index::MAX_MEMBERS;

    /// Builds the ring of the given members. No members make an empty ring.
    pub fn new<'a, M: Into<Member<'a>>>(
        dialect: Dialect,
        members: impl IntoIterator<Item = M>,
    ) -> Result<Self, Error> {
        let members: Vec<_> = members.into_iter().map(Into::into).collect();
        let names = build::unique_names(dialect, &members)?;
        let weights: Vec<_> = members.iter().map(|member| member.weight).collect();
        let arcs = SortedPoints::new(dialect, &names, &weights)?;
        let rules = dialect.with_placement(|placement| placement.ownership_rules());
        let order = match rules.owner_rule {
            OwnerRule::Nearest => LookupOrder::Nearest(NearestPoints::new(&arcs.points)),
            OwnerRule::HighestScore => {
                LookupOrder::Rendezvous(Rendezvous::new(dialect, names, weights))
            }
            _ => LookupOrder::Clockwise,
        };
        Ok(Self::from_points(dialect, members.len(), arcs, order))
    }

    /// The ring of no members.
    pub fn empty() -> Self {
        Self::from_points(
            Dialect::default(),
            0,
            SortedPoints::default(),
            LookupOrder::Clockwise,
        )
    }

    /// The ring of these points, sorted; they are where the arcs end, if `order` does not know better.
    fn from_points(
        dialect: Dialect,
        members: usize,
        arcs: SortedPoints,
        order: LookupOrder,
    ) -> Self {
        let owner = dialect
            .with_placement(|placement| placement.ownership_rules())
            .owner_rule;
        let ends = match &order {
            LookupOrder::Nearest(nearest) => nearest.arc_ends(),
            _ if owner == OwnerRule::AtOrAfterNoWrap => build::extend_last_to_end(arcs.points),
            _ => arcs.points,
        };
        Self {
            dialect,
            hash_offset: u32::from(owner == OwnerRule::After),
            members: u32::try_from(members).unwrap_or(u32::MAX),
            index: Index::new(&ends),
            low_halves: arcs.low_halves,
            order,
        }
    }

    /// A key, ready to be looked up.
    #[inline]
    pub fn key(&self, key: &[u8]) -> HashedKey {
        let hash = self.dialect.hash(key);
        match &self.order {
            LookupOrder::Rendezvous(scores) => scores.score_key(hash, key),
            LookupOrder::Clockwise | LookupOrder::Nearest(_) => HashedKey::from(hash),
        }
    }

    /// The key of a hash that [`Key::hash`] gave, where only that is known. In a dialect that is none of
    /// [`Dialect::tells_by_hash`] it is another key, for one hash always the same.
    pub fn key_from_hash(&self, hash: Hash) -> HashedKey {
        match &self.order {
            LookupOrder::Rendezvous(scores) => {
                scores.score_key(hash, hash.0.to_string().as_bytes())
            }
            LookupOrder::Clockwise | LookupOrder::Nearest(_) => HashedKey::from(hash),
        }
    }

    /// Whether a key can have this hash here: most dialects hash to 32 bits.
    pub fn is_possible_hash(&self, hash: Hash) -> bool {
        let is_wide =
            !self.low_halves.is_empty() || matches!(self.order, LookupOrder::Rendezvous(_));
        is_wide || high_half(hash.0) == 0
    }

    /// The member that a key belongs to; `None` where the ring is empty.
    #[inline]
    pub fn owner(&self, key: &HashedKey) -> Option<MemberId> {
        match &key.0 {
            KeyPosition::Hash(hash) => self.locate(*hash).map(|(_, owner)| owner),
            KeyPosition::Scored(ranking) => ranking.find(|_| true),
        }
    }

    /// The first member clockwise from a key for which `accept` is true; `None` where it is true
    /// for none.
    ///
    /// `accept` is asked about the owner first, and may be asked about a member more than once. One
    /// round of the points ends the search.
    #[inline]
    pub fn find(
        &self,
        key: &HashedKey,
        mut accept: impl FnMut(MemberId) -> bool,
    ) -> Option<MemberId> {
        match &key.0 {
            KeyPosition::Hash(hash) => match self.locate(*hash)? {
                (_, owner) if accept(owner) => Some(owner),
                (at, _) => self.find_after(*hash, at, accept),
            },
            KeyPosition::Scored(ranking) => ranking.find(accept),
        }
    }

    /// The distinct members in clockwise order from a key: the owner first, every member once.
    pub fn walk(&self, key: &HashedKey) -> Walk<'_> {
        Walk::new(self, key)
    }

    /// How much of the circle belongs to each member, by [`MemberId`], in 2^32nds. They add up to
    /// 2^32, but for an empty ring, which has no shares.
    ///
    /// They are exact where hashes have 32 bits. Where they have 64, each arc is cut off to a multiple of
    /// 2^-32. Where there are no points they are those of a sample: see [`Self::sample`].
    pub fn shares(&self) -> Vec<u64> {
        let mut shares = vec![0; self.members()];
        overlay(self, self, |run| {
            if let Some(share) = shares.get_mut(run.from.index()) {
                *share += run.hashes;
            }
        });
        shares
    }

    /// How many keys [`Self::shares`] and [`overlay`] try out: see [`Dialect::sample`].
    pub fn sample_size(&self) -> Option<u32> {
        self.dialect.sample_size()
    }

    /// Where each point's arc ends, clockwise from 0, in 2^32nds of the circle, with its owner. That is
    /// the point itself, but in dialects `haproxy`, where it is half-way to the next one, and `varnish`,
    /// where the last one's is the end of the circle.
    pub fn points(&self) -> impl ExactSizeIterator<Item = (u32, MemberId)> {
        self.index.points()
    }

    /// The owner of the hash that lies so many 2^32nds of the circle from its start; `None` where
    /// there is no circle.
    pub fn owner_at(&self, place: u32) -> Option<MemberId> {
        let place = u64::from(place);
        let hash = if self.low_halves.is_empty() {
            place
        } else {
            place << 32
        };
        self.locate(Hash(hash)).map(|(_, owner)| owner)
    }

    /// The number of points; 0 in a dialect that has none.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// True where nobody is on the ring, so that no hash has an owner.
    pub const fn is_empty(&self) -> bool {
        self.members == 0
    }

    /// The number of members.
    pub const fn members(&self) -> usize {
        self.members as usize
    }

    /// How labels and keys are placed.
    pub const fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The place of the arc that a hash lies in, and its owner; `None` where there are no arcs.
    #[inline]
    fn locate(&self, hash: Hash) -> Option<(usize, MemberId)> {
        if self.low_halves.is_empty() {
            return self
                .index
                .locate(low_half(hash.0).wrapping_add(self.hash_offset));
        }
        self.locate_wide(hash)
    }

    /// [`Self::locate`] where hashes have 64 bits: by the upper half, and among equal ones by the lower.
    fn locate_wide(&self, hash: Hash) -> Option<(usize, MemberId)> {
        let (high, low) = (high_half(hash.0), low_half(hash.0));
        let (start, _) = self.index.locate(high)?;
        let equal = self.index.run_length(start, high);
        let lows = self.low_halves.get(start..start + equal)?;
        let place = start + lows.partition_point(|end| *end < low);
        Some((place, self.index.owner(place)?))
    }

    /// A place one past the last point is the first point's.
    fn wrap(&self, place: usize) -> usize {
        if place < self.len() { place } else { 0 }
    }

    /// The members of the points after the one at `at`, one round, that one last.
    fn owners_after(&self, at: usize) -> impl Iterator<Item = MemberId> {
        let places = (at + 1..self.len()).chain(0..=at);
        places.filter_map(|place| self.index.owner(place))
    }

    /// [`Self::find`] once the owner, whose arc is at `at`, was refused.
    #[cold]
    #[inline(never)]
    fn find_after(
        &self,
        hash: Hash,
        at: usize,
        accept: impl FnMut(MemberId) -> bool,
    ) -> Option<MemberId> {
        match &self.order {
            LookupOrder::Nearest(nearest) => self.find_among(nearest.owners_outward(hash), accept),
            _ => self.find_among(self.owners_after(self.wrap(at)), accept),
        }
    }

    /// The first of the points' members that is accepted.
    ///
    /// Few refusals are settled within a few steps. After as many steps as there are members it is
    /// more likely that all refuse, which asking each of them once settles; so a search in which
    /// nobody accepts ends after 2 questions per member, not after a round of all points.
    fn find_among(
        &self,
        mut points: impl Iterator<Item = MemberId>,
        mut accept: impl FnMut(MemberId) -> bool,
    ) -> Option<MemberId> {
        let near = points
            .by_ref()
            .take(self.members())
            .find(|member| accept(*member));
        if near.is_some() {
            return near;
        }
        let last = (0..self.members)
            .map(MemberId)
            .find(|member| accept(*member))?;
        // Who is too light for a point comes after all who have one.
        points.find(|member| accept(*member)).or(Some(last))
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the half that is asked for"
)]
const fn low_half(word: u64) -> u32 {
    word as u32
}

const fn high_half(word: u64) -> u32 {
    low_half(word >> 32)
}
