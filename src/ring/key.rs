//! A key that is hashed for a lookup in one ring.

use std::sync::Arc;

use super::hash::Hash;
use super::rendezvous::MemberScores;

/// A key's position on one ring, made by [`Ring::key`]. Valid for that ring only.
///
/// 16 bytes. In a dialect without points it also refers to the scores of all members, 8 bytes each,
/// which its clones share.
///
/// [`Ring::key`]: super::Ring::key
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashedKey(pub(super) KeyPosition);

/// How the owner of a key is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum KeyPosition {
    /// By the points next to the hash.
    Hash(Hash),
    /// By the members' scores for the key: the dialect has no points.
    Scored(Arc<MemberScores>),
}

impl HashedKey {
    pub(super) fn scored(scores: MemberScores) -> Self {
        Self(KeyPosition::Scored(Arc::new(scores)))
    }

    /// The key's hash. It identifies the key for uses other than to find its owner.
    #[inline]
    pub fn hash(&self) -> Hash {
        match &self.0 {
            KeyPosition::Hash(hash) => *hash,
            KeyPosition::Scored(scores) => scores.hash(),
        }
    }
}

/// The key of any position on the circle. In a dialect without points such a key has no owner.
impl From<Hash> for HashedKey {
    #[inline]
    fn from(hash: Hash) -> Self {
        Self(KeyPosition::Hash(hash))
    }
}
