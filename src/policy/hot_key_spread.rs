//! The spread of a hot key over several peers: how many, and the one for the next request.
//!
//! A peer of weight `w` out of `W` owns the share `r` of the key space. While a key with the share `s` of
//! the requests is spread, the other keys bring that peer `(1 - s) × r` of the requests. To stay within its
//! fair share plus the headroom `h`, it has room for
//!
//! ```text
//!     max(0, (1 + h) × w / W - (1 - s) × r)          w = 1, W = 10, s = 30 %, r = 10 %, h = 10 %:  4 %
//! ```
//!
//! of the requests, for the hot key. The key goes to the first peers of its walk that have room for `s`
//! together (8 equal peers in the example), to each in proportion to its room. So the spread grows with the
//! share, and a peer with too large a share of the ring gets none of it. The configured number of peers is
//! a minimum, of peers with room. All peers together have room for at least `h + s`. No other key moves.

use super::heavy_hitters::MILLIONTHS;

/// How far above its fair share one hot key may load a peer. Some room is left for other hot keys, and
/// because the other keys are not equally popular.
///
/// Of 150 rings each of 10 and of 30 equal peers with 160 points, and one key of 2 to 50 %, none of those
/// of 10 and 1 % of those of 30 have a peer above 1.25 × its fair share: one that the ring alone puts
/// there. With a spread by weight instead of room it was up to 9 %, over more peers.
const HEADROOM: f64 = 0.10;
/// The relative rounding error of a sum of rooms.
const ROUNDING_ERROR: f64 = 1e-9;
/// The fractional part of the golden ratio, as a fraction of 2^64.
const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;

/// The configuration of the spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HotKeySpread {
    /// The least number of peers that a hot key is spread over; 0 counts as 1.
    pub min_peers: u16,
}

/// The data that spreads the requests of a hot key over several peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HotKeyHit {
    /// The key's share of the requests, in millionths.
    pub share: u32,
    /// The number of the request among those of the key while it is hot, from 0, modulo 2^32.
    pub sequence: u32,
}

/// The weight and the key space of one peer, or of all that can serve together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WeightedShare {
    /// The weight.
    pub weight: u32,
    /// The share of the key space, in any unit.
    pub key_space: u64,
}

impl HotKeySpread {
    /// The peer for a request of a key with `share` of the requests, in millionths; `sequence` is the number of
    /// the request among those of the key. `None` if no peer has room.
    ///
    /// `walk` are the peers that can serve, in clockwise order from the key, with their shares, which add
    /// up to `all`. It is iterated twice, as far as the key is spread. Any run of consecutive numbers is
    /// spread evenly.
    pub fn select_peer<T>(
        self,
        share: u32,
        all: WeightedShare,
        sequence: u32,
        walk: impl Iterator<Item = (T, WeightedShare)> + Clone,
    ) -> Option<T> {
        let share = f64::from(share.min(MILLIONTHS)) / f64::from(MILLIONTHS);
        let rooms = SpreadRoom::new(share, all);
        let walk = walk.map(|(peer, share)| (peer, rooms.of_peer(share)));
        let walk = walk.filter(|(_, room)| *room > 0.0);
        let total = self.room_of_spread(walk.clone().map(|(_, room)| room), share);
        let mut at = golden_fraction(sequence) * total;
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

    /// The total room of the first peers: as few as have `needed`, but at least `min_peers`.
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

/// Computes the room of each peer for a hot key.
struct SpreadRoom {
    /// Added for each unit of the peer's weight.
    per_weight: f64,
    /// Subtracted for each unit of its key space.
    per_key_space: f64,
}

impl SpreadRoom {
    fn new(share: f64, all: WeightedShare) -> Self {
        Self {
            per_weight: (1.0 + HEADROOM) / f64::from(all.weight.max(1)),
            per_key_space: (1.0 - share) / to_f64(all.key_space.max(1)),
        }
    }

    fn of_peer(&self, peer: WeightedShare) -> f64 {
        self.per_weight * f64::from(peer.weight) - self.per_key_space * to_f64(peer.key_space)
    }
}

/// The fractional part of `sequence` × the golden ratio, 0.0 .. 1.0. These are spaced as evenly as possible in
/// every run of numbers, not only in a long one (Weyl; Knuth, The Art of Computer Programming 3 §6.4).
fn golden_fraction(sequence: u32) -> f64 {
    let fraction = u64::from(sequence).wrapping_mul(GOLDEN_RATIO);
    // 53 bits, which f64 holds exactly.
    to_f64(fraction >> 11) / to_f64(1 << 53)
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

    /// Peers with a key space in proportion to their weights.
    fn even(weights: &[u16]) -> Vec<WeightedShare> {
        let share_of = |weight: &u16| WeightedShare {
            weight: (*weight).into(),
            key_space: (*weight).into(),
        };
        weights.iter().map(share_of).collect()
    }

    fn sum(shares: &[WeightedShare]) -> WeightedShare {
        WeightedShare {
            weight: shares.iter().map(|peer| peer.weight).sum(),
            key_space: shares.iter().map(|peer| peer.key_space).sum(),
        }
    }

    /// How often each peer is selected in `turns` turns from `start`; the walk is in the order of `shares`.
    fn served(
        spread: HotKeySpread,
        share: u32,
        (start, turns): (u32, u32),
        shares: &[WeightedShare],
    ) -> Vec<u32> {
        let all = sum(shares);
        let mut served = vec![0; shares.len()];
        for turn in 0..turns {
            let walk = shares.iter().copied().enumerate();
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
        let mut shares = even(&[10; 10]);
        shares[0].key_space = 13;
        shares[1].key_space = 7;
        let served = served(THREE, 20_000, (0, 1000), &shares);
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

    /// The shares of a ring's members, in the order of a key's walk.
    fn shares(labels: &str, weights: &[u16], key: u64) -> Vec<WeightedShare> {
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
        let share_of = |member: usize| WeightedShare {
            weight: weights[member].into(),
            key_space: shares[member],
        };
        let walk = ring.walk(&Hash(mix(key) >> 32).into());
        walk.map(|member| share_of(member.index())).collect()
    }

    /// The load of a peer, in multiples of its fair share.
    #[derive(Debug)]
    struct Load {
        /// By its other keys.
        cold: f64,
        /// With the hot key.
        whole: f64,
        /// By one turn of the hot key.
        turn: f64,
    }

    fn loads(shares: &[WeightedShare], share: u32) -> Vec<Load> {
        const TURNS: u32 = 2000;
        let (all, hot) = (sum(shares), f64::from(share) / f64::from(MILLIONTHS));
        let served = served(THREE, share, (0, TURNS), shares);
        let load = |(peer, turns): (&WeightedShare, u32)| {
            let fair = f64::from(peer.weight) / f64::from(all.weight);
            let cold = (1.0 - hot) * to_f64(peer.key_space) / to_f64(all.key_space);
            let turn = hot / f64::from(TURNS) / fair;
            Load {
                cold: cold / fair,
                whole: cold / fair + f64::from(turns) * turn,
                turn,
            }
        };
        shares.iter().zip(served).map(load).collect()
    }

    #[test]
    fn hot_key_spread_keeps_peers_below_their_bound_on_many_rings() {
        for share in [20_000, 50_000, 100_000] {
            let fails = (0..150).filter(|number| {
                let shares = shares(&format!("10.{number}.0."), &[1; 30], *number);
                let loads = loads(&shares, share);
                loads.iter().any(|load| load.whole > 1.25)
            });
            let fails = fails.count();
            assert!(fails <= 3, "{share}: {fails} of 150 rings");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// A peer that serves the hot key stays within the headroom; the others have the load of their own
        /// keys.
        #[test]
        fn hot_key_spread_keeps_peers_within_the_headroom(
            weights in prop::collection::vec(1..=4_u16, 1..40), share in 5_000..=MILLIONTHS, key: u64,
        ) {
            let loads = loads(&shares("p", &weights, key), share);
            for load in loads {
                // A run of turns is even but for a few turns.
                let most = load.cold.max(1.0 + HEADROOM) + 4.0 * load.turn;
                prop_assert!(load.whole <= most, "{load:?}");
                prop_assert!(load.whole <= load.cold || load.cold < 1.0 + HEADROOM, "{load:?}");
            }
        }

        /// On any ring all peers together have room for the key.
        #[test]
        fn hot_key_spread_has_room_for_the_whole_key(
            weights in prop::collection::vec(1..=256_u16, 1..40), share in 1..=MILLIONTHS, key: u64,
        ) {
            let weights: Vec<_> = weights.iter().map(|weight| weight % 8 + 1).collect();
            let shares = shares("p", &weights, key);
            let share = f64::from(share) / f64::from(MILLIONTHS);
            let rooms = SpreadRoom::new(share, sum(&shares));
            let room: f64 = shares.iter().map(|peer| rooms.of_peer(*peer).max(0.0)).sum();
            prop_assert!(room >= share, "{room} of {share}");
        }
    }
}
