//! The peer for a request when its assigned peer is at its bound.
//!
//! ```text
//!   1  the first clockwise that holds less than four fifths of its fair share
//!   2  the first clockwise below its fair share, then the first below its bound; of the peers whose slow start
//!      admits the key, and then of all that are available
//!   3  otherwise the least loaded, above its bound if need be
//! ```
//!
//! One walk finds the candidates of steps 1 and 2. The walk is repeated, at most [`MAX_WALKS`] times in all, only
//! when every candidate was filled by concurrent requests before this one could be counted there.

use super::assigned::{is_candidate, slow_start_admits};
use super::{LoadView, PeerView, peer_bound};
use crate::policy::bounded_load::BalanceFactor;

/// The most walks for one request.
const MAX_WALKS: usize = 4;

/// A request that is counted at another peer than the assigned one.
#[derive(Debug)]
pub(crate) struct OverflowAdmission<P, A> {
    /// The peer.
    pub peer: P,
    /// Counts the request there.
    pub admitted: A,
    /// No peer had room; this one is above its bound.
    pub exceeds_bound: bool,
}

/// Counts a request in at a peer, after `assigned` was found at its bound of `factor`.
#[cold]
pub(crate) fn admit_overflow<V: LoadView>(
    view: &V,
    factor: BalanceFactor,
    assigned: V::Peer,
    mut permit: V::Permit<'_>,
) -> OverflowAdmission<V::Peer, V::Admitted> {
    for _ in 0..MAX_WALKS {
        let no_capacity = match place_overflow(view, factor, permit) {
            Ok(placed) => return placed,
            Err(no_capacity) => no_capacity,
        };
        permit = no_capacity.permit;
        if !no_capacity.lost_race {
            break;
        }
    }
    let peer = least_loaded(view).unwrap_or(assigned);
    match view.try_admit_before_queue(peer, peer_bound(view, peer, factor), permit) {
        Ok(admitted) => OverflowAdmission::within_bound(peer, admitted),
        Err(permit) => OverflowAdmission {
            peer,
            admitted: view.admit_unbounded(peer, permit),
            exceeds_bound: true,
        },
    }
}

impl<P, A> OverflowAdmission<P, A> {
    const fn within_bound(peer: P, admitted: A) -> Self {
        Self {
            peer,
            admitted,
            exceeds_bound: false,
        }
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
struct NoCapacity<T> {
    permit: T,
    /// A peer had room, and concurrent requests took it first.
    lost_race: bool,
}

/// An overflow request that is counted at a peer of the view.
type Overflow<V> = OverflowAdmission<<V as PeerView>::Peer, <V as LoadView>::Admitted>;

/// Steps 1 and 2 of the [module](self).
fn place_overflow<'t, V: LoadView>(
    view: &V,
    factor: BalanceFactor,
    mut permit: V::Permit<'t>,
) -> Result<Overflow<V>, NoCapacity<V::Permit<'t>>> {
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
    for peer in view.walk().filter(|&peer| is_candidate(view, peer)) {
        let admits = slow_start_admits(view, peer);
        if admits {
            let bound = peer_bound(view, peer, BalanceFactor::FOUR_FIFTHS);
            permit = match view.try_admit(peer, bound, permit) {
                Ok(admitted) => return Ok(OverflowAdmission::within_bound(peer, admitted)),
                Err(permit) => permit,
            };
        }
        for ((factor, eligibility), fallback) in limits.iter().zip(&mut fallbacks) {
            let is_eligible = admits || *eligibility == OverflowEligibility::AnyAvailable;
            if fallback.is_none()
                && is_eligible
                && view.has_room(peer, peer_bound(view, peer, *factor))
            {
                *fallback = Some(peer);
            }
        }
    }
    let lost_race = fallbacks.iter().any(Option::is_some);
    for ((factor, _), fallback) in limits.into_iter().zip(fallbacks) {
        let Some(peer) = fallback else { continue };
        permit = match view.try_admit(peer, peer_bound(view, peer, factor), permit) {
            Ok(admitted) => return Ok(OverflowAdmission::within_bound(peer, admitted)),
            Err(permit) => permit,
        };
    }
    Err(NoCapacity { permit, lost_race })
}

/// The available peer with the fewest requests for its weight.
fn least_loaded<V: LoadView>(view: &V) -> Option<V::Peer> {
    let load = |peer: &V::Peer| {
        let (requests, weight) = (view.in_flight(*peer), view.weight(*peer));
        u64::from(requests) * u64::from(u16::MAX) / u64::from(weight.max(1))
    };
    view.peers()
        .filter(|&peer| is_candidate(view, peer))
        .min_by_key(load)
}
