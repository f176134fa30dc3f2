//! When a certificate is ordered: for the first time, for renewal, and again after a failure.
//!
//! ```text
//!  not_before              half of its life       renew before           not_after
//!   ├────────────────────────────┼──────────[ jitter ]┼────────────────────┤
//!                                 not before this     and before its end
//! ```
//!
//! All times are seconds since 1970 on the wall clock, as in certificates; each call starts from the
//! current time, so a clock that is set needs no special case. Jitter is derived from a seed: the renewal
//! time of one certificate is the same in every process, and those of two certificates differ.
//!
//! After a failure nothing is ordered before the pause is over, and no pause is longer than [`MAX_PAUSE`].

use std::time::Duration;

use super::hash_mix::mix;

/// The longest pause after a failure.
pub(crate) const MAX_PAUSE: Duration = Duration::from_secs(12 * 3600);

/// The first and the longest pause for each [`OrderFailure`], in seconds; each failure doubles the pause.
const UNREACHABLE_PAUSE: (u64, u64) = (5, 10 * 60);
/// Let's Encrypt allows five failed validations of a name in an hour; these are at 0, 5, 15 and 35 minutes.
const REJECTED_PAUSE: (u64, u64) = (5 * 60, MAX_PAUSE.as_secs());
const RATE_LIMITED_PAUSE: (u64, u64) = (3600, MAX_PAUSE.as_secs());

/// The least age at which a certificate is renewed: this share of its life, at most this many seconds.
/// Without it, an authority that suggests a window in the past for every new certificate would cause one
/// order after the other.
const MIN_AGE: (f64, u64) = (0.05, 24 * 3600);

/// The largest jitter of a renewal, as a share of the certificate's life.
const RENEWAL_JITTER: f64 = 0.05;

/// The largest jitter of a pause, as a share of the pause.
const PAUSE_JITTER: f64 = 0.2;

/// The increment of `SplitMix64` (Steele, Lea and Flood, OOPSLA 2014).
const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// The time before its end at which a certificate is renewed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RenewBefore {
    /// A share of its life, 0.0 ..= 1.0.
    Share(f64),
    /// A fixed time.
    Time(Duration),
}

impl RenewBefore {
    /// After two thirds of its life.
    pub const DEFAULT: Self = Self::Share(1.0 / 3.0);
}

/// The life of an issued certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CertificateLifetime {
    /// The start of its validity.
    pub not_before: i64,
    /// The end of its validity.
    pub not_after: i64,
    /// The renewal window that the authority suggests (RFC 9773 §4.2).
    pub suggested_window: Option<(i64, i64)>,
}

/// Why an order failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OrderFailure {
    /// The authority was not reached or failed itself; an early retry costs nothing.
    Unreachable,
    /// The authority rejected the order, or a validation failed.
    Rejected,
    /// A rate limit of the authority was exceeded.
    RateLimited,
}

/// The failures of one kind since the last success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OrderFailures {
    /// Their number; at least 1.
    pub count: u32,
    /// The time of the last one.
    pub last: i64,
    /// The kind of the last one.
    pub kind: OrderFailure,
}

impl OrderFailures {
    /// The failures after one more at `now`. A failure of another kind starts from 1, with the pauses of
    /// its kind.
    pub(crate) fn with_failure(before: Option<Self>, failure: OrderFailure, now: i64) -> Self {
        let same = before.filter(|before| before.kind == failure);
        Self {
            count: same.map_or(0, |before| before.count).saturating_add(1),
            last: now,
            kind: failure,
        }
    }

    /// The end of the pause after the last one.
    pub(crate) fn pause_end(&self, seed: u64) -> i64 {
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

/// The time of the next order; in the past: order now. `held` is the certificate in use, if any.
pub(crate) fn next_order(
    held: Option<CertificateLifetime>,
    before: RenewBefore,
    failures: Option<OrderFailures>,
    seed: u64,
) -> i64 {
    let wanted = held.map_or(i64::MIN, |held| renewal_time(held, before, seed));
    let allowed = failures.map_or(i64::MIN, |failures| failures.pause_end(seed));
    wanted.max(allowed)
}

/// The time at which a certificate is renewed if no order fails: before its end, and not before half of its
/// life. A configured time longer than the life would otherwise cause one order after the other. The window
/// that the authority suggests may advance the renewal, down to [`MIN_AGE`].
pub(crate) fn renewal_time(held: CertificateLifetime, before: RenewBefore, seed: u64) -> i64 {
    let life = held
        .not_after
        .saturating_sub(held.not_before)
        .max(0)
        .unsigned_abs();
    let margin = match before {
        RenewBefore::Share(share) => fraction_of(life, share),
        RenewBefore::Time(time) => time.as_secs(),
    };
    let jitter = fraction_of(life, RENEWAL_JITTER * unit_fraction(seed));
    let margin = margin.saturating_add(jitter).min(life / 2);
    let configured = held.not_after.saturating_sub_unsigned(margin);
    let min_age = fraction_of(life, MIN_AGE.0).min(MIN_AGE.1);
    let earliest = held.not_before.saturating_add_unsigned(min_age);
    match held.suggested_window {
        Some(window) => configured.min(time_within(window, seed).max(earliest)),
        None => configured,
    }
}

/// A time in the window, chosen by the seed (RFC 9773 §4.2).
fn time_within((start, end): (i64, i64), seed: u64) -> i64 {
    let length = end.saturating_sub(start).max(0).unsigned_abs();
    start.saturating_add_unsigned(fraction_of(length, unit_fraction(seed)))
}

/// A number in 0.0 .. 1.0, derived from the seed.
#[expect(
    clippy::cast_precision_loss,
    reason = "53 bits, which f64 holds exactly"
)]
fn unit_fraction(seed: u64) -> f64 {
    (mix(seed.wrapping_add(GOLDEN_GAMMA)) >> 11) as f64 / (1_u64 << 53) as f64
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
        let renewal = |start, end| {
            let suggested = Some((start * DAY, end * DAY));
            let held = CertificateLifetime {
                suggested_window: suggested,
                ..held(90)
            };
            next_order(Some(held), RenewBefore::DEFAULT, None, 3)
        };
        assert!((10 * DAY..=12 * DAY).contains(&renewal(10, 12)));
        assert_eq!(renewal(-2, -1), DAY, "not before its least age, a day");
        assert!(renewal(88, 89) <= 60 * DAY);
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

    /// A year of one certificate: the number of orders, and the seconds without a valid certificate.
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
            let outage = begin * DAY..(begin + 7) * DAY;
            let (_, without) = year(90 * DAY, RenewBefore::DEFAULT, seed, |now| outage.contains(&now));
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
