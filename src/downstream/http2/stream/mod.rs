//! One HTTP/2 stream, for the downstream session of Pingora's proxy.
//!
//! Pingora 0.9.1 has its own HTTP/2 session. It is not used: it sends no informational responses, has no
//! time limit for a request's body, gives no answer to a truncated request, and does not show whether a
//! write waits for the client.
//!
//! Invariant: a stream that is dropped has ended in a way that its client can see: with the complete response;
//! with an error status, if no response had begun (for gRPC also in the trailers, after a part of the body);
//! or with a reset. The rest of a request after its complete response is left to the stream's task: see
//! [`early_end`](super::early_end).

mod error;
mod held_end;
mod request_body;

use std::convert::identity;
use std::future::{Future as _, pending, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONNECTION, DATE, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, Request, Response};
use pingora::ErrorType::{ConnectionClosed, InternalError, WriteError};
use pingora::http::ResponseHeader;
use pingora::protocols::Digest;
use pingora::protocols::http::date::get_cached_date;
use pingora::protocols::http::{HttpTask, ServerSession};
use pingora::{Error, Result};

use self::error::{is_malformed, map_stream_error};
use self::request_body::Http2RequestBody;
use super::super::exchange::Exchange;
use super::super::local_reply::LocalReply;
use super::super::phase::AbortReason;
use super::super::pingora_session::{PingoraSession, RequestStream};
use super::request_header;
use super::streams::StreamEntry;
use crate::fault::Fault;
use crate::grpc;
use crate::header::names_with_outer_blanks;

/// Fields that describe an HTTP/1 connection; HTTP/2 forbids them in responses (RFC 9113 §8.2.2).
const CONNECTION_SPECIFIC_FIELDS: [HeaderName; 6] = [
    CONNECTION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// One request and its response.
pub(super) struct Http2Stream {
    exchange: Arc<Exchange>,
    entry: Arc<StreamEntry>,
    body: Http2RequestBody,
    respond: SendResponse<Bytes>,
    /// The response's header once it was sent, and the sender of its body.
    response: Option<(Box<ResponseHeader>, SendStream<Bytes>)>,
    /// No more can be sent: the response is complete or was abandoned.
    ended: bool,
    /// The response has ended before the request.
    answered_early: bool,
    /// [`StreamEntry::flushes`] when the last interim response was sent; `None`: there was none.
    flushes_at_interim: Option<u64>,
    bytes_sent: usize,
}

impl Http2Stream {
    /// The session for the request of a stream.
    pub(super) fn session(
        request: Request<RecvStream>,
        respond: SendResponse<Bytes>,
        exchange: Arc<Exchange>,
        entry: Arc<StreamEntry>,
        digest: Digest,
    ) -> ServerSession {
        let (parts, body) = request.into_parts();
        if !names_with_outer_blanks(&parts.headers).is_empty() {
            // The proxy still counts and logs the request.
            exchange.abort(AbortReason::MalformedRequest);
        }
        let stream = Self {
            exchange,
            entry,
            body: Http2RequestBody::new(body, &parts.headers),
            respond,
            response: None,
            ended: false,
            answered_early: false,
            flushes_at_interim: None,
            bytes_sent: 0,
        };
        PingoraSession::of(stream, request_header::to_http1_header(parts), digest)
    }

    /// Waits until the client has taken the interim response before this one. `h2` buffers headers without a bound:
    /// windows apply only to data (RFC 9113 §5.2.1). While it waits, `write_timeout` runs.
    async fn wait_for_interim_room(&mut self, header: &ResponseHeader) {
        if header.status.is_informational()
            && let Some(flushes) = self.flushes_at_interim
            && self.entry.flushes() <= flushes
        {
            self.exchange.on_write_blocked();
            self.entry.wait_flushed_after(flushes).await;
            self.exchange.on_write_progress();
        }
    }

    /// As [`send_header`](RequestStream::send_header), even if the client has not taken the interim response before.
    fn send_header_now(&mut self, mut header: Box<ResponseHeader>, end: bool) -> Result<()> {
        if self.response.is_some() || self.ended {
            return Ok(());
        }
        for name in &CONNECTION_SPECIFIC_FIELDS {
            header.remove_header(name);
        }
        if header.status.is_informational() {
            return self.send_informational(&header);
        }
        header.insert_header(DATE, get_cached_date())?;
        let response = Response::from_parts(header.as_owned_parts(), ());
        let body = self.respond.send_response(response, end);
        let body = map_stream_error(WriteError, body)?;
        self.response = Some((header, body));
        self.entry.on_response_started();
        if end {
            self.mark_ended();
        }
        Ok(())
    }

    /// Sends a 1xx response; 101 does not exist in HTTP/2 (RFC 9113 §8.6).
    fn send_informational(&mut self, header: &ResponseHeader) -> Result<()> {
        if header.status == 101 {
            return Error::e_explain(InternalError, "101 on an HTTP/2 stream");
        }
        self.flushes_at_interim = Some(self.entry.flushes());
        let response = Response::from_parts(header.as_owned_parts(), ());
        let sent = self.respond.send_informational(response);
        map_stream_error(WriteError, sent)
    }

    /// Waits for room in the client's window; removes as many bytes from `data` as fit, and returns them.
    async fn reserve_chunk(&mut self, data: &mut Bytes) -> Result<Bytes> {
        let Some(sendable) = self.exchange.sendable_len(data) else {
            // The stream is closed at this boundary; `DeadlineTimer` drops this future.
            return pending().await;
        };
        let (exchange, body) = (&self.exchange, self.response.as_mut().map(|(_, body)| body));
        let body = body.ok_or_else(|| Error::explain(InternalError, "a body before the header"))?;
        body.reserve_capacity(sendable);
        let capacity = poll_fn(|cx| poll_capacity(body, exchange, cx)).await?;
        Ok(data.split_to(capacity.min(sendable)))
    }

    fn send_data_now(&mut self, data: Bytes, end: bool) -> Result<()> {
        let Some((_, body)) = &mut self.response else {
            return Error::e_explain(InternalError, "a body before the header");
        };
        let length = data.len();
        let sent = body.send_data(data, end);
        map_stream_error(WriteError, sent)?;
        self.bytes_sent += length;
        self.exchange.on_response_bytes(length);
        if end {
            self.mark_ended();
        }
        Ok(())
    }

    fn end_stream(&mut self) -> Result<()> {
        if self.ended || self.response.is_none() {
            return Ok(());
        }
        self.send_data_now(Bytes::new(), true)
    }

    fn send_trailers_now(&mut self, trailers: HeaderMap) -> Result<()> {
        if self.ended {
            return Ok(());
        }
        let Some((_, body)) = &mut self.response else {
            return Error::e_explain(InternalError, "trailers before the header");
        };
        let sent = body.send_trailers(trailers);
        self.mark_ended();
        map_stream_error(WriteError, sent)
    }

    /// Waits until the client resets the stream or closes the connection; returns the error for it.
    async fn wait_for_reset(&mut self) -> Box<Error> {
        let reset = poll_fn(|cx| match &mut self.response {
            Some((_, body)) => body.poll_reset(cx),
            None => self.respond.poll_reset(cx),
        });
        let reset = map_stream_error(ConnectionClosed, reset.await);
        reset.map_or_else(identity, |_| Error::new_down(ConnectionClosed))
    }

    fn reset_stream(&mut self, reason: Reason) {
        if !self.ended {
            self.respond.send_reset(reason);
            self.ended = true;
            self.entry.mark_ended();
        }
    }

    /// Leaves the rest of a request after its complete response to the stream's task. If the request has ended meanwhile,
    /// makes the connection send a PING: see [`ping`](super::ping).
    fn leave_rest_of_request(&mut self) {
        if !self.answered_early {
            return;
        }
        match self.body.take_rest() {
            Some(rest) => self.entry.leave_rest_of_request(rest),
            None => self.entry.end_request_late(),
        }
    }

    /// Ends a response that was sent in part: with trailers for gRPC; with a normal end if the stream was
    /// closed at a boundary; otherwise with a reset.
    fn abort_response(&mut self) {
        let reason = self.exchange.abort_reason();
        if reason == Some(AbortReason::MalformedRequest) {
            return self.reset_stream(Reason::PROTOCOL_ERROR);
        }
        let fault = self.exchange.abort_fault(true).unwrap_or(Fault::Aborted);
        let sent = self.response.as_ref().map(|(header, _)| &header.headers);
        let trailers =
            sent.and_then(|sent| grpc::error_trailers(sent, fault.grpc_status(), fault.name()));
        match trailers.filter(|_| !std::thread::panicking()) {
            Some(trailers) => drop(self.send_trailers_now(trailers)),
            None if reason == Some(AbortReason::KeyMoved) => drop(self.end_stream()),
            None => self.reset_stream(Reason::INTERNAL_ERROR),
        }
    }

    fn mark_ended(&mut self) {
        self.ended = true;
        self.entry.mark_ended();
        if !self.body.complete || self.body.is_dropped {
            self.answered_early = true;
            self.entry.on_answered_early();
        }
    }

    /// Ends an incomplete response, or a request without one.
    fn end_incomplete(&mut self) {
        let reply = match self.response {
            None => self.exchange.local_reply(),
            Some(_) => None,
        };
        match (reply, self.exchange.abort_reason()) {
            (Some(reply), _) => drop(self.send_local_reply(reply)),
            (None, Some(AbortReason::ClientWriteTimeout)) => self.reset_stream(Reason::CANCEL),
            (None, _) => self.abort_response(),
        }
    }

    /// Sends the response to an aborted request. Pingora's proxy cannot do it: its future was dropped before.
    fn send_local_reply(&mut self, reply: LocalReply) -> Result<()> {
        let (header, body) = reply.into_parts();
        let end = body.is_empty();
        self.send_header_now(Box::new(header), end)?;
        if end {
            return Ok(());
        }
        // `drop` cannot wait for the client's window; `h2` sends the body when the window opens.
        self.send_data_now(body, true)
    }
}

impl RequestStream for Http2Stream {
    fn exchange(&self) -> &Exchange {
        &self.exchange
    }

    async fn read_body(&mut self, limit: Option<Duration>) -> Result<Option<Bytes>> {
        let exchange = Arc::clone(&self.exchange);
        tokio::select! {
            biased;
            () = poll_fn(|cx| exchange.body_queue.poll_capacity(cx)) => {}
            reset = self.wait_for_reset() => return Err(reset),
        }
        if exchange.body_queue.is_stopped() {
            // The peer does not want the rest of the body: Pingora gets the end of the body instead.
            exchange.end_body_wait();
            return Ok(None);
        }
        let mut read = pin!(self.body.read_with_timeout(limit));
        let piece = poll_fn(|cx| {
            let polled = read.as_mut().poll(cx);
            match polled {
                Poll::Pending => exchange.on_read_blocked(),
                Poll::Ready(_) => exchange.end_body_wait(),
            }
            polled
        })
        .await;
        if piece.as_ref().is_err_and(|error| is_malformed(error)) {
            exchange.abort(AbortReason::MalformedRequest);
        }
        piece
    }

    async fn read_dropped(&mut self, limit: Option<Duration>) -> Result<Option<Bytes>> {
        self.body.read_with_timeout(limit).await
    }

    async fn wait_for_close(&mut self) -> Box<Error> {
        self.exchange.end_body_wait();
        self.wait_for_reset().await
    }

    fn is_body_complete(&self) -> bool {
        self.body.complete || self.body.declares_none()
    }

    fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.body.take_trailers()
    }

    async fn hold_end(&mut self, task: &HttpTask) {
        self.wait_for_short_rest(task).await;
    }

    async fn send_header(&mut self, header: Box<ResponseHeader>, end: bool) -> Result<()> {
        self.wait_for_interim_room(&header).await;
        self.send_header_now(header, end)
    }

    async fn send_data(&mut self, mut data: Bytes, end: bool) -> Result<()> {
        if self.ended {
            return Ok(());
        }
        while !data.is_empty() {
            let chunk = self.reserve_chunk(&mut data).await?;
            let is_last = data.is_empty();
            self.exchange.on_bytes_sent(&chunk);
            self.send_data_now(chunk, end && is_last)?;
            if is_last {
                self.entry.on_chunk_sent();
            }
        }
        if end { self.end_stream() } else { Ok(()) }
    }

    async fn send_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        self.send_trailers_now(trailers)
    }

    /// The response is complete: nothing that happens later is a failure of this exchange.
    async fn complete_response(&mut self) -> Result<()> {
        self.end_stream()?;
        if self.response.is_some() {
            self.exchange.complete_response();
        }
        Ok(())
    }

    fn abort(&mut self) {
        self.abort_response();
    }

    fn response(&self) -> Option<&ResponseHeader> {
        self.response.as_ref().map(|(header, _)| &**header)
    }

    fn bytes_sent(&self) -> usize {
        self.bytes_sent
    }
}

impl Drop for Http2Stream {
    /// Ensures the module's invariant. Errors are ignored: they mean that the client has gone.
    fn drop(&mut self) {
        if !self.ended {
            self.end_incomplete();
        }
        self.leave_rest_of_request();
    }
}

/// Polls how many bytes of the reserved capacity may be sent now. While it is zero, `write_timeout` runs.
fn poll_capacity(
    body: &mut SendStream<Bytes>,
    exchange: &Exchange,
    cx: &mut Context<'_>,
) -> Poll<Result<usize>> {
    let Poll::Ready(capacity) = body.poll_capacity(cx) else {
        exchange.on_write_blocked();
        return Poll::Pending;
    };
    exchange.on_write_progress();
    Poll::Ready(match capacity {
        Some(Ok(capacity)) => Ok(capacity),
        Some(error @ Err(_)) => map_stream_error(WriteError, error),
        None => Err(Error::explain(WriteError, "the stream is closed").into_down()),
    })
}
