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

use super::{Held, Load, Place, Ticket, admit};

/// Whether a peer that holds so many may take one of so many in all.
type Room = Box<dyn Fn(u32, u32) -> bool + Send>;

/// The requests that wait at one peer.
#[derive(Default)]
pub(super) struct Line(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    /// How many have ever come.
    came: u64,
    /// In the order in which they came.
    line: VecDeque<Waiter>,
    /// Those that were in line and have a place, until they take it.
    placed: Vec<u64>,
}

struct Waiter {
    /// As the how many-th it came.
    number: u64,
    waker: Waker,
    room: Room,
}

impl Waiting {
    fn first_if(&mut self, is_admitted: impl Fn(&Room) -> bool) -> Option<Waiter> {
        if is_admitted(&self.line.front()?.room) {
            self.line.pop_front()
        } else {
            None
        }
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").finish_non_exhaustive()
    }
}

impl Held {
    /// Gives what places there are to those that wait.
    #[cold]
    pub(super) fn hand_over(&self) {
        self.admit_first(self.line.0.lock());
    }

    fn admit_first(&self, mut waiting: MutexGuard<'_, Waiting>) {
        let has_room = |room: &Room| admit(&self.total, self, true, room).is_some();
        let mut wakers = Vec::new();
        while let Some(waiter) = waiting.first_if(has_room) {
            self.word.fetch_sub(Load::WAITS, SeqCst);
            waiting.placed.push(waiter.number);
            wakers.push(waiter.waker);
        }
        drop(waiting);
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// A request that waits for its turn at a peer; dropped, it goes.
#[derive(Debug)]
pub struct Turn<'a> {
    /// It stays in the total while it waits.
    ticket: Ticket<'a>,
    spot: Spot,
}

impl<'a> Ticket<'a> {
    /// Waits at `peer` for `room` (as in [`Ticket::try_take`]), behind those that wait there already.
    ///
    /// # Errors
    /// These are `most`; the ticket again.
    pub fn line_up(
        self,
        peer: &Arc<Held>,
        most: usize,
        room: impl Fn(u32, u32) -> bool + Send + 'static,
    ) -> Result<Turn<'a>, Self> {
        match Spot::new(peer, most, Box::new(room)) {
            Some(spot) => Ok(Turn { ticket: self, spot }),
            None => Err(self),
        }
    }
}

impl<'a> Turn<'a> {
    /// Whether it has a place; else `waker` is woken when it has.
    pub fn poll(&self, waker: &Waker) -> bool {
        self.spot.listen(waker)
    }

    /// Waits no longer: the place, if it has one.
    ///
    /// # Errors
    /// It has none; the ticket again.
    pub fn end(self) -> Result<Place, Ticket<'a>> {
        let Self { ticket, spot } = self;
        if spot.take() {
            Ok(ticket.place(&spot.peer))
        } else {
            Err(ticket)
        }
    }
}

/// A spot in the line, until it is dropped.
#[derive(Debug)]
struct Spot {
    peer: Arc<Held>,
    number: u64,
}

impl Spot {
    /// The last one; `None`: there are `most`.
    fn new(peer: &Arc<Held>, most: usize, room: Room) -> Option<Self> {
        let mut waiting = peer.line.0.lock();
        if waiting.line.len() >= most {
            return None;
        }
        waiting.came += 1;
        let number = waiting.came;
        waiting.line.push_back(Waiter {
            number,
            waker: Waker::noop().clone(),
            room,
        });
        peer.word.fetch_add(Load::WAITS, SeqCst);
        // Somebody may have left just before that.
        peer.admit_first(waiting);
        Some(Self {
            peer: Arc::clone(peer),
            number,
        })
    }

    /// Whether there is a place for it; else whom to wake.
    fn listen(&self, waker: &Waker) -> bool {
        let mut waiting = self.peer.line.0.lock();
        let mut line = waiting.line.iter_mut();
        if let Some(waiter) = line.find(|waiter| waiter.number == self.number) {
            waiter.waker.clone_from(waker);
        }
        waiting.placed.contains(&self.number)
    }

    /// Takes the place that was handed over to it.
    fn take(&self) -> bool {
        let mut waiting = self.peer.line.0.lock();
        let before = waiting.placed.len();
        waiting.placed.retain(|number| *number != self.number);
        waiting.placed.len() < before
    }

    /// Leaves the line; nothing where it is not in it.
    fn step_out(&self) {
        let mut waiting = self.peer.line.0.lock();
        let before = waiting.line.len();
        waiting.line.retain(|waiter| waiter.number != self.number);
        if waiting.line.len() < before {
            self.peer.word.fetch_sub(Load::WAITS, SeqCst);
        }
        // The next may be content with less room.
        self.peer.admit_first(waiting);
    }
}

impl Drop for Spot {
    fn drop(&mut self) {
        self.step_out();
        if self.take() {
            // The ticket is in the total still.
            self.peer.release(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;
    use std::thread::{self, Thread};
    use std::time::Duration;

    use super::super::Total;
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

    fn full() -> (Arc<Total>, Arc<Held>, Vec<Place>) {
        let total = Arc::default();
        let peer = Arc::new(Held::new(&total));
        let held = (0..BOUND)
            .map(|_| Ticket::enter(&total).take(&peer))
            .collect();
        (total, peer, held)
    }

    #[test]
    fn the_first_to_come_is_the_first_to_get_a_place() {
        let (total, peer, mut held) = full();
        let (waker, calls) = waker();
        let line_up = || Ticket::enter(&total).line_up(&peer, 2, room);
        let (first, second) = (line_up().unwrap(), line_up().unwrap());
        drop(line_up().unwrap_err());
        assert!(!first.poll(&waker) && !second.poll(&waker));
        assert_eq!((total.get(), peer.get()), (5, 3));
        held.pop();
        assert_eq!((calls.0.load(SeqCst), peer.get()), (1, 3), "handed over");
        assert!(first.poll(&waker) && !second.poll(&waker));
        held.push(first.end().unwrap());
        held.pop();
        assert!(second.poll(&waker));
        held.push(second.end().unwrap());
        assert_eq!((total.get(), peer.get()), (3, 3));
        held.clear();
        let ticket = Ticket::enter(&total).try_take(&peer, room);
        assert!(ticket.is_ok(), "nobody waits any more");
        drop(ticket);
        assert_eq!((total.get(), peer.load().0), (0, 0));
    }

    #[test]
    fn who_has_not_waited_is_given_no_place_that_others_wait_for() {
        let (total, peer, held) = full();
        let turn = Ticket::enter(&total).line_up(&peer, 2, |_, _| false);
        drop(held);
        let stranger = Ticket::enter(&total).try_take(&peer, room);
        assert!(stranger.is_err() && !peer.has_room(room));
        drop(turn);
        assert!(peer.has_room(room));
    }

    #[test]
    fn who_goes_leaves_its_place_to_the_next() {
        let (total, peer, mut held) = full();
        let (waker, calls) = waker();
        let first = Ticket::enter(&total).line_up(&peer, 2, room).unwrap();
        let second = Ticket::enter(&total).line_up(&peer, 2, room).unwrap();
        assert!(!first.poll(Waker::noop()) && !second.poll(&waker));
        held.pop();
        // It was given a place, and never came.
        drop(first);
        assert_eq!((calls.0.load(SeqCst), total.get()), (1, 3));
        assert!(second.poll(&waker));
        drop(second);
        assert_eq!((total.get(), peer.get()), (2, 2), "with its place");
        held.push(Ticket::enter(&total).take(&peer));
        let third = Ticket::enter(&total).line_up(&peer, 2, room).unwrap();
        drop(third.end().unwrap_err());
        drop(held);
        assert_eq!((total.get(), peer.load().0), (0, 0));
    }

    #[test]
    fn a_peer_that_is_set_aside_meanwhile_counts_those_that_wait_once() {
        let (total, peer, mut held) = full();
        let turn = Ticket::enter(&total).line_up(&peer, 1, room).unwrap();
        peer.set_aside();
        assert_eq!(total.get(), 1, "it has no place yet");
        held.pop();
        assert_eq!((total.get(), peer.get()), (0, 3));
        peer.take_back();
        assert_eq!(total.get(), 3);
        held.push(turn.end().unwrap());
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
    fn no_place_is_missed_however_many_threads_wait_and_leave() {
        const CLIENTS: usize = 8;
        const ROUNDS: usize = 3_000;
        let (total, peer, _) = full();
        let placed = AtomicUsize::new(0);
        let client = |number: usize| {
            let waker = Waker::from(Arc::new(Unpark(thread::current())));
            for round in 0..ROUNDS {
                let ticket = match Ticket::enter(&total).try_take(&peer, room) {
                    Ok(place) => {
                        thread::yield_now();
                        drop(place);
                        continue;
                    }
                    Err(ticket) => ticket,
                };
                let Ok(turn) = ticket.line_up(&peer, CLIENTS, room) else {
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
                placed.fetch_add(usize::from(turn.end().is_ok()), SeqCst);
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
