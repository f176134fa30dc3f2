//! Where a request goes whose home holds as many as `bounded_load` allows.
//!
//! ```text
//!   the home is full
//!     1  it waits there for a while, where that is configured: the first attempt of a key that is not hot
//!     2  the first clockwise with room below four fifths of the fair share
//!     3  the first that had room below the fair share; then below the bound; of those that the key has come
//!        home to, and then of all that are available
//!     4  there was none: the least loaded, where need be above its bound
//! ```
//!
//! One walk finds what 2 and 3 need. Only when every peer that it found has been filled by others meanwhile it is
//! walked again, a few times.
//!
//! To wait costs some requests a little time and saves them the way to a peer that does not know their
//! key. No more than [`MOST_WAITING`] wait at a peer: of a peer's 13 requests one ends soon, and the third in
//! line would wait for the third to end.

use std::task::{Poll, Waker};
use std::time::Duration;

use super::load::{Place, Ticket, Turn};
use super::select::{Admitted, Call, at};
use super::serving::{part, whole};
use super::{Choice, Peer, Target, Upstream};
use crate::config::BoundedLoad;
use crate::policy::bound::Bound;
use crate::ring::MemberId;
use crate::telemetry::metrics::Waited;

/// The most requests that wait at one peer.
const MOST_WAITING: usize = 2;
/// How often a walk is begun anew as others were quicker, at most.
const WALKS: usize = 4;

/// A request that has come to its upstream.
#[derive(Debug)]
pub enum Arrival<'a> {
    /// It has its peer.
    Admitted(Admitted),
    /// It waits for one.
    Waits(Wait<'a>),
}

/// A request that finds its home full.
pub(super) struct Full<'a, 't> {
    pub(super) load: BoundedLoad,
    pub(super) home: Choice<'a>,
    /// It is the home's turn with a hot key.
    pub(super) is_hot: bool,
    pub(super) ticket: Ticket<'t>,
}

/// A request that waits at its home for a place; dropped, it goes.
#[derive(Debug)]
pub struct Wait<'a> {
    upstream: &'a Upstream,
    call: Call<'a>,
    home: Choice<'a>,
    limit: Duration,
    began: Duration,
    turn: Turn<'a>,
    count: Count<'a>,
}

/// Counts a wait when it is over.
#[derive(Debug)]
struct Count<'a> {
    peer: &'a Peer,
    ends: Waited,
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        self.peer.metrics.waits.inc(self.ends);
    }
}

impl<'a> Wait<'a> {
    /// How long it may last.
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// Ready when it has a place, or there is none to be had; else `waker` is woken when it has one.
    pub fn poll(&mut self, waker: &Waker, now: Duration) -> Poll<()> {
        self.call.now = now;
        if self.turn.poll(waker) || !self.upstream.may_be_home(&self.call, self.home.member) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Ends it: in the place that it was for, or else the request goes on, as if it had not waited.
    ///
    /// # Errors
    /// There is no peer for it any more.
    pub fn end(mut self, now: Duration) -> Result<Admitted, Ticket<'a>> {
        let (upstream, mut call) = (self.upstream, self.call);
        (call.now, call.has_waited) = (now, true);
        upstream
            .metrics
            .waits
            .observe(now.saturating_sub(self.began));
        match self.turn.end() {
            Ok(place) => {
                self.count.ends = Waited::Placed;
                let mut admitted = at(self.home.member, place, None);
                admitted.tenure = upstream.note(&call, self.home);
                Ok(admitted)
            }
            Err(ticket) => {
                self.count.ends = Waited::InVain;
                upstream.admit_at_once(&call, ticket)
            }
        }
    }
}

/// Who may take a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Host {
    /// Only one in no slow start, or that the key would have come home to.
    Home,
    /// Any that is available.
    Any,
}

/// A walk has found no place.
struct Nowhere<'t> {
    ticket: Ticket<'t>,
    /// There was one, and others took it.
    missed: bool,
}

impl Upstream {
    /// Waits at the home; else the request again.
    pub(super) fn line_up<'a>(
        &'a self,
        call: Call<'a>,
        full: Full<'a, 'a>,
    ) -> Result<Wait<'a>, Full<'a, 'a>> {
        let Full { load, home, .. } = full;
        let may_wait = matches!(call.target, Target::Key(_)) && call.tried.is_empty();
        let Some(limit) = load.wait.filter(|_| may_wait && !full.is_hot) else {
            return Err(full);
        };
        let room = self.room(load.factor, home.peer, call.now);
        match full.ticket.line_up(&home.peer.held, MOST_WAITING, room) {
            Ok(turn) => Ok(Wait {
                upstream: self,
                call,
                home,
                limit,
                began: call.now,
                turn,
                count: Count {
                    peer: home.peer,
                    ends: Waited::Left,
                },
            }),
            Err(ticket) => Err(Full { ticket, ..full }),
        }
    }

    /// A place away from home.
    #[cold]
    pub(super) fn overflow(&self, call: &Call<'_>, full: Full<'_, '_>) -> Admitted {
        let Full {
            load,
            home,
            mut ticket,
            ..
        } = full;
        home.peer.metrics.overflow.inc();
        let overflow = Some(home.member);
        for _ in 0..WALKS {
            let nowhere = match self.place_guest(load.factor, call, ticket) {
                Ok((member, place)) => return at(member, place, overflow),
                Err(nowhere) => nowhere,
            };
            ticket = nowhere.ticket;
            if !nowhere.missed {
                break;
            }
        }
        let least = self.least_loaded(call).unwrap_or(home);
        let room = self.room(load.factor, least.peer, call.now);
        let place = ticket
            .try_take_first(&least.peer.held, room)
            .unwrap_or_else(|ticket| {
                self.metrics.over_bound.inc();
                ticket.take(&least.peer.held)
            });
        at(least.member, place, overflow)
    }

    /// A place at the first clockwise with modest room; where there is none, at the first of each kind of
    /// peer that has other room.
    fn place_guest<'t>(
        &self,
        bound: Bound,
        call: &Call<'_>,
        mut ticket: Ticket<'t>,
    ) -> Result<(MemberId, Place), Nowhere<'t>> {
        // Beyond the fair share: a peer was tried, or some start slowly.
        let kinds = [
            (Bound::FAIR, Host::Home),
            (bound, Host::Home),
            (bound, Host::Any),
        ];
        let mut firsts = [None; 3];
        let available = |member: &MemberId| self.is_available(call, *member);
        let walk = self.way(call.target).filter(available);
        for choice in walk.filter_map(|member| self.choice(member)) {
            let is_home = self.is_home_to(call, choice.member);
            if is_home {
                ticket = match self.try_take(Bound::MODEST, call, choice, ticket) {
                    Ok(place) => return Ok((choice.member, place)),
                    Err(ticket) => ticket,
                };
            }
            for ((bound, host), first) in kinds.iter().zip(&mut firsts) {
                let may = first.is_none() && (is_home || *host == Host::Any);
                if may && self.has_room(*bound, call, choice) {
                    *first = Some(choice);
                }
            }
        }
        let missed = firsts.iter().any(Option::is_some);
        for ((bound, _), first) in kinds.into_iter().zip(firsts) {
            let Some(choice) = first else { continue };
            ticket = match self.try_take(bound, call, choice, ticket) {
                Ok(place) => return Ok((choice.member, place)),
                Err(ticket) => ticket,
            };
        }
        Err(Nowhere { ticket, missed })
    }

    fn is_home_to(&self, call: &Call<'_>, member: MemberId) -> bool {
        let ramp = self.ramp(call, member);
        ramp.is_none_or(|(ramp, salt)| ramp.admits(call.key(), salt, call.now))
    }

    #[inline]
    pub(super) fn try_take<'t>(
        &self,
        bound: Bound,
        call: &Call<'_>,
        choice: Choice<'_>,
        ticket: Ticket<'t>,
    ) -> Result<Place, Ticket<'t>> {
        let room = self.room(bound, choice.peer, call.now);
        ticket.try_take(&choice.peer.held, room)
    }

    fn has_room(&self, bound: Bound, call: &Call<'_>, choice: Choice<'_>) -> bool {
        let room = self.room(bound, choice.peer, call.now);
        choice.peer.held.has_room(room)
    }

    /// Whether a peer that holds so many requests may take one of so many in all. Where not all of its
    /// weight is counted, it is judged as if its alone were.
    #[inline]
    fn room(&self, bound: Bound, peer: &Peer, now: Duration) -> impl Fn(u32, u32) -> bool + use<> {
        let own = whole(peer);
        let missing = u32::from(own).saturating_sub(part(peer, now));
        let weight = self.weights(now).parts.saturating_add(missing);
        move |held, total| bound.has_room(held, total, own, weight)
    }

    fn least_loaded(&self, call: &Call<'_>) -> Option<Choice<'_>> {
        let available = super::member_ids(self.peers.len())
            .filter(|&member| self.is_available(call, member))
            .filter_map(|member| self.choice(member));
        let load = |choice: &Choice<'_>| {
            let (held, weight) = (choice.peer.state.in_flight(), choice.peer.weight.get());
            u64::from(held) * u64::from(u16::MAX) / u64::from(weight)
        };
        available.min_by_key(load)
    }
}
