//! The peer for a request when its assigned peer is at its bound (`bounded_load`).
//!
//! ```text
//!   1  the first clockwise that holds less than four fifths of its fair share
//!   2  the first clockwise below its fair share, then the first below its bound, where no slow start refuses
//!      the key; then the first of all available peers below its bound
//!   3  otherwise the least loaded, above its bound if need be
//! ```
//!
//! One walk finds the candidates of steps 1 and 2. The walk is repeated, at most [`MAX_WALKS`] times in
//! all, only when every candidate was filled by concurrent requests before this one could be counted there.

use std::time::Duration;

use super::in_flight::{PeerPermit, UpstreamPermit};
use super::select::SelectionContext;
use super::weights::{serving_parts, total_parts};
use super::{Peer, PeerChoice, Upstream};
use crate::policy::bounded_load::BalanceFactor;
use crate::ring::MemberId;

/// The most walks for one request.
const MAX_WALKS: usize = 4;

impl Upstream {
    /// Counts a request in at a peer, after `assigned` was found at its bound.
    #[cold]
    pub(super) fn admit_overflow(
        &self,
        context: &SelectionContext<'_>,
        factor: BalanceFactor,
        assigned: PeerChoice<'_>,
        mut permit: UpstreamPermit<'_>,
    ) -> (MemberId, PeerPermit) {
        assigned.peer.metrics.overflow.inc();
        for _ in 0..MAX_WALKS {
            let no_capacity = match self.place_overflow(context, factor, permit) {
                Ok(placed) => return placed,
                Err(no_capacity) => no_capacity,
            };
            permit = no_capacity.permit;
            if !no_capacity.lost_race {
                break;
            }
        }
        let least = self.least_loaded(context).unwrap_or(assigned);
        let room = self.room_predicate(factor, least.peer, context.now);
        let peer_permit = permit
            .try_admit_before_queue(&least.peer.in_flight, room)
            .unwrap_or_else(|permit| {
                self.metrics.bounded_load_exceeded.inc();
                permit.admit_unbounded(&least.peer.in_flight)
            });
        (least.member, peer_permit)
    }

    /// Counts a request in at a peer that is below its bound at that moment.
    ///
    /// # Errors
    /// The peer is at its bound, or other requests wait for it.
    #[inline]
    pub(super) fn try_admit<'t>(
        &self,
        context: &SelectionContext<'_>,
        factor: BalanceFactor,
        choice: PeerChoice<'_>,
        permit: UpstreamPermit<'t>,
    ) -> Result<PeerPermit, UpstreamPermit<'t>> {
        let room = self.room_predicate(factor, choice.peer, context.now);
        permit.try_admit(&choice.peer.in_flight, room)
    }

    /// A predicate of the requests at `peer` and of all in flight: whether the peer may take one more. While a
    /// part of the peer's weight is not in the total weight (slow start), the missing part is added to it.
    #[inline]
    pub(super) fn room_predicate(
        &self,
        factor: BalanceFactor,
        peer: &Peer,
        now: Duration,
    ) -> impl Fn(u32, u32) -> bool + use<> {
        let own = total_parts(peer);
        let missing = u32::from(own).saturating_sub(serving_parts(peer, now));
        let total_weight = self.weights(now).shared_parts.saturating_add(missing);
        move |at_peer, in_flight| factor.has_room(at_peer, in_flight, own, total_weight)
    }

    /// Steps 1 and 2 of the [module](self).
    fn place_overflow<'t>(
        &self,
        context: &SelectionContext<'_>,
        factor: BalanceFactor,
        mut permit: UpstreamPermit<'t>,
    ) -> Result<(MemberId, PeerPermit), NoCapacity<'t>> {
        // Above the fair share a request goes only when a peer was tried already, or some start slowly.
        let limits = [
            (
                BalanceFactor::FAIR_SHARE,
                OverflowEligibility::SlowStartAdmits,
            ),
            (factor, OverflowEligibility::SlowStartAdmits),
            (factor, OverflowEligibility::AnyAvailable),
        ];
        let mut fallbacks = [None; 3];
        let available = |member: &MemberId| self.is_available(context, *member);
        let walk = self.candidates(context.target).filter(available);
        for choice in walk.filter_map(|member| self.choice(member)) {
            let admits = self.slow_start_admits(context, choice.member);
            if admits {
                permit = match self.try_admit(context, BalanceFactor::FOUR_FIFTHS, choice, permit) {
                    Ok(peer_permit) => return Ok((choice.member, peer_permit)),
                    Err(permit) => permit,
                };
            }
            for ((factor, eligibility), fallback) in limits.iter().zip(&mut fallbacks) {
                let is_eligible = admits || *eligibility == OverflowEligibility::AnyAvailable;
                if fallback.is_none() && is_eligible && self.has_room(context, *factor, choice) {
                    *fallback = Some(choice);
                }
            }
        }
        let lost_race = fallbacks.iter().any(Option::is_some);
        for ((factor, _), fallback) in limits.into_iter().zip(fallbacks) {
            let Some(choice) = fallback else { continue };
            permit = match self.try_admit(context, factor, choice, permit) {
                Ok(peer_permit) => return Ok((choice.member, peer_permit)),
                Err(permit) => permit,
            };
        }
        Err(NoCapacity { permit, lost_race })
    }

    fn has_room(
        &self,
        context: &SelectionContext<'_>,
        factor: BalanceFactor,
        choice: PeerChoice<'_>,
    ) -> bool {
        let room = self.room_predicate(factor, choice.peer, context.now);
        choice.peer.in_flight.has_room(room)
    }

    /// The available peer with the fewest requests for its weight.
    fn least_loaded(&self, context: &SelectionContext<'_>) -> Option<PeerChoice<'_>> {
        let peers = (0..).map(MemberId).zip(&self.peers);
        let available = peers
            .map(|(member, peer)| PeerChoice { member, peer })
            .filter(|choice| self.is_available(context, choice.member));
        let load = |choice: &PeerChoice<'_>| {
            let (requests, weight) = (choice.peer.state.in_flight(), choice.peer.weight.get());
            u64::from(requests) * u64::from(u16::MAX) / u64::from(weight)
        };
        available.min_by_key(load)
    }
}

/// The peers that an overflow request may go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OverflowEligibility {
    /// Available, and not in a slow start, or in one that admits the key.
    SlowStartAdmits,
    /// Any that is available.
    AnyAvailable,
}

/// A walk that ended without a peer.
struct NoCapacity<'t> {
    permit: UpstreamPermit<'t>,
    /// A peer had room, and concurrent requests took it first.
    lost_race: bool,
}
