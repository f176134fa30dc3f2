//! When a certificate is ordered: for the first time, anew before it ends, and again after a failure.
//!
//! ```text
//!  from                    half of its life        wished               until
//!   ├────────────────────────────┼──────────[ jitter ]┼────────────────────┤
//!                                 never earlier       never later than it ends
//! ```
//!
//! All times are seconds since 1970 on the wall clock, as certificates have them; a clock that is set is
//! judged anew with the next question. What looks random is taken from a seed, so that the same
//! certificate is renewed at the same time whoever asks, and two certificates are not renewed at once.
//!
//! Invariants:
//! * a certificate that is held is not ordered before half of its life is over, whatever is wished: a wish longer
//!   than its life would order it without end. The authority may suggest so, but not at once, for the same reason;
//! * it is ordered before it ends;
//! * after a failure nothing is ordered before its pause is over, and no pause is longer than [`LONGEST`].

use std::time::Duration;

/// The longest pause after a failure.
pub const MAX_PAUSE: Duration = Duration::from_secs(12 * 3600);

/// The first pause after a failure of each kind, and the longest; each failure doubles it.
const UNREACHABLE_PAUSE: (u64, u64) = (5, 10 * 60);
/// Let's Encrypt bears five failed validations of a name in an hour: these are at 0, 5, 15 and 35 minutes.
const REJECTED_PAUSE: (u64, u64) = (5 * 60, MAX_PAUSE.as_secs());
const RATE_LIMITED_PAUSE: (u64, u64) = (3600, MAX_PAUSE.as_secs());

/// How much of its life a certificate is left alone, and for how long at most; seconds. An authority whose
/// suggestion is in the past for every certificate would be asked for one after the other.
const MIN_AGE: (f64, u64) = (0.05, 24 * 3600);

/// How much of a certificate's life the jitter may take.
const RENEWAL_JITTER: f64 = 0.05;

/// How much of a pause its jitter may take.
const PAUSE_JITTER: f64 = 0.2;

/// How long before its end a certificate is renewed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RenewBefore {
    /// A share of its whole life, 0.0 ..= 1.0.
    Share(f64),
    /// This long.
    Time(Duration),
}

impl RenewBefore {
    /// When two thirds of its life are over.
    pub const DEFAULT: Self = Self::Share(1.0 / 3.0);
}

/// A certificate that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertificateLifetime {
    /// From when it is valid.
    pub not_before: i64,
    /// Until when.
    pub not_after: i64,
    /// Between which times the authority suggests to renew it (RFC 9773, 4.2).
    pub suggested_window: Option<(i64, i64)>,
}

/// Why the last order came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderFailure {
    /// The authority was not reached, or not able to: it costs nothing to try again soon.
    Unreachable,
    /// It refused, or did not see what it was to see.
    Rejected,
    /// It was asked too much already.
    RateLimited,
}

/// The failures since the last success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrderFailures {
    /// How many; at least 1.
    pub count: u32,
    /// When the last one was.
    pub last: i64,
    /// What it was.
    pub kind: OrderFailure,
}

impl OrderFailures {
    /// One more.
    pub fn with_failure(before: Option<Self>, failure: OrderFailure, now: i64) -> Self {
        // Another kind begins anew: its pauses are others.
        let same = before.filter(|before| before.kind == failure);
        Self {
            count: same.map_or(0, |before| before.count).saturating_add(1),
            last: now,
            kind: failure,
        }
    }

    /// When the pause after the last one is over.
    pub fn pause_end(&self, seed: u64) -> i64 {
        let (first, longest) = match self.kind {
            OrderFailure::Unreachable => UNREACHABLE_PAUSE,
            OrderFailure::Rejected => REJECTED_PAUSE,
            OrderFailure::RateLimited => RATE_LIMITED_PAUSE,
        };
        let doubled = first.saturating_mul(1_u64 << self.count.saturating_sub(1).min(16));
        let pause = doubled.min(longest);
        let jitter = fraction_of(
            pause,
            PAUSE_JITTER * unit_fraction(seed ^ u64::from(self.count)),
        );
        let pause = (pause + jitter).min(MAX_PAUSE.as_secs());
        self.last.saturating_add_unsigned(pause)
    }
}

/// When to order: now, where it is not later than that.
pub fn next_order(
    held: Option<CertificateLifetime>,
    before: RenewBefore,
    failures: Option<OrderFailures>,
    seed: u64,
) -> i64 {
    let wanted = held.map_or(i64::MIN, |held| renewal_time(held, before, seed));
    let allowed = failures.map_or(i64::MIN, |failures| failures.pause_end(seed));
    wanted.max(allowed)
}

/// When a certificate is renewed, if nothing fails.
pub fn renewal_time(held: CertificateLifetime, before: RenewBefore, seed: u64) -> i64 {
    let life = held
        .not_after
        .saturating_sub(held.not_before)
        .max(0)
        .unsigned_abs();
    let before = match before {
        RenewBefore::Share(share) => fraction_of(life, share),
        RenewBefore::Time(time) => time.as_secs(),
    };
    let jitter = fraction_of(life, RENEWAL_JITTER * unit_fraction(seed));
    let before = before.saturating_add(jitter).min(life / 2);
    let own = held.not_after.saturating_sub_unsigned(before);
    let new = fraction_of(life, MIN_AGE.0).min(MIN_AGE.1);
    let earliest = held.not_before.saturating_add_unsigned(new);
    match held.suggested_window {
        Some(window) => own.min(time_within(window, seed).max(earliest)),
        None => own,
    }
}

/// A time of the window, the same for the same seed (RFC 9773, 4.2).
fn time_within((start, end): (i64, i64), seed: u64) -> i64 {
    let length = end.saturating_sub(start).max(0).unsigned_abs();
    start.saturating_add_unsigned(fraction_of(length, unit_fraction(seed)))
}

/// 0.0 .. 1.0, the same for the same seed.
#[expect(
    clippy::cast_precision_loss,
    reason = "53 bits, which f64 holds exactly"
)]
fn unit_fraction(seed: u64) -> f64 {
    (splitmix64(seed) >> 11) as f64 / (1_u64 << 53) as f64
}

/// The finalizer of `SplitMix64` (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
fn splitmix64(seed: u64) -> u64 {
    let x = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "seconds, to the second as long as they are fewer than 2^53; a float beyond u64 becomes its bound"
)]
fn fraction_of(whole: u64, share: f64) -> u64 {
    (whole as f64 * share) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: i64 = 86_400;
    const MINUTE: i64 = 60;

    fn held(days: i64) -> CertificateLifetime {
        CertificateLifetime {
            not_before: 0,
            not_after: days * DAY,
            suggested_window: None,
        }
    }

    #[test]
    fn certificate_that_is_missing_is_ordered_at_once() {
        assert!(next_order(None, RenewBefore::DEFAULT, None, 7) <= 0);
    }

    #[test]
    fn certificate_is_renewed_after_two_thirds_of_its_life() {
        for seed in 0..100 {
            let at = next_order(Some(held(90)), RenewBefore::DEFAULT, None, seed);
            assert!((55 * DAY..=60 * DAY).contains(&at), "{}", at / DAY);
        }
    }

    #[test]
    fn certificate_renewals_are_spread_by_a_random_offset() {
        let mut all: Vec<i64> = (0..1000)
            .map(|seed| next_order(Some(held(90)), RenewBefore::DEFAULT, None, seed))
            .collect();
        all.sort_unstable();
        all.dedup();
        assert!(all.len() > 990);
    }

    #[test]
    fn certificate_renew_before_longer_than_its_life_is_capped() {
        let month = RenewBefore::Time(Duration::from_secs(30 * 86_400));
        assert_eq!(next_order(Some(held(6)), month, None, 1), 3 * DAY);
        assert_eq!(
            next_order(Some(held(6)), RenewBefore::Share(1.0), None, 1),
            3 * DAY
        );
    }

    #[test]
    fn certificate_ari_window_can_only_advance_the_renewal() {
        let wants = |start, end| {
            let suggested = Some((start * DAY, end * DAY));
            let held = CertificateLifetime {
                suggested_window: suggested,
                ..held(90)
            };
            next_order(Some(held), RenewBefore::DEFAULT, None, 3)
        };
        assert!((10 * DAY..=12 * DAY).contains(&wants(10, 12)));
        assert_eq!(wants(-2, -1), DAY, "not before it has had a day");
        assert!(wants(88, 89) <= 60 * DAY);
    }

    #[test]
    fn acme_refused_orders_are_limited_to_four_in_the_first_hour() {
        let (mut now, mut failures, mut orders) = (0, None, 0);
        while now < 60 * MINUTE {
            orders += 1;
            failures = Some(OrderFailures::with_failure(
                failures,
                OrderFailure::Rejected,
                now,
            ));
            now = next_order(None, RenewBefore::DEFAULT, failures, 9);
        }
        assert_eq!(orders, 4);
    }

    #[test]
    fn acme_server_unreachable_is_retried_within_seconds() {
        let once = OrderFailures::with_failure(None, OrderFailure::Unreachable, 0);
        assert!((5..=6).contains(&once.pause_end(0)));
        let often = OrderFailures { count: 40, ..once };
        assert!((600..=720).contains(&often.pause_end(0)));
    }

    #[test]
    fn acme_failure_of_another_class_resets_the_backoff() {
        let thrice = OrderFailures {
            count: 3,
            last: 0,
            kind: OrderFailure::Rejected,
        };
        let next = OrderFailures::with_failure(Some(thrice), OrderFailure::Unreachable, 1);
        assert_eq!((next.count, next.last), (1, 1));
        assert_eq!(
            OrderFailures::with_failure(Some(thrice), OrderFailure::Rejected, 1).count,
            4
        );
    }

    /// A year of one certificate: how often it was ordered, and how long none was valid.
    fn year(life: i64, before: RenewBefore, seed: u64, fails: impl Fn(i64) -> bool) -> (u32, i64) {
        let (mut now, mut orders, mut without) = (0, 0, 0);
        let (mut held, mut failures) = (None::<CertificateLifetime>, None);
        while now < 365 * DAY {
            let next = next_order(held, before, failures, seed).max(now);
            let gap_from = held.map_or(now, |held| held.not_after.max(now));
            without += (next - gap_from).max(0);
            now = next;
            orders += 1;
            if fails(now) {
                failures = Some(OrderFailures::with_failure(
                    failures,
                    OrderFailure::Rejected,
                    now,
                ));
            } else {
                failures = None;
                held = Some(CertificateLifetime {
                    not_before: now,
                    not_after: now + life,
                    suggested_window: None,
                });
            }
        }
        (orders, without)
    }

    proptest! {
        #[test]
        fn certificate_with_successful_renewals_never_expires(
            days in 1_i64..400, share in 0.0..1.0_f64, seed: u64,
        ) {
            let (orders, without) = year(days * DAY, RenewBefore::Share(share), seed, |_| false);
            prop_assert_eq!(without, 0);
            prop_assert!(i64::from(orders) <= 2 * 365 / days + 2, "{} orders", orders);
        }

        #[test]
        fn certificate_survives_a_week_without_acme_server(begin in 1_i64..300, seed: u64) {
            let away = begin * DAY..(begin + 7) * DAY;
            let (_, without) = year(90 * DAY, RenewBefore::DEFAULT, seed, |now| away.contains(&now));
            prop_assert_eq!(without, 0);
        }

        #[test]
        fn acme_permanent_failures_cause_about_two_orders_per_day(seed: u64) {
            let (orders, _) = year(90 * DAY, RenewBefore::DEFAULT, seed, |_| true);
            prop_assert!(orders < 2 * 365 + 20, "{} orders", orders);
        }

        #[test]
        fn acme_backoff_is_within_its_bounds(
            count in 1_u32.., last in 0..4_000_000_000_i64, seed: u64, kind in 0..3_usize,
        ) {
            let failure = [OrderFailure::Unreachable, OrderFailure::Rejected, OrderFailure::RateLimited][kind];
            let pause = OrderFailures { count, last, kind: failure }.pause_end(seed) - last;
            prop_assert!((5..=MAX_PAUSE.as_secs().cast_signed()).contains(&pause));
        }

        #[test]
        fn cert_renewal_extreme_arguments_do_not_overflow(from: i64, until: i64, start: i64, end: i64, seed: u64, time: u64) {
            let held = CertificateLifetime { not_before: from, not_after: until, suggested_window: Some((start, end)) };
            next_order(Some(held), RenewBefore::Time(Duration::from_secs(time)), None, seed);
            next_order(Some(held), RenewBefore::Share(1.0), None, seed);
        }
    }
}
