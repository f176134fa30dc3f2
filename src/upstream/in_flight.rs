//! Counts the requests in flight of an upstream and of each peer, and admits requests below a bound.
//!
//! ```text
//!   UpstreamPermit::acquire ── total + 1 ─┬─ try_admit:       peer + 1 if that is within its bound  ─┬─► PeerPermit
//!                                         ├─ enqueue:         the same, when another request leaves ─┤      │
//!                                         └─ admit_unbounded: peer + 1 in any case                  ─┘      │ drop
//!                                                      total - 1  ◄──  peer - 1  ◄──────────────────────────┘
//! ```
//!
//! A request is counted in the total before it is counted at a peer, and leaves in the opposite order, so
//! the total is never less than the sum over the peers. The [policy](crate::policy::bounded_load) defines
//! the bound, the caller chooses the next peer. At any moment some peer is below its bound, but a request
//! that reads the counts one after the other can miss it: after trying all peers the caller uses
//! [`UpstreamPermit::admit_unbounded`] on the least loaded. A peer may be above its bound later, when other
//! requests have ended: a running request is never taken from its peer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::task::Waker;

use parking_lot::MutexGuard;

use self::wait_queue::{RoomPredicate, WaitQueue, Waiters};

mod queue_wait;
mod wait_queue;

pub(crate) use self::queue_wait::QueueWait;

/// One request more, in the word of [`UpstreamInFlight`]: version + 1, count + 1.
const ADD_ONE: u64 = (1 << 32) + 1;
/// One request less: count - 1, which carries into the version.
const SUBTRACT_ONE: u64 = (1 << 32) - 1;

/// The requests in flight of an upstream, without those at excluded peers, with those that have no peer yet;
/// below 2^32.
#[derive(Debug, Default)]
pub struct UpstreamInFlight {
    /// The count in the lower half, a version in the upper half. Every access is `SeqCst`: the proof of the
    /// bound needs one order of the changes of this word and of the peers' words.
    word: AtomicU64,
}

impl UpstreamInFlight {
    /// The count.
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

/// The requests in flight at one peer, and those that wait for it.
#[derive(Debug)]
pub struct PeerInFlight {
    /// A [`PackedLoad`].
    word: AtomicU64,
    total: Arc<UpstreamInFlight>,
    wait_queue: WaitQueue,
}

/// A peer's load at one moment: the requests there in the lower half, the waiting requests above, and
/// [`PackedLoad::EXCLUDED`] on top.
#[derive(Clone, Copy, Debug)]
struct PackedLoad(u64);

impl PackedLoad {
    const ONE_WAITER: u64 = 1 << 32;
    /// The peer's requests are not in the total, because the peer is down, ejected, suppressed, draining, not probed
    /// yet or removed. In the total they would raise the bounds of the other peers. One atomic step reads this bit and counts a request, so all
    /// requests of the peer leave the total at the same moment, and return to it at the same moment.
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

    /// The total that the peer's bound is a share of: for an excluded peer with its own requests.
    const fn bound_total(self, total: u32) -> u32 {
        if self.is_excluded() {
            total.saturating_add(self.count())
        } else {
            total
        }
    }
}

impl PeerInFlight {
    /// A peer without requests, in the upstream that counts in `total`.
    pub fn new(total: &Arc<UpstreamInFlight>) -> Self {
        Self {
            word: AtomicU64::new(0),
            total: Arc::clone(total),
            wait_queue: WaitQueue::default(),
        }
    }

    /// The count.
    pub fn get(&self) -> u32 {
        self.load().count()
    }

    /// Whether the peer could take one more request by `room`; never while others wait for it.
    pub fn has_room(&self, room: impl Fn(u32, u32) -> bool) -> bool {
        let load = self.load();
        !load.has_waiters() && room(load.count(), load.bound_total(self.total.get()))
    }

    /// Excludes the peer: takes its requests, those to come included, out of the total.
    pub fn exclude_from_total(&self) {
        if self.load().is_excluded() {
            return;
        }
        let before = PackedLoad(self.word.fetch_or(PackedLoad::EXCLUDED, SeqCst));
        if !before.is_excluded() {
            self.total.subtract(before.count());
        }
    }

    /// Takes the peer's requests back into the total.
    pub fn include_in_total(&self) {
        let mut load = self.load();
        while load.is_excluded() {
            // Added before the bit is cleared: the total must not be less than the sum over the peers.
            self.total.add(load.count());
            let included = load.0 & !PackedLoad::EXCLUDED;
            let swapped = self.word.compare_exchange(load.0, included, SeqCst, SeqCst);
            let Err(now) = swapped else { return };
            self.total.subtract(load.count());
            load = PackedLoad(now);
        }
    }

    fn load(&self) -> PackedLoad {
        PackedLoad(self.word.load(SeqCst))
    }

    /// Counts a request out and gives its room to a waiting request. `stays`: the request itself remains in
    /// flight, so it remains in the total, or returns there from an excluded peer.
    fn release(&self, stays: bool) {
        let before = self.decrement(stays);
        if before.has_waiters() {
            self.admit_waiters();
        }
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

    /// Admits waiting requests, the first first, as long as there is room.
    #[cold]
    fn admit_waiters(&self) {
        self.admit_waiters_locked(self.wait_queue.lock());
    }

    fn admit_waiters_locked(&self, mut waiters: MutexGuard<'_, Waiters>) {
        let has_room = |room: &RoomPredicate| try_reserve(&self.total, self, true, room).is_some();
        let mut wakers = Vec::new();
        while let Some(waker) = waiters.admit_first_if(has_room) {
            self.word.fetch_sub(PackedLoad::ONE_WAITER, SeqCst);
            wakers.push(waker);
        }
        // A woken task may poll at once, which takes the lock.
        drop(waiters);
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// Counts a request in the total that is not at a peer.
#[derive(Debug)]
pub struct UpstreamPermit<'a> {
    total: &'a UpstreamInFlight,
}

impl<'a> UpstreamPermit<'a> {
    /// Counts a request in the total.
    pub fn acquire(total: &'a UpstreamInFlight) -> Self {
        total.word.fetch_add(ADD_ONE, SeqCst);
        Self { total }
    }

    /// Counts the request at `peer` if that has `room` and no other request waits for it. `room` gets the
    /// peer's count without this request, and the total with it. If `room` is true for a total, it must be
    /// true for every greater total. It may be called more than once.
    ///
    /// # Errors
    /// The permit, if the peer has no room.
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

    /// As [`Self::try_admit`], but before the waiting requests: for a request that found no room at any other
    /// peer.
    ///
    /// # Errors
    /// The permit, if the peer has no room.
    pub fn try_admit_before_queue(
        self,
        peer: &Arc<PeerInFlight>,
        room: impl Fn(u32, u32) -> bool,
    ) -> Result<PeerPermit, Self> {
        if try_reserve(self.total, peer, true, room).is_some() {
            return Ok(self.into_peer_permit(peer));
        }
        // The attempt may have held, for a moment, the room that a leaving request meant for a waiting one.
        peer.admit_waiters();
        Err(self)
    }

    /// Counts the request at `peer`, regardless of the load of the peer.
    pub fn admit_unbounded(self, peer: &Arc<PeerInFlight>) -> PeerPermit {
        if PackedLoad(peer.word.fetch_add(1, SeqCst)).is_excluded() {
            self.total.subtract(1);
        }
        self.into_peer_permit(peer)
    }

    /// The permit of a request that was already counted at the peer.
    fn into_peer_permit(self, peer: &Arc<PeerInFlight>) -> PeerPermit {
        debug_assert!(
            std::ptr::eq(self.total, Arc::as_ptr(&peer.total)),
            "another upstream"
        );
        // From here on the peer's permit counts the request in the total, and takes it out when dropped.
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

/// Counts a request at a peer, from its admission to its drop.
#[derive(Debug)]
pub struct PeerPermit {
    in_flight: Arc<PeerInFlight>,
    /// The request stays in flight: an [`UpstreamPermit`] takes it out of the total.
    keep_in_total: bool,
}

impl PeerPermit {
    /// Takes the request from the peer, to go to another one with the same `total`.
    pub fn into_upstream_permit(mut self, total: &UpstreamInFlight) -> UpstreamPermit<'_> {
        debug_assert!(
            std::ptr::eq(total, Arc::as_ptr(&self.in_flight.total)),
            "another upstream"
        );
        self.keep_in_total = true;
        UpstreamPermit { total }
    }

    /// The peer's counter.
    pub fn in_flight(&self) -> &PeerInFlight {
        &self.in_flight
    }
}

impl Drop for PeerPermit {
    fn drop(&mut self) {
        self.in_flight.release(self.keep_in_total);
    }
}

/// A total and a peer's load of the same moment.
#[derive(Clone, Copy, Debug)]
struct LoadReading {
    /// The word of [`UpstreamInFlight`].
    total_word: u64,
    load: PackedLoad,
}

const fn request_count(word: u64) -> u32 {
    (word & 0xffff_ffff) as u32
}

/// Counts a request in at a peer if that is within the peer's bound; a moment at which it was, the request
/// included. Without `in_turn`, only if no request waits.
///
/// The bound is exact under concurrency. Every change of the total also raises the version in its word, and
/// the peer's count is raised by compare-exchange between two reads of that word. If both are equal, the
/// total did not change in between, and at the exchange the peer was within its bound for that very total.
/// If not, the peer's count is checked against a total of the same moment, and lowered again if it is above
/// the bound.
#[inline]
fn try_reserve(
    total: &UpstreamInFlight,
    peer: &PeerInFlight,
    in_turn: bool,
    room: impl Fn(u32, u32) -> bool,
) -> Option<LoadReading> {
    let total_word = total.word.load(SeqCst);
    let before = try_increment(peer, |load| {
        (in_turn || !load.has_waiters())
            && room(load.count(), load.bound_total(request_count(total_word)))
    })?;
    if before.is_excluded() {
        total.subtract(1);
    } else if total.word.load(SeqCst) == total_word {
        let load = PackedLoad(before.0 + 1);
        return Some(LoadReading { total_word, load });
    }
    recheck_reservation(total, peer, in_turn, room)
}

/// Raises a peer's count if `admits` its load; the load before.
#[inline]
fn try_increment(peer: &PeerInFlight, admits: impl Fn(PackedLoad) -> bool) -> Option<PackedLoad> {
    let increment = |word: u64| admits(PackedLoad(word)).then(|| word + 1);
    peer.word
        .fetch_update(SeqCst, SeqCst, increment)
        .ok()
        .map(PackedLoad)
}

/// Checks a reservation made while the total changed; takes it back if the peer is above its bound.
#[cold]
fn recheck_reservation(
    total: &UpstreamInFlight,
    peer: &PeerInFlight,
    in_turn: bool,
    room: impl Fn(u32, u32) -> bool,
) -> Option<LoadReading> {
    let reading = read_consistent(total, peer);
    let LoadReading { total_word, load } = reading;
    if room(
        load.count().saturating_sub(1),
        load.bound_total(request_count(total_word)),
    ) {
        return Some(reading);
    }
    if in_turn {
        // No waiting request is admitted here: `admit_waiters` calls this under the lock of the queue, and
        // `try_admit_before_queue` admits them itself.
        peer.decrement(true);
    } else {
        peer.release(true);
    }
    None
}

/// Reads the total and a peer's load of one moment. Lock-free: each further round means that another
/// request has come or gone meanwhile.
fn read_consistent(total: &UpstreamInFlight, peer: &PeerInFlight) -> LoadReading {
    let mut total_word = total.word.load(SeqCst);
    loop {
        let load = peer.load();
        let again = total.word.load(SeqCst);
        if again == total_word {
            return LoadReading { total_word, load };
        }
        total_word = again;
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
        let permit = UpstreamPermit::acquire(&total);
        assert_eq!((total.get(), peers[0].get()), (1, 0));
        let peer_permit = permit.admit_unbounded(&peers[0]);
        assert_eq!((total.get(), peers[0].get()), (1, 1));
        let permit = peer_permit.into_upstream_permit(&total);
        assert_eq!((total.get(), peers[0].get()), (1, 0));
        drop(permit.try_admit(&peers[1], alone).unwrap());
        assert_eq!((total.get(), peers[1].get()), (0, 0));
    }

    #[test]
    fn in_flight_admission_refused_by_a_full_peer_returns_the_permit() {
        let (total, peers) = upstream(2);
        let _held = UpstreamPermit::acquire(&total).admit_unbounded(&peers[0]);
        let permit = UpstreamPermit::acquire(&total)
            .try_admit(&peers[0], alone)
            .unwrap_err();
        assert_eq!((total.get(), peers[0].get()), (2, 1));
        drop(permit);
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
        // All other requests leave between the first read and the exchange.
        let permit = UpstreamPermit::acquire(&total).try_admit(&peers[0], |held, total| {
            let now = room(held, total);
            elsewhere.borrow_mut().clear();
            now
        });
        assert!(permit.is_err(), "6 of 6 are in flight, and the bound is 4");
        assert_eq!(
            (total.get(), peers[0].get()),
            (6, here.len().try_into().unwrap())
        );
    }

    #[test]
    fn in_flight_admission_tolerates_a_total_that_changed_and_returned() {
        let (total, peers) = upstream(1);
        let permit = UpstreamPermit::acquire(&total).try_admit(&peers[0], |held, total_then| {
            drop(UpstreamPermit::acquire(&total));
            held < total_then
        });
        assert!(permit.is_ok());
        drop(permit);
        assert_eq!((total.get(), peers[0].get()), (0, 0));
    }

    /// A change of the total, or an admission.
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

    /// A client that admits a request at the first peer with room and drops it, `rounds` times; its log.
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
            if let Some((peer, reading)) = found {
                log.push(Event::Admitted(reading));
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
        // The versions order all changes of the total, of all threads.
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

    /// Admits a request at the first peer with room and drops it, `rounds` times.
    fn admit_and_drop(total: &UpstreamInFlight, peers: &[Arc<PeerInFlight>], rounds: usize) {
        let room = quarter_above(u32::try_from(peers.len()).unwrap());
        for _ in 0..rounds {
            let mut permit = Some(UpstreamPermit::acquire(total));
            let peer_permit =
                peers
                    .iter()
                    .find_map(|peer| match permit.take()?.try_admit(peer, &room) {
                        Ok(peer_permit) => Some(peer_permit),
                        Err(back) => {
                            permit = Some(back);
                            None
                        }
                    });
            drop(peer_permit);
        }
    }

    #[test]
    fn in_flight_per_peer_never_exceeds_the_bound_with_fixed_clients() {
        const CLIENTS: u32 = 8;
        let (total, peers) = upstream(4);
        let (excluded, peers) = peers.split_last().unwrap();
        // The excluded peer holds a multiple of all others' requests, which must not widen their bounds.
        let _streams: Vec<_> = (0..50)
            .map(|_| UpstreamPermit::acquire(&total).admit_unbounded(excluded))
            .collect();
        excluded.exclude_from_total();
        let bound = BalanceFactor::new(1250).unwrap();
        let capacity = bound.capacity(CLIENTS + 1, 1, 3);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(SeqCst) {
                    assert!(peers.iter().all(|peer| peer.get() <= capacity));
                    drop(UpstreamPermit::acquire(&total).admit_unbounded(excluded));
                }
            });
            let clients: Vec<_> = (0..CLIENTS)
                .map(|_| scope.spawn(|| admit_and_drop(&total, peers, 20_000)))
                .collect();
            for client in clients {
                client.join().unwrap();
            }
            done.store(true, SeqCst);
        });
        assert_eq!((total.get(), excluded.get()), (0, 50));
        assert!(peers.iter().all(|peer| peer.get() == 0));
    }

    // ── excluded peers

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
        assert!(full.is_err(), "2 of 3 in flight; the rest is excluded");
        let permit = full.unwrap_err();
        let failed = held.remove(0).into_upstream_permit(&total);
        assert_eq!((total.get(), peers[0].get()), (4, 29));
        drop((permit, failed));
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
        // 18 is below 1.25 × 29 / 2 = 18.1, and 19 is not below 1.25 × 30 / 2 = 18.75.
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
                .map(|_| scope.spawn(|| admit_and_drop(&total, &peers, 20_000)))
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
