//! What a connection's task does between two polls of its work.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use super::connection_limit::IdleEviction;
use super::exchange::Exchange;
use super::io;
use super::phase::Phase;

/// Runs `work` to its end. Whenever it pauses, sends what it has written; while it is idle, waits for an eviction
/// too.
///
/// For the one task that owns a connection's socket; the tasks of HTTP/2 streams must not use it.
pub(super) async fn drive_connection<F: Future + Unpin>(
    exchange: &Exchange,
    work: &mut F,
) -> F::Output {
    let mut eviction = exchange.connection.connection_limit().idle_eviction();
    poll_fn(|cx| {
        if let Poll::Ready(output) = Pin::new(&mut *work).poll(cx) {
            return Poll::Ready(output);
        }
        // The session has no more to write for now, and need not flush or read before it waits.
        io::flush_pending(exchange, cx);
        poll_eviction(exchange, &mut eviction, cx);
        Poll::Pending
    })
    .await
}

fn poll_eviction(exchange: &Exchange, eviction: &mut IdleEviction<'_>, cx: &mut Context<'_>) {
    if exchange.phase() != Phase::Idle {
        eviction.cancel();
        return;
    }
    while eviction.poll_evicted(cx).is_ready() {
        exchange.shorten_idle_timeout();
    }
}
