//! The only module that reads the clocks.
//!
//! Core code takes the time as an argument, so that tests choose it; other code calls these functions.
//! Intervals are measured on the monotonic clock ([`now`], [`since_start`]); the wall clock
//! ([`wall`]) may jump, and is for dates: in logs, certificates and files.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use jiff::Timestamp;

/// The monotonic time.
#[expect(
    clippy::disallowed_methods,
    reason = "the module that reads the clocks"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The value of [`since_start`] at the first call. It is not zero, so that times before it can be
/// represented: another process may hand over a drain or a slow start that began earlier.
const PAST_OFFSET: Duration = Duration::from_secs(365 * 86_400);

/// The monotonic time since a year before the first call; for atomics that hold nanoseconds.
pub fn since_start() -> Duration {
    PAST_OFFSET.saturating_add(uptime())
}

/// The time since the first call of this or [`since_start`].
pub(crate) fn uptime() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(now);
    now().saturating_duration_since(*START)
}

/// The date and time, UTC; 1970 if the system clock is outside the years -9999 … 9999.
#[expect(
    clippy::disallowed_methods,
    reason = "the module that reads the clocks"
)]
pub(crate) fn wall() -> Timestamp {
    Timestamp::try_from(std::time::SystemTime::now()).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// The monotonic time for Tokio's timers.
#[expect(
    clippy::disallowed_methods,
    reason = "the module that reads the clocks"
)]
pub(crate) fn tokio_now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

/// The kernel's `CLOCK_MONOTONIC` in microseconds; the same for all processes. systemd expects it in
/// `MONOTONIC_USEC=`.
pub(crate) fn monotonic_micros() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec * 1_000_000 + now.tv_nsec / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_clock_never_goes_backwards() {
        let first = since_start();
        let second = since_start();
        assert!(first <= second);
    }

    #[test]
    fn wall_clock_is_after_the_year_2020() {
        assert!(wall().as_second() > 1_600_000_000);
    }
}
