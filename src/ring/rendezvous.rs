//! Rendezvous hashing: no points, the member with the greatest score for a key owns it.
//!
//! A score is made of the key itself and of the member, so no hash of the key alone tells who owns it.
//! Every member is asked once, when the key becomes a [`Ranking`], which costs a hash for each; whatever is
//! asked afterwards only compares their scores. A ranking goes down from the greatest score, of equal
//! ones in the order of the members. It is sorted only for a walk: most keys are asked for their owner alone.

use std::borrow::Cow;
use std::cmp::Reverse;

use super::dialect::{Dialect, SAMPLE_KEYS};
use super::hash::Hash;
use super::member::{MemberId, Weight};

/// The members by name.
#[derive(Clone, Debug)]
pub(super) struct Rendezvous {
    dialect: Dialect,
    members: Box<[(Box<str>, Weight)]>,
}

/// The members' scores for one key, in the order of the members.
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

    /// The texts of the sample.
    pub(super) fn sample_keys() -> impl Iterator<Item = String> {
        (0..SAMPLE_KEYS).map(|number| number.to_string())
    }

    /// Asks every member.
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

    /// The first that is accepted.
    #[cold]
    pub(super) fn find(&self, mut accept: impl FnMut(MemberId) -> bool) -> Option<MemberId> {
        let accepted = self.ranked_members().filter(|(_, member)| accept(*member));
        accepted.min().map(|(_, member)| member)
    }

    /// All members, the owner first.
    pub(super) fn walk(&self) -> Vec<MemberId> {
        let mut ranked: Vec<_> = self.ranked_members().collect();
        ranked.sort_unstable();
        ranked.into_iter().map(|(_, member)| member).collect()
    }

    /// The members in their own order; the least is the first of the ranking.
    fn ranked_members(&self) -> impl Iterator<Item = (Reverse<u64>, MemberId)> {
        self.scores
            .iter()
            .copied()
            .map(Reverse)
            .zip((0..).map(MemberId))
    }
}
