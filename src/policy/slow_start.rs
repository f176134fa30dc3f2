//! Slow start: a peer that comes back, or is new, gets its keys one after the other.
//!
//! Each key has a place in the order in which a peer's keys come home: a second hash of the key and the
//! peer, as a fraction of 2^64. At `now` the ramp has come as far as `(now - began) / length`, and the
//! keys before that point are home; the rest go on clockwise. So there is no state but the ramp's
//! begin, and whoever asks, in whatever process, gets the same answer.
//!
//! Invariants:
//! * a key that is home stays home: the ramp only rises;
//! * the orders of two peers have nothing to do with each other, nor with places on the ring, so that
//!   of every peer's keys the same share is home;
//! * the comparison is exact: no rounding, no overflow.
//!
//! Where the next peer of the walk ramps as well, its own ramp is asked. With each key that comes home
//! anywhere, the key's place on its walk gets smaller and never larger: with `n` ramping peers at the
//! head of its walk a key moves at most `n` times, towards its owner, and once where only the owner ramps.
//!
//! Whose ramp counts when all of them ramp is decided in [`first_home`]: nobody's. A ramp that was passed
//! over so should end there and then, or the keys would leave again when another peer is done. And
//! who comes back a moment later must not be spared at the cost of peers that are as cold: a ramp takes no
//! longer than the others have been serving since all were cold ([`Ramp::new`]).

use std::time::Duration;

use super::hash_mix::mix;

/// The way of one peer from no keys to all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowStartWindow {
    /// When the peer came back, since the process started.
    pub start: Duration,
    /// How long until it has all its keys; zero: at once.
    pub duration: Duration,
}

/// What tells a peer's order from every other's; made of its label, so it outlives the process.
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
    /// The ramp of a peer that comes back at `began`, where that is to take `length`. All peers were
    /// equally cold at `cold`: one that comes so much later has them ahead of it by no more than that.
    pub fn new(began: Duration, length: Duration, cold: Duration) -> Self {
        let length = length.min(began.saturating_sub(cold));
        Self {
            start: began,
            duration: length,
        }
    }

    /// What is left of it when all are equally cold at `now`, this one too: nothing if it has begun.
    #[must_use]
    pub fn restarted_cold(self, now: Duration) -> Option<Self> {
        (now < self.start).then(|| Self::new(self.start, self.duration, now))
    }

    /// The ramp that has come as far at `now`, and takes another length in all: what is home stays home.
    #[must_use]
    pub fn rescaled(self, length: Duration, now: Duration) -> Self {
        let (whole, other) = (u128::from(nanos(self.duration)), u128::from(nanos(length)));
        let passed = u128::from(nanos(self.elapsed(now))).min(whole) * other;
        // Rounded up: a key may only come home.
        let passed = u64::try_from(passed.div_ceil(whole.max(1))).unwrap_or(u64::MAX);
        let began = now
            .max(self.start)
            .saturating_sub(Duration::from_nanos(passed));
        Self {
            start: began,
            duration: length,
        }
    }

    /// Whether the ramp is over, so that nothing needs to be asked any more.
    #[inline]
    pub fn is_complete(&self, now: Duration) -> bool {
        self.elapsed(now) >= self.duration
    }

    /// Whether a key is home at `now`. `key` is its hash, of whatever quality.
    #[inline]
    pub fn admits(&self, key: u64, salt: Salt, now: Duration) -> bool {
        let place = u128::from(mix(key ^ salt.0));
        let (passed, length) = (nanos(self.elapsed(now)), nanos(self.duration));
        // place / 2^64 < passed / length
        passed >= length || place * u128::from(length) < u128::from(passed) << 64
    }

    /// How much of its keys the peer has, 0.0 ..= 1.0; for reports.
    pub fn fraction(&self, now: Duration) -> f64 {
        if self.is_complete(now) {
            1.0
        } else {
            self.elapsed(now).div_duration_f64(self.duration)
        }
    }

    /// The same of a whole number, rounded down.
    pub fn scale(&self, whole: u32, now: Duration) -> u32 {
        let (passed, length) = (nanos(self.elapsed(now)), nanos(self.duration));
        let part = u128::from(whole) * u128::from(passed) / u128::from(length.max(1));
        u32::try_from(part).map_or(whole, |part| part.min(whole))
    }

    /// How long ago it began; zero: it has yet to.
    pub fn elapsed(&self, now: Duration) -> Duration {
        now.saturating_sub(self.start)
    }
}

/// The first of a walk at which a key is home; each peer comes with its ramp, `None` where it has none.
///
/// A peer without a ramp is home to every key. Where every peer ramps, all are equally cold, nobody is
/// spared anything by another, and the owner serves: then the second value is true.
pub fn first_admitting_peer<T: Copy>(
    key: u64,
    now: Duration,
    walk: impl IntoIterator<Item = (T, Option<(SlowStartWindow, Salt)>)>,
) -> Option<(T, bool)> {
    let mut owner = None;
    let mut home = None;
    for (peer, ramp) in walk {
        owner = owner.or(Some(peer));
        let Some((ramp, salt)) = ramp.filter(|(ramp, _)| !ramp.is_complete(now)) else {
            return Some((home.unwrap_or(peer), false));
        };
        if home.is_none() && ramp.admits(key, salt, now) {
            home = Some(peer);
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

    fn ramp(began: u64, length: u64) -> SlowStartWindow {
        SlowStartWindow {
            start: Duration::from_secs(began),
            duration: Duration::from_secs(length),
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
        let (ramp, salt) = (ramp(100, 60), Salt::of("a:80"));
        let at = |second| {
            (0..1000)
                .filter(|key| ramp.admits(*key, salt, Duration::from_secs(second)))
                .count()
        };
        assert_eq!(
            (at(0), at(100), at(160), at(u64::MAX / 2)),
            (0, 0, 1000, 1000)
        );
        assert!(
            !ramp.is_complete(Duration::from_secs(159))
                && ramp.is_complete(Duration::from_secs(160))
        );
    }

    #[test]
    fn slow_start_without_length_is_over_at_once() {
        let ramp = ramp(5, 0);
        assert!(ramp.is_complete(Duration::ZERO) && ramp.admits(1, Salt::of("a"), Duration::ZERO));
        assert!((ramp.fraction(Duration::ZERO) - 1.0).abs() < f64::EPSILON);
        assert_eq!(ramp.scale(64, Duration::from_secs(6)), 64);
    }

    #[test]
    fn slow_start_share_is_within_one_percent_of_linear() {
        const KEYS: u32 = 1_000_000;
        let labels = labels(10);
        let ring = ring(&labels);
        let back = MemberId(3);
        let (ramp, salt) = (ramp(1000, 60), Salt::of(&labels[3]));
        let of_back: Vec<u64> = (0..KEYS)
            .map(|key| ring.key(&key.to_le_bytes()))
            .filter(|key| ring.owner(key) == Some(back))
            .map(|key| key.hash().0)
            .collect();
        let all = of_back.len();
        for percent in 0..=100_u8 {
            let now = ramp.start + MINUTE * u32::from(percent) / 100;
            let home = of_back
                .iter()
                .filter(|key| ramp.admits(**key, salt, now))
                .count();
            let expected = all * usize::from(percent);
            assert!(
                (home * 100).abs_diff(expected) < all,
                "{percent} %: {home} of {all}"
            );
            assert!((ramp.fraction(now) - f64::from(percent) / 100.0).abs() < 1e-9);
            assert_eq!(ramp.scale(100, now), u32::from(percent));
        }
    }

    #[test]
    fn slow_start_is_no_longer_than_the_uptime_of_the_other_peers() {
        let after = |seconds: u64| {
            let cold = Duration::from_secs(1000);
            let began = Duration::from_secs(1000 + seconds);
            SlowStartWindow::new(began, MINUTE, cold).duration.as_secs()
        };
        assert_eq!([0, 5, 60, 600].map(after), [0, 5, 60, 60]);
        let to_come = ramp(100, 60);
        assert_eq!(
            to_come.restarted_cold(Duration::from_secs(90)),
            Some(ramp(100, 10))
        );
        assert_eq!(to_come.restarted_cold(Duration::from_secs(100)), None);
    }

    #[test]
    fn two_slow_starts_take_equal_shares_of_each_others_keys() {
        let (a, b) = (Salt::of("a:80"), Salt::of("b:80"));
        let ramp = ramp(0, 100);
        let now = Duration::from_secs(30);
        let both = (0..100_000_u64)
            .filter(|key| ramp.admits(*key, a, now) && ramp.admits(*key, b, now))
            .count();
        assert!((8_600..9_400).contains(&both), "{both} of 9,000");
    }

    #[test]
    fn slow_start_on_every_peer_leaves_keys_with_their_owner() {
        let salt = Salt::of("a:80");
        let cold = |peer| (peer, Some((ramp(0, 60), salt)));
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

    /// The places on their walks of some keys, at each step of a clock, while some peers ramp.
    fn places(ramps: &[Option<SlowStartWindow>], keys: u64, steps: u32) -> Vec<Vec<usize>> {
        let labels = labels(ramps.len());
        let ring = ring(&labels);
        let salts: Vec<Salt> = labels.iter().map(|label| Salt::of(label)).collect();
        let place = |key: u64, now| {
            let key = ring.key(&key.to_le_bytes());
            let walk = ring.walk(&key).enumerate().map(|(place, member)| {
                let ramp = ramps[member.index()];
                (place, ramp.map(|ramp| (ramp, salts[member.index()])))
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
    fn slow_start_stretched_keeps_its_progress() {
        let at = Duration::from_secs;
        let stretched = |length, now| ramp(100, 60).rescaled(at(length), at(now));
        assert_eq!(stretched(20, 130), ramp(120, 20));
        assert_eq!(stretched(90, 140), ramp(80, 90));
        assert_eq!(stretched(20, 90), ramp(100, 20), "it has yet to begin");
        assert!(stretched(600, 1000).is_complete(at(1000)), "it was over");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn slow_start_moves_a_key_only_towards_its_owner(
            begins in prop::collection::vec(prop::option::of((0..40_u64, 1..60_u64)), 1..6),
        ) {
            let ramps: Vec<_> = begins
                .iter()
                .map(|begin| begin.map(|(began, length)| ramp(began, length)))
                .chain([None])
                .collect();
            let ramping = ramps.iter().flatten().count();
            for places in places(&ramps, 60, 100) {
                prop_assert!(places.windows(2).all(|pair| pair[1] <= pair[0]), "{places:?}");
                let moves = places.windows(2).filter(|pair| pair[1] != pair[0]).count();
                prop_assert!(moves <= ramping, "{places:?}");
                prop_assert_eq!(places.last(), Some(&0));
            }
        }

        #[test]
        fn slow_start_never_revokes_an_admitted_key(key in any::<u64>(), length in 1..1_000_000_000_000_u64) {
            let ramp = SlowStartWindow { start: MINUTE, duration: Duration::from_nanos(length) };
            let salt = Salt::of("a:80");
            let steps = (0..=100).map(|step| ramp.start + ramp.duration * step / 100);
            let home: Vec<_> = steps.map(|now| ramp.admits(key, salt, now)).collect();
            prop_assert!(home.windows(2).all(|pair| pair[0] <= pair[1]));
            prop_assert!(!home[0] && home[100]);
        }

        #[test]
        fn slow_start_never_revokes_an_admitted_key_when_stretched(
            key in any::<u64>(),
            lengths in prop::collection::vec((1..1_000_000_000_000_u64, 0..40_u32), 2..8),
        ) {
            let salt = Salt::of("a:80");
            let mut now = MINUTE * 100;
            let mut ramp = SlowStartWindow { start: now, duration: MINUTE };
            for (length, percent) in lengths {
                now += ramp.duration * percent / 100;
                let other = ramp.rescaled(Duration::from_nanos(length), now);
                prop_assert!(other.fraction(now) >= ramp.fraction(now) - 1e-9);
                prop_assert!(other.admits(key, salt, now) >= ramp.admits(key, salt, now));
                ramp = other;
            }
        }
    }
}
