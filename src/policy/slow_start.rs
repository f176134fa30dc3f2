//! Slow start: a peer that is new, or comes back, takes its keys one after the other over a time window.
//!
//! Each key has a position in the order in which a peer admits its keys: a second hash of key and peer, as
//! a fraction of 2^64. At `now` the peer admits the keys with a position below `(now - start) / duration`;
//! the others go to the next peer clockwise. So the only state is the window, and every process gets the same result.
//!
//! Invariants:
//! * an admitted key stays admitted: the fraction only rises;
//! * the orders of two peers are independent of each other and of the ring, so every peer admits the same
//!   fraction of its keys;
//! * the comparison is exact: no rounding, no overflow.
//!
//! If the next peer of the walk is in a slow start too, its own window decides. With `n` such peers at the
//! head of its walk a key moves at most `n` times, always towards its owner; once if only the owner is in a
//! slow start.

use std::time::Duration;

use super::hash_mix::mix;

/// The window in which one peer goes from no keys to all of its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowStartWindow {
    /// When the peer came back, on the monotonic clock.
    pub start: Duration,
    /// The time until it admits all its keys; zero: at once.
    pub duration: Duration,
}

/// The input of the second hash that makes the order of each peer its own. Derived from its label, so equal
/// in every process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Salt(u64);

impl Salt {
    /// The salt of a label: FNV-1a of its bytes, mixed.
    pub fn of(label: &str) -> Self {
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Self(mix(label.bytes().fold(0xcbf2_9ce4_8422_2325, step)))
    }
}

impl SlowStartWindow {
    /// The window of a peer that comes back at `start`. All peers were equally cold at `cold_start`, so the
    /// others are warmer than this one by no more than the time since then: the window is no longer than
    /// that.
    pub fn new(start: Duration, duration: Duration, cold_start: Duration) -> Self {
        let duration = duration.min(start.saturating_sub(cold_start));
        Self { start, duration }
    }

    /// The window after all peers, this one included, are found equally cold at `now`: `None` if it has begun.
    #[must_use]
    pub fn restarted_cold(self, now: Duration) -> Option<Self> {
        (now < self.start).then(|| Self::new(self.start, self.duration, now))
    }

    /// The window of another duration that has come as far at `now`, so that admitted keys stay admitted.
    #[must_use]
    pub fn rescaled(self, duration: Duration, now: Duration) -> Self {
        let (old, new) = (
            u128::from(nanos(self.duration)),
            u128::from(nanos(duration)),
        );
        let elapsed = u128::from(nanos(self.elapsed(now))).min(old) * new;
        // Rounded up: an admitted key must stay admitted.
        let elapsed = u64::try_from(elapsed.div_ceil(old.max(1))).unwrap_or(u64::MAX);
        let start = now
            .max(self.start)
            .saturating_sub(Duration::from_nanos(elapsed));
        Self { start, duration }
    }

    /// Whether the window is over: the peer takes every key.
    #[inline]
    pub fn is_complete(&self, now: Duration) -> bool {
        self.elapsed(now) >= self.duration
    }

    /// Whether the peer admits a key at `now`. `key` is the key's hash, of any quality.
    #[inline]
    pub fn admits(&self, key: u64, salt: Salt, now: Duration) -> bool {
        let position = u128::from(mix(key ^ salt.0));
        let (elapsed, duration) = (nanos(self.elapsed(now)), nanos(self.duration));
        // position / 2^64 < elapsed / duration
        elapsed >= duration || position * u128::from(duration) < u128::from(elapsed) << 64
    }

    /// The fraction of its keys that the peer admits, 0.0 ..= 1.0.
    pub fn fraction(&self, now: Duration) -> f64 {
        if self.is_complete(now) {
            1.0
        } else {
            self.elapsed(now).div_duration_f64(self.duration)
        }
    }

    /// That fraction of a whole number, rounded down.
    pub fn scale(&self, whole: u32, now: Duration) -> u32 {
        let (elapsed, duration) = (nanos(self.elapsed(now)), nanos(self.duration));
        let scaled = u128::from(whole) * u128::from(elapsed) / u128::from(duration.max(1));
        u32::try_from(scaled).map_or(whole, |scaled| scaled.min(whole))
    }

    /// The time since the start; zero before it.
    pub fn elapsed(&self, now: Duration) -> Duration {
        now.saturating_sub(self.start)
    }
}

/// The first peer of a walk that admits a key; each peer comes with its window, `None` if it is in no slow
/// start and admits every key.
///
/// If every peer is in a slow start, all are equally cold, and less load on one would be more on another: the
/// owner serves, and the second value is true. The caller should then end these slow starts, or the keys
/// would move again when the first is complete.
pub(crate) fn first_admitting_peer<T: Copy>(
    key: u64,
    now: Duration,
    walk: impl IntoIterator<Item = (T, Option<(SlowStartWindow, Salt)>)>,
) -> Option<(T, bool)> {
    let mut owner = None;
    let mut first = None;
    for (peer, window) in walk {
        owner = owner.or(Some(peer));
        let Some((window, salt)) = window.filter(|(window, _)| !window.is_complete(now)) else {
            return Some((first.unwrap_or(peer), false));
        };
        if first.is_none() && window.admits(key, salt, now) {
            first = Some(peer);
        }
    }
    owner.map(|peer| (peer, true))
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ring::{Dialect, MemberId, Ring, Weight};

    const MINUTE: Duration = Duration::from_secs(60);

    fn window(start: u64, duration: u64) -> SlowStartWindow {
        SlowStartWindow {
            start: Duration::from_secs(start),
            duration: Duration::from_secs(duration),
        }
    }

    fn labels(peers: usize) -> Vec<String> {
        (0..peers).map(|peer| format!("10.0.0.{peer}:80")).collect()
    }

    fn ring(labels: &[String]) -> Ring {
        let members = labels.iter().map(|label| (label.as_str(), Weight::ONE));
        Ring::new(Dialect::default(), members).unwrap()
    }

    #[test]
    fn slow_start_admits_no_key_before_and_every_key_after() {
        let (window, salt) = (window(100, 60), Salt::of("a:80"));
        let at = |second| {
            (0..1000)
                .filter(|key| window.admits(*key, salt, Duration::from_secs(second)))
                .count()
        };
        assert_eq!(
            (at(0), at(100), at(160), at(u64::MAX / 2)),
            (0, 0, 1000, 1000)
        );
        assert!(
            !window.is_complete(Duration::from_secs(159))
                && window.is_complete(Duration::from_secs(160))
        );
    }

    #[test]
    fn slow_start_without_length_is_over_at_once() {
        let window = window(5, 0);
        assert!(
            window.is_complete(Duration::ZERO) && window.admits(1, Salt::of("a"), Duration::ZERO)
        );
        assert!((window.fraction(Duration::ZERO) - 1.0).abs() < f64::EPSILON);
        assert_eq!(window.scale(64, Duration::from_secs(6)), 64);
    }

    #[test]
    fn slow_start_share_is_within_one_percent_of_linear() {
        const KEYS: u32 = 1_000_000;
        let labels = labels(10);
        let ring = ring(&labels);
        let back = MemberId(3);
        let (window, salt) = (window(1000, 60), Salt::of(&labels[3]));
        let owned: Vec<u64> = (0..KEYS)
            .map(|key| ring.key(&key.to_le_bytes()))
            .filter(|key| ring.owner(key) == Some(back))
            .map(|key| key.hash().0)
            .collect();
        let all = owned.len();
        for percent in 0..=100_u8 {
            let now = window.start + MINUTE * u32::from(percent) / 100;
            let admitted = owned
                .iter()
                .filter(|key| window.admits(**key, salt, now))
                .count();
            let expected = all * usize::from(percent);
            assert!(
                (admitted * 100).abs_diff(expected) < all,
                "{percent} %: {admitted} of {all}"
            );
            assert!((window.fraction(now) - f64::from(percent) / 100.0).abs() < 1e-9);
            assert_eq!(window.scale(100, now), u32::from(percent));
        }
    }

    #[test]
    fn slow_start_is_no_longer_than_the_uptime_of_the_other_peers() {
        let after = |seconds: u64| {
            let cold = Duration::from_secs(1000);
            let start = Duration::from_secs(1000 + seconds);
            SlowStartWindow::new(start, MINUTE, cold).duration.as_secs()
        };
        assert_eq!([0, 5, 60, 600].map(after), [0, 5, 60, 60]);
        let later = window(100, 60);
        assert_eq!(
            later.restarted_cold(Duration::from_secs(90)),
            Some(window(100, 10))
        );
        assert_eq!(later.restarted_cold(Duration::from_secs(100)), None);
    }

    #[test]
    fn two_slow_starts_take_equal_shares_of_each_others_keys() {
        let (a, b) = (Salt::of("a:80"), Salt::of("b:80"));
        let window = window(0, 100);
        let now = Duration::from_secs(30);
        let both = (0..100_000_u64)
            .filter(|key| window.admits(*key, a, now) && window.admits(*key, b, now))
            .count();
        assert!((8_600..9_400).contains(&both), "{both} of 9,000");
    }

    #[test]
    fn slow_start_on_every_peer_leaves_keys_with_their_owner() {
        let salt = Salt::of("a:80");
        let cold = |peer| (peer, Some((window(0, 60), salt)));
        for second in [0, 30, 59] {
            let now = Duration::from_secs(second);
            for key in 0..100 {
                assert_eq!(
                    first_admitting_peer(key, now, [1, 2, 3].map(cold)),
                    Some((1, true))
                );
            }
        }
        assert_eq!(
            first_admitting_peer(1, MINUTE, [1, 2, 3].map(cold)),
            Some((1, false))
        );
        assert_eq!(
            first_admitting_peer(1, MINUTE, std::iter::empty::<(u8, _)>()),
            None
        );
    }

    /// For each key, the position on its walk of the peer that admits it, at each second; `windows` are the
    /// slow starts.
    fn places(windows: &[Option<SlowStartWindow>], keys: u64, steps: u32) -> Vec<Vec<usize>> {
        let labels = labels(windows.len());
        let ring = ring(&labels);
        let salts: Vec<Salt> = labels.iter().map(|label| Salt::of(label)).collect();
        let place = |key: u64, now| {
            let key = ring.key(&key.to_le_bytes());
            let walk = ring.walk(&key).enumerate().map(|(place, member)| {
                let window = windows[member.index()];
                (place, window.map(|window| (window, salts[member.index()])))
            });
            first_admitting_peer(key.hash().0, now, walk).unwrap().0
        };
        (0..keys)
            .map(|key| {
                (0..=steps)
                    .map(|step| place(key, Duration::from_secs(step.into())))
                    .collect()
            })
            .collect()
    }

    #[test]
    fn slow_start_rescaled_keeps_its_progress() {
        let at = Duration::from_secs;
        let rescaled = |length, now| window(100, 60).rescaled(at(length), at(now));
        assert_eq!(rescaled(20, 130), window(120, 20));
        assert_eq!(rescaled(90, 140), window(80, 90));
        assert_eq!(rescaled(20, 90), window(100, 20), "not started yet");
        assert!(rescaled(600, 1000).is_complete(at(1000)), "it was complete");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn slow_start_moves_a_key_only_towards_its_owner(
            begins in prop::collection::vec(prop::option::of((0..40_u64, 1..60_u64)), 1..6),
        ) {
            let windows: Vec<_> = begins
                .iter()
                .map(|begin| begin.map(|(start, duration)| window(start, duration)))
                .chain([None])
                .collect();
            let slow_starting = windows.iter().flatten().count();
            for places in places(&windows, 60, 100) {
                prop_assert!(places.windows(2).all(|pair| pair[1] <= pair[0]), "{places:?}");
                let moves = places.windows(2).filter(|pair| pair[1] != pair[0]).count();
                prop_assert!(moves <= slow_starting, "{places:?}");
                prop_assert_eq!(places.last(), Some(&0));
            }
        }

        #[test]
        fn slow_start_never_revokes_an_admitted_key(key in any::<u64>(), length in 1..1_000_000_000_000_u64) {
            let window = SlowStartWindow { start: MINUTE, duration: Duration::from_nanos(length) };
            let salt = Salt::of("a:80");
            let steps = (0..=100).map(|step| window.start + window.duration * step / 100);
            let admitted: Vec<_> = steps.map(|now| window.admits(key, salt, now)).collect();
            prop_assert!(admitted.windows(2).all(|pair| pair[0] <= pair[1]));
            prop_assert!(!admitted[0] && admitted[100]);
        }

        #[test]
        fn slow_start_never_revokes_an_admitted_key_when_rescaled(
            key in any::<u64>(),
            lengths in prop::collection::vec((1..1_000_000_000_000_u64, 0..40_u32), 2..8),
        ) {
            let salt = Salt::of("a:80");
            let mut now = MINUTE * 100;
            let mut window = SlowStartWindow { start: now, duration: MINUTE };
            for (length, percent) in lengths {
                now += window.duration * percent / 100;
                let other = window.rescaled(Duration::from_nanos(length), now);
                prop_assert!(other.fraction(now) >= window.fraction(now) - 1e-9);
                prop_assert!(other.admits(key, salt, now) >= window.admits(key, salt, now));
                window = other;
            }
        }
    }
}
