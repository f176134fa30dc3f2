//! One client's connection: the state that is kept between two requests, and our own responses.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::client::ClientStream;
use super::download::Download;
use super::keep_alive::KeepAlive;
use super::upload::RequestBody;
use crate::downstream::{CloseReason, DownstreamIo, LocalReply, RequestEnd};
use crate::http1::{
    ConnectionOptions, FieldEdits, HeadLimits, ParseStatus, Refusal, RequestHead, RequestParser,
};
use crate::phases::{self, Context as RequestContext};

/// The most fields of a request's head.
const MAX_FIELDS: usize = 1000;

/// The state of a connection that is kept from one request to the next.
#[derive(Debug, Default)]
pub(crate) struct ConnectionState {
    /// Bytes received from the client that are not processed yet.
    pub(super) input: BytesMut,
    parser: RequestParser,
    pub(super) head: RequestHead,
    pub(super) edits: FieldEdits,
    /// The response that is relayed.
    pub(super) download: Download,
    /// The buffer for requests to peers; kept, so that a request does not allocate one.
    pub(super) out: Vec<u8>,
    /// Requests so far.
    pub(super) requests: u32,
}

impl ConnectionState {
    /// Reads the next head; false: the client has closed the connection, or a read failed.
    ///
    /// # Errors
    /// The bytes are not a valid request.
    pub(super) async fn read_head(&mut self, io: &mut DownstreamIo) -> Result<bool, Refusal> {
        let limits = &io.exchange().connection.limits;
        let limits = HeadLimits {
            max_size: limits.max_header_size,
            max_fields: MAX_FIELDS,
            // `phases::validate` checks the target: after its refusal the connection stays open.
            max_target: limits.max_header_size,
            max_interim: 0,
        };
        loop {
            if !self.input.is_empty() {
                let parsed = self
                    .parser
                    .parse(&mut self.input, &limits, &mut self.head)?;
                if parsed == ParseStatus::Complete {
                    return Ok(true);
                }
            }
            let mut client = ClientStream::new(io, &mut self.input);
            match poll_fn(|cx| client.poll_read(cx)).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Ok(false),
            }
        }
    }

    pub(super) fn close_reason_at_end(&self) -> CloseReason {
        if self.input.is_empty() {
            CloseReason::Clean
        } else {
            CloseReason::HeaderTruncated
        }
    }

    /// Puts all bytes of the request back into the stream, for Pingora to read.
    pub(super) fn put_back(&mut self, io: &mut DownstreamIo) -> RequestEnd {
        io.unread(&self.input);
        io.unread(self.head.fields().text());
        self.head.clear();
        self.input = BytesMut::new();
        RequestEnd::Unsuited
    }

    /// Returns the bytes that were read after the headers: those of the client, and those of the peer. Frees all other
    /// memory, because a tunnel may last for hours.
    pub(super) fn take_for_tunnel(&mut self) -> (BytesMut, BytesMut) {
        let from_client = std::mem::take(&mut self.input);
        let from_peer = self.download.take_unused();
        *self = Self {
            requests: self.requests,
            ..Self::default()
        };
        (from_client, from_peer)
    }

    pub(super) fn keep_alive(&self, io: &DownstreamIo) -> KeepAlive {
        let version = self.head.version();
        let limit = io.exchange().connection.limits.keepalive_requests;
        let is_last = limit.is_some_and(|limit| self.requests >= limit);
        let options = ConnectionOptions::of(self.head.fields());
        KeepAlive::new(options.persists(version) && !is_last, version)
    }

    /// Sends a response of our own, and reads the rest of a short request. Returns the status, and the length of the
    /// body that was sent; bytes.
    pub(super) async fn reply(
        &mut self,
        io: &mut DownstreamIo,
        body: &mut RequestBody,
        (ctx, keep_alive): (&mut RequestContext, &mut KeepAlive),
        reply: LocalReply,
    ) -> (u16, u64) {
        let reply = phases::local_reply::begin_reply(ctx, reply, true);
        let exchange = Arc::clone(io.exchange());
        if self.head.expects_continue() && !body.is_complete() {
            keep_alive.forbid();
        }
        if !body.discard(&mut self.input) && !body.is_short() {
            keep_alive.forbid();
        }
        let (status, length) = (reply.status.as_u16(), reply.body.len() as u64);
        let is_sent = match reply.into_http1_bytes(keep_alive.option(&exchange)) {
            Ok(bytes) => io.write_all(&bytes).await.is_ok(),
            Err(_) => false,
        };
        if !is_sent {
            keep_alive.forbid();
            return (status, 0);
        }
        if !keep_alive.is_allowed() {
            exchange.request_lingering_close();
        } else if !body.is_complete() && !self.drain(io, body).await {
            keep_alive.forbid();
            exchange.request_lingering_close();
        }
        (status, length)
    }

    /// Reads the rest of a short body, in at most one `read_timeout` in all; false: it did not arrive.
    async fn drain(&mut self, io: &mut DownstreamIo, body: &mut RequestBody) -> bool {
        let mut client = ClientStream::new(io, &mut self.input);
        let limit = client.read_timeout();
        let drained = poll_fn(|cx| {
            loop {
                if body.discard(client.input()) {
                    return Poll::Ready(true);
                }
                match client.poll_read(cx) {
                    Poll::Ready(Ok(1..)) => {}
                    Poll::Ready(_) => return Poll::Ready(false),
                    Poll::Pending => return Poll::Pending,
                }
            }
        });
        timeout(limit, drained).await.unwrap_or(false)
    }
}
