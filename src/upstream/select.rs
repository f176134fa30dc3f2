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

use super::active::Tenure;
use super::bounded::{Arrival, Full};
use super::load::{Place, Ticket};
use super::{Choice, Peer, Target, Tried, Upstream};
use crate::policy::ramp::{Ramp, Salt, first_home};
use crate::ring::MemberId;

/// A request at its peer.
#[derive(Debug)]
pub struct Admitted {
    /// The peer's place.
    pub member: MemberId,
    /// Counts the request there, until it is dropped.
    pub place: Place,
    /// It is not at home: the peer that had no room.
    pub overflow: Option<MemberId>,
    /// Its key is at home there, as was recorded: since when the peer has its keys.
    pub tenure: Option<Tenure>,
}

/// What a request brings to the choice of its peer, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call<'a> {
    pub(super) target: &'a Target,
    pub(super) tried: &'a Tried,
    pub(super) now: Duration,
    /// It has waited at its home: it is not counted anew.
    pub(super) has_waited: bool,
}

/// What came of a request at its home.
pub(super) enum Trial<'a, 't> {
    Admitted(Admitted),
    Full(Full<'a, 't>),
}

impl<'a> Call<'a> {
    pub(super) fn new(target: &'a Target, tried: &'a Tried, now: Duration) -> Self {
        Self {
            target,
            tried,
            now,
            has_waited: false,
        }
    }

    /// What the second hash of slow starts and hot keys is made of. A request without a key has its
    /// turn, so that of those, too, the right share comes home.
    pub(super) fn key(&self) -> u64 {
        match self.target {
            Target::Key(key) => key.hash().0,
            Target::Turn(turn) => *turn as u64,
        }
    }
}

impl Upstream {
    /// The peer that a request is at home with, whatever it holds; counts nothing. `now` is
    /// [`crate::clock::since_start`].
    #[inline]
    pub fn select(&self, target: &Target, tried: &Tried, now: Duration) -> Option<Choice<'_>> {
        if let Target::Key(key) = target
            && let Some(owner) = self.ring.owner(key)
            && let Some(peer) = self.peer(owner)
            && peer.state.is_home(now)
            && !tried.contains(owner)
        {
            return Some(Choice {
                member: owner,
                peer,
            });
        }
        let call = Call::new(target, tried, now);
        self.choice(self.home(&call).or_else(|| self.last_resort(&call))?)
    }

    /// Counts a request in at the peer that is to serve it, at once.
    ///
    /// # Errors
    /// There is none; the request may look elsewhere.
    pub fn admit<'t>(
        &self,
        target: &Target,
        tried: &Tried,
        now: Duration,
        ticket: Ticket<'t>,
    ) -> Result<Admitted, Ticket<'t>> {
        self.admit_at_once(&Call::new(target, tried, now), ticket)
    }

    /// The same, but a request with a key may have to wait at its home, where that is full and
    /// [`bounded_load`](crate::config::Upstream::bounded_load) has time for that.
    ///
    /// # Errors
    /// There is no peer for it.
    pub fn arrive<'a>(
        &'a self,
        target: &'a Target,
        tried: &'a Tried,
        now: Duration,
        ticket: Ticket<'a>,
    ) -> Result<Arrival<'a>, Ticket<'a>> {
        let call = Call::new(target, tried, now);
        Ok(match self.try_home(&call, ticket)? {
            Trial::Admitted(admitted) => Arrival::Admitted(admitted),
            Trial::Full(full) => match self.line_up(call, full) {
                Ok(wait) => Arrival::Waits(wait),
                Err(full) => Arrival::Admitted(self.overflow(&call, full)),
            },
        })
    }

    pub(super) fn admit_at_once<'t>(
        &self,
        call: &Call<'_>,
        ticket: Ticket<'t>,
    ) -> Result<Admitted, Ticket<'t>> {
        Ok(match self.try_home(call, ticket)? {
            Trial::Admitted(admitted) => admitted,
            Trial::Full(full) => self.overflow(call, full),
        })
    }

    #[inline]
    fn try_home<'t>(
        &self,
        call: &Call<'_>,
        ticket: Ticket<'t>,
    ) -> Result<Trial<'_, 't>, Ticket<'t>> {
        let turn = self.hot_turn(call).and_then(|member| self.choice(member));
        let is_hot = turn.is_some();
        let Some(home) = turn.or_else(|| self.select(call.target, call.tried, call.now)) else {
            return Err(ticket);
        };
        if home.peer.state.ramp(call.now).is_some() {
            self.end_ramps_that_spare_nobody(call.now);
        }
        let place = match self.config.bounded_load {
            None => ticket.take(&home.peer.held),
            Some(load) => match self.try_take(load.factor, call, home, ticket) {
                Ok(place) => place,
                Err(ticket) => {
                    return Ok(Trial::Full(Full {
                        load,
                        home,
                        is_hot,
                        ticket,
                    }));
                }
            },
        };
        let mut admitted = at(home.member, place, None);
        if !is_hot {
            admitted.tenure = self.note(call, home);
        }
        Ok(Trial::Admitted(admitted))
    }

    /// The places in the order in which a request without a home would ask them.
    fn find(&self, target: &Target, mut may: impl FnMut(MemberId) -> bool) -> Option<MemberId> {
        match target {
            Target::Key(key) => self.ring.find(key, may),
            Target::Turn(turn) => {
                let may = |place| may(MemberId(place));
                self.rotation.find(*turn, may).map(MemberId)
            }
        }
    }

    pub(super) fn choice(&self, member: MemberId) -> Option<Choice<'_>> {
        self.peer(member).map(|peer| Choice { member, peer })
    }

    pub(super) fn is_available(&self, call: &Call<'_>, member: MemberId) -> bool {
        !call.tried.contains(member)
            && self
                .peer(member)
                .is_some_and(|peer| peer.state.is_available(call.now))
    }

    fn home(&self, call: &Call<'_>) -> Option<MemberId> {
        let first = self.find(call.target, |member| self.may_be_home(call, member))?;
        match self.ramp(call, first) {
            Some(_) => self.home_in_slow_start(call),
            None => Some(first),
        }
    }

    pub(super) fn may_be_home(&self, call: &Call<'_>, member: MemberId) -> bool {
        self.is_available(call, member) || self.keeps(call, member)
    }

    /// The first of the walk that the key has come home to; the first of all where none can spare
    /// another anything.
    fn home_in_slow_start(&self, call: &Call<'_>) -> Option<MemberId> {
        let walk = self.way(call.target);
        let walk = walk.filter(|&member| self.may_be_home(call, member));
        let walk = walk.map(|member| (member, self.ramp(call, member)));
        first_home(call.key(), call.now, walk).map(|(home, _)| home)
    }

    /// The slow start that the key must ask for; `None`: the peer takes it in any case.
    pub(super) fn ramp(&self, call: &Call<'_>, member: MemberId) -> Option<(Ramp, Salt)> {
        let peer = self.peer(member)?;
        let ramp = peer.state.ramp(call.now)?;
        // What a drain has left is not to leave before the key's turn comes, however quiet it is.
        let stays =
            peer.state.is_draining() || self.is_with(call, peer, peer.state.ramps_for(call.now));
        (!stays).then_some((ramp, peer.salt))
    }

    /// Whether the key's last request was the peer's, and lately, or so much longer ago.
    fn is_with(&self, call: &Call<'_>, peer: &Peer, longer: Duration) -> bool {
        let (Some(drain), Some(active), Target::Key(_)) =
            (&self.config.drain, &self.active, call.target)
        else {
            return false;
        };
        let idle = drain.idle.saturating_add(longer);
        active.is_with(call.key(), peer.state.tenure(), call.now, idle)
    }

    /// Where all that are available start slowly, owners serve. That must stay so when one of them is done:
    /// if the others' slow starts went on, their keys would leave again. Who is late has them no further ahead
    /// than it is late.
    fn end_ramps_that_spare_nobody(&self, now: Duration) {
        if self.serving_weight(now) == 0 {
            self.shared.cold.set(now);
            self.peers.iter().for_each(|peer| peer.state.end_ramp(now));
        }
    }

    /// The peers in the order in which they are asked; without a key, as often as they have turns.
    pub(super) fn way(&self, target: &Target) -> impl Iterator<Item = MemberId> {
        let (key, turn) = match target {
            Target::Key(key) => (Some(key), None),
            Target::Turn(turn) => (None, Some(*turn)),
        };
        let walk = key.into_iter().flat_map(|key| self.ring.walk(key));
        let round = turn.into_iter().flat_map(|turn| self.rotation.round(turn));
        let round = round.map(MemberId);
        walk.chain(round)
    }

    /// Whether a draining peer still serves this key: it did so lately, and the drain has time left.
    fn keeps(&self, call: &Call<'_>, member: MemberId) -> bool {
        let (Some(drain), Some(peer)) = (&self.config.drain, self.peer(member)) else {
            return false;
        };
        let has_time = |drains_for: Duration| drains_for < drain.deadline;
        peer.state.drains_for(call.now).is_some_and(has_time)
            && !call.tried.contains(member)
            && self.is_with(call, peer, Duration::ZERO)
    }

    /// Nobody is available.
    fn last_resort(&self, call: &Call<'_>) -> Option<MemberId> {
        let untried = |member| self.peer(member).filter(|_| !call.tried.contains(member));
        let up = |member| untried(member).is_some_and(|peer| peer.state.is_up());
        let may = |member| untried(member).is_some_and(|peer| peer.state.may_be_up());
        self.find(call.target, up)
            .or_else(|| self.find(call.target, may))
    }

    /// Counts the request of a key, and not its retries; of a hot one, the peer whose turn it is.
    fn hot_turn(&self, call: &Call<'_>) -> Option<MemberId> {
        if !call.tried.is_empty() || call.has_waited {
            return None;
        }
        let (Some(hot), Some(config), Target::Key(key)) =
            (&self.hot, &self.config.hot_keys, call.target)
        else {
            return None;
        };
        let heat = hot.observe(call.key(), call.now)?;
        let all = self.serving_part(call.now);
        let can_serve = |member: MemberId| {
            let peer = self.peer(member)?;
            let serves = self.is_available(call, member) && peer.state.is_home(call.now);
            serves.then_some((member, peer.part))
        };
        let walk = self.ring.walk(key).filter_map(can_serve);
        config.spread.choose(heat.share, all, heat.turn, walk)
    }

    /// What a later drain must know: at home with whom the key was. One that serves because another
    /// has failed, or nobody is available, is not its home.
    pub(super) fn note(&self, call: &Call<'_>, home: Choice<'_>) -> Option<Tenure> {
        let (Some(drain), Some(active), Target::Key(_)) =
            (&self.config.drain, &self.active, call.target)
        else {
            return None;
        };
        // A failed attempt is no reason for a session to leave its peer for good.
        if !call.tried.is_empty() || !self.may_be_home(call, home.member) {
            return None;
        }
        let tenure = home.peer.state.tenure();
        if active.touch(call.key(), tenure, call.now, drain.idle) {
            self.metrics.active_forgotten.inc();
        }
        Some(tenure)
    }
}

pub(super) fn at(member: MemberId, place: Place, overflow: Option<MemberId>) -> Admitted {
    Admitted {
        member,
        place,
        overflow,
        tenure: None,
    }
}
