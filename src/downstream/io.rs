//! The byte stream under an HTTP session: counts bytes, and reports reads and writes to the exchange.
//!
//! The socket belongs to the [`Connection`](super::Connection), not to the session. So after a deadline has aborted
//! a request, an error status can still be sent, and no buffered byte is lost with the session.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pingora::protocols::Digest;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::buffered_socket::{BufferedSocket, WriteProgress};
use super::exchange::Exchange;
use super::phase::AbortReason;
use super::pingora_digests::SessionDigests;

/// The stream that a session reads and writes: a handle to its connection's [`BufferedSocket`].
pub(crate) struct DownstreamIo {
    exchange: Arc<Exchange>,
    /// Bytes that were read ahead; the next reads return them again.
    unread: Vec<u8>,
    /// Made when a session of Pingora needs them: most connections have none.
    session_digests: Option<SessionDigests>,
}

impl DownstreamIo {
    /// The stream of a connection that was just accepted.
    pub(crate) fn new(exchange: Arc<Exchange>) -> Self {
        Self {
            exchange,
            unread: Vec::new(),
            session_digests: None,
        }
    }

    /// The exchange of the connection.
    pub(crate) fn exchange(&self) -> &Arc<Exchange> {
        &self.exchange
    }

    /// The digest for a session of Pingora that serves a request of the connection.
    ///
    /// # Errors
    /// Only if Pingora refuses to build an empty response header.
    pub(super) fn session_digest(&mut self) -> pingora::Result<Digest> {
        let digests = match self.session_digests.take() {
            Some(made) => made,
            None => SessionDigests::new(&self.exchange)?,
        };
        Ok(self.session_digests.insert(digests).digest())
    }

    /// The next reads yield these bytes again.
    pub(super) fn unread(&mut self, bytes: &[u8]) {
        self.unread.splice(..0, bytes.iter().copied());
    }

    /// Reads without a change to the exchange's phase. True: the bytes are from the socket, false: read ahead.
    pub(super) fn poll_read_raw(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<bool>> {
        // Only a tunnel can be above the watermark.
        ready!(self.exchange.to_peer.poll_below(cx));
        if !self.unread.is_empty() {
            let count = self.unread.len().min(buf.remaining());
            buf.put_slice(self.unread.drain(..count).as_slice());
            return Poll::Ready(Ok(false));
        }
        let connection = &self.exchange.connection;
        let before = buf.filled().len();
        ready!(connection.socket.lock().socket()?.poll_read(cx, buf))?;
        let count = buf.filled().len() - before;
        connection.add_bytes_in(count);
        Poll::Ready(Ok(true))
    }
}

/// Writes buffered bytes, if there are any. Errors are ignored: the session gets them with its next write.
pub(super) fn flush_pending(exchange: &Exchange, cx: &mut Context<'_>) {
    let mut socket = exchange.connection.socket.lock();
    if socket.has_unsent_bytes() {
        let _ = poll_flush(exchange, &mut socket, cx);
        if exchange.is_tunnel() {
            // A tunnel may be silent for hours.
            socket.shrink_buffer();
        }
    }
}

fn poll_flush(
    exchange: &Exchange,
    socket: &mut BufferedSocket,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    let mut progress = WriteProgress::default();
    let flushed = socket.poll_flush(cx, &mut progress);
    exchange.on_write(progress, socket.buffered());
    flushed
}

fn poll_write(
    exchange: &Exchange,
    socket: &mut BufferedSocket,
    cx: &mut Context<'_>,
    bytes: &[u8],
) -> Poll<io::Result<usize>> {
    if bytes.is_empty() {
        return Poll::Ready(Ok(0));
    }
    let Some(sendable) = exchange.sendable_len(bytes) else {
        // The stream ends here: `DeadlineTimer` aborts the exchange after this poll.
        return Poll::Pending;
    };
    let bytes = bytes.get(..sendable).unwrap_or(bytes);
    let mut progress = WriteProgress::default();
    let written = socket.poll_write(cx, bytes, &mut progress);
    exchange.on_write(progress, socket.buffered());
    let taken = match written {
        // Neither direction of a tunnel blocks the other: see `watermark.rs`.
        Poll::Pending if exchange.is_tunnel() => {
            socket.push(bytes);
            exchange.to_client.set_buffered(socket.buffered());
            bytes.len()
        }
        taken => ready!(taken)?,
    };
    exchange.on_bytes_sent(bytes.get(..taken).unwrap_or_default());
    Poll::Ready(Ok(taken))
}

/// Reads for HTTP/1: all bytes count as a part of the request's header until the header is complete.
impl AsyncRead for DownstreamIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.exchange.header_is_too_large() {
            // The session reads more, so the header is not complete yet. `DeadlineTimer` handles the abort after
            // this poll.
            self.exchange.abort(AbortReason::HeaderTooLarge);
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let Poll::Ready(read) = self.poll_read_raw(cx, buf) else {
            self.exchange.on_read_blocked();
            return Poll::Pending;
        };
        let is_fresh = read?;
        let count = buf.filled().len() - before;
        if is_fresh && count > 0 {
            self.exchange.on_bytes_received(count);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for DownstreamIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let exchange = &self.exchange;
        let mut socket = exchange.connection.socket.lock();
        poll_write(exchange, &mut socket, cx, buf)
    }

    /// A tunnel does not wait for the flush: [`drive_connection`](super::drive::drive_connection) continues it.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let exchange = &self.exchange;
        let mut socket = exchange.connection.socket.lock();
        match poll_flush(exchange, &mut socket, cx) {
            Poll::Pending if exchange.is_tunnel() => Poll::Ready(Ok(())),
            flushed => flushed,
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let exchange = &self.exchange;
        let mut socket = exchange.connection.socket.lock();
        ready!(poll_flush(exchange, &mut socket, cx))?;
        socket.socket()?.poll_shutdown(cx)
    }
}

impl fmt::Debug for DownstreamIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DownstreamIo")
            .field("client", &self.exchange.connection.client_addr)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Future, poll_fn};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::super::close::close;
    use super::super::connection_limit::ConnectionLimit;
    use super::super::deadline_timer::DeadlineTimer;
    use super::super::drive::drive_connection;
    use super::*;
    use crate::config::DownstreamConfig;

    fn exchange() -> (Arc<Exchange>, tokio::net::UnixStream) {
        Exchange::for_test(DownstreamConfig::DEFAULT, &ConnectionLimit::new(None))
    }

    #[tokio::test]
    async fn buffered_output_is_sent_after_the_session_is_dropped() {
        let (exchange, mut client) = exchange();
        let mut io = DownstreamIo::new(Arc::clone(&exchange));
        io.write_all(b"head").await.unwrap();
        drop(io);
        assert_eq!(exchange.connection.bytes_out(), 0, "gathered, not sent");
        close(&exchange, b"").await;
        let mut read = Vec::new();
        client.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"head");
    }

    #[tokio::test]
    async fn buffered_output_is_sent_when_the_session_waits_without_reading() {
        let (exchange, mut client) = exchange();
        let mut io = DownstreamIo::new(Arc::clone(&exchange));
        let mut session = Box::pin(async {
            io.write_all(b"head").await.unwrap();
            std::future::pending::<()>().await;
        });
        let mut timer = DeadlineTimer::new();
        let mut work = Box::pin(drive_connection(&exchange, &mut session));
        let mut served = Box::pin(timer.run_until_deadline(&exchange, &mut work));
        poll_fn(|cx| {
            assert!(served.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        let mut read = [0; 4];
        client.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"head");
    }

    #[tokio::test]
    async fn write_buffer_shrinks_when_the_connection_is_idle() {
        let (exchange, _client) = exchange();
        let mut io = DownstreamIo::new(Arc::clone(&exchange));
        io.write_all(&[0; 10_000]).await.unwrap();
        io.flush().await.unwrap();
        exchange.begin_keepalive();
        assert_eq!(exchange.connection.socket.lock().capacity(), 0);
    }
}
