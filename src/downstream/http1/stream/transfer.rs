//! The state of one request and its response, which a session of Pingora shares with the loop of the connection.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, Version};
use pingora::Result;
use tokio::io::AsyncWrite;

use super::super::super::close::CloseReason;
use super::super::client::Http1Client;
use super::super::keep_alive::KeepAlive;
use super::super::received_body::ReceivedBody;
use super::request_body::Http1RequestBody;
use crate::http1::asks_for_upgrade;

/// One request and its response, on the client's connection.
#[derive(Debug)]
pub(in super::super) struct Http1Transfer {
    pub(super) client: Box<Http1Client>,
    pub(super) keep_alive: KeepAlive,
    pub(super) body: Http1RequestBody,
    pub(super) request: RequestTraits,
    pub(super) response: ResponseState,
    /// A peer was connected. Without one, the response is our own.
    pub(super) has_peer: bool,
    /// The protocol was switched by a 101.
    pub(super) is_tunnel: bool,
    /// Bytes of the response's body so far.
    pub(super) bytes_sent: usize,
}

/// The properties of a request on which the form of its response depends.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestTraits {
    pub(super) version: Version,
    pub(super) is_head: bool,
    pub(super) accepts_trailers: bool,
    pub(super) asks_for_upgrade: bool,
}

/// How far the response is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResponseState {
    /// No final header was written.
    NotBegun,
    /// The number of bytes of the body that are left.
    Sized(u64),
    Chunked,
    /// The close of the connection ends the body, or the tunnel.
    UntilClose,
    /// The whole response was written.
    Complete,
}

impl Http1Transfer {
    pub(super) fn new(mut client: Box<Http1Client>) -> Self {
        let head = &client.head;
        let request = RequestTraits {
            version: head.version(),
            is_head: head.method() == Method::HEAD,
            accepts_trailers: head.accepts_trailers(),
            asks_for_upgrade: asks_for_upgrade(head.fields(), head.version()),
        };
        let body = ReceivedBody::new(head.body(), head.expects_continue());
        let keep_alive = client.keep_alive();
        // Pingora has its own copy.
        client.head.clear();
        Self {
            keep_alive,
            body: Http1RequestBody::new(body),
            request,
            response: ResponseState::NotBegun,
            has_peer: false,
            is_tunnel: false,
            bytes_sent: 0,
            client,
        }
    }

    pub(super) fn has_begun(&self) -> bool {
        self.response != ResponseState::NotBegun
    }

    /// Whether the response was complete before the request.
    pub(super) fn is_answered_early(&self) -> bool {
        self.response == ResponseState::Complete && !self.body.is_complete()
    }

    /// Whether the client can see the end of the response in the bytes that were written. Never of a tunnel, which either side
    /// may end.
    pub(super) fn is_response_whole(&self) -> bool {
        let is_at_end = matches!(
            self.response,
            ResponseState::Complete | ResponseState::Sized(0)
        );
        is_at_end && !self.is_tunnel
    }

    /// Whether a response has begun that only the close of the connection will end.
    pub(super) fn awaits_close(&self) -> bool {
        self.response == ResponseState::UntilClose && !self.is_tunnel
    }

    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.client.stream().poll_write(cx, bytes)
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.client.io).poll_flush(cx)
    }

    pub(super) fn poll_read_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        let mut stream = self.client.stream();
        if self.is_tunnel {
            self.body.poll_read_tunnel(cx, &mut stream)
        } else {
            self.body.poll_read(cx, &mut stream)
        }
    }

    /// Ready when the client has closed its side. Bytes of later requests (pipelining) are kept.
    pub(super) fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.client.stream().poll_closed(cx)
    }

    /// Returns the connection if it carries another request.
    pub(in super::super) async fn finish(mut self) -> Result<Box<Http1Client>, CloseReason> {
        let exchange = Arc::clone(self.client.exchange());
        if self.response != ResponseState::Complete || exchange.is_keepalive_forbidden() {
            self.keep_alive.forbid();
        }
        let body = &mut self.body.received;
        self.client.drop_rest(body, &mut self.keep_alive).await;
        self.client.end_request();
        if self.keep_alive.is_allowed() {
            return Ok(self.client);
        }
        // The client may still be sending: the rest of the body, or what follows on a request that was refused.
        if !body.is_complete() || !self.has_peer {
            exchange.request_lingering_close();
        }
        Err(CloseReason::Clean)
    }
}
