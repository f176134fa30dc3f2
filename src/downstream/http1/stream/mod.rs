//! One request of HTTP/1, as the downstream session of Pingora's proxy.
//!
//! Pingora 0.9.1 has its own session of HTTP/1. It is not used: it has its own parser of heads and chunks, which accepts more
//! than the codec does, and it answers what it refuses itself, without a page, a log line or a counter.
//!
//! ```text
//!  Pingora's proxy ──► Http1Stream (session.rs) ──► Http1Transfer ◄── the connection's loop, after the request
//! ```
//!
//! A custom session gives no connection back, so it shares the [`Http1Transfer`] with the loop.

mod request_body;
mod response;
mod session;
mod transfer;

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use parking_lot::Mutex;
use pingora::ErrorType::{ConnectionClosed, ReadTimedout, WriteError};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::Digest;
use pingora::protocols::http::HttpTask;
use pingora::{Error, Result};

use self::transfer::Http1Transfer;
use super::super::exchange::Exchange;
use super::super::phase::AbortReason;
use super::client::Http1Client;

/// One request and its response.
pub(super) struct Http1Stream {
    transfer: Arc<Mutex<Http1Transfer>>,
    exchange: Arc<Exchange>,
    digest: Digest,
    request: RequestHeader,
    /// The header of the final response, once it was sent.
    response: Option<Box<ResponseHeader>>,
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
    drain_timeout: Option<Duration>,
}

impl Http1Stream {
    /// The session for the request, after `client` has read its head, and the state that it shares.
    pub(super) fn new(
        client: Http1Client,
        request: RequestHeader,
    ) -> (Self, Arc<Mutex<Http1Transfer>>) {
        let exchange = Arc::clone(client.exchange());
        let digest = client.io.session_digest();
        let transfer = Arc::new(Mutex::new(Http1Transfer::new(client)));
        let stream = Self {
            transfer: Arc::clone(&transfer),
            exchange,
            digest,
            request,
            response: None,
            read_timeout: None,
            write_timeout: None,
            drain_timeout: None,
        };
        (stream, transfer)
    }

    /// Sends a header, final or interim; ignored after the final one.
    async fn send_header(&mut self, mut header: Box<ResponseHeader>, end: bool) -> Result<()> {
        if self.response.is_some() {
            return Ok(());
        }
        let bytes = self.transfer.lock().begin_response(&mut header, end)?;
        if self.transfer.lock().has_begun() {
            self.response = Some(header);
        }
        self.write(&bytes).await?;
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
        if end {
            self.complete_response().await
        } else {
            Ok(())
        }
    }

    async fn send_trailers(&mut self, trailers: &HeaderMap) -> Result<()> {
        let bytes = self.transfer.lock().end_response(Some(trailers))?;
        self.finish_write(&bytes).await
    }

    /// Sends the end of the response; does nothing if none has begun, or if it was sent.
    async fn complete_response(&mut self) -> Result<()> {
        let bytes = self.transfer.lock().end_response(None)?;
        self.finish_write(&bytes).await
    }

    /// Writes the last bytes of a response. If the request is not complete, Pingora would wait for its rest: see
    /// [`read_body`](Self::read_body). So the client must have the whole response before.
    async fn finish_write(&mut self, bytes: &[u8]) -> Result<()> {
        self.write(bytes).await?;
        if self.transfer.lock().is_answered_early() {
            let flushed = poll_fn(|cx| self.transfer.lock().poll_flush(cx)).await;
            flushed.map_err(write_error)?;
        }
        Ok(())
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

    /// Executes one task of Pingora's proxy; returns whether the response is complete.
    async fn run_task(&mut self, task: HttpTask) -> Result<bool> {
        match task {
            HttpTask::Header(header, end) => self.send_header(header, end).await.map(|()| end),
            HttpTask::Body(data, end) | HttpTask::UpgradedBody(data, end) => {
                let data = data.unwrap_or_default();
                self.send_data(data, end).await.map(|()| end)
            }
            HttpTask::Trailer(Some(trailers)) => self.send_trailers(&trailers).await.map(|()| true),
            HttpTask::Trailer(None) | HttpTask::Done => {
                self.complete_response().await.map(|()| true)
            }
            HttpTask::Failed(error) => Err(error),
        }
    }

    /// Reads the next piece of the request's body, as soon as the peer has room for it, or of a tunnel; `None` at the end.
    async fn read_body(&mut self) -> Result<Option<Bytes>> {
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
        let read = poll_fn(|cx| self.transfer.lock().poll_read_body(cx));
        match self.read_timeout {
            None => read.await,
            Some(limit) => tokio::time::timeout(limit, read)
                .await
                .unwrap_or_else(|_| Err(Error::new_down(ReadTimedout))),
        }
    }

    /// Waits until the client closes the connection; always returns an error.
    async fn wait_for_close<T>(&mut self) -> Result<T> {
        poll_fn(|cx| self.transfer.lock().poll_closed(cx)).await;
        Err(Error::new_down(ConnectionClosed))
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
