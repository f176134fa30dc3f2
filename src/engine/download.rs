//! Relays the response of a peer to the client.
//!
//! Memory: the bytes of one read; no more is read from the peer until the client has taken them.

use std::ops::Range;
use std::sync::Arc;
use std::task::{Context, Poll};

use arc_swap::ArcSwap;
use bytes::{Buf, Bytes, BytesMut};
use http::header::UPGRADE;
use http::{Method, StatusCode, Version};
use pingora::protocols::http::date::get_cached_date;

use super::failure::Failure;
use crate::downstream::{ClientStream, KeepAlive};
use crate::fault::Fault;
use crate::http1::{
    BodyDecoder, BodyLength, BodyPart, CHUNK_END, ChunkLimits, FieldEdits, FieldLines, HeadLimits,
    MessageKind, ParseStatus, Refusal, ResponseContext, ResponseHead, ResponseParser,
    write_chunk_head, write_last_chunk, write_response,
};
use crate::phases::{Context as RequestContext, forward_response, stream_limits};
use crate::read_buffer::{poll_read_body, poll_read_head};
use crate::snapshot::Snapshot;
use crate::upstream_http1::PeerStream;

/// Room for a piece of a body; bytes.
const BODY_READ_SIZE: usize = 32 * 1024;

/// A response that is relayed to the client.
#[derive(Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts of one response, and none excludes another"
)]
pub(super) struct Download {
    parser: ResponseParser,
    head: ResponseHead,
    edits: FieldEdits,
    /// Bytes received from the peer that are not processed yet.
    input: BytesMut,
    state: State,
    /// The next bytes for the client are `prefix` from `prefix_sent` on, the range `data` of `input`, then `suffix`.
    prefix: Vec<u8>,
    prefix_sent: usize,
    data: Range<usize>,
    suffix: &'static [u8],
    /// Whether the data is sent in chunks.
    is_chunked: bool,
    /// Whether the client gets the trailers.
    passes_trailers: bool,
    has_received: bool,
    /// Whether the peer keeps the connection open for another request.
    peer_persists: bool,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Head,
    Body(BodyDecoder),
    /// The peer has switched protocols; what follows is not HTTP.
    Tunnel,
    Done,
}

/// The facts of a request on which its response depends.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestFacts<'a> {
    pub(super) method: &'a Method,
    pub(super) version: Version,
    pub(super) fields: &'a FieldLines,
    /// Whether the client accepts trailers.
    pub(super) accepts_trailers: bool,
    /// Whether the peer may switch protocols: a request without a body asked for it (RFC 9110 §7.8).
    pub(super) may_switch: bool,
    /// The configuration in force.
    pub(super) snapshot: &'a Arc<ArcSwap<Snapshot>>,
}

impl Download {
    /// Forgets the response; memory is kept for the next one.
    pub(super) fn reset(&mut self) {
        self.parser = ResponseParser::default();
        self.head.clear();
        self.edits.clear();
        self.input = BytesMut::new();
        self.state = State::Head;
        self.prefix.clear();
        self.prefix_sent = 0;
        self.data = 0..0;
        self.suffix = b"";
        self.is_chunked = false;
        self.passes_trailers = false;
        self.has_received = false;
        self.peer_persists = false;
    }

    /// The memory that [`reset`](Self::reset) keeps; bytes.
    pub(super) fn capacity(&self) -> usize {
        self.head.capacity() + self.edits.capacity() + self.prefix.capacity()
    }

    /// Whether the peer's connection can carry another request.
    pub(super) fn leaves_reusable(&self) -> bool {
        self.peer_persists && self.input.is_empty()
    }

    /// Whether the peer has sent anything in this attempt.
    pub(super) fn has_received(&self) -> bool {
        self.has_received
    }

    /// Whether a tunnel begins.
    pub(super) fn has_switched(&self) -> bool {
        matches!(self.state, State::Tunnel)
    }

    /// The bytes that the peer has sent after the response.
    pub(super) fn take_unused(&mut self) -> BytesMut {
        std::mem::take(&mut self.input)
    }

    /// Relays until the peer or the client must be waited for. Ready when the whole response was written to the
    /// client's stream.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut ClientStream<'_>,
        peer: &mut PeerStream,
        request: RequestFacts<'_>,
        (ctx, keep_alive): (&mut RequestContext, &mut KeepAlive),
    ) -> Poll<Result<(), Failure>> {
        loop {
            match self.poll_write(cx, client) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(failure)) => return Poll::Ready(Err(failure)),
                Poll::Pending => return Poll::Pending,
            }
            let advanced = match &self.state {
                State::Tunnel | State::Done => return Poll::Ready(Ok(())),
                State::Head => self.parse_head(client, request, (ctx, keep_alive)),
                State::Body(_) => self.decode_body(ctx),
            };
            match advanced {
                Ok(true) => {}
                Ok(false) => match self.poll_read(cx, peer) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(failure)) => return Poll::Ready(Err(failure)),
                    Poll::Pending => return Poll::Pending,
                },
                Err(failure) => return Poll::Ready(Err(failure)),
            }
        }
    }

    /// Writes the next bytes for the client; ready when all are written.
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut ClientStream<'_>,
    ) -> Poll<Result<(), Failure>> {
        loop {
            let rest = self.prefix.get(self.prefix_sent..).unwrap_or_default();
            let data = self.input.get(self.data.clone()).unwrap_or_default();
            let next = match (rest, data) {
                ([_, ..], _) => rest,
                (_, [_, ..]) => data,
                _ => self.suffix,
            };
            if next.is_empty() {
                self.prefix.clear();
                self.prefix_sent = 0;
                return Poll::Ready(Ok(()));
            }
            let written = match client.poll_write(cx, next) {
                Poll::Ready(Ok(written)) => written,
                Poll::Ready(Err(_)) => {
                    return Poll::Ready(Err(Failure::Client(Fault::ClientGone)));
                }
                Poll::Pending => return Poll::Pending,
            };
            if !rest.is_empty() {
                self.prefix_sent += written;
            } else if !data.is_empty() {
                self.data.start += written;
                if self.data.is_empty() {
                    self.input.advance(self.data.end);
                    self.data = 0..0;
                }
            } else {
                self.suffix = self.suffix.get(written..).unwrap_or_default();
            }
        }
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        peer: &mut PeerStream,
    ) -> Poll<Result<(), Failure>> {
        let input = &mut self.input;
        let read = match self.state {
            State::Body(_) => poll_read_body(peer, cx, input, BODY_READ_SIZE),
            State::Head | State::Tunnel | State::Done => poll_read_head(peer, cx, input),
        };
        match read {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(1..)) => {
                self.has_received = true;
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Ok(0)) => Poll::Ready(self.on_peer_end(true)),
            Poll::Ready(Err(_)) => Poll::Ready(self.on_peer_end(false)),
        }
    }

    /// The connection to the peer has ended. A reset, and TLS without its closing alert, are no clean end: a body that
    /// ends with the connection is incomplete then (RFC 9112 §8 and §9.8).
    fn on_peer_end(&mut self, is_clean: bool) -> Result<(), Failure> {
        self.peer_persists = false;
        match &self.state {
            State::Head => Err(Failure::Peer(Fault::UpstreamReset)),
            State::Body(decoder) if !is_clean || !decoder.may_end_at_close() => {
                Err(Failure::Peer(Fault::ResponseTruncated))
            }
            State::Body(_) | State::Tunnel | State::Done => self.end_body(None),
        }
    }

    fn end_body(&mut self, trailers: Option<Bytes>) -> Result<(), Failure> {
        if self.is_chunked {
            let mut fields = FieldLines::default();
            if let Some(section) = trailers.filter(|_| self.passes_trailers) {
                let read = fields.read_trailers(section);
                read.map_err(|_| Failure::Peer(Fault::ResponseTruncated))?;
            }
            write_last_chunk(fields.iter(), &mut self.prefix);
        }
        self.state = State::Done;
        Ok(())
    }

    /// Finds the next piece of the body; false: more bytes are needed.
    fn decode_body(&mut self, ctx: &mut RequestContext) -> Result<bool, Failure> {
        let State::Body(decoder) = &mut self.state else {
            return Ok(true);
        };
        let part = decoder.decode(&self.input);
        match part.map_err(|_| Failure::Peer(Fault::ResponseTruncated))? {
            BodyPart::Data(range) => {
                forward_response::on_piece(range.len(), ctx);
                if self.is_chunked {
                    write_chunk_head(range.len(), &mut self.prefix);
                    self.suffix = CHUNK_END;
                }
                self.data = range;
                Ok(true)
            }
            BodyPart::NeedMore { done } => {
                self.input.advance(done);
                Ok(false)
            }
            BodyPart::End { trailers } => {
                let section = self.input.split_to(trailers.end).freeze();
                self.end_body(Some(section.slice(trailers)))?;
                Ok(true)
            }
        }
    }

    /// Parses the next head, and forwards it; false: more bytes are needed.
    fn parse_head(
        &mut self,
        client: &ClientStream<'_>,
        request: RequestFacts<'_>,
        (ctx, keep_alive): (&mut RequestContext, &mut KeepAlive),
    ) -> Result<bool, Failure> {
        if self.input.is_empty() {
            return Ok(false);
        }
        let context = ResponseContext {
            method: request.method,
            asks_upgrade: request.may_switch,
        };
        let input = &mut self.input;
        let parsed = self
            .parser
            .parse(input, &HeadLimits::RESPONSE, context, &mut self.head);
        let refused = |refusal: Refusal| Failure::Peer(refusal.fault(MessageKind::Response));
        if parsed.map_err(refused)? == ParseStatus::Partial {
            return Ok(false);
        }
        if self.head.is_interim() {
            self.forward_interim(request.version, ctx)?;
        } else {
            self.forward_head(client, request, (ctx, keep_alive))?;
        }
        Ok(true)
    }

    /// Forwards an interim response, but not to a client of HTTP/1.0 (RFC 9110 §15.2).
    fn forward_interim(
        &mut self,
        client: Version,
        ctx: &mut RequestContext,
    ) -> Result<(), Failure> {
        forward_response::on_interim(self.head.status(), ctx).map_err(Failure::Peer)?;
        if client == Version::HTTP_11 {
            let editor = self.head.forward(&mut self.edits, BodyLength::Empty);
            write_response(
                self.head.status(),
                Some(self.head.reason()),
                &editor,
                &mut self.prefix,
            );
        }
        Ok(())
    }

    fn forward_head(
        &mut self,
        client: &ClientStream<'_>,
        request: RequestFacts<'_>,
        (ctx, keep_alive): (&mut RequestContext, &mut KeepAlive),
    ) -> Result<(), Failure> {
        let status = self.head.status();
        let body = match self.head.body() {
            BodyLength::Chunked | BodyLength::UntilClose if request.version == Version::HTTP_11 => {
                BodyLength::Chunked
            }
            BodyLength::Chunked => BodyLength::UntilClose,
            other => other,
        };
        self.peer_persists = self.head.leaves_persistent();
        self.is_chunked = body == BodyLength::Chunked;
        self.passes_trailers = request.accepts_trailers;
        if body == BodyLength::UntilClose {
            keep_alive.forbid();
            ctx.response_ends_at_close = true;
        }
        let mut editor = self.head.forward(&mut self.edits, body);
        // 101 names the new protocol, and 426 those to upgrade to (RFC 9110 §15.2.2 and §15.5.22).
        let is_switch = status == StatusCode::SWITCHING_PROTOCOLS;
        if (is_switch || status == StatusCode::UPGRADE_REQUIRED)
            && let Some(protocols) = self.head.fields().get(UPGRADE)
        {
            let _ = editor.append("Upgrade", protocols);
        }
        let effects = forward_response::prepare_response(request.fields, status, &mut editor, ctx)?;
        if effects.closes_connection {
            keep_alive.forbid();
        }
        stream_limits::enforce_stream_limits(
            request.snapshot,
            request.fields,
            (status, &editor),
            ctx,
        );
        let option = if is_switch {
            keep_alive.forbid();
            Some("Upgrade")
        } else {
            keep_alive.option(client.exchange())
        };
        if let Some(option) = option {
            let _ = editor.append("Connection", option);
        }
        // RFC 9110 §6.6.1: a response without a date gets the time at which it came.
        if !editor.contains("Date") {
            let _ = editor.append("Date", get_cached_date());
        }
        write_response(status, Some(self.head.reason()), &editor, &mut self.prefix);
        self.state = match self.head.body() {
            BodyLength::Empty => State::Done,
            BodyLength::Tunnel => State::Tunnel,
            length => State::Body(BodyDecoder::new(length, ChunkLimits::DEFAULT)),
        };
        Ok(())
    }
}
