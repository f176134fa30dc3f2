//! Turns members into sorted points.

use std::borrow::Cow;
use std::collections::HashSet;

use super::dialect::{Dialect, InvalidId, OwnershipRules, TieBreak};
use super::hash::{high_half, low_half};
use super::index::Index;
use super::member::{Member, Weight};

/// [`Ring::MAX_POINTS`](super::Ring::MAX_POINTS).
pub(super) const MAX_POINTS: u32 = 1 << 26;

/// Why a ring cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Two members have the same label or id and would have the same points.
    #[error("`{0}` places two members; give one of them a label or an id of its own")]
    DuplicateMember(String),
    /// The dialect cannot hash a member's id.
    #[error(transparent)]
    InvalidId(#[from] InvalidId),
    /// There are more than [`Ring::MAX_MEMBERS`](super::Ring::MAX_MEMBERS) members.
    #[error("the ring would have {0} members, at most {max} are possible", max = Index::MAX_MEMBERS)]
    TooManyMembers(usize),
    /// The members' weights result in more than [`Ring::MAX_POINTS`](super::Ring::MAX_POINTS) points.
    #[error(
        "the ring would have {0} points, at most {max} are possible; divide the weights by a \
         common factor or ask for fewer points",
        max = MAX_POINTS
    )]
    TooManyPoints(u64),
    /// An option of the dialect is out of its bounds.
    #[error("`{0:?}` is out of bounds")]
    InvalidOptions(Dialect),
}

/// All points of a ring, ascending by hash.
#[derive(Debug, Default)]
pub(super) struct SortedPoints {
    /// The hash of each point, or its upper half, and the owner.
    pub(super) points: Vec<(u32, u16)>,
    /// The lower halves of 64-bit hashes; else empty.
    pub(super) low_halves: Box<[u32]>,
}

impl SortedPoints {
    /// Places all members.
    pub(super) fn new(
        dialect: Dialect,
        names: &[Cow<'_, str>],
        weights: &[Weight],
    ) -> Result<Self, Error> {
        let counts = point_counts(dialect, weights)?;
        let rules = dialect.with_placement(|placement| placement.ownership_rules());
        let total = counts.iter().map(|count| *count as usize).sum();
        if rules.is_64_bit {
            let mut points = Vec::with_capacity(total);
            place_members(dialect, names, &counts, |hash, member| {
                points.push((hash, member));
            });
            return Ok(Self::from_64_bit(names, rules, points));
        }
        let mut points = Vec::with_capacity(total);
        place_members(dialect, names, &counts, |hash, member| {
            points.push((low_half(hash), member));
        });
        Ok(Self::from_32_bit(names, rules, points))
    }

    /// Sorts points with 32-bit hashes.
    ///
    /// A point is packed into one word, the hash above the member's rank: such words sort several times
    /// faster than pairs that compare names.
    pub(super) fn from_32_bit<S: AsRef<str>>(
        names: &[S],
        rules: OwnershipRules,
        points: Vec<(u32, u16)>,
    ) -> Self {
        let order = TieOrder::new(names, rules.tie_break);
        let pack = |(hash, member)| u64::from(hash) << 32 | u64::from(order.rank(member));
        let mut packed: Vec<_> = points.into_iter().map(pack).collect();
        packed.sort_unstable();
        if rules.tie_break == TieBreak::KeepFirst {
            packed.dedup_by_key(|word| high_half(*word));
        }
        let unpack = |word| (high_half(word), order.member(low_half(word)));
        Self {
            points: packed.into_iter().map(unpack).collect(),
            low_halves: Box::default(),
        }
    }

    /// Sorts points with 64-bit hashes.
    fn from_64_bit<S: AsRef<str>>(
        names: &[S],
        rules: OwnershipRules,
        mut points: Vec<(u64, u16)>,
    ) -> Self {
        let order = TieOrder::new(names, rules.tie_break);
        points.sort_unstable_by_key(|(hash, member)| (*hash, order.rank(*member)));
        if rules.tie_break == TieBreak::KeepFirst {
            points.dedup_by_key(|(hash, _)| *hash);
        }
        Self {
            points: points
                .iter()
                .map(|(hash, member)| (high_half(*hash), *member))
                .collect(),
            low_halves: points.iter().map(|(hash, _)| low_half(*hash)).collect(),
        }
    }
}

/// The text hashed for each member. Equal texts are refused: they would have the same points.
pub(super) fn unique_names<'a>(
    dialect: Dialect,
    members: &[Member<'a>],
) -> Result<Vec<Cow<'a, str>>, Error> {
    if members.len() > Index::MAX_MEMBERS {
        return Err(Error::TooManyMembers(members.len()));
    }
    if !dialect.is_valid() {
        return Err(Error::InvalidOptions(dialect));
    }
    let names = dialect.hash_names(members)?;
    let mut seen = HashSet::with_capacity(names.len());
    match names.iter().find(|name| !seen.insert(&***name)) {
        Some(name) => Err(Error::DuplicateMember(name.to_string())),
        None => Ok(names),
    }
}

/// Gives the hashes above the last point to that point.
pub(super) fn extend_last_to_end(mut ends: Vec<(u32, u16)>) -> Vec<(u32, u16)> {
    if let Some((end, _)) = ends.last_mut() {
        *end = u32::MAX;
    }
    ends
}

/// The number of points of each member.
pub(super) fn point_counts(dialect: Dialect, weights: &[Weight]) -> Result<Vec<u32>, Error> {
    let counts = dialect.with_placement(|placement| placement.point_counts(weights));
    let total = counts.iter().sum();
    if total > u64::from(MAX_POINTS) {
        return Err(Error::TooManyPoints(total));
    }
    Ok(counts.into_iter().map(low_half).collect())
}

fn place_members(
    dialect: Dialect,
    names: &[Cow<'_, str>],
    counts: &[u32],
    mut put: impl FnMut(u64, u16),
) {
    dialect.with_placement(|placement| {
        for ((name, count), member) in names.iter().zip(counts).zip(0..=u16::MAX) {
            placement.place(name, *count, &mut |hash| put(hash, member));
        }
    });
}

/// The order of members that have points with the same hash.
pub(super) struct TieOrder {
    /// The rank of each member.
    ranks: Vec<u16>,
    /// The member of each rank.
    members: Vec<u16>,
}

impl TieOrder {
    pub(super) fn new<S: AsRef<str>>(names: &[S], ties: TieBreak) -> Self {
        let mut members: Vec<u16> = (0..=u16::MAX)
            .zip(names)
            .map(|(member, _)| member)
            .collect();
        if ties == TieBreak::ByName {
            members
                .sort_unstable_by_key(|member| names.get(usize::from(*member)).map(AsRef::as_ref));
        }
        let mut ranks = vec![0; members.len()];
        for (rank, member) in (0..=u16::MAX).zip(&members) {
            if let Some(slot) = ranks.get_mut(usize::from(*member)) {
                *slot = rank;
            }
        }
        Self { ranks, members }
    }

    pub(super) fn rank(&self, member: u16) -> u16 {
        self.ranks
            .get(usize::from(member))
            .copied()
            .unwrap_or(member)
    }

    fn member(&self, rank: u32) -> u16 {
        self.members.get(rank as usize).copied().unwrap_or_default()
    }
}
