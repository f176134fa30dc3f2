//! A client's socket: TCP, TLS or Unix, as one type.

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

/// A connected socket of a client.
#[derive(Debug)]
pub(crate) enum DownstreamSocket {
    /// Plain TCP.
    Tcp(TcpStream),
    /// TLS; boxed, because its session is large.
    Tls(Box<TlsStream<CountingSocket>>),
    /// A Unix socket.
    Unix(UnixStream),
}

impl DownstreamSocket {
    /// Makes the close send a reset (RST): unsent bytes are dropped, and the client sees that the response is
    /// truncated. A Unix socket has no reset and is closed normally.
    pub(super) fn reset_on_close(&self) {
        let socket = match self {
            Self::Tcp(socket) => socket,
            Self::Tls(stream) => return stream.get_ref().0.socket.reset_on_close(),
            Self::Unix(_) => return,
        };
        // Fails only on a descriptor that is not a socket.
        let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
    }

    /// Copies received bytes and leaves them in the socket; 0: the client has closed it. Not for TLS.
    pub(super) async fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let peek = |socket: BorrowedFd<'_>, buffer: &mut [u8]| {
            let (_, length) = recv(socket, buffer, RecvFlags::PEEK)?;
            Ok(length)
        };
        match self {
            Self::Tcp(socket) => {
                let peek = || peek(socket.as_fd(), buffer);
                socket.async_io(Interest::READABLE, peek).await
            }
            Self::Unix(socket) => {
                let peek = || peek(socket.as_fd(), buffer);
                socket.async_io(Interest::READABLE, peek).await
            }
            Self::Tls(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// The local address; `None` on a Unix socket.
    pub(super) fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(socket) => socket.local_addr().ok(),
            Self::Tls(stream) => stream.get_ref().0.socket.local_address(),
            Self::Unix(_) => None,
        }
    }

    /// The user of the process that connected (`SO_PEERCRED`, unix(7)); `None`: not a Unix socket.
    pub(super) fn peer_uid(&self) -> Option<u32> {
        match self {
            Self::Unix(socket) => socket.peer_cred().ok().map(|process| process.uid()),
            Self::Tcp(_) | Self::Tls(_) => None,
        }
    }

    /// Ends a TLS session: without `close_notify` a client cannot distinguish the end from a truncation (RFC 8446
    /// §6.1).
    pub(super) async fn send_close_notify(&mut self) -> io::Result<()> {
        match self {
            Self::Tls(stream) => stream.shutdown().await,
            Self::Tcp(_) | Self::Unix(_) => Ok(()),
        }
    }

    /// Whether the TLS session has encrypted bytes that the kernel has not accepted yet.
    pub(super) fn has_unsent_tls_records(&self) -> bool {
        match self {
            Self::Tls(stream) => stream.get_ref().1.wants_write(),
            Self::Tcp(_) | Self::Unix(_) => false,
        }
    }

    /// Encrypted bytes that the kernel has accepted; 0 without TLS, because then nothing is buffered above the
    /// kernel.
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
            // Many clients close without `close_notify`; HTTP itself detects a truncated request (RFC 9112 §9.8).
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

/// The socket below a TLS session; counts the encrypted bytes that the kernel accepts.
///
/// `write_timeout` needs this count: the session buffers, so a write to the session does not show whether the
/// client reads.
#[derive(Debug)]
pub(crate) struct CountingSocket {
    socket: DownstreamSocket,
    bytes_written: u64,
}

impl CountingSocket {
    /// Wraps a socket on which TLS has not begun.
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
