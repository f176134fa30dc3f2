//! A rate limit by the generic cell rate algorithm (GCRA): a token bucket in one number.
//!
//! In any span of time, at most as many tokens are taken as fit into it, plus those that the bucket holds, plus one.

use std::time::Duration;

/// When the bucket will be full again, on the clock of `now`. Starts at zero.
pub(crate) type TheoreticalArrivalTime = Duration;

/// Takes a token at `now` and returns the new state; `None` if the bucket is empty. `interval`: from one new token to the
/// next; `burst`: the tokens that the bucket holds, where 0 counts as 1.
pub(crate) fn take_token(
    state: TheoreticalArrivalTime,
    now: Duration,
    interval: Duration,
    burst: u32,
) -> Option<TheoreticalArrivalTime> {
    let tolerance = interval.saturating_mul(burst.saturating_sub(1));
    let arrival = state.max(now.saturating_sub(tolerance));
    (arrival <= now).then(|| arrival + interval)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn gcra_burst_is_taken_at_once_and_comes_back_one_by_one() {
        let second = Duration::from_secs(1);
        let taken_at = |state: &mut Duration, now| {
            let take = || take_token(*state, now, second, 3).map(|next| *state = next);
            std::iter::repeat_with(take)
                .take_while(Option::is_some)
                .count()
        };
        let mut state = Duration::ZERO;
        assert_eq!(taken_at(&mut state, second * 10), 3);
        assert_eq!(taken_at(&mut state, second * 11), 1);
        assert_eq!(taken_at(&mut state, second * 20), 3);
    }

    proptest! {
        #[test]
        fn gcra_never_exceeds_rate_and_burst_in_any_second(
            rate in 1..500_u32,
            burst in 0..50_u32,
            gaps in prop::collection::vec(0..20_u64, 1..2000),
        ) {
            let interval = Duration::from_secs(1) / rate;
            let (mut state, mut now, mut taken) = (Duration::ZERO, Duration::from_secs(100), Vec::new());
            for gap in gaps {
                now += Duration::from_millis(gap);
                if let Some(next) = take_token(state, now, interval, burst) {
                    state = next;
                    taken.push(now);
                }
            }
            let most = rate as usize + burst.max(1) as usize + 1;
            for (index, first) in taken.iter().enumerate() {
                let second = taken[index..].iter().take_while(|at| **at < *first + Duration::from_secs(1));
                prop_assert!(second.count() <= most);
            }
        }

        #[test]
        fn gcra_with_frequent_requests_grants_the_full_rate(rate in 1..1000_u32) {
            let (interval, burst) = (Duration::from_secs(1) / rate, rate / 20);
            let (mut state, mut count) = (Duration::ZERO, 0);
            for millis in 0..10_000 {
                while let Some(next) = take_token(state, Duration::from_millis(millis), interval, burst) {
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
