//! A connected socket of either family, encrypted or not, as one type.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::net::{RecvFlags, recv};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

/// A connected socket of either family, encrypted or not.
#[derive(Debug)]
pub enum DownstreamSocket {
    /// A client over TCP.
    Tcp(TcpStream),
    /// A client over TLS.
    Tls(Box<TlsStream<CountingSocket>>),
    /// A client over a Unix socket.
    Unix(UnixStream),
}

impl DownstreamSocket {
    /// Makes its close a reset: what the client was not sent yet is thrown away, and it learns that
    /// the response is not whole. A Unix socket knows no reset and is just closed.
    pub(super) fn reset_on_close(&self) {
        let socket = match self {
            Self::Tcp(socket) => socket,
            Self::Tls(stream) => return stream.get_ref().0.socket.reset_on_close(),
            Self::Unix(_) => return,
        };
        // Fails only on a socket that is none.
        let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
    }

    /// Looks at what has arrived, and leaves it there; 0: nothing comes any more. Not for TLS.
    pub(super) async fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let look = |socket: BorrowedFd<'_>, buffer: &mut [u8]| {
            let (_, seen) = recv(socket, buffer, RecvFlags::PEEK)?;
            Ok(seen)
        };
        match self {
            Self::Tcp(socket) => {
                let look = || look(socket.as_fd(), buffer);
                socket.async_io(Interest::READABLE, look).await
            }
            Self::Unix(socket) => {
                let look = || look(socket.as_fd(), buffer);
                socket.async_io(Interest::READABLE, look).await
            }
            Self::Tls(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// The address of our end; `None` on a Unix socket.
    pub(super) fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(socket) => socket.local_addr().ok(),
            Self::Tls(stream) => stream.get_ref().0.socket.local_address(),
            Self::Unix(_) => None,
        }
    }

    /// Sends the end of the session, where there is one: without it a client cannot tell the end
    /// from a cut (RFC 8446, 6.1).
    pub(super) async fn send_close_notify(&mut self) -> io::Result<()> {
        match self {
            Self::Tls(stream) => stream.shutdown().await,
            Self::Tcp(_) | Self::Unix(_) => Ok(()),
        }
    }

    /// Whether bytes that were written wait here, encrypted, for the kernel to take them.
    pub(super) fn has_unsent_tls_records(&self) -> bool {
        match self {
            Self::Tls(stream) => stream.get_ref().1.wants_write(),
            Self::Tcp(_) | Self::Unix(_) => false,
        }
    }

    /// Bytes that the kernel has taken; not counted where nothing is held back.
    pub(super) fn tls_bytes_written(&self) -> u64 {
        match self {
            Self::Tls(stream) => stream.get_ref().0.bytes_written,
            Self::Tcp(_) | Self::Unix(_) => 0,
        }
    }
}

impl AsRawFd for DownstreamSocket {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Tcp(socket) => socket.as_raw_fd(),
            Self::Tls(stream) => stream.get_ref().0.socket.as_raw_fd(),
            Self::Unix(socket) => socket.as_raw_fd(),
        }
    }
}

impl AsyncRead for DownstreamSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_read(cx, buf),
            // Many clients just leave; that a request is not whole, HTTP says itself (RFC 9112, 9.8).
            Self::Tls(stream) => match ready!(Pin::new(stream).poll_read(cx, buf)) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
                read => Poll::Ready(read),
            },
            Self::Unix(socket) => Pin::new(socket).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for DownstreamSocket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(socket) => Pin::new(socket).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Unix(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(socket) => Pin::new(socket).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }
}

/// A socket below TLS, which counts what the kernel takes of the encrypted bytes: TLS holds some
/// back, and only here can be seen whether a client takes any.
#[derive(Debug)]
pub struct CountingSocket {
    socket: DownstreamSocket,
    bytes_written: u64,
}

impl CountingSocket {
    /// Of a socket that is not encrypted itself.
    pub(super) fn new(socket: DownstreamSocket) -> Self {
        Self {
            socket,
            bytes_written: 0,
        }
    }

    fn count_written(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(written)) = written {
            self.bytes_written += written as u64;
        }
        written
    }
}

impl AsyncRead for CountingSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for CountingSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, buf);
        self.count_written(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        self.count_written(written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
