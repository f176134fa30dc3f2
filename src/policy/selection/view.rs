//! The state of the peers that a selection reads, and the way it counts an admitted request.

use std::time::Duration;

use super::bound::{PeerBound, total_parts};
use crate::policy::bounded_load::BalanceFactor;
use crate::policy::hot_key_spread::{HotKeyHit, HotKeySpread, WeightedShare};
use crate::policy::slow_start::{Salt, SlowStartWindow};

/// How long a draining peer keeps its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DrainLimits {
    /// A key without a request for this long leaves.
    pub idle: Duration,
    /// The longest drain.
    pub deadline: Duration,
}

/// The request, and the peers of its upstream at one moment.
pub(crate) trait PeerView {
    /// A reference to one peer.
    type Peer: Copy;

    /// The moment, measured as the times of the slow starts are.
    fn now(&self) -> Duration;

    /// The input of the second hash, that of slow starts: the key's hash. A request without a key has its
    /// round-robin turn, so that a slow start admits the right share of those requests too.
    fn key_hash(&self) -> u64;

    /// Whether the request has a key; otherwise it has a round-robin turn.
    fn has_key(&self) -> bool;

    /// Whether no peer was tried yet.
    fn is_first_attempt(&self) -> bool;

    /// The owner of the key when all peers are up; `None` without a key.
    fn owner(&self) -> Option<Self::Peer>;

    /// The peers in the order of preference: a key's walk, or the round-robin order, in which a peer occurs
    /// as often as its weight says.
    fn walk(&self) -> impl Iterator<Item = Self::Peer> + Clone;

    /// The first of [`Self::walk`] that `accepts`, without the cost of an iterator.
    fn find(&self, accepts: impl FnMut(Self::Peer) -> bool) -> Option<Self::Peer>;

    /// Whether an earlier attempt went to the peer.
    fn is_tried(&self, peer: Self::Peer) -> bool;

    /// Whether the peer takes keys: it is up, not draining, not ejected, not suppressed.
    fn is_available(&self, peer: Self::Peer) -> bool;

    /// Whether it is available and not in a slow start.
    fn takes_all_keys(&self, peer: Self::Peer) -> bool;

    /// Whether it is up and not draining; it may be ejected or suppressed.
    fn is_up(&self, peer: Self::Peer) -> bool;

    /// Whether it is not known to be down, and not draining.
    fn may_be_up(&self, peer: Self::Peer) -> bool;

    /// Its slow start, until that is complete.
    fn slow_start(&self, peer: Self::Peer) -> Option<SlowStartWindow>;

    /// The time since its slow start began; zero without one.
    fn slow_start_elapsed(&self, peer: Self::Peer) -> Duration;

    /// The salt with which each peer admits keys in another order during slow start.
    fn salt(&self, peer: Self::Peer) -> Salt;

    /// Whether an operator drains it.
    fn is_draining(&self, peer: Self::Peer) -> bool;

    /// The time since its drain began, if it is draining and could serve the keys that it keeps.
    fn draining_for(&self, peer: Self::Peer) -> Option<Duration>;

    /// How long draining peers keep their keys; `None`: they keep none.
    fn drain_limits(&self) -> Option<DrainLimits>;

    /// Whether the key's last request went to the peer, within `idle`; false without a key.
    fn served_key_within(&self, peer: Self::Peer, idle: Duration) -> bool;
}

/// The load of the peers. A permit counts a request in the total, without a peer.
pub(crate) trait LoadView: PeerView {
    /// Counts the request in the total.
    type Permit<'t>;
    /// Counts the request at a peer.
    type Admitted;

    /// The bound as a multiple of the fair share; `None`: peers have no bound.
    fn balance_factor(&self) -> Option<BalanceFactor>;

    /// All peers.
    fn peers(&self) -> impl Iterator<Item = Self::Peer>;

    /// A peer's weight.
    fn weight(&self, peer: Self::Peer) -> u16;

    /// The part of a peer's weight that shares the load; see [`total_parts`].
    fn serving_parts(&self, peer: Self::Peer) -> u32;

    /// The sum of [`Self::serving_parts`].
    fn all_serving_parts(&self) -> u32;

    /// A peer's weight and share of the key space.
    fn weighted_share(&self, peer: Self::Peer) -> WeightedShare;

    /// The sum of [`Self::weighted_share`] over the peers that take all their keys.
    fn serving_share(&self) -> WeightedShare;

    /// Counts the request among those of its key, once; the data for the spread if the key is hot.
    fn count_hot_key(&self) -> Option<(HotKeySpread, HotKeyHit)>;

    /// Ends all slow starts: every available peer is in one.
    fn end_slow_starts(&self);

    /// The requests at a peer.
    fn in_flight(&self, peer: Self::Peer) -> u32;

    /// Whether a peer could take one more request within `bound`; never while others wait for it.
    fn has_room(&self, peer: Self::Peer, bound: PeerBound) -> bool;

    /// Counts the request in at a peer if that is within `bound`, and no other waits for it.
    ///
    /// # Errors
    /// The permit, if the peer has no room.
    fn try_admit<'t>(
        &self,
        peer: Self::Peer,
        bound: PeerBound,
        permit: Self::Permit<'t>,
    ) -> Result<Self::Admitted, Self::Permit<'t>>;

    /// The same, ahead of waiting requests.
    ///
    /// # Errors
    /// The permit, if the peer has no room.
    fn try_admit_before_queue<'t>(
        &self,
        peer: Self::Peer,
        bound: PeerBound,
        permit: Self::Permit<'t>,
    ) -> Result<Self::Admitted, Self::Permit<'t>>;

    /// Counts the request in at a peer, whatever its load.
    fn admit_unbounded(&self, peer: Self::Peer, permit: Self::Permit<'_>) -> Self::Admitted;
}

/// The bound of a peer. While a part of its weight is not in the total weight (slow start), the missing part
/// is added to that.
#[inline]
pub(crate) fn peer_bound<V: LoadView>(view: &V, peer: V::Peer, factor: BalanceFactor) -> PeerBound {
    let weight = total_parts(view.weight(peer));
    let missing = u32::from(weight).saturating_sub(view.serving_parts(peer));
    let total_weight = view.all_serving_parts().saturating_add(missing);
    PeerBound::new(factor, weight, total_weight)
}
