//! Consistent hashing with bounded loads: how many requests a peer may hold.
//!
//! The bound of Mirrokni, Thorup and Zadimoghaddam (arXiv 1608.01350), with weights: of `total` requests in
//! flight, the one to be placed included, a peer of weight `w` among peers of total weight `W` holds at
//! most ⌈factor × total × w / W⌉. A request with a full owner goes to a later peer of the walk (*overflow*, see
//! [`BalanceFactor::OVERFLOW_STEPS`]); its key returns to the owner as soon as that has room.
//!
//! `W` counts only peers that can serve (up, not draining, not ejected; a peer in a slow start in part), or
//! their bounds would not add up to `total`. `total` leaves out the requests at the other peers, which
//! would only widen the bounds.
//!
//! Invariants:
//! * the bounds of all peers add up to at least factor × total, so one of them has room for the next request;
//! * no bound is 0, and a bound never falls when `total` rises;
//! * integers only, exact, without overflow for any argument.

/// The factor 1, in thousandths.
const THOUSANDTHS: u16 = 1000;

/// The most that a peer may hold, as a multiple of its fair share; 1.01 ..= 10 for a configured factor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BalanceFactor {
    thousandths: u16,
}

impl BalanceFactor {
    /// The fair share itself, a limit for overflow. Not a configured factor: the load of an owner's keys
    /// varies.
    pub const FAIR_SHARE: Self = Self {
        thousandths: THOUSANDTHS,
    };
    /// Four fifths of the fair share, the first limit for overflow.
    pub const FOUR_FIFTHS: Self = Self { thousandths: 800 };
    /// The limits for overflow, tried in this order before the bound itself. The range from the fair share
    /// to the bound is for a peer's own keys: overflow that took it would make those overflow in turn, and
    /// so on around the ring. The fair shares add up to `total`, so with a request still to be placed a
    /// peer has room.
    ///
    /// In a simulation (2,000 keys of Zipf 1.1, 100 requests in flight, 10 peers, factor 1.25; the mean of 12
    /// rings), percentage of requests away from their owner:
    ///
    /// | overflow goes to | away |
    /// |---|---:|
    /// | the first peer below its bound | 28.3 |
    /// | the first below its fair share | 22.1 |
    /// | the first below four fifths of it, then as above | 21.5 |
    /// | the least loaded of all peers | 21.4 |
    /// | nowhere: each peer serves its own keys only | 20.1 |
    /// | requests above the bounds at a moment, if requests could be moved while they are served | 16.6 |
    ///
    /// No rule that places a request at once can do better than the last line but one. The least loaded
    /// peer gains almost nothing over the first clockwise below four fifths, which keeps the overflow of a
    /// key together.
    ///
    /// What exceeds the last line comes from owners that were full only for a moment. A request that waits
    /// for room stays with its owner: on one ring, with requests of 20 ms and at most two waiting per peer,
    /// a wait of 5 ms leaves 14.8 % away, and no wait leaves 19.9 %. The last line of the table would be
    /// 15.0 % for that ring.
    pub const OVERFLOW_STEPS: [Self; 2] = [Self::FOUR_FIFTHS, Self::FAIR_SHARE];
    /// The tightest bound, 1.01. Below it almost every request with a full owner has a long walk.
    pub const MIN: Self = Self { thousandths: 1010 };
    /// The loosest bound, 10.
    pub const MAX: Self = Self {
        thousandths: 10_000,
    };

    /// Creates a factor from thousandths: 1250 is 1.25. `None` outside 1.01 ..= 10.
    pub fn new(thousandths: u16) -> Option<Self> {
        (Self::MIN.thousandths..=Self::MAX.thousandths)
            .contains(&thousandths)
            .then_some(Self { thousandths })
    }

    /// Parses `2` or `1.25`, with up to three decimals; `None` for other text and outside 1.01 ..= 10.
    pub fn parse(text: &str) -> Option<Self> {
        let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
        let digits =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(decimals) || decimals.len() > 3 {
            return None;
        }
        let thousandths = format!("{whole}{decimals:0<3}").parse().ok()?;
        Self::new(thousandths)
    }

    /// The factor in thousandths.
    pub const fn thousandths(self) -> u16 {
        self.thousandths
    }

    /// The most requests that a peer may hold when `total` are in flight, the one to be placed included; at
    /// least 1. `total_weight` is the sum over all peers that can serve, this one included.
    #[inline]
    pub fn capacity(self, total: u32, weight: u16, total_weight: u32) -> u32 {
        let fair = self.scaled_share(total, weight);
        let unit = u64::from(THOUSANDTHS) * u64::from(total_weight.max(1));
        u32::try_from(fair.div_ceil(unit).max(1)).unwrap_or(u32::MAX)
    }

    /// Whether a peer with `held` requests may take one more: `held < capacity(…)`, without its division.
    #[inline]
    pub fn has_room(self, held: u32, total: u32, weight: u16, total_weight: u32) -> bool {
        let unit = u64::from(THOUSANDTHS) * u64::from(total_weight.max(1));
        let needed = u128::from(held) * u128::from(unit);
        held == 0 || needed < u128::from(self.scaled_share(total, weight))
    }

    /// factor × total × weight, in thousandths: at most 14 + 32 + 16 = 62 bits.
    fn scaled_share(self, total: u32, weight: u16) -> u64 {
        u64::from(self.thousandths) * u64::from(total) * u64::from(weight)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::hash_mix::mix;
    use crate::ring::{Dialect, Hash, MemberId, Ring, Weight};

    const QUARTER: BalanceFactor = BalanceFactor { thousandths: 1250 };

    fn factors() -> impl Strategy<Value = BalanceFactor> {
        let configured = BalanceFactor::MIN.thousandths..=BalanceFactor::MAX.thousandths;
        prop_oneof![
            Just(BalanceFactor::FAIR_SHARE),
            Just(BalanceFactor::FOUR_FIFTHS),
            configured.prop_map(|n| BalanceFactor::new(n).unwrap())
        ]
    }

    #[test]
    fn bounded_load_capacity_is_fair_share_times_factor_rounded_up() {
        assert_eq!(QUARTER.capacity(100, 1, 10), 13);
        assert_eq!(QUARTER.capacity(104, 1, 10), 13);
        assert_eq!(QUARTER.capacity(105, 1, 10), 14);
        assert_eq!(QUARTER.capacity(80, 1, 10), 10);
        assert_eq!(QUARTER.capacity(100, 3, 12), 32);
        assert_eq!(QUARTER.capacity(1, 1, 1000), 1);
        assert_eq!(BalanceFactor::MIN.capacity(1_000_000, 1, 10), 101_000);
    }

    #[test]
    fn bounded_load_factor_outside_its_range_is_rejected() {
        assert_eq!(BalanceFactor::new(1009), None);
        assert_eq!(BalanceFactor::new(1010), Some(BalanceFactor::MIN));
        assert_eq!(BalanceFactor::new(10_000), Some(BalanceFactor::MAX));
        assert_eq!(BalanceFactor::new(10_001), None);
    }

    #[test]
    fn bounded_load_factor_is_parsed_with_up_to_three_decimals() {
        let read = |text| BalanceFactor::parse(text).map(BalanceFactor::thousandths);
        assert_eq!(read("1.25"), Some(1250));
        assert_eq!(read("2"), Some(2000));
        assert_eq!(read("1.010"), Some(1010));
        for text in [
            "",
            ".",
            "1.",
            ".5",
            "1",
            "11",
            "1.2345",
            "-2",
            "1e1",
            "99999999999",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn bounded_load_with_degenerate_arguments_does_not_overflow() {
        assert_eq!(QUARTER.capacity(0, 0, 0), 1);
        assert_eq!(BalanceFactor::MAX.capacity(u32::MAX, u16::MAX, 0), u32::MAX);
        assert!(BalanceFactor::MAX.has_room(u32::MAX - 1, u32::MAX, u16::MAX, 0));
        assert!(!QUARTER.has_room(u32::MAX, u32::MAX, 1, u32::MAX));
    }

    /// 100 clients that always have a request in flight, on ten equal peers; requests end in random order.
    struct Simulation {
        walks: Vec<Vec<MemberId>>,
        /// The cumulative share of each key, ascending; the last is 1.
        popularity: Vec<f64>,
        /// The serving peer and the owner of each request.
        in_flight: Vec<(MemberId, MemberId)>,
        held: [u32; 10],
        /// Requests in flight by owner.
        owned: [u32; 10],
    }

    impl Simulation {
        fn new(seed: u64) -> Self {
            let labels: Vec<_> = (0..10)
                .map(|peer| format!("{seed}.0.0.{peer}:80"))
                .collect();
            let members = labels.iter().map(|label| (label.as_str(), Weight::ONE));
            let ring = Ring::new(Dialect::default(), members).unwrap();
            let hashed = |key: u64| Hash(mix(seed << 32 | key) >> 32).into();
            let weights = (1..=2000).map(|rank| f64::from(rank).powf(-1.1));
            let total: f64 = weights.clone().sum();
            let sums = weights.scan(0.0, |sum, weight| {
                *sum += weight / total;
                Some(*sum)
            });
            Self {
                walks: (0..2000)
                    .map(|key| ring.walk(&hashed(key)).collect())
                    .collect(),
                popularity: sums.collect(),
                in_flight: Vec::new(),
                held: [0; 10],
                owned: [0; 10],
            }
        }

        /// Places one request; whether another peer than its owner serves it.
        fn begin(&mut self, draw: u64, overflow: &[BalanceFactor]) -> bool {
            let point = f64::from((draw >> 32) as u32) / f64::from(u32::MAX);
            let key = self
                .popularity
                .partition_point(|sum| *sum < point)
                .min(1999);
            let walk = &self.walks[key];
            let total = u32::try_from(self.in_flight.len()).unwrap() + 1;
            let room = |peer: MemberId, factor: BalanceFactor| {
                let has_room = factor.has_room(self.held[peer.index()], total, 1, 10);
                has_room.then_some(peer)
            };
            let owner = room(walk[0], QUARTER);
            let mut limits = overflow.iter();
            let elsewhere =
                || limits.find_map(|limit| walk.iter().find_map(|peer| room(*peer, *limit)));
            let peer = owner.or_else(elsewhere).expect("some peer has room");
            self.held[peer.index()] += 1;
            self.owned[walk[0].index()] += 1;
            self.in_flight.push((peer, walk[0]));
            peer != walk[0]
        }

        fn end(&mut self, draw: u64) {
            let index = draw % self.in_flight.len() as u64;
            let (peer, owner) = self.in_flight.swap_remove(usize::try_from(index).unwrap());
            self.held[peer.index()] -= 1;
            self.owned[owner.index()] -= 1;
        }

        /// The percentage of requests away from their owner, and the least that is possible.
        fn run(mut self, seed: u64, overflow: &[BalanceFactor]) -> (u32, u32) {
            const REQUESTS: u32 = 20_000;
            let (mut away, mut least) = (0, 0);
            for request in 0..REQUESTS {
                let draw = mix(seed << 32 | u64::from(request));
                if request >= 100 {
                    self.end(mix(draw));
                }
                away += u32::from(self.begin(draw, overflow));
                least += self
                    .owned
                    .iter()
                    .map(|owned| owned.saturating_sub(13))
                    .sum::<u32>();
                assert!(self.held.iter().all(|held| *held <= 13));
            }
            (away * 100 / REQUESTS, least / REQUESTS)
        }
    }

    #[test]
    fn bounded_load_overflow_with_reserve_keeps_more_requests_on_their_owner() {
        for seed in 0..5 {
            let (greedy, _) = Simulation::new(seed).run(seed, &[QUARTER]);
            let (fair, _) = Simulation::new(seed).run(seed, &[BalanceFactor::FAIR_SHARE]);
            let (stepwise, least) = Simulation::new(seed).run(seed, &BalanceFactor::OVERFLOW_STEPS);
            let numbers =
                format!("seed {seed}: {greedy} %, {fair} %, {stepwise} %, at least {least} %");
            assert!(
                stepwise <= fair && stepwise + 3 <= greedy && stepwise <= least * 3 / 2,
                "{numbers}"
            );
        }
    }

    proptest! {
        #[test]
        fn bounded_load_total_capacity_is_at_least_factor_times_total(
            factor in factors(),
            total in 1..u32::MAX / 10, // above, one peer's bound may not fit its number
            weights in prop::collection::vec(1..=256_u16, 1..200),
        ) {
            let all: u32 = weights.iter().copied().map(u32::from).sum();
            let room: u64 = weights.iter().map(|w| u64::from(factor.capacity(total, *w, all))).sum();
            let needed = u64::from(factor.thousandths) * u64::from(total);
            prop_assert!(room * u64::from(THOUSANDTHS) >= needed);
            prop_assert!(factor == BalanceFactor::FOUR_FIFTHS || room >= u64::from(total));
        }

        #[test]
        fn bounded_load_has_room_equals_load_below_capacity(
            factor in factors(),
            total in 1..2_000_000_u32,
            weight in 1..=256_u16,
            others in 0..1_000_000_u32,
            off in -2..=2_i64,
        ) {
            let all = others + u32::from(weight);
            let capacity = factor.capacity(total, weight, all);
            let held = u32::try_from((i64::from(capacity) + off).max(0)).unwrap();
            prop_assert_eq!(factor.has_room(held, total, weight, all), held < capacity);
        }

        #[test]
        fn bounded_load_capacity_grows_with_total_in_flight(
            factor in factors(), total in 1..u32::MAX, weight in 1..=256_u16, others in 0..1_000_000_u32,
        ) {
            let all = others + u32::from(weight);
            let [now, then] = [total, total + 1].map(|total| factor.capacity(total, weight, all));
            prop_assert!(1 <= now && now <= then);
        }
    }
}
