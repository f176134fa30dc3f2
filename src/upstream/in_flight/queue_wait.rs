//! A request that waits for room at a peer.
//!
//! A request that leaves a peer gives its room to the first waiting one: it counts that one in, by the
//! bound of this moment, and wakes it. So the room is not idle until the waiting task runs. While requests
//! wait, no other request is admitted: [`PackedLoad::has_waiters`] says so.
//!
//! A bound also widens when more requests arrive at other peers. No waiting request is admitted for that:
//! to go through all queues at every request would cost every request.
//!
//! No room is missed. A waiting request is counted in the word that a leaving request changes, and only
//! then looks for room: either it sees that the other has left, or the other sees that it waits.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::task::Waker;

use super::wait_queue::RoomPredicate;
use super::{PackedLoad, PeerInFlight, PeerPermit, UpstreamPermit};

impl<'a> UpstreamPermit<'a> {
    /// Waits at `peer` for `room` (see [`Self::try_admit`]), after the requests that wait there already.
    ///
    /// # Errors
    /// The permit, if `max` requests wait there.
    pub fn enqueue(
        self,
        peer: &Arc<PeerInFlight>,
        max: usize,
        room: impl Fn(u32, u32) -> bool + Send + 'static,
    ) -> Result<QueueWait<'a>, Self> {
        match QueueSlot::new(peer, max, Box::new(room)) {
            Some(slot) => Ok(QueueWait { permit: self, slot }),
            None => Err(self),
        }
    }
}

/// A waiting request; dropped, it leaves the queue.
#[derive(Debug)]
pub struct QueueWait<'a> {
    /// Counts the request in the total while it waits.
    permit: UpstreamPermit<'a>,
    slot: QueueSlot,
}

impl<'a> QueueWait<'a> {
    /// Whether the request was admitted; if not, `waker` is woken when it is.
    pub fn poll(&self, waker: &Waker) -> bool {
        self.slot.poll_admitted(waker)
    }

    /// Ends the wait.
    ///
    /// # Errors
    /// The permit, if the request was not admitted.
    pub fn finish(self) -> Result<PeerPermit, UpstreamPermit<'a>> {
        let Self { permit, slot } = self;
        if slot.take_admission() {
            Ok(permit.into_peer_permit(&slot.in_flight))
        } else {
            Err(permit)
        }
    }
}

/// A position in the queue of a peer, until it is dropped.
#[derive(Debug)]
struct QueueSlot {
    in_flight: Arc<PeerInFlight>,
    number: u64,
}

impl QueueSlot {
    fn new(peer: &Arc<PeerInFlight>, max: usize, room: RoomPredicate) -> Option<Self> {
        let mut waiters = peer.wait_queue.lock();
        let number = waiters.enqueue(max, room)?;
        peer.word.fetch_add(PackedLoad::ONE_WAITER, SeqCst);
        // A request may have left just before it could see that this one waits.
        peer.admit_waiters_locked(waiters);
        Some(Self {
            in_flight: Arc::clone(peer),
            number,
        })
    }

    fn poll_admitted(&self, waker: &Waker) -> bool {
        self.in_flight
            .wait_queue
            .lock()
            .poll_admitted(self.number, waker)
    }

    fn take_admission(&self) -> bool {
        self.in_flight.wait_queue.lock().take_admission(self.number)
    }

    /// Leaves the queue, if the request still waits.
    fn leave_queue(&self) {
        let mut waiters = self.in_flight.wait_queue.lock();
        if waiters.remove_waiting(self.number) {
            self.in_flight
                .word
                .fetch_sub(PackedLoad::ONE_WAITER, SeqCst);
        }
        // The next one may be content with less room.
        self.in_flight.admit_waiters_locked(waiters);
    }
}

impl Drop for QueueSlot {
    fn drop(&mut self) {
        self.leave_queue();
        if self.take_admission() {
            // The request's `UpstreamPermit` counts it in the total.
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
    const TIMEOUT: Duration = Duration::from_secs(30);

    fn room(permits: u32, _: u32) -> bool {
        permits < BOUND
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
        let permits = (0..BOUND)
            .map(|_| UpstreamPermit::acquire(&total).admit_unbounded(&peer))
            .collect();
        (total, peer, permits)
    }

    #[test]
    fn wait_queue_is_first_in_first_out() {
        let (total, peer, mut permits) = full();
        let (waker, calls) = waker();
        let enqueue = || UpstreamPermit::acquire(&total).enqueue(&peer, 2, room);
        let (first, second) = (enqueue().unwrap(), enqueue().unwrap());
        drop(enqueue().unwrap_err());
        assert!(!first.poll(&waker) && !second.poll(&waker));
        assert_eq!((total.get(), peer.get()), (5, 3));
        permits.pop();
        assert_eq!((calls.0.load(SeqCst), peer.get()), (1, 3), "handed over");
        assert!(first.poll(&waker) && !second.poll(&waker));
        permits.push(first.finish().unwrap());
        permits.pop();
        assert!(second.poll(&waker));
        permits.push(second.finish().unwrap());
        assert_eq!((total.get(), peer.get()), (3, 3));
        permits.clear();
        let permit = UpstreamPermit::acquire(&total).try_admit(&peer, room);
        assert!(permit.is_ok(), "no request waits any more");
        drop(permit);
        assert_eq!((total.get(), peer.load().0), (0, 0));
    }

    #[test]
    fn wait_queue_refuses_a_newcomer_while_others_wait() {
        let (total, peer, permits) = full();
        let wait = UpstreamPermit::acquire(&total).enqueue(&peer, 2, |_, _| false);
        drop(permits);
        let newcomer = UpstreamPermit::acquire(&total).try_admit(&peer, room);
        assert!(newcomer.is_err() && !peer.has_room(room));
        drop(wait);
        assert!(peer.has_room(room));
    }

    #[test]
    fn wait_queue_cancelled_waiter_passes_its_place_on() {
        let (total, peer, mut permits) = full();
        let (waker, calls) = waker();
        let first = UpstreamPermit::acquire(&total)
            .enqueue(&peer, 2, room)
            .unwrap();
        let second = UpstreamPermit::acquire(&total)
            .enqueue(&peer, 2, room)
            .unwrap();
        assert!(!first.poll(Waker::noop()) && !second.poll(&waker));
        permits.pop();
        // It was admitted and is dropped before it takes the permit.
        drop(first);
        assert_eq!((calls.0.load(SeqCst), total.get()), (1, 3));
        assert!(second.poll(&waker));
        drop(second);
        assert_eq!((total.get(), peer.get()), (2, 2), "its room was passed on");
        permits.push(UpstreamPermit::acquire(&total).admit_unbounded(&peer));
        let third = UpstreamPermit::acquire(&total)
            .enqueue(&peer, 2, room)
            .unwrap();
        drop(third.finish().unwrap_err());
        drop(permits);
        assert_eq!((total.get(), peer.load().0), (0, 0));
    }

    #[test]
    fn wait_queue_of_an_excluded_peer_counts_waiters_once() {
        let (total, peer, mut permits) = full();
        let wait = UpstreamPermit::acquire(&total)
            .enqueue(&peer, 1, room)
            .unwrap();
        peer.exclude_from_total();
        assert_eq!(total.get(), 1, "not admitted yet");
        permits.pop();
        assert_eq!((total.get(), peer.get()), (0, 3));
        peer.include_in_total();
        assert_eq!(total.get(), 3);
        permits.push(wait.finish().unwrap());
        drop(permits);
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
                let permit = match UpstreamPermit::acquire(&total).try_admit(&peer, room) {
                    Ok(peer_permit) => {
                        thread::yield_now();
                        drop(peer_permit);
                        continue;
                    }
                    Err(permit) => permit,
                };
                let Ok(wait) = permit.enqueue(&peer, CLIENTS, room) else {
                    continue;
                };
                // Some give up at once. The others would wait forever if a wakeup were lost.
                let waits = !(round + number).is_multiple_of(5);
                let until = clock::since_start() + TIMEOUT;
                while !wait.poll(&waker) && waits {
                    thread::park_timeout(TIMEOUT);
                    assert!(clock::since_start() < until, "a wakeup was lost");
                }
                assert!(peer.get() <= BOUND);
                placed.fetch_add(usize::from(wait.finish().is_ok()), SeqCst);
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
