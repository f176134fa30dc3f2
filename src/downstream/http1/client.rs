//! The client's connection between and during requests: its bytes, and the head of the current request.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use bytes::BytesMut;
use tokio::time::timeout;

use super::super::close::CloseReason;
use super::super::exchange::Exchange;
use super::super::io::DownstreamIo;
use super::client_stream::ClientStream;
use super::keep_alive::KeepAlive;
use super::received_body::ReceivedBody;
use crate::http1::{
    ConnectionOptions, HeadLimits, ParseStatus, Refusal, RequestHead, RequestParser,
};

/// A client's connection, with the head of the current request.
#[derive(Debug)]
pub(crate) struct Http1Client {
    pub(crate) io: DownstreamIo,
    /// Bytes received from the client that are not processed yet.
    pub(crate) input: BytesMut,
    parser: RequestParser,
    pub(crate) head: RequestHead,
    /// Requests so far, the current one included.
    requests: u32,
}

impl Http1Client {
    pub(super) fn new(io: DownstreamIo) -> Self {
        Self {
            io,
            input: BytesMut::new(),
            parser: RequestParser::default(),
            head: RequestHead::default(),
            requests: 0,
        }
    }

    /// The exchange of the connection.
    pub(crate) fn exchange(&self) -> &Arc<Exchange> {
        self.io.exchange()
    }

    /// Reads the next head; false: the client has closed the connection, or a read failed.
    ///
    /// # Errors
    /// The bytes are not a valid request.
    pub(super) async fn read_head(&mut self) -> Result<bool, Refusal> {
        let limits = &self.io.exchange().connection.limits;
        let limits = HeadLimits {
            max_size: limits.max_header_size,
            max_fields: HeadLimits::MAX_FIELDS,
            // The phases check the target: after their refusal the connection stays open.
            max_target: limits.max_header_size,
        };
        loop {
            if !self.input.is_empty() {
                let parsed = self
                    .parser
                    .parse(&mut self.input, &limits, &mut self.head)?;
                if parsed == ParseStatus::Complete {
                    self.on_head();
                    return Ok(true);
                }
            }
            let mut stream = self.stream();
            match poll_fn(|cx| stream.poll_read(cx)).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Ok(false),
            }
        }
    }

    fn on_head(&mut self) {
        self.requests = self.requests.saturating_add(1);
        let body = self.head.body().known();
        let length = body.and_then(|body| body.checked_add(self.head.size() as u64));
        if let Some(length) = length {
            self.exchange().set_request_length(length);
        }
    }

    pub(super) fn close_reason_at_end(&self) -> CloseReason {
        if self.input.is_empty() {
            CloseReason::Clean
        } else {
            CloseReason::HeaderTruncated
        }
    }

    /// Whether the client, and `keepalive_requests`, allow another request after this one.
    pub(crate) fn keep_alive(&self) -> KeepAlive {
        let version = self.head.version();
        let limit = self.exchange().connection.limits.keepalive_requests;
        let is_last = limit.is_some_and(|limit| self.requests >= limit);
        let options = ConnectionOptions::of(self.head.fields());
        KeepAlive::new(options.persists(version) && !is_last, version)
    }

    /// The stream, without the head.
    pub(crate) fn stream(&mut self) -> ClientStream<'_> {
        ClientStream::new(&mut self.io, &mut self.input)
    }

    /// Drops the rest of the request's body after the response. Forbids another request if the rest is still to come: it may
    /// never.
    pub(crate) async fn drop_rest(&mut self, body: &mut ReceivedBody, keep_alive: &mut KeepAlive) {
        if body.discard(&mut self.input) {
            return;
        }
        let is_read = keep_alive.is_allowed() && body.is_short() && self.drain(body).await;
        if !is_read {
            keep_alive.forbid();
        }
    }

    /// Reads the rest of a body, for at most one `read_timeout` in all, and drops it; false: it did not arrive.
    async fn drain(&mut self, body: &mut ReceivedBody) -> bool {
        let mut stream = self.stream();
        let limit = stream.read_timeout();
        let drained = poll_fn(|cx| {
            loop {
                if body.discard(stream.input()) {
                    return Poll::Ready(true);
                }
                match stream.poll_read(cx) {
                    Poll::Ready(Ok(1..)) => {}
                    Poll::Ready(_) => return Poll::Ready(false),
                    Poll::Pending => return Poll::Pending,
                }
            }
        });
        timeout(limit, drained).await.unwrap_or(false)
    }

    /// Forgets the request: the next bytes belong to another one.
    pub(crate) fn end_request(&mut self) {
        self.head.clear();
        if self.input.is_empty() {
            // It shares the memory of the request that was split off.
            self.input = BytesMut::new();
        }
        self.exchange().end_request(self.input.len());
    }
}
