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

use super::in_flight::{PeerPermit, QueueWait, UpstreamPermit};
use super::select::{Admission, SelectionContext, admission};
use super::weights::{serving_parts, total_parts};
use super::{HashTarget, Peer, PeerChoice, Upstream};
use crate::config::BoundedLoadConfig;
use crate::policy::bounded_load::BalanceFactor;
use crate::ring::MemberId;
use crate::telemetry::metrics::PeerWaitOutcome;

/// The most requests that wait at one peer.
const MAX_WAITING: usize = 2;
/// How often a walk is begun anew as others were quicker, at most.
const MAX_WALKS: usize = 4;

/// A request that has come to its upstream.
#[derive(Debug)]
pub enum AdmitOutcome<'a> {
    /// It has its peer.
    Admitted(Admission),
    /// It waits for one.
    Queued(QueuedRequest<'a>),
}

/// A request that finds its home full.
pub(super) struct AtCapacity<'a, 't> {
    pub(super) bounded_load: BoundedLoadConfig,
    pub(super) assigned: PeerChoice<'a>,
    /// It is the home's turn with a hot key.
    pub(super) is_hot: bool,
    pub(super) permit: UpstreamPermit<'t>,
}

/// A request that waits at its home for a place; dropped, it goes.
#[derive(Debug)]
pub struct QueuedRequest<'a> {
    upstream: &'a Upstream,
    selection: SelectionContext<'a>,
    assigned: PeerChoice<'a>,
    timeout: Duration,
    started: Duration,
    queue_wait: QueueWait<'a>,
    outcome_counter: WaitOutcomeCounter<'a>,
}

/// Counts a wait when it is over.
#[derive(Debug)]
struct WaitOutcomeCounter<'a> {
    peer: &'a Peer,
    outcome: PeerWaitOutcome,
}

impl Drop for WaitOutcomeCounter<'_> {
    fn drop(&mut self) {
        self.peer.metrics.waits.inc(self.outcome);
    }
}

impl<'a> QueuedRequest<'a> {
    /// How long it may last.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Ready when it has a place, or there is none to be had; else `waker` is woken when it has one.
    pub fn poll(&mut self, waker: &Waker, now: Duration) -> Poll<()> {
        self.selection.now = now;
        if self.queue_wait.poll(waker)
            || !self
                .upstream
                .may_be_assigned(&self.selection, self.assigned.member)
        {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Ends it: in the place that it was for, or else the request goes on, as if it had not waited.
    ///
    /// # Errors
    /// There is no peer for it any more.
    pub fn finish(mut self, now: Duration) -> Result<Admission, UpstreamPermit<'a>> {
        let (upstream, mut call) = (self.upstream, self.selection);
        (call.now, call.has_waited) = (now, true);
        upstream
            .metrics
            .waits
            .observe(now.saturating_sub(self.started));
        match self.queue_wait.finish() {
            Ok(place) => {
                self.outcome_counter.outcome = PeerWaitOutcome::Placed;
                let mut admitted = admission(self.assigned.member, place, None);
                admitted.epoch = upstream.record_affinity(&call, self.assigned);
                Ok(admitted)
            }
            Err(ticket) => {
                self.outcome_counter.outcome = PeerWaitOutcome::Timeout;
                upstream.admit_without_queue(&call, ticket)
            }
        }
    }
}

/// Who may take a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OverflowEligibility {
    /// Only one in no slow start, or that the key would have come home to.
    SlowStartAdmits,
    /// Any that is available.
    AnyAvailable,
}

/// A walk has found no place.
struct NoCapacity<'t> {
    permit: UpstreamPermit<'t>,
    /// There was one, and others took it.
    lost_race: bool,
}

impl Upstream {
    /// Waits at the home; else the request again.
    pub(super) fn enqueue<'a>(
        &'a self,
        call: SelectionContext<'a>,
        full: AtCapacity<'a, 'a>,
    ) -> Result<QueuedRequest<'a>, AtCapacity<'a, 'a>> {
        let AtCapacity {
            bounded_load: load,
            assigned: home,
            ..
        } = full;
        let may_wait = matches!(call.target, HashTarget::Key(_)) && call.tried.is_empty();
        let Some(limit) = load.wait.filter(|_| may_wait && !full.is_hot) else {
            return Err(full);
        };
        let room = self.room_predicate(load.factor, home.peer, call.now);
        match full.permit.enqueue(&home.peer.in_flight, MAX_WAITING, room) {
            Ok(turn) => Ok(QueuedRequest {
                upstream: self,
                selection: call,
                assigned: home,
                timeout: limit,
                started: call.now,
                queue_wait: turn,
                outcome_counter: WaitOutcomeCounter {
                    peer: home.peer,
                    outcome: PeerWaitOutcome::Cancelled,
                },
            }),
            Err(ticket) => Err(AtCapacity {
                permit: ticket,
                ..full
            }),
        }
    }

    /// A place away from home.
    #[cold]
    pub(super) fn admit_overflow(
        &self,
        call: &SelectionContext<'_>,
        full: AtCapacity<'_, '_>,
    ) -> Admission {
        let AtCapacity {
            bounded_load: load,
            assigned: home,
            permit: mut ticket,
            ..
        } = full;
        home.peer.metrics.overflow.inc();
        let overflow = Some(home.member);
        for _ in 0..MAX_WALKS {
            let nowhere = match self.place_overflow(load.factor, call, ticket) {
                Ok((member, place)) => return admission(member, place, overflow),
                Err(nowhere) => nowhere,
            };
            ticket = nowhere.permit;
            if !nowhere.lost_race {
                break;
            }
        }
        let least = self.least_loaded(call).unwrap_or(home);
        let room = self.room_predicate(load.factor, least.peer, call.now);
        let place = ticket
            .try_admit_before_queue(&least.peer.in_flight, room)
            .unwrap_or_else(|ticket| {
                self.metrics.bounded_load_exceeded.inc();
                ticket.admit_unbounded(&least.peer.in_flight)
            });
        admission(least.member, place, overflow)
    }

    /// A place at the first clockwise with modest room; where there is none, at the first of each kind of
    /// peer that has other room.
    fn place_overflow<'t>(
        &self,
        bound: BalanceFactor,
        call: &SelectionContext<'_>,
        mut ticket: UpstreamPermit<'t>,
    ) -> Result<(MemberId, PeerPermit), NoCapacity<'t>> {
        // Beyond the fair share: a peer was tried, or some start slowly.
        let kinds = [
            (
                BalanceFactor::FAIR_SHARE,
                OverflowEligibility::SlowStartAdmits,
            ),
            (bound, OverflowEligibility::SlowStartAdmits),
            (bound, OverflowEligibility::AnyAvailable),
        ];
        let mut firsts = [None; 3];
        let available = |member: &MemberId| self.is_available(call, *member);
        let walk = self.candidates(call.target).filter(available);
        for choice in walk.filter_map(|member| self.choice(member)) {
            let is_home = self.slow_start_admits(call, choice.member);
            if is_home {
                ticket = match self.try_admit(BalanceFactor::FOUR_FIFTHS, call, choice, ticket) {
                    Ok(place) => return Ok((choice.member, place)),
                    Err(ticket) => ticket,
                };
            }
            for ((bound, host), first) in kinds.iter().zip(&mut firsts) {
                let may =
                    first.is_none() && (is_home || *host == OverflowEligibility::AnyAvailable);
                if may && self.has_room(*bound, call, choice) {
                    *first = Some(choice);
                }
            }
        }
        let missed = firsts.iter().any(Option::is_some);
        for ((bound, _), first) in kinds.into_iter().zip(firsts) {
            let Some(choice) = first else { continue };
            ticket = match self.try_admit(bound, call, choice, ticket) {
                Ok(place) => return Ok((choice.member, place)),
                Err(ticket) => ticket,
            };
        }
        Err(NoCapacity {
            permit: ticket,
            lost_race: missed,
        })
    }

    fn slow_start_admits(&self, call: &SelectionContext<'_>, member: MemberId) -> bool {
        let ramp = self.applicable_slow_start(call, member);
        ramp.is_none_or(|(ramp, salt)| ramp.admits(call.key_hash(), salt, call.now))
    }

    #[inline]
    pub(super) fn try_admit<'t>(
        &self,
        bound: BalanceFactor,
        call: &SelectionContext<'_>,
        choice: PeerChoice<'_>,
        ticket: UpstreamPermit<'t>,
    ) -> Result<PeerPermit, UpstreamPermit<'t>> {
        let room = self.room_predicate(bound, choice.peer, call.now);
        ticket.try_admit(&choice.peer.in_flight, room)
    }

    fn has_room(
        &self,
        bound: BalanceFactor,
        call: &SelectionContext<'_>,
        choice: PeerChoice<'_>,
    ) -> bool {
        let room = self.room_predicate(bound, choice.peer, call.now);
        choice.peer.in_flight.has_room(room)
    }

    /// Whether a peer that holds so many requests may take one of so many in all. Where not all of its
    /// weight is counted, it is judged as if its alone were.
    #[inline]
    fn room_predicate(
        &self,
        bound: BalanceFactor,
        peer: &Peer,
        now: Duration,
    ) -> impl Fn(u32, u32) -> bool + use<> {
        let own = total_parts(peer);
        let missing = u32::from(own).saturating_sub(serving_parts(peer, now));
        let weight = self.weights(now).shared_parts.saturating_add(missing);
        move |held, total| bound.has_room(held, total, own, weight)
    }

    fn least_loaded(&self, call: &SelectionContext<'_>) -> Option<PeerChoice<'_>> {
        let available = super::member_ids(self.peers.len())
            .filter(|&member| self.is_available(call, member))
            .filter_map(|member| self.choice(member));
        let load = |choice: &PeerChoice<'_>| {
            let (held, weight) = (choice.peer.state.in_flight(), choice.peer.weight.get());
            u64::from(held) * u64::from(u16::MAX) / u64::from(weight)
        };
        available.min_by_key(load)
    }
}
