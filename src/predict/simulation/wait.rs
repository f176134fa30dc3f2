//! The waits of a simulation, by their deadlines. All waits are equally long, so they time out in order.

use std::collections::VecDeque;
use std::time::Duration;

use super::request::SimulatedRequest;
use crate::policy::selection::PeerBound;
use crate::ring::MemberId;

/// A request in the queue of its assigned peer.
#[derive(Debug)]
pub(super) struct WaitingRequest {
    pub(super) request: SimulatedRequest,
    /// The bound of the peer when the request came.
    pub(super) bound: PeerBound,
}

/// The peer that a request waits for, and the request's number.
type QueueEntry = (MemberId, u64);

/// The deadlines of the waits, also of those whose request was admitted meanwhile.
#[derive(Debug, Default)]
pub(super) struct SimulatedWaits(VecDeque<(u64, QueueEntry)>);

impl SimulatedWaits {
    pub(super) fn push(&mut self, now: u64, wait: Duration, entry: QueueEntry) {
        let wait = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
        self.0.push_back((now.saturating_add(wait), entry));
    }

    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.0.front().map(|(deadline, _)| *deadline)
    }

    pub(super) fn pop(&mut self) -> Option<(u64, QueueEntry)> {
        self.0.pop_front()
    }
}
