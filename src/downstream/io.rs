//! The byte stream under an HTTP session: counts, and gathers small writes.
//!
//! Pingora writes a response's header and body apart. Here they wait in one buffer until the flush,
//! or until the session has nothing more to do for now (see `watch.rs`), so a small response is one
//! packet and one system call; a chunk that is larger than the buffer goes out together with what
//! waits (`writev`), not copied.
//!
//! The socket belongs to the [`Connection`], not to the session: a client whose request was cut by
//! a deadline can still be told so, and nothing that was written is lost with the session.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use pingora::http::ResponseHeader;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::SslDigest;
use pingora::protocols::{
    Digest, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::exchange::Exchange;
use super::phase::AbortReason;
use super::{Connection, DownstreamSocket};

/// Writes up to this much are gathered until the flush; bytes.
const WRITE_BUFFER_SIZE: usize = 16 * 1024;

/// What an idle connection keeps of its buffer; bytes.
const IDLE_BUFFER_SIZE: usize = 2 * 1024;

/// The stream that a session reads and writes: a handle to its connection's [`Wire`].
pub(super) struct DownstreamIo {
    exchange: Arc<Exchange>,
    /// What was read ahead, and is to be read again.
    unread: Vec<u8>,
    digests: PingoraDigests,
    proxy_digest: Arc<ProxyDigest>,
    id: UniqueIDType,
}

/// What Pingora wants to know of a connection.
#[derive(Clone)]
pub(super) struct PingoraDigests {
    socket: Arc<SocketDigest>,
    tls: Option<Arc<SslDigest>>,
}

/// What finds the [`Exchange`] from within a hook: it rides in the downstream proxy digest, which
/// Pingora carries untouched and does not use itself.
struct ExchangeHandle(Arc<Exchange>);

impl Exchange {
    /// The exchange whose session carries this digest.
    pub fn from_digest(digest: &ProxyDigest) -> Option<&Arc<Self>> {
        let ticket = digest.user_data.as_ref()?.downcast_ref::<ExchangeHandle>();
        ticket.map(|ticket| &ticket.0)
    }
}

fn exchange_digest(exchange: &Arc<Exchange>) -> pingora::Result<Arc<ProxyDigest>> {
    let carrier = Box::new(ResponseHeader::build(200, Some(0))?);
    let ticket = Box::new(ExchangeHandle(Arc::clone(exchange)));
    Ok(Arc::new(ProxyDigest::new(carrier, Some(ticket))))
}

impl DownstreamIo {
    /// The stream of a connection that was just accepted.
    ///
    /// # Errors
    /// Only if Pingora refuses to build an empty response header.
    pub(super) fn new(exchange: Arc<Exchange>) -> pingora::Result<Self> {
        let connection = &exchange.connection;
        let id = connection.socket.lock().id();
        Ok(Self {
            digests: PingoraDigests::new(connection, id),
            proxy_digest: exchange_digest(&exchange)?,
            exchange,
            unread: Vec::new(),
            id,
        })
    }

    pub(super) fn exchange(&self) -> &Exchange {
        &self.exchange
    }

    pub(super) fn digests(&self) -> PingoraDigests {
        self.digests.clone()
    }

    /// The next reads yield these bytes again.
    pub(super) fn unread(&mut self, bytes: &[u8]) {
        self.unread.splice(..0, bytes.iter().copied());
    }

    /// Reads without a thought for what the bytes mean; true: they came just now.
    pub(super) fn poll_read_raw(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<bool>> {
        if self.exchange.is_tunnel() {
            ready!(self.exchange.to_peer.poll_below(cx));
        }
        if !self.unread.is_empty() {
            let count = self.unread.len().min(buf.remaining());
            buf.put_slice(self.unread.drain(..count).as_slice());
            return Poll::Ready(Ok(false));
        }
        let connection = &self.exchange.connection;
        let before = buf.filled().len();
        ready!(connection.socket.lock().socket()?.poll_read(cx, buf))?;
        let count = buf.filled().len() - before;
        connection.bytes_in.fetch_add(count as u64, Relaxed);
        Poll::Ready(Ok(true))
    }
}

impl PingoraDigests {
    fn new(connection: &Connection, id: UniqueIDType) -> Self {
        let socket = SocketDigest::from_raw_fd(id);
        if let Some(client) = connection.client_addr {
            // Set first, so it is never asked of the kernel.
            let _ = socket.peer_addr.set(Some(client.into()));
        }
        // The session is asked whether its connection is encrypted, not how.
        let tls = connection.tls.as_ref().map(|secured| {
            let (cipher, version) = (secured.cipher, secured.version);
            Arc::new(SslDigest::new(cipher, version, None, None, Vec::new()))
        });
        Self {
            socket: Arc::new(socket),
            tls,
        }
    }

    /// The same for one of the connection's exchanges.
    ///
    /// # Errors
    /// As for [`ClientStream::new`].
    pub(super) fn session_digest(&self, exchange: &Arc<Exchange>) -> pingora::Result<Digest> {
        Ok(Digest {
            ssl_digest: self.tls.clone(),
            timing_digest: Vec::new(),
            proxy_digest: Some(exchange_digest(exchange)?),
            socket_digest: Some(Arc::clone(&self.socket)),
        })
    }
}

/// The socket and what waits to be written to it.
#[derive(Debug)]
pub(super) struct BufferedSocket {
    /// `None` once it is closed.
    socket: Option<DownstreamSocket>,
    write_buffer: Vec<u8>,
}

impl BufferedSocket {
    pub(super) fn new(socket: DownstreamSocket) -> Self {
        Self {
            socket: Some(socket),
            write_buffer: Vec::new(),
        }
    }

    /// Takes both away, for the close.
    pub(super) fn take(&mut self) -> Option<(DownstreamSocket, Vec<u8>)> {
        let waiting = std::mem::take(&mut self.write_buffer);
        self.socket.take().map(|socket| (socket, waiting))
    }

    /// Writes what waits, if anything does. An error is left for the session to find.
    pub(super) fn flush_pending(&mut self, exchange: &Exchange, cx: &mut Context<'_>) {
        let held_back = self
            .socket
            .as_ref()
            .is_some_and(DownstreamSocket::has_unsent_tls_records);
        if held_back || !self.write_buffer.is_empty() {
            let _ = self.poll_flush(exchange, cx);
        }
    }

    /// An idle connection holds little memory.
    pub(super) fn shrink_buffer(&mut self) {
        if self.write_buffer.is_empty() && self.write_buffer.capacity() > IDLE_BUFFER_SIZE {
            self.write_buffer = Vec::new();
        }
    }

    /// Nothing waits to be written.
    pub(super) fn is_flushed(&self) -> bool {
        self.write_buffer.is_empty()
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.write_buffer.capacity()
    }

    /// The address of our end.
    pub(super) fn local_address(&self) -> Option<SocketAddr> {
        self.socket.as_ref()?.local_address()
    }

    fn id(&self) -> UniqueIDType {
        self.socket.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }

    fn socket(&mut self) -> io::Result<Pin<&mut DownstreamSocket>> {
        self.socket
            .as_mut()
            .map(Pin::new)
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn poll_write(
        &mut self,
        exchange: &Exchange,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let Some(room) = exchange.sendable_len(bytes) else {
            // The watch takes it from here.
            return Poll::Pending;
        };
        let bytes = bytes.get(..room).unwrap_or(bytes);
        let taken = match self.poll_buffer(exchange, cx, bytes) {
            Poll::Pending if exchange.is_tunnel() => {
                self.write_buffer.extend_from_slice(bytes);
                exchange.to_client.set_buffered(self.write_buffer.len());
                bytes.len()
            }
            taken => ready!(taken)?,
        };
        exchange.on_bytes_sent(bytes.get(..taken).unwrap_or_default());
        Poll::Ready(Ok(taken))
    }

    fn poll_buffer(
        &mut self,
        exchange: &Exchange,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.write_buffer.len() + bytes.len() <= WRITE_BUFFER_SIZE {
            self.write_buffer.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        self.poll_write_all(exchange, cx, bytes)
    }

    fn poll_flush(&mut self, exchange: &Exchange, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.write_buffer.is_empty() {
            ready!(self.poll_write_all(exchange, cx, &[]))?;
        }
        let before = self.tls_bytes_written();
        let flushed = self.socket()?.poll_flush(cx);
        self.record_progress(exchange, before, flushed.is_pending());
        flushed
    }

    /// Whether the client takes what is encrypted for it already.
    fn record_progress(&self, exchange: &Exchange, carried_before: u64, blocked: bool) {
        if self.tls_bytes_written() != carried_before {
            exchange.on_write_progress();
        }
        if blocked {
            exchange.on_write_blocked();
        }
    }

    fn tls_bytes_written(&self) -> u64 {
        self.socket
            .as_ref()
            .map_or(0, DownstreamSocket::tls_bytes_written)
    }

    /// Writes what waits, with `more` behind it; how many bytes of `more` were taken.
    fn poll_write_all(
        &mut self,
        exchange: &Exchange,
        cx: &mut Context<'_>,
        more: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let before = self.tls_bytes_written();
            let Poll::Ready(result) = self.poll_write_once(cx, more) else {
                self.record_progress(exchange, before, true);
                return Poll::Pending;
            };
            let written = result?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let connection = &exchange.connection;
            connection.bytes_out.fetch_add(written as u64, Relaxed);
            exchange.on_write_progress();
            let of_waiting = written.min(self.write_buffer.len());
            self.write_buffer.drain(..of_waiting);
            exchange.to_client.set_buffered(self.write_buffer.len());
            if self.write_buffer.is_empty() && (written > of_waiting || more.is_empty()) {
                return Poll::Ready(Ok(written - of_waiting));
            }
        }
    }

    fn poll_write_once(&mut self, cx: &mut Context<'_>, more: &[u8]) -> Poll<io::Result<usize>> {
        let Self {
            socket,
            write_buffer: waiting,
            ..
        } = self;
        let Some(socket) = socket.as_mut().map(Pin::new) else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        if more.is_empty() {
            // The common case, and to the kernel the cheaper call.
            socket.poll_write(cx, waiting)
        } else {
            socket.poll_write_vectored(cx, &[IoSlice::new(waiting), IoSlice::new(more)])
        }
    }
}

/// As HTTP/1 wants it: bytes are of a request's header, while none is complete.
impl AsyncRead for DownstreamIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.exchange.header_is_too_large() {
            // The session asks for more, so the header has no end yet; the watch takes it from here.
            self.exchange.abort(AbortReason::HeaderTooLarge);
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let fresh = ready!(self.poll_read_raw(cx, buf))?;
        let count = buf.filled().len() - before;
        if fresh && count > 0 {
            self.exchange.on_bytes_received(count);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for DownstreamIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let exchange = &self.exchange;
        exchange
            .connection
            .socket
            .lock()
            .poll_write(exchange, cx, buf)
    }

    /// In a tunnel nobody waits for that: [`tend`](super::watch::tend) goes on with it.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let exchange = &self.exchange;
        match exchange.connection.socket.lock().poll_flush(exchange, cx) {
            Poll::Pending if exchange.is_tunnel() => Poll::Ready(Ok(())),
            flushed => flushed,
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let exchange = &self.exchange;
        let mut wire = exchange.connection.socket.lock();
        ready!(wire.poll_flush(exchange, cx))?;
        wire.socket()?.poll_shutdown(cx)
    }
}

impl fmt::Debug for DownstreamIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientStream")
            .field("client", &self.exchange.connection.client_addr)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Shutdown for DownstreamIo {
    async fn shutdown(&mut self) {
        // The client may be gone already; there is nobody left to tell.
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}

impl UniqueID for DownstreamIo {
    fn id(&self) -> UniqueIDType {
        self.id
    }
}

impl Ssl for DownstreamIo {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.digests.tls.clone()
    }
}

impl Peek for DownstreamIo {}

impl GetTimingDigest for DownstreamIo {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for DownstreamIo {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        Some(Arc::clone(&self.proxy_digest))
    }
}

impl GetSocketDigest for DownstreamIo {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(Arc::clone(&self.digests.socket))
    }
}
