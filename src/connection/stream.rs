//! The byte stream under Pingora's HTTP session: counts, and gathers small writes.
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
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::tls::SslDigest;
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType,
};
use pingora_http::ResponseHeader;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::ending::Ending;
use super::{Cause, Connection, Kind, Socket};

/// Writes up to this much are gathered until the flush; bytes.
const WRITE_BUFFER: usize = 16 * 1024;

/// What an idle connection keeps of its buffer; bytes.
const KEPT_BUFFER: usize = 2 * 1024;

/// The stream that Pingora's session reads and writes: a handle to its connection's [`Wire`].
pub struct ClientStream {
    connection: Arc<Connection>,
    digest: Arc<ProxyDigest>,
    socket_digest: Arc<SocketDigest>,
    tls_digest: Option<Arc<SslDigest>>,
    id: UniqueIDType,
}

/// What finds the [`Connection`] from within a hook: it rides in the downstream proxy digest, which
/// Pingora carries untouched and does not use itself.
struct Ticket(Arc<Connection>);

impl ClientStream {
    /// The stream of a connection that was just accepted.
    ///
    /// # Errors
    /// Only if Pingora refuses to build an empty response header.
    pub fn new(connection: Arc<Connection>) -> pingora_error::Result<Self> {
        let carrier = Box::new(ResponseHeader::build(200, Some(0))?);
        let digest = ProxyDigest::new(carrier, Some(Box::new(Ticket(Arc::clone(&connection)))));
        let id = connection.wire.lock().id();
        let socket_digest = SocketDigest::from_raw_fd(id);
        if let Some(client) = connection.client {
            // Set first, so it is never asked of the kernel.
            let _ = socket_digest.peer_addr.set(Some(client.into()));
        }
        // The session is asked whether its connection is encrypted, not how.
        let tls_digest = connection.secured.as_ref().map(|secured| {
            let (cipher, version) = (secured.cipher, secured.version);
            Arc::new(SslDigest::new(cipher, version, None, None, Vec::new()))
        });
        Ok(Self {
            connection,
            digest: Arc::new(digest),
            socket_digest: Arc::new(socket_digest),
            tls_digest,
            id,
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
}

/// The socket and what waits to be written to it.
#[derive(Debug)]
pub(super) struct Wire {
    /// `None` once it is closed.
    socket: Option<Socket>,
    waiting: Vec<u8>,
    /// Where the stream that passes can be ended; `None`: nobody wants to know.
    ending: Option<Box<Ending>>,
    /// The stream is to end at the next place where it can.
    leaving: bool,
}

impl Wire {
    pub(super) fn new(socket: Socket) -> Self {
        Self {
            socket: Some(socket),
            waiting: Vec::new(),
            ending: None,
            leaving: false,
        }
    }

    /// Takes both away, for the close.
    pub(super) fn take(&mut self) -> Option<(Socket, Vec<u8>)> {
        let waiting = std::mem::take(&mut self.waiting);
        self.socket.take().map(|socket| (socket, waiting))
    }

    /// Writes what waits, if anything does. An error is left for the session to find.
    pub(super) fn push(&mut self, connection: &Connection, cx: &mut Context<'_>) {
        let held_back = self.socket.as_ref().is_some_and(Socket::holds_back);
        if held_back || !self.waiting.is_empty() {
            let _ = self.poll_flush(connection, cx);
        }
    }

    /// An idle connection holds little memory.
    pub(super) fn shrink(&mut self) {
        if self.waiting.is_empty() && self.waiting.capacity() > KEPT_BUFFER {
            self.waiting = Vec::new();
        }
    }

    /// Reads along with the stream that begins, for the places where it can be ended.
    pub(super) fn follow(&mut self, kind: Option<Kind>) {
        self.ending = kind.map(|kind| Box::new(Ending::new(kind)));
        self.leaving = false;
    }

    /// Whether the stream is to end. One that has come to a place where it can is not let go on:
    /// nobody would wake the session.
    pub(super) fn set_leaving(&mut self, leaving: bool) {
        self.leaving = leaving || self.is_at_end();
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// The stream is where it is to end, and the client has all of it.
    pub(super) fn has_left(&self) -> bool {
        self.is_at_end() && self.waiting.is_empty()
    }

    /// What tells the client that its stream is over.
    pub(super) fn last_words(&self) -> &'static [u8] {
        self.ending
            .as_ref()
            .map_or(b"", |ending| ending.last_words())
    }

    fn is_at_end(&self) -> bool {
        let can_end = |ending: &Ending| ending.can_end();
        self.leaving && self.ending.as_deref().is_some_and(can_end)
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.waiting.capacity()
    }

    /// The address of our end.
    pub(super) fn local_address(&self) -> Option<SocketAddr> {
        self.socket.as_ref()?.local_address()
    }

    fn id(&self) -> UniqueIDType {
        self.socket.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }

    fn socket(&mut self) -> io::Result<Pin<&mut Socket>> {
        self.socket
            .as_mut()
            .map(Pin::new)
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn poll_write(
        &mut self,
        connection: &Connection,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if self.ending.is_none() {
            return self.poll_take(connection, cx, bytes);
        }
        if self.is_at_end() {
            // The watch takes it from here.
            return Poll::Pending;
        }
        let bytes = self.up_to_end(bytes);
        let taken = ready!(self.poll_take(connection, cx, bytes))?;
        if let (Some(ending), Some(taken)) = (&mut self.ending, bytes.get(..taken)) {
            ending.feed(taken);
        }
        Poll::Ready(Ok(taken))
    }

    /// Those of the bytes that may still pass.
    fn up_to_end<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let ending = self.ending.as_ref().filter(|_| self.leaving);
        let room = ending.and_then(|ending| bytes.get(..ending.room(bytes)));
        room.unwrap_or(bytes)
    }

    fn poll_take(
        &mut self,
        connection: &Connection,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.waiting.len() + bytes.len() <= WRITE_BUFFER {
            self.waiting.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        self.poll_drain(connection, cx, bytes)
    }

    fn poll_flush(
        &mut self,
        connection: &Connection,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.waiting.is_empty() {
            ready!(self.poll_drain(connection, cx, &[]))?;
        }
        let before = self.carried();
        let flushed = self.socket()?.poll_flush(cx);
        self.note(connection, before, flushed.is_pending());
        flushed
    }

    /// Whether the client takes what is encrypted for it already.
    fn note(&self, connection: &Connection, carried_before: u64, blocked: bool) {
        if self.carried() != carried_before {
            connection.sent(0);
        }
        if blocked {
            connection.write_blocked();
        }
    }

    fn carried(&self) -> u64 {
        self.socket.as_ref().map_or(0, Socket::carried)
    }

    /// Writes what waits, with `more` behind it; how many bytes of `more` were taken.
    fn poll_drain(
        &mut self,
        connection: &Connection,
        cx: &mut Context<'_>,
        more: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let before = self.carried();
            let Poll::Ready(result) = self.poll_write_once(cx, more) else {
                self.note(connection, before, true);
                return Poll::Pending;
            };
            let written = result?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            connection.sent(written);
            let of_waiting = written.min(self.waiting.len());
            self.waiting.drain(..of_waiting);
            if self.waiting.is_empty() && (written > of_waiting || more.is_empty()) {
                return Poll::Ready(Ok(written - of_waiting));
            }
        }
    }

    fn poll_write_once(&mut self, cx: &mut Context<'_>, more: &[u8]) -> Poll<io::Result<usize>> {
        let Self {
            socket, waiting, ..
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

impl AsyncRead for ClientStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let connection = &self.connection;
        if connection.header_is_too_large() {
            // The session asks for more, so the header has no end yet; the watch takes it from here.
            connection.expire(Cause::HeaderTooLarge);
            return Poll::Pending;
        }
        let before = buf.filled().len();
        ready!(connection.wire.lock().socket()?.poll_read(cx, buf))?;
        let count = buf.filled().len() - before;
        if count > 0 {
            connection.received(count);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let connection = &self.connection;
        connection.wire.lock().poll_write(connection, cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let connection = &self.connection;
        connection.wire.lock().poll_flush(connection, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let connection = &self.connection;
        let mut wire = connection.wire.lock();
        ready!(wire.poll_flush(connection, cx))?;
        wire.socket()?.poll_shutdown(cx)
    }
}

impl fmt::Debug for ClientStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientStream")
            .field("client", &self.connection.client)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Shutdown for ClientStream {
    async fn shutdown(&mut self) {
        // The client may be gone already; there is nobody left to tell.
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}

impl UniqueID for ClientStream {
    fn id(&self) -> UniqueIDType {
        self.id
    }
}

impl Ssl for ClientStream {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.tls_digest.clone()
    }
}

impl Peek for ClientStream {}

impl GetTimingDigest for ClientStream {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for ClientStream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        Some(Arc::clone(&self.digest))
    }
}

impl GetSocketDigest for ClientStream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(Arc::clone(&self.socket_digest))
    }
}
