//! Relays a request to a peer: its head, then its body as it arrives from the client.
//!
//! Memory: the data of one read, framed for the peer, and the [`RetryBuffer`].

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncWrite;

use super::failure::Failure;
use super::pause::PauseTimer;
use crate::downstream::{ClientStream, ReceivedBody, RetryBuffer};
use crate::fault::Fault;
use crate::http1::{
    BodyLength, BodyPart, CHUNK_END, FieldLines, MessageKind, RequestHead, write_chunk_head,
    write_last_chunk,
};
use crate::phases::{Context as RequestContext, request_body};
use crate::upstream_http1::PeerStream;

/// A request that is relayed to the peer of an attempt.
#[derive(Debug)]
pub(super) struct Upload {
    body: RequestBody,
    /// Bytes for the peer; those before `sent` are written.
    out: Vec<u8>,
    sent: usize,
    /// A write has failed, so no more is sent: the peer has closed the connection.
    is_broken: bool,
    peer_pause: PauseTimer,
    client_pause: PauseTimer,
}

/// The body of a request, for all its attempts.
#[derive(Debug, Default)]
pub(super) struct RequestBody {
    pub(super) received: ReceivedBody,
    is_chunked: bool,
    trailers: FieldLines,
    /// The bytes that were read so far.
    retry_buffer: RetryBuffer,
}

impl RequestBody {
    /// The body of the request with this head.
    pub(super) fn of(head: &RequestHead) -> Self {
        Self {
            received: ReceivedBody::new(head.body(), head.expects_continue()),
            is_chunked: head.body() == BodyLength::Chunked,
            trailers: FieldLines::default(),
            retry_buffer: RetryBuffer::enabled(),
        }
    }

    /// The number of bytes that the next attempt sends again.
    pub(super) fn kept(&self) -> usize {
        self.retry_buffer.kept().len()
    }

    /// Whether the client has sent all of it.
    pub(super) fn is_complete(&self) -> bool {
        self.received.is_complete()
    }
}

impl Upload {
    /// An attempt that sends `head`, and then the body from its start.
    pub(super) fn new(mut head: Vec<u8>, body: RequestBody) -> Self {
        let kept = body.retry_buffer.kept();
        if !kept.is_empty() {
            push_data(kept, body.is_chunked, &mut head);
        }
        if body.is_complete() && body.is_chunked {
            write_last_chunk(body.trailers.iter(), &mut head);
        }
        Self {
            body,
            out: head,
            sent: 0,
            is_broken: false,
            peer_pause: PauseTimer::default(),
            client_pause: PauseTimer::default(),
        }
    }

    /// Ends the attempt; returns its buffer, empty, and the body for the next attempt.
    pub(super) fn into_parts(mut self) -> (Vec<u8>, RequestBody) {
        self.out.clear();
        (self.out, self.body)
    }

    /// Whether the peer has the whole request.
    pub(super) fn is_complete(&self) -> bool {
        self.body.is_complete() && self.is_sent()
    }

    pub(super) fn body(&self) -> &RequestBody {
        &self.body
    }

    fn is_sent(&self) -> bool {
        self.sent == self.out.len()
    }

    /// Sends the client's bytes to the peer, until one of the two must be waited for.
    ///
    /// # Errors
    /// The client ended the request, its body is refused, or a time limit passed. An error of the peer's connection is
    /// not returned: the peer may have answered before.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut ClientStream<'_>,
        (peer, write_timeout): (&mut PeerStream, Duration),
        ctx: &mut RequestContext,
    ) -> Result<(), Failure> {
        loop {
            if self.poll_send(cx, peer, write_timeout)?.is_pending() || self.body.is_complete() {
                return Ok(());
            }
            if self.decode(client.input(), ctx)? {
                continue;
            }
            match client.poll_read(cx) {
                Poll::Ready(Ok(0) | Err(_)) => return Err(Failure::Client(Fault::ClientGone)),
                Poll::Ready(Ok(_)) => self.client_pause.reset(),
                Poll::Pending => {
                    let limit = client.read_timeout();
                    return match self.client_pause.poll_paused(cx, limit) {
                        Poll::Ready(()) => Err(Failure::Client(Fault::BodyTimeout)),
                        Poll::Pending => Ok(()),
                    };
                }
            }
        }
    }

    /// Writes the next bytes for the peer.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        peer: &mut PeerStream,
        limit: Duration,
    ) -> Result<Poll<()>, Failure> {
        while let Some(rest @ [_, ..]) = self.out.get(self.sent..) {
            if self.is_broken {
                break;
            }
            match Pin::new(&mut *peer).poll_write(cx, rest) {
                Poll::Ready(Ok(0) | Err(_)) => self.is_broken = true,
                Poll::Ready(Ok(count)) => {
                    self.sent += count;
                    self.peer_pause.reset();
                }
                Poll::Pending => {
                    return match self.peer_pause.poll_paused(cx, limit) {
                        Poll::Ready(()) => Err(Failure::Peer(Fault::SendTimeout)),
                        Poll::Pending => Ok(Poll::Pending),
                    };
                }
            }
        }
        self.out.clear();
        self.sent = 0;
        if self.is_broken {
            return Ok(Poll::Pending);
        }
        match Pin::new(peer).poll_flush(cx) {
            Poll::Ready(Err(_)) => self.is_broken = true,
            Poll::Ready(Ok(())) => {}
            Poll::Pending => return Ok(Poll::Pending),
        }
        Ok(Poll::Ready(()))
    }

    /// Frames the body's bytes in `input` for the peer; false: there were none.
    fn decode(&mut self, input: &mut BytesMut, ctx: &mut RequestContext) -> Result<bool, Failure> {
        let mut found = false;
        loop {
            let part = self.body.received.decode(input);
            let refused = |refusal: crate::http1::Refusal| {
                Failure::Client(refusal.fault(MessageKind::Request))
            };
            match part.map_err(refused)? {
                BodyPart::Data(range) => {
                    found = true;
                    let data = input.get(range.clone()).unwrap_or_default();
                    request_body::on_piece(data.len(), false, ctx)?;
                    push_data(data, self.body.is_chunked, &mut self.out);
                    self.body.retry_buffer.push(data);
                    ctx.body_replayable = !self.body.retry_buffer.is_truncated();
                    drop(input.split_to(range.end));
                }
                BodyPart::NeedMore { done } => {
                    drop(input.split_to(done));
                    return Ok(found);
                }
                BodyPart::End { trailers } => {
                    if self.body.is_chunked {
                        let section = input.split_to(trailers.end).freeze().slice(trailers);
                        self.body.trailers.read_trailers(section).map_err(refused)?;
                        write_last_chunk(self.body.trailers.iter(), &mut self.out);
                    }
                    self.body.received.complete();
                    request_body::on_piece(0, true, ctx)?;
                    return Ok(true);
                }
            }
        }
    }
}

fn push_data(data: &[u8], is_chunked: bool, out: &mut Vec<u8>) {
    if is_chunked {
        write_chunk_head(data.len(), out);
    }
    out.extend_from_slice(data);
    if is_chunked {
        out.extend_from_slice(CHUNK_END);
    }
}
