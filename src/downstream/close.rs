//! The end of a connection: its reason, and the close itself.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::exchange::Exchange;
use super::phase::AbortReason;
use super::socket::DownstreamSocket;
use crate::telemetry::metrics::Http2Violation;

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// After a response that was the last one, or by the client between two requests.
    Clean,
    /// It was idle for the whole keep-alive time, or for a moment while others waited for its place.
    IdleTimeout,
    /// The header was not complete in time; the client was sent 408, if it had sent anything.
    HeaderTimeout,
    /// The header was too large; the client was sent 431.
    HeaderTooLarge,
    /// What came was no HTTP request; the client was sent 400.
    MalformedRequest,
    /// The client left in the middle of a header.
    HeaderTruncated,
    /// A request or response passed one of its limits; 408 or 504 where nothing had been sent.
    RequestTimeout,
    /// The client broke the rules of HTTP/2; it was sent GOAWAY, with the reason.
    Http2Violation(Http2Violation),
}

/// How long, and for how many bytes, a closing connection still takes what the client is sending.
pub(super) const LINGERING_CLOSE: (Duration, usize) = (Duration::from_secs(2), 4 << 20);

/// How long the last bytes may take to be written; a client that is slower has no claim to them.
pub(super) const FINAL_WRITE_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) fn close_reason_for(exchange: &Exchange, cause: AbortReason) -> CloseReason {
    match cause {
        // A browser opens connections ahead of need; a 408 out of the blue would only confuse it.
        AbortReason::IdleTimeout if exchange.connection.bytes_in() == 0 => {
            CloseReason::HeaderTimeout
        }
        AbortReason::IdleTimeout => CloseReason::IdleTimeout,
        AbortReason::HeaderTimeout => CloseReason::HeaderTimeout,
        AbortReason::HeaderTooLarge => CloseReason::HeaderTooLarge,
        AbortReason::KeyMoved | AbortReason::ClientGone => CloseReason::Clean,
        AbortReason::Http2Abuse => CloseReason::MalformedRequest,
        AbortReason::FirstByteTimeout
        | AbortReason::PeerReadTimeout
        | AbortReason::TunnelIdleTimeout
        | AbortReason::TunnelTotalTimeout
        | AbortReason::RequestTimeout
        | AbortReason::PeerWriteTimeout
        | AbortReason::ClientWriteTimeout => CloseReason::RequestTimeout,
    }
}

/// Closes the connection: sends what waits and the last words, and gives the client time to read
/// them (RFC 9112, 9.6); or resets it, where what it was sent is not whole.
pub(super) async fn close(exchange: &Exchange, words: &[u8]) {
    let taken = exchange.connection.socket.lock().take();
    let Some((mut socket, mut last)) = taken else {
        return;
    };
    if exchange.closes_with_reset() {
        return socket.reset_on_close();
    }
    let moved = exchange.abort_reason() == Some(AbortReason::KeyMoved);
    last.extend_from_slice(words);
    let _ = tokio::time::timeout(FINAL_WRITE_TIMEOUT, write_final_bytes(&mut socket, &last)).await;
    if exchange.wants_lingering_close() || !words.is_empty() || moved {
        let _ = tokio::time::timeout(LINGERING_CLOSE.0, drain_input(&mut socket)).await;
    }
}

async fn write_final_bytes(socket: &mut DownstreamSocket, last: &[u8]) -> io::Result<()> {
    if !last.is_empty() {
        socket.write_all(last).await?;
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
