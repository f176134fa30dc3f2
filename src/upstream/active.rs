//! The keys that one peer served lately: what a drain that keeps sessions leaves with it.
//!
//! A drain begins too late to learn which sessions there are. So where an upstream's drains keep
//! sessions, every request is recorded here when its peer is chosen, drain or not. A draining peer then
//! serves a key that is still active ([`Active::is_active`]) and is passed over for every other; as only
//! keys that it serves are recorded, the set can only shrink from then on, and the drain is over when
//! it is empty or at its deadline.
//!
//! One table for each peer, not for an upstream: a key that went to another peer because of a drain is
//! that one's from then on, also when it is drained next.
//!
//! ```text
//!   hash ── mix ─┬─ set (8 entries, one cache line)
//!                └─ tag (32 bits) ── entry: tag | time of the last request, in units of 134 ms
//! ```
//!
//! Bounds:
//! * memory: 16 bytes for each key that is asked for, as there are two entries for each key, that few sets
//!   are full when the table is as full as it was meant to get; 256 KiB for 16,384 keys;
//! * a full set gives up its oldest entry; where that was still active it is counted ([`Active::lost`]);
//! * time: one cache line; a repeated key within 134 ms writes nothing. No lock, no loop without an end;
//! * a key is taken for another that is active with a probability of 2^-29; both would stay, no harm.
//!
//! Of two threads that bring new keys to one set at the same time, one may find its place gone; the key's next
//! request records it. If they bring the same key it may be there twice, and [`Active::held`] counts it
//! twice until the older entry is idle.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::policy::mix::mix;

/// Entries that a key can be in: one cache line.
const WAYS: usize = 8;
/// Entries for each key that the table is made for.
const SPARE: usize = 2;
/// A unit of time is 2^27 ns; 32 bits of them are 18 years.
const UNIT: u32 = 27;

/// Keys with the time of their last request.
#[derive(Debug)]
pub struct Active {
    /// As many as a power of two.
    sets: Box<[Set]>,
    lost: AtomicU32,
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
            lost: AtomicU32::new(0),
        }
    }

    /// Records a request of a key. Keys without one for `idle` make room first.
    #[inline]
    pub fn touch(&self, key: u64, now: Duration, idle: Duration) {
        let (hash, now) = (mix(key), units(now));
        let Some(set) = self.set(hash) else { return };
        let entry = Entry::new(hash, now);
        match set.find(hash) {
            Some((cell, seen)) if seen != entry => cell.store(entry.0, Relaxed),
            Some(_) => {}
            None => self.insert(set, entry, now, idle),
        }
    }

    /// Whether the key had a request within `idle`.
    #[inline]
    pub fn is_active(&self, key: u64, now: Duration, idle: Duration) -> bool {
        self.is_active_since(key, Duration::ZERO, now, idle)
    }

    /// Whether the key had a request within `idle`, and after `since`.
    pub fn is_active_since(
        &self,
        key: u64,
        since: Duration,
        now: Duration,
        idle: Duration,
    ) -> bool {
        let hash = mix(key);
        let found = self.set(hash).and_then(|set| set.find(hash));
        found.is_some_and(|(_, seen)| {
            seen.time() >= units(since) && seen.is_active(units(now), idle)
        })
    }

    /// The keys that had a request within `idle`. Goes over the whole table: some 10 µs for 16,384 keys.
    pub fn held(&self, now: Duration, idle: Duration) -> usize {
        let now = units(now);
        let entries = self.sets.iter().flat_map(|set| &set.0);
        entries
            .filter(|cell| Entry::load(cell).is_active(now, idle))
            .count()
    }

    /// Active keys that made room for others since the process started: the table is too small.
    pub fn lost(&self) -> u32 {
        self.lost.load(Relaxed)
    }

    /// The keys that had a request within `idle`, at most `most` of them: for [`Self::recall`], each with
    /// the milliseconds since its last request. What stands for a key is all that the table knows of it,
    /// enough for a table of the same size.
    pub fn remember(&self, now: Duration, idle: Duration, most: usize) -> Vec<(u64, u64)> {
        let now = units(now);
        let places = (0_u64..).zip(&self.sets);
        let entries = places.flat_map(|(place, set)| {
            let entries = set.0.iter().map(Entry::load);
            entries.map(move |entry| (place, entry))
        });
        entries
            .filter(|(_, entry)| entry.is_active(now, idle))
            .map(|(place, entry)| (entry.tag() | place, millis(now - entry.time().min(now))))
            .take(most)
            .collect()
    }

    /// Takes over the keys of another table.
    pub fn recall(&self, keys: &[(u64, u64)], now: Duration, idle: Duration) {
        for &(hash, age) in keys {
            let time = units(now.saturating_sub(Duration::from_millis(age)));
            let entry = Entry::new(hash, time);
            if let Some(set) = self.set(hash).filter(|set| set.find(hash).is_none()) {
                self.insert(set, entry, units(now), idle);
            }
        }
    }

    /// Forgets everything.
    pub fn clear(&self) {
        for cell in self.sets.iter().flat_map(|set| &set.0) {
            cell.store(0, Relaxed);
        }
    }

    fn set(&self, hash: u64) -> Option<&Set> {
        // The tag is the upper half, so the lower one chooses.
        let place = (hash & 0xffff_ffff) as usize & (self.sets.len() - 1);
        self.sets.get(place)
    }

    #[cold]
    fn insert(&self, set: &Set, entry: Entry, now: u32, idle: Duration) {
        let oldest = set.0.iter().map(|cell| (Entry::load(cell), cell));
        let Some((old, cell)) = oldest.min_by_key(|(old, _)| old.time()) else {
            return;
        };
        let is_new = cell.compare_exchange(old.0, entry.0, Relaxed, Relaxed);
        if is_new.is_ok() && old.is_active(now, idle) {
            self.lost.fetch_add(1, Relaxed);
        }
    }
}

impl Set {
    #[inline]
    fn find(&self, hash: u64) -> Option<(&AtomicU64, Entry)> {
        let entries = self.0.iter().map(|cell| (cell, Entry::load(cell)));
        entries.into_iter().find(|(_, entry)| entry.has(hash))
    }
}

/// Tag above time; 0 is vacant, as no entry has the time 0.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Entry(u64);

impl Entry {
    const fn new(hash: u64, now: u32) -> Self {
        Self(hash & !0xffff_ffff | now as u64)
    }

    fn load(cell: &AtomicU64) -> Self {
        Self(cell.load(Relaxed))
    }

    const fn has(self, hash: u64) -> bool {
        (self.0 ^ hash) >> 32 == 0 && self.time() != 0
    }

    const fn tag(self) -> u64 {
        self.0 & !0xffff_ffff
    }

    const fn time(self) -> u32 {
        (self.0 & 0xffff_ffff) as u32
    }

    fn is_active(self, now: u32, idle: Duration) -> bool {
        let idle = idle.as_nanos() >> UNIT;
        self.time() != 0 && u128::from(now.saturating_sub(self.time())) <= idle
    }
}

/// Time in units, from 1.
fn units(now: Duration) -> u32 {
    u32::try_from((now.as_nanos() >> UNIT) + 1).unwrap_or(u32::MAX)
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

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_key_is_active_until_it_was_idle_for_so_long() {
        let active = Active::new(100);
        assert!(!active.is_active(7, s(0), IDLE));
        active.touch(7, s(0), IDLE);
        assert!(active.is_active(7, s(60), IDLE) && !active.is_active(7, s(61), IDLE));
        active.touch(7, s(50), IDLE);
        assert!(active.is_active(7, s(110), IDLE) && !active.is_active(7, s(111), IDLE));
        assert_eq!(
            (active.held(s(110), IDLE), active.held(s(111), IDLE)),
            (1, 0)
        );
        active.clear();
        assert_eq!(active.held(s(110), IDLE), 0);
    }

    #[test]
    fn another_table_takes_over_what_is_active_and_how_long_ago() {
        let (before, after) = (Active::new(1000), Active::new(1000));
        (0..500).for_each(|key| before.touch(key, s(10 + key / 10), IDLE));
        let keys = before.remember(s(80), IDLE, 10_000);
        assert_eq!(keys.len(), before.held(s(80), IDLE));
        after.recall(&keys, s(1080), IDLE);
        for key in 0..500 {
            // Not to the unit of time: half a second past the moment at which each key is idle.
            for later in [80, 90, 100, 110].map(|second| s(second) + s(1) / 2) {
                assert_eq!(
                    before.is_active(key, later, IDLE),
                    after.is_active(key, later + s(1000), IDLE),
                    "key {key} at {later:?}"
                );
            }
        }
        assert_eq!(before.remember(s(80), IDLE, 7).len(), 7);
    }

    #[test]
    fn as_many_keys_fit_as_were_asked_for() {
        let active = Active::new(16_384);
        (0..16_384).for_each(|key| active.touch(key, s(1), IDLE));
        let held = active.held(s(1), IDLE);
        assert_eq!(held + active.lost() as usize, 16_384);
        assert!(active.lost() < 16_384 / 100, "{} lost", active.lost());
        assert_eq!(size_of_val(&*active.sets), 256 << 10);
    }

    #[test]
    fn beyond_that_the_oldest_goes_and_is_counted() {
        let active = Active::new(1);
        for key in 0..1000 {
            active.touch(key, s(key), s(5000));
        }
        assert_eq!(active.held(s(1000), s(5000)), 16);
        assert_eq!(active.lost(), 1000 - 16);
        assert!(active.is_active(999, s(1000), s(5000)));
        assert!(!active.is_active(0, s(1000), s(5000)));
    }

    #[test]
    fn idle_keys_make_room_and_are_not_missed() {
        let active = Active::new(8);
        for key in 0..1000 {
            active.touch(key, s(61 * key), IDLE);
        }
        assert_eq!((active.lost(), active.held(s(61 * 999), IDLE)), (0, 1));
    }

    #[test]
    fn a_drained_peers_keys_only_get_fewer() {
        let active = Active::new(4096);
        let served = |key: u64, now| active.is_active(key, now, IDLE);
        (0..1000).for_each(|key| active.touch(key, s(100), IDLE));
        let mut before = 1000;
        for second in 101..400 {
            let now = s(second);
            // Half of the sessions go on; as many new keys come, which go elsewhere.
            for key in (0..2000).filter(|key| key % 2 == 0 || *key >= 1000) {
                if served(key, now) {
                    active.touch(key, now, IDLE);
                }
            }
            let held = active.held(now, IDLE);
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
                        (0..400).for_each(|key| active.touch(thread * 200 + key, s(round), IDLE));
                    }
                });
            }
        });
        let missing = (0..1800)
            .filter(|key| !active.is_active(*key, s(200), IDLE))
            .count();
        assert_eq!(missing, 0);
        // Raced inserts may leave a key in two entries, of which the one not found first grows old.
        assert!((1800..1900).contains(&active.held(s(200), IDLE)));
    }

    proptest! {
        #[test]
        fn it_knows_what_a_map_of_last_requests_knows(
            requests in prop::collection::vec((0..300_u64, 0..3_u64), 1..2000),
            idle in 1..100_u64,
        ) {
            let active = Active::new(4096);
            let mut last = HashMap::new();
            let mut now = 0;
            for (key, pause) in requests {
                now += pause;
                active.touch(key, s(now), s(idle));
                last.insert(key, now);
            }
            let held = last.iter().filter(|(_, at)| now - **at <= idle).count();
            for (key, at) in &last {
                // A second more or less is no matter of the unit, 134 ms.
                if now - at != idle {
                    prop_assert_eq!(active.is_active(*key, s(now), s(idle)), now - at < idle);
                }
            }
            prop_assert!(active.held(s(now), s(idle)) <= held);
        }
    }
}
