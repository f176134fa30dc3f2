//! The trait that a dialect implements: points, hash of a key, and which point owns a hash.

use std::borrow::Cow;

use crate::ring::hash::Hash;
use crate::ring::member::{Member, Weight};

/// The most points per unit of weight in any dialect with a choice.
pub(super) const MAX_POINTS_PER_WEIGHT: u32 = 4096;

/// An id that the dialect cannot hash.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the id `{id}` is not a number from 1 to {max}")]
pub struct InvalidId {
    /// The id.
    pub id: String,
    /// The greatest valid id.
    pub max: u32,
}

/// The value of a dialect's option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DialectOptionValue {
    /// A number.
    Number(u64),
    /// A word or a text.
    Text(String),
    /// Yes or no.
    Flag(bool),
}

/// The algorithm of one dialect.
pub(in crate::ring) trait Placement {
    /// The name in the configuration.
    fn name(&self) -> &'static str;

    /// The options and their values, as in the configuration.
    fn options(&self) -> Vec<(&'static str, DialectOptionValue)> {
        Vec::new()
    }

    /// True if the options are within their bounds.
    fn is_valid(&self) -> bool {
        true
    }

    /// The text hashed for each member, in order.
    fn hash_names<'a>(&self, members: &[Member<'a>]) -> Result<Vec<Cow<'a, str>>, InvalidId> {
        Ok(members
            .iter()
            .map(|member| Cow::Borrowed(member.id.unwrap_or(member.label)))
            .collect())
    }

    /// The points per unit of weight, if that number is fixed. By default 0: no points.
    fn points_per_weight(&self) -> u32 {
        0
    }

    /// The number of points of each member.
    fn point_counts(&self, weights: &[Weight]) -> Vec<u64> {
        let points = u64::from(self.points_per_weight());
        let weights = weights.iter().map(|weight| u64::from(weight.get()));
        weights.map(|weight| points * weight).collect()
    }

    /// The least weight that the other system tells from the weights above it.
    fn least_weight(&self) -> Weight {
        Weight::ONE
    }

    /// Calls `put` for the first `points` points of a member, in any order; all below 2^32 unless
    /// [`OwnershipRules::is_64_bit`] is set. A greater `points` must only add points: that is why a raised
    /// weight takes no key from its member.
    fn place(&self, _name: &str, _points: u32, _put: &mut dyn FnMut(u64)) {}

    /// The hash of a key; below 2^32 unless [`OwnershipRules::is_64_bit`] is set.
    fn hash(&self, key: &[u8]) -> Hash;

    /// Which point owns a hash.
    fn ownership_rules(&self) -> OwnershipRules {
        OwnershipRules::default()
    }

    /// The member's score for a key with hash `hash`, for [`OwnerRule::HighestScore`].
    fn score(&self, _name: &str, _weight: Weight, _hash: Hash, _key: &[u8]) -> u64 {
        0
    }
}

/// How points and hashes determine owners.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::ring) struct OwnershipRules {
    pub(in crate::ring) owner_rule: OwnerRule,
    pub(in crate::ring) tie_break: TieBreak,
    /// Hashes have 64 bits instead of 32.
    pub(in crate::ring) is_64_bit: bool,
}

impl OwnershipRules {
    /// The rules of most other systems.
    pub(super) const AT_OR_AFTER_BY_MEMBER_ORDER: Self = Self {
        owner_rule: OwnerRule::AtOrAfter,
        tie_break: TieBreak::ByMemberOrder,
        is_64_bit: false,
    };
}

/// Which point owns a hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::ring) enum OwnerRule {
    /// The first point at or after the hash, clockwise.
    #[default]
    AtOrAfter,
    /// The first point after the hash, clockwise.
    After,
    /// The first point at or after the hash; above the last point, the last point.
    AtOrAfterNoWrap,
    /// The nearest point in either direction; of two at the same distance, the one before the hash.
    Nearest,
    /// No points: the member with the greatest score.
    HighestScore,
}

/// The treatment of points with the same hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::ring) enum TieBreak {
    /// All are kept, the smallest name first: the order of the members has no effect.
    #[default]
    ByName,
    /// All are kept, in the order of the members.
    ByMemberOrder,
    /// Only the first member's point is kept.
    KeepFirst,
}

/// True if this number of points per unit of weight is within bounds.
pub(super) fn is_valid_points_per_weight(points: u32) -> bool {
    (1..=MAX_POINTS_PER_WEIGHT).contains(&points)
}

/// The word for a value in the configuration.
pub(super) fn option_name<T: PartialEq>(
    words: &[(&'static str, T)],
    value: &T,
) -> DialectOptionValue {
    let found = words.iter().find(|(_, known)| known == value);
    DialectOptionValue::Text(found.map_or("", |(word, _)| word).to_owned())
}
