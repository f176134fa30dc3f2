//! Heavy hitters: the keys with more than a share of an upstream's requests (*hot keys*).
//!
//! Space-Saving (Metwally, Agrawal and El Abbadi, ICDT 2005): a fixed number of counters; a new key takes
//! over the smallest counter with its count, which is recorded as the possible error of that key. Unlike a
//! count-min sketch it holds the keys themselves, to be listed, and bounds a count from both sides, so no
//! key is hot by mistake. Every tick scales all counts, errors and the total alike: old requests count
//! less, and the bounds still hold.
//!
//! With `4 / share` counters of 24 bytes (200 for 2 %, 4.8 KiB) the error of a count is at most a quarter
//! of the share, so by the lower bound
//! * a key above 1.25 × the share becomes hot, and none below the share does;
//! * a hot key stays hot above 0.75 × the share, is cold below half of it, and keeps its counter meanwhile;
//! * at most 64 keys are hot at the same time, the hottest first.
//!
//! These bounds are for the recorded requests; a caller that records only a sample adds the sampling error.

use std::time::Duration;

/// The time after which a request counts half.
pub(crate) const HALF_LIFE: Duration = Duration::from_secs(10);
/// The interval at which counts are scaled and hot keys are determined.
pub(crate) const TICK: Duration = Duration::from_secs(1);
/// The most keys that are hot at the same time.
pub(crate) const MAX_HOT_KEYS: usize = 64;
/// The least count, in requests weighted by age, at which a key becomes hot: a few requests are no evidence.
pub(crate) const MIN_REQUESTS: u64 = 32;

/// The unit of shares: 1,000,000 is all requests.
pub(crate) const MILLIONTHS: u32 = 1_000_000;

const TICKS_PER_HALF_LIFE: u64 = HALF_LIFE.as_secs() / TICK.as_secs();
/// 2^(-1/10), in 65,536ths.
const DECAY_PER_TICK: u128 = 61_147;
/// What one request adds to a count; large enough that rounding in [`decayed`] does not matter.
const COUNT_PER_REQUEST: u64 = 1 << 16;
/// The total, in requests, at which restored hot keys start.
const RESTORED_REQUESTS: u64 = 10_000;
/// Counters for each key that could reach the threshold; the error is at most a fourth of the threshold.
const COUNTERS_PER_SHARE: u32 = 4;

/// The share from which a key is hot, in millionths: 0.5 % ..= 50 %.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HotKeyThreshold(u32);

impl HotKeyThreshold {
    /// 2 %.
    pub const DEFAULT: Self = Self(20_000);

    /// Creates a threshold from millionths; `None` outside 5,000 ..= 500,000.
    pub fn new(millionths: u32) -> Option<Self> {
        (5_000..=500_000)
            .contains(&millionths)
            .then_some(Self(millionths))
    }

    /// The share in millionths.
    pub const fn millionths(self) -> u32 {
        self.0
    }

    /// Whether a hot key with this share stays hot.
    const fn keeps_hot(self, share: u32) -> bool {
        share >= self.0 / 2
    }

    /// The number of counters that bounds the error to a fourth of the threshold.
    const fn counters(self) -> usize {
        (COUNTERS_PER_SHARE * MILLIONTHS).div_ceil(self.0) as usize
    }
}

/// A hot key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HotKey {
    /// The key's hash.
    pub key: u64,
    /// Its share of the requests for the spread, in millionths. Rises at once and falls only when the measured
    /// share is down by a quarter, so that the spread does not change at every tick.
    pub share: u32,
    /// When it became hot.
    pub since: Duration,
}

/// The counters of one upstream's keys. To record a request costs one scan of the counters, two for a key
/// without one: too much for every request of a busy upstream, so the caller samples.
#[derive(Clone, Debug)]
pub(crate) struct SpaceSaving {
    threshold: HotKeyThreshold,
    // Three arrays of the same length, not one of structs: a search reads only one of them.
    keys: Box<[u64]>,
    counts: Box<[u64]>,
    errors: Box<[u64]>,
    total: u64,
    /// The time of the last decay, in ticks on the monotonic clock.
    ticks_elapsed: u64,
    hot_keys: Vec<HotKey>,
}

impl SpaceSaving {
    /// Without requests.
    pub(crate) fn new(threshold: HotKeyThreshold) -> Self {
        let row = || vec![0; threshold.counters()].into_boxed_slice();
        Self {
            threshold,
            keys: row(),
            counts: row(),
            errors: row(),
            total: 0,
            ticks_elapsed: 0,
            hot_keys: Vec::with_capacity(MAX_HOT_KEYS),
        }
    }

    /// Records a sampled request that represents this many `requests`.
    pub(crate) fn record(&mut self, key: u64, requests: u32) {
        let add = COUNT_PER_REQUEST.saturating_mul(requests.into());
        self.total = self.total.saturating_add(add);
        let index = self.position(key).or_else(|| self.replace_smallest(key));
        if let Some(count) = index.and_then(|index| self.counts.get_mut(index)) {
            *count = count.saturating_add(add);
        }
    }

    /// Advances the time to `now`. If a tick has passed, decays the counts, determines the hot keys and
    /// returns true.
    pub(crate) fn tick(&mut self, now: Duration) -> bool {
        let ticks = now.as_secs() / TICK.as_secs();
        let passed = ticks.saturating_sub(self.ticks_elapsed);
        if passed == 0 {
            return false;
        }
        self.ticks_elapsed = ticks;
        self.decay(passed);
        self.update_hot_keys(now);
        true
    }

    /// The threshold.
    pub(crate) const fn threshold(&self) -> HotKeyThreshold {
        self.threshold
    }

    /// Replaces all counts by hot keys of another sketch. Their counts are shares of [`RESTORED_REQUESTS`]: few
    /// enough that the requests to come soon outweigh them.
    pub(crate) fn restore(&mut self, hot: &[HotKey], now: Duration) {
        *self = Self::new(self.threshold);
        self.ticks_elapsed = now.as_secs() / TICK.as_secs();
        let stay = |hot: &&HotKey| self.threshold.keeps_hot(hot.share);
        let hot: Vec<HotKey> = hot
            .iter()
            .filter(stay)
            .take(MAX_HOT_KEYS)
            .copied()
            .collect();
        if hot.is_empty() {
            return;
        }
        self.total = RESTORED_REQUESTS * COUNT_PER_REQUEST;
        let rows = self.keys.iter_mut().zip(&mut self.counts);
        for ((key, count), hot) in rows.zip(&hot) {
            *key = hot.key;
            *count = self.total / u64::from(MILLIONTHS) * u64::from(hot.share);
        }
        self.hot_keys = hot;
    }

    /// The hot keys as of the last tick.
    pub(crate) fn hot_keys(&self) -> &[HotKey] {
        &self.hot_keys
    }

    /// The lower and the upper bound of the key's share, in millionths.
    pub(crate) fn share_bounds(&self, key: u64) -> (u32, u32) {
        let index = self.position(key);
        let count =
            index.and_then(|index| Some((*self.counts.get(index)?, *self.errors.get(index)?)));
        match count {
            Some((count, error)) => (
                self.share_of(count.saturating_sub(error)),
                self.share_of(count),
            ),
            None => (
                0,
                self.share_of(self.counts.iter().copied().min().unwrap_or(0)),
            ),
        }
    }

    fn position(&self, key: u64) -> Option<usize> {
        // An unused counter has the key 0 and the count 0, which is right for the key 0.
        self.keys.iter().position(|other| *other == key)
    }

    /// Gives the smallest counter to `key`; its index.
    fn replace_smallest(&mut self, key: u64) -> Option<usize> {
        let (index, count) = self
            .counts
            .iter()
            .copied()
            .enumerate()
            .min_by_key(|(_, count)| *count)?;
        *self.keys.get_mut(index)? = key;
        *self.errors.get_mut(index)? = count;
        Some(index)
    }

    fn decay(&mut self, ticks: u64) {
        let decay = |count: &mut u64| *count = decayed(*count, ticks);
        self.counts.iter_mut().for_each(decay);
        self.errors.iter_mut().for_each(decay);
        self.total = decayed(self.total, ticks);
    }

    fn update_hot_keys(&mut self, now: Duration) {
        let mut hot = std::mem::take(&mut self.hot_keys);
        hot.retain_mut(|hot| self.is_still_hot(hot));
        let rows = self.keys.iter().zip(&self.counts).zip(&self.errors);
        for ((&key, &count), &error) in rows {
            let least = count.saturating_sub(error);
            let share = self.share_of(least);
            let is_hot = share >= self.threshold.0 && least >= MIN_REQUESTS * COUNT_PER_REQUEST;
            if is_hot && hot.iter().all(|other| other.key != key) {
                hot.push(HotKey {
                    key,
                    share,
                    since: now,
                });
            }
        }
        hot.sort_unstable_by_key(|hot| std::cmp::Reverse(hot.share));
        hot.truncate(MAX_HOT_KEYS);
        self.hot_keys = hot;
    }

    /// Whether a hot key is still hot; updates its share.
    fn is_still_hot(&self, hot: &mut HotKey) -> bool {
        let (least, _) = self.share_bounds(hot.key);
        if least > hot.share || least < hot.share / 4 * 3 {
            hot.share = least;
        }
        self.threshold.keeps_hot(least)
    }

    fn share_of(&self, count: u64) -> u32 {
        let part = u128::from(count) * u128::from(MILLIONTHS) / u128::from(self.total.max(1));
        u32::try_from(part).unwrap_or(MILLIONTHS).min(MILLIONTHS)
    }
}

/// A count after `ticks`.
fn decayed(count: u64, ticks: u64) -> u64 {
    let halvings = u32::try_from(ticks / TICKS_PER_HALF_LIFE).unwrap_or(u32::MAX);
    let halved = u128::from(count.checked_shr(halvings).unwrap_or(0));
    let decayed =
        (0..ticks % TICKS_PER_HALF_LIFE).fold(halved, |count, _| (count * DECAY_PER_TICK) >> 16);
    u64::try_from(decayed).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::policy::hash_mix::mix;

    const TWO_PERCENT: HotKeyThreshold = HotKeyThreshold(20_000);

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A second of traffic, 1,000 requests: `of_hot` are for the key 1, the others for `others` keys.
    fn second(sketch: &mut SpaceSaving, at: u64, of_hot: u64, others: u64) -> bool {
        for request in 0..1000 {
            let draw = mix(at * 1000 + request);
            let key = if draw % 1000 < of_hot {
                1
            } else {
                2 + (draw >> 32) % others
            };
            sketch.record(key, 1);
        }
        sketch.tick(s(at + 1))
    }

    fn keys(sketch: &SpaceSaving) -> Vec<u64> {
        sketch.hot_keys().iter().map(|hot| hot.key).collect()
    }

    #[test]
    fn heavy_hitter_is_found_among_many_keys() {
        let mut sketch = SpaceSaving::new(TWO_PERCENT);
        for at in 0..30 {
            assert!(second(&mut sketch, at, 300, 100_000));
            assert_eq!(keys(&sketch), [1], "second {at}");
        }
        let hot = sketch.hot_keys()[0];
        assert_eq!(hot.since, s(1));
        assert!((290_000..=330_000).contains(&hot.share), "{}", hot.share);
    }

    #[test]
    fn heavy_hitter_stays_hot_until_half_the_threshold() {
        let mut sketch = SpaceSaving::new(TWO_PERCENT);
        for at in 0..60 {
            second(&mut sketch, at, 40, 50_000);
        }
        assert_eq!(keys(&sketch), [1]);
        for at in 60..160 {
            second(&mut sketch, at, 14, 50_000);
            assert_eq!(keys(&sketch), [1], "second {at}");
        }
        for at in 160..220 {
            second(&mut sketch, at, 4, 50_000);
        }
        assert_eq!(keys(&sketch), [0; 0]);
        for at in 220..320 {
            second(&mut sketch, at, 14, 50_000);
            assert_eq!(keys(&sketch), [0; 0], "second {at}");
        }
    }

    #[test]
    fn imported_heavy_hitter_stays_hot_until_its_traffic_ends() {
        let mut sketch = SpaceSaving::new(TWO_PERCENT);
        let restored = HotKey {
            key: 1,
            share: 300_000,
            since: s(90),
        };
        sketch.restore(&[restored], s(100));
        assert_eq!(sketch.hot_keys(), [restored]);
        for at in 100..110 {
            second(&mut sketch, at, 300, 50_000);
            assert_eq!(keys(&sketch), [1], "second {at}");
        }
        for at in 110..200 {
            second(&mut sketch, at, 0, 50_000);
        }
        assert_eq!(keys(&sketch), [0; 0]);
    }

    #[test]
    fn imported_heavy_hitters_replace_local_ones() {
        let hot = |key, share| HotKey {
            key,
            share,
            since: s(90),
        };
        let mut sketch = SpaceSaving::new(HotKeyThreshold(100_000));
        sketch.restore(&[hot(1, 300_000), hot(2, 200_000)], s(100));
        sketch.restore(&[hot(2, 250_000), hot(3, 40_000)], s(100));
        assert_eq!(keys(&sketch), [2], "the third is below half of the share");
        sketch.tick(s(101));
        assert_eq!(keys(&sketch), [2]);
        sketch.restore(&[], s(101));
        (0..100).for_each(|_| sketch.record(7, 1));
        sketch.tick(s(102));
        assert_eq!(keys(&sketch), [7], "nothing else counts");
    }

    #[test]
    fn heavy_hitter_needs_a_minimum_of_requests() {
        let mut sketch = SpaceSaving::new(TWO_PERCENT);
        (0..MIN_REQUESTS).for_each(|_| sketch.record(7, 1));
        assert!(sketch.tick(s(1)));
        assert_eq!(keys(&sketch), [0; 0]);
        sketch.record(7, 10);
        assert!(sketch.tick(s(2)));
        assert_eq!(keys(&sketch), [7]);
    }

    #[test]
    fn heavy_hitter_counts_decay_to_zero() {
        let mut sketch = SpaceSaving::new(TWO_PERCENT);
        sketch.record(7, 1_000_000);
        sketch.tick(s(1));
        sketch.tick(s(100_000));
        assert_eq!((sketch.total, sketch.hot_keys().len()), (0, 0));
        assert!(!sketch.tick(s(99_999)), "time does not run backwards");
    }

    #[test]
    fn heavy_hitter_share_has_hysteresis() {
        let mut sketch = SpaceSaving::new(TWO_PERCENT);
        let mut shares = Vec::new();
        for at in 0..200 {
            second(
                &mut sketch,
                at,
                if at / 20 % 2 == 0 { 100 } else { 90 },
                50_000,
            );
            shares.push(sketch.hot_keys()[0].share);
        }
        shares.drain(..50);
        shares.dedup();
        assert!(shares.len() < 6, "{shares:?}");
    }

    #[test]
    fn heavy_hitter_counts_halve_per_half_life() {
        assert_eq!(decayed(1 << 40, 10), 1 << 39);
        let ten = (0..10).fold(1_u64 << 40, |count, _| decayed(count, 1));
        assert!(ten.abs_diff(1 << 39) < 1 << 26);
        assert_eq!(decayed(u64::MAX, u64::MAX), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn heavy_hitter_error_bounds_hold(
            seed: u64, keys in 1..3000_u64, skew in 0..6_u32, millionths in 5_000..=500_000_u32,
        ) {
            let mut sketch = SpaceSaving::new(HotKeyThreshold(millionths));
            let mut exact: HashMap<u64, f64> = HashMap::new();
            for request in 0..20_000_u64 {
                let draw = mix(seed ^ request);
                let key = draw % (keys >> (draw >> 60).min(skew.into())).max(1);
                sketch.record(key, 1);
                *exact.entry(key).or_default() += 1.0;
                if request % 1000 == 999 && sketch.tick(s(request / 1000 + 1)) {
                    for count in exact.values_mut() {
                        *count *= 2_f64.powf(-0.1);
                    }
                }
            }
            let total: f64 = exact.values().sum();
            for (key, count) in exact {
                let (least, most) = sketch.share_bounds(key);
                let share = count / total * f64::from(MILLIONTHS);
                prop_assert!(f64::from(least) <= share + 3.0 && share <= f64::from(most) + 3.0);
                prop_assert!(most - least <= millionths / COUNTERS_PER_SHARE + 3);
            }
        }
    }
}
