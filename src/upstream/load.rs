//! Requests in flight, of an upstream and of each peer, and the one way in that respects a bound.
//!
//! ```text
//!   Ticket::enter ── total + 1 ──┬─ try_take(peer): held + 1 where that is within the bound ─┬─► Place
//!                                └─ take(peer):     held + 1 in any case                    ─┘     │
//!                                                                                                  │ drop
//!                                                  total - 1  ◄──  held - 1  ◄─────────────────────┘
//! ```
//!
//! A request counts in the total before it counts at a peer, and leaves in the other order, so the
//! total is never less than what the peers hold together.
//!
//! The bound is exact under concurrency. Each change of the total also changes a version in the same
//! word; a place is taken by compare-exchange between two looks at that word. Where the looks agree,
//! the total did not move in between, and at the moment of the exchange the peer held no more than its
//! bound for the total of that very moment. Where they do not, the place is judged by a total and a
//! count that are known to be of one moment, and given back if that is too much.
//!
//! A peer may be above its bound later, when others have finished and the total has fallen: no
//! request is taken from a peer that works on it.
//!
//! What the bound is, is decided in [`bound`](crate::policy::bound); where to go on when a peer is full, by
//! the caller. There is room somewhere at any moment, but two requests that look at the peers one after
//! the other can miss it. A caller that has looked at all takes the least loaded peer ([`Ticket::take`]), and
//! counts that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

/// One request more, in the word of [`Total`]: version + 1, number + 1.
const ENTER: u64 = (1 << 32) + 1;
/// One less: number - 1, which carries into the version.
const LEAVE: u64 = (1 << 32) - 1;

/// Requests of an upstream in flight, those that look for a peer included; below 2^32.
#[derive(Debug, Default)]
pub struct Total {
    /// The number in the lower half; in the upper the version, that every change raises.
    word: AtomicU64,
}

impl Total {
    /// How many there are.
    pub fn get(&self) -> u32 {
        number(self.word.load(SeqCst))
    }
}

/// Requests that one peer of an upstream holds.
#[derive(Debug)]
pub struct Held {
    number: AtomicU32,
    total: Arc<Total>,
}

impl Held {
    /// None yet, of those in `total`.
    pub fn new(total: &Arc<Total>) -> Self {
        Self {
            number: AtomicU32::new(0),
            total: Arc::clone(total),
        }
    }

    /// How many there are.
    pub fn get(&self) -> u32 {
        self.number.load(SeqCst)
    }
}

/// A request that is in the total and holds no place at a peer.
#[derive(Debug)]
pub struct Ticket<'a> {
    total: &'a Total,
}

impl<'a> Ticket<'a> {
    /// Counts a request in.
    pub fn enter(total: &'a Total) -> Self {
        total.word.fetch_add(ENTER, SeqCst);
        Self { total }
    }

    /// A place at `peer`, if that leaves it within `capacity` of the total; else the ticket again.
    /// `capacity` must not fall when the total rises; it may be asked more than once.
    #[inline]
    pub fn try_take(self, peer: &Arc<Held>, capacity: impl Fn(u32) -> u32) -> Result<Place, Self> {
        if admit(self.total, peer, capacity).is_some() {
            Ok(self.place(peer))
        } else {
            Err(self)
        }
    }

    /// A place at `peer`, however many it holds.
    pub fn take(self, peer: &Arc<Held>) -> Place {
        peer.number.fetch_add(1, SeqCst);
        self.place(peer)
    }

    /// The peer has counted the request.
    fn place(self, peer: &Arc<Held>) -> Place {
        debug_assert!(
            std::ptr::eq(self.total, Arc::as_ptr(&peer.total)),
            "another upstream"
        );
        // The place leaves the total, when it is dropped.
        std::mem::forget(self);
        Place {
            peer: Arc::clone(peer),
            leaves_total: true,
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.total.word.fetch_add(LEAVE, SeqCst);
    }
}

/// A request that a peer holds, from its admission to its drop.
#[derive(Debug)]
pub struct Place {
    peer: Arc<Held>,
    /// False: a ticket does.
    leaves_total: bool,
}

impl Place {
    /// Leaves the peer, to look for another one among those of the same `total`: the request stays in it.
    pub fn leave(mut self, total: &Total) -> Ticket<'_> {
        debug_assert!(
            std::ptr::eq(total, Arc::as_ptr(&self.peer.total)),
            "another upstream"
        );
        self.leaves_total = false;
        Ticket { total }
    }

    /// The peer's count.
    pub fn held(&self) -> &Held {
        &self.peer
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.peer.number.fetch_sub(1, SeqCst);
        if self.leaves_total {
            self.peer.total.word.fetch_add(LEAVE, SeqCst);
        }
    }
}

/// A moment at which a peer was within its bound, the request that it was judged for included.
#[derive(Clone, Copy, Debug)]
struct Moment {
    word: u64,
    held: u32,
}

const fn number(word: u64) -> u32 {
    (word & 0xffff_ffff) as u32
}

/// Takes a place where that keeps the peer within its bound; the moment at which it did.
#[inline]
fn admit(total: &Total, peer: &Held, capacity: impl Fn(u32) -> u32) -> Option<Moment> {
    let word = total.word.load(SeqCst);
    let held = reserve(peer, capacity(number(word)))?;
    if total.word.load(SeqCst) == word {
        return Some(Moment { word, held });
    }
    keep(total, peer, capacity)
}

/// One more at a peer that holds less than `capacity`; the number it holds then.
#[inline]
fn reserve(peer: &Held, capacity: u32) -> Option<u32> {
    let more = |held: u32| (held < capacity).then(|| held + 1);
    let before = peer.number.fetch_update(SeqCst, SeqCst, more).ok()?;
    Some(before + 1)
}

/// Judges a place that was taken while the total moved; gives it back where it is above the bound.
#[cold]
fn keep(total: &Total, peer: &Held, capacity: impl Fn(u32) -> u32) -> Option<Moment> {
    let moment = together(total, peer);
    if moment.held <= capacity(number(moment.word)) {
        return Some(moment);
    }
    peer.number.fetch_sub(1, SeqCst);
    None
}

/// The total and what the peer holds at one moment. Each further round means that another request
/// has come or gone meanwhile, so somebody always gets on.
fn together(total: &Total, peer: &Held) -> Moment {
    let mut word = total.word.load(SeqCst);
    loop {
        let held = peer.get();
        let again = total.word.load(SeqCst);
        if again == word {
            return Moment { word, held };
        }
        word = again;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use super::*;
    use crate::policy::bound::Bound;

    fn upstream(peers: usize) -> (Arc<Total>, Vec<Arc<Held>>) {
        let total = Arc::default();
        let peers = (0..peers).map(|_| Arc::new(Held::new(&total))).collect();
        (total, peers)
    }

    fn quarter_above(peers: u32) -> impl Fn(u32) -> u32 {
        let bound = Bound::new(1250).unwrap();
        move |total| bound.capacity(total, 1, peers)
    }

    fn version(word: u64) -> u64 {
        word >> 32
    }

    #[test]
    fn a_request_is_counted_from_its_way_in_to_its_way_out() {
        let (total, peers) = upstream(2);
        let ticket = Ticket::enter(&total);
        assert_eq!((total.get(), peers[0].get()), (1, 0));
        let place = ticket.take(&peers[0]);
        assert_eq!((total.get(), peers[0].get()), (1, 1));
        let ticket = place.leave(&total);
        assert_eq!((total.get(), peers[0].get()), (1, 0));
        drop(ticket.try_take(&peers[1], |_| 1).unwrap());
        assert_eq!((total.get(), peers[1].get()), (0, 0));
    }

    #[test]
    fn a_full_peer_gives_the_ticket_back() {
        let (total, peers) = upstream(2);
        let _held = Ticket::enter(&total).take(&peers[0]);
        let ticket = Ticket::enter(&total)
            .try_take(&peers[0], |_| 1)
            .unwrap_err();
        assert_eq!((total.get(), peers[0].get()), (2, 1));
        drop(ticket);
        assert_eq!(total.get(), 1);
    }

    #[test]
    fn the_total_of_the_moment_counts_not_the_one_before() {
        let (total, peers) = upstream(2);
        let elsewhere: Vec<_> = (0..8)
            .map(|_| Ticket::enter(&total).take(&peers[1]))
            .collect();
        let here: Vec<_> = (0..5)
            .map(|_| Ticket::enter(&total).take(&peers[0]))
            .collect();
        let capacity = quarter_above(2);
        let elsewhere = RefCell::new(elsewhere);
        // Between the first look and the exchange, everybody else leaves.
        let ticket = Ticket::enter(&total).try_take(&peers[0], |total| {
            let now = capacity(total);
            elsewhere.borrow_mut().clear();
            now
        });
        assert!(ticket.is_err(), "6 of 6 in flight, where 4 are the bound");
        assert_eq!(
            (total.get(), peers[0].get()),
            (6, here.len().try_into().unwrap())
        );
    }

    #[test]
    fn a_total_that_moved_and_came_back_is_no_reason_to_refuse() {
        let (total, peers) = upstream(1);
        let ticket = Ticket::enter(&total).try_take(&peers[0], |total_then| {
            drop(Ticket::enter(&total));
            total_then
        });
        assert!(ticket.is_ok());
        drop(ticket);
        assert_eq!((total.get(), peers[0].get()), (0, 0));
    }

    /// What happened to the total, and each admission.
    #[derive(Clone, Copy, Debug)]
    enum Event {
        Total { version: u64, number: u32 },
        Admitted(Moment),
    }

    fn changed(total: &Total, by: u64) -> Event {
        let word = total.word.fetch_add(by, SeqCst).wrapping_add(by);
        Event::Total {
            version: version(word),
            number: number(word),
        }
    }

    /// One client: in, to the first peer with room, out, `rounds` times; what it saw.
    fn client(total: &Total, peers: &[Arc<Held>], first: usize, rounds: usize) -> Vec<Event> {
        let capacity = quarter_above(u32::try_from(peers.len()).unwrap());
        let mut log = Vec::new();
        for round in 0..rounds {
            log.push(changed(total, ENTER));
            let mut walk = peers
                .iter()
                .cycle()
                .skip((first + round / 64) % 2)
                .take(peers.len());
            let found = walk.find_map(|peer| Some((peer, admit(total, peer, &capacity)?)));
            if let Some((peer, moment)) = found {
                log.push(Event::Admitted(moment));
                if round % 7 == 0 {
                    thread::yield_now();
                }
                peer.number.fetch_sub(1, SeqCst);
            }
            log.push(changed(total, LEAVE));
        }
        log
    }

    #[test]
    fn no_admission_is_above_the_bound_of_its_moment_however_many_threads() {
        const CLIENTS: usize = 12;
        let (total, peers) = upstream(4);
        let logs: Vec<_> = thread::scope(|scope| {
            let run = |first| {
                let (total, peers) = (&total, &peers);
                scope.spawn(move || client(total, peers, first, 5_000))
            };
            let threads: Vec<_> = (0..CLIENTS).map(run).collect();
            threads
                .into_iter()
                .flat_map(|thread| thread.join().unwrap())
                .collect()
        });
        // The versions put all changes of the total in one order, whoever made them.
        let mut totals = vec![0; logs.len() + 1];
        for event in &logs {
            if let Event::Total { version, number } = *event {
                totals[usize::try_from(version).unwrap()] = number;
            }
        }
        let capacity = quarter_above(4);
        let mut admissions = 0;
        for event in &logs {
            if let Event::Admitted(Moment { word, held }) = *event {
                let number = totals[usize::try_from(version(word)).unwrap()];
                assert!(held <= capacity(number), "{held} held, {number} in flight");
                admissions += 1;
            }
        }
        assert!(admissions > CLIENTS * 4_000, "{admissions}");
        assert_eq!(total.get(), 0);
        assert!(peers.iter().all(|peer| peer.get() == 0));
    }

    #[test]
    fn with_so_many_clients_no_peer_is_ever_seen_above_their_bound() {
        const CLIENTS: u32 = 8;
        let (total, peers) = upstream(3);
        let capacity = quarter_above(3);
        let most = capacity(CLIENTS);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(SeqCst) {
                    assert!(peers.iter().all(|peer| peer.get() <= most));
                }
            });
            let clients: Vec<_> = (0..CLIENTS)
                .map(|_| {
                    scope.spawn(|| {
                        for _ in 0..20_000 {
                            let mut ticket = Some(Ticket::enter(&total));
                            let place = peers.iter().find_map(|peer| {
                                match ticket.take()?.try_take(peer, &capacity) {
                                    Ok(place) => Some(place),
                                    Err(back) => {
                                        ticket = Some(back);
                                        None
                                    }
                                }
                            });
                            drop(place);
                        }
                    })
                })
                .collect();
            for client in clients {
                client.join().unwrap();
            }
            done.store(true, SeqCst);
        });
        assert_eq!(total.get(), 0);
        assert!(peers.iter().all(|peer| peer.get() == 0));
    }
}
