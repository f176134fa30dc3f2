//! The connection to a peer that is asked to switch protocols (RFC 9110 §7.8).
//!
//! Pingora 0.9.1 (its issue 946) sends the request and reads the response concurrently. If it reads the 101 before its
//! loop has read the end of the request body, it treats that end as the end of the tunnel and closes both connections.
//! So nothing is read from such a connection until Pingora has flushed twice: after the header, and after the end of
//! the body. A request with a body is exempt: its peer must read the body before it answers 101.
//!
//! Pingora also passes on what it has read from one side before it reads from that side again, in one task for both
//! directions: a client and a peer that both send much before they read would block each other. So a write to the peer
//! is always accepted. Bytes that the peer does not accept are buffered, and meanwhile nothing is read from the client.
//!
//! Invariant: a read before the second flush is pending. It can be removed with README.md, requests 1 and 3.

use std::fmt::{self, Debug};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use async_trait::async_trait;
use pingora::connectors::TransportConnector;
use pingora::connectors::l4::Connect;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use pingora::upstreams::peer::{HttpPeer, Scheme};
use pingora::{Error, ErrorType, Result};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::tls;

/// The downstream side of a tunnel.
pub(crate) trait TunnelPacing: Debug + Send + Sync {
    /// Notes that `buffered` bytes wait for the peer, and whether the peer has taken some.
    fn on_peer_write(&self, buffered: usize, progress: bool);

    /// Ready while the client takes the peer's bytes, so that more bytes may be read from the peer.
    fn poll_client_writable(&self, cx: &mut Context<'_>) -> Poll<()>;
}

/// Wraps the connection to `peer` in a [`TunnelSocket`].
pub(crate) fn wrap_peer<E: TunnelPacing + 'static>(
    mut peer: HttpPeer,
    tls: Option<&Arc<tls::UpstreamTls>>,
    connector: &Arc<TransportConnector>,
    pacing: &Arc<E>,
) -> HttpPeer {
    peer.options.set_http_version(1, 1);
    let mut around = peer.clone();
    around.scheme = Scheme::HTTP;
    around.options.custom_l4 = Some(Arc::new(TunnelConnector {
        inner: Arc::clone(connector),
        peer,
        tls: tls.cloned(),
        pacing: Arc::clone(pacing),
    }));
    around
}

struct TunnelConnector<E> {
    inner: Arc<TransportConnector>,
    peer: HttpPeer,
    tls: Option<Arc<tls::UpstreamTls>>,
    pacing: Arc<E>,
}

#[async_trait]
impl<E: TunnelPacing + 'static> Connect for TunnelConnector<E> {
    async fn connect(&self, _address: &SocketAddr) -> Result<Stream> {
        let stream = self.inner.new_stream(&self.peer).await?;
        if let Some(tls) = &self.tls
            && !tls.accepts_version(stream.get_ssl_digest().as_deref())
        {
            return Err(Error::new_up(ErrorType::TLSHandshakeFailure));
        }
        let socket = TunnelSocket::new(stream, Arc::clone(&self.pacing));
        Ok(VirtualSocketStream::new(Box::new(socket)).into())
    }
}

impl<E> Debug for TunnelConnector<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunnelConnector").finish_non_exhaustive()
    }
}

/// A socket that is read only after the whole request was sent, and accepts every write from then on.
#[derive(Debug)]
struct TunnelSocket<S, E> {
    stream: S,
    pacing: Arc<E>,
    send_progress: SendProgress,
    /// Woken when the request was sent.
    read_waker: Option<Waker>,
    /// Bytes that the peer has not taken yet.
    write_buffer: Vec<u8>,
}

/// How much of the request was sent and flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SendProgress {
    Nothing,
    Header,
    Complete,
}

impl<S, E> TunnelSocket<S, E> {
    fn new(stream: S, pacing: Arc<E>) -> Self {
        Self {
            stream,
            pacing,
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

impl<S: AsyncWrite + Unpin, E: TunnelPacing> TunnelSocket<S, E> {
    /// Sends the buffered bytes.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let before = self.write_buffer.len();
        let drained = self.poll_write_all(cx);
        let waiting = if let Poll::Ready(Err(_)) = drained {
            // The peer is gone; its last bytes can still be read.
            self.write_buffer.clear();
            0
        } else {
            self.write_buffer.len()
        };
        self.pacing.on_peer_write(waiting, waiting < before);
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

    /// Accepts all of `bytes`; buffers those that the peer does not take.
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

impl<S: AsyncRead + AsyncWrite + Unpin, E: TunnelPacing> AsyncRead for TunnelSocket<S, E> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.send_progress != SendProgress::Complete {
            self.read_waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        // If that failed, there may still be bytes to read.
        let _ = self.poll_drain(cx);
        ready!(self.pacing.poll_client_writable(cx));
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin, E: TunnelPacing> AsyncWrite for TunnelSocket<S, E> {
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

    /// In the tunnel a flush does not wait for the peer: each read continues it.
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

impl<S, E> VirtualSocket for TunnelSocket<S, E>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + Sync + Debug,
    E: TunnelPacing,
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

    /// A client that takes everything.
    #[derive(Debug)]
    struct FastClient;

    impl TunnelPacing for FastClient {
        fn on_peer_write(&self, _buffered: usize, _progress: bool) {}

        fn poll_client_writable(&self, _cx: &mut Context<'_>) -> Poll<()> {
            Poll::Ready(())
        }
    }

    type TestSocket = TunnelSocket<UnixStream, FastClient>;

    /// A socket, and the peer's end of it.
    fn pair() -> (TestSocket, UnixStream) {
        let (ours, peers) = UnixStream::pair().unwrap();
        (TunnelSocket::new(ours, Arc::new(FastClient)), peers)
    }

    async fn read_now(socket: &mut TestSocket) -> Option<u8> {
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
        let sent = vec![7; 8 << 20];
        socket.write_all(&sent).await.unwrap();
        socket.flush().await.unwrap();
        assert!(!socket.write_buffer.is_empty());
        let mut received = vec![0; sent.len()];
        let read_all = async {
            peer.read_exact(&mut received).await.unwrap();
            peer.write_all(b"x").await.unwrap();
        };
        let (read, ()) = tokio::join!(socket.read_u8(), read_all);
        assert_eq!(read.unwrap(), b'x');
        assert!(received == sent && socket.write_buffer.is_empty());
    }

    #[tokio::test]
    async fn tunnel_sends_buffered_bytes_before_shutdown() {
        let (mut socket, mut peer) = pair();
        socket.flush().await.unwrap();
        socket.flush().await.unwrap();
        let sent = vec![7; 8 << 20];
        socket.write_all(&sent).await.unwrap();
        let mut received = Vec::new();
        let read_all = peer.read_to_end(&mut received);
        let (end, _) = tokio::join!(socket.shutdown(), read_all);
        end.unwrap();
        assert!(received == sent);
    }
}
