//! How many requests a peer may hold: its fair share of all that are in flight, times a factor.
//!
//! Consistent hashing with bounded loads (Mirrokni, Thorup and Zadimoghaddam, arXiv 1608.01350), with
//! weights: of `total` requests in flight, the one to be placed included, a peer of weight `w` among
//! peers of `W` in all holds at most ⌈factor × total × w / W⌉. A request whose owner is full goes on
//! clockwise; it belongs to the owner again as soon as there is room.
//!
//! `W` counts the peers that can serve: up, not draining, not ejected. One that cannot would take room
//! with it that nobody can use, and then the bounds of the rest would not add up to `total`.
//!
//! Invariants:
//! * the bounds of all peers together are at least factor × total, so one of them has room for the
//!   next request, as the factor is above 1;
//! * no bound is 0, and a bound never falls when `total` rises;
//! * integers only, exact, without overflow for any argument.
//!
//! Who holds how many is counted in the upstream's load; nothing is counted here.

/// Parts of the factor's unit.
const UNIT: u16 = 1000;

/// The factor by which a peer may be above its fair share: 1.01 ..= 10.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bound {
    thousandths: u16,
}

impl Bound {
    /// The tightest bound, 1.01. Below it almost every request of a full peer walks far.
    pub const MIN: Self = Self { thousandths: 1010 };
    /// The loosest, 10.
    pub const MAX: Self = Self {
        thousandths: 10_000,
    };

    /// A factor in thousandths, so 1250 for 1.25; `None` outside 1.01 ..= 10.
    pub fn new(thousandths: u16) -> Option<Self> {
        (Self::MIN.thousandths..=Self::MAX.thousandths)
            .contains(&thousandths)
            .then_some(Self { thousandths })
    }

    /// The factor in thousandths.
    pub const fn thousandths(self) -> u16 {
        self.thousandths
    }

    /// The most requests that a peer may hold when `total` are in flight, the one to be placed
    /// included; at least 1. `total_weight` is that of all peers that can serve, this one among them.
    #[inline]
    pub fn capacity(self, total: u32, weight: u16, total_weight: u32) -> u32 {
        let fair = self.scaled(total, weight);
        let unit = u64::from(UNIT) * u64::from(total_weight.max(1));
        u32::try_from(fair.div_ceil(unit).max(1)).unwrap_or(u32::MAX)
    }

    /// Whether a peer that holds `held` may take one more: the same as `held < capacity(…)`,
    /// without a division.
    #[inline]
    pub fn has_room(self, held: u32, total: u32, weight: u16, total_weight: u32) -> bool {
        let unit = u64::from(UNIT) * u64::from(total_weight.max(1));
        let needed = u128::from(held) * u128::from(unit);
        held == 0 || needed < u128::from(self.scaled(total, weight))
    }

    /// factor × total × weight, in thousandths: at most 14 + 32 + 16 bits.
    fn scaled(self, total: u32, weight: u16) -> u64 {
        u64::from(self.thousandths) * u64::from(total) * u64::from(weight)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const QUARTER: Bound = Bound { thousandths: 1250 };

    fn bounds() -> impl Strategy<Value = Bound> {
        (Bound::MIN.thousandths..=Bound::MAX.thousandths).prop_map(|n| Bound::new(n).unwrap())
    }

    #[test]
    fn the_bound_is_the_fair_share_times_the_factor_rounded_up() {
        assert_eq!(QUARTER.capacity(100, 1, 10), 13);
        assert_eq!(QUARTER.capacity(104, 1, 10), 13);
        assert_eq!(QUARTER.capacity(105, 1, 10), 14);
        assert_eq!(QUARTER.capacity(80, 1, 10), 10);
        assert_eq!(QUARTER.capacity(100, 3, 12), 32);
        assert_eq!(QUARTER.capacity(1, 1, 1000), 1);
        assert_eq!(Bound::MIN.capacity(1_000_000, 1, 10), 101_000);
    }

    #[test]
    fn the_factor_has_limits() {
        assert_eq!(Bound::new(1009), None);
        assert_eq!(Bound::new(1010), Some(Bound::MIN));
        assert_eq!(Bound::new(10_000), Some(Bound::MAX));
        assert_eq!(Bound::new(10_001), None);
    }

    #[test]
    fn arguments_that_make_no_sense_do_no_harm() {
        assert_eq!(QUARTER.capacity(0, 0, 0), 1);
        assert_eq!(Bound::MAX.capacity(u32::MAX, u16::MAX, 0), u32::MAX);
        assert!(Bound::MAX.has_room(u32::MAX - 1, u32::MAX, u16::MAX, 0));
        assert!(!QUARTER.has_room(u32::MAX, u32::MAX, 1, u32::MAX));
    }

    proptest! {
        #[test]
        fn one_peer_always_has_room(
            bound in bounds(),
            total in 1..u32::MAX / 10, // above, one peer's bound may not fit its number
            weights in prop::collection::vec(1..=256_u16, 1..200),
        ) {
            let all: u32 = weights.iter().copied().map(u32::from).sum();
            let room: u64 = weights.iter().map(|w| u64::from(bound.capacity(total, *w, all))).sum();
            let asked = u64::from(bound.thousandths) * u64::from(total);
            prop_assert!(room * u64::from(UNIT) >= asked);
            prop_assert!(room >= u64::from(total));
        }

        #[test]
        fn room_is_what_is_left_below_the_bound(
            bound in bounds(),
            total in 1..2_000_000_u32,
            weight in 1..=256_u16,
            others in 0..1_000_000_u32,
            off in -2..=2_i64,
        ) {
            let all = others + u32::from(weight);
            let capacity = bound.capacity(total, weight, all);
            let held = u32::try_from((i64::from(capacity) + off).max(0)).unwrap();
            prop_assert_eq!(bound.has_room(held, total, weight, all), held < capacity);
        }

        #[test]
        fn more_in_flight_never_means_less_room(
            bound in bounds(), total in 1..u32::MAX, weight in 1..=256_u16, others in 0..1_000_000_u32,
        ) {
            let all = others + u32::from(weight);
            let [now, then] = [total, total + 1].map(|total| bound.capacity(total, weight, all));
            prop_assert!(1 <= now && now <= then);
        }
    }
}
