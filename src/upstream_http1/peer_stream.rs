//! A connection to a peer. Pingora's connector makes those with TLS, a Unix socket or a PROXY header; plain TCP needs
//! no connector. The connector's cost does not matter, because most requests reuse a connection.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pingora::ErrorType::{self, ConnectRefused, ConnectTimedout, SocketError};
use pingora::connectors::TransportConnector;
use pingora::protocols::tls::SslDigest;
use pingora::protocols::{Stream, UniqueIDType};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, Result};
use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A connected byte stream to a peer.
#[derive(Debug)]
pub(crate) enum PeerStream {
    Tcp(TcpStream),
    Pingora(Stream),
}

impl PeerStream {
    /// Connects by plain TCP, within `limit`.
    ///
    /// # Errors
    /// The connect failed, or took longer than `limit`.
    pub(crate) async fn connect_tcp(address: SocketAddr, limit: Duration) -> Result<Self> {
        let Ok(connected) = timeout(limit, TcpStream::connect(address)).await else {
            return Err(Error::new_up(ConnectTimedout));
        };
        let socket = connected.map_err(connect_error)?;
        // Fails only if the connection has ended; then the first write fails, too.
        let _ = socket.set_nodelay(true);
        Ok(Self::Tcp(socket))
    }

    /// Connects with Pingora's connector, within the time limits in the options of `peer`.
    ///
    /// # Errors
    /// The connector's error.
    pub(super) async fn connect_with(
        connector: &TransportConnector,
        peer: &HttpPeer,
    ) -> Result<Self> {
        // Boxed, as it takes 8 KiB: without the box, the future of a plain TCP connect would be as large.
        let stream = Box::pin(connector.new_stream(peer)).await?;
        Ok(Self::Pingora(stream))
    }

    /// The TLS session; `None` without TLS.
    pub(crate) fn tls_session(&self) -> Option<Arc<SslDigest>> {
        match self {
            Self::Tcp(_) => None,
            Self::Pingora(stream) => stream.get_ssl_digest(),
        }
    }

    /// The file descriptor of the connection.
    pub(super) fn fd(&self) -> UniqueIDType {
        match self {
            Self::Tcp(socket) => socket.as_raw_fd(),
            Self::Pingora(stream) => stream.id(),
        }
    }

    /// Whether an idle connection is open, and its peer has sent nothing: without a request a peer must not send.
    pub(super) fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        match self {
            // Needs no system call if nothing has arrived, and registers no waker: the next read does that.
            Self::Tcp(socket) => {
                let read = socket.try_read(&mut byte);
                read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
            }
            Self::Pingora(stream) => {
                let mut cx = Context::from_waker(Waker::noop());
                let read = Pin::new(stream).poll_read(&mut cx, &mut ReadBuf::new(&mut byte));
                read.is_pending()
            }
        }
    }
}

/// The error of a failed connect. A lack of local ports, descriptors or memory is not counted against the peer.
#[expect(clippy::unnecessary_box_returns, reason = "Pingora's errors are boxed")]
fn connect_error(error: io::Error) -> Box<Error> {
    let is_local = matches!(
        error.raw_os_error().map(Errno::from_raw_os_error),
        Some(Errno::ADDRNOTAVAIL | Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)
    );
    let kind = match error.kind() {
        _ if is_local => SocketError,
        io::ErrorKind::ConnectionRefused => ConnectRefused,
        _ => ErrorType::ConnectError,
    };
    Error::because(kind, "TCP connect to the peer", error).into_up()
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
