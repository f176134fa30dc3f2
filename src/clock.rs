//! The one place that reads time.
//!
//! Everything else is given `now` as an argument, so that tests choose it. Intervals are measured
//! on the monotonic clock ([`now`], [`since_start`]); the wall clock ([`wall`]) may jump and serves
//! only to tell people when something happened.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use jiff::Timestamp;

/// The monotonic time.
#[expect(clippy::disallowed_methods, reason = "the place that reads time")]
pub fn now() -> Instant {
    Instant::now()
}

/// How long before the process's first question its time begins. What another process tells of the
/// past, such as how long a drain or a slow start has lasted, has a time too, although no time is negative.
const PAST_OFFSET: Duration = Duration::from_secs(365 * 86_400);

/// The monotonic time since a year before the process first asked for it; for atomics that hold
/// nanoseconds.
pub fn since_start() -> Duration {
    PAST_OFFSET.saturating_add(uptime())
}

/// How long ago the process first asked for the time.
pub fn uptime() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(now);
    now().saturating_duration_since(*START)
}

/// The date and time of day, UTC. A system clock outside the years -9999 … 9999 reads as 1970.
#[expect(clippy::disallowed_methods, reason = "the place that reads time")]
pub fn wall() -> Timestamp {
    Timestamp::try_from(std::time::SystemTime::now()).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// The monotonic time as Tokio's timers want it.
#[expect(clippy::disallowed_methods, reason = "the place that reads time")]
pub fn tokio_now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

/// The kernel's monotonic clock in microseconds since it booted, as systemd compares it.
pub fn monotonic_micros() -> i64 {
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
