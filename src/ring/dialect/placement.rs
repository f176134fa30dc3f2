//! What a dialect has to define: points, key hash, and which point owns a hash.

use std::borrow::Cow;

use crate::ring::hash::Hash;
use crate::ring::member::{Member, Weight};

/// The most points per unit of weight in any dialect where they can be chosen.
pub(super) const MAX_POINTS_PER_WEIGHT: u32 = 4096;

/// A dialect cannot hash this id.
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
    /// One of some words, or a text.
    Text(String),
    /// Yes or no.
    Flag(bool),
}

/// The algorithm of one dialect.
pub(in crate::ring) trait Placement {
    /// Its name in the configuration.
    fn name(&self) -> &'static str;

    /// See [`Dialect::options`].
    fn options(&self) -> Vec<(&'static str, DialectOptionValue)> {
        Vec::new()
    }

    /// True where the options are within their bounds.
    fn is_valid(&self) -> bool {
        true
    }

    /// See [`Dialect::names`].
    fn hash_names<'a>(&self, members: &[Member<'a>]) -> Result<Vec<Cow<'a, str>>, InvalidId> {
        Ok(members
            .iter()
            .map(|member| Cow::Borrowed(member.id.unwrap_or(member.label)))
            .collect())
    }

    /// How many points each unit of weight gets, where that is a fixed number; none, where no other is
    /// given.
    fn points_per_weight(&self) -> u32 {
        0
    }

    /// How many points each of all members gets.
    fn point_counts(&self, weights: &[Weight]) -> Vec<u64> {
        let points = u64::from(self.points_per_weight());
        let weights = weights.iter().map(|weight| u64::from(weight.get()));
        weights.map(|weight| points * weight).collect()
    }

    /// Puts the first `points` points of a member, in any order; none above 2^32 unless
    /// [`Rules::wide`] is set. More points for the same name must only ever add to them: that is
    /// why a raised weight takes no key from its member.
    fn place(&self, _name: &str, _points: u32, _put: &mut dyn FnMut(u64)) {}

    /// The hash of a key; below 2^32 unless [`Rules::wide`] is set or [`Owner::Score`] decides.
    fn hash(&self, key: &[u8]) -> Hash;

    /// How points become owners.
    fn ownership_rules(&self) -> OwnershipRules {
        OwnershipRules::default()
    }

    /// How strongly a member asks for a key, whose hash is `hash`, where [`Owner::Score`] decides.
    fn score(&self, _name: &str, _weight: Weight, _hash: Hash, _key: &[u8]) -> u64 {
        0
    }
}

/// How points become owners.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::ring) struct OwnershipRules {
    pub(in crate::ring) owner_rule: OwnerRule,
    pub(in crate::ring) tie_break: TieBreak,
    /// Hashes have 64 bits, not 32.
    pub(in crate::ring) is_64_bit: bool,
}

impl OwnershipRules {
    /// Those of most other systems.
    pub(super) const AT_OR_AFTER_BY_MEMBER_ORDER: Self = Self {
        owner_rule: OwnerRule::AtOrAfter,
        tie_break: TieBreak::ByMemberOrder,
        is_64_bit: false,
    };
}

/// Which point owns a hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::ring) enum OwnerRule {
    /// The first at or after it, clockwise.
    #[default]
    AtOrAfter,
    /// The first after it, clockwise.
    After,
    /// The first at or after it; above the last point, that one.
    AtOrAfterNoWrap,
    /// The nearest in either direction; of two, the one before it.
    Nearest,
    /// There are no points: the member with the greatest score.
    HighestScore,
}

/// What becomes of points that share a hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::ring) enum TieBreak {
    /// All are kept, the smallest name first: the order of the members does not matter.
    #[default]
    ByName,
    /// All are kept, in the order of the members.
    ByMemberOrder,
    /// The first member's is kept.
    KeepFirst,
}

/// True where so many points for each unit of weight can be chosen.
pub(super) fn is_valid_points_per_weight(points: u32) -> bool {
    (1..=MAX_POINTS_PER_WEIGHT).contains(&points)
}

/// The word that stands for a value.
pub(super) fn option_name<T: PartialEq>(
    words: &[(&'static str, T)],
    value: &T,
) -> DialectOptionValue {
    let found = words.iter().find(|(_, known)| known == value);
    DialectOptionValue::Text(found.map_or("", |(word, _)| word).to_owned())
}
