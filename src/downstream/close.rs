//! The end of a connection: its reason, and the close itself.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::exchange::Exchange;
use super::phase::AbortReason;
use super::socket::DownstreamSocket;
use crate::telemetry::metrics::Http2Violation;

/// Why a connection was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CloseReason {
    /// The last response was complete, or the client left between two requests.
    Clean,
    /// The keep-alive time ran out, or the connection was evicted while idle.
    IdleTimeout,
    /// The header was not complete in time; the client was sent 408, if it had sent anything.
    HeaderTimeout,
    /// The header was too large; the client was sent 431.
    HeaderTooLarge,
    /// The bytes were not an HTTP request; the client was sent 400.
    MalformedRequest,
    /// The client closed the connection in the middle of a header.
    HeaderTruncated,
    /// A limit of a request or response ran out; the client was sent 408 or 504 if no response had begun.
    RequestTimeout,
    /// The client violated HTTP/2 or a limit on its frames; it was sent GOAWAY with the reason.
    Http2Violation(Http2Violation),
}

/// Lingering close (as in nginx): the longest time, and the most bytes, for which a closing connection still reads
/// and discards input.
pub(super) const LINGERING_CLOSE: (Duration, usize) = (Duration::from_secs(2), 4 << 20);

/// The time limit for writing the last bytes before the close; a slower client does not get them.
pub(super) const FINAL_WRITE_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) fn close_reason_for(exchange: &Exchange, reason: AbortReason) -> CloseReason {
    match reason {
        // Browsers open connections in advance: an unused one is closed without a 408.
        AbortReason::IdleTimeout if exchange.connection.bytes_in() == 0 => {
            CloseReason::HeaderTimeout
        }
        AbortReason::IdleTimeout => CloseReason::IdleTimeout,
        AbortReason::HeaderTimeout => CloseReason::HeaderTimeout,
        AbortReason::HeaderTooLarge => CloseReason::HeaderTooLarge,
        AbortReason::KeyMoved | AbortReason::ClientGone | AbortReason::MalformedRequest => {
            CloseReason::Clean
        }
        AbortReason::Http2Abuse => CloseReason::MalformedRequest,
        AbortReason::FirstByteTimeout
        | AbortReason::PeerReadTimeout
        | AbortReason::TunnelIdleTimeout
        | AbortReason::TunnelTotalTimeout
        | AbortReason::RequestTimeout
        | AbortReason::BodyTooSlow
        | AbortReason::PeerWriteTimeout
        | AbortReason::ClientWriteTimeout => CloseReason::RequestTimeout,
    }
}

/// Closes the connection. Sends the buffered bytes and `closing_bytes`, and gives the client time to read them
/// (RFC 9112 §9.6). If the response is truncated, resets the connection instead.
pub(super) async fn close(exchange: &Exchange, closing_bytes: &[u8]) {
    let taken = exchange.connection.socket.lock().take();
    let Some((mut socket, mut bytes)) = taken else {
        return;
    };
    if exchange.closes_with_reset() {
        return socket.reset_on_close();
    }
    let is_moved = exchange.abort_reason() == Some(AbortReason::KeyMoved);
    bytes.extend_from_slice(closing_bytes);
    {
        let mut write = pin!(write_final_bytes(&mut socket, &bytes));
        // Usually the kernel takes them at once, and no timer is needed.
        let first = poll_fn(|cx| Poll::Ready(write.as_mut().poll(cx).is_ready())).await;
        if !first {
            let _ = tokio::time::timeout(FINAL_WRITE_TIMEOUT, write).await;
        }
    }
    if exchange.wants_lingering_close() || !closing_bytes.is_empty() || is_moved {
        let _ = tokio::time::timeout(LINGERING_CLOSE.0, drain_input(&mut socket)).await;
    }
}

async fn write_final_bytes(socket: &mut DownstreamSocket, bytes: &[u8]) -> io::Result<()> {
    if !bytes.is_empty() {
        socket.write_all(bytes).await?;
    }
    socket.send_close_notify().await
}

async fn drain_input(socket: &mut DownstreamSocket) {
    let _ = socket.shutdown().await;
    let mut sink = vec![0; 16 * 1024];
    let mut left = LINGERING_CLOSE.1;
    while let Ok(count @ 1..) = socket.read(&mut sink).await {
        left = left.saturating_sub(count);
        if left == 0 {
            return;
        }
    }
}
