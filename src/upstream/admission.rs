//! Phase 5, second half: counts a request in at a peer, at once or after a wait in the queue of its
//! assigned peer.
//!
//! ```text
//!   assigned peer: a hot key's next peer in turn, otherwise `Upstream::select`
//!      ├─ below its bound ──► admitted, and the key recorded for drains
//!      └─ at its bound
//!            ├─ may wait ───► queued there ─┬─ admitted when another request leaves the peer
//!            │                              └─ `bounded_load.wait` over: starts again, without the queue
//!            └─ otherwise ──► overflow: another peer (`bounded_load`)
//! ```
//!
//! A wait costs a request a little time, and saves it from a peer that does not know its key. Only a first
//! attempt with a key that is not hot waits. At most [`MAX_WAITING`] wait at one peer: of a peer's 13
//! requests one ends soon, and the third in the queue would wait for the third to end.

use std::task::{Poll, Waker};
use std::time::Duration;

use super::in_flight::{PeerPermit, QueueWait, UpstreamPermit};
use super::peer_epoch::PeerEpoch;
use super::select::SelectionContext;
use super::{HashTarget, Peer, PeerChoice, Tried, Upstream};
use crate::config::BoundedLoadConfig;
use crate::ring::MemberId;
use crate::telemetry::metrics::PeerWaitOutcome;

/// The most requests that wait at one peer.
const MAX_WAITING: usize = 2;

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
        self.admit_without_queue(&SelectionContext::new(target, tried, now), permit)
    }

    /// Counts a request in at a peer, or enqueues it where its assigned peer is at its bound and
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
        let context = SelectionContext::new(target, tried, now);
        Ok(match self.try_assigned_peer(&context, permit)? {
            AssignedPeerResult::Admitted(admission) => AdmitOutcome::Admitted(admission),
            AssignedPeerResult::AtCapacity(full) => match self.enqueue(context, full) {
                Ok(queued) => AdmitOutcome::Queued(queued),
                Err(full) => AdmitOutcome::Admitted(self.overflow(&context, full)),
            },
        })
    }

    fn admit_without_queue<'t>(
        &self,
        context: &SelectionContext<'_>,
        permit: UpstreamPermit<'t>,
    ) -> Result<Admission, UpstreamPermit<'t>> {
        Ok(match self.try_assigned_peer(context, permit)? {
            AssignedPeerResult::Admitted(admission) => admission,
            AssignedPeerResult::AtCapacity(full) => self.overflow(context, full),
        })
    }

    #[inline]
    fn try_assigned_peer<'t>(
        &self,
        context: &SelectionContext<'_>,
        permit: UpstreamPermit<'t>,
    ) -> Result<AssignedPeerResult<'_, 't>, UpstreamPermit<'t>> {
        let for_hot_key = self
            .select_for_hot_key(context)
            .and_then(|member| self.choice(member));
        let is_hot = for_hot_key.is_some();
        let Some(assigned) =
            for_hot_key.or_else(|| self.select(context.target, context.tried, context.now))
        else {
            return Err(permit);
        };
        if assigned.peer.state.slow_start(context.now).is_some() {
            self.end_slow_starts_if_all_cold(context.now);
        }
        let peer_permit = match self.config.bounded_load {
            None => permit.admit_unbounded(&assigned.peer.in_flight),
            Some(bounded_load) => {
                match self.try_admit(context, bounded_load.factor, assigned, permit) {
                    Ok(peer_permit) => peer_permit,
                    Err(permit) => {
                        return Ok(AssignedPeerResult::AtCapacity(AtCapacity {
                            bounded_load,
                            assigned,
                            is_hot,
                            permit,
                        }));
                    }
                }
            }
        };
        let epoch = if is_hot {
            None
        } else {
            self.record_affinity(context, assigned)
        };
        Ok(AssignedPeerResult::Admitted(Admission {
            member: assigned.member,
            permit: peer_permit,
            overflow_from: None,
            epoch,
        }))
    }

    /// Counts the first attempt of a request with a key; if the key is hot, returns the peer in turn.
    fn select_for_hot_key(&self, context: &SelectionContext<'_>) -> Option<MemberId> {
        if !context.tried.is_empty() || context.has_waited {
            return None;
        }
        let (Some(hot_keys), Some(config), HashTarget::Key(key)) =
            (&self.hot_keys, &self.config.hot_keys, context.target)
        else {
            return None;
        };
        let hit = hot_keys.observe(context.key_hash(), context.now)?;
        let serving = self.serving_share(context.now);
        let can_serve = |member: MemberId| {
            let peer = self.peer(member)?;
            let serves =
                self.is_available(context, member) && peer.state.takes_all_keys(context.now);
            serves.then_some((member, peer.weighted_share))
        };
        let walk = self.ring.walk(key).filter_map(can_serve);
        config
            .spread
            .select_peer(hit.share, serving, hit.turn, walk)
    }

    /// Ends all slow starts when every available peer is in one: owners serve then, and must go on to. If the
    /// slow starts went on, the keys would move again as soon as one peer had completed its own.
    fn end_slow_starts_if_all_cold(&self, now: Duration) {
        if self.serving_weight(now) == 0 {
            self.shared.cold_start.set(now);
            self.peers
                .iter()
                .for_each(|peer| peer.state.end_slow_start_if_cold(now));
        }
    }

    /// Records which peer serves the key, for a later drain of that peer. Not for a retry, which must not
    /// move a session for good, and not for a last resort, which is not the key's assigned peer.
    fn record_affinity(
        &self,
        context: &SelectionContext<'_>,
        assigned: PeerChoice<'_>,
    ) -> Option<PeerEpoch> {
        let (Some(drain), Some(affinity), HashTarget::Key(_)) =
            (&self.config.drain, &self.affinity, context.target)
        else {
            return None;
        };
        if !context.tried.is_empty() || !self.may_be_assigned(context, assigned.member) {
            return None;
        }
        let epoch = assigned.peer.state.epoch();
        if affinity.touch(context.key_hash(), epoch, context.now, drain.idle) {
            self.metrics.affinity_evictions.inc();
        }
        Some(epoch)
    }

    /// Enqueues a request at its assigned peer; gives it back where it may not wait or the queue is full.
    fn enqueue<'a>(
        &'a self,
        context: SelectionContext<'a>,
        full: AtCapacity<'a, 'a>,
    ) -> Result<QueuedRequest<'a>, AtCapacity<'a, 'a>> {
        let AtCapacity {
            bounded_load,
            assigned,
            ..
        } = full;
        let is_first_with_key =
            matches!(context.target, HashTarget::Key(_)) && context.tried.is_empty();
        let Some(timeout) = bounded_load
            .wait
            .filter(|_| is_first_with_key && !full.is_hot)
        else {
            return Err(full);
        };
        let room = self.room_predicate(bounded_load.factor, assigned.peer, context.now);
        match full
            .permit
            .enqueue(&assigned.peer.in_flight, MAX_WAITING, room)
        {
            Ok(queue_wait) => Ok(QueuedRequest {
                upstream: self,
                context,
                assigned,
                timeout,
                started: context.now,
                queue_wait,
                outcome_counter: WaitOutcomeCounter {
                    peer: assigned.peer,
                    outcome: PeerWaitOutcome::Cancelled,
                },
            }),
            Err(permit) => Err(AtCapacity { permit, ..full }),
        }
    }

    fn overflow(&self, context: &SelectionContext<'_>, full: AtCapacity<'_, '_>) -> Admission {
        let factor = full.bounded_load.factor;
        let (member, permit) = self.admit_overflow(context, factor, full.assigned, full.permit);
        Admission {
            member,
            permit,
            overflow_from: Some(full.assigned.member),
            epoch: None,
        }
    }
}

/// The result of an admission at the assigned peer.
enum AssignedPeerResult<'a, 't> {
    Admitted(Admission),
    AtCapacity(AtCapacity<'a, 't>),
}

/// A request with an assigned peer that is at its bound.
struct AtCapacity<'a, 't> {
    bounded_load: BoundedLoadConfig,
    assigned: PeerChoice<'a>,
    is_hot: bool,
    permit: UpstreamPermit<'t>,
}

/// A request that waits for room at its assigned peer; dropped, it leaves the queue.
#[derive(Debug)]
pub struct QueuedRequest<'a> {
    upstream: &'a Upstream,
    context: SelectionContext<'a>,
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
        if self.queue_wait.poll(waker)
            || !self
                .upstream
                .may_be_assigned(&self.context, self.assigned.member)
        {
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
        let (upstream, mut context) = (self.upstream, self.context);
        (context.now, context.has_waited) = (now, true);
        upstream
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
                    epoch: upstream.record_affinity(&context, self.assigned),
                })
            }
            Err(permit) => {
                self.outcome_counter.outcome = PeerWaitOutcome::Timeout;
                upstream.admit_without_queue(&context, permit)
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
