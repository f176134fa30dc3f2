//! Rendezvous hashing: no points, the member with the greatest score for a key owns it.
//!
//! A score is made of the key itself and of the member, so no hash of the key alone tells who owns it.
//! Every member is asked once, when the key becomes a [`Ranking`], which costs a hash for each and a
//! sort; whatever is asked afterwards only reads the ranking. It goes down from the greatest score, of
//! equal ones in the order of the members.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::sync::Arc;

use super::key::{Hash, Key, Place};
use super::{Dialect, MemberId, Weight};

/// The members by name.
#[derive(Clone, Debug)]
pub(super) struct Scores {
    dialect: Dialect,
    members: Box<[(Box<str>, Weight)]>,
}

/// All members in the order in which one key asks them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ranking {
    hash: Hash,
    members: Box<[MemberId]>,
}

impl Scores {
    /// Keys that are tried out to learn who has how much.
    pub(super) const SAMPLE: u32 = 1 << 14;

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
    pub(super) fn sample() -> impl Iterator<Item = String> {
        (0..Self::SAMPLE).map(|number| number.to_string())
    }

    /// Asks every member.
    #[cold]
    pub(super) fn rank(&self, hash: Hash, key: &[u8]) -> Key {
        let mut scored: Vec<_> = self.scored(hash, key).collect();
        scored.sort_unstable();
        let members = scored.into_iter().map(|(_, member)| member).collect();
        Key(Place::Ranked(Arc::new(Ranking { hash, members })))
    }

    /// Sorts as a ranking does.
    fn scored(&self, hash: Hash, key: &[u8]) -> impl Iterator<Item = (Reverse<u64>, MemberId)> {
        let score = move |(member, (name, weight)): (u32, &(Box<str>, Weight))| {
            let score = self
                .dialect
                .with(|placement| placement.score(name, *weight, hash, key));
            (Reverse(score), MemberId(member))
        };
        (0..).zip(&self.members).map(score)
    }
}

impl Ranking {
    pub(super) fn hash(&self) -> Hash {
        self.hash
    }

    /// The member at a place from the top, 0 the owner.
    pub(super) fn get(&self, place: usize) -> Option<MemberId> {
        self.members.get(place).copied()
    }

    /// The first that is accepted.
    #[cold]
    pub(super) fn find(&self, mut accept: impl FnMut(MemberId) -> bool) -> Option<MemberId> {
        let mut members = self.members.iter().copied();
        members.find(|member| accept(*member))
    }
}
