//! The ring: finds the member that a key belongs to, and the next one if that member is refused.

use super::build::{self, Error, SortedPoints};
use super::dialect::{Dialect, OwnerRule};
use super::hash::{Hash, high_half, low_half};
use super::index::Index;
use super::key::{HashedKey, KeyPosition};
use super::member::{Member, MemberId};
use super::nearest::NearestPoints;
use super::rendezvous::Rendezvous;

/// The points of all members, sorted and indexed: a lookup costs the same at any size.
#[derive(Clone, Debug)]
pub struct Ring {
    dialect: Dialect,
    /// Added to a hash before the search for the first arc that ends at or after it: 1 in dialect `circle`,
    /// in which a point's own hash belongs to the next point; otherwise 0.
    pub(super) hash_offset: u32,
    pub(super) members: u32,
    /// The ends of the arcs and their owners. An arc ends at its point, except if a point owns hashes
    /// on both sides.
    pub(super) index: Index,
    /// The lower halves of the ends of 64-bit hashes, else empty. The index has the upper halves.
    pub(super) low_halves: Box<[u32]>,
    pub(super) order: LookupOrder,
}

/// The order in which members are tried after the owner is refused.
#[derive(Clone, Debug)]
pub(super) enum LookupOrder {
    Clockwise,
    Nearest(NearestPoints),
    Rendezvous(Rendezvous),
}

impl Ring {
    /// The most points of a ring: 2^26, about 1 GiB. A typing error in the weights of a large upstream is
    /// reported before it exhausts memory.
    pub const MAX_POINTS: u32 = build::MAX_POINTS;

    /// The most members of a ring: 2^16.
    pub const MAX_MEMBERS: usize = Index::MAX_MEMBERS;

    /// Builds the ring of these members. Without members the ring is empty.
    ///
    /// # Errors
    /// The members, their ids or the dialect's options are invalid, or there are too many points.
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

    /// The ring without members.
    pub fn empty() -> Self {
        Self::from_points(
            Dialect::default(),
            0,
            SortedPoints::default(),
            LookupOrder::Clockwise,
        )
    }

    /// The ring of these sorted points. Arcs end at the points unless `order` is [`LookupOrder::Nearest`],
    /// or the last arc extends to the end of the circle.
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

    /// Hashes a key for lookups in this ring.
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

    /// Makes a key from a hash that [`HashedKey::hash`] returned, when the key itself is not known. If
    /// [`Dialect::hash_determines_owner`] is false, the result is a substitute: equal hashes make equal
    /// keys, but their owner may differ from the original key's.
    pub fn key_from_hash(&self, hash: Hash) -> HashedKey {
        match &self.order {
            LookupOrder::Rendezvous(rendezvous) => {
                HashedKey::scored(rendezvous.score_key(hash, hash.0.to_string().as_bytes()))
            }
            LookupOrder::Clockwise | LookupOrder::Nearest(_) => HashedKey::from(hash),
        }
    }

    /// True if a key can have this hash: most dialects hash to 32 bits.
    pub fn is_possible_hash(&self, hash: Hash) -> bool {
        let is_wide =
            !self.low_halves.is_empty() || matches!(self.order, LookupOrder::Rendezvous(_));
        is_wide || high_half(hash.0) == 0
    }

    /// The member that a key belongs to; `None` if the ring is empty.
    #[inline]
    pub fn owner(&self, key: &HashedKey) -> Option<MemberId> {
        match &key.0 {
            KeyPosition::Hash(hash) => self.locate(*hash).map(|(_, owner)| owner),
            KeyPosition::Scored(scores) => scores.find(|_| true),
        }
    }

    /// The first member clockwise from a key for which `accept` is true, if any.
    ///
    /// `accept` may be called more than once for a member, and the order of the calls is not the order of
    /// the walk. The search ends after one round of the points.
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
            KeyPosition::Scored(scores) => scores.find(accept),
        }
    }

    /// The number of keys sampled by [`Self::shares`] and [`overlay`]; see [`Dialect::sample_size`].
    ///
    /// [`overlay`]: super::overlay()
    pub fn sample_size(&self) -> Option<u32> {
        self.dialect.sample_size()
    }

    /// The end of each point's arc, ascending, in 2^32nds of the circle, with its owner. An arc ends at its
    /// point, except in dialects `haproxy` (half-way to the next point) and `varnish` (the last arc ends at
    /// the end of the circle).
    pub fn points(&self) -> impl ExactSizeIterator<Item = (u32, MemberId)> {
        self.index.points()
    }

    /// The owner at a position on the circle, in 2^32nds; `None` without points.
    pub fn owner_at(&self, position: u32) -> Option<MemberId> {
        let position = u64::from(position);
        let hash = if self.low_halves.is_empty() {
            position
        } else {
            position << 32
        };
        self.locate(Hash(hash)).map(|(_, owner)| owner)
    }

    /// The number of points; 0 in a dialect without points.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// True if the ring has no members: no key has an owner.
    pub const fn is_empty(&self) -> bool {
        self.members == 0
    }

    /// The number of members.
    pub const fn members(&self) -> usize {
        self.members as usize
    }

    /// The algorithm that placed the members and hashes the keys.
    pub const fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The index of the arc that contains a hash, and its owner; `None` without points.
    #[inline]
    pub(super) fn locate(&self, hash: Hash) -> Option<(usize, MemberId)> {
        if self.low_halves.is_empty() {
            return self
                .index
                .locate(low_half(hash.0).wrapping_add(self.hash_offset));
        }
        self.locate_wide(hash)
    }

    /// [`Self::locate`] for 64-bit hashes: by the upper half, then by the lower half among equal ones.
    fn locate_wide(&self, hash: Hash) -> Option<(usize, MemberId)> {
        let (high, low) = (high_half(hash.0), low_half(hash.0));
        let (start, _) = self.index.locate(high)?;
        let equal = self.index.run_length(start, high);
        let lows = self.low_halves.get(start..start + equal)?;
        let place = start + lows.partition_point(|end| *end < low);
        Some((place, self.index.owner(place)?))
    }

    /// The index of the first point instead of one past the last.
    pub(super) fn wrap(&self, place: usize) -> usize {
        if place < self.len() { place } else { 0 }
    }

    /// The owners of the points after `at`, one round, `at` itself last.
    fn owners_after(&self, at: usize) -> impl Iterator<Item = MemberId> {
        let places = (at + 1..self.len()).chain(0..=at);
        places.filter_map(|place| self.index.owner(place))
    }

    /// Continues [`Self::find`] after the owner, of the arc at `at`, was refused.
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

    /// The first accepted owner of `points`.
    ///
    /// With few members refused, a few steps are enough. After as many steps as there are members, all are
    /// probably refused, so each member is tried once: a search without a result ends after 2 calls of
    /// `accept` per member, not after a round of all points.
    fn find_among(
        &self,
        mut points: impl Iterator<Item = MemberId>,
        mut accept: impl FnMut(MemberId) -> bool,
    ) -> Option<MemberId> {
        let nearby = points
            .by_ref()
            .take(self.members())
            .find(|member| accept(*member));
        if nearby.is_some() {
            return nearby;
        }
        let last = (0..self.members)
            .map(MemberId)
            .find(|member| accept(*member))?;
        // `last` may have no points (too light for one): members with points come first.
        points.find(|member| accept(*member)).or(Some(last))
    }
}
