//! Phase 6, outward: the connection to a peer that is asked for a tunnel (RFC 9110, 7.8).
//!
//! Pingora 0.9 sends the request and reads the response at the same time, and hands the end of the
//! request's body from one to the other. Where a response of 101 is read before that end was taken, it
//! takes it for the end of the tunnel, and closes both connections (its issue 946). So nothing is read
//! from such a connection until the end was taken, which shows in its writes: Pingora flushes after the
//! header, and again when it took the end.
//!
//! Not for a request that has a body: its peer must have the end of that before it answers 101.
//!
//! Under all this is a connection as any other, made by a connector of Pingora's; what is above takes it
//! for a socket. A tunnel begins as HTTP/1.1 always.
//!
//! Behind that the bytes are the tunnel's, and a write is always taken, so that neither direction waits for
//! the other: what the peer does not take yet waits here, and meanwhile its client is not read from.
//!
//! Invariant: a read before the second flush is pending, whatever has come from the peer.

use std::fmt::{self, Debug};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use async_trait::async_trait;
use http::header::UPGRADE;
use pingora::connectors::TransportConnector;
use pingora::connectors::l4::Connect;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use pingora::proxy::Session;
use pingora::upstreams::peer::{HttpPeer, Scheme};
use pingora::{Error, ErrorType, Result};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::downstream::Exchange;
use crate::tls;

/// Whether the request asks for a tunnel, in Pingora's view, and has no body.
pub(super) fn is_requested(session: &mut Session) -> bool {
    let upgrade = session.req_header().headers.get(UPGRADE);
    upgrade.is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"))
        && session.as_mut().is_body_empty()
}

/// The peer, with a connection of its own kind around one that is made as this one would be.
pub(super) fn wrap_peer(
    mut peer: HttpPeer,
    tls: Option<&Arc<tls::UpstreamTls>>,
    connector: &Arc<TransportConnector>,
    exchange: &Arc<Exchange>,
) -> HttpPeer {
    peer.options.set_http_version(1, 1);
    let mut around = peer.clone();
    around.scheme = Scheme::HTTP;
    around.options.custom_l4 = Some(Arc::new(TunnelConnector {
        inner: Arc::clone(connector),
        peer,
        tls: tls.cloned(),
        exchange: Arc::clone(exchange),
    }));
    around
}

struct TunnelConnector {
    inner: Arc<TransportConnector>,
    peer: HttpPeer,
    tls: Option<Arc<tls::UpstreamTls>>,
    exchange: Arc<Exchange>,
}

#[async_trait]
impl Connect for TunnelConnector {
    async fn connect(&self, _address: &SocketAddr) -> Result<Stream> {
        let stream = self.inner.new_stream(&self.peer).await?;
        if let (Some(tls), Some(secured)) = (&self.tls, stream.get_ssl_digest())
            && !tls.accepts_version(&secured.version)
        {
            return Err(Error::new_up(ErrorType::TLSHandshakeFailure));
        }
        let socket = TunnelSocket::new(stream, Arc::clone(&self.exchange));
        Ok(VirtualSocketStream::new(Box::new(socket)).into())
    }
}

impl Debug for TunnelConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

/// A socket that is read only after the whole request was sent, and that takes every write from then on.
#[derive(Debug)]
struct TunnelSocket<S> {
    stream: S,
    exchange: Arc<Exchange>,
    send_progress: SendProgress,
    /// Waits for the request to be sent.
    read_waker: Option<Waker>,
    /// What the peer has not taken yet.
    write_buffer: Vec<u8>,
}

/// What of the request was sent, and flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SendProgress {
    Nothing,
    Header,
    Complete,
}

impl<S> TunnelSocket<S> {
    fn new(stream: S, exchange: Arc<Exchange>) -> Self {
        Self {
            stream,
            exchange,
            send_progress: SendProgress::Nothing,
            read_waker: None,
            write_buffer: Vec::new(),
        }
    }

    fn on_flush(&mut self) {
        self.send_progress = match self.send_progress {
            SendProgress::Nothing => SendProgress::Header,
            SendProgress::Header | SendProgress::Complete => SendProgress::Complete,
        };
        if self.send_progress == SendProgress::Complete
            && let Some(reader) = self.read_waker.take()
        {
            reader.wake();
        }
    }
}

impl<S: AsyncWrite + Unpin> TunnelSocket<S> {
    /// Sends what waits.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let before = self.write_buffer.len();
        let drained = self.poll_write_all(cx);
        let waiting = if let Poll::Ready(Err(_)) = drained {
            // The peer is gone; what it said last can still be read.
            self.write_buffer.clear();
            0
        } else {
            self.write_buffer.len()
        };
        self.exchange.on_peer_write(waiting, waiting < before);
        ready!(drained)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_write_all(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.write_buffer.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.write_buffer))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.write_buffer.drain(..written);
        }
        Poll::Ready(Ok(()))
    }

    /// Takes all of it, whether the peer does or not.
    fn write_or_buffer(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> io::Result<usize> {
        if self.write_buffer.is_empty()
            && let Poll::Ready(written) = Pin::new(&mut self.stream).poll_write(cx, bytes)
        {
            return written;
        }
        self.write_buffer.extend_from_slice(bytes);
        match self.poll_drain(cx) {
            Poll::Ready(Err(error)) => Err(error),
            _ => Ok(bytes.len()),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TunnelSocket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.send_progress != SendProgress::Complete {
            self.read_waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        // Whatever became of that, the peer may have more to say.
        let _ = self.poll_drain(cx);
        ready!(self.exchange.poll_client_writable(cx));
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TunnelSocket<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.send_progress == SendProgress::Complete {
            return Poll::Ready(self.write_or_buffer(cx, bytes));
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    /// In the tunnel nobody waits for that: each read goes on with it.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.send_progress == SendProgress::Complete {
            return match self.poll_drain(cx) {
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                _ => Poll::Ready(Ok(())),
            };
        }
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.on_flush();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S> VirtualSocket for TunnelSocket<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + Sync + Debug,
{
    fn set_socket_option(&self, _option: VirtualSockOpt) -> io::Result<()> {
        Ok(()) // set when the socket was connected
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    use super::*;
    use crate::config::DownstreamConfig;
    use crate::downstream::ConnectionLimit;

    /// A socket, and its peer's end.
    fn pair() -> (TunnelSocket<UnixStream>, UnixStream) {
        let (exchange, _client) =
            Exchange::for_test(DownstreamConfig::DEFAULT, &ConnectionLimit::new(None));
        let (ours, peers) = UnixStream::pair().unwrap();
        (TunnelSocket::new(ours, exchange), peers)
    }

    async fn read_now(socket: &mut TunnelSocket<UnixStream>) -> Option<u8> {
        tokio::select! {
            biased;
            byte = socket.read_u8() => Some(byte.unwrap()),
            () = std::future::ready(()) => None,
        }
    }

    #[tokio::test]
    async fn tunnel_holds_peer_bytes_until_the_request_is_sent() {
        let (mut socket, mut peer) = pair();
        peer.write_all(b"ab").await.unwrap();
        socket.stream.readable().await.unwrap();

        assert_eq!(read_now(&mut socket).await, None);
        socket.write_all(b"header").await.unwrap();
        socket.flush().await.unwrap();
        assert_eq!(read_now(&mut socket).await, None);
        socket.flush().await.unwrap();
        assert_eq!(read_now(&mut socket).await, Some(b'a'));
        socket.flush().await.unwrap();
        assert_eq!(read_now(&mut socket).await, Some(b'b'));
    }

    #[tokio::test]
    async fn tunnel_buffers_unsent_bytes_and_sends_them_while_reading() {
        let (mut socket, mut peer) = pair();
        socket.flush().await.unwrap();
        socket.flush().await.unwrap();
        let said = vec![7; 8 << 20];
        socket.write_all(&said).await.unwrap();
        socket.flush().await.unwrap();
        assert!(!socket.write_buffer.is_empty());
        let mut heard = vec![0; said.len()];
        let listen = async {
            peer.read_exact(&mut heard).await.unwrap();
            peer.write_all(b"x").await.unwrap();
        };
        let (read, ()) = tokio::join!(socket.read_u8(), listen);
        assert_eq!(read.unwrap(), b'x');
        assert!(heard == said && socket.write_buffer.is_empty());
    }

    #[tokio::test]
    async fn tunnel_sends_buffered_bytes_before_shutdown() {
        let (mut socket, mut peer) = pair();
        socket.flush().await.unwrap();
        socket.flush().await.unwrap();
        let said = vec![7; 8 << 20];
        socket.write_all(&said).await.unwrap();
        let mut heard = Vec::new();
        let listen = peer.read_to_end(&mut heard);
        let (end, _) = tokio::join!(socket.shutdown(), listen);
        end.unwrap();
        assert!(heard == said);
    }
}
