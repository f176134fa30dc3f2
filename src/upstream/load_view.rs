//! The load of an upstream's peers, as [`selection`](crate::policy::selection) reads and changes it.

use super::HashTarget;
use super::in_flight::{PeerPermit, UpstreamPermit};
use super::select::SelectionContext;
use super::weights::serving_parts;
use crate::policy::bounded_load::BalanceFactor;
use crate::policy::hot_key_spread::{HotKeyHit, HotKeySpread, WeightedShare};
use crate::policy::selection::{LoadView, PeerBound};

impl LoadView for SelectionContext<'_, '_> {
    type Permit<'t> = UpstreamPermit<'t>;
    type Admitted = PeerPermit;

    #[inline]
    fn balance_factor(&self) -> Option<BalanceFactor> {
        self.upstream.config.bounded_load.map(|load| load.factor)
    }

    fn peers(&self) -> impl Iterator<Item = Self::Peer> {
        self.upstream.choices()
    }

    #[inline]
    fn weight(&self, choice: Self::Peer) -> u16 {
        choice.peer.weight.get()
    }

    #[inline]
    fn serving_parts(&self, choice: Self::Peer) -> u32 {
        serving_parts(choice.peer, self.now)
    }

    #[inline]
    fn all_serving_parts(&self) -> u32 {
        self.upstream.weights(self.now).shared_parts
    }

    fn weighted_share(&self, choice: Self::Peer) -> WeightedShare {
        choice.peer.weighted_share
    }

    fn serving_share(&self) -> WeightedShare {
        self.upstream.serving_share(self.now)
    }

    /// Counts only the first attempt, before it waits.
    #[inline]
    fn count_hot_key(&self) -> Option<(HotKeySpread, HotKeyHit)> {
        if !self.tried.is_empty() || self.has_waited {
            return None;
        }
        let (Some(hot_keys), Some(config), HashTarget::Key(key)) = (
            &self.upstream.hot_keys,
            &self.upstream.config.hot_keys,
            self.target,
        ) else {
            return None;
        };
        let hit = hot_keys.count_request(key.hash().0, self.now)?;
        Some((config.spread, hit))
    }

    fn end_slow_starts(&self) {
        let upstream = self.upstream;
        upstream.shared.cold_start.set(self.now);
        for peer in &upstream.peers {
            peer.state.on_all_peers_cold(self.now);
        }
    }

    fn in_flight(&self, choice: Self::Peer) -> u32 {
        choice.peer.state.in_flight()
    }

    fn has_room(&self, choice: Self::Peer, bound: PeerBound) -> bool {
        let room = |held, total| bound.has_room(held, total);
        choice.peer.in_flight.has_room(room)
    }

    #[inline]
    fn try_admit<'t>(
        &self,
        choice: Self::Peer,
        bound: PeerBound,
        permit: Self::Permit<'t>,
    ) -> Result<PeerPermit, Self::Permit<'t>> {
        let room = |held, total| bound.has_room(held, total);
        permit.try_admit(&choice.peer.in_flight, room)
    }

    fn try_admit_before_queue<'t>(
        &self,
        choice: Self::Peer,
        bound: PeerBound,
        permit: Self::Permit<'t>,
    ) -> Result<PeerPermit, Self::Permit<'t>> {
        let room = |held, total| bound.has_room(held, total);
        permit.try_admit_before_queue(&choice.peer.in_flight, room)
    }

    #[inline]
    fn admit_unbounded(&self, choice: Self::Peer, permit: Self::Permit<'_>) -> PeerPermit {
        permit.admit_unbounded(&choice.peer.in_flight)
    }
}
