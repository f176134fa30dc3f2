//! A key, as a ring looks it up.

use std::sync::Arc;

use super::hash::Hash;
use super::rendezvous::MemberScores;

/// All that a ring has to know of a key; made by [`Ring::key`] and good for that ring alone.
///
/// 16 bytes. Where there are no points it has the scores of all members besides: 8 bytes for each, once
/// for all its clones.
///
/// [`Ring::key`]: super::Ring::key
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashedKey(pub(super) KeyPosition);

/// Where a key is on a ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum KeyPosition {
    Hash(Hash),
    /// There are no points.
    Scored(Arc<MemberScores>),
}

impl HashedKey {
    pub(super) fn scored(scores: MemberScores) -> Self {
        Self(KeyPosition::Scored(Arc::new(scores)))
    }

    /// The key's hash. It stands for the key wherever something else than its owner depends on it.
    #[inline]
    pub fn hash(&self) -> Hash {
        match &self.0 {
            KeyPosition::Hash(hash) => *hash,
            KeyPosition::Scored(ranking) => ranking.hash(),
        }
    }
}

/// Any place on a circle. In a dialect without points it is no place, and belongs to nobody.
impl From<Hash> for HashedKey {
    #[inline]
    fn from(hash: Hash) -> Self {
        Self(KeyPosition::Hash(hash))
    }
}
