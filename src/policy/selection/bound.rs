//! The bound of one peer: its share of the weight of all peers that share the load.
//!
//! Weights are counted in parts, so that a peer in a slow start can share the load by its progress.

use super::LoadView;
use crate::policy::bounded_load::BalanceFactor;

/// Parts of one unit of weight; also the steps of a slow start.
pub const PARTS_PER_WEIGHT: u16 = 64;

/// How many requests one peer may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerBound {
    factor: BalanceFactor,
    weight: u16,
    total_weight: u32,
}

impl PeerBound {
    /// Whether the peer may take one more: it has `held` of `total` in flight, the new one included in the
    /// total alone.
    #[inline]
    pub fn has_room(self, held: u32, total: u32) -> bool {
        self.factor
            .has_room(held, total, self.weight, self.total_weight)
    }
}

/// The bound of a peer. While a part of its weight is not in the total weight (slow start), the missing part
/// is added to that.
#[inline]
pub fn peer_bound<V: LoadView>(view: &V, peer: V::Peer, factor: BalanceFactor) -> PeerBound {
    let weight = total_parts(view.weight(peer));
    let missing = u32::from(weight).saturating_sub(view.serving_parts(peer));
    PeerBound {
        factor,
        weight,
        total_weight: view.all_serving_parts().saturating_add(missing),
    }
}

/// A whole weight, in parts.
#[inline]
pub fn total_parts(weight: u16) -> u16 {
    weight.saturating_mul(PARTS_PER_WEIGHT)
}
