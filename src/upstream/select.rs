//! Phase 5: the peer that a request is assigned to. Read-only: a selection counts and records nothing.
//!
//! The rules are those of [`selection`](crate::policy::selection); this is its view of the peers.
//!
//! Invariants; [`admission`](super::admission) keeps them, with an exception for hot keys:
//! * a request goes to its owner while that is available, not in a slow start and below its bound;
//! * the same key and the same peer states give the same peer: selection is not random, and depends on earlier
//!   requests only through the keys that a drain leaves with its peer;
//! * a request finds no peer only when every untried peer is down or draining.

use std::time::Duration;

use super::{HashTarget, PeerChoice, Tried, Upstream};
use crate::policy::selection::{DrainLimits, PeerView, assigned_peer};
use crate::policy::slow_start::{Salt, SlowStartWindow};
use crate::ring::MemberId;

/// The request and the time that a peer of an upstream is selected for.
#[derive(Clone, Copy, Debug)]
pub(super) struct SelectionContext<'u, 'r> {
    pub(super) upstream: &'u Upstream,
    pub(super) target: &'r HashTarget,
    pub(super) tried: &'r Tried,
    pub(super) now: Duration,
    /// Whether the request has left a wait queue; its key was counted before it waited.
    pub(super) has_waited: bool,
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
        assigned_peer(&SelectionContext::new(self, target, tried, now))
    }

    #[inline]
    fn choice(&self, member: MemberId) -> Option<PeerChoice<'_>> {
        self.peer(member).map(|peer| PeerChoice { member, peer })
    }

    pub(super) fn choices(&self) -> impl Iterator<Item = PeerChoice<'_>> {
        let peers = (0..).map(MemberId).zip(&self.peers);
        peers.map(|(member, peer)| PeerChoice { member, peer })
    }
}

impl<'u, 'r> SelectionContext<'u, 'r> {
    #[inline]
    pub(super) fn new(
        upstream: &'u Upstream,
        target: &'r HashTarget,
        tried: &'r Tried,
        now: Duration,
    ) -> Self {
        Self {
            upstream,
            target,
            tried,
            now,
            has_waited: false,
        }
    }
}

impl<'u> PeerView for SelectionContext<'u, '_> {
    type Peer = PeerChoice<'u>;

    #[inline]
    fn now(&self) -> Duration {
        self.now
    }

    #[inline]
    fn key_hash(&self) -> u64 {
        match self.target {
            HashTarget::Key(key) => key.hash().0,
            HashTarget::RoundRobin(turn) => *turn as u64,
        }
    }

    fn has_key(&self) -> bool {
        matches!(self.target, HashTarget::Key(_))
    }

    fn is_first_attempt(&self) -> bool {
        self.tried.is_empty()
    }

    #[inline]
    fn owner(&self) -> Option<PeerChoice<'u>> {
        match self.target {
            HashTarget::Key(key) => self.upstream.choice(self.upstream.ring.owner(key)?),
            HashTarget::RoundRobin(_) => None,
        }
    }

    fn walk(&self) -> impl Iterator<Item = PeerChoice<'u>> + Clone {
        let upstream = self.upstream;
        let (key, turn) = match self.target {
            HashTarget::Key(key) => (Some(key), None),
            HashTarget::RoundRobin(turn) => (None, Some(*turn)),
        };
        let walk = key.into_iter().flat_map(|key| upstream.ring.walk(key));
        let round = turn
            .into_iter()
            .flat_map(|turn| upstream.round_robin.round_from(turn));
        let members = walk.chain(round.map(MemberId));
        members.filter_map(|member| upstream.choice(member))
    }

    fn find(&self, mut accepts: impl FnMut(PeerChoice<'u>) -> bool) -> Option<PeerChoice<'u>> {
        let upstream = self.upstream;
        let mut accepts = |member| upstream.choice(member).is_some_and(&mut accepts);
        let member = match self.target {
            HashTarget::Key(key) => upstream.ring.find(key, accepts),
            HashTarget::RoundRobin(turn) => {
                let accepts = |index| accepts(MemberId(index));
                let index = upstream.round_robin.find_from(*turn, accepts);
                index.map(MemberId)
            }
        };
        upstream.choice(member?)
    }

    #[inline]
    fn is_tried(&self, choice: PeerChoice<'u>) -> bool {
        self.tried.contains(choice.member)
    }

    #[inline]
    fn is_available(&self, choice: PeerChoice<'u>) -> bool {
        choice.peer.state.is_available(self.now)
    }

    #[inline]
    fn takes_all_keys(&self, choice: PeerChoice<'u>) -> bool {
        choice.peer.state.takes_all_keys(self.now)
    }

    fn is_up(&self, choice: PeerChoice<'u>) -> bool {
        choice.peer.state.is_up()
    }

    fn may_be_up(&self, choice: PeerChoice<'u>) -> bool {
        choice.peer.state.may_be_up()
    }

    #[inline]
    fn slow_start(&self, choice: PeerChoice<'u>) -> Option<SlowStartWindow> {
        choice.peer.state.slow_start(self.now)
    }

    fn slow_start_elapsed(&self, choice: PeerChoice<'u>) -> Duration {
        choice.peer.state.slow_start_elapsed(self.now)
    }

    fn salt(&self, choice: PeerChoice<'u>) -> Salt {
        choice.peer.salt
    }

    fn is_draining(&self, choice: PeerChoice<'u>) -> bool {
        choice.peer.state.is_draining()
    }

    #[inline]
    fn draining_for(&self, choice: PeerChoice<'u>) -> Option<Duration> {
        choice.peer.state.draining_for(self.now)
    }

    fn drain_limits(&self) -> Option<DrainLimits> {
        let drain = self.upstream.config.drain?;
        Some(DrainLimits {
            idle: drain.idle,
            deadline: drain.deadline,
        })
    }

    fn served_key_within(&self, choice: PeerChoice<'u>, idle: Duration) -> bool {
        let (Some(affinity), HashTarget::Key(key)) = (&self.upstream.affinity, self.target) else {
            return false;
        };
        affinity.is_assigned_to(key.hash().0, choice.peer.state.epoch(), self.now, idle)
    }
}
