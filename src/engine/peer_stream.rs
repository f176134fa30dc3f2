//! A connection to a peer: plain TCP of our own; or, for TLS, a Unix socket or a PROXY header, one that Pingora's
//! connector made. The connector's cost does not matter, because most requests reuse a connection.

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
    /// The connect failed, or took longer than `limit`.
    pub(super) async fn connect_tcp(
        address: SocketAddr,
        limit: Duration,
    ) -> Result<Self, ConnectFailure> {
        let Ok(connected) = timeout(limit, TcpStream::connect(address)).await else {
            return Err(Fault::ConnectTimeout.into());
        };
        let socket = connected?;
        // Fails only if the connection has ended; then the first write fails, too.
        let _ = socket.set_nodelay(true);
        Ok(Self::Tcp(socket))
    }

    /// Connects with Pingora's connector; the options of `peer` have the time limits.
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

    /// Whether the negotiated version of TLS is acceptable; true without TLS.
    pub(super) fn has_tls_version(&self, accepts: impl FnOnce(&str) -> bool) -> bool {
        let session = match self {
            Self::Tcp(_) => None,
            Self::Pingora(stream) => stream.get_ssl_digest(),
        };
        session.is_none_or(|session| accepts(&session.version))
    }

    /// Ready if an idle connection has ended, or has sent bytes. The waker of `cx` may do nothing: the next read
    /// registers its own.
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
