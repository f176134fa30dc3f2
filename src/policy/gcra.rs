//! At most so many in a second: a token bucket that is one number (the generic cell rate algorithm).
//!
//! The bucket holds the tokens of a twentieth of a second, at least one, so that in no second more
//! than 1.05 times the rate, and one, are taken.

use std::time::Duration;

/// When the bucket is full again, since whatever time `now` counts from. Starts at zero.
pub type TheoreticalArrivalTime = Duration;

/// Takes a token at `now`; the debt then, or `None` if there is no token. `rate`: tokens in a
/// second; zero gives none.
pub fn take_token(
    debt: TheoreticalArrivalTime,
    now: Duration,
    rate: u32,
) -> Option<TheoreticalArrivalTime> {
    let step = Duration::from_secs(1).checked_div(rate)?;
    let slack = step * (rate / 20).saturating_sub(1);
    let from = debt.max(now.saturating_sub(slack));
    (from <= now).then(|| from + step)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn gcra_with_rate_zero_grants_nothing() {
        assert_eq!(take_token(Duration::ZERO, Duration::from_secs(9), 0), None);
    }

    proptest! {
        #[test]
        fn gcra_never_exceeds_the_rate_in_any_second(rate in 1..500_u32, gaps in prop::collection::vec(0..20_u64, 1..2000)) {
            let (mut debt, mut now, mut taken) = (Duration::ZERO, Duration::from_secs(100), Vec::new());
            for gap in gaps {
                now += Duration::from_millis(gap);
                if let Some(next) = take_token(debt, now, rate) {
                    debt = next;
                    taken.push(now);
                }
            }
            let most = rate as usize + (rate as usize / 20).max(1) + 1;
            for (index, first) in taken.iter().enumerate() {
                let second = taken[index..].iter().take_while(|at| **at < *first + Duration::from_secs(1));
                prop_assert!(second.count() <= most);
            }
        }

        #[test]
        fn gcra_with_frequent_requests_grants_the_full_rate(rate in 1..1000_u32) {
            let (mut debt, mut count) = (Duration::ZERO, 0);
            for millis in 0..10_000 {
                while let Some(next) = take_token(debt, Duration::from_millis(millis), rate) {
                    debt = next;
                    count += 1;
                }
            }
            // A slow rate has no slack: each token waits for the next time that it is asked for.
            let waits = 10_000 * rate / (1000 + rate);
            prop_assert!(count >= waits.min(rate * 10 - rate / 10 - 1), "{count}");
        }
    }
}
