//! One lazy timer for a whole connection, and what else happens between two polls of its session.
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

use super::gate::Call;
use super::{Cause, Connection, NEVER, Phase, now};

pub(super) struct Watch {
    sleep: Option<Pin<Box<Sleep>>>,
    /// What `sleep` is set to; [`NEVER`] while it is not.
    set_to: u64,
}

impl Watch {
    pub(super) fn new() -> Self {
        Self {
            sleep: None,
            set_to: NEVER,
        }
    }

    /// Runs `work` to its end, or until a limit of the connection is passed; the connection knows
    /// the cause then, before `work` is dropped.
    pub(super) async fn guard<F>(
        &mut self,
        connection: &Connection,
        work: &mut F,
    ) -> Result<F::Output, Cause>
    where
        F: Future + Unpin,
    {
        let mut call = connection.gate().call();
        poll_fn(|cx| {
            if let Poll::Ready(done) = Pin::new(&mut *work).poll(cx) {
                return Poll::Ready(Ok(done));
            }
            // The session has nothing to add for now; whether it turns to read cannot be relied on.
            connection.push(cx);
            heed(connection, &mut call, cx);
            self.poll_expired(connection, cx).map(Err)
        })
        .await
    }

    fn poll_expired(&mut self, connection: &Connection, cx: &mut Context<'_>) -> Poll<Cause> {
        loop {
            connection.leave_if_it_can();
            if let Some(cause) = connection.expired() {
                return Poll::Ready(cause);
            }
            let deadline = connection.next_deadline().0.min(connection.next_look());
            if deadline == NEVER && self.sleep.is_none() {
                return Poll::Pending;
            }
            if deadline < self.set_to {
                self.set(deadline);
            }
            let Some(sleep) = &mut self.sleep else {
                return Poll::Pending;
            };
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.set_to = NEVER;
            self.sleep = None;
            let (deadline, cause) = connection.next_deadline();
            if deadline <= now() {
                connection.expire(cause);
                return Poll::Ready(cause);
            }
            connection.look();
        }
    }

    fn set(&mut self, deadline: u64) {
        let wait = Duration::from_nanos(deadline.saturating_sub(now()));
        // The wheel ticks in milliseconds and may fire at the tick's start.
        let at = crate::clock::tokio_now() + wait + Duration::from_millis(1);
        self.set_to = deadline;
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().reset(at),
            None => self.sleep = Some(Box::pin(tokio::time::sleep_until(at))),
        }
    }
}

/// Listens, while idle, for the call that others wait for a place.
fn heed(connection: &Connection, call: &mut Call<'_>, cx: &mut Context<'_>) {
    if connection.phase() != Phase::Idle {
        call.withdraw();
        return;
    }
    while call.poll_called(cx).is_ready() {
        connection.make_way();
    }
}
