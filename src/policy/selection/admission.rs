//! The admission at the assigned peer: a hot key's next peer in turn, otherwise [`assigned_peer`].
//!
//! A request that waits at this peer is a little later, but reaches the peer that has the data of its key.

use super::assigned::is_candidate;
use super::{LoadView, PeerView, assigned_peer, peer_bound};
use crate::policy::bounded_load::BalanceFactor;

/// The most requests that wait at one peer. Of a peer's 13 requests one ends soon, and the third in the queue
/// would wait for the third to end.
pub(crate) const MAX_WAITING: usize = 2;

/// The result of [`try_assigned_peer`]. `is_hot`: the peer was the turn of a hot key.
#[derive(Debug)]
pub(crate) enum AssignedPeerResult<P, A, T> {
    /// Counted at the assigned peer.
    Admitted {
        /// The peer.
        peer: P,
        /// Counts the request there.
        admitted: A,
        /// The request is of a hot key.
        is_hot: bool,
    },
    /// The assigned peer is at its bound, or others wait for it.
    AtCapacity {
        /// The peer.
        assigned: P,
        /// The factor of its bound.
        factor: BalanceFactor,
        /// The request is of a hot key.
        is_hot: bool,
        /// Counts the request in the total.
        permit: T,
    },
}

/// The result for the peers of a view.
pub(crate) type Assigned<'t, V> = AssignedPeerResult<
    <V as PeerView>::Peer,
    <V as LoadView>::Admitted,
    <V as LoadView>::Permit<'t>,
>;

/// Counts a request in at its assigned peer, if that is below its bound.
///
/// # Errors
/// No peer can serve the request.
#[inline]
pub(crate) fn try_assigned_peer<'t, V: LoadView>(
    view: &V,
    permit: V::Permit<'t>,
) -> Result<Assigned<'t, V>, V::Permit<'t>> {
    let for_hot_key = hot_key_peer(view);
    let is_hot = for_hot_key.is_some();
    let Some(peer) = for_hot_key.or_else(|| assigned_peer(view)) else {
        return Err(permit);
    };
    // Owners serve while every available peer is in a slow start, and must continue to: the keys would move
    // again as soon as one peer had completed its own.
    if view.slow_start(peer).is_some() && view.serving_share().weight == 0 {
        view.end_slow_starts();
    }
    let admitted = match view.balance_factor() {
        None => view.admit_unbounded(peer, permit),
        Some(factor) => match view.try_admit(peer, peer_bound(view, peer, factor), permit) {
            Ok(admitted) => admitted,
            Err(permit) => {
                return Ok(AssignedPeerResult::AtCapacity {
                    assigned: peer,
                    factor,
                    is_hot,
                    permit,
                });
            }
        },
    };
    Ok(AssignedPeerResult::Admitted {
        peer,
        admitted,
        is_hot,
    })
}

/// Whether a request may wait for room at its assigned peer: only a first attempt with a key that is not hot.
pub(crate) fn may_wait<V: LoadView>(view: &V, is_hot: bool) -> bool {
    view.has_key() && view.is_first_attempt() && !is_hot
}

/// The next peer of a hot key in its rotation.
#[inline]
fn hot_key_peer<V: LoadView>(view: &V) -> Option<V::Peer> {
    let (spread, hit) = view.count_hot_key()?;
    let can_serve = |peer: V::Peer| is_candidate(view, peer) && view.takes_all_keys(peer);
    let walk = view.walk().filter(|&peer| can_serve(peer));
    let walk = walk.map(|peer| (peer, view.weighted_share(peer)));
    spread.select_peer(hit.share, view.serving_share(), hit.sequence, walk)
}
