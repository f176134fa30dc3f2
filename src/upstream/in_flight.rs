//! Requests in flight, of an upstream and of each peer, and the one way in that respects a bound.
//!
//! ```text
//!   Ticket::enter ── total + 1 ──┬─ try_take(peer): held + 1 where that is within the bound ─┬─► Place
//!                                ├─ line_up(peer):  the same, when another leaves           ─┤     │
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
//! A peer that does not share the load, as it drains, is down or was removed, is set aside: what it holds is
//! not in the total, or it would give room to peers that have nothing of it. One bit beside its number says so;
//! whoever comes and goes learns it from the step that counts him there, so all its requests leave the total in
//! one moment, and come back in one. Such a peer's own bound is of the total and what it holds itself.
//!
//! What the bound is, is decided in [`bound`](crate::policy::bound); where to go on when a peer is full, by
//! the caller. There is room somewhere at any moment, but two requests that look at the peers one after
//! the other can miss it. A caller that has looked at all takes the least loaded peer ([`Ticket::take`]), and
//! counts that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use self::wait_queue::WaitQueue;

mod wait_queue;

pub use self::wait_queue::QueueWait;

/// One request more, in the word of [`Total`]: version + 1, number + 1.
const ADD_ONE: u64 = (1 << 32) + 1;
/// One less: number - 1, which carries into the version.
const SUBTRACT_ONE: u64 = (1 << 32) - 1;

/// Requests of an upstream in flight that its peers share, those that look for a peer included; below 2^32.
#[derive(Debug, Default)]
pub struct UpstreamInFlight {
    /// The number in the lower half; in the upper the version, that every change raises.
    word: AtomicU64,
}

impl UpstreamInFlight {
    /// How many there are.
    pub fn get(&self) -> u32 {
        request_count(self.word.load(SeqCst))
    }

    fn add(&self, requests: u32) {
        self.word
            .fetch_add(ADD_ONE.wrapping_mul(requests.into()), SeqCst);
    }

    fn subtract(&self, requests: u32) {
        self.word
            .fetch_add(SUBTRACT_ONE.wrapping_mul(requests.into()), SeqCst);
    }
}

/// Requests that one peer of an upstream holds.
#[derive(Debug)]
pub struct PeerInFlight {
    /// A [`Load`].
    word: AtomicU64,
    total: Arc<UpstreamInFlight>,
    wait_queue: WaitQueue,
}

/// What is known of a peer's requests at one moment: their number, below 2^32; above it how many wait for a
/// place; and on top [`Load::ASIDE`].
#[derive(Clone, Copy, Debug)]
struct PackedLoad(u64);

impl PackedLoad {
    /// One request more that waits.
    const ONE_WAITER: u64 = 1 << 32;
    /// The peer's requests are not in the total.
    const EXCLUDED: u64 = 1 << 63;

    const fn count(self) -> u32 {
        request_count(self.0)
    }

    const fn is_excluded(self) -> bool {
        self.0 & Self::EXCLUDED != 0
    }

    const fn has_waiters(self) -> bool {
        self.0 & !Self::EXCLUDED >= Self::ONE_WAITER
    }

    /// What its own bound is of.
    const fn bound_total(self, total: u32) -> u32 {
        if self.is_excluded() {
            total.saturating_add(self.count())
        } else {
            total
        }
    }
}

impl PeerInFlight {
    /// None yet, of those in `total`.
    pub fn new(total: &Arc<UpstreamInFlight>) -> Self {
        Self {
            word: AtomicU64::new(0),
            total: Arc::clone(total),
            wait_queue: WaitQueue::default(),
        }
    }

    /// How many there are.
    pub fn get(&self) -> u32 {
        self.load().count()
    }

    /// Whether the peer can hold one more by `room`, as things are; none where others wait for that.
    pub fn has_room(&self, room: impl Fn(u32, u32) -> bool) -> bool {
        let load = self.load();
        !load.has_waiters() && room(load.count(), load.bound_total(self.total.get()))
    }

    /// Takes what the peer holds out of the total, now and from now on.
    pub fn exclude_from_total(&self) {
        if self.load().is_excluded() {
            return;
        }
        let before = PackedLoad(self.word.fetch_or(PackedLoad::EXCLUDED, SeqCst));
        if !before.is_excluded() {
            self.total.subtract(before.count());
        }
    }

    /// Takes it back into the total. It counts there before it does not count aside any more.
    pub fn include_in_total(&self) {
        let mut load = self.load();
        while load.is_excluded() {
            self.total.add(load.count());
            let shared = load.0 & !PackedLoad::EXCLUDED;
            let swapped = self.word.compare_exchange(load.0, shared, SeqCst, SeqCst);
            let Err(now) = swapped else { return };
            self.total.subtract(load.count());
            load = PackedLoad(now);
        }
    }

    fn load(&self) -> PackedLoad {
        PackedLoad(self.word.load(SeqCst))
    }

    fn decrement(&self, stays: bool) -> PackedLoad {
        let before = PackedLoad(self.word.fetch_sub(1, SeqCst));
        match (stays, before.is_excluded()) {
            (true, true) => self.total.add(1),
            (false, false) => self.total.subtract(1),
            (true, false) | (false, true) => {}
        }
        before
    }

    /// One request goes; it is in the total still, or is so again, where it `stays` there. Its place is handed over.
    fn release(&self, stays: bool) {
        let before = self.decrement(stays);
        if before.has_waiters() {
            self.admit_waiters();
        }
    }
}

/// A request that is in the total and holds no place at a peer.
#[derive(Debug)]
pub struct UpstreamPermit<'a> {
    total: &'a UpstreamInFlight,
}

impl<'a> UpstreamPermit<'a> {
    /// Counts a request in.
    pub fn acquire(total: &'a UpstreamInFlight) -> Self {
        total.word.fetch_add(ADD_ONE, SeqCst);
        Self { total }
    }

    /// A place at `peer`, if there is `room` and nobody waits for it; else the ticket again. `room` is told what
    /// the peer holds without this request and the total with it. Where it has room it must have it for any greater
    /// total; it may be asked more than once.
    #[inline]
    pub fn try_admit(
        self,
        peer: &Arc<PeerInFlight>,
        room: impl Fn(u32, u32) -> bool,
    ) -> Result<PeerPermit, Self> {
        if try_reserve(self.total, peer, false, room).is_some() {
            Ok(self.into_peer_permit(peer))
        } else {
            Err(self)
        }
    }

    /// The same, before those that wait for it: for who finds no place anywhere else.
    pub fn try_admit_before_queue(
        self,
        peer: &Arc<PeerInFlight>,
        room: impl Fn(u32, u32) -> bool,
    ) -> Result<PeerPermit, Self> {
        if try_reserve(self.total, peer, true, room).is_some() {
            return Ok(self.into_peer_permit(peer));
        }
        // It may have held a place for a moment that is theirs.
        peer.admit_waiters();
        Err(self)
    }

    /// A place at `peer`, however many it holds.
    pub fn admit_unbounded(self, peer: &Arc<PeerInFlight>) -> PeerPermit {
        if PackedLoad(peer.word.fetch_add(1, SeqCst)).is_excluded() {
            self.total.subtract(1);
        }
        self.into_peer_permit(peer)
    }

    /// The peer has counted the request.
    fn into_peer_permit(self, peer: &Arc<PeerInFlight>) -> PeerPermit {
        debug_assert!(
            std::ptr::eq(self.total, Arc::as_ptr(&peer.total)),
            "another upstream"
        );
        // The place leaves the total, when it is dropped.
        std::mem::forget(self);
        PeerPermit {
            in_flight: Arc::clone(peer),
            keep_in_total: false,
        }
    }
}

impl Drop for UpstreamPermit<'_> {
    fn drop(&mut self) {
        self.total.subtract(1);
    }
}

/// A request that a peer holds, from its admission to its drop.
#[derive(Debug)]
pub struct PeerPermit {
    in_flight: Arc<PeerInFlight>,
    /// The request stays in flight: a ticket takes it out of the total.
    keep_in_total: bool,
}

impl PeerPermit {
    /// Leaves the peer, to look for another one among those of the same `total`: the request stays in it.
    pub fn into_upstream_permit(mut self, total: &UpstreamInFlight) -> UpstreamPermit<'_> {
        debug_assert!(
            std::ptr::eq(total, Arc::as_ptr(&self.in_flight.total)),
            "another upstream"
        );
        self.keep_in_total = true;
        UpstreamPermit { total }
    }

    /// The peer's count.
    pub fn in_flight(&self) -> &PeerInFlight {
        &self.in_flight
    }
}

impl Drop for PeerPermit {
    fn drop(&mut self) {
        self.in_flight.release(self.keep_in_total);
    }
}

/// A moment at which a peer was within its bound, the request that it was judged for included.
#[derive(Clone, Copy, Debug)]
struct LoadReading {
    /// Of the total.
    total_word: u64,
    load: PackedLoad,
}

const fn request_count(word: u64) -> u32 {
    (word & 0xffff_ffff) as u32
}

/// Takes a place where that keeps the peer within its bound; the moment at which it did. Who does not come
/// `in_turn` gets none where others wait.
#[inline]
fn try_reserve(
    total: &UpstreamInFlight,
    peer: &PeerInFlight,
    in_turn: bool,
    room: impl Fn(u32, u32) -> bool,
) -> Option<LoadReading> {
    let word = total.word.load(SeqCst);
    let before = try_increment(peer, |load| {
        (in_turn || !load.has_waiters())
            && room(load.count(), load.bound_total(request_count(word)))
    })?;
    if before.is_excluded() {
        total.subtract(1);
    } else if total.word.load(SeqCst) == word {
        let load = PackedLoad(before.0 + 1);
        return Some(LoadReading {
            total_word: word,
            load,
        });
    }
    recheck_reservation(total, peer, in_turn, room)
}

/// One more at a peer that may take it; what was there before.
#[inline]
fn try_increment(peer: &PeerInFlight, may: impl Fn(PackedLoad) -> bool) -> Option<PackedLoad> {
    let more = |word: u64| may(PackedLoad(word)).then(|| word + 1);
    peer.word
        .fetch_update(SeqCst, SeqCst, more)
        .ok()
        .map(PackedLoad)
}

/// Judges a place that was taken while the total moved; gives it back where it is above the bound.
#[cold]
fn recheck_reservation(
    total: &UpstreamInFlight,
    peer: &PeerInFlight,
    in_turn: bool,
    room: impl Fn(u32, u32) -> bool,
) -> Option<LoadReading> {
    let moment = read_consistent(total, peer);
    let LoadReading {
        total_word: word,
        load,
    } = moment;
    if room(
        load.count().saturating_sub(1),
        load.bound_total(request_count(word)),
    ) {
        return Some(moment);
    }
    if in_turn {
        // Whoever admits the first in line is about to look no further.
        peer.decrement(true);
    } else {
        peer.release(true);
    }
    None
}

/// The total and what the peer holds at one moment. Each further round means that another request
/// has come or gone meanwhile, so somebody always gets on.
fn read_consistent(total: &UpstreamInFlight, peer: &PeerInFlight) -> LoadReading {
    let mut word = total.word.load(SeqCst);
    loop {
        let load = peer.load();
        let again = total.word.load(SeqCst);
        if again == word {
            return LoadReading {
                total_word: word,
                load,
            };
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
    use crate::policy::bounded_load::BalanceFactor;

    fn upstream(peers: usize) -> (Arc<UpstreamInFlight>, Vec<Arc<PeerInFlight>>) {
        let total = Arc::default();
        let peers = (0..peers)
            .map(|_| Arc::new(PeerInFlight::new(&total)))
            .collect();
        (total, peers)
    }

    fn quarter_above(peers: u32) -> impl Fn(u32, u32) -> bool {
        let bound = BalanceFactor::new(1250).unwrap();
        move |held, total| bound.has_room(held, total, 1, peers)
    }

    fn alone(held: u32, _: u32) -> bool {
        held == 0
    }

    fn version(word: u64) -> u64 {
        word >> 32
    }

    #[test]
    fn in_flight_guard_counts_from_creation_to_drop() {
        let (total, peers) = upstream(2);
        let ticket = UpstreamPermit::acquire(&total);
        assert_eq!((total.get(), peers[0].get()), (1, 0));
        let place = ticket.admit_unbounded(&peers[0]);
        assert_eq!((total.get(), peers[0].get()), (1, 1));
        let ticket = place.into_upstream_permit(&total);
        assert_eq!((total.get(), peers[0].get()), (1, 0));
        drop(ticket.try_admit(&peers[1], alone).unwrap());
        assert_eq!((total.get(), peers[1].get()), (0, 0));
    }

    #[test]
    fn in_flight_admission_refused_by_a_full_peer_returns_the_permit() {
        let (total, peers) = upstream(2);
        let _held = UpstreamPermit::acquire(&total).admit_unbounded(&peers[0]);
        let ticket = UpstreamPermit::acquire(&total)
            .try_admit(&peers[0], alone)
            .unwrap_err();
        assert_eq!((total.get(), peers[0].get()), (2, 1));
        drop(ticket);
        assert_eq!(total.get(), 1);
    }

    #[test]
    fn in_flight_admission_uses_the_current_total() {
        let (total, peers) = upstream(2);
        let elsewhere: Vec<_> = (0..8)
            .map(|_| UpstreamPermit::acquire(&total).admit_unbounded(&peers[1]))
            .collect();
        let here: Vec<_> = (0..5)
            .map(|_| UpstreamPermit::acquire(&total).admit_unbounded(&peers[0]))
            .collect();
        let room = quarter_above(2);
        let elsewhere = RefCell::new(elsewhere);
        // Between the first look and the exchange, everybody else leaves.
        let ticket = UpstreamPermit::acquire(&total).try_admit(&peers[0], |held, total| {
            let now = room(held, total);
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
    fn in_flight_admission_tolerates_a_total_that_changed_and_returned() {
        let (total, peers) = upstream(1);
        let ticket = UpstreamPermit::acquire(&total).try_admit(&peers[0], |held, total_then| {
            drop(UpstreamPermit::acquire(&total));
            held < total_then
        });
        assert!(ticket.is_ok());
        drop(ticket);
        assert_eq!((total.get(), peers[0].get()), (0, 0));
    }

    /// What happened to the total, and each admission.
    #[derive(Clone, Copy, Debug)]
    enum Event {
        Total { version: u64, number: u32 },
        Admitted(LoadReading),
    }

    fn changed(total: &UpstreamInFlight, by: u64) -> Event {
        let word = total.word.fetch_add(by, SeqCst).wrapping_add(by);
        Event::Total {
            version: version(word),
            number: request_count(word),
        }
    }

    /// One client: in, to the first peer with room, out, `rounds` times; what it saw.
    fn client(
        total: &UpstreamInFlight,
        peers: &[Arc<PeerInFlight>],
        first: usize,
        rounds: usize,
    ) -> Vec<Event> {
        let room = quarter_above(u32::try_from(peers.len()).unwrap());
        let mut log = Vec::new();
        for round in 0..rounds {
            log.push(changed(total, ADD_ONE));
            let mut walk = peers
                .iter()
                .cycle()
                .skip((first + round / 64) % 2)
                .take(peers.len());
            let found = walk.find_map(|peer| Some((peer, try_reserve(total, peer, false, &room)?)));
            if let Some((peer, moment)) = found {
                log.push(Event::Admitted(moment));
                if round % 7 == 0 {
                    thread::yield_now();
                }
                peer.word.fetch_sub(1, SeqCst);
            }
            log.push(changed(total, SUBTRACT_ONE));
        }
        log
    }

    #[test]
    fn in_flight_admission_never_exceeds_the_bound_across_threads() {
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
        let room = quarter_above(4);
        let mut admissions = 0;
        for event in &logs {
            if let Event::Admitted(LoadReading {
                total_word: word,
                load,
            }) = *event
            {
                let held = load.count();
                let number = totals[usize::try_from(version(word)).unwrap()];
                assert!(room(held - 1, number), "{held} held, {number} in flight");
                admissions += 1;
            }
        }
        assert!(admissions > CLIENTS * 4_000, "{admissions}");
        assert_eq!(total.get(), 0);
        assert!(peers.iter().all(|peer| peer.get() == 0));
    }

    /// Asks the peers in turn, so many times, for a place that it leaves at once.
    fn visit(total: &UpstreamInFlight, peers: &[Arc<PeerInFlight>], rounds: usize) {
        let room = quarter_above(u32::try_from(peers.len()).unwrap());
        for _ in 0..rounds {
            let mut ticket = Some(UpstreamPermit::acquire(total));
            let place = peers
                .iter()
                .find_map(|peer| match ticket.take()?.try_admit(peer, &room) {
                    Ok(place) => Some(place),
                    Err(back) => {
                        ticket = Some(back);
                        None
                    }
                });
            drop(place);
        }
    }

    #[test]
    fn in_flight_per_peer_never_exceeds_the_bound_with_fixed_clients() {
        const CLIENTS: u32 = 8;
        let (total, peers) = upstream(4);
        let (aside, peers) = peers.split_last().unwrap();
        // What this one holds is a multiple of what all others do, and is none of theirs.
        let _streams: Vec<_> = (0..50)
            .map(|_| UpstreamPermit::acquire(&total).admit_unbounded(aside))
            .collect();
        aside.exclude_from_total();
        let bound = BalanceFactor::new(1250).unwrap();
        let most = bound.capacity(CLIENTS + 1, 1, 3);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(SeqCst) {
                    assert!(peers.iter().all(|peer| peer.get() <= most));
                    drop(UpstreamPermit::acquire(&total).admit_unbounded(aside));
                }
            });
            let clients: Vec<_> = (0..CLIENTS)
                .map(|_| scope.spawn(|| visit(&total, peers, 20_000)))
                .collect();
            for client in clients {
                client.join().unwrap();
            }
            done.store(true, SeqCst);
        });
        assert_eq!((total.get(), aside.get()), (0, 50));
        assert!(peers.iter().all(|peer| peer.get() == 0));
    }

    // ── set aside

    #[test]
    fn in_flight_of_an_excluded_peer_is_not_in_the_total() {
        let (total, peers) = upstream(2);
        let mut held: Vec<_> = (0..30)
            .map(|_| UpstreamPermit::acquire(&total).admit_unbounded(&peers[0]))
            .collect();
        peers[0].exclude_from_total();
        peers[0].exclude_from_total();
        assert_eq!((total.get(), peers[0].get()), (0, 30));
        held.pop();
        held.push(UpstreamPermit::acquire(&total).admit_unbounded(&peers[0]));
        let room = quarter_above(2);
        for _ in 0..2 {
            held.push(
                UpstreamPermit::acquire(&total)
                    .try_admit(&peers[1], &room)
                    .unwrap(),
            );
        }
        let full = UpstreamPermit::acquire(&total).try_admit(&peers[1], &room);
        assert!(full.is_err(), "2 of 3, where the rest is set aside");
        let ticket = full.unwrap_err();
        let failed = held.remove(0).into_upstream_permit(&total);
        assert_eq!((total.get(), peers[0].get()), (4, 29));
        drop((ticket, failed));
        peers[0].include_in_total();
        peers[0].include_in_total();
        assert_eq!(total.get(), 31);
        drop(held);
        assert_eq!((total.get(), peers[0].load().0), (0, 0));
    }

    #[test]
    fn in_flight_admission_to_an_excluded_peer_counts_it_as_included() {
        let (total, peers) = upstream(2);
        peers[0].exclude_from_total();
        let room = quarter_above(2);
        let take = || UpstreamPermit::acquire(&total).try_admit(&peers[0], &room);
        let _elsewhere: Vec<_> = (0..10)
            .map(|_| UpstreamPermit::acquire(&total).admit_unbounded(&peers[1]))
            .collect();
        let held: Vec<_> = std::iter::from_fn(|| take().ok()).collect();
        // 18 are less than a quarter above half of 29, and 19 are not less than that of 30.
        assert_eq!((held.len(), total.get()), (19, 10));
        drop(held);
        assert_eq!((total.get(), peers[0].get()), (10, 0));
    }

    #[test]
    fn in_flight_requests_during_exclusion_are_counted_once() {
        let (total, peers) = upstream(3);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(SeqCst) {
                    peers[0].exclude_from_total();
                    peers[1].exclude_from_total();
                    peers[0].include_in_total();
                    peers[1].include_in_total();
                }
            });
            let clients: Vec<_> = (0..6)
                .map(|_| scope.spawn(|| visit(&total, &peers, 20_000)))
                .collect();
            for client in clients {
                client.join().unwrap();
            }
            done.store(true, SeqCst);
        });
        for peer in &peers {
            peer.include_in_total();
        }
        assert_eq!(total.get(), 0);
        assert!(peers.iter().all(|peer| peer.load().0 == 0));
    }
}
