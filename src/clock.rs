//! The only module that reads the clocks.
//!
//! Core code takes the time as an argument, so that tests choose it; other code calls these functions.
//! Intervals are measured on the monotonic clock ([`now`], [`since_start`]); the wall clock
//! ([`wall`]) may jump, and is for dates: in logs, certificates and files.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
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

/// The monotonic time since a year before the first call; for atomics that hold nanoseconds. In a task that is polled by
/// [`read_once_per_poll`], the time of the first call in the present poll.
pub fn since_start() -> Duration {
    match POLL_TIME.get() {
        PollTime::Outside => PAST_OFFSET.saturating_add(uptime()),
        PollTime::Unread => {
            let time = PAST_OFFSET.saturating_add(uptime());
            POLL_TIME.set(PollTime::Read(time));
            time
        }
        PollTime::Read(time) => time,
    }
}

/// What [`since_start`] knows of the present poll.
#[derive(Clone, Copy)]
enum PollTime {
    /// The thread polls no task of [`read_once_per_poll`].
    Outside,
    Unread,
    Read(Duration),
}

thread_local! {
    static POLL_TIME: Cell<PollTime> = const { Cell::new(PollTime::Outside) };
}

/// Runs a task for which [`since_start`] reads the clock once per poll at most: a poll takes microseconds, and a read of the
/// clock about 25 ns. As nginx, which reads it once per turn of its event loop. `task` is `Unpin`, because an `async` function
/// that pins it would hold it twice.
pub(crate) fn read_once_per_poll<F: Future + Unpin>(
    mut task: F,
) -> impl Future<Output = F::Output> {
    /// Ends the poll, also if it panics.
    struct Poll;
    impl Drop for Poll {
        fn drop(&mut self) {
            POLL_TIME.set(PollTime::Outside);
        }
    }
    poll_fn(move |cx| {
        let _poll = Poll;
        POLL_TIME.set(PollTime::Unread);
        Pin::new(&mut task).poll(cx)
    })
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

    #[tokio::test]
    async fn clock_is_read_once_per_poll() {
        let spin = |since: Instant| while now() == since {};
        let mut reads = Vec::new();
        read_once_per_poll(Box::pin(async {
            for _ in 0..2 {
                reads.push(since_start());
                spin(now());
                reads.push(since_start());
                tokio::task::yield_now().await;
            }
        }))
        .await;
        assert!(reads[0] == reads[1] && reads[2] == reads[3], "{reads:?}");
        assert!(reads[1] < reads[2] && reads[3] < since_start(), "{reads:?}");
    }

    #[test]
    fn wall_clock_is_after_the_year_2020() {
        assert!(wall().as_second() > 1_600_000_000);
    }
}
