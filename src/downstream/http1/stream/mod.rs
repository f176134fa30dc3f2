//! One request of HTTP/1, for the downstream session of Pingora's proxy.
//!
//! Pingora 0.9.1 has its own session of HTTP/1. It is not used: it has its own parser of heads and chunks, which accepts more
//! than the codec does, and it answers what it refuses itself, without a page, a log line or a counter.
//!
//! ```text
//!  Pingora's proxy ──► PingoraSession ──► Http1Stream ──► Http1Transfer ◄── the connection's loop, after the request
//! ```
//!
//! A custom session gives no connection back, so it shares the [`Http1Transfer`] with the loop.

mod request_body;
mod response;
mod transfer;

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use parking_lot::Mutex;
use pingora::ErrorType::{ConnectionClosed, WriteError};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::ServerSession;
use pingora::{Error, Result};

use self::transfer::Http1Transfer;
use super::super::exchange::Exchange;
use super::super::phase::AbortReason;
use super::super::pingora_session::{PingoraSession, RequestStream, read_within};
use super::client::Http1Client;

/// One request and its response.
pub(super) struct Http1Stream {
    transfer: Arc<Mutex<Http1Transfer>>,
    exchange: Arc<Exchange>,
    /// The header of the final response, once it was sent.
    response: Option<Box<ResponseHeader>>,
}

impl Http1Stream {
    /// The session for the request, after `client` has read its head, and the state that it shares.
    ///
    /// # Errors
    /// Only if Pingora refuses to build an empty response header.
    pub(super) fn session(
        mut client: Box<Http1Client>,
        request: RequestHeader,
    ) -> Result<(ServerSession, Arc<Mutex<Http1Transfer>>)> {
        let exchange = Arc::clone(client.exchange());
        let digest = client.io.session_digest()?;
        let transfer = Arc::new(Mutex::new(Http1Transfer::new(client)));
        let stream = Self {
            transfer: Arc::clone(&transfer),
            exchange,
            response: None,
        };
        Ok((PingoraSession::of(stream, request, digest), transfer))
    }

    /// Writes the last bytes of a response. If the request is not complete, Pingora would wait for its rest: see
    /// [`read_body`](RequestStream::read_body). So the client must have the whole response before.
    async fn finish_write(&mut self, bytes: &[u8]) -> Result<()> {
        self.write(bytes).await?;
        self.note_whole_response();
        if self.transfer.lock().is_answered_early() {
            let flushed = poll_fn(|cx| self.transfer.lock().poll_flush(cx)).await;
            flushed.map_err(write_error)?;
        }
        Ok(())
    }

    /// Notes in the exchange that the whole response was written, if it was: nothing that happens later is a failure of this
    /// exchange.
    fn note_whole_response(&self) {
        if self.transfer.lock().is_response_whole() {
            self.exchange.complete_response();
        }
    }

    async fn write(&self, bytes: &[u8]) -> Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let written = poll_fn(|cx| self.transfer.lock().poll_write(cx, rest)).await;
            let written = written.map_err(write_error)?;
            rest = rest.get(written..).unwrap_or_default();
        }
        Ok(())
    }
}

impl RequestStream for Http1Stream {
    fn exchange(&self) -> &Exchange {
        &self.exchange
    }

    async fn read_body(&mut self, limit: Option<Duration>) -> Result<Option<Bytes>> {
        if self.transfer.lock().is_answered_early() {
            // The peer gets no more of the request, and is free for others.
            return Err(Error::new_down(ConnectionClosed));
        }
        poll_fn(|cx| self.exchange.body_queue.poll_capacity(cx)).await;
        if self.exchange.body_queue.is_stopped() {
            // The peer does not want the rest of the body: Pingora gets the end of the body instead.
            self.exchange.end_body_wait();
            return Ok(None);
        }
        read_within(limit, poll_fn(|cx| self.transfer.lock().poll_read_body(cx))).await
    }

    async fn wait_for_close(&mut self) -> Box<Error> {
        poll_fn(|cx| self.transfer.lock().poll_closed(cx)).await;
        Error::new_down(ConnectionClosed)
    }

    fn is_body_complete(&self) -> bool {
        self.transfer.lock().body.is_complete()
    }

    fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.transfer.lock().body.take_trailers()
    }

    fn on_peer_connected(&mut self) {
        self.transfer.lock().has_peer = true;
    }

    async fn send_header(&mut self, mut header: Box<ResponseHeader>, end: bool) -> Result<()> {
        if self.response.is_some() {
            return Ok(());
        }
        let bytes = self.transfer.lock().begin_response(&mut header, end)?;
        if self.transfer.lock().has_begun() {
            self.response = Some(header);
        }
        self.write(&bytes).await?;
        self.note_whole_response();
        if end {
            self.complete_response().await
        } else {
            Ok(())
        }
    }

    async fn send_data(&mut self, mut data: Bytes, end: bool) -> Result<()> {
        let mut head = Vec::new();
        let end_of_chunk = self.transfer.lock().frame_data(&mut data, &mut head)?;
        self.write(&head).await?;
        self.write(&data).await?;
        self.write(end_of_chunk).await?;
        self.note_whole_response();
        if end {
            self.complete_response().await
        } else {
            Ok(())
        }
    }

    async fn send_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        let bytes = self.transfer.lock().end_response(Some(&trailers))?;
        self.finish_write(&bytes).await
    }

    async fn complete_response(&mut self) -> Result<()> {
        let bytes = self.transfer.lock().end_response(None)?;
        self.finish_write(&bytes).await
    }

    /// Only the close of the connection can show it.
    fn abort(&mut self) {
        self.exchange.forbid_keepalive();
    }

    fn response(&self) -> Option<&ResponseHeader> {
        self.response.as_deref()
    }

    fn bytes_sent(&self) -> usize {
        self.transfer.lock().bytes_sent
    }

    fn asks_for_upgrade(&self) -> bool {
        self.transfer.lock().request.asks_for_upgrade
    }

    fn is_tunnel(&self) -> bool {
        self.transfer.lock().is_tunnel
    }
}

impl Drop for Http1Stream {
    /// Makes a response that is cut off visible if only the close would end it. Not a stream that ends between two messages
    /// because its key has moved.
    fn drop(&mut self) {
        let is_moved = self.exchange.abort_reason() == Some(AbortReason::KeyMoved);
        if self.transfer.lock().awaits_close() && !is_moved {
            self.exchange.reset_on_close();
        }
    }
}

#[expect(clippy::unnecessary_box_returns, reason = "Pingora's errors are boxed")]
fn write_error(error: io::Error) -> Box<Error> {
    Error::because(WriteError, "to a client of HTTP/1", error).into_down()
}
