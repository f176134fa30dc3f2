//! A rate limit by the generic cell rate algorithm (GCRA): a token bucket in one number.
//!
//! The bucket holds the tokens of a twentieth of a second, at least one. So at most 1.05 times the rate,
//! plus one, are taken in any second.

use std::time::Duration;

/// When the bucket will be full again, on the clock of `now`. Starts at zero.
pub(crate) type TheoreticalArrivalTime = Duration;

/// Takes a token at `now` and returns the new state; `None` if the bucket is empty. `rate`: tokens per second;
/// zero grants none.
pub(crate) fn take_token(
    state: TheoreticalArrivalTime,
    now: Duration,
    rate: u32,
) -> Option<TheoreticalArrivalTime> {
    let interval = Duration::from_secs(1).checked_div(rate)?;
    let burst = interval * (rate / 20).saturating_sub(1);
    let arrival = state.max(now.saturating_sub(burst));
    (arrival <= now).then(|| arrival + interval)
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
            let (mut state, mut now, mut taken) = (Duration::ZERO, Duration::from_secs(100), Vec::new());
            for gap in gaps {
                now += Duration::from_millis(gap);
                if let Some(next) = take_token(state, now, rate) {
                    state = next;
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
            let (mut state, mut count) = (Duration::ZERO, 0);
            for millis in 0..10_000 {
                while let Some(next) = take_token(state, Duration::from_millis(millis), rate) {
                    state = next;
                    count += 1;
                }
            }
            // A slow rate has no burst: each token waits for the next request.
            let without_burst = 10_000 * rate / (1000 + rate);
            prop_assert!(count >= without_burst.min(rate * 10 - rate / 10 - 1), "{count}");
        }
    }
}
