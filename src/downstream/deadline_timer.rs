//! One lazy timer for a whole exchange, and what else a connection does between two polls of its work.
//!
//! A deadline moves with every phase, many times a request; a timer that followed it would cost a
//! lock and a place in the timer wheel each time. This one is moved only when the deadline comes
//! *nearer* than it is set; when it fires too early, it looks again and goes back to sleep. A busy
//! keep-alive connection touches the wheel about once in its keep-alive time.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Sleep;

use super::connection_limit::IdleEviction;
use super::exchange::{Exchange, NEVER, now_nanos};
use super::phase::{AbortReason, Phase};

pub(super) struct DeadlineTimer {
    sleep: Option<Pin<Box<Sleep>>>,
    /// What `sleep` is set to; [`NEVER`] while it is not.
    armed_for: u64,
}

impl DeadlineTimer {
    pub(super) fn new() -> Self {
        Self {
            sleep: None,
            armed_for: NEVER,
        }
    }

    /// Runs `work` to its end, or until a limit of the exchange is passed; the exchange knows the
    /// cause then, before `work` is dropped.
    pub(super) async fn run_until_deadline<F>(
        &mut self,
        exchange: &Exchange,
        work: &mut F,
    ) -> Result<F::Output, AbortReason>
    where
        F: Future + Unpin,
    {
        poll_fn(|cx| {
            if let Poll::Ready(done) = Pin::new(&mut *work).poll(cx) {
                return Poll::Ready(Ok(done));
            }
            self.poll_deadline(exchange, cx).map(Err)
        })
        .await
    }

    fn poll_deadline(&mut self, exchange: &Exchange, cx: &mut Context<'_>) -> Poll<AbortReason> {
        loop {
            exchange.close_at_boundary();
            if let Some(cause) = exchange.abort_reason() {
                return Poll::Ready(cause);
            }
            let beside = exchange.next_policy_check().min(exchange.next_periodic());
            let deadline = exchange.next_deadline().0.min(beside);
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
            let (deadline, cause) = exchange.next_deadline();
            if deadline <= now_nanos() {
                exchange.abort(cause);
                return Poll::Ready(cause);
            }
            exchange.check_stream_policy();
            exchange.run_periodic();
        }
    }

    fn arm(&mut self, deadline: u64) {
        let wait = Duration::from_nanos(deadline.saturating_sub(now_nanos()));
        // The wheel ticks in milliseconds and may fire at the tick's start.
        let at = crate::clock::tokio_now() + wait + Duration::from_millis(1);
        self.armed_for = deadline;
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().reset(at),
            None => self.sleep = Some(Box::pin(tokio::time::sleep_until(at))),
        }
    }
}

/// The work of the one task that has a connection's socket to itself: what `work` has written is sent
/// when it pauses, and while it is idle it hears the call that others wait for a place.
pub(super) async fn drive_connection<F: Future + Unpin>(
    exchange: &Exchange,
    work: &mut F,
) -> F::Output {
    let mut call = exchange.connection.connection_limit().idle_eviction();
    poll_fn(|cx| {
        if let Poll::Ready(done) = Pin::new(&mut *work).poll(cx) {
            return Poll::Ready(done);
        }
        // The session has nothing to add for now; whether it turns to read cannot be relied on.
        exchange.flush_pending(cx);
        poll_eviction(exchange, &mut call, cx);
        Poll::Pending
    })
    .await
}

/// Listens, while idle, for the call that others wait for a place.
fn poll_eviction(exchange: &Exchange, call: &mut IdleEviction<'_>, cx: &mut Context<'_>) {
    if exchange.phase() != Phase::Idle {
        call.cancel();
        return;
    }
    while call.poll_evicted(cx).is_ready() {
        exchange.shorten_idle_timeout();
    }
}
