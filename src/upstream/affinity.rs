//! Which peer served each key that was active lately: what a drain that keeps sessions goes by.
//!
//! A drain begins too late to learn which sessions there are. So where an upstream's drains keep
//! sessions, every request is recorded here when its peer is chosen, and from time to time while it goes on, drain
//! or not. A draining peer then serves a key that is still active and was last with it ([`Active::is_with`]), and is
//! passed over for every other. As only keys that it serves are recorded as its own, they can only get fewer from then on, and the
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
//!
//! A table of another size cannot take the entries over: what it would choose their sets by is not all known. So
//! it comes *after* the one before, in which what it does not find is looked for until nothing there can
//! be active any more; a key that is touched moves.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;

use self::entry::{
    AffinityEntry, AffinitySet, MAX_SETS, WAYS, millis, pack_key, to_units, unpack_key,
};
use super::peer_epoch::PeerEpoch;
use crate::policy::hash_mix::mix;

mod entry;

/// Entries for each key that the table is made for.
const ENTRIES_PER_KEY: usize = 2;
/// The most keys that a table is made for: 2^24.
const MAX_KEYS: usize = MAX_SETS * WAYS / ENTRIES_PER_KEY;

/// Keys with the peer and the time of their last request.
#[derive(Debug)]
pub(super) struct AffinityTable {
    /// As many as a power of two.
    sets: Box<[AffinitySet]>,
    previous: ArcSwapOption<PreviousTable>,
}

/// A table of another size, that had the keys until now.
#[derive(Debug)]
struct PreviousTable {
    table: Arc<AffinityTable>,
    /// Until when something in it may be active.
    expires_at: Duration,
}

impl AffinityTable {
    /// A table for about this many keys at once, rounded up to a power of two; at least 8, at most 2^24.
    pub(super) fn new(keys: usize) -> Self {
        Self::with_set_count(set_count(keys))
    }

    /// The table for about this many keys that goes on with what `before` has, where that may be active
    /// `until` then: the same one, if it has the size.
    pub(super) fn resized_from(before: &Arc<Self>, keys: usize, until: Duration) -> Arc<Self> {
        if before.sets.len() == set_count(keys) {
            return Arc::clone(before);
        }
        let after = Self::new(keys);
        after.set_previous(Arc::clone(before), until);
        Arc::new(after)
    }

    fn with_set_count(sets: usize) -> Self {
        Self {
            sets: (0..sets).map(|_| AffinitySet::default()).collect(),
            previous: ArcSwapOption::empty(),
        }
    }

    fn set_previous(&self, active: Arc<Self>, until: Duration) {
        self.previous.store(Some(Arc::new(PreviousTable {
            table: active,
            expires_at: until,
        })));
    }

    /// Records that a peer serves a request of a key. Keys without one for `idle` make room first; true:
    /// one that is active had to, as the table is too small.
    #[inline]
    pub(super) fn touch(&self, key: u64, peer: PeerEpoch, now: Duration, idle: Duration) -> bool {
        let hash = mix(key);
        let entry = AffinityEntry::new(hash, peer, to_units(now));
        match self.set_of(hash).and_then(|set| set.find(hash)) {
            Some((cell, seen)) if seen != entry => entry.store(cell),
            Some(_) => {}
            None => return self.insert(hash, entry, now, idle),
        }
        false
    }

    /// Records that a request, or a stream, of a key goes on at the peer that it was at home with when it came;
    /// not if another has served the key since.
    pub(super) fn refresh(&self, key: u64, peer: PeerEpoch, now: Duration, idle: Duration) {
        if self
            .lookup(mix(key), now)
            .is_none_or(|seen| seen.epoch() == peer)
        {
            self.touch(key, peer, now, idle);
        }
    }

    /// Whether the key had a request within `idle`, and that peer served the last.
    #[inline]
    pub(super) fn is_assigned_to(
        &self,
        key: u64,
        peer: PeerEpoch,
        now: Duration,
        idle: Duration,
    ) -> bool {
        let is_it =
            |seen: AffinityEntry| seen.epoch() == peer && seen.is_active(to_units(now), idle);
        self.lookup(mix(key), now).is_some_and(is_it)
    }

    /// How many keys had a request within `idle`, by the peer that they are with. Goes over the whole table: some
    /// 50 µs for 65,536 keys.
    pub(super) fn active_keys_by_peer(
        &self,
        now: Duration,
        idle: Duration,
    ) -> HashMap<PeerEpoch, usize> {
        let mut held = HashMap::new();
        self.for_each(now, &mut |_, entry| {
            if entry.is_active(to_units(now), idle) {
                *held.entry(entry.epoch()).or_default() += 1;
            }
        });
        held
    }

    /// The keys that are with peers and had a request within the time that `of` gives for those, at most `most` of
    /// them: for [`Self::recall`], each with the milliseconds since its last request. What stands for a
    /// key is all that the table knows of it, enough for a table of the same size.
    pub(super) fn export(
        &self,
        of: impl Fn(PeerEpoch) -> Option<Duration>,
        now: Duration,
        most: usize,
    ) -> Vec<(PeerEpoch, (u64, u64))> {
        let mut keys = Vec::new();
        self.for_each(now, &mut |known, entry| {
            let is_wanted = |idle| entry.is_active(to_units(now), idle);
            if keys.len() < most && of(entry.epoch()).is_some_and(is_wanted) {
                keys.push((entry.epoch(), (known, millis(entry.age(to_units(now))))));
            }
        });
        keys
    }

    /// Takes over keys of another table, for a peer; of what both know the later counts. A table of another
    /// size comes before this one, where its keys may be active `until` then.
    pub(super) fn restore(
        &self,
        keys: &[(u64, u64)],
        peer: PeerEpoch,
        now: Duration,
        until: Duration,
    ) {
        for &(known, age) in keys {
            let time = to_units(now.saturating_sub(Duration::from_millis(age)));
            let (hash, sets) = unpack_key(known);
            let entry = AffinityEntry::new(hash, peer, time);
            self.restore_into(sets, (hash, entry), now, until);
        }
    }

    fn restore_into(&self, sets: usize, key: (u64, AffinityEntry), now: Duration, until: Duration) {
        if sets == self.sets.len() {
            self.restore_entry(key, now);
        } else if let Some(before) = self.previous(now) {
            before.table.restore_into(sets, key, now, until);
        } else {
            let before = Arc::new(Self::with_set_count(sets));
            before.restore_entry(key, now);
            self.set_previous(before, until);
        }
    }

    fn restore_entry(&self, (hash, entry): (u64, AffinityEntry), now: Duration) {
        let Some(set) = self.set_of(hash) else {
            return;
        };
        match set.find(hash) {
            Some((cell, seen)) if seen.age(to_units(now)) >= entry.age(to_units(now)) => {
                entry.store(cell);
            }
            Some(_) => {}
            None => _ = set.insert(entry, to_units(now), Duration::ZERO),
        }
    }

    /// What is known of a key, here or before.
    #[inline]
    fn lookup(&self, hash: u64, now: Duration) -> Option<AffinityEntry> {
        let found = self.set_of(hash).and_then(|set| set.find(hash));
        match found {
            Some((_, seen)) => Some(seen),
            None => self.previous(now)?.table.lookup(hash, now),
        }
    }

    /// A key that is new here; what was known of it before is not needed any more.
    #[cold]
    fn insert(&self, hash: u64, entry: AffinityEntry, now: Duration, idle: Duration) -> bool {
        if let Some(before) = self.previous(now) {
            before.table.remove(hash, now);
        }
        self.set_of(hash)
            .is_some_and(|set| set.insert(entry, to_units(now), idle))
    }

    fn remove(&self, hash: u64, now: Duration) {
        if let Some((cell, seen)) = self.set_of(hash).and_then(|set| set.find(hash)) {
            // If that fails it is another's already.
            seen.clear(cell);
        }
        if let Some(before) = self.previous(now) {
            before.table.remove(hash, now);
        }
    }

    /// The table before this one, as long as it matters.
    fn previous(&self, now: Duration) -> Option<Arc<PreviousTable>> {
        let before = self.previous.load_full()?;
        if now < before.expires_at {
            return Some(before);
        }
        self.previous.store(None);
        None
    }

    /// Calls with all that is known of each key, and its entry.
    fn for_each(&self, now: Duration, call: &mut impl FnMut(u64, AffinityEntry)) {
        for (place, set) in (0_u64..).zip(&self.sets) {
            let entries = set.entries();
            for entry in entries.filter(|entry| !entry.is_vacant()) {
                call(pack_key(entry, place, self.sets.len()), entry);
            }
        }
        if let Some(before) = self.previous(now) {
            before.table.for_each(now, call);
        }
    }

    fn set_of(&self, hash: u64) -> Option<&AffinitySet> {
        // The tag is the upper part, so the lower one chooses.
        let place = (hash & 0xffff_ffff) as usize & (self.sets.len() - 1);
        self.sets.get(place)
    }
}

/// How many sets a table for about so many keys has.
fn set_count(keys: usize) -> usize {
    (keys.clamp(WAYS, MAX_KEYS) * ENTRIES_PER_KEY / WAYS).next_power_of_two()
}

#[cfg(test)]
mod tests {
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    const IDLE: Duration = Duration::from_secs(60);
    const A: PeerEpoch = PeerEpoch(1);
    const B: PeerEpoch = PeerEpoch(2);

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// How many keys are with a peer.
    fn held(active: &AffinityTable, peer: PeerEpoch, now: Duration, idle: Duration) -> usize {
        active
            .active_keys_by_peer(now, idle)
            .get(&peer)
            .copied()
            .unwrap_or(0)
    }

    #[test]
    fn affinity_key_is_active_until_the_idle_time() {
        let active = AffinityTable::new(100);
        assert!(!active.is_assigned_to(7, A, s(0), IDLE));
        active.touch(7, A, s(0), IDLE);
        assert!(
            active.is_assigned_to(7, A, s(60), IDLE) && !active.is_assigned_to(7, A, s(61), IDLE)
        );
        active.touch(7, A, s(50), IDLE);
        assert!(
            active.is_assigned_to(7, A, s(110), IDLE) && !active.is_assigned_to(7, A, s(111), IDLE)
        );
        assert_eq!(
            (
                held(&active, A, s(110), IDLE),
                held(&active, A, s(111), IDLE)
            ),
            (1, 0)
        );
    }

    #[test]
    fn affinity_key_belongs_to_the_last_serving_peer() {
        let active = AffinityTable::new(100);
        active.touch(7, A, s(0), IDLE);
        active.touch(8, A, s(0), IDLE);
        active.touch(7, B, s(1), IDLE);
        assert!(
            active.is_assigned_to(7, B, s(2), IDLE) && !active.is_assigned_to(7, A, s(2), IDLE)
        );
        let held = |peer| held(&active, peer, s(2), IDLE);
        assert_eq!((held(A), held(B)), (1, 1));
    }

    #[test]
    fn affinity_key_is_not_aged_by_a_slightly_later_clock() {
        let active = AffinityTable::new(100);
        active.touch(7, A, s(100), IDLE);
        assert!(active.is_assigned_to(7, A, s(99), IDLE));
    }

    #[test]
    fn affinity_export_restores_active_keys_with_their_age() {
        let (before, after) = (AffinityTable::new(1000), AffinityTable::new(1000));
        (0..500).for_each(|key| _ = before.touch(key, A, s(10 + key / 10), IDLE));
        let own = |most| {
            let keys = before.export(|peer| (peer == A).then_some(IDLE), s(80), most);
            keys.into_iter().map(|(_, key)| key).collect::<Vec<_>>()
        };
        before.touch(1000, B, s(80), IDLE);
        let keys = own(10_000);
        assert_eq!(keys.len(), held(&before, A, s(80), IDLE));
        after.restore(&keys, A, s(1080), s(1080) + IDLE);
        for key in 0..500 {
            // Not to the unit of time: half a second past the moment at which each key is idle.
            for later in [80, 90, 100, 110].map(|second| s(second) + s(1) / 2) {
                assert_eq!(
                    before.is_assigned_to(key, A, later, IDLE),
                    after.is_assigned_to(key, A, later + s(1000), IDLE),
                    "key {key} at {later:?}"
                );
            }
        }
        assert_eq!(own(7).len(), 7);
    }

    #[test]
    fn affinity_table_resize_keeps_active_keys_without_counting_twice() {
        for size in [100, 10_000] {
            let before = Arc::new(AffinityTable::new(1000));
            (0..100).for_each(|key| _ = before.touch(key, A, s(10), IDLE));
            let after = AffinityTable::resized_from(&before, size, s(70));
            assert_eq!(held(&after, A, s(20), IDLE), 100);
            (0..50).for_each(|key| _ = after.touch(key, B, s(20), IDLE));
            assert_eq!(held(&after, A, s(20), IDLE), 50);
            assert_eq!(held(&after, B, s(20), IDLE), 50);
            assert!(
                after.is_assigned_to(7, B, s(21), IDLE) && after.is_assigned_to(77, A, s(21), IDLE)
            );
            assert!(after.previous.load().is_some());
            assert!(!after.is_assigned_to(77, A, s(71), IDLE));
            assert!(after.previous.load().is_none(), "it is let go");
        }
    }

    #[test]
    fn affinity_table_of_equal_size_is_reused() {
        let before = Arc::new(AffinityTable::new(1000));
        assert!(Arc::ptr_eq(
            &before,
            &AffinityTable::resized_from(&before, 1024, s(1))
        ));
    }

    #[test]
    fn affinity_export_is_restored_into_a_table_of_another_size() {
        let (before, later) = (AffinityTable::new(1000), AffinityTable::new(64));
        (0..30).for_each(|key| _ = before.touch(key, A, s(10), IDLE));
        (15..40).for_each(|key| _ = later.touch(key, A, s(15), IDLE));
        let told = |table: &AffinityTable| {
            let told = table.export(|_| Some(IDLE), s(20), 100);
            told.into_iter().map(|(_, key)| key).collect::<Vec<_>>()
        };
        let after = AffinityTable::new(4000);
        after.restore(&told(&before), A, s(1020), s(1100));
        after.restore(&told(&later), A, s(1020), s(1100));
        assert!((0..40).all(|key| after.is_assigned_to(key, A, s(1021), IDLE)));
        // Of two tables before it, each has its own; who touches the key clears it up.
        (0..40).for_each(|key| _ = after.touch(key, B, s(1021), IDLE));
        assert_eq!(held(&after, A, s(1021), IDLE), 0);
        assert_eq!(held(&after, B, s(1021), IDLE), 40);
    }

    #[test]
    fn affinity_restore_prefers_the_later_entry() {
        let (early, late) = (AffinityTable::new(100), AffinityTable::new(100));
        early.touch(7, A, s(10), IDLE);
        late.touch(7, B, s(15), IDLE);
        let told = |table: &AffinityTable| {
            let told = table.export(|_| Some(IDLE), s(20), 100);
            told.into_iter().map(|(_, key)| key).collect::<Vec<_>>()
        };
        for tables in [[(&early, A), (&late, B)], [(&late, B), (&early, A)]] {
            let after = AffinityTable::new(100);
            for (table, peer) in tables {
                after.restore(&told(table), peer, s(1020), s(1100));
            }
            assert!(after.is_assigned_to(7, B, s(1021), IDLE));
        }
    }

    #[test]
    fn affinity_refresh_keeps_a_key_unless_another_peer_has_it() {
        let active = AffinityTable::new(100);
        active.touch(7, A, s(0), IDLE);
        active.refresh(7, A, s(50), IDLE);
        assert!(active.is_assigned_to(7, A, s(110), IDLE));
        active.touch(7, B, s(111), IDLE);
        active.refresh(7, A, s(112), IDLE);
        assert!(active.is_assigned_to(7, B, s(112), IDLE));
        active.refresh(8, A, s(112), IDLE);
        assert!(
            active.is_assigned_to(8, A, s(112), IDLE),
            "it had lost its place"
        );
    }

    /// Touches each key; how many active ones had to make room.
    fn touch_all(
        active: &AffinityTable,
        keys: impl Iterator<Item = (u64, Duration)>,
        idle: Duration,
    ) -> usize {
        keys.filter(|(key, now)| active.touch(*key, A, *now, idle))
            .count()
    }

    #[test]
    fn affinity_table_holds_the_configured_number_of_keys() {
        let active = AffinityTable::new(65_536);
        let lost = touch_all(&active, (0..65_536).map(|key| (key, s(1))), IDLE);
        // Of so many, one or two are taken for another.
        assert!((65_530..=65_536).contains(&(held(&active, A, s(1), IDLE) + lost)));
        assert!(lost < 65_536 / 100, "{lost} lost");
        assert_eq!(size_of_val(&*active.sets), 1 << 20);
    }

    #[test]
    fn affinity_table_over_capacity_evicts_and_reports_the_oldest() {
        let active = AffinityTable::new(1);
        let lost = touch_all(&active, (0..1000).map(|key| (key, s(key))), s(5000));
        assert_eq!((lost, held(&active, A, s(1000), s(5000))), (1000 - 16, 16));
        assert!(active.is_assigned_to(999, A, s(1000), s(5000)));
        assert!(!active.is_assigned_to(0, A, s(1000), s(5000)));
    }

    #[test]
    fn affinity_table_evicts_idle_keys_first_without_reporting() {
        let active = AffinityTable::new(8);
        let lost = touch_all(&active, (0..1000).map(|key| (key, s(61 * key))), IDLE);
        assert_eq!((lost, held(&active, A, s(61 * 999), IDLE)), (0, 1));
    }

    #[test]
    fn affinity_keys_of_a_draining_peer_only_decrease() {
        let active = AffinityTable::new(4096);
        let served = |key: u64, now| active.is_assigned_to(key, A, now, IDLE);
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
            let held = held(&active, A, now, IDLE);
            assert!(held <= before);
            before = held;
        }
        assert_eq!(before, 500);
    }

    #[test]
    fn affinity_table_keeps_touched_keys_across_threads() {
        let active = AffinityTable::new(4096);
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
            .filter(|key| !active.is_assigned_to(*key, A, s(200), IDLE))
            .count();
        assert_eq!(missing, 0);
        // Raced inserts may leave a key in two entries, of which the one not found first grows old.
        assert!((1800..1900).contains(&held(&active, A, s(200), IDLE)));
    }

    proptest! {
        #[test]
        fn affinity_table_equals_a_map_of_last_requests(
            requests in prop::collection::vec((0..300_u64, 0..3_u16, 0..3_u64), 1..2000),
            idle in 1..100_u64,
            began in 0..1_u64 << 32,
        ) {
            let active = AffinityTable::new(4096);
            let mut last = HashMap::new();
            let mut now = began;
            for (key, peer, pause) in requests {
                now += pause;
                active.touch(key, PeerEpoch(peer), s(now), s(idle));
                last.insert(key, (PeerEpoch(peer), now));
            }
            for peer in (0..3).map(PeerEpoch) {
                // A second more or less is no matter of the unit, 0.27 s.
                let within = |most| last.values().filter(move |(own, at)| *own == peer && now - at <= most);
                let held = held(&active, peer, s(now), s(idle));
                prop_assert!((within(idle - 1).count()..=within(idle).count()).contains(&held));
                for (key, (own, at)) in &last {
                    if now - at != idle {
                        let is_with = *own == peer && now - at < idle;
                        prop_assert_eq!(active.is_assigned_to(*key, peer, s(now), s(idle)), is_with);
                    }
                }
            }
        }
    }
}
