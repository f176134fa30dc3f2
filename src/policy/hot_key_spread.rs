//! Over how many peers a hot key is spread, and which of them serves the next request.
//!
//! A peer of the weight `w` of `W` has the share `r` of the key space. While a key with the share `s` of the
//! requests is spread, its other keys bring it `(1 - s) × r` of them. So without being more than `h` above its
//! fair share it has room for
//!
//! ```text
//!     max(0, (1 + h) × w / W - (1 - s) × r)          w = 1, W = 10, s = 30 %, r = 10 %, h = 10 %:  4 %
//! ```
//!
//! of the hot key's requests. The key goes to the first peers of its walk that have room for `s` together (of equal
//! parts, 8 here), each in proportion to its room. So the spread follows the share, and a peer that the ring
//! has given too much already gets nothing on top; the configured number of peers is the least, of those with
//! room. All peers together always have room for `s`: it adds up to `h + s` or more.
//!
//! `h` is 10 %, for there are other hot keys, and other keys are not equally hot. Of 150 rings each of 10 and of 30 equal
//! peers with 160 points, and one key of 2 to 50 %, none of 10 and 1 % of 30 have a peer above 1.25 × its fair share:
//! those where the ring alone puts it there. By weight instead of room it was up to 9 %, over more peers.
//!
//! Turns are taken evenly: the fractional parts of multiples of the golden ratio fall
//! apart as far as can be (Weyl; Knuth, The Art of Computer Programming 3, 6.4), so any run of turns is even, not
//! only a long one. No other key moves.

use super::heavy_hitters::MILLIONTHS;

/// How far above its fair share one hot key may put a peer.
const HEADROOM: f64 = 0.10;
/// What rounding may have taken from a sum of rooms.
const ROUNDING_ERROR: f64 = 1e-9;
/// The golden ratio's fractional part, as a fraction of 2^64.
const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;

/// The least number of peers that a hot key is spread over; at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HotKeySpread {
    /// Peers.
    pub min_peers: u16,
}

/// What one peer has, or all that can serve have together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WeightedShare {
    /// Weight.
    pub weight: u32,
    /// How much of the key space, in any unit.
    pub key_space: u64,
}

impl HotKeySpread {
    /// The peer of this turn, for a key with `share` of the requests in millionths.
    ///
    /// `walk` are the peers that can serve in clockwise order from the key, with their parts, which
    /// add up to `all`; `None` where there are none, or those that are have no room. It is gone over twice, as
    /// far as the key is spread. Consecutive turns make the spread even; where they begin does not matter.
    pub fn select_peer<T>(
        self,
        share: u32,
        all: WeightedShare,
        turn: u32,
        walk: impl Iterator<Item = (T, WeightedShare)> + Clone,
    ) -> Option<T> {
        let share = f64::from(share.min(MILLIONTHS)) / f64::from(MILLIONTHS);
        let rooms = SpreadRoom::new(share, all);
        let walk = walk.map(|(peer, part)| (peer, rooms.of_peer(part)));
        let walk = walk.filter(|(_, room)| *room > 0.0);
        let over = self.room_of_spread(walk.clone().map(|(_, room)| room), share);
        let mut at = golden_fraction(turn) * over;
        let mut last = None;
        for (peer, room) in walk {
            last = Some(peer);
            if at < room {
                break;
            }
            at -= room;
        }
        last
    }

    /// The room of the first peers: as few as have what is needed, but no fewer than the least.
    fn room_of_spread(self, rooms: impl Iterator<Item = f64>, needed: f64) -> f64 {
        let mut sum = 0.0;
        for (peers, room) in rooms.enumerate() {
            if peers >= usize::from(self.min_peers.max(1)) && sum >= needed * (1.0 - ROUNDING_ERROR)
            {
                break;
            }
            sum += room;
        }
        sum
    }
}

/// How much of a hot key each peer has room for.
struct SpreadRoom {
    /// For each unit of its weight.
    per_weight: f64,
    /// Less for each unit of its key space.
    per_key_space: f64,
}

impl SpreadRoom {
    fn new(share: f64, all: WeightedShare) -> Self {
        Self {
            per_weight: (1.0 + HEADROOM) / f64::from(all.weight.max(1)),
            per_key_space: (1.0 - share) / to_f64(all.key_space.max(1)),
        }
    }

    fn of_peer(&self, part: WeightedShare) -> f64 {
        self.per_weight * f64::from(part.weight) - self.per_key_space * to_f64(part.key_space)
    }
}

/// The turn's place, 0.0 .. 1.0.
fn golden_fraction(turn: u32) -> f64 {
    let place = u64::from(turn).wrapping_mul(GOLDEN_RATIO);
    // As many bits as a double has.
    to_f64(place >> 11) / to_f64(1 << 53)
}

#[expect(clippy::cast_precision_loss, reason = "at most 2^53")]
const fn to_f64(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::hash_mix::mix;
    use crate::ring::{Dialect, Hash, Ring, Weight};

    const THREE: HotKeySpread = HotKeySpread { min_peers: 3 };

    /// Peers that have as much of the key space as of the weight.
    fn even(weights: &[u16]) -> Vec<WeightedShare> {
        let part = |weight: &u16| WeightedShare {
            weight: (*weight).into(),
            key_space: (*weight).into(),
        };
        weights.iter().map(part).collect()
    }

    fn sum(parts: &[WeightedShare]) -> WeightedShare {
        WeightedShare {
            weight: parts.iter().map(|part| part.weight).sum(),
            key_space: parts.iter().map(|part| part.key_space).sum(),
        }
    }

    /// How often each peer served in `turns` turns, from `start` on; they walk in their order.
    fn served(
        spread: HotKeySpread,
        share: u32,
        (start, turns): (u32, u32),
        parts: &[WeightedShare],
    ) -> Vec<u32> {
        let all = sum(parts);
        let mut served = vec![0; parts.len()];
        for turn in 0..turns {
            let walk = parts.iter().copied().enumerate();
            let turn = start.wrapping_add(turn);
            served[spread.select_peer(share, all, turn, walk).unwrap()] += 1;
        }
        served
    }

    #[test]
    fn hot_key_spread_width_follows_the_share() {
        let over = |share, peers: usize| {
            let served = served(THREE, share, (0, 10_000), &even(&vec![1; peers]));
            served.iter().filter(|served| **served > 0).count()
        };
        assert_eq!(
            [20_000, 50_000, 100_000, 300_000, 500_000].map(|share| over(share, 10)),
            [3, 4, 5, 8, 9]
        );
        assert_eq!(
            [20_000, 50_000, 100_000, 300_000, 500_000].map(|share| over(share, 30)),
            [5, 10, 15, 23, 25]
        );
        assert_eq!(over(20_000, 2), 2);
    }

    #[test]
    fn hot_key_spread_is_even_over_any_run_of_requests() {
        for start in [0, 1, 12_345, u32::MAX - 50] {
            let served = served(
                HotKeySpread { min_peers: 7 },
                0,
                (start, 100),
                &even(&[1; 7]),
            );
            assert!(
                served.iter().all(|served| (13..=16).contains(served)),
                "{start}: {served:?}"
            );
        }
    }

    #[test]
    fn hot_key_spread_follows_peer_weights() {
        let served = served(THREE, 0, (0, 8000), &even(&[4, 1, 3, 9]));
        let expected = [4000_u32, 1000, 3000, 0];
        assert!(
            served.iter().zip(expected).all(|(n, m)| n.abs_diff(m) <= 3),
            "{served:?}"
        );
    }

    #[test]
    fn hot_key_spread_skips_overloaded_peers() {
        let mut parts = even(&[10; 10]);
        parts[0].key_space = 13;
        parts[1].key_space = 7;
        let served = served(THREE, 20_000, (0, 1000), &parts);
        let used: Vec<bool> = served.iter().map(|served| *served > 0).collect();
        let (first, rest) = used.split_at(4);
        assert_eq!(first, [false, true, true, true], "{served:?}");
        assert!(
            rest.iter().all(|used| !used) && served[1] > 2 * served[2],
            "{served:?}"
        );
    }

    #[test]
    fn hot_key_spread_without_peers_selects_none() {
        let none = std::iter::empty::<(u8, WeightedShare)>();
        assert_eq!(
            THREE.select_peer(300_000, WeightedShare::default(), 5, none),
            None
        );
        let one = even(&[1]);
        assert_eq!(served(HotKeySpread { min_peers: 0 }, 0, (5, 3), &one), [3]);
    }

    /// The parts of a ring's members, in the order of a key's walk.
    fn parts(labels: &str, weights: &[u16], key: u64) -> Vec<WeightedShare> {
        let labels: Vec<_> = (0..weights.len())
            .map(|n| format!("{labels}{n}:80"))
            .collect();
        let weight = |weight: &u16| Weight::new(*weight).unwrap();
        let members = labels
            .iter()
            .map(String::as_str)
            .zip(weights.iter().map(weight));
        let ring = Ring::new(Dialect::default(), members).unwrap();
        let shares = ring.shares();
        let part = |member: usize| WeightedShare {
            weight: weights[member].into(),
            key_space: shares[member],
        };
        let walk = ring.walk(&Hash(mix(key) >> 32).into());
        walk.map(|member| part(member.index())).collect()
    }

    /// What a peer has over its fair share.
    #[derive(Debug)]
    struct Load {
        /// Of its other keys.
        cold: f64,
        /// With the hot one.
        whole: f64,
        /// What one turn makes of it.
        turn: f64,
    }

    fn loads(parts: &[WeightedShare], share: u32) -> Vec<Load> {
        const TURNS: u32 = 2000;
        let (all, hot) = (sum(parts), f64::from(share) / f64::from(MILLIONTHS));
        let served = served(THREE, share, (0, TURNS), parts);
        let load = |(part, turns): (&WeightedShare, u32)| {
            let fair = f64::from(part.weight) / f64::from(all.weight);
            let cold = (1.0 - hot) * to_f64(part.key_space) / to_f64(all.key_space);
            let turn = hot / f64::from(TURNS) / fair;
            Load {
                cold: cold / fair,
                whole: cold / fair + f64::from(turns) * turn,
                turn,
            }
        };
        parts.iter().zip(served).map(load).collect()
    }

    #[test]
    fn hot_key_spread_keeps_peers_below_their_bound_on_many_rings() {
        for share in [20_000, 50_000, 100_000] {
            let fails = (0..150).filter(|number| {
                let parts = parts(&format!("10.{number}.0."), &[1; 30], *number);
                let loads = loads(&parts, share);
                loads.iter().any(|load| load.whole > 1.25)
            });
            let fails = fails.count();
            assert!(fails <= 3, "{share}: {fails} of 150 rings");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whoever serves a hot key stays within the headroom; others have what the ring gives them.
        #[test]
        fn hot_key_spread_keeps_peers_within_the_headroom(
            weights in prop::collection::vec(1..=4_u16, 1..40), share in 5_000..=MILLIONTHS, key: u64,
        ) {
            let loads = loads(&parts("p", &weights, key), share);
            for load in loads {
                // A run of turns is even but for a few.
                let most = load.cold.max(1.0 + HEADROOM) + 4.0 * load.turn;
                prop_assert!(load.whole <= most, "{load:?}");
                prop_assert!(load.whole <= load.cold || load.cold < 1.0 + HEADROOM, "{load:?}");
            }
        }

        /// All together have room for the key, whatever the ring.
        #[test]
        fn hot_key_spread_has_room_for_the_whole_key(
            weights in prop::collection::vec(1..=256_u16, 1..40), share in 1..=MILLIONTHS, key: u64,
        ) {
            let weights: Vec<_> = weights.iter().map(|weight| weight % 8 + 1).collect();
            let parts = parts("p", &weights, key);
            let share = f64::from(share) / f64::from(MILLIONTHS);
            let rooms = SpreadRoom::new(share, sum(&parts));
            let room: f64 = parts.iter().map(|part| rooms.of_peer(*part).max(0.0)).sum();
            prop_assert!(room >= share, "{room} of {share}");
        }
    }
}
