//! The queue of requests that wait for room at one peer, in order of arrival.

use std::collections::VecDeque;
use std::fmt;
use std::task::Waker;

use parking_lot::{Mutex, MutexGuard};

/// Whether a peer with a number of requests may take one more, given a total; see
/// [`UpstreamPermit::try_admit`](super::UpstreamPermit::try_admit).
pub(super) type RoomPredicate = Box<dyn Fn(u32, u32) -> bool + Send>;

/// The queue of one peer.
#[derive(Default)]
pub(super) struct WaitQueue(Mutex<Waiters>);

impl WaitQueue {
    pub(super) fn lock(&self) -> MutexGuard<'_, Waiters> {
        self.0.lock()
    }
}

impl fmt::Debug for WaitQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitQueue").finish_non_exhaustive()
    }
}

/// The waiting requests, and the admitted ones that have not left yet. A request is known by its number in
/// the order of arrival.
#[derive(Default)]
pub(super) struct Waiters {
    /// How many requests have ever been enqueued.
    enqueued: u64,
    waiting: VecDeque<Waiter>,
    admitted: Vec<u64>,
}

struct Waiter {
    number: u64,
    waker: Waker,
    room: RoomPredicate,
}

impl Waiters {
    /// Enqueues a request; its number, or `None` if `max` requests wait already.
    pub(super) fn enqueue(&mut self, max: usize, room: RoomPredicate) -> Option<u64> {
        if self.waiting.len() >= max {
            return None;
        }
        self.enqueued += 1;
        self.waiting.push_back(Waiter {
            number: self.enqueued,
            waker: Waker::noop().clone(),
            room,
        });
        Some(self.enqueued)
    }

    /// Admits the first waiting request if `has_room` for it, and returns its waker.
    pub(super) fn admit_first_if(
        &mut self,
        has_room: impl Fn(&RoomPredicate) -> bool,
    ) -> Option<Waker> {
        if !has_room(&self.waiting.front()?.room) {
            return None;
        }
        let waiter = self.waiting.pop_front()?;
        self.admitted.push(waiter.number);
        Some(waiter.waker)
    }

    /// Whether the request was admitted; if not, `waker` is the one to wake then.
    pub(super) fn poll_admitted(&mut self, number: u64, waker: &Waker) -> bool {
        let mut waiting = self.waiting.iter_mut();
        if let Some(waiter) = waiting.find(|waiter| waiter.number == number) {
            waiter.waker.clone_from(waker);
        }
        self.admitted.contains(&number)
    }

    /// Removes the request from the admitted ones; false: it was not one of them.
    pub(super) fn take_admission(&mut self, number: u64) -> bool {
        let before = self.admitted.len();
        self.admitted.retain(|admitted| *admitted != number);
        self.admitted.len() < before
    }

    /// Removes the request from the waiting ones; false: it was not one of them.
    pub(super) fn remove_waiting(&mut self, number: u64) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|waiter| waiter.number != number);
        self.waiting.len() < before
    }
}
