//! Phase 5, second half: counts a request in at a peer, at once or after a wait in the queue of its
//! assigned peer.
//!
//! ```text
//!   assigned peer: a hot key's next peer in turn, otherwise `Upstream::select`
//!      ├─ below its bound ──► admitted, and the key recorded for drains
//!      └─ at its bound
//!            ├─ may wait ───► queued there ─┬─ admitted when another request leaves the peer
//!            │                              └─ `bounded_load.wait` over: starts again, without the queue
//!            └─ otherwise ──► overflow: another peer
//! ```
//!
//! The peer, and whether a request may wait, are decided by [`selection`](crate::policy::selection).

use std::task::{Poll, Waker};
use std::time::Duration;

use super::in_flight::{PeerPermit, QueueWait, UpstreamPermit};
use super::peer_epoch::PeerEpoch;
use super::select::SelectionContext;
use super::{HashTarget, Peer, PeerChoice, Tried, Upstream};
use crate::policy::bounded_load::BalanceFactor;
use crate::policy::selection::{
    AssignedPeerResult, MAX_WAITING, OverflowAdmission, PeerView, admit_overflow, may_be_assigned,
    may_wait, peer_bound, try_assigned_peer,
};
use crate::ring::MemberId;
use crate::telemetry::metrics::PeerWaitOutcome;

/// A request that is counted at its peer.
#[derive(Debug)]
pub struct Admission {
    /// The peer's index.
    pub member: MemberId,
    /// Counts the request there until it is dropped.
    pub permit: PeerPermit,
    /// The assigned peer, if that was at its bound and the request overflowed to this one.
    pub overflow_from: Option<MemberId>,
    /// The peer's epoch, if the key was recorded as served there.
    pub epoch: Option<PeerEpoch>,
}

/// The result of [`Upstream::admit_or_enqueue`].
#[derive(Debug)]
pub enum AdmitOutcome<'a> {
    /// Counted at a peer.
    Admitted(Admission),
    /// Waits in the queue of its assigned peer.
    Queued(QueuedRequest<'a>),
}

impl Upstream {
    /// Counts a request in at a peer, without a wait.
    ///
    /// # Errors
    /// No peer can serve the request.
    pub fn admit<'t>(
        &self,
        target: &HashTarget,
        tried: &Tried,
        now: Duration,
        permit: UpstreamPermit<'t>,
    ) -> Result<Admission, UpstreamPermit<'t>> {
        SelectionContext::new(self, target, tried, now).admit_without_queue(permit)
    }

    /// Counts a request in at a peer, or enqueues it if its assigned peer is at its bound and
    /// [`bounded_load`](crate::config::UpstreamConfig::bounded_load) lets it wait.
    ///
    /// # Errors
    /// No peer can serve the request.
    pub fn admit_or_enqueue<'a>(
        &'a self,
        target: &'a HashTarget,
        tried: &'a Tried,
        now: Duration,
        permit: UpstreamPermit<'a>,
    ) -> Result<AdmitOutcome<'a>, UpstreamPermit<'a>> {
        let context = SelectionContext::new(self, target, tried, now);
        Ok(match context.try_assigned_peer(permit)? {
            Ok(admission) => AdmitOutcome::Admitted(admission),
            Err(full) => match context.enqueue(full) {
                Ok(queued) => AdmitOutcome::Queued(queued),
                Err(full) => AdmitOutcome::Admitted(context.overflow(full)),
            },
        })
    }
}

impl<'u> SelectionContext<'u, '_> {
    fn admit_without_queue<'t>(
        &self,
        permit: UpstreamPermit<'t>,
    ) -> Result<Admission, UpstreamPermit<'t>> {
        let admission = self.try_assigned_peer(permit)?;
        Ok(admission.unwrap_or_else(|full| self.overflow(full)))
    }

    /// The admission at the assigned peer, or the request that found that at its bound.
    #[inline]
    fn try_assigned_peer<'t>(
        &self,
        permit: UpstreamPermit<'t>,
    ) -> Result<Result<Admission, AtCapacity<'u, 't>>, UpstreamPermit<'t>> {
        Ok(match try_assigned_peer(self, permit)? {
            AssignedPeerResult::Admitted {
                peer,
                admitted,
                is_hot,
            } => Ok(Admission {
                member: peer.member,
                permit: admitted,
                overflow_from: None,
                epoch: if is_hot {
                    None
                } else {
                    self.record_affinity(peer)
                },
            }),
            AssignedPeerResult::AtCapacity {
                assigned,
                factor,
                is_hot,
                permit,
            } => Err(AtCapacity {
                assigned,
                factor,
                is_hot,
                permit,
            }),
        })
    }

    /// Records which peer serves the key, for a later drain of that peer. Does nothing for a retry, which must not
    /// move a session permanently, or for a peer of last resort, which is not the assigned peer of the key.
    fn record_affinity(&self, assigned: PeerChoice<'u>) -> Option<PeerEpoch> {
        let upstream = self.upstream;
        let (Some(drain), Some(affinity), HashTarget::Key(_)) =
            (&upstream.config.drain, &upstream.affinity, self.target)
        else {
            return None;
        };
        if !self.tried.is_empty() || !may_be_assigned(self, assigned) {
            return None;
        }
        let epoch = assigned.peer.state.epoch();
        if affinity.touch(self.key_hash(), epoch, self.now, drain.idle) {
            upstream.metrics.affinity_evictions.inc();
        }
        Some(epoch)
    }

    fn overflow(&self, full: AtCapacity<'u, '_>) -> Admission {
        let assigned = full.assigned;
        assigned.peer.metrics.overflow.inc();
        let OverflowAdmission {
            peer,
            admitted,
            exceeds_bound,
        } = admit_overflow(self, full.factor, assigned, full.permit);
        if exceeds_bound {
            self.upstream.metrics.bounded_load_exceeded.inc();
        }
        Admission {
            member: peer.member,
            permit: admitted,
            overflow_from: Some(assigned.member),
            epoch: None,
        }
    }
}

impl<'a> SelectionContext<'a, 'a> {
    /// Enqueues a request at its assigned peer; gives it back if it may not wait or the queue is full.
    fn enqueue(self, full: AtCapacity<'a, 'a>) -> Result<QueuedRequest<'a>, AtCapacity<'a, 'a>> {
        let wait = self.upstream.config.bounded_load.and_then(|load| load.wait);
        let Some(timeout) = wait.filter(|_| may_wait(&self, full.is_hot)) else {
            return Err(full);
        };
        let assigned = full.assigned;
        let bound = peer_bound(&self, assigned, full.factor);
        let room = move |held, total| bound.has_room(held, total);
        match full
            .permit
            .enqueue(&assigned.peer.in_flight, MAX_WAITING, room)
        {
            Ok(queue_wait) => Ok(QueuedRequest {
                context: self,
                assigned,
                timeout,
                started: self.now,
                queue_wait,
                outcome_counter: WaitOutcomeCounter {
                    peer: assigned.peer,
                    outcome: PeerWaitOutcome::Cancelled,
                },
            }),
            Err(permit) => Err(AtCapacity { permit, ..full }),
        }
    }
}

/// A request with an assigned peer that is at its bound.
struct AtCapacity<'u, 't> {
    assigned: PeerChoice<'u>,
    factor: BalanceFactor,
    is_hot: bool,
    permit: UpstreamPermit<'t>,
}

/// A request that waits for room at its assigned peer; dropped, it leaves the queue.
#[derive(Debug)]
pub struct QueuedRequest<'a> {
    context: SelectionContext<'a, 'a>,
    assigned: PeerChoice<'a>,
    timeout: Duration,
    started: Duration,
    queue_wait: QueueWait<'a>,
    outcome_counter: WaitOutcomeCounter<'a>,
}

impl<'a> QueuedRequest<'a> {
    /// The longest time that the request may wait.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Ready when the request was admitted, or can no longer be assigned to this peer. Otherwise `waker` is
    /// woken when it is admitted.
    pub fn poll(&mut self, waker: &Waker, now: Duration) -> Poll<()> {
        self.context.now = now;
        if self.queue_wait.poll(waker) || !may_be_assigned(&self.context, self.assigned) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Ends the wait. A request that was not admitted meanwhile is admitted elsewhere, as if it had not waited.
    ///
    /// # Errors
    /// No peer can serve the request any more.
    pub fn finish(mut self, now: Duration) -> Result<Admission, UpstreamPermit<'a>> {
        let mut context = self.context;
        (context.now, context.has_waited) = (now, true);
        context
            .upstream
            .metrics
            .waits
            .observe(now.saturating_sub(self.started));
        match self.queue_wait.finish() {
            Ok(permit) => {
                self.outcome_counter.outcome = PeerWaitOutcome::Placed;
                Ok(Admission {
                    member: self.assigned.member,
                    permit,
                    overflow_from: None,
                    epoch: context.record_affinity(self.assigned),
                })
            }
            Err(permit) => {
                self.outcome_counter.outcome = PeerWaitOutcome::Timeout;
                context.admit_without_queue(permit)
            }
        }
    }
}

/// Counts a wait by its outcome when it is over; a wait that is dropped was cancelled.
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
