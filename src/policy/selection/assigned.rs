//! The peer that a request is assigned to, whatever its load.
//!
//! ```text
//!   1  the first peer of the walk that is available, or that drains and served the key within `idle`;
//!      a peer in a slow start counts only for the keys that it admits by now
//!   2  without one: the first that is up but ejected or suppressed, then the first that was never probed
//! ```

use std::time::Duration;

use super::PeerView;
use crate::policy::slow_start::{Salt, SlowStartWindow, first_admitting_peer};

/// The peer that a request is assigned to; `None`: every untried peer is down or draining.
#[inline]
pub(crate) fn assigned_peer<V: PeerView>(view: &V) -> Option<V::Peer> {
    // Nearly every request ends here: its owner takes all its keys, so no walk is needed.
    if let Some(owner) = view.owner()
        && view.takes_all_keys(owner)
        && !view.is_tried(owner)
    {
        return Some(owner);
    }
    first_on_walk(view).or_else(|| last_resort(view))
}

/// Whether a request can be assigned to a peer: it is available, or keeps the key while it drains.
pub(crate) fn may_be_assigned<V: PeerView>(view: &V, peer: V::Peer) -> bool {
    is_candidate(view, peer) || keeps_while_draining(view, peer)
}

/// Whether the peer is available and untried.
pub(super) fn is_candidate<V: PeerView>(view: &V, peer: V::Peer) -> bool {
    !view.is_tried(peer) && view.is_available(peer)
}

/// Whether the slow start of a peer, if it is in one, admits the request.
pub(super) fn slow_start_admits<V: PeerView>(view: &V, peer: V::Peer) -> bool {
    applicable_slow_start(view, peer)
        .is_none_or(|(slow_start, salt)| slow_start.admits(view.key_hash(), salt, view.now()))
}

fn first_on_walk<V: PeerView>(view: &V) -> Option<V::Peer> {
    let first = view.find(|peer| may_be_assigned(view, peer))?;
    match applicable_slow_start(view, first) {
        Some(_) => first_admitting(view),
        None => Some(first),
    }
}

/// The first peer of the walk that admits the key or is in no slow start. If every peer of the walk is in a
/// slow start: the first peer.
fn first_admitting<V: PeerView>(view: &V) -> Option<V::Peer> {
    let walk = view.walk().filter(|&peer| may_be_assigned(view, peer));
    let walk = walk.map(|peer| (peer, applicable_slow_start(view, peer)));
    first_admitting_peer(view.key_hash(), view.now(), walk).map(|(assigned, _)| assigned)
}

/// The slow start that decides about the request; `None`: the peer takes it in any case.
fn applicable_slow_start<V: PeerView>(view: &V, peer: V::Peer) -> Option<(SlowStartWindow, Salt)> {
    let slow_start = view.slow_start(peer)?;
    // A key that a cancelled drain left here must not leave now and return when the slow start admits
    // it, however long it was idle meanwhile.
    let stays = view.is_draining(peer) || has_affinity(view, peer, view.slow_start_elapsed(peer));
    (!stays).then(|| (slow_start, view.salt(peer)))
}

/// Whether a draining peer still serves this key: it served it recently, and the deadline of the drain has not passed.
fn keeps_while_draining<V: PeerView>(view: &V, peer: V::Peer) -> bool {
    let Some(limits) = view.drain_limits() else {
        return false;
    };
    view.draining_for(peer)
        .is_some_and(|elapsed| elapsed < limits.deadline)
        && !view.is_tried(peer)
        && has_affinity(view, peer, Duration::ZERO)
}

/// Whether the key's last request went to the peer, within the drain's idle time and `extra`.
fn has_affinity<V: PeerView>(view: &V, peer: V::Peer, extra: Duration) -> bool {
    view.drain_limits()
        .is_some_and(|limits| view.served_key_within(peer, limits.idle.saturating_add(extra)))
}

/// The peer to try when none is available.
fn last_resort<V: PeerView>(view: &V) -> Option<V::Peer> {
    let untried = |peer| !view.is_tried(peer);
    view.find(|peer| untried(peer) && view.is_up(peer))
        .or_else(|| view.find(|peer| untried(peer) && view.may_be_up(peer)))
}
