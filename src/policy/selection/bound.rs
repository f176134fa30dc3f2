//! The bound of one peer: its share of the weight of all peers that share the load.
//!
//! Weights are counted in parts, so that a peer in a slow start can share the load by its progress.

use crate::policy::bounded_load::BalanceFactor;

/// Parts of one unit of weight; also the steps of a slow start.
pub(crate) const PARTS_PER_WEIGHT: u16 = 64;

/// How many requests one peer may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PeerBound {
    factor: BalanceFactor,
    weight: u16,
    total_weight: u32,
}

impl PeerBound {
    /// The bound of a peer that has `weight` of `total_weight`, both in parts.
    pub(crate) const fn new(factor: BalanceFactor, weight: u16, total_weight: u32) -> Self {
        Self {
            factor,
            weight,
            total_weight,
        }
    }

    /// Whether the peer may take one more: it has `held` of `total` in flight, the new one included in the
    /// total alone.
    #[inline]
    pub(crate) fn has_room(self, held: u32, total: u32) -> bool {
        self.factor
            .has_room(held, total, self.weight, self.total_weight)
    }
}

/// A whole weight, in parts.
#[inline]
pub(crate) fn total_parts(weight: u16) -> u16 {
    weight.saturating_mul(PARTS_PER_WEIGHT)
}
