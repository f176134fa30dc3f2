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
use pingora_core::protocols::http::HttpTask;
use pingora_core::protocols::http::custom::CustomMessageWrite;
use pingora_core::protocols::http::custom::server::Session;
use pingora_core::protocols::http::date::get_cached_date;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::protocols::{Digest, http::v1::client::http_req_header_to_wire};
use pingora_error::ErrorType::{
    ConnectionClosed, InternalError, ReadError, ReadTimedout, WriteError,
};
use pingora_error::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};

use super::super::exchange::Exchange;
use super::super::phase::Cause;
use super::super::serve::LINGER;
use super::request;
use super::traffic::Place;
use crate::grpc;

/// What is kept of a request's body for another attempt, as Pingora does for HTTP/1; bytes.
const KEPT_BODY: usize = 64 << 10;

/// What HTTP/1 says of a connection has no meaning here (RFC 9113, 8.2.2).
const OF_CONNECTION: [HeaderName; 5] = [
    CONNECTION,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// One stream: a request, and the way back.
pub(super) struct Stream {
    exchange: Arc<Exchange>,
    place: Arc<Place>,
    digest: Digest,
    request: RequestHeader,
    body: Body,
    respond: SendResponse<Bytes>,
    /// The response's header, and what its body is written to.
    response: Option<(Box<ResponseHeader>, SendStream<Bytes>)>,
    /// Nothing can follow: the response is complete, or was given up.
    ended: bool,
    sent: usize,
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
    drain_timeout: Option<Duration>,
}

/// A request's body.
struct Body {
    stream: RecvStream,
    /// It was read to its end, trailers included.
    complete: bool,
    read: usize,
    kept: Kept,
}

/// What was read of a body, as long as all of it is kept.
enum Kept {
    /// Nobody has asked for it.
    Nothing,
    Whole(BytesMut),
    TooMuch,
}

impl Stream {
    pub(super) fn new(
        request: Request<RecvStream>,
        respond: SendResponse<Bytes>,
        exchange: Arc<Exchange>,
        place: Arc<Place>,
        digest: Digest,
    ) -> Self {
        let (parts, body) = request.into_parts();
        Self {
            exchange,
            place,
            digest,
            request: request::header(parts),
            body: Body::new(body),
            respond,
            response: None,
            ended: false,
            sent: 0,
            read_timeout: None,
            write_timeout: None,
            drain_timeout: None,
        }
    }

    fn begin(&mut self, mut header: Box<ResponseHeader>, end: bool) -> Result<()> {
        if self.response.is_some() || self.ended {
            return Ok(());
        }
        for name in &OF_CONNECTION {
            header.remove_header(name);
        }
        if header.status.is_informational() {
            return self.inform(&header);
        }
        header.insert_header(DATE, get_cached_date())?;
        let response = Response::from_parts(header.as_owned_parts(), ());
        let body = self.respond.send_response(response, end);
        let body = on_stream(WriteError, body)?;
        self.response = Some((header, body));
        self.place.answer();
        if end {
            self.is_over();
        }
        Ok(())
    }

    /// Interim responses: all but 101, which HTTP/2 does not know (RFC 9113, 8.6).
    fn inform(&mut self, header: &ResponseHeader) -> Result<()> {
        if header.status == 101 {
            return Error::e_explain(InternalError, "101 on HTTP/2");
        }
        let response = Response::from_parts(header.as_owned_parts(), ());
        let sent = self.respond.send_informational(response);
        on_stream(WriteError, sent)
    }

    async fn write(&mut self, mut data: Bytes, end: bool) -> Result<()> {
        if self.ended {
            return Ok(());
        }
        while !data.is_empty() {
            let piece = self.next_piece(&mut data).await?;
            let whole = data.is_empty();
            self.exchange.passed(&piece);
            self.send(piece, end && whole)?;
            if whole {
                self.place.passed();
            }
        }
        if end { self.end() } else { Ok(()) }
    }

    /// As much of the data as the client takes now.
    async fn next_piece(&mut self, data: &mut Bytes) -> Result<Bytes> {
        let Some(room) = self.exchange.room(data) else {
            // The stream ends here; the watch takes it from here.
            return pending().await;
        };
        let (exchange, body) = (&self.exchange, self.response.as_mut().map(|(_, body)| body));
        let body = body.ok_or_else(|| Error::explain(InternalError, "a body without a header"))?;
        body.reserve_capacity(room);
        let capacity = poll_fn(|cx| poll_capacity(body, exchange, cx)).await?;
        Ok(data.split_to(capacity.min(room)))
    }

    fn send(&mut self, data: Bytes, end: bool) -> Result<()> {
        let Some((_, body)) = &mut self.response else {
            return Error::e_explain(InternalError, "a body without a header");
        };
        let length = data.len();
        let sent = body.send_data(data, end);
        on_stream(WriteError, sent)?;
        self.sent += length;
        if end {
            self.is_over();
        }
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        if self.ended || self.response.is_none() {
            return Ok(());
        }
        self.send(Bytes::new(), true)
    }

    fn end_with(&mut self, trailers: HeaderMap) -> Result<()> {
        if self.ended {
            return Ok(());
        }
        let Some((_, body)) = &mut self.response else {
            return Error::e_explain(InternalError, "trailers without a header");
        };
        let sent = body.send_trailers(trailers);
        self.is_over();
        on_stream(WriteError, sent)
    }

    /// Whether the response is complete.
    async fn perform(&mut self, task: HttpTask) -> Result<bool> {
        match task {
            HttpTask::Header(header, end) => self.begin(header, end).map(|()| end),
            HttpTask::Body(data, end) => {
                let data = data.unwrap_or_default();
                self.write(data, end).await.map(|()| end)
            }
            HttpTask::UpgradedBody(..) => Error::e_explain(InternalError, "an upgrade on HTTP/2"),
            HttpTask::Trailer(Some(trailers)) => self.end_with(*trailers).map(|()| true),
            HttpTask::Trailer(None) | HttpTask::Done => Ok(true),
            HttpTask::Failed(error) => Err(error),
        }
    }

    /// Waits until the client takes its request back, or leaves.
    async fn taken_back<T>(&mut self) -> Result<T> {
        let back = poll_fn(|cx| match &mut self.response {
            Some((_, body)) => body.poll_reset(cx),
            None => self.respond.poll_reset(cx),
        });
        on_stream(ConnectionClosed, back.await)?;
        Err(Error::new_down(ConnectionClosed))
    }

    /// The next piece of the request's body, as soon as its peer has room for it.
    async fn read(&mut self) -> Result<Option<Bytes>> {
        let exchange = Arc::clone(&self.exchange);
        tokio::select! {
            biased;
            () = poll_fn(|cx| exchange.upload.poll_room(cx)) => {}
            back = self.taken_back() => return back,
        }
        if exchange.upload.is_refused() {
            // As far as Pingora is concerned, that was all.
            return Ok(None);
        }
        self.body.next(self.read_timeout).await
    }

    /// Takes what the client still sends of a request that was answered early: some clients take the
    /// end of their stream for a failure while they are at it.
    async fn see_out(&mut self) {
        if self.ended && !self.body.complete {
            let _ = tokio::time::timeout(LINGER.0, self.body.discard(LINGER.1)).await;
        }
    }

    fn give_up(&mut self, reason: Reason) {
        if !self.ended {
            self.respond.send_reset(reason);
            self.is_over();
        }
    }

    /// Ends a response of which some was sent, and the rest will not be.
    fn break_off(&mut self) {
        let cause = self.exchange.expired();
        let (status, fault) = cause.map_or((503, "cut"), Cause::of_a_cut);
        let sent = self.response.as_ref().map(|(header, _)| &header.headers);
        let trailers = StatusCode::from_u16(status)
            .ok()
            .zip(sent)
            .and_then(|(status, sent)| grpc::ending(sent, status, fault));
        match trailers.filter(|_| !std::thread::panicking()) {
            Some(trailers) => drop(self.end_with(trailers)),
            None if cause == Some(Cause::Moved) => drop(self.end()),
            None => self.give_up(Reason::INTERNAL_ERROR),
        }
    }

    fn is_over(&mut self) {
        self.ended = true;
        self.place.end();
    }

    /// The status of a request that a deadline has cut, which nobody else can tell the client any more.
    fn answer(&mut self, status: u16) -> Result<()> {
        let mut header = ResponseHeader::build(status, Some(4))?;
        let message = header.status.canonical_reason().unwrap_or_default();
        match grpc::refusal(&self.request.headers, header.status, message) {
            Some(fields) => {
                header.set_status(200)?;
                for (name, value) in fields {
                    header.insert_header(name, value)?;
                }
            }
            None => header.insert_header(CONTENT_LENGTH, 0)?,
        }
        self.begin(Box::new(header), true)
    }
}

impl Drop for Stream {
    /// A client that cannot be told is gone.
    fn drop(&mut self) {
        let last_word = self
            .exchange
            .last_word()
            .filter(|_| self.response.is_none());
        match (self.exchange.expired(), last_word) {
            _ if self.ended => {}
            (_, Some(status)) => drop(self.answer(status)),
            (Some(Cause::ClientStalled), _) => self.give_up(Reason::CANCEL),
            _ => self.break_off(),
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
        exchange.write_blocked();
        return Poll::Pending;
    };
    exchange.write_went_on();
    Poll::Ready(match capacity {
        Some(Ok(capacity)) => Ok(capacity),
        Some(error @ Err(_)) => on_stream(WriteError, error),
        None => Err(Error::explain(WriteError, "the stream is closed").into_down()),
    })
}

/// What goes wrong on a stream is the client's doing, or the end of its connection.
fn on_stream<T>(kind: ErrorType, result: Result<T, h2::Error>) -> Result<T> {
    result.map_err(|error| Error::because(kind, "on a stream", error).into_down())
}

impl Body {
    fn new(stream: RecvStream) -> Self {
        Self {
            complete: stream.is_end_stream(),
            stream,
            read: 0,
            kept: Kept::Nothing,
        }
    }

    async fn next(&mut self, limit: Option<Duration>) -> Result<Option<Bytes>> {
        if self.complete {
            return Ok(None);
        }
        match limit {
            None => self.read().await,
            Some(limit) => tokio::time::timeout(limit, self.read())
                .await
                .unwrap_or_else(|_| Err(Error::new_down(ReadTimedout))),
        }
    }

    async fn read(&mut self) -> Result<Option<Bytes>> {
        let Some(data) = self.stream.data().await else {
            // Pingora passes no trailers of a request on, and nobody may count on them (RFC 9110, 6.5.1).
            let trailers = self.stream.trailers().await;
            on_stream(ReadError, trailers)?;
            self.complete = true;
            return Ok(None);
        };
        let data = on_stream(ReadError, data)?;
        // Fails on a stream that is over, whose window nobody needs.
        let _ = self.stream.flow_control().release_capacity(data.len());
        self.read += data.len();
        self.kept.push(&data);
        self.complete = self.stream.is_end_stream();
        Ok(Some(data))
    }

    async fn drain(&mut self, limit: Option<Duration>) -> Result<()> {
        while self.next(limit).await?.is_some() {}
        Ok(())
    }

    async fn discard(&mut self, most: usize) {
        let most = self.read.saturating_add(most);
        while self.read < most && matches!(self.next(None).await, Ok(Some(_))) {}
    }
}

impl Kept {
    fn push(&mut self, data: &Bytes) {
        match self {
            Self::Whole(kept) if kept.len() + data.len() <= KEPT_BODY => {
                kept.extend_from_slice(data);
            }
            Self::Whole(_) => *self = Self::TooMuch,
            Self::Nothing | Self::TooMuch => {}
        }
    }
}

#[async_trait]
impl Session for Stream {
    fn req_header(&self) -> &RequestHeader {
        &self.request
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        &mut self.request
    }

    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        self.read().await
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        self.body.drain(self.drain_timeout).await
    }

    async fn write_response_header(&mut self, resp: Box<ResponseHeader>, end: bool) -> Result<()> {
        self.begin(resp, end)
    }

    async fn write_response_header_ref(&mut self, resp: &ResponseHeader, end: bool) -> Result<()> {
        self.begin(Box::new(resp.clone()), end)
    }

    async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        self.write(data, end).await
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        self.end_with(trailers)
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        let mut complete = false;
        for task in tasks {
            complete |= self.perform(task).await?;
        }
        if complete {
            self.end()?;
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
        self.break_off();
        self.see_out().await;
    }

    fn is_body_done(&mut self) -> bool {
        self.is_body_empty() || self.body.complete || self.exchange.upload.is_refused()
    }

    async fn finish(&mut self) -> Result<()> {
        self.end()?;
        self.see_out().await;
        Ok(())
    }

    fn is_body_empty(&mut self) -> bool {
        let declared = || self.request.headers.get(CONTENT_LENGTH);
        let none = || declared().is_some_and(|length| length.as_bytes() == b"0");
        self.body.read == 0 && (self.body.complete || none())
    }

    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        if no_body_expected || self.is_body_empty() || self.body.complete {
            return self.taken_back().await;
        }
        self.read().await
    }

    fn body_bytes_sent(&self) -> usize {
        self.sent
    }

    fn body_bytes_read(&self) -> usize {
        self.body.read
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
        if matches!(self.body.kept, Kept::Nothing) {
            self.body.kept = Kept::Whole(BytesMut::new());
        }
    }

    fn retry_buffer_truncated(&self) -> bool {
        matches!(self.body.kept, Kept::TooMuch)
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        match &self.body.kept {
            Kept::Whole(kept) if !kept.is_empty() => Some(kept.clone().freeze()),
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
        let none = || Box::new(NoMessages) as Box<_>;
        self.exchange.upload.is_used().then(none)
    }

    fn restore_custom_message_reader(
        &mut self,
        _reader: Box<dyn Messages<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>,
    ) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        let none = || Box::new(()) as Box<_>;
        self.exchange.upload.is_used().then(none)
    }

    fn restore_custom_message_writer(&mut self, _: Box<dyn CustomMessageWrite>) -> Result<()> {
        Ok(())
    }
}

/// The messages that there are.
struct NoMessages;

impl Messages for NoMessages {
    type Item = Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(None)
    }
}
