//! Over how many peers a hot key is spread, and which of them serves the next request.
//!
//! A key with the share `s` of the requests, over the first peers of its walk with `w` of the weight `W`,
//! puts on each of them `1 - s + s × W / w` of its fair share. Three peers of ten are not enough for
//! `s` = 30 %: each would have 1.7 × its fair share. To stay within `1 + h`, `w` must be at least
//!
//! ```text
//!     w  ≥  s × W / (s + h)          s = 30 %, W = 10, h = 5 %:  9 peers, 1.03 × the fair share
//! ```
//!
//! So the spread follows the share: the configured number of peers is the least. `h` is 5 %, for there are
//! other hot keys, and the ring's own shares differ. On 150 rings each of 10 and of 30 equal peers with 160 points, and
//! one key of 2 to 50 %, no peer is above 1.25 × its fair share in 92 to 100 % of the rings; with
//! `h` = 12.5 % that is 60 to 100 %, with three peers none above 30 %; with all peers 98 to 100 %,
//! but then every peer holds a copy of what belongs to every hot key.
//!
//! Turns are taken by weight and evenly: the fractional parts of multiples of the golden ratio fall
//! apart as far as can be (Weyl; Knuth, The Art of Computer Programming 3, 6.4), so any run of turns is even, not
//! only a long one. No other key moves.

use super::hot::WHOLE;

/// How far above its fair share one hot key may put a peer, in millionths.
const HEADROOM: u32 = 50_000;
/// The golden ratio's fractional part, as a fraction of 2^64.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The least number of peers that a hot key is spread over; at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread {
    /// Peers.
    pub least: u16,
}

impl Spread {
    /// The peer of this turn, for a key with `share` of the requests in millionths.
    ///
    /// `walk` are the peers that can serve in clockwise order from the key, with their weights, which
    /// add up to `total_weight`; `None` where there are none. It is gone over twice. Consecutive turns make
    /// the spread even; where they begin does not matter.
    pub fn choose<T>(
        self,
        share: u32,
        total_weight: u32,
        turn: u32,
        walk: impl Iterator<Item = (T, u16)> + Clone,
    ) -> Option<T> {
        let weights = walk.clone().map(|(_, weight)| u32::from(weight));
        let over = self.weight(weights, needed(share, total_weight));
        let mut at = position(turn, over);
        for (peer, weight) in walk {
            match at.checked_sub(weight.into()) {
                Some(rest) => at = rest,
                None => return Some(peer),
            }
        }
        None
    }

    /// The weight of the first peers: as few as have what is needed, but no fewer than the least.
    fn weight(self, weights: impl Iterator<Item = u32>, needed: u32) -> u32 {
        let mut sum: u32 = 0;
        for (peers, weight) in weights.enumerate() {
            if peers >= usize::from(self.least.max(1)) && sum >= needed {
                break;
            }
            sum = sum.saturating_add(weight);
        }
        sum
    }
}

/// ⌈s × W / (s + h)⌉, at most W.
fn needed(share: u32, total_weight: u32) -> u32 {
    let share = u64::from(share.min(WHOLE));
    let needed = (share * u64::from(total_weight)).div_ceil(share + u64::from(HEADROOM));
    u32::try_from(needed).unwrap_or(total_weight)
}

/// The turn's place in 0 .. `weight`.
fn position(turn: u32, weight: u32) -> u32 {
    let fraction = u64::from(turn).wrapping_mul(GOLDEN);
    u32::try_from((u128::from(fraction) * u128::from(weight)) >> 64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::mix::mix;
    use crate::ring::{Dialect, Hash, MemberId, Ring, Weight};

    const THREE: Spread = Spread { least: 3 };

    fn equal(peers: u16) -> impl Iterator<Item = (u16, u16)> + Clone {
        (0..peers).map(|peer| (peer, 1))
    }

    /// How often each peer served in `turns` turns.
    fn served(spread: Spread, share: u32, turns: u32, weights: &[u16]) -> Vec<u32> {
        let total = weights.iter().copied().map(u32::from).sum();
        let mut served = vec![0; weights.len()];
        for turn in 0..turns {
            let walk = weights.iter().copied().enumerate();
            served[spread.choose(share, total, turn, walk).unwrap()] += 1;
        }
        served
    }

    #[test]
    fn the_spread_follows_the_share() {
        let over = |share, peers: usize| {
            let served = served(THREE, share, 10_000, &vec![1; peers]);
            served.iter().filter(|served| **served > 0).count()
        };
        assert_eq!(
            [20_000, 50_000, 100_000, 300_000, 500_000].map(|share| over(share, 10)),
            [3, 5, 7, 9, 10]
        );
        assert_eq!(
            [20_000, 50_000, 100_000, 300_000, 500_000].map(|share| over(share, 30)),
            [9, 15, 20, 26, 28]
        );
        assert_eq!(over(20_000, 2), 2);
    }

    #[test]
    fn any_run_of_turns_is_even() {
        for start in [0, 1, 12_345, u32::MAX - 50] {
            let mut served = [0_i32; 7];
            for turn in 0..100_u32 {
                let peer = Spread { least: 7 }
                    .choose(0, 7, start.wrapping_add(turn), equal(7))
                    .unwrap();
                served[usize::from(peer)] += 1;
            }
            assert!(
                served.iter().all(|served| (13..=16).contains(served)),
                "{start}: {served:?}"
            );
        }
    }

    #[test]
    fn heavy_peers_take_more_turns() {
        let served = served(THREE, 0, 8000, &[4, 1, 3, 9]);
        let expected = [4000_u32, 1000, 3000, 0];
        assert!(
            served.iter().zip(expected).all(|(n, m)| n.abs_diff(m) <= 3),
            "{served:?}"
        );
    }

    #[test]
    fn nobody_is_nobody() {
        assert_eq!(THREE.choose(300_000, 0, 5, equal(0)), None);
        assert_eq!(Spread { least: 0 }.choose(0, 1, 5, equal(1)), Some(0));
    }

    /// A ring of equal peers.
    fn ring(peers: u16) -> Ring {
        let labels: Vec<_> = (0..peers).map(|peer| format!("10.0.0.{peer}:80")).collect();
        let members = labels.iter().map(|label| (label.as_str(), Weight::ONE));
        Ring::new(Dialect::default(), members).unwrap()
    }

    /// Millionths of the traffic on the fullest of ten peers, one key of `share` spread, the rest as the ring
    /// has it; all of it relative to the fair share.
    fn fullest(ring: &Ring, key: u32, share: u32) -> u64 {
        const TURNS: u32 = 10_000;
        let mut hot = vec![0_u64; ring.members()];
        let walk: Vec<(MemberId, u16)> = ring
            .walk(&Hash(key.into()).into())
            .map(|peer| (peer, 1))
            .collect();
        let total = u32::try_from(walk.len()).unwrap();
        for turn in 0..TURNS {
            hot[THREE
                .choose(share, total, turn, walk.iter().copied())
                .unwrap()
                .index()] += 1;
        }
        let cold = u64::from(WHOLE - share);
        let load = ring.shares().into_iter().zip(hot).map(|(space, turns)| {
            ((cold * space) >> 32) + u64::from(share) * turns / u64::from(TURNS)
        });
        load.max().unwrap() * u64::from(total)
    }

    #[test]
    fn a_key_with_a_third_of_the_traffic_leaves_no_peer_above_its_bound() {
        let ring = ring(10);
        for key in 0..40 {
            let fullest = fullest(&ring, (mix(key) >> 32) as u32, 300_000);
            assert!(fullest <= 1_250_000, "{fullest}");
        }
    }

    proptest! {
        #[test]
        fn the_needed_weight_keeps_each_peer_within_the_headroom(
            share in 1..=WHOLE, total in 1..1_000_000_u32,
        ) {
            let needed = needed(share, total);
            let (s, w, all) = (u64::from(share), u64::from(needed), u64::from(total));
            prop_assert!(1 <= needed && needed <= total);
            // s × W / w - s ≤ h
            prop_assert!(s * all <= (s + u64::from(HEADROOM)) * w);
            prop_assert!(s * all > (s + u64::from(HEADROOM)) * (w - 1));
        }
    }
}
