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

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use pingora::protocols::l4::stream::Stream;
    use rustix::net::{Shutdown, shutdown};
    use tokio::io::{AsyncReadExt, split};
    use tokio::net::UnixStream;

    use super::*;
    use crate::config::DownstreamConfig;
    use crate::downstream::{ConnectionLimit, drive_connection};

    const MINUTE: Duration = Duration::from_secs(60);
    /// More than all buffers between two sides hold; bytes.
    const FLOOD: usize = 8 << 20;

    /// Runs a tunnel while `sides` uses the client's and the peer's end of it. `first`: the bytes to the peer and to the
    /// client that were read with the headers. Returns the bytes that were counted in both directions.
    async fn run(
        first: (&str, &str),
        sides: impl AsyncFnOnce(UnixStream, UnixStream),
    ) -> Result<(u64, u64), Failure> {
        let limit = ConnectionLimit::new(None);
        let (exchange, client) = Exchange::for_test(DownstreamConfig::DEFAULT, &limit);
        exchange.begin_tunnel(MINUTE, None, MINUTE);
        let (ours, peer) = UnixStream::pair().unwrap();
        let mut ctx = RequestContext::for_test_with_key("\"127.0.0.1:2\"");
        ctx.exchange = Some(Arc::clone(&exchange));
        let served = async {
            let mut io = DownstreamIo::new(Arc::clone(&exchange));
            let mut stream = PeerStream::Pingora(Box::new(Stream::from(ours)));
            let to_peer = (&mut io, BytesMut::from(first.0));
            let tunnel = Tunnel::new(to_peer, (&mut stream, BytesMut::from(first.1)));
            let ended = {
                let mut relay = pin!(tunnel.run(MINUTE, &mut ctx));
                drive_connection(&exchange, &mut relay).await
            };
            // The client may have left.
            let _ = io.shutdown().await;
            ended
        };
        let (ended, ()) = tokio::join!(served, sides(client, peer));
        ended.map(|()| (ctx.request_body_bytes, ctx.response_body_bytes))
    }

    async fn expect(side: &mut UnixStream, text: &str) {
        let mut received = vec![0; text.len()];
        side.read_exact(&mut received).await.unwrap();
        assert_eq!(received, text.as_bytes());
    }

    async fn expect_last(side: &mut UnixStream, text: &str) {
        let mut received = String::new();
        side.read_to_string(&mut received).await.unwrap();
        assert_eq!(received, text);
    }

    #[tokio::test]
    async fn tunnel_sends_the_first_bytes_and_then_all_others_in_both_directions() {
        let counted = run(("ab", "cde"), async |mut client, mut peer| {
            client.write_all(b"ping").await.unwrap();
            expect(&mut peer, "abping").await;
            peer.write_all(b"pong!").await.unwrap();
            expect(&mut client, "cdepong!").await;
        });
        assert_eq!(counted.await, Ok((6, 8)));
    }

    #[tokio::test]
    async fn tunnel_ends_with_either_side_after_the_bytes_that_it_sent() {
        let by_peer = run(("", ""), async |mut client, mut peer| {
            peer.write_all(b"last").await.unwrap();
            drop(peer);
            expect_last(&mut client, "last").await;
        });
        assert_eq!(by_peer.await, Ok((0, 4)));
        let by_client = run(("first ", ""), async |mut client, mut peer| {
            client.write_all(b"last").await.unwrap();
            drop(client);
            expect_last(&mut peer, "first last").await;
        });
        assert_eq!(by_client.await, Ok((10, 0)));
    }

    /// `sender` sends more than fits, and gets a reply before the receiver has read any of it.
    async fn flood(sender: UnixStream, mut receiver: UnixStream) {
        let (mut replies, mut output) = split(sender);
        let flood = vec![7; FLOOD];
        let mut write = pin!(output.write_all(&flood));
        let reply = async {
            receiver.write_all(b"x").await.unwrap();
            assert_eq!(replies.read_u8().await.unwrap(), b'x');
        };
        tokio::select! {
            biased;
            _ = &mut write => panic!("all was taken, though the receiver reads nothing"),
            () = reply => {}
        }
        let mut taken = vec![0; FLOOD];
        let (sent, read) = tokio::join!(write, receiver.read_exact(&mut taken));
        sent.unwrap();
        read.unwrap();
        assert!(taken == flood);
    }

    #[tokio::test]
    async fn tunnel_direction_that_is_blocked_does_not_block_the_other() {
        let length = FLOOD as u64;
        let to_peer = run(("", ""), async |client, peer| flood(client, peer).await);
        assert_eq!(to_peer.await, Ok((length, 1)));
        let to_client = run(("", ""), async |client, peer| flood(peer, client).await);
        assert_eq!(to_client.await, Ok((1, length)));
    }

    #[tokio::test]
    async fn tunnel_to_a_peer_that_accepts_nothing_still_passes_its_last_bytes() {
        let counted = run(("", ""), async |mut client, mut peer| {
            shutdown(&peer, Shutdown::Read).unwrap();
            client.write_all(b"lost").await.unwrap();
            peer.write_all(b"last").await.unwrap();
            drop(peer);
            expect_last(&mut client, "last").await;
        });
        assert_eq!(counted.await, Ok((4, 4)));
    }
}
