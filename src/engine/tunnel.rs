//! A tunnel: after 101, bytes pass unchanged in both directions (RFC 9110 §7.8).
//!
//! The directions alternate, one read each, so neither can block the other. Bytes that a receiver does not accept yet are
//! buffered; until they are sent, nothing more is read from their sender. If either side ends, the tunnel ends: the bytes
//! that were read before are sent first.
//!
//! Memory: only bytes that a receiver has not accepted are buffered, so a silent tunnel has no buffer. The exchange
//! enforces the limits on silence, on the total time and on a peer that accepts nothing: it drops the future.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;

use super::failure::Failure;
use crate::downstream::{DownstreamIo, Exchange};
use crate::fault::Fault;
use crate::phases::{Context as RequestContext, forward_response, request_body};
use crate::upstream_http1::PeerStream;

/// The most bytes of one read; on the stack.
const READ_SIZE: usize = 16 * 1024;

/// The two connections of a tunnel.
#[derive(Debug)]
pub(super) struct Tunnel<'a> {
    exchange: Arc<Exchange>,
    client: &'a mut DownstreamIo,
    peer: &'a mut PeerStream,
    /// Bytes that the client has not accepted yet.
    to_client: BytesMut,
    /// Bytes that the peer has not accepted yet.
    to_peer: BytesMut,
    /// Whether bytes for the peer are unsent: in `to_peer`, or in the buffer of its stream.
    has_unsent: bool,
    /// Whether a write to the peer has failed. Its last bytes can still be read.
    is_broken: bool,
}

/// The result of one step.
enum Step {
    /// Bytes were read, and written or buffered.
    Moved,
    /// The sender has closed its side, and all of its bytes were written.
    Ended,
}

impl<'a> Tunnel<'a> {
    /// A tunnel. Its first bytes were read together with the two headers.
    pub(super) fn new(
        (client, to_peer): (&'a mut DownstreamIo, BytesMut),
        (peer, to_client): (&'a mut PeerStream, BytesMut),
    ) -> Self {
        Self {
            exchange: Arc::clone(client.exchange()),
            client,
            peer,
            to_client,
            has_unsent: !to_peer.is_empty(),
            to_peer,
            is_broken: false,
        }
    }

    /// Relays until one side ends. `write_timeout` limits the close of the connection to the peer.
    ///
    /// # Errors
    /// The connection of either side failed.
    pub(super) async fn run(
        mut self,
        write_timeout: Duration,
        ctx: &mut RequestContext,
    ) -> Result<(), Failure> {
        request_body::on_piece(self.to_peer.len(), false, ctx)?;
        forward_response::on_piece(self.to_client.len(), ctx);
        poll_fn(|cx| self.poll_relay(cx, ctx)).await?;
        // The caller closes the client's connection. An error means that the peer has closed its own already.
        let _ = timeout(write_timeout, self.peer.shutdown()).await;
        Ok(())
    }

    fn poll_relay(
        &mut self,
        cx: &mut Context<'_>,
        ctx: &mut RequestContext,
    ) -> Poll<Result<(), Failure>> {
        loop {
            let inward = self.poll_inward(cx, ctx)?;
            let outward = self.poll_outward(cx, ctx)?;
            match (inward, outward) {
                (Poll::Ready(Step::Ended), _) | (_, Poll::Ready(Step::Ended)) => {
                    return Poll::Ready(Ok(()));
                }
                (Poll::Pending, Poll::Pending) => return Poll::Pending,
                _ => {}
            }
        }
    }

    /// Reads once from the client, and writes to the peer.
    fn poll_inward(
        &mut self,
        cx: &mut Context<'_>,
        ctx: &mut RequestContext,
    ) -> Poll<Result<Step, Failure>> {
        ready!(self.poll_send(cx));
        let mut space = [const { MaybeUninit::uninit() }; READ_SIZE];
        let mut piece = ReadBuf::uninit(&mut space);
        let read = Pin::new(&mut *self.client).poll_read(cx, &mut piece);
        if ready!(read).is_err() {
            return Poll::Ready(Err(Failure::Client(Fault::ClientGone)));
        }
        let piece = piece.filled();
        if piece.is_empty() {
            return Poll::Ready(Ok(Step::Ended));
        }
        request_body::on_piece(piece.len(), false, ctx)?;
        match write_some(cx, self.peer, piece) {
            Ok(taken) => {
                let rest = piece.get(taken..).unwrap_or_default();
                self.to_peer.extend_from_slice(rest);
                self.has_unsent = true;
            }
            Err(_) => self.give_up_peer(),
        }
        Poll::Ready(Ok(Step::Moved))
    }

    /// Sends the buffered bytes to the peer. Ready if none are left.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.has_unsent && self.try_send(cx).is_err() {
            self.give_up_peer();
        }
        if self.has_unsent || self.is_broken {
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// Stops writing to the peer. Its last bytes are still read; its end, or an error, ends the tunnel.
    fn give_up_peer(&mut self) {
        self.is_broken = true;
        self.has_unsent = false;
        self.to_peer = BytesMut::new();
        self.exchange.on_peer_write(0, true);
    }

    fn try_send(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let taken = write_some(cx, self.peer, &self.to_peer)?;
        self.to_peer.advance(taken);
        let flushed = match Pin::new(&mut *self.peer).poll_flush(cx) {
            Poll::Ready(flushed) => flushed.map(|()| true)?,
            Poll::Pending => false,
        };
        self.has_unsent = !flushed || !self.to_peer.is_empty();
        if !self.has_unsent {
            self.to_peer = BytesMut::new();
        }
        // Bytes in the buffer of the stream count as one: their number is not known.
        let waiting = self.to_peer.len().max(usize::from(self.has_unsent));
        let has_progressed = taken > 0 || !self.has_unsent;
        self.exchange.on_peer_write(waiting, has_progressed);
        Ok(())
    }

    /// Reads once from the peer, and writes to the client.
    fn poll_outward(
        &mut self,
        cx: &mut Context<'_>,
        ctx: &mut RequestContext,
    ) -> Poll<Result<Step, Failure>> {
        let gone = |_| Failure::Client(Fault::ClientGone);
        if !self.to_client.is_empty() {
            let taken = write_some(cx, self.client, &self.to_client).map_err(gone)?;
            self.to_client.advance(taken);
            // The client's stream accepts all bytes, except after a boundary at which it ends.
            if !self.to_client.is_empty() {
                return Poll::Pending;
            }
            self.to_client = BytesMut::new();
        }
        ready!(self.exchange.poll_client_writable(cx));
        let mut space = [const { MaybeUninit::uninit() }; READ_SIZE];
        let mut piece = ReadBuf::uninit(&mut space);
        let read = Pin::new(&mut *self.peer).poll_read(cx, &mut piece);
        if ready!(read).is_err() {
            return Poll::Ready(Err(Failure::Peer(Fault::ResponseTruncated)));
        }
        let piece = piece.filled();
        if piece.is_empty() {
            return Poll::Ready(Ok(Step::Ended));
        }
        forward_response::on_piece(piece.len(), ctx);
        let taken = write_some(cx, self.client, piece).map_err(gone)?;
        let rest = piece.get(taken..).unwrap_or_default();
        self.to_client.extend_from_slice(rest);
        Poll::Ready(Ok(Step::Moved))
    }
}

/// Writes bytes until the receiver accepts no more for now; returns how many.
fn write_some(
    cx: &mut Context<'_>,
    receiver: &mut (impl AsyncWrite + Unpin),
    bytes: &[u8],
) -> io::Result<usize> {
    let mut rest = bytes;
    while !rest.is_empty() {
        match Pin::new(&mut *receiver).poll_write(cx, rest) {
            Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(Ok(taken)) => rest = rest.get(taken..).unwrap_or_default(),
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Pending => break,
        }
    }
    Ok(bytes.len() - rest.len())
}
