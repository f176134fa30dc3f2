//! Finds the hot keys among an upstream's requests. A cold key costs five atomic loads from two cache lines;
//! no request waits for a lock (a sampled request tries it once).
//!
//! ```text
//!   every request ── find ──► published: 16 sets of 4 hot keys, one cache line each
//!        │                        ▲ once per tick
//!        └── one in 2^n ── try_lock ──► SpaceSaving (policy)
//! ```
//!
//! At more than 4,096 requests per second, only one request in 2, 4, 8 … is sampled, so counting costs at most
//! about 1 ms of CPU time per second. Sampling adds a relative error of about 3 % to a share of 2 %. A sample
//! that finds the lock taken is lost; [`HotKeyTracker::missed_samples`] counts it. Usually all keys lose the same
//! fraction of their samples, so shares stay right. At worst all lost samples are of one key, and its share is too
//! low by their fraction of all samples.
//!
//! Memory: 1 KiB, and 4.8 KiB for the counters at a threshold of 2 %. Of five hot keys of one set, the coldest is
//! not published: all its requests go to its owner. The probability of such a set is 0.3 % with 10 hot keys, and
//! 5 % with 17.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;

use crate::policy::hash_mix::mix;
use crate::policy::heavy_hitters::{HotKey, HotKeyThreshold, SpaceSaving, TICK};
use crate::policy::hot_key_spread::HotKeyHit;

const SETS: usize = 16;
/// A set fills one cache line.
const SLOTS_PER_SET: usize = 4;
/// The target number of samples per tick.
const SAMPLES_PER_TICK: u64 = 4096;
/// At least one request in 2^20 is sampled.
const MAX_SHIFT: u32 = 20;

/// The hot keys of one upstream.
#[derive(Debug)]
pub struct HotKeyTracker {
    published: [HotKeySet; SETS],
    /// n: one request in 2^n is sampled.
    sampling_shift: AtomicU32,
    /// Samples that found the lock taken.
    missed_samples: AtomicU64,
    sampler: Mutex<SamplerState>,
}

#[derive(Debug)]
struct SamplerState {
    counter: SpaceSaving,
    /// Requests in this tick, estimated from the samples.
    requests: u64,
    /// Samples in this tick since `sampling_shift` was raised.
    samples: u64,
    last_tick: Duration,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct HotKeySet([HotKeySlot; SLOTS_PER_SET]);

/// A published hot key. Its fields are written in separate steps, so a concurrent request may read an old
/// share, or the share of another key. That is harmless: a share only selects one of several peers, and each of
/// them may serve the request.
#[derive(Debug, Default)]
struct HotKeySlot {
    key: AtomicU64,
    /// In millionths; 0: the slot is free.
    share: AtomicU32,
    requests: AtomicU32,
}

impl HotKeyTracker {
    /// Creates a tracker that has no hot keys yet.
    pub fn new(threshold: HotKeyThreshold) -> Self {
        Self {
            published: std::array::from_fn(|_| HotKeySet::default()),
            sampling_shift: AtomicU32::new(0),
            missed_samples: AtomicU64::new(0),
            sampler: Mutex::new(SamplerState {
                counter: SpaceSaving::new(threshold),
                requests: 0,
                samples: 0,
                last_tick: Duration::ZERO,
            }),
        }
    }

    /// Returns the tracker for `threshold` that continues with the hot keys of `previous`: `previous` itself if
    /// its threshold is the same.
    pub fn carried_over(
        previous: &Arc<Self>,
        threshold: HotKeyThreshold,
        now: Duration,
    ) -> Arc<Self> {
        if previous.sampler.lock().counter.threshold() == threshold {
            return Arc::clone(previous);
        }
        let tracker = Self::new(threshold);
        tracker.restore(&previous.hot_keys(now), now);
        Arc::new(tracker)
    }

    /// Counts a request if it is sampled. Returns the data for the spread if its key is hot.
    #[inline]
    pub fn count_request(&self, key: u64, now: Duration) -> Option<HotKeyHit> {
        let hash = mix(key);
        if self.is_sampled(hash, now) {
            self.record_sample(key, now);
        }
        let slot = self.set_of(hash).find(key)?;
        Some(HotKeyHit {
            share: slot.share.load(Relaxed),
            sequence: slot.requests.fetch_add(1, Relaxed),
        })
    }

    /// The hot keys at `now`, the hottest first.
    pub fn hot_keys(&self, now: Duration) -> Vec<HotKey> {
        let mut state = self.sampler.lock();
        self.tick(&mut state, now);
        state.counter.hot_keys().to_vec()
    }

    /// Replaces the hot keys by those of another tracker.
    pub fn restore(&self, hot: &[HotKey], now: Duration) {
        let mut state = self.sampler.lock();
        state.counter.restore(hot, now);
        self.publish(&mut state);
    }

    /// The samples that were not counted because the lock was taken, since this tracker was created; a reload
    /// with another threshold creates a new one.
    pub fn missed_samples(&self) -> u64 {
        self.missed_samples.load(Relaxed)
    }

    fn set_of(&self, hash: u64) -> &HotKeySet {
        let [first, rest @ ..] = &self.published;
        match (hash >> 60) as usize {
            0 => first,
            n => rest.get(n - 1).unwrap_or(first),
        }
    }

    /// Decides whether to sample a request, by a hash of its key and the time in nanoseconds. While the time
    /// does not advance, either all requests of a key are sampled or none.
    #[inline]
    fn is_sampled(&self, hash: u64, now: Duration) -> bool {
        let mask = (1_u64 << (self.sampling_shift.load(Relaxed) & 63)) - 1;
        let time_bits = (now.as_secs() << 30) ^ u64::from(now.subsec_nanos());
        mask == 0 || mix(hash ^ time_bits) & mask == 0
    }

    #[cold]
    fn record_sample(&self, key: u64, now: Duration) {
        let Some(mut state) = self.sampler.try_lock() else {
            self.missed_samples.fetch_add(1, Relaxed);
            return;
        };
        let shift = self.sampling_shift.load(Relaxed);
        let requests = 1_u32 << shift;
        state.counter.record(key, requests);
        state.requests += u64::from(requests);
        state.samples += 1;
        // A sudden flood must not be sampled at the old rate until the next tick.
        if state.samples >= 2 * SAMPLES_PER_TICK && shift < MAX_SHIFT {
            state.samples = 0;
            self.sampling_shift.store(shift + 1, Relaxed);
        }
        self.tick(&mut state, now);
    }

    fn tick(&self, state: &mut SamplerState, now: Duration) {
        if !state.counter.tick(now) {
            return;
        }
        let ticks = now.saturating_sub(state.last_tick).as_secs() / TICK.as_secs();
        self.sampling_shift
            .store(sampling_shift_for(state.requests / ticks.max(1)), Relaxed);
        (state.requests, state.samples, state.last_tick) = (0, 0, now);
        self.publish(state);
    }

    fn publish(&self, state: &mut SamplerState) {
        let hot_keys = state.counter.hot_keys();
        for slot in self.published.iter().flat_map(|set| &set.0) {
            let key = slot.key.load(Relaxed);
            if hot_keys.iter().all(|hot| hot.key != key) {
                slot.share.store(0, Relaxed);
            }
        }
        // Before any `insert`: it compares shares to choose the key that loses its slot.
        for hot in hot_keys {
            if let Some(slot) = self.set_of(mix(hot.key)).find(hot.key) {
                slot.share.store(hot.share, Relaxed);
            }
        }
        for hot in hot_keys {
            self.set_of(mix(hot.key)).insert(*hot);
        }
    }
}

/// The least n such that one in 2^n of `requests` makes at most [`SAMPLES_PER_TICK`] samples; at most
/// [`MAX_SHIFT`].
fn sampling_shift_for(requests: u64) -> u32 {
    requests
        .div_ceil(SAMPLES_PER_TICK)
        .max(1)
        .next_power_of_two()
        .ilog2()
        .min(MAX_SHIFT)
}

impl HotKeySet {
    #[inline]
    fn find(&self, key: u64) -> Option<&HotKeySlot> {
        let mut slots = self.0.iter();
        slots.find(|slot| slot.key.load(Relaxed) == key && slot.share.load(Relaxed) != 0)
    }

    /// Publishes a hot key that has no slot: in a free slot, or in place of the set's coldest key if `hot` is hotter.
    /// Called with the lock held.
    fn insert(&self, hot: HotKey) {
        let coldest = self.0.iter().min_by_key(|slot| slot.share.load(Relaxed));
        if let (None, Some(slot)) = (self.find(hot.key), coldest)
            && slot.share.load(Relaxed) < hot.share
        {
            slot.key.store(hot.key, Relaxed);
            slot.share.store(hot.share, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use super::*;

    const HOT: u64 = 77;

    fn two_percent() -> HotKeyTracker {
        HotKeyTracker::new(HotKeyThreshold::new(20_000).unwrap())
    }

    /// Requests at `rate` per second, `hot_per_mille` of 1,000 with the key [`HOT`].
    fn run(keys: &HotKeyTracker, seconds: std::ops::Range<u64>, rate: u64, hot_per_mille: u64) {
        for request in seconds.start * rate..seconds.end * rate {
            let draw = mix(request);
            let key = if draw % 1000 < hot_per_mille {
                HOT
            } else {
                draw
            };
            keys.count_request(key, Duration::from_nanos(request * (1_000_000_000 / rate)));
        }
    }

    #[test]
    fn hot_key_is_published_and_a_cold_key_is_not() {
        let keys = two_percent();
        assert_eq!(keys.count_request(HOT, Duration::ZERO), None);
        run(&keys, 0..5, 1000, 300);
        let now = Duration::from_secs(5);
        let hit = keys.count_request(HOT, now).unwrap();
        assert!((270_000..330_000).contains(&hit.share), "{hit:?}");
        assert_eq!(
            keys.count_request(HOT, now).unwrap().sequence,
            hit.sequence + 1
        );
        assert_eq!(keys.count_request(1, now), None);
        assert_eq!(keys.hot_keys(now).len(), 1);
        run(&keys, 5..60, 1000, 0);
        let later = Duration::from_secs(60);
        assert_eq!(keys.count_request(HOT, later), None);
        assert!(keys.hot_keys(later).is_empty());
    }

    #[test]
    fn hot_key_sampling_on_a_busy_upstream_keeps_shares_accurate() {
        let keys = two_percent();
        run(&keys, 0..20, 50_000, 100);
        assert_eq!(keys.sampling_shift.load(Relaxed), 4);
        let share = keys.hot_keys(Duration::from_secs(20))[0].share;
        assert!((90_000..112_000).contains(&share), "{share}");
        run(&keys, 1000..1010, 100, 100);
        assert_eq!(keys.sampling_shift.load(Relaxed), 0);
    }

    #[test]
    fn hot_key_share_is_accurate_when_a_third_of_the_samples_is_lost_to_lock_contention() {
        let keys = two_percent();
        for request in 0..20_000_u64 {
            let draw = mix(request);
            let busy = mix(draw).is_multiple_of(3).then(|| keys.sampler.lock());
            let key = if draw % 1000 < 100 { HOT } else { draw };
            keys.count_request(key, Duration::from_millis(request));
            drop(busy);
        }
        assert!(
            (6_300..7_000).contains(&keys.missed_samples()),
            "{}",
            keys.missed_samples()
        );
        let share = keys.hot_keys(Duration::from_secs(20))[0].share;
        assert!((90_000..112_000).contains(&share), "{share}");
    }

    #[test]
    fn hot_key_share_is_consistent_across_threads() {
        let keys = two_percent();
        let clock = AtomicU64::new(0);
        let found = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..100_000 {
                        let request = clock.fetch_add(1, Relaxed);
                        let draw = mix(request);
                        let key = if draw % 1000 < 100 { HOT } else { draw };
                        let hit = keys.count_request(key, Duration::from_nanos(request * 12_345));
                        assert!(hit.is_none() || key == HOT);
                        found.fetch_or(hit.is_some(), Relaxed);
                        // A thread may be preempted while it holds the lock: without a yield, the others could
                        // finish all their requests before it goes on, and count none.
                        if request.is_multiple_of(64) {
                            thread::yield_now();
                        }
                    }
                });
            }
        });
        assert!(found.load(Relaxed));
        let share = keys.hot_keys(Duration::from_secs(10))[0].share;
        assert!(
            (85_000..115_000).contains(&share),
            "{share}, missed {}",
            keys.missed_samples()
        );
    }

    #[test]
    fn hot_key_sampling_follows_the_rate() {
        assert_eq!(
            [0, 1, 4096, 4097, 8192, 8193].map(sampling_shift_for),
            [0, 0, 0, 1, 1, 2]
        );
        assert_eq!(sampling_shift_for(u64::MAX), 20);
    }

    #[test]
    fn hot_key_replaces_the_coldest_of_a_full_set() {
        let of_one_set = (0..).filter(|key| mix(*key) >> 60 == 0);
        let shares = [60_000, 30_000, 50_000, 40_000, 500_000];
        let hot: Vec<_> = of_one_set
            .zip(shares)
            .map(|(key, share)| HotKey {
                key,
                share,
                since: Duration::ZERO,
            })
            .collect();
        let keys = two_percent();
        let now = Duration::ZERO;
        keys.restore(&hot[..4], now);
        keys.restore(&hot, now);
        let published = hot.iter().map(|hot| {
            let hit = keys.count_request(hot.key, now);
            hit.map(|hit| hit.share)
        });
        let expected = [
            Some(60_000),
            None,
            Some(50_000),
            Some(40_000),
            Some(500_000),
        ];
        assert_eq!(published.collect::<Vec<_>>(), expected);
    }
}
