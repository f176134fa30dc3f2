//! Phase 5: which peer gets a request.
//!
//! ```text
//!   the peer that the key is at home with
//!     1  of a hot key: the one whose turn it is, among the first of its walk
//!     2  the first of the walk that is available, or that drains and served the key lately;
//!        one in a slow start only for keys that have come home
//!     3  nobody is available: the first that is ejected or suppressed, then that no probe has answered for
//!   and if that one holds as many requests as `bounded_load` allows: see [`bounded`](super::bounded)
//! ```
//!
//! Laws:
//! * a request whose owner is available, is not in a slow start, and has room, never goes elsewhere,
//!   but for a hot key;
//! * the same key in the same state of the peers has the same home: no chance, no memory but of what a
//!   drain keeps, and of what it has left when it is called off;
//! * "no peer" is the answer only when every untried peer is down or draining;
//! * to ask changes nothing ([`Upstream::select`]).

use std::time::Duration;

use super::affinity::PeerEpoch;
use super::bounded_load::{AdmitOutcome, AtCapacity};
use super::in_flight::{PeerPermit, UpstreamPermit};
use super::{HashTarget, Peer, PeerChoice, Tried, Upstream};
use crate::policy::slow_start::{Salt, SlowStartWindow, first_admitting_peer};
use crate::ring::MemberId;

/// A request at its peer.
#[derive(Debug)]
pub struct Admission {
    /// The peer's place.
    pub member: MemberId,
    /// Counts the request there, until it is dropped.
    pub permit: PeerPermit,
    /// It is not at home: the peer that had no room.
    pub overflow_from: Option<MemberId>,
    /// Its key is at home there, as was recorded: since when the peer has its keys.
    pub epoch: Option<PeerEpoch>,
}

/// What a request brings to the choice of its peer, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct SelectionContext<'a> {
    pub(super) target: &'a HashTarget,
    pub(super) tried: &'a Tried,
    pub(super) now: Duration,
    /// It has waited at its home: it is not counted anew.
    pub(super) has_waited: bool,
}

/// What came of a request at its home.
pub(super) enum AssignedPeerResult<'a, 't> {
    Admitted(Admission),
    AtCapacity(AtCapacity<'a, 't>),
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

    /// What the second hash of slow starts and hot keys is made of. A request without a key has its
    /// turn, so that of those, too, the right share comes home.
    pub(super) fn key_hash(&self) -> u64 {
        match self.target {
            HashTarget::Key(key) => key.hash().0,
            HashTarget::RoundRobin(turn) => *turn as u64,
        }
    }
}

impl Upstream {
    /// The peer that a request is at home with, whatever it holds; counts nothing. `now` is
    /// [`crate::clock::since_start`].
    #[inline]
    pub fn select(
        &self,
        target: &HashTarget,
        tried: &Tried,
        now: Duration,
    ) -> Option<PeerChoice<'_>> {
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
        let call = SelectionContext::new(target, tried, now);
        self.choice(
            self.assigned_peer(&call)
                .or_else(|| self.last_resort(&call))?,
        )
    }

    /// Counts a request in at the peer that is to serve it, at once.
    ///
    /// # Errors
    /// There is none; the request may look elsewhere.
    pub fn admit<'t>(
        &self,
        target: &HashTarget,
        tried: &Tried,
        now: Duration,
        ticket: UpstreamPermit<'t>,
    ) -> Result<Admission, UpstreamPermit<'t>> {
        self.admit_without_queue(&SelectionContext::new(target, tried, now), ticket)
    }

    /// The same, but a request with a key may have to wait at its home, where that is full and
    /// [`bounded_load`](crate::config::Upstream::bounded_load) has time for that.
    ///
    /// # Errors
    /// There is no peer for it.
    pub fn admit_or_enqueue<'a>(
        &'a self,
        target: &'a HashTarget,
        tried: &'a Tried,
        now: Duration,
        ticket: UpstreamPermit<'a>,
    ) -> Result<AdmitOutcome<'a>, UpstreamPermit<'a>> {
        let call = SelectionContext::new(target, tried, now);
        Ok(match self.try_assigned_peer(&call, ticket)? {
            AssignedPeerResult::Admitted(admitted) => AdmitOutcome::Admitted(admitted),
            AssignedPeerResult::AtCapacity(full) => match self.enqueue(call, full) {
                Ok(wait) => AdmitOutcome::Queued(wait),
                Err(full) => AdmitOutcome::Admitted(self.admit_overflow(&call, full)),
            },
        })
    }

    pub(super) fn admit_without_queue<'t>(
        &self,
        call: &SelectionContext<'_>,
        ticket: UpstreamPermit<'t>,
    ) -> Result<Admission, UpstreamPermit<'t>> {
        Ok(match self.try_assigned_peer(call, ticket)? {
            AssignedPeerResult::Admitted(admitted) => admitted,
            AssignedPeerResult::AtCapacity(full) => self.admit_overflow(call, full),
        })
    }

    #[inline]
    fn try_assigned_peer<'t>(
        &self,
        call: &SelectionContext<'_>,
        ticket: UpstreamPermit<'t>,
    ) -> Result<AssignedPeerResult<'_, 't>, UpstreamPermit<'t>> {
        let turn = self
            .select_for_hot_key(call)
            .and_then(|member| self.choice(member));
        let is_hot = turn.is_some();
        let Some(home) = turn.or_else(|| self.select(call.target, call.tried, call.now)) else {
            return Err(ticket);
        };
        if home.peer.state.slow_start(call.now).is_some() {
            self.end_slow_starts_if_all_cold(call.now);
        }
        let place = match self.config.bounded_load {
            None => ticket.admit_unbounded(&home.peer.in_flight),
            Some(load) => match self.try_admit(load.factor, call, home, ticket) {
                Ok(place) => place,
                Err(ticket) => {
                    return Ok(AssignedPeerResult::AtCapacity(AtCapacity {
                        bounded_load: load,
                        assigned: home,
                        is_hot,
                        permit: ticket,
                    }));
                }
            },
        };
        let mut admitted = admission(home.member, place, None);
        if !is_hot {
            admitted.epoch = self.record_affinity(call, home);
        }
        Ok(AssignedPeerResult::Admitted(admitted))
    }

    /// The places in the order in which a request without a home would ask them.
    fn find_peer(
        &self,
        target: &HashTarget,
        mut may: impl FnMut(MemberId) -> bool,
    ) -> Option<MemberId> {
        match target {
            HashTarget::Key(key) => self.ring.find(key, may),
            HashTarget::RoundRobin(turn) => {
                let may = |place| may(MemberId(place));
                self.round_robin.find_from(*turn, may).map(MemberId)
            }
        }
    }

    pub(super) fn choice(&self, member: MemberId) -> Option<PeerChoice<'_>> {
        self.peer(member).map(|peer| PeerChoice { member, peer })
    }

    pub(super) fn is_available(&self, call: &SelectionContext<'_>, member: MemberId) -> bool {
        !call.tried.contains(member)
            && self
                .peer(member)
                .is_some_and(|peer| peer.state.is_available(call.now))
    }

    fn assigned_peer(&self, call: &SelectionContext<'_>) -> Option<MemberId> {
        let first = self.find_peer(call.target, |member| self.may_be_assigned(call, member))?;
        match self.applicable_slow_start(call, first) {
            Some(_) => self.assigned_in_slow_start(call),
            None => Some(first),
        }
    }

    pub(super) fn may_be_assigned(&self, call: &SelectionContext<'_>, member: MemberId) -> bool {
        self.is_available(call, member) || self.keeps_while_draining(call, member)
    }

    /// The first of the walk that the key has come home to; the first of all where none can spare
    /// another anything.
    fn assigned_in_slow_start(&self, call: &SelectionContext<'_>) -> Option<MemberId> {
        let walk = self.candidates(call.target);
        let walk = walk.filter(|&member| self.may_be_assigned(call, member));
        let walk = walk.map(|member| (member, self.applicable_slow_start(call, member)));
        first_admitting_peer(call.key_hash(), call.now, walk).map(|(home, _)| home)
    }

    /// The slow start that the key must ask for; `None`: the peer takes it in any case.
    pub(super) fn applicable_slow_start(
        &self,
        call: &SelectionContext<'_>,
        member: MemberId,
    ) -> Option<(SlowStartWindow, Salt)> {
        let peer = self.peer(member)?;
        let ramp = peer.state.slow_start(call.now)?;
        // What a drain has left is not to leave before the key's turn comes, however quiet it is.
        let stays = peer.state.is_draining()
            || self.has_affinity(call, peer, peer.state.slow_start_elapsed(call.now));
        (!stays).then_some((ramp, peer.salt))
    }

    /// Whether the key's last request was the peer's, and lately, or so much longer ago.
    fn has_affinity(&self, call: &SelectionContext<'_>, peer: &Peer, longer: Duration) -> bool {
        let (Some(drain), Some(active), HashTarget::Key(_)) =
            (&self.config.drain, &self.affinity, call.target)
        else {
            return false;
        };
        let idle = drain.idle.saturating_add(longer);
        active.is_assigned_to(call.key_hash(), peer.state.epoch(), call.now, idle)
    }

    /// Where all that are available start slowly, owners serve. That must stay so when one of them is done:
    /// if the others' slow starts went on, their keys would leave again. Who is late has them no further ahead
    /// than it is late.
    fn end_slow_starts_if_all_cold(&self, now: Duration) {
        if self.serving_weight(now) == 0 {
            self.shared.cold_start.set(now);
            self.peers
                .iter()
                .for_each(|peer| peer.state.end_slow_start_if_cold(now));
        }
    }

    /// The peers in the order in which they are asked; without a key, as often as they have turns.
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

    /// Whether a draining peer still serves this key: it did so lately, and the drain has time left.
    fn keeps_while_draining(&self, call: &SelectionContext<'_>, member: MemberId) -> bool {
        let (Some(drain), Some(peer)) = (&self.config.drain, self.peer(member)) else {
            return false;
        };
        let has_time = |drains_for: Duration| drains_for < drain.deadline;
        peer.state.draining_for(call.now).is_some_and(has_time)
            && !call.tried.contains(member)
            && self.has_affinity(call, peer, Duration::ZERO)
    }

    /// Nobody is available.
    fn last_resort(&self, call: &SelectionContext<'_>) -> Option<MemberId> {
        let untried = |member| self.peer(member).filter(|_| !call.tried.contains(member));
        let up = |member| untried(member).is_some_and(|peer| peer.state.is_up());
        let may = |member| untried(member).is_some_and(|peer| peer.state.may_be_up());
        self.find_peer(call.target, up)
            .or_else(|| self.find_peer(call.target, may))
    }

    /// Counts the request of a key, and not its retries; of a hot one, the peer whose turn it is.
    fn select_for_hot_key(&self, call: &SelectionContext<'_>) -> Option<MemberId> {
        if !call.tried.is_empty() || call.has_waited {
            return None;
        }
        let (Some(hot), Some(config), HashTarget::Key(key)) =
            (&self.hot_keys, &self.config.hot_keys, call.target)
        else {
            return None;
        };
        let heat = hot.observe(call.key_hash(), call.now)?;
        let all = self.serving_share(call.now);
        let can_serve = |member: MemberId| {
            let peer = self.peer(member)?;
            let serves = self.is_available(call, member) && peer.state.takes_all_keys(call.now);
            serves.then_some((member, peer.weighted_share))
        };
        let walk = self.ring.walk(key).filter_map(can_serve);
        config.spread.select_peer(heat.share, all, heat.turn, walk)
    }

    /// What a later drain must know: at home with whom the key was. One that serves because another
    /// has failed, or nobody is available, is not its home.
    pub(super) fn record_affinity(
        &self,
        call: &SelectionContext<'_>,
        home: PeerChoice<'_>,
    ) -> Option<PeerEpoch> {
        let (Some(drain), Some(active), HashTarget::Key(_)) =
            (&self.config.drain, &self.affinity, call.target)
        else {
            return None;
        };
        // A failed attempt is no reason for a session to leave its peer for good.
        if !call.tried.is_empty() || !self.may_be_assigned(call, home.member) {
            return None;
        }
        let tenure = home.peer.state.epoch();
        if active.touch(call.key_hash(), tenure, call.now, drain.idle) {
            self.metrics.affinity_evictions.inc();
        }
        Some(tenure)
    }
}

pub(super) fn admission(
    member: MemberId,
    place: PeerPermit,
    overflow: Option<MemberId>,
) -> Admission {
    Admission {
        member,
        permit: place,
        overflow_from: overflow,
        epoch: None,
    }
}
