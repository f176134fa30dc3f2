//! Drives the work of a connection's task: flushes buffered output and handles eviction whenever the work waits.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use super::connection_limit::IdleEviction;
use super::exchange::Exchange;
use super::io;
use super::phase::Phase;

/// Runs `work` to its end. Whenever it waits, sends the bytes that it has written; while the connection is idle,
/// also waits for its eviction.
///
/// Only the task that owns the connection's socket may use it; the tasks of HTTP/2 streams must not.
pub(crate) async fn drive_connection<F: Future + Unpin>(
    exchange: &Exchange,
    work: &mut F,
) -> F::Output {
    let mut eviction = exchange.connection.connection_limit().idle_eviction();
    poll_fn(|cx| {
        if let Poll::Ready(output) = Pin::new(&mut *work).poll(cx) {
            return Poll::Ready(output);
        }
        // The session waits, possibly without a flush before: send its output now.
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
