//! The byte stream under Pingora's HTTP session: counts, gathers small writes, and survives the
//! session.
//!
//! Pingora writes a response's header and body apart. Here they wait in one buffer until the flush,
//! or until the session turns to read, so a small response is one packet and one system call; a chunk that is larger than the buffer
//! goes out together with what waits (`writev`), not copied.
//!
//! When Pingora drops the stream, the socket goes back to its [`Connection`]: a client whose request
//! was cut by a deadline can still be told so.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType,
};
use pingora_http::ResponseHeader;
use std::os::fd::AsRawFd;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::Connection;

/// Writes up to this much are gathered until the flush; bytes.
const WRITE_BUFFER: usize = 16 * 1024;

/// A connected socket of either family.
#[derive(Debug)]
pub enum Socket {
    /// A client over TCP.
    Tcp(TcpStream),
    /// A client over a Unix socket (the control socket).
    Unix(UnixStream),
}

/// The stream that Pingora's session reads and writes.
pub struct Downstream {
    /// `None` only in `drop`.
    socket: Option<Socket>,
    connection: Arc<Connection>,
    digest: Arc<ProxyDigest>,
    socket_digest: Arc<SocketDigest>,
    waiting: Vec<u8>,
}

/// What finds the [`Connection`] from within a hook: it rides in the downstream proxy digest, which
/// Pingora carries untouched and does not use itself.
struct Ticket(Arc<Connection>);

impl Downstream {
    /// Wraps a socket that was just accepted.
    ///
    /// # Errors
    /// Only if Pingora refuses to build an empty response header.
    pub fn new(socket: Socket, connection: Arc<Connection>) -> pingora_error::Result<Self> {
        let carrier = Box::new(ResponseHeader::build(200, Some(0))?);
        let digest = ProxyDigest::new(carrier, Some(Box::new(Ticket(Arc::clone(&connection)))));
        let socket_digest = SocketDigest::from_raw_fd(socket.as_raw_fd());
        if let Some(client) = connection.client {
            // Set first, so it is never asked of the kernel.
            let _ = socket_digest.peer_addr.set(Some(client.into()));
        }
        Ok(Self {
            socket: Some(socket),
            connection,
            digest: Arc::new(digest),
            socket_digest: Arc::new(socket_digest),
            waiting: Vec::new(),
        })
    }

    /// The connection whose session carries this digest.
    pub fn connection(digest: &ProxyDigest) -> Option<&Arc<Connection>> {
        digest
            .user_data
            .as_ref()?
            .downcast_ref::<Ticket>()
            .map(|ticket| &ticket.0)
    }

    fn socket(&mut self) -> io::Result<Pin<&mut Socket>> {
        self.socket
            .as_mut()
            .map(Pin::new)
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Writes what waits, with `more` behind it; how many bytes of `more` were taken.
    fn poll_drain(&mut self, cx: &mut Context<'_>, more: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let waiting = std::mem::take(&mut self.waiting);
            let socket = self.socket()?;
            let result = if more.is_empty() {
                // The common case, and to the kernel the cheaper call.
                socket.poll_write(cx, &waiting)
            } else {
                socket.poll_write_vectored(cx, &[IoSlice::new(&waiting), IoSlice::new(more)])
            };
            self.waiting = waiting;
            self.connection
                .write_blocked
                .store(result.is_pending(), Relaxed);
            let written = ready!(result)?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.connection.sent(written);
            let of_waiting = written.min(self.waiting.len());
            self.waiting.drain(..of_waiting);
            if self.waiting.is_empty() && (written > of_waiting || more.is_empty()) {
                return Poll::Ready(Ok(written - of_waiting));
            }
        }
    }
}

impl AsyncRead for Downstream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Whoever waits for the client has nothing more to send it for now: a response that comes in
        // pieces must not sit here until the next one.
        if !self.waiting.is_empty()
            && let Poll::Ready(Err(error)) = self.poll_drain(cx, &[])
        {
            return Poll::Ready(Err(error));
        }
        let before = buf.filled().len();
        ready!(self.socket()?.poll_read(cx, buf))?;
        let count = buf.filled().len() - before;
        if count > 0 {
            self.connection.received(count);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Downstream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if self.waiting.len() + buf.len() <= WRITE_BUFFER {
            self.waiting.extend_from_slice(buf);
            return Poll::Ready(Ok(buf.len()));
        }
        self.poll_drain(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.waiting.is_empty() {
            ready!(self.poll_drain(cx, &[]))?;
        }
        self.socket()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        self.socket()?.poll_shutdown(cx)
    }
}

impl Drop for Downstream {
    fn drop(&mut self) {
        *self.connection.returned.lock() = self.socket.take();
    }
}

impl fmt::Debug for Downstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Downstream")
            .field("client", &self.connection.client)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Shutdown for Downstream {
    async fn shutdown(&mut self) {
        // The client may be gone already; there is nobody left to tell.
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}

impl UniqueID for Downstream {
    fn id(&self) -> UniqueIDType {
        self.socket.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }
}

impl Ssl for Downstream {}
impl Peek for Downstream {}

impl GetTimingDigest for Downstream {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Downstream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        Some(Arc::clone(&self.digest))
    }
}

impl GetSocketDigest for Downstream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(Arc::clone(&self.socket_digest))
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        match self {
            Self::Tcp(socket) => socket.as_raw_fd(),
            Self::Unix(socket) => socket.as_raw_fd(),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Unix(socket) => Pin::new(socket).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_write(cx, buf),
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
            Self::Unix(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_flush(cx),
            Self::Unix(socket) => Pin::new(socket).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Unix(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }
}
