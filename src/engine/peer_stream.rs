//! A connection to a peer: plain TCP of our own, or one that Pingora's connector made (TLS, Unix sockets, PROXY
//! headers). Connects are rare, as connections are reused, so the connector's cost does not matter there.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pingora::connectors::TransportConnector;
use pingora::protocols::Stream;
use pingora::upstreams::peer::HttpPeer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::failure::ConnectFailure;
use crate::fault::Fault;

/// A connected byte stream to a peer.
#[derive(Debug)]
pub(super) enum PeerStream {
    Tcp(TcpStream),
    Pingora(Stream),
}

impl PeerStream {
    /// Connects by plain TCP, within `limit`.
    ///
    /// # Errors
    /// The kernel's error, or the limit passed.
    pub(super) async fn connect_tcp(
        address: SocketAddr,
        limit: Duration,
    ) -> Result<Self, ConnectFailure> {
        let Ok(connected) = timeout(limit, TcpStream::connect(address)).await else {
            return Err(Fault::ConnectTimeout.into());
        };
        let socket = connected?;
        // Fails only on a socket that has ended, which the first write finds.
        let _ = socket.set_nodelay(true);
        Ok(Self::Tcp(socket))
    }

    /// Connects as Pingora does; the peer's options have the limits.
    ///
    /// # Errors
    /// The connector's error.
    pub(super) async fn connect_with(
        connector: &TransportConnector,
        peer: &HttpPeer,
    ) -> Result<Self, ConnectFailure> {
        let stream = connector.new_stream(peer).await?;
        Ok(Self::Pingora(stream))
    }

    /// Whether the negotiated version of TLS is acceptable; without TLS, yes.
    pub(super) fn has_tls_version(&self, accepts: impl FnOnce(&str) -> bool) -> bool {
        let session = match self {
            Self::Tcp(_) => None,
            Self::Pingora(stream) => stream.get_ssl_digest(),
        };
        session.is_none_or(|session| accepts(&session.version))
    }

    /// Ready if an idle connection has ended or has sent something. The waker of `cx` need not be a real one:
    /// the next read registers another.
    pub(super) fn poll_unexpected(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut byte = [0];
        let mut buffer = ReadBuf::new(&mut byte);
        Pin::new(self).poll_read(cx, &mut buffer).map(drop)
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_read(cx, buffer),
            Self::Pingora(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Pingora(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_flush(cx),
            Self::Pingora(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Pingora(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
