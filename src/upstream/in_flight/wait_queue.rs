//! Who waits at a full peer for a place there, in the order in which they came.
//!
//! Whoever leaves the peer hands its place over: it admits the first in line, by the bound of this moment, and
//! wakes it. So a free place does not stand empty until the one that it is for has woken up. Who has not waited
//! is given none as long as others do: the peer's [`Load`] says so.
//!
//! A bound also gets wider when more requests come elsewhere. Nobody is admitted for that: those that wait have
//! been promised nothing, and to look through all lines at every request would cost all of them.
//!
//! No place is missed. Who waits is counted in the word that a leaving request changes, and looks for room after
//! that: either it sees that the other has left, or the other sees that it waits.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::task::Waker;

use parking_lot::{Mutex, MutexGuard};

use super::{PackedLoad, PeerInFlight, PeerPermit, UpstreamPermit, try_reserve};

/// Whether a peer that holds so many may take one of so many in all.
type RoomPredicate = Box<dyn Fn(u32, u32) -> bool + Send>;

/// The requests that wait at one peer.
#[derive(Default)]
pub(super) struct WaitQueue(Mutex<WaitQueueState>);

#[derive(Default)]
struct WaitQueueState {
    /// How many have ever come.
    enqueued: u64,
    /// In the order in which they came.
    waiters: VecDeque<QueueWaiter>,
    /// Those that were in line and have a place, until they take it.
    admitted: Vec<u64>,
}

struct QueueWaiter {
    /// As the how many-th it came.
    number: u64,
    waker: Waker,
    room: RoomPredicate,
}

impl WaitQueueState {
    fn pop_front_if(
        &mut self,
        is_admitted: impl Fn(&RoomPredicate) -> bool,
    ) -> Option<QueueWaiter> {
        if is_admitted(&self.waiters.front()?.room) {
            self.waiters.pop_front()
        } else {
            None
        }
    }
}

impl fmt::Debug for WaitQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").finish_non_exhaustive()
    }
}

impl PeerInFlight {
    /// Gives what places there are to those that wait.
    #[cold]
    pub(super) fn admit_waiters(&self) {
        self.admit_waiters_locked(self.wait_queue.0.lock());
    }

    fn admit_waiters_locked(&self, mut waiting: MutexGuard<'_, WaitQueueState>) {
        let has_room = |room: &RoomPredicate| try_reserve(&self.total, self, true, room).is_some();
        let mut wakers = Vec::new();
        while let Some(waiter) = waiting.pop_front_if(has_room) {
            self.word.fetch_sub(PackedLoad::ONE_WAITER, SeqCst);
            waiting.admitted.push(waiter.number);
            wakers.push(waiter.waker);
        }
        drop(waiting);
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// A request that waits for its turn at a peer; dropped, it goes.
#[derive(Debug)]
pub struct QueueWait<'a> {
    /// It stays in the total while it waits.
    permit: UpstreamPermit<'a>,
    slot: QueueSlot,
}

impl<'a> UpstreamPermit<'a> {
    /// Waits at `peer` for `room` (as in [`Ticket::try_take`]), behind those that wait there already.
    ///
    /// # Errors
    /// These are `most`; the ticket again.
    pub fn enqueue(
        self,
        peer: &Arc<PeerInFlight>,
        most: usize,
        room: impl Fn(u32, u32) -> bool + Send + 'static,
    ) -> Result<QueueWait<'a>, Self> {
        match QueueSlot::new(peer, most, Box::new(room)) {
            Some(spot) => Ok(QueueWait {
                permit: self,
                slot: spot,
            }),
            None => Err(self),
        }
    }
}

impl<'a> QueueWait<'a> {
    /// Whether it has a place; else `waker` is woken when it has.
    pub fn poll(&self, waker: &Waker) -> bool {
        self.slot.poll_admitted(waker)
    }

    /// Waits no longer: the place, if it has one.
    ///
    /// # Errors
    /// It has none; the ticket again.
    pub fn finish(self) -> Result<PeerPermit, UpstreamPermit<'a>> {
        let Self {
            permit: ticket,
            slot: spot,
        } = self;
        if spot.take_admission() {
            Ok(ticket.into_peer_permit(&spot.in_flight))
        } else {
            Err(ticket)
        }
    }
}

/// A spot in the line, until it is dropped.
#[derive(Debug)]
struct QueueSlot {
    in_flight: Arc<PeerInFlight>,
    number: u64,
}

impl QueueSlot {
    /// The last one; `None`: there are `most`.
    fn new(peer: &Arc<PeerInFlight>, most: usize, room: RoomPredicate) -> Option<Self> {
        let mut waiting = peer.wait_queue.0.lock();
        if waiting.waiters.len() >= most {
            return None;
        }
        waiting.enqueued += 1;
        let number = waiting.enqueued;
        waiting.waiters.push_back(QueueWaiter {
            number,
            waker: Waker::noop().clone(),
            room,
        });
        peer.word.fetch_add(PackedLoad::ONE_WAITER, SeqCst);
        // Somebody may have left just before that.
        peer.admit_waiters_locked(waiting);
        Some(Self {
            in_flight: Arc::clone(peer),
            number,
        })
    }

    /// Whether there is a place for it; else whom to wake.
    fn poll_admitted(&self, waker: &Waker) -> bool {
        let mut waiting = self.in_flight.wait_queue.0.lock();
        let mut line = waiting.waiters.iter_mut();
        if let Some(waiter) = line.find(|waiter| waiter.number == self.number) {
            waiter.waker.clone_from(waker);
        }
        waiting.admitted.contains(&self.number)
    }

    /// Takes the place that was handed over to it.
    fn take_admission(&self) -> bool {
        let mut waiting = self.in_flight.wait_queue.0.lock();
        let before = waiting.admitted.len();
        waiting.admitted.retain(|number| *number != self.number);
        waiting.admitted.len() < before
    }

    /// Leaves the line; nothing where it is not in it.
    fn leave_queue(&self) {
        let mut waiting = self.in_flight.wait_queue.0.lock();
        let before = waiting.waiters.len();
        waiting
            .waiters
            .retain(|waiter| waiter.number != self.number);
        if waiting.waiters.len() < before {
            self.in_flight
                .word
                .fetch_sub(PackedLoad::ONE_WAITER, SeqCst);
        }
        // The next may be content with less room.
        self.in_flight.admit_waiters_locked(waiting);
    }
}

impl Drop for QueueSlot {
    fn drop(&mut self) {
        self.leave_queue();
        if self.take_admission() {
            // The ticket is in the total still.
            self.in_flight.release(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;
    use std::thread::{self, Thread};
    use std::time::Duration;

    use super::super::UpstreamInFlight;
    use super::*;
    use crate::clock;

    const BOUND: u32 = 3;
    const LONG: Duration = Duration::from_secs(30);

    fn room(held: u32, _: u32) -> bool {
        held < BOUND
    }

    #[derive(Default)]
    struct Calls(AtomicUsize);

    impl Wake for Calls {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    /// A waker that counts, and its count.
    fn waker() -> (Waker, Arc<Calls>) {
        let calls = Arc::<Calls>::default();
        (Arc::clone(&calls).into(), calls)
    }

    fn full() -> (Arc<UpstreamInFlight>, Arc<PeerInFlight>, Vec<PeerPermit>) {
        let total = Arc::default();
        let peer = Arc::new(PeerInFlight::new(&total));
        let held = (0..BOUND)
            .map(|_| UpstreamPermit::acquire(&total).admit_unbounded(&peer))
            .collect();
        (total, peer, held)
    }

    #[test]
    fn wait_queue_is_first_in_first_out() {
        let (total, peer, mut held) = full();
        let (waker, calls) = waker();
        let line_up = || UpstreamPermit::acquire(&total).enqueue(&peer, 2, room);
        let (first, second) = (line_up().unwrap(), line_up().unwrap());
        drop(line_up().unwrap_err());
        assert!(!first.poll(&waker) && !second.poll(&waker));
        assert_eq!((total.get(), peer.get()), (5, 3));
        held.pop();
        assert_eq!((calls.0.load(SeqCst), peer.get()), (1, 3), "handed over");
        assert!(first.poll(&waker) && !second.poll(&waker));
        held.push(first.finish().unwrap());
        held.pop();
        assert!(second.poll(&waker));
        held.push(second.finish().unwrap());
        assert_eq!((total.get(), peer.get()), (3, 3));
        held.clear();
        let ticket = UpstreamPermit::acquire(&total).try_admit(&peer, room);
        assert!(ticket.is_ok(), "nobody waits any more");
        drop(ticket);
        assert_eq!((total.get(), peer.load().0), (0, 0));
    }

    #[test]
    fn wait_queue_refuses_a_newcomer_while_others_wait() {
        let (total, peer, held) = full();
        let turn = UpstreamPermit::acquire(&total).enqueue(&peer, 2, |_, _| false);
        drop(held);
        let stranger = UpstreamPermit::acquire(&total).try_admit(&peer, room);
        assert!(stranger.is_err() && !peer.has_room(room));
        drop(turn);
        assert!(peer.has_room(room));
    }

    #[test]
    fn wait_queue_cancelled_waiter_passes_its_place_on() {
        let (total, peer, mut held) = full();
        let (waker, calls) = waker();
        let first = UpstreamPermit::acquire(&total)
            .enqueue(&peer, 2, room)
            .unwrap();
        let second = UpstreamPermit::acquire(&total)
            .enqueue(&peer, 2, room)
            .unwrap();
        assert!(!first.poll(Waker::noop()) && !second.poll(&waker));
        held.pop();
        // It was given a place, and never came.
        drop(first);
        assert_eq!((calls.0.load(SeqCst), total.get()), (1, 3));
        assert!(second.poll(&waker));
        drop(second);
        assert_eq!((total.get(), peer.get()), (2, 2), "with its place");
        held.push(UpstreamPermit::acquire(&total).admit_unbounded(&peer));
        let third = UpstreamPermit::acquire(&total)
            .enqueue(&peer, 2, room)
            .unwrap();
        drop(third.finish().unwrap_err());
        drop(held);
        assert_eq!((total.get(), peer.load().0), (0, 0));
    }

    #[test]
    fn wait_queue_of_an_excluded_peer_counts_waiters_once() {
        let (total, peer, mut held) = full();
        let turn = UpstreamPermit::acquire(&total)
            .enqueue(&peer, 1, room)
            .unwrap();
        peer.exclude_from_total();
        assert_eq!(total.get(), 1, "it has no place yet");
        held.pop();
        assert_eq!((total.get(), peer.get()), (0, 3));
        peer.include_in_total();
        assert_eq!(total.get(), 3);
        held.push(turn.finish().unwrap());
        drop(held);
        assert_eq!((total.get(), peer.load().0), (0, 0));
    }

    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    #[test]
    fn wait_queue_loses_no_wakeup_across_threads() {
        const CLIENTS: usize = 8;
        const ROUNDS: usize = 3_000;
        let (total, peer, _) = full();
        let placed = AtomicUsize::new(0);
        let client = |number: usize| {
            let waker = Waker::from(Arc::new(Unpark(thread::current())));
            for round in 0..ROUNDS {
                let ticket = match UpstreamPermit::acquire(&total).try_admit(&peer, room) {
                    Ok(place) => {
                        thread::yield_now();
                        drop(place);
                        continue;
                    }
                    Err(ticket) => ticket,
                };
                let Ok(turn) = ticket.enqueue(&peer, CLIENTS, room) else {
                    continue;
                };
                // Some have no patience. Whoever has some would wait forever for a place that is missed.
                let is_patient = !(round + number).is_multiple_of(5);
                let until = clock::since_start() + LONG;
                while !turn.poll(&waker) && is_patient {
                    thread::park_timeout(LONG);
                    assert!(clock::since_start() < until, "a place was missed");
                }
                assert!(peer.get() <= BOUND);
                placed.fetch_add(usize::from(turn.finish().is_ok()), SeqCst);
            }
        };
        thread::scope(|scope| {
            for number in 0..CLIENTS {
                let client = &client;
                scope.spawn(move || client(number));
            }
        });
        assert!(placed.load(SeqCst) > 0);
        assert_eq!((total.get(), peer.load().0), (0, 0));
    }
}
