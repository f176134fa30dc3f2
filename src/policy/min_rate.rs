//! The minimum average rate of a body: its bytes, divided by the time in which the proxy waited for the client.
//!
//! As in Kestrel (`MinRequestBodyDataRate`), bytes and waits are summed from the start of the body. So a client may pause
//! after a fast part, and time in which the proxy itself does not read is not counted. Apache (`mod_reqtimeout`, `MinRate`)
//! and Jetty (`minRequestDataRate`) count all the time since the start; nginx and HAProxy limit single pauses only.

use std::time::Duration;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// A minimum rate, and the total wait that is allowed before it applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MinRate {
    /// Bytes a second; at least 1, at most 10^9.
    pub rate: u64,
    /// The total wait that is always allowed, however few bytes were transferred.
    pub grace: Duration,
}

impl MinRate {
    /// Kestrel's default: 240 bytes a second after 5 s.
    pub const DEFAULT: Self = Self {
        rate: 240,
        grace: Duration::from_secs(5),
    };

    /// The longest total wait for a body of which `bytes` were transferred: `bytes / rate`, but at least `grace`.
    fn allowance(self, bytes: u64) -> Duration {
        let rate = self.rate.max(1);
        let nanos = (bytes % rate).saturating_mul(NANOS_PER_SECOND) / rate;
        let at_rate = Duration::from_secs(bytes / rate).saturating_add(Duration::from_nanos(nanos));
        at_rate.max(self.grace)
    }
}

/// The bytes of one body so far, and the time in which the proxy waited for the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RateMeter {
    /// Bytes transferred so far.
    pub(crate) bytes: u64,
    /// The total time of the waits that have ended.
    pub(crate) waited: Duration,
    /// The start of the current wait; `None`: the proxy does not wait.
    pub(crate) waiting_since: Option<Duration>,
}

impl RateMeter {
    /// Begins a wait, unless one has begun.
    pub(crate) fn begin_wait(&mut self, now: Duration) {
        self.waiting_since.get_or_insert(now);
    }

    /// Ends the wait, if one has begun.
    pub(crate) fn end_wait(&mut self, now: Duration) {
        if let Some(since) = self.waiting_since.take() {
            self.waited = self.waited.saturating_add(now.saturating_sub(since));
        }
    }

    /// The time at which the current wait is too long; `None`: the proxy does not wait.
    pub(crate) fn deadline(self, least: MinRate) -> Option<Duration> {
        let left = least.allowance(self.bytes).saturating_sub(self.waited);
        Some(self.waiting_since?.saturating_add(left))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEAST: MinRate = MinRate {
        rate: 100,
        grace: Duration::from_secs(5),
    };

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// One piece of a client's body: the wait for it, its bytes, and the time after it in which the proxy does not read.
    type Piece = (Duration, u64, Duration);

    /// The total wait after which a client times out; `None`: every piece arrives in time.
    fn end_of(pieces: impl IntoIterator<Item = Piece>) -> Option<Duration> {
        let mut meter = RateMeter::default();
        let mut now = Duration::from_secs(1_000);
        for (gap, bytes, busy) in pieces {
            meter.begin_wait(now);
            let deadline = meter.deadline(LEAST).unwrap();
            if deadline < now + gap {
                return Some(meter.waited + deadline.saturating_sub(now));
            }
            now += gap;
            meter.end_wait(now);
            meter.bytes += bytes;
            assert_eq!(meter.deadline(LEAST), None, "the proxy does not wait");
            now += busy;
        }
        None
    }

    #[test]
    fn client_times_out_when_its_average_is_below_the_rate_after_the_grace() {
        let steady = |gap, bytes| move |count| vec![(ms(gap), bytes, Duration::ZERO); count];
        let burst = |bytes: u64| vec![(ms(0), bytes, Duration::ZERO)];
        let stall = || vec![(ms(3_600_000), 0, Duration::ZERO)];
        for (name, pieces, end) in [
            ("nothing", stall(), Some(5_000)),
            ("a byte each half second", steady(500, 1)(99), Some(5_000)),
            ("just below", steady(100, 9)(99), Some(5_000)),
            ("above", steady(100, 11)(999), None),
            (
                "little, then nothing",
                [burst(499), stall()].concat(),
                Some(5_000),
            ),
            (
                "much, then nothing",
                [burst(2_000), stall()].concat(),
                Some(20_000),
            ),
            (
                "waits add up",
                [burst(700), steady(2_000, 0)(9)].concat(),
                Some(7_000),
            ),
            (
                "the proxy's own time does not count",
                vec![(ms(900), 0, ms(3_600_000)); 5],
                None,
            ),
        ] {
            assert_eq!(end_of(pieces), end.map(ms), "{name}");
        }
    }

    #[test]
    fn allowance_of_the_largest_body_does_not_overflow() {
        let least = MinRate {
            rate: 1_000_000_000,
            grace: ms(1),
        };
        assert_eq!(least.allowance(u64::MAX).as_secs(), u64::MAX / least.rate);
        assert_eq!(least.allowance(500_000), ms(1), "the grace is longer");
    }

    proptest! {
        /// Before each wait the client sends enough bytes to cover it. Extra bytes and pauses of the proxy are random.
        #[test]
        fn client_at_the_rate_never_times_out(
            pieces in prop::collection::vec((0..3_000_u64, 0..1_000_u64, 0..100_000_u64), 1..200),
        ) {
            let (mut waited, mut sent) = (0, 0);
            let mut paced = Vec::new();
            for (gap, surplus, busy) in pieces {
                // The bytes for a gap are a piece of their own before it: a deadline counts earlier bytes only.
                let due = (waited + gap) * LEAST.rate;
                let due = due.div_ceil(1_000).saturating_sub(sent);
                paced.push((ms(0), due + surplus, ms(busy)));
                paced.push((ms(gap), 0, ms(busy)));
                waited += gap;
                sent += due + surplus;
            }
            prop_assert_eq!(end_of(paced), None);
        }

        /// A client that sends `burst` bytes at once, then less than the rate, times out at the latest when the burst is used
        /// up, or after the grace if that is longer.
        #[test]
        fn client_below_the_rate_times_out_within_the_bound(
            burst in 0..20_000_u32,
            (gap, piece) in (1..2_000_u32).prop_flat_map(|gap| (Just(gap), 0..=(gap * 90 / 1_000))),
            busy in 0..10_000_u64,
        ) {
            let steady = std::iter::repeat_n((ms(gap.into()), piece.into(), ms(busy)), 3_000_000);
            let end = end_of(std::iter::once((ms(0), burst.into(), ms(busy))).chain(steady));
            let missing = 100.0 - f64::from(piece) * 1_000.0 / f64::from(gap);
            let bound = (f64::from(burst) / missing).max(LEAST.grace.as_secs_f64());
            let end = end.expect("a timeout").as_secs_f64();
            prop_assert!(end <= bound + 0.001, "{end} s of at most {bound} s");
        }
    }
}
