//! Rendezvous hashing: no points; the member with the greatest score for a key owns the key.
//!
//! A score depends on the key and the member. All scores are computed once, when the key becomes
//! [`MemberScores`], at the cost of one hash per member; later lookups only compare them. Members rank from
//! the greatest score down, members with equal scores in their own order. Scores are sorted only for a
//! walk, since most lookups need only the owner.

use std::borrow::Cow;
use std::cmp::Reverse;

use super::dialect::{Dialect, SAMPLE_KEYS};
use super::hash::Hash;
use super::member::{MemberId, Weight};

/// The names and weights that are scored.
#[derive(Clone, Debug)]
pub(super) struct Rendezvous {
    dialect: Dialect,
    members: Box<[(Box<str>, Weight)]>,
}

/// The score of each member for one key, by [`MemberId`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct MemberScores {
    hash: Hash,
    scores: Box<[u64]>,
}

impl Rendezvous {
    pub(super) fn new(dialect: Dialect, names: Vec<Cow<'_, str>>, weights: Vec<Weight>) -> Self {
        let names = names
            .into_iter()
            .map(|name| name.into_owned().into_boxed_str());
        Self {
            dialect,
            members: names.zip(weights).collect(),
        }
    }

    /// The keys of the sample: the numbers from 0 on, in decimal.
    pub(super) fn sample_keys() -> impl Iterator<Item = String> {
        (0..SAMPLE_KEYS).map(|number| number.to_string())
    }

    /// Computes the score of every member.
    #[cold]
    pub(super) fn score_key(&self, hash: Hash, key: &[u8]) -> MemberScores {
        let members = self.members.iter();
        let scores = self.dialect.with_placement(|placement| {
            members
                .map(|(name, weight)| placement.score(name, *weight, hash, key))
                .collect()
        });
        MemberScores { hash, scores }
    }
}

impl MemberScores {
    pub(super) fn hash(&self) -> Hash {
        self.hash
    }

    /// The first member in the ranking that is accepted. Calls `accept` for every member.
    #[cold]
    pub(super) fn find(&self, mut accept: impl FnMut(MemberId) -> bool) -> Option<MemberId> {
        let accepted = self.ranked_members().filter(|(_, member)| accept(*member));
        accepted.min().map(|(_, member)| member)
    }

    /// All members as ranked, the owner first.
    pub(super) fn walk(&self) -> Vec<MemberId> {
        let mut ranked: Vec<_> = self.ranked_members().collect();
        ranked.sort_unstable();
        ranked.into_iter().map(|(_, member)| member).collect()
    }

    /// The members in their own order, each with its sort key: the smallest ranks first.
    fn ranked_members(&self) -> impl Iterator<Item = (Reverse<u64>, MemberId)> {
        self.scores
            .iter()
            .copied()
            .map(Reverse)
            .zip((0..).map(MemberId))
    }
}
