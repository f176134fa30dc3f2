//! Which peer served each key that was active lately: what a drain that keeps sessions goes by.
//!
//! A drain begins too late to learn which sessions there are. So where an upstream's drains keep
//! sessions, every request is recorded here when its peer is chosen, drain or not. A draining peer then
//! serves a key that is still active and was last with it ([`Active::is_with`]), and is passed over for every
//! other. As only keys that it serves are recorded as its own, they can only get fewer from then on, and the
//! drain is over when there are none or at its deadline. A key that went elsewhere meanwhile is the
//! other's, also when that is drained next.
//!
//! One table for the upstream, and an entry's place depends on the key alone: so it can be on its way
//! from memory while the ring is asked.
//!
//! ```text
//!   hash ── mix ─┬─ set (8 entries, one cache line)
//!                └─ tag ── entry: tag (20 bits) | peer (16) | time of the last request (28, in units of 0.27 s)
//! ```
//!
//! Bounds:
//! * memory: 16 bytes for each key that the table is made for, as there are two entries for each key, that
//!   few sets are full when it is as full as it was meant to get; 1 MiB for 65,536 keys, of which what was never
//!   asked for is never touched;
//! * a full set gives up its oldest entry; where that was still active, [`Active::touch`] says so;
//! * time: one cache line; a repeated key within 0.27 s writes nothing. No lock, no loop without an end;
//! * a key is taken for another active one of the same peer with a probability below 2^-17: it would stay with
//!   a draining peer, no harm. So would a key, for `idle`, whose last request was exactly 2.3 years ago.
//!
//! Of two threads that bring new keys to one set at the same time, one may find its place gone; the key's next
//! request records it. If they bring the same key it may be there twice, and [`Active::held`] counts it
//! twice until the older entry is idle.

use std::sync::atomic::{AtomicU16, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::policy::mix::mix;

/// Entries that a key can be in: one cache line.
const WAYS: usize = 8;
/// Entries for each key that the table is made for.
const SPARE: usize = 2;
/// A unit of time is 2^28 ns.
const UNIT: u32 = 28;

/// A peer from when it is given its keys until it loses them to others; the number is its own among those that
/// an upstream has had, or the last 2^16 of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tenure(pub u16);

/// The tenures of an upstream's peers so far.
#[derive(Debug, Default)]
pub struct Tenures(AtomicU16);

impl Tenures {
    /// A new one.
    pub fn next(&self) -> Tenure {
        Tenure(self.0.fetch_add(1, Relaxed))
    }
}

/// Keys with the peer and the time of their last request.
#[derive(Debug)]
pub struct Active {
    /// As many as a power of two.
    sets: Box<[Set]>,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Set([AtomicU64; WAYS]);

impl Active {
    /// A table for about this many keys at once, rounded up to a power of two; at least 8, at most 2^24.
    pub fn new(keys: usize) -> Self {
        let sets = (keys.clamp(WAYS, 1 << 24) * SPARE / WAYS).next_power_of_two();
        Self {
            sets: (0..sets).map(|_| Set::default()).collect(),
        }
    }

    /// Records that a peer serves a request of a key. Keys without one for `idle` make room first; true:
    /// one that is active had to, as the table is too small.
    #[inline]
    pub fn touch(&self, key: u64, peer: Tenure, now: Duration, idle: Duration) -> bool {
        let (hash, now) = (mix(key), units(now));
        let entry = Entry::new(hash, peer, now);
        let set = self.set(hash);
        match set.and_then(|set| set.find(hash)) {
            Some((cell, seen)) if seen != entry => cell.store(entry.0, Relaxed),
            Some(_) => {}
            None => return set.is_some_and(|set| set.insert(entry, now, idle)),
        }
        false
    }

    /// Whether the key had a request within `idle`, and that peer served the last.
    #[inline]
    pub fn is_with(&self, key: u64, peer: Tenure, now: Duration, idle: Duration) -> bool {
        let hash = mix(key);
        let found = self.set(hash).and_then(|set| set.find(hash));
        found.is_some_and(|(_, seen)| seen.peer() == peer && seen.is_active(units(now), idle))
    }

    /// The keys that had a request within `idle`, and are with that peer. Goes over the whole table: some
    /// 50 µs for 65,536 keys.
    pub fn held(&self, peer: Tenure, now: Duration, idle: Duration) -> usize {
        let entries = self.entries(now, idle);
        entries.filter(|(_, entry)| entry.peer() == peer).count()
    }

    /// The keys that are with those peers, at most `most` of them: for [`Self::recall`], each with the
    /// milliseconds since its last request. What stands for a key is all that the table knows of it,
    /// enough for a table of the same size.
    pub fn remember(
        &self,
        of: impl Fn(Tenure) -> bool,
        now: Duration,
        idle: Duration,
        most: usize,
    ) -> Vec<(Tenure, (u64, u64))> {
        let age = |entry: Entry| millis(entry.age(units(now)));
        self.entries(now, idle)
            .filter(|(_, entry)| of(entry.peer()))
            .map(|(place, entry)| (entry.peer(), (entry.tag() | place, age(entry))))
            .take(most)
            .collect()
    }

    /// Takes over keys of another table, for a peer.
    pub fn recall(&self, keys: &[(u64, u64)], peer: Tenure, now: Duration, idle: Duration) {
        for &(hash, age) in keys {
            let time = units(now.saturating_sub(Duration::from_millis(age)));
            let entry = Entry::new(hash, peer, time);
            if let Some(set) = self.set(hash).filter(|set| set.find(hash).is_none()) {
                set.insert(entry, units(now), idle);
            }
        }
    }

    /// The active entries, each with the place of its set.
    fn entries(&self, now: Duration, idle: Duration) -> impl Iterator<Item = (u64, Entry)> {
        let now = units(now);
        (0_u64..).zip(&self.sets).flat_map(move |(place, set)| {
            let entries = set.0.iter().map(Entry::load);
            let active = move |entry: &Entry| entry.is_active(now, idle);
            entries.filter(active).map(move |entry| (place, entry))
        })
    }

    fn set(&self, hash: u64) -> Option<&Set> {
        // The tag is the upper part, so the lower one chooses.
        let place = (hash & 0xffff_ffff) as usize & (self.sets.len() - 1);
        self.sets.get(place)
    }
}

impl Set {
    /// All entries are looked at, and then it is decided: where among them a key is cannot be foretold, so a
    /// loop that ends there costs more than the looks that it saves.
    #[inline]
    fn find(&self, hash: u64) -> Option<(&AtomicU64, Entry)> {
        let look =
            |found: u32, (place, cell)| found | u32::from(Entry::load(cell).has(hash)) << place;
        let found = (0..).zip(&self.0).fold(0, look);
        let cell = self.0.get(found.trailing_zeros() as usize)?;
        // Another thread may have taken its place since.
        Some((cell, Entry::load(cell))).filter(|(_, entry)| entry.has(hash))
    }

    /// Puts a new key in the place of the oldest, if nobody else does; true: that was active.
    #[cold]
    fn insert(&self, entry: Entry, now: u32, idle: Duration) -> bool {
        let entries = self.0.iter().map(|cell| (Entry::load(cell), cell));
        // A vacant entry is older than any other.
        let age = |old: Entry| {
            if old.is_vacant() {
                u32::MAX
            } else {
                old.age(now)
            }
        };
        let Some((old, cell)) = entries.max_by_key(|(old, _)| age(*old)) else {
            return false;
        };
        let is_new = cell.compare_exchange(old.0, entry.0, Relaxed, Relaxed);
        is_new.is_ok() && old.is_active(now, idle)
    }
}

/// Tag, peer and time, from the top. 0 is vacant, as no entry has the time 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry(u64);

const TIME_BITS: u32 = 28;
const TIMES: u64 = (1 << TIME_BITS) - 1;
/// How far ahead of now a time can be, in units: a minute.
const AHEAD: u64 = 256;
const TAG: u64 = !0 << (TIME_BITS + 16);

impl Entry {
    const fn new(hash: u64, peer: Tenure, now: u32) -> Self {
        Self(hash & TAG | (peer.0 as u64) << TIME_BITS | now as u64)
    }

    fn load(cell: &AtomicU64) -> Self {
        Self(cell.load(Relaxed))
    }

    const fn is_vacant(self) -> bool {
        self.0 & TIMES == 0
    }

    const fn has(self, hash: u64) -> bool {
        ((self.0 ^ hash) & TAG == 0) & !self.is_vacant()
    }

    const fn tag(self) -> u64 {
        self.0 & TAG
    }

    const fn peer(self) -> Tenure {
        Tenure((self.0 >> TIME_BITS & 0xffff) as u16)
    }

    /// In units, around the circle of times. Another thread may have read the clock a little later.
    const fn age(self, now: u32) -> u32 {
        let age = (now as u64).wrapping_sub(self.0) & TIMES;
        if age > TIMES - AHEAD { 0 } else { age as u32 }
    }

    fn is_active(self, now: u32, idle: Duration) -> bool {
        !self.is_vacant() && u128::from(self.age(now)) <= idle.as_nanos() >> UNIT
    }
}

/// Time in units, around their circle without 0.
fn units(now: Duration) -> u32 {
    let unit = (now.as_nanos() >> UNIT) & u128::from(TIMES);
    u32::try_from(unit).unwrap_or_default().max(1)
}

fn millis(units: u32) -> u64 {
    (u64::from(units) << UNIT) / 1_000_000
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    const IDLE: Duration = Duration::from_secs(60);
    const A: Tenure = Tenure(1);
    const B: Tenure = Tenure(2);

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_key_is_active_until_it_was_idle_for_so_long() {
        let active = Active::new(100);
        assert!(!active.is_with(7, A, s(0), IDLE));
        active.touch(7, A, s(0), IDLE);
        assert!(active.is_with(7, A, s(60), IDLE) && !active.is_with(7, A, s(61), IDLE));
        active.touch(7, A, s(50), IDLE);
        assert!(active.is_with(7, A, s(110), IDLE) && !active.is_with(7, A, s(111), IDLE));
        assert_eq!(
            (active.held(A, s(110), IDLE), active.held(A, s(111), IDLE)),
            (1, 0)
        );
    }

    #[test]
    fn a_key_is_with_the_peer_that_served_it_last() {
        let active = Active::new(100);
        active.touch(7, A, s(0), IDLE);
        active.touch(8, A, s(0), IDLE);
        active.touch(7, B, s(1), IDLE);
        assert!(active.is_with(7, B, s(2), IDLE) && !active.is_with(7, A, s(2), IDLE));
        let held = |peer| active.held(peer, s(2), IDLE);
        assert_eq!((held(A), held(B)), (1, 1));
    }

    #[test]
    fn a_clock_that_was_read_a_little_later_makes_no_key_old() {
        let active = Active::new(100);
        active.touch(7, A, s(100), IDLE);
        assert!(active.is_with(7, A, s(99), IDLE));
    }

    #[test]
    fn another_table_takes_over_what_is_active_and_how_long_ago() {
        let (before, after) = (Active::new(1000), Active::new(1000));
        (0..500).for_each(|key| _ = before.touch(key, A, s(10 + key / 10), IDLE));
        let own = |most| {
            let keys = before.remember(|peer| peer == A, s(80), IDLE, most);
            keys.into_iter().map(|(_, key)| key).collect::<Vec<_>>()
        };
        before.touch(1000, B, s(80), IDLE);
        let keys = own(10_000);
        assert_eq!(keys.len(), before.held(A, s(80), IDLE));
        after.recall(&keys, A, s(1080), IDLE);
        for key in 0..500 {
            // Not to the unit of time: half a second past the moment at which each key is idle.
            for later in [80, 90, 100, 110].map(|second| s(second) + s(1) / 2) {
                assert_eq!(
                    before.is_with(key, A, later, IDLE),
                    after.is_with(key, A, later + s(1000), IDLE),
                    "key {key} at {later:?}"
                );
            }
        }
        assert_eq!(own(7).len(), 7);
    }

    /// Touches each key; how many active ones had to make room.
    fn touch_all(
        active: &Active,
        keys: impl Iterator<Item = (u64, Duration)>,
        idle: Duration,
    ) -> usize {
        keys.filter(|(key, now)| active.touch(*key, A, *now, idle))
            .count()
    }

    #[test]
    fn as_many_keys_fit_as_were_asked_for() {
        let active = Active::new(65_536);
        let lost = touch_all(&active, (0..65_536).map(|key| (key, s(1))), IDLE);
        // Of so many, one or two are taken for another.
        assert!((65_530..=65_536).contains(&(active.held(A, s(1), IDLE) + lost)));
        assert!(lost < 65_536 / 100, "{lost} lost");
        assert_eq!(size_of_val(&*active.sets), 1 << 20);
    }

    #[test]
    fn beyond_that_the_oldest_goes_and_is_told() {
        let active = Active::new(1);
        let lost = touch_all(&active, (0..1000).map(|key| (key, s(key))), s(5000));
        assert_eq!((lost, active.held(A, s(1000), s(5000))), (1000 - 16, 16));
        assert!(active.is_with(999, A, s(1000), s(5000)));
        assert!(!active.is_with(0, A, s(1000), s(5000)));
    }

    #[test]
    fn idle_keys_make_room_and_are_not_missed() {
        let active = Active::new(8);
        let lost = touch_all(&active, (0..1000).map(|key| (key, s(61 * key))), IDLE);
        assert_eq!((lost, active.held(A, s(61 * 999), IDLE)), (0, 1));
    }

    #[test]
    fn a_drained_peers_keys_only_get_fewer() {
        let active = Active::new(4096);
        let served = |key: u64, now| active.is_with(key, A, now, IDLE);
        (0..1000).for_each(|key| _ = active.touch(key, A, s(100), IDLE));
        let mut before = 1000;
        for second in 101..400 {
            let now = s(second);
            // Half of the sessions go on; as many new keys come, which go elsewhere.
            for key in (0..2000).filter(|key| key % 2 == 0 || *key >= 1000) {
                if served(key, now) {
                    active.touch(key, A, now, IDLE);
                }
            }
            let held = active.held(A, now, IDLE);
            assert!(held <= before);
            before = held;
        }
        assert_eq!(before, 500);
    }

    #[test]
    fn threads_lose_no_key_that_they_keep_touching() {
        let active = Active::new(4096);
        thread::scope(|scope| {
            for thread in 0..8 {
                let active = &active;
                scope.spawn(move || {
                    for round in 0..200 {
                        (0..400).for_each(|key| {
                            _ = active.touch(thread * 200 + key, A, s(round), IDLE);
                        });
                    }
                });
            }
        });
        let missing = (0..1800)
            .filter(|key| !active.is_with(*key, A, s(200), IDLE))
            .count();
        assert_eq!(missing, 0);
        // Raced inserts may leave a key in two entries, of which the one not found first grows old.
        assert!((1800..1900).contains(&active.held(A, s(200), IDLE)));
    }

    proptest! {
        #[test]
        fn it_knows_what_a_map_of_last_requests_knows(
            requests in prop::collection::vec((0..300_u64, 0..3_u16, 0..3_u64), 1..2000),
            idle in 1..100_u64,
            began in 0..1_u64 << 32,
        ) {
            let active = Active::new(4096);
            let mut last = HashMap::new();
            let mut now = began;
            for (key, peer, pause) in requests {
                now += pause;
                active.touch(key, Tenure(peer), s(now), s(idle));
                last.insert(key, (Tenure(peer), now));
            }
            for peer in (0..3).map(Tenure) {
                // A second more or less is no matter of the unit, 0.27 s.
                let within = |most| last.values().filter(move |(own, at)| *own == peer && now - at <= most);
                let held = active.held(peer, s(now), s(idle));
                prop_assert!((within(idle - 1).count()..=within(idle).count()).contains(&held));
                for (key, (own, at)) in &last {
                    if now - at != idle {
                        let is_with = *own == peer && now - at < idle;
                        prop_assert_eq!(active.is_with(*key, peer, s(now), s(idle)), is_with);
                    }
                }
            }
        }
    }
}
