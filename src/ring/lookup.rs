//! The ring itself: which member a key belongs to, and which one comes next.

use super::build::{self, Error, SortedPoints};
use super::dialect::{Dialect, OwnerRule};
use super::hash::{Hash, high_half, low_half};
use super::index::Index;
use super::key::{HashedKey, KeyPosition};
use super::member::{Member, MemberId};
use super::nearest::NearestPoints;
use super::rendezvous::Rendezvous;

/// All points of all members, sorted, with an index for lookups that cost the same at any size.
#[derive(Clone, Debug)]
pub struct Ring {
    dialect: Dialect,
    /// How far a hash is turned clockwise before the search for the first arc that ends at or after
    /// it.
    pub(super) hash_offset: u32,
    pub(super) members: u32,
    /// Where each member's arcs end: at its points, but for dialects in which a point owns hashes on
    /// both sides.
    pub(super) index: Index,
    /// The lower halves of the ends, where hashes have 64 bits; the index has the upper halves.
    pub(super) low_halves: Box<[u32]>,
    pub(super) order: LookupOrder,
}

/// In which order the members are asked once the owner was refused.
#[derive(Clone, Debug)]
pub(super) enum LookupOrder {
    Clockwise,
    Nearest(NearestPoints),
    Rendezvous(Rendezvous),
}

impl Ring {
    /// The most points that a ring can have, 2^26: about 1 GiB. The bound turns a slip in the
    /// weights of a large upstream into an error before it turns into an empty machine.
    pub const MAX_POINTS: u32 = build::MAX_POINTS;

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
    pub(super) fn from_points(
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
            LookupOrder::Rendezvous(rendezvous) => {
                HashedKey::scored(rendezvous.score_key(hash, key))
            }
            LookupOrder::Clockwise | LookupOrder::Nearest(_) => HashedKey::from(hash),
        }
    }

    /// The key of a hash that [`Key::hash`] gave, where only that is known. In a dialect that is none of
    /// [`Dialect::tells_by_hash`] it is another key, for one hash always the same.
    pub fn key_from_hash(&self, hash: Hash) -> HashedKey {
        match &self.order {
            LookupOrder::Rendezvous(rendezvous) => {
                HashedKey::scored(rendezvous.score_key(hash, hash.0.to_string().as_bytes()))
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
    pub(super) fn locate(&self, hash: Hash) -> Option<(usize, MemberId)> {
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
    pub(super) fn wrap(&self, place: usize) -> usize {
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
