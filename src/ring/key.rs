//! A key, as a ring looks it up.

use std::sync::Arc;

use super::scores::Ranking;

/// A place on the circle: one of 2^32 hashes, or of 2^64 in the dialects that have so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub u64);

/// All that a ring has to know of a key; made by [`Ring::key`] and good for that ring alone.
///
/// 16 bytes. Where there are no points it has the scores of all members besides: 8 bytes for each, once
/// for all its clones.
///
/// [`Ring::key`]: super::Ring::key
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(pub(super) Place);

/// Where a key is on a ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Hash(Hash),
    /// There are no points.
    Ranked(Arc<Ranking>),
}

impl Key {
    /// The key's hash. It stands for the key wherever something else than its owner depends on it.
    #[inline]
    pub fn hash(&self) -> Hash {
        match &self.0 {
            Place::Hash(hash) => *hash,
            Place::Ranked(ranking) => ranking.hash(),
        }
    }
}

/// Any place on a circle. In a dialect without points it is no place, and belongs to nobody.
impl From<Hash> for Key {
    #[inline]
    fn from(hash: Hash) -> Self {
        Self(Place::Hash(hash))
    }
}
