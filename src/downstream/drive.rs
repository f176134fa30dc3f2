//! What a connection's task does between two polls of its work.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use super::connection_limit::IdleEviction;
use super::exchange::Exchange;
use super::io;
use super::phase::Phase;

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
        io::flush_pending(exchange, cx);
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
