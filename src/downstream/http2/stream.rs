//! One HTTP/2 stream as the session that Pingora's proxy serves.
//!
//! Pingora has such a session itself; it knows no interim responses, no time limit on a request's body,
//! no word to a client whose request was cut, and nobody can see whether it waits for the client.
//!
//! Invariant: a stream that is dropped has told its client how it ended: by the end of the response, by a
//! status where none was sent or where gRPC has it behind the body, or by a reset.

use std::future::{pending, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_core::Stream as Messages;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, Request, Response, StatusCode};
use pingora::ErrorType::{ConnectionClosed, InternalError, ReadError, ReadTimedout, WriteError};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::HttpTask;
use pingora::protocols::http::custom::CustomMessageWrite;
use pingora::protocols::http::custom::server::Session;
use pingora::protocols::http::date::get_cached_date;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::{Digest, http::v1::client::http_req_header_to_wire};
use pingora::{Error, ErrorType, Result};

use super::super::exchange::Exchange;
use super::super::phase::AbortReason;
use super::super::serve::LINGERING_CLOSE;
use super::request_header;
use super::streams::StreamEntry;
use crate::grpc;

/// What is kept of a request's body for another attempt, as Pingora does for HTTP/1; bytes.
const RETRY_BUFFER_SIZE: usize = 64 << 10;

/// What HTTP/1 says of a connection has no meaning here (RFC 9113, 8.2.2).
const CONNECTION_SPECIFIC_FIELDS: [HeaderName; 5] = [
    CONNECTION,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// One stream: a request, and the way back.
pub(super) struct Http2Stream {
    exchange: Arc<Exchange>,
    entry: Arc<StreamEntry>,
    digest: Digest,
    request: RequestHeader,
    body: Http2RequestBody,
    respond: SendResponse<Bytes>,
    /// The response's header, and what its body is written to.
    response: Option<(Box<ResponseHeader>, SendStream<Bytes>)>,
    /// Nothing can follow: the response is complete, or was given up.
    ended: bool,
    bytes_sent: usize,
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
    drain_timeout: Option<Duration>,
}

/// A request's body.
struct Http2RequestBody {
    stream: RecvStream,
    /// It was read to its end, trailers included.
    complete: bool,
    bytes_read: usize,
    retry_buffer: RetryBuffer,
}

/// What was read of a body, as long as all of it is kept.
enum RetryBuffer {
    /// Nobody has asked for it.
    Disabled,
    Complete(BytesMut),
    Truncated,
}

impl Http2Stream {
    pub(super) fn new(
        request: Request<RecvStream>,
        respond: SendResponse<Bytes>,
        exchange: Arc<Exchange>,
        place: Arc<StreamEntry>,
        digest: Digest,
    ) -> Self {
        let (parts, body) = request.into_parts();
        Self {
            exchange,
            entry: place,
            digest,
            request: request_header::to_http1_header(parts),
            body: Http2RequestBody::new(body),
            respond,
            response: None,
            ended: false,
            bytes_sent: 0,
            read_timeout: None,
            write_timeout: None,
            drain_timeout: None,
        }
    }

    fn send_header(&mut self, mut header: Box<ResponseHeader>, end: bool) -> Result<()> {
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

    /// Interim responses: all but 101, which HTTP/2 does not know (RFC 9113, 8.6).
    fn send_informational(&mut self, header: &ResponseHeader) -> Result<()> {
        if header.status == 101 {
            return Error::e_explain(InternalError, "101 on HTTP/2");
        }
        let response = Response::from_parts(header.as_owned_parts(), ());
        let sent = self.respond.send_informational(response);
        map_stream_error(WriteError, sent)
    }

    async fn write_data(&mut self, mut data: Bytes, end: bool) -> Result<()> {
        if self.ended {
            return Ok(());
        }
        while !data.is_empty() {
            let piece = self.reserve_chunk(&mut data).await?;
            let whole = data.is_empty();
            self.exchange.on_bytes_sent(&piece);
            self.send_data(piece, end && whole)?;
            if whole {
                self.entry.on_chunk_sent();
            }
        }
        if end { self.end_stream() } else { Ok(()) }
    }

    /// As much of the data as the client takes now.
    async fn reserve_chunk(&mut self, data: &mut Bytes) -> Result<Bytes> {
        let Some(room) = self.exchange.sendable_len(data) else {
            // The stream ends here; the watch takes it from here.
            return pending().await;
        };
        let (exchange, body) = (&self.exchange, self.response.as_mut().map(|(_, body)| body));
        let body = body.ok_or_else(|| Error::explain(InternalError, "a body without a header"))?;
        body.reserve_capacity(room);
        let capacity = poll_fn(|cx| poll_capacity(body, exchange, cx)).await?;
        Ok(data.split_to(capacity.min(room)))
    }

    fn send_data(&mut self, data: Bytes, end: bool) -> Result<()> {
        let Some((_, body)) = &mut self.response else {
            return Error::e_explain(InternalError, "a body without a header");
        };
        let length = data.len();
        let sent = body.send_data(data, end);
        map_stream_error(WriteError, sent)?;
        self.bytes_sent += length;
        if end {
            self.mark_ended();
        }
        Ok(())
    }

    fn end_stream(&mut self) -> Result<()> {
        if self.ended || self.response.is_none() {
            return Ok(());
        }
        self.send_data(Bytes::new(), true)
    }

    fn send_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        if self.ended {
            return Ok(());
        }
        let Some((_, body)) = &mut self.response else {
            return Error::e_explain(InternalError, "trailers without a header");
        };
        let sent = body.send_trailers(trailers);
        self.mark_ended();
        map_stream_error(WriteError, sent)
    }

    /// Whether the response is complete.
    async fn run_task(&mut self, task: HttpTask) -> Result<bool> {
        match task {
            HttpTask::Header(header, end) => self.send_header(header, end).map(|()| end),
            HttpTask::Body(data, end) => {
                let data = data.unwrap_or_default();
                self.write_data(data, end).await.map(|()| end)
            }
            HttpTask::UpgradedBody(..) => Error::e_explain(InternalError, "an upgrade on HTTP/2"),
            HttpTask::Trailer(Some(trailers)) => self.send_trailers(*trailers).map(|()| true),
            HttpTask::Trailer(None) | HttpTask::Done => Ok(true),
            HttpTask::Failed(error) => Err(error),
        }
    }

    /// Waits until the client takes its request back, or leaves.
    async fn wait_for_reset<T>(&mut self) -> Result<T> {
        let back = poll_fn(|cx| match &mut self.response {
            Some((_, body)) => body.poll_reset(cx),
            None => self.respond.poll_reset(cx),
        });
        map_stream_error(ConnectionClosed, back.await)?;
        Err(Error::new_down(ConnectionClosed))
    }

    /// The next piece of the request's body, as soon as its peer has room for it.
    async fn read_body(&mut self) -> Result<Option<Bytes>> {
        let exchange = Arc::clone(&self.exchange);
        tokio::select! {
            biased;
            () = poll_fn(|cx| exchange.body_queue.poll_capacity(cx)) => {}
            back = self.wait_for_reset() => return back,
        }
        if exchange.body_queue.is_stopped() {
            // As far as Pingora is concerned, that was all.
            return Ok(None);
        }
        self.body.read_with_timeout(self.read_timeout).await
    }

    /// Takes what the client still sends of a request that was answered early: some clients take the
    /// end of their stream for a failure while they are at it.
    async fn drain_request_after_response(&mut self) {
        if self.ended && !self.body.complete {
            let _ = tokio::time::timeout(
                LINGERING_CLOSE.0,
                self.body.discard_up_to(LINGERING_CLOSE.1),
            )
            .await;
        }
    }

    fn reset_stream(&mut self, reason: Reason) {
        if !self.ended {
            self.respond.send_reset(reason);
            self.mark_ended();
        }
    }

    /// Ends a response of which some was sent, and the rest will not be.
    fn abort_response(&mut self) {
        let cause = self.exchange.abort_reason();
        let (status, fault) = cause.map_or((503, "cut"), AbortReason::status_and_fault);
        let sent = self.response.as_ref().map(|(header, _)| &header.headers);
        let trailers = StatusCode::from_u16(status)
            .ok()
            .zip(sent)
            .and_then(|(status, sent)| grpc::error_trailers(sent, status, fault));
        match trailers.filter(|_| !std::thread::panicking()) {
            Some(trailers) => drop(self.send_trailers(trailers)),
            None if cause == Some(AbortReason::KeyMoved) => drop(self.end_stream()),
            None => self.reset_stream(Reason::INTERNAL_ERROR),
        }
    }

    fn mark_ended(&mut self) {
        self.ended = true;
        self.entry.mark_ended();
    }

    /// The status of a request that a deadline has cut, which nobody else can tell the client any more.
    fn send_abort_status(&mut self, status: u16) -> Result<()> {
        let mut header = ResponseHeader::build(status, Some(4))?;
        let message = header.status.canonical_reason().unwrap_or_default();
        match grpc::trailers_only(&self.request.headers, header.status, message) {
            Some(fields) => {
                header.set_status(200)?;
                for (name, value) in fields {
                    header.insert_header(name, value)?;
                }
            }
            None => header.insert_header(CONTENT_LENGTH, 0)?,
        }
        self.send_header(Box::new(header), true)
    }
}

impl Drop for Http2Stream {
    /// A client that cannot be told is gone.
    fn drop(&mut self) {
        let last_word = self
            .exchange
            .abort_status()
            .filter(|_| self.response.is_none());
        match (self.exchange.abort_reason(), last_word) {
            _ if self.ended => {}
            (_, Some(status)) => drop(self.send_abort_status(status)),
            (Some(AbortReason::ClientWriteTimeout), _) => self.reset_stream(Reason::CANCEL),
            _ => self.abort_response(),
        }
    }
}

/// How much of what was asked for may be sent. While it is nothing, the client is what is waited for.
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

/// What goes wrong on a stream is the client's doing, or the end of its connection.
fn map_stream_error<T>(kind: ErrorType, result: Result<T, h2::Error>) -> Result<T> {
    result.map_err(|error| Error::because(kind, "on a stream", error).into_down())
}

impl Http2RequestBody {
    fn new(stream: RecvStream) -> Self {
        Self {
            complete: stream.is_end_stream(),
            stream,
            bytes_read: 0,
            retry_buffer: RetryBuffer::Disabled,
        }
    }

    async fn read_with_timeout(&mut self, limit: Option<Duration>) -> Result<Option<Bytes>> {
        if self.complete {
            return Ok(None);
        }
        match limit {
            None => self.read_chunk().await,
            Some(limit) => tokio::time::timeout(limit, self.read_chunk())
                .await
                .unwrap_or_else(|_| Err(Error::new_down(ReadTimedout))),
        }
    }

    async fn read_chunk(&mut self) -> Result<Option<Bytes>> {
        let Some(data) = self.stream.data().await else {
            // Pingora passes no trailers of a request on, and nobody may count on them (RFC 9110, 6.5.1).
            let trailers = self.stream.trailers().await;
            map_stream_error(ReadError, trailers)?;
            self.complete = true;
            return Ok(None);
        };
        let data = map_stream_error(ReadError, data)?;
        // Fails on a stream that is over, whose window nobody needs.
        let _ = self.stream.flow_control().release_capacity(data.len());
        self.bytes_read += data.len();
        self.retry_buffer.push(&data);
        self.complete = self.stream.is_end_stream();
        Ok(Some(data))
    }

    async fn read_to_end(&mut self, limit: Option<Duration>) -> Result<()> {
        while self.read_with_timeout(limit).await?.is_some() {}
        Ok(())
    }

    async fn discard_up_to(&mut self, most: usize) {
        let most = self.bytes_read.saturating_add(most);
        while self.bytes_read < most && matches!(self.read_with_timeout(None).await, Ok(Some(_))) {}
    }
}

impl RetryBuffer {
    fn push(&mut self, data: &Bytes) {
        match self {
            Self::Complete(kept) if kept.len() + data.len() <= RETRY_BUFFER_SIZE => {
                kept.extend_from_slice(data);
            }
            Self::Complete(_) => *self = Self::Truncated,
            Self::Disabled | Self::Truncated => {}
        }
    }
}

#[async_trait]
impl Session for Http2Stream {
    fn req_header(&self) -> &RequestHeader {
        &self.request
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        &mut self.request
    }

    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        self.read_body().await
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        self.body.read_to_end(self.drain_timeout).await
    }

    async fn write_response_header(&mut self, resp: Box<ResponseHeader>, end: bool) -> Result<()> {
        self.send_header(resp, end)
    }

    async fn write_response_header_ref(&mut self, resp: &ResponseHeader, end: bool) -> Result<()> {
        self.send_header(Box::new(resp.clone()), end)
    }

    async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        self.write_data(data, end).await
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        self.send_trailers(trailers)
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        let mut complete = false;
        for task in tasks {
            complete |= self.run_task(task).await?;
        }
        if complete {
            self.end_stream()?;
        }
        Ok(complete)
    }

    fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.read_timeout = timeout;
    }

    fn get_read_timeout(&self) -> Option<Duration> {
        self.read_timeout
    }

    // The exchange times writes.
    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.write_timeout = timeout;
    }

    fn get_write_timeout(&self) -> Option<Duration> {
        self.write_timeout
    }

    fn set_total_drain_timeout(&mut self, timeout: Option<Duration>) {
        self.drain_timeout = timeout;
    }

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        self.drain_timeout
    }

    fn request_summary(&self) -> String {
        format!("{} {}", self.request.method, self.request.uri)
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.response.as_ref().map(|(header, _)| &**header)
    }

    async fn shutdown(&mut self, _code: u32, _ctx: &str) {
        self.abort_response();
        self.drain_request_after_response().await;
    }

    fn is_body_done(&mut self) -> bool {
        self.is_body_empty() || self.body.complete || self.exchange.body_queue.is_stopped()
    }

    async fn finish(&mut self) -> Result<()> {
        self.end_stream()?;
        self.drain_request_after_response().await;
        Ok(())
    }

    fn is_body_empty(&mut self) -> bool {
        let declared = || self.request.headers.get(CONTENT_LENGTH);
        let none = || declared().is_some_and(|length| length.as_bytes() == b"0");
        self.body.bytes_read == 0 && (self.body.complete || none())
    }

    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        if no_body_expected || self.is_body_empty() || self.body.complete {
            return self.wait_for_reset().await;
        }
        self.read_body().await
    }

    fn body_bytes_sent(&self) -> usize {
        self.bytes_sent
    }

    fn body_bytes_read(&self) -> usize {
        self.body.bytes_read
    }

    fn digest(&self) -> Option<&Digest> {
        Some(&self.digest)
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        Some(&mut self.digest)
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        self.digest.socket_digest.as_ref()?.peer_addr()
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        self.digest.socket_digest.as_ref()?.local_addr()
    }

    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        http_req_header_to_wire(&self.request)
            .unwrap_or_default()
            .freeze()
    }

    fn enable_retry_buffering(&mut self) {
        if matches!(self.body.retry_buffer, RetryBuffer::Disabled) {
            self.body.retry_buffer = RetryBuffer::Complete(BytesMut::new());
        }
    }

    fn retry_buffer_truncated(&self) -> bool {
        matches!(self.body.retry_buffer, RetryBuffer::Truncated)
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        match &self.body.retry_buffer {
            RetryBuffer::Complete(kept) if !kept.is_empty() => Some(kept.clone().freeze()),
            _ => None,
        }
    }

    // Beside request and response, HTTP has no messages. Where Pingora takes both ends for those of a
    // protocol that has, it wants a reader and a writer of them.

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(
        &mut self,
    ) -> Option<Box<dyn Messages<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>> {
        let none = || Box::new(NoCustomMessages) as Box<_>;
        self.exchange.body_queue.is_active().then(none)
    }

    fn restore_custom_message_reader(
        &mut self,
        _reader: Box<dyn Messages<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>,
    ) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        let none = || Box::new(()) as Box<_>;
        self.exchange.body_queue.is_active().then(none)
    }

    fn restore_custom_message_writer(&mut self, _: Box<dyn CustomMessageWrite>) -> Result<()> {
        Ok(())
    }
}

/// The messages that there are.
struct NoCustomMessages;

impl Messages for NoCustomMessages {
    type Item = Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(None)
    }
}
