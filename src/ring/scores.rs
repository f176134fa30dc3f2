//! Rendezvous hashing: no points, the member with the greatest score for a key owns it.
//!
//! Every lookup asks every member, so it costs as many hashes as there are members. The walk goes
//! down from the greatest score, of equal ones in the order of the members.

use std::borrow::Cow;
use std::cmp::Reverse;

use super::{Dialect, Hash, MemberId, Weight};

/// The members by name.
#[derive(Clone, Debug)]
pub(super) struct Scores {
    dialect: Dialect,
    members: Box<[(Box<str>, Weight)]>,
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

    /// The accepted member with the greatest score.
    pub(super) fn best(
        &self,
        hash: Hash,
        mut accept: impl FnMut(MemberId) -> bool,
    ) -> Option<MemberId> {
        let accepted = self.scored(hash).filter(|(member, _)| accept(*member));
        // `min` gives the first of equal ones, `max` the last.
        accepted
            .min_by_key(|(_, score)| Reverse(*score))
            .map(|(member, _)| member)
    }

    /// All members, the one with the greatest score first.
    pub(super) fn walk(&self, hash: Hash) -> Vec<MemberId> {
        let mut scored: Vec<_> = self.scored(hash).collect();
        scored.sort_by_key(|(_, score)| Reverse(*score));
        scored.into_iter().map(|(member, _)| member).collect()
    }

    /// The hashes of the sample.
    pub(super) fn sample(&self) -> impl Iterator<Item = Hash> {
        (0..Self::SAMPLE).map(|number| self.dialect.hash(number.to_string().as_bytes()))
    }

    fn scored(&self, hash: Hash) -> impl Iterator<Item = (MemberId, u64)> {
        let score = move |(member, (name, weight)): (u32, &(Box<str>, Weight))| {
            let score = self
                .dialect
                .with(|placement| placement.score(name, *weight, hash));
            (MemberId(member), score)
        };
        (0..).zip(&self.members).map(score)
    }
}
