//! Phase 5: the peer that a request is assigned to. Read-only: a selection counts and records nothing.
//!
//! ```text
//!   1  the first peer of the walk that is available, or that drains and served the key within `drain.idle`;
//!      a peer in a slow start counts only for the keys that it admits by now
//!   2  without one: the first that is up but ejected or suppressed, then the first that was never probed
//! ```
//!
//! Invariants; [`admission`](super::admission) keeps them, with an exception for hot keys:
//! * a request goes to its owner while that is available, not in a slow start and below its bound;
//! * the same key and the same peer states give the same peer: selection is not random, and depends on earlier
//!   requests only through the keys that a drain leaves with its peer;
//! * a request finds no peer only when every untried peer is down or draining.

use std::time::Duration;

use super::{HashTarget, Peer, PeerChoice, Tried, Upstream};
use crate::policy::slow_start::{Salt, SlowStartWindow, first_admitting_peer};
use crate::ring::MemberId;

/// The request and the time that a peer is selected for.
#[derive(Clone, Copy, Debug)]
pub(super) struct SelectionContext<'a> {
    pub(super) target: &'a HashTarget,
    pub(super) tried: &'a Tried,
    pub(super) now: Duration,
    /// Whether the request has left a wait queue; its key was counted before it waited.
    pub(super) has_waited: bool,
}

impl<'a> SelectionContext<'a> {
    pub(super) fn new(target: &'a HashTarget, tried: &'a Tried, now: Duration) -> Self {
        Self {
            target,
            tried,
            now,
            has_waited: false,
        }
    }

    /// The input of the second hash, that of slow starts and hot keys. A request without a key uses its
    /// round-robin turn, so that a slow start admits the right share of those requests too.
    pub(super) fn key_hash(&self) -> u64 {
        match self.target {
            HashTarget::Key(key) => key.hash().0,
            HashTarget::RoundRobin(turn) => *turn as u64,
        }
    }
}

impl Upstream {
    /// The peer that a request is assigned to, whatever its load. `now` is [`crate::clock::since_start`].
    #[inline]
    pub fn select(
        &self,
        target: &HashTarget,
        tried: &Tried,
        now: Duration,
    ) -> Option<PeerChoice<'_>> {
        // Nearly every request ends here: its owner takes all its keys, so no walk is needed.
        if let HashTarget::Key(key) = target
            && let Some(owner) = self.ring.owner(key)
            && let Some(peer) = self.peer(owner)
            && peer.state.takes_all_keys(now)
            && !tried.contains(owner)
        {
            return Some(PeerChoice {
                member: owner,
                peer,
            });
        }
        let context = SelectionContext::new(target, tried, now);
        self.choice(
            self.assigned_peer(&context)
                .or_else(|| self.last_resort(&context))?,
        )
    }

    /// Whether a request can be assigned to a peer: it is available, or keeps the key while it drains.
    pub(super) fn may_be_assigned(&self, context: &SelectionContext<'_>, member: MemberId) -> bool {
        self.is_available(context, member) || self.keeps_while_draining(context, member)
    }

    pub(super) fn is_available(&self, context: &SelectionContext<'_>, member: MemberId) -> bool {
        !context.tried.contains(member)
            && self
                .peer(member)
                .is_some_and(|peer| peer.state.is_available(context.now))
    }

    pub(super) fn choice(&self, member: MemberId) -> Option<PeerChoice<'_>> {
        self.peer(member).map(|peer| PeerChoice { member, peer })
    }

    /// The peers in the order of preference: a key's walk, or the round-robin order, in which a peer
    /// occurs as often as its weight says.
    pub(super) fn candidates(&self, target: &HashTarget) -> impl Iterator<Item = MemberId> {
        let (key, turn) = match target {
            HashTarget::Key(key) => (Some(key), None),
            HashTarget::RoundRobin(turn) => (None, Some(*turn)),
        };
        let walk = key.into_iter().flat_map(|key| self.ring.walk(key));
        let round = turn
            .into_iter()
            .flat_map(|turn| self.round_robin.round_from(turn));
        let round = round.map(MemberId);
        walk.chain(round)
    }

    /// Whether the slow start of a peer, if it is in one, admits the request.
    pub(super) fn slow_start_admits(
        &self,
        context: &SelectionContext<'_>,
        member: MemberId,
    ) -> bool {
        self.applicable_slow_start(context, member)
            .is_none_or(|(slow_start, salt)| {
                slow_start.admits(context.key_hash(), salt, context.now)
            })
    }

    fn assigned_peer(&self, context: &SelectionContext<'_>) -> Option<MemberId> {
        let first = self.find_peer(context.target, |member| {
            self.may_be_assigned(context, member)
        })?;
        match self.applicable_slow_start(context, first) {
            Some(_) => self.assigned_in_slow_start(context),
            None => Some(first),
        }
    }

    /// The first of [`Self::candidates`] that `accepts`, found without an iterator.
    fn find_peer(
        &self,
        target: &HashTarget,
        mut accepts: impl FnMut(MemberId) -> bool,
    ) -> Option<MemberId> {
        match target {
            HashTarget::Key(key) => self.ring.find(key, accepts),
            HashTarget::RoundRobin(turn) => {
                let accepts = |index| accepts(MemberId(index));
                self.round_robin.find_from(*turn, accepts).map(MemberId)
            }
        }
    }

    /// The first of the walk with a slow start that admits the key, or with none; the first of all where every
    /// peer of the walk is in a slow start.
    fn assigned_in_slow_start(&self, context: &SelectionContext<'_>) -> Option<MemberId> {
        let walk = self.candidates(context.target);
        let walk = walk.filter(|&member| self.may_be_assigned(context, member));
        let walk = walk.map(|member| (member, self.applicable_slow_start(context, member)));
        first_admitting_peer(context.key_hash(), context.now, walk).map(|(assigned, _)| assigned)
    }

    /// The slow start that decides about the request; `None`: the peer takes it in any case.
    fn applicable_slow_start(
        &self,
        context: &SelectionContext<'_>,
        member: MemberId,
    ) -> Option<(SlowStartWindow, Salt)> {
        let peer = self.peer(member)?;
        let slow_start = peer.state.slow_start(context.now)?;
        // A key that a cancelled drain left here must not leave now and return when the slow start admits
        // it, however long it was idle meanwhile.
        let stays = peer.state.is_draining()
            || self.has_affinity(context, peer, peer.state.slow_start_elapsed(context.now));
        (!stays).then_some((slow_start, peer.salt))
    }

    /// Whether a draining peer still serves this key: it did so lately, and the drain has time left.
    fn keeps_while_draining(&self, context: &SelectionContext<'_>, member: MemberId) -> bool {
        let (Some(drain), Some(peer)) = (&self.config.drain, self.peer(member)) else {
            return false;
        };
        let has_time_left = |elapsed: Duration| elapsed < drain.deadline;
        peer.state
            .draining_for(context.now)
            .is_some_and(has_time_left)
            && !context.tried.contains(member)
            && self.has_affinity(context, peer, Duration::ZERO)
    }

    /// Whether the key's last request went to the peer, within `drain.idle` and `extra`.
    fn has_affinity(&self, context: &SelectionContext<'_>, peer: &Peer, extra: Duration) -> bool {
        let (Some(drain), Some(affinity), HashTarget::Key(_)) =
            (&self.config.drain, &self.affinity, context.target)
        else {
            return false;
        };
        let idle = drain.idle.saturating_add(extra);
        affinity.is_assigned_to(context.key_hash(), peer.state.epoch(), context.now, idle)
    }

    /// The peer to try when none is available.
    fn last_resort(&self, context: &SelectionContext<'_>) -> Option<MemberId> {
        let untried = |member| {
            self.peer(member)
                .filter(|_| !context.tried.contains(member))
        };
        let is_up = |member| untried(member).is_some_and(|peer| peer.state.is_up());
        let may_be_up = |member| untried(member).is_some_and(|peer| peer.state.may_be_up());
        self.find_peer(context.target, is_up)
            .or_else(|| self.find_peer(context.target, may_be_up))
    }
}
