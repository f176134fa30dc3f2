//! The hot keys of an upstream, as its requests see them: two loads for a cold key, no lock.
//!
//! ```text
//!   every request ── find ──► published: 16 sets of 4 hot keys, one cache line each
//!        │                        ▲ once a tick
//!        └── one in 2^n ── try_lock ──► Sketch (policy)
//! ```
//!
//! The sketch is behind a lock that is only tried. A request that finds it taken is not counted, but the
//! fact is ([`HotKeys::missed`]); who holds the lock has nothing to do with the key, so shares stay true. At worst,
//! if all the missed ones were of one key, its share would be off by the missed part of the sampled.
//! Above 4,096 requests a second one in 2, 4, 8 … is sampled, so that the cost of counting is bounded per
//! second: some 1 ms of one core. The error of a share from sampling is then about 3 % of it at 2 %.
//! What is sampled depends on the time in nanoseconds and the key; a clock that stands still samples nothing or
//! everything.
//!
//! Memory: 1 KiB, and the sketch's 4.8 KiB at 2 %. A fifth hot
//! key of one set is not published and stays whole on its owner: for ten hot keys the odds are 1 in 20,
//! and the coldest of the five is left out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;

use crate::policy::hash_mix::mix;
use crate::policy::heavy_hitters::{HotKey, HotKeyThreshold, SpaceSaving, TICK};

const SETS: usize = 16;
const WAYS: usize = 4;
/// Requests that are counted in a tick, about.
const SAMPLES_PER_TICK: u64 = 4096;

/// What a request of a hot key is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HotKeyHit {
    /// The key's share of the requests, in millionths.
    pub share: u32,
    /// The number of this request among the key's, modulo 2^32, from anywhere.
    pub turn: u32,
}

/// The hot keys of one upstream.
#[derive(Debug)]
pub struct HotKeyTracker {
    published: [HotKeySet; SETS],
    /// One request in 2^n is counted.
    sampling_shift: AtomicU32,
    /// Requests that were to be counted and were not.
    missed_samples: AtomicU64,
    sampler: Mutex<SamplerState>,
}

#[derive(Debug)]
struct SamplerState {
    sketch: SpaceSaving,
    /// Requests in this tick, as the samples have it.
    requests: u64,
    /// Samples in this tick since the sampling last changed.
    samples: u64,
    last_tick: Duration,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct HotKeySet([HotKeySlot; WAYS]);

/// A hot key. Its words change one by one; a request that reads while they do may be told of the
/// share before, or of another key's. Shares only choose among peers that all may serve.
#[derive(Debug, Default)]
struct HotKeySlot {
    key: AtomicU64,
    /// In millionths; 0: nobody's.
    share: AtomicU32,
    turns: AtomicU32,
}

impl HotKeyTracker {
    /// No key is hot yet.
    pub fn new(threshold: HotKeyThreshold) -> Self {
        Self {
            published: std::array::from_fn(|_| HotKeySet::default()),
            sampling_shift: AtomicU32::new(0),
            missed_samples: AtomicU64::new(0),
            sampler: Mutex::new(SamplerState {
                sketch: SpaceSaving::new(threshold),
                requests: 0,
                samples: 0,
                last_tick: Duration::ZERO,
            }),
        }
    }

    /// Those of this share that go on with what is hot in `before`: the same, if it is the same share.
    pub fn carried_over(
        before: &Arc<Self>,
        threshold: HotKeyThreshold,
        now: Duration,
    ) -> Arc<Self> {
        if before.sampler.lock().sketch.threshold() == threshold {
            return Arc::clone(before);
        }
        let after = Self::new(threshold);
        after.restore(&before.hot_keys(now), now);
        Arc::new(after)
    }

    /// Counts a request; with what it must know if its key is hot.
    #[inline]
    pub fn observe(&self, key: u64, now: Duration) -> Option<HotKeyHit> {
        let hash = mix(key);
        if self.is_sampled(hash, now) {
            self.record_sample(key, now);
        }
        let slot = self.set_of(hash).find(key)?;
        Some(HotKeyHit {
            share: slot.share.load(Relaxed),
            turn: slot.turns.fetch_add(1, Relaxed),
        })
    }

    /// The hot keys at `now`, the hottest first.
    pub fn hot_keys(&self, now: Duration) -> Vec<HotKey> {
        let mut ledger = self.sampler.lock();
        self.tick(&mut ledger, now);
        ledger.sketch.hot_keys().to_vec()
    }

    /// Takes over the keys that were hot elsewhere, in the place of its own.
    pub fn restore(&self, hot: &[HotKey], now: Duration) {
        let mut ledger = self.sampler.lock();
        ledger.sketch.restore(hot, now);
        self.publish(&mut ledger);
    }

    /// Requests that were to be counted and were not, since the process started.
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

    #[inline]
    fn is_sampled(&self, hash: u64, now: Duration) -> bool {
        let mask = (1_u64 << (self.sampling_shift.load(Relaxed) & 63)) - 1;
        let moment = (now.as_secs() << 30) ^ u64::from(now.subsec_nanos());
        mask == 0 || mix(hash ^ moment) & mask == 0
    }

    #[cold]
    fn record_sample(&self, key: u64, now: Duration) {
        let Some(mut ledger) = self.sampler.try_lock() else {
            self.missed_samples.fetch_add(1, Relaxed);
            return;
        };
        let sampling = self.sampling_shift.load(Relaxed);
        let requests = 1_u32 << sampling;
        ledger.sketch.record(key, requests);
        ledger.requests += u64::from(requests);
        ledger.samples += 1;
        // A flood must not wait for the tick.
        if ledger.samples >= 2 * SAMPLES_PER_TICK && sampling < 20 {
            ledger.samples = 0;
            self.sampling_shift.store(sampling + 1, Relaxed);
        }
        self.tick(&mut ledger, now);
    }

    fn tick(&self, ledger: &mut SamplerState, now: Duration) {
        if !ledger.sketch.tick(now) {
            return;
        }
        let ticks = now.saturating_sub(ledger.last_tick).as_secs() / TICK.as_secs();
        self.sampling_shift
            .store(sampling_shift_for(ledger.requests / ticks.max(1)), Relaxed);
        (ledger.requests, ledger.samples, ledger.last_tick) = (0, 0, now);
        self.publish(ledger);
    }

    fn publish(&self, ledger: &mut SamplerState) {
        let hot = ledger.sketch.hot_keys();
        for slot in self.published.iter().flat_map(|set| &set.0) {
            let key = slot.key.load(Relaxed);
            if hot.iter().all(|hot| hot.key != key) {
                slot.share.store(0, Relaxed);
            }
        }
        for hot in hot {
            self.set_of(mix(hot.key)).store(*hot);
        }
    }
}

/// The n that makes 2^-n of so many requests at most [`SAMPLES`].
fn sampling_shift_for(requests: u64) -> u32 {
    requests
        .div_ceil(SAMPLES_PER_TICK)
        .max(1)
        .next_power_of_two()
        .ilog2()
        .min(20)
}

impl HotKeySet {
    #[inline]
    fn find(&self, key: u64) -> Option<&HotKeySlot> {
        let mut slots = self.0.iter();
        slots.find(|slot| slot.key.load(Relaxed) == key && slot.share.load(Relaxed) != 0)
    }

    /// Keeps a hot key where it is, or gives it a free slot. Only one thread does, under the lock.
    fn store(&self, hot: HotKey) {
        let vacant = || self.0.iter().find(|slot| slot.share.load(Relaxed) == 0);
        if let Some(slot) = self.find(hot.key) {
            slot.share.store(hot.share, Relaxed);
        } else if let Some(slot) = vacant() {
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

    /// Requests at `rate` a second, `of_hot` in a thousand of them of key [`HOT`].
    fn run(keys: &HotKeyTracker, seconds: std::ops::Range<u64>, rate: u64, of_hot: u64) {
        for request in seconds.start * rate..seconds.end * rate {
            let draw = mix(request);
            let key = if draw % 1000 < of_hot { HOT } else { draw };
            keys.observe(key, Duration::from_nanos(request * (1_000_000_000 / rate)));
        }
    }

    #[test]
    fn hot_key_is_published_and_a_cold_key_is_not() {
        let keys = two_percent();
        assert_eq!(keys.observe(HOT, Duration::ZERO), None);
        run(&keys, 0..5, 1000, 300);
        let now = Duration::from_secs(5);
        let heat = keys.observe(HOT, now).unwrap();
        assert!((270_000..330_000).contains(&heat.share), "{heat:?}");
        assert_eq!(keys.observe(HOT, now).unwrap().turn, heat.turn + 1);
        assert_eq!(keys.observe(1, now), None);
        assert_eq!(keys.hot_keys(now).len(), 1);
        run(&keys, 5..60, 1000, 0);
        let later = Duration::from_secs(60);
        assert_eq!(keys.observe(HOT, later), None);
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
    fn hot_key_requests_skipped_on_lock_contention_are_counted_evenly() {
        let keys = two_percent();
        for request in 0..20_000_u64 {
            let draw = mix(request);
            let busy = mix(draw).is_multiple_of(3).then(|| keys.sampler.lock());
            let key = if draw % 1000 < 100 { HOT } else { draw };
            keys.observe(key, Duration::from_millis(request));
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
                        let heat = keys.observe(key, Duration::from_nanos(request * 12_345));
                        assert!(heat.is_none() || key == HOT);
                        found.fetch_or(heat.is_some(), Relaxed);
                        // One that is stopped while it counts must come to its end: the others would be
                        // through with all of theirs, uncounted, in no time.
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
}
