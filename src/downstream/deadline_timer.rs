//! One lazy timer for all deadlines of an exchange.
//!
//! The deadline changes with every phase, many times per request; resetting Tokio's timer each time would cost a
//! lock and an entry in the timer wheel. This timer is reset only if the new deadline is *earlier*. When it fires
//! too early, it checks the deadlines and sleeps again. So a busy keep-alive connection uses the timer wheel only
//! about once per keep-alive time.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Sleep;

use super::exchange::Exchange;
use super::phase::AbortReason;
use super::time_cell::{NEVER, nanos};
use crate::clock;

pub(super) struct DeadlineTimer {
    sleep: Option<Pin<Box<Sleep>>>,
    /// When `sleep` fires, in nanoseconds; [`NEVER`]: not armed.
    armed_for: u64,
}

impl DeadlineTimer {
    pub(super) fn new() -> Self {
        Self {
            sleep: None,
            armed_for: NEVER,
        }
    }

    /// Runs `work` to its end, or until the exchange is aborted. The abort reason is set in the exchange before
    /// `work` is dropped.
    pub(super) async fn run_until_deadline<F>(
        &mut self,
        exchange: &Exchange,
        work: &mut F,
    ) -> Result<F::Output, AbortReason>
    where
        F: Future + Unpin,
    {
        poll_fn(|cx| {
            if let Poll::Ready(output) = Pin::new(&mut *work).poll(cx) {
                return Poll::Ready(Ok(output));
            }
            self.poll_deadline(exchange, cx).map(Err)
        })
        .await
    }

    fn poll_deadline(&mut self, exchange: &Exchange, cx: &mut Context<'_>) -> Poll<AbortReason> {
        loop {
            exchange.close_at_boundary();
            if let Some(reason) = exchange.abort_reason() {
                return Poll::Ready(reason);
            }
            let deadline = exchange.next_wakeup();
            if deadline == NEVER && self.sleep.is_none() {
                return Poll::Pending;
            }
            if deadline < self.armed_for {
                self.arm(deadline);
            }
            let Some(sleep) = &mut self.sleep else {
                return Poll::Pending;
            };
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.armed_for = NEVER;
            self.sleep = None;
            let now = clock::since_start();
            if let Some(reason) = exchange.expire(now) {
                return Poll::Ready(reason);
            }
            exchange.run_due_tasks(now);
        }
    }

    fn arm(&mut self, deadline: u64) {
        let wait = Duration::from_nanos(deadline.saturating_sub(nanos(clock::since_start())));
        // The timer wheel ticks in milliseconds and may fire at the start of the tick, a little too early.
        let at = clock::tokio_now() + wait + Duration::from_millis(1);
        self.armed_for = deadline;
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().reset(at),
            None => self.sleep = Some(Box::pin(tokio::time::sleep_until(at))),
        }
    }
}
