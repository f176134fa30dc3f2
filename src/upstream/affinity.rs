//! The affinity table: which peer served each recently active key, for drains that keep sessions.
//!
//! A drain begins too late to learn which sessions exist. So if `drain` is configured, every request is
//! recorded here when its peer is selected, and again from time to time while it lasts. A draining peer
//! serves a key that is active and was last served there ([`AffinityTable::is_assigned_to`]), and no other.
//! Only served keys are recorded, so the keys of a draining peer only decrease; the drain ends without
//! keys, or at its deadline.
//!
//! Lock-free, one cache line per lookup; [`entry`] has the layout. Memory: 16 bytes for each configured
//! key, since a table with two entries per key has few full sets; 1 MiB for 65,536 keys, of which unused
//! pages are never touched. A full set evicts its oldest entry, and [`AffinityTable::touch`] returns true
//! if that was still active. A key is mistaken for another active key of the same peer with a probability
//! below 2^-17: it then stays with a draining peer, without harm. So does, for `idle`, a key with its last
//! request exactly 2.3 years ago.

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

/// Entries per configured key.
const ENTRIES_PER_KEY: usize = 2;
/// The most keys that can be configured: 2^24.
const MAX_KEYS: usize = MAX_SETS * WAYS / ENTRIES_PER_KEY;

/// The peer and the time of the last request of each key.
///
/// The set of a key depends on the key alone, so its cache line can be fetched while the ring is searched.
/// A repeat within 0.27 s writes nothing. If two threads insert new keys into one set at the same time, one
/// of them may be lost until its next request. If they insert the same key, it may be there twice, and is
/// counted twice until the older entry is idle.
///
/// An entry does not hold enough of the hash to move it to a table of another size. So a resized table
/// looks keys up in the *previous* one until nothing there can be active any more; a key that is touched
/// moves.
#[derive(Debug)]
pub(super) struct AffinityTable {
    /// The number of sets is a power of two.
    sets: Box<[AffinitySet]>,
    previous: ArcSwapOption<PreviousTable>,
}

/// The table of another size that was replaced.
#[derive(Debug)]
struct PreviousTable {
    table: Arc<AffinityTable>,
    /// When nothing in it can be active any more.
    expires_at: Duration,
}

impl AffinityTable {
    /// Creates a table for about this many keys, rounded up to a power of two; at least 8, at most 2^24.
    pub(super) fn new(keys: usize) -> Self {
        Self::with_set_count(set_count(keys))
    }

    /// The table for about this many keys that continues with the keys of `previous`, which may be active until
    /// `expires_at`: the same table if the size is the same.
    pub(super) fn resized_from(
        previous: &Arc<Self>,
        keys: usize,
        expires_at: Duration,
    ) -> Arc<Self> {
        if previous.sets.len() == set_count(keys) {
            return Arc::clone(previous);
        }
        let resized = Self::new(keys);
        resized.set_previous(Arc::clone(previous), expires_at);
        Arc::new(resized)
    }

    fn with_set_count(sets: usize) -> Self {
        Self {
            sets: (0..sets).map(|_| AffinitySet::default()).collect(),
            previous: ArcSwapOption::empty(),
        }
    }

    fn set_previous(&self, table: Arc<Self>, expires_at: Duration) {
        let previous = PreviousTable { table, expires_at };
        self.previous.store(Some(Arc::new(previous)));
    }

    /// Records that a peer serves a request of a key. A new key replaces the oldest entry of a full set;
    /// true if that had a request within `idle`: the table is too small.
    #[inline]
    pub(super) fn touch(&self, key: u64, peer: PeerEpoch, now: Duration, idle: Duration) -> bool {
        let hash = mix(key);
        let entry = AffinityEntry::new(hash, peer, to_units(now));
        match self.set_of(hash).and_then(|set| set.find(hash)) {
            Some((cell, old)) if old != entry => entry.store(cell),
            Some(_) => {}
            None => return self.insert(hash, entry, now, idle),
        }
        false
    }

    /// Records that a request or a stream of a key continues at a peer, unless another peer has served the
    /// key since.
    pub(super) fn refresh(&self, key: u64, peer: PeerEpoch, now: Duration, idle: Duration) {
        if self
            .lookup(mix(key), now)
            .is_none_or(|entry| entry.epoch() == peer)
        {
            self.touch(key, peer, now, idle);
        }
    }

    /// Whether the key had a request within `idle`, and this peer served the last one.
    #[inline]
    pub(super) fn is_assigned_to(
        &self,
        key: u64,
        peer: PeerEpoch,
        now: Duration,
        idle: Duration,
    ) -> bool {
        self.lookup(mix(key), now)
            .is_some_and(|entry| entry.epoch() == peer && entry.is_active(to_units(now), idle))
    }

    /// The number of keys with a request within `idle`, by the peer that served it. Scans the whole table:
    /// about 50 µs for 65,536 keys.
    pub(super) fn active_keys_by_peer(
        &self,
        now: Duration,
        idle: Duration,
    ) -> HashMap<PeerEpoch, usize> {
        let mut counts = HashMap::new();
        self.for_each(now, &mut |_, entry| {
            if entry.is_active(to_units(now), idle) {
                *counts.entry(entry.epoch()).or_default() += 1;
            }
        });
        counts
    }

    /// Exports at most `max` keys for [`Self::restore`]: those with a request within the time that
    /// `idle_of` returns for their peer. A key comes as a [packed key](pack_key) and the milliseconds since
    /// its last request.
    pub(super) fn export(
        &self,
        idle_of: impl Fn(PeerEpoch) -> Option<Duration>,
        now: Duration,
        max: usize,
    ) -> Vec<(PeerEpoch, (u64, u64))> {
        let mut keys = Vec::new();
        self.for_each(now, &mut |packed, entry| {
            let is_active = |idle| entry.is_active(to_units(now), idle);
            if keys.len() < max && idle_of(entry.epoch()).is_some_and(is_active) {
                keys.push((entry.epoch(), (packed, millis(entry.age(to_units(now))))));
            }
        });
        keys
    }

    /// Restores exported keys of a peer; for a key that both tables have, the later request counts. Keys
    /// from a table of another size go to a previous table that expires at `expires_at`.
    pub(super) fn restore(
        &self,
        keys: &[(u64, u64)],
        peer: PeerEpoch,
        now: Duration,
        expires_at: Duration,
    ) {
        for &(packed, age) in keys {
            let time = to_units(now.saturating_sub(Duration::from_millis(age)));
            let (hash, sets) = unpack_key(packed);
            let entry = AffinityEntry::new(hash, peer, time);
            self.restore_into(sets, (hash, entry), now, expires_at);
        }
    }

    fn restore_into(
        &self,
        sets: usize,
        key: (u64, AffinityEntry),
        now: Duration,
        expires_at: Duration,
    ) {
        if sets == self.sets.len() {
            self.restore_entry(key, now);
        } else if let Some(previous) = self.previous(now) {
            previous.table.restore_into(sets, key, now, expires_at);
        } else {
            let previous = Arc::new(Self::with_set_count(sets));
            previous.restore_entry(key, now);
            self.set_previous(previous, expires_at);
        }
    }

    fn restore_entry(&self, (hash, entry): (u64, AffinityEntry), now: Duration) {
        let Some(set) = self.set_of(hash) else {
            return;
        };
        match set.find(hash) {
            Some((cell, old)) if old.age(to_units(now)) >= entry.age(to_units(now)) => {
                entry.store(cell);
            }
            Some(_) => {}
            None => _ = set.insert(entry, to_units(now), Duration::ZERO),
        }
    }

    /// The entry of a key, in this table or a previous one.
    #[inline]
    fn lookup(&self, hash: u64, now: Duration) -> Option<AffinityEntry> {
        let found = self.set_of(hash).and_then(|set| set.find(hash));
        match found {
            Some((_, entry)) => Some(entry),
            None => self.previous(now)?.table.lookup(hash, now),
        }
    }

    /// Inserts a key that is new in this table, and removes it from a previous one.
    #[cold]
    fn insert(&self, hash: u64, entry: AffinityEntry, now: Duration, idle: Duration) -> bool {
        if let Some(previous) = self.previous(now) {
            previous.table.remove(hash, now);
        }
        self.set_of(hash)
            .is_some_and(|set| set.insert(entry, to_units(now), idle))
    }

    fn remove(&self, hash: u64, now: Duration) {
        if let Some((cell, entry)) = self.set_of(hash).and_then(|set| set.find(hash)) {
            entry.clear(cell);
        }
        if let Some(previous) = self.previous(now) {
            previous.table.remove(hash, now);
        }
    }

    /// The previous table, until it expires.
    fn previous(&self, now: Duration) -> Option<Arc<PreviousTable>> {
        let previous = self.previous.load_full()?;
        if now < previous.expires_at {
            return Some(previous);
        }
        self.previous.store(None);
        None
    }

    /// Calls `visit` with the packed key and the entry of each key.
    fn for_each(&self, now: Duration, visit: &mut impl FnMut(u64, AffinityEntry)) {
        for (index, set) in (0_u64..).zip(&self.sets) {
            let entries = set.entries();
            for entry in entries.filter(|entry| !entry.is_vacant()) {
                visit(pack_key(entry, index, self.sets.len()), entry);
            }
        }
        if let Some(previous) = self.previous(now) {
            previous.table.for_each(now, visit);
        }
    }

    fn set_of(&self, hash: u64) -> Option<&AffinitySet> {
        // By the lower half of the hash: the tag is from the upper half.
        let index = (hash & 0xffff_ffff) as usize & (self.sets.len() - 1);
        self.sets.get(index)
    }
}

/// The number of sets of a table for about this many keys.
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

    /// The number of keys of a peer.
    fn active_keys(table: &AffinityTable, peer: PeerEpoch, now: Duration, idle: Duration) -> usize {
        table
            .active_keys_by_peer(now, idle)
            .get(&peer)
            .copied()
            .unwrap_or(0)
    }

    #[test]
    fn affinity_key_is_active_until_the_idle_time() {
        let table = AffinityTable::new(100);
        assert!(!table.is_assigned_to(7, A, s(0), IDLE));
        table.touch(7, A, s(0), IDLE);
        assert!(
            table.is_assigned_to(7, A, s(60), IDLE) && !table.is_assigned_to(7, A, s(61), IDLE)
        );
        table.touch(7, A, s(50), IDLE);
        assert!(
            table.is_assigned_to(7, A, s(110), IDLE) && !table.is_assigned_to(7, A, s(111), IDLE)
        );
        assert_eq!(
            (
                active_keys(&table, A, s(110), IDLE),
                active_keys(&table, A, s(111), IDLE)
            ),
            (1, 0)
        );
    }

    #[test]
    fn affinity_key_belongs_to_the_last_serving_peer() {
        let table = AffinityTable::new(100);
        table.touch(7, A, s(0), IDLE);
        table.touch(8, A, s(0), IDLE);
        table.touch(7, B, s(1), IDLE);
        assert!(table.is_assigned_to(7, B, s(2), IDLE) && !table.is_assigned_to(7, A, s(2), IDLE));
        let active_keys = |peer| active_keys(&table, peer, s(2), IDLE);
        assert_eq!((active_keys(A), active_keys(B)), (1, 1));
    }

    #[test]
    fn affinity_key_is_not_aged_by_a_slightly_later_clock() {
        let table = AffinityTable::new(100);
        table.touch(7, A, s(100), IDLE);
        assert!(table.is_assigned_to(7, A, s(99), IDLE));
    }

    #[test]
    fn affinity_export_restores_active_keys_with_their_age() {
        let (before, after) = (AffinityTable::new(1000), AffinityTable::new(1000));
        (0..500).for_each(|key| _ = before.touch(key, A, s(10 + key / 10), IDLE));
        let exported = |max| {
            let keys = before.export(|peer| (peer == A).then_some(IDLE), s(80), max);
            keys.into_iter().map(|(_, key)| key).collect::<Vec<_>>()
        };
        before.touch(1000, B, s(80), IDLE);
        let keys = exported(10_000);
        assert_eq!(keys.len(), active_keys(&before, A, s(80), IDLE));
        after.restore(&keys, A, s(1080), s(1080) + IDLE);
        for key in 0..500 {
            // Half a second past the moment at which each key gets idle: ages are exact only to the unit of
            // time.
            for later in [80, 90, 100, 110].map(|second| s(second) + s(1) / 2) {
                assert_eq!(
                    before.is_assigned_to(key, A, later, IDLE),
                    after.is_assigned_to(key, A, later + s(1000), IDLE),
                    "key {key} at {later:?}"
                );
            }
        }
        assert_eq!(exported(7).len(), 7);
    }

    #[test]
    fn affinity_table_resize_keeps_active_keys_without_counting_twice() {
        for size in [100, 10_000] {
            let before = Arc::new(AffinityTable::new(1000));
            (0..100).for_each(|key| _ = before.touch(key, A, s(10), IDLE));
            let after = AffinityTable::resized_from(&before, size, s(70));
            assert_eq!(active_keys(&after, A, s(20), IDLE), 100);
            (0..50).for_each(|key| _ = after.touch(key, B, s(20), IDLE));
            assert_eq!(active_keys(&after, A, s(20), IDLE), 50);
            assert_eq!(active_keys(&after, B, s(20), IDLE), 50);
            assert!(
                after.is_assigned_to(7, B, s(21), IDLE) && after.is_assigned_to(77, A, s(21), IDLE)
            );
            assert!(after.previous.load().is_some());
            assert!(!after.is_assigned_to(77, A, s(71), IDLE));
            assert!(after.previous.load().is_none(), "dropped");
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
        let exported = |table: &AffinityTable| {
            let keys = table.export(|_| Some(IDLE), s(20), 100);
            keys.into_iter().map(|(_, key)| key).collect::<Vec<_>>()
        };
        let after = AffinityTable::new(4000);
        after.restore(&exported(&before), A, s(1020), s(1100));
        after.restore(&exported(&later), A, s(1020), s(1100));
        assert!((0..40).all(|key| after.is_assigned_to(key, A, s(1021), IDLE)));
        // The two previous tables have their own entries of a key; a touch removes both.
        (0..40).for_each(|key| _ = after.touch(key, B, s(1021), IDLE));
        assert_eq!(active_keys(&after, A, s(1021), IDLE), 0);
        assert_eq!(active_keys(&after, B, s(1021), IDLE), 40);
    }

    #[test]
    fn affinity_restore_prefers_the_later_entry() {
        let (early, late) = (AffinityTable::new(100), AffinityTable::new(100));
        early.touch(7, A, s(10), IDLE);
        late.touch(7, B, s(15), IDLE);
        let exported = |table: &AffinityTable| {
            let keys = table.export(|_| Some(IDLE), s(20), 100);
            keys.into_iter().map(|(_, key)| key).collect::<Vec<_>>()
        };
        for tables in [[(&early, A), (&late, B)], [(&late, B), (&early, A)]] {
            let after = AffinityTable::new(100);
            for (table, peer) in tables {
                after.restore(&exported(table), peer, s(1020), s(1100));
            }
            assert!(after.is_assigned_to(7, B, s(1021), IDLE));
        }
    }

    #[test]
    fn affinity_refresh_keeps_a_key_unless_another_peer_has_it() {
        let table = AffinityTable::new(100);
        table.touch(7, A, s(0), IDLE);
        table.refresh(7, A, s(50), IDLE);
        assert!(table.is_assigned_to(7, A, s(110), IDLE));
        table.touch(7, B, s(111), IDLE);
        table.refresh(7, A, s(112), IDLE);
        assert!(table.is_assigned_to(7, B, s(112), IDLE));
        table.refresh(8, A, s(112), IDLE);
        assert!(
            table.is_assigned_to(8, A, s(112), IDLE),
            "it had lost its entry"
        );
    }

    /// Touches each key; the number of active keys that were evicted.
    fn touch_all(
        table: &AffinityTable,
        keys: impl Iterator<Item = (u64, Duration)>,
        idle: Duration,
    ) -> usize {
        keys.filter(|(key, now)| table.touch(*key, A, *now, idle))
            .count()
    }

    #[test]
    fn affinity_table_holds_the_configured_number_of_keys() {
        let table = AffinityTable::new(65_536);
        let evicted = touch_all(&table, (0..65_536).map(|key| (key, s(1))), IDLE);
        // Of this many keys one or two are mistaken for another.
        assert!((65_530..=65_536).contains(&(active_keys(&table, A, s(1), IDLE) + evicted)));
        assert!(evicted < 65_536 / 100, "{evicted} evicted");
        assert_eq!(size_of_val(&*table.sets), 1 << 20);
    }

    #[test]
    fn affinity_table_over_capacity_evicts_and_reports_the_oldest() {
        let table = AffinityTable::new(1);
        let evicted = touch_all(&table, (0..1000).map(|key| (key, s(key))), s(5000));
        assert_eq!(
            (evicted, active_keys(&table, A, s(1000), s(5000))),
            (1000 - 16, 16)
        );
        assert!(table.is_assigned_to(999, A, s(1000), s(5000)));
        assert!(!table.is_assigned_to(0, A, s(1000), s(5000)));
    }

    #[test]
    fn affinity_table_evicts_idle_keys_first_without_reporting() {
        let table = AffinityTable::new(8);
        let evicted = touch_all(&table, (0..1000).map(|key| (key, s(61 * key))), IDLE);
        assert_eq!((evicted, active_keys(&table, A, s(61 * 999), IDLE)), (0, 1));
    }

    #[test]
    fn affinity_keys_of_a_draining_peer_only_decrease() {
        let table = AffinityTable::new(4096);
        let served = |key: u64, now| table.is_assigned_to(key, A, now, IDLE);
        (0..1000).for_each(|key| _ = table.touch(key, A, s(100), IDLE));
        let mut before = 1000;
        for second in 101..400 {
            let now = s(second);
            // Half of the sessions continue; as many new keys arrive, which go to other peers.
            for key in (0..2000).filter(|key| key % 2 == 0 || *key >= 1000) {
                if served(key, now) {
                    table.touch(key, A, now, IDLE);
                }
            }
            let count = active_keys(&table, A, now, IDLE);
            assert!(count <= before);
            before = count;
        }
        assert_eq!(before, 500);
    }

    #[test]
    fn affinity_table_keeps_touched_keys_across_threads() {
        let table = AffinityTable::new(4096);
        thread::scope(|scope| {
            for thread in 0..8 {
                let table = &table;
                scope.spawn(move || {
                    for round in 0..200 {
                        (0..400).for_each(|key| {
                            _ = table.touch(thread * 200 + key, A, s(round), IDLE);
                        });
                    }
                });
            }
        });
        let missing = (0..1800)
            .filter(|key| !table.is_assigned_to(*key, A, s(200), IDLE))
            .count();
        assert_eq!(missing, 0);
        // Concurrent inserts may leave a key in two entries; the one that is not found first gets old.
        assert!((1800..1900).contains(&active_keys(&table, A, s(200), IDLE)));
    }

    proptest! {
        #[test]
        fn affinity_table_equals_a_map_of_last_requests(
            requests in prop::collection::vec((0..300_u64, 0..3_u16, 0..3_u64), 1..2000),
            idle in 1..100_u64,
            began in 0..1_u64 << 32,
        ) {
            let table = AffinityTable::new(4096);
            let mut last = HashMap::new();
            let mut now = began;
            for (key, peer, pause) in requests {
                now += pause;
                table.touch(key, PeerEpoch(peer), s(now), s(idle));
                last.insert(key, (PeerEpoch(peer), now));
            }
            for peer in (0..3).map(PeerEpoch) {
                // Ages are exact to the unit of 0.27 s, so a margin of one second covers it.
                let within = |most| last.values().filter(move |(own, at)| *own == peer && now - at <= most);
                let count = active_keys(&table, peer, s(now), s(idle));
                prop_assert!((within(idle - 1).count()..=within(idle).count()).contains(&count));
                for (key, (own, at)) in &last {
                    if now - at != idle {
                        let is_assigned = *own == peer && now - at < idle;
                        prop_assert_eq!(table.is_assigned_to(*key, peer, s(now), s(idle)), is_assigned);
                    }
                }
            }
        }
    }
}
