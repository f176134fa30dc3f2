//! A client's socket with a write buffer.
//!
//! Pingora writes a response's header and body separately. Here they are collected in one buffer until the flush, or
//! until the session waits (see `drive.rs`), so a small response is one packet and one system call. A chunk that
//! does not fit into the buffer is written together with the buffered bytes (`writev`), without a copy.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use super::socket::DownstreamSocket;

/// The size of the write buffer; bytes.
const WRITE_BUFFER_SIZE: usize = 16 * 1024;

/// The largest write buffer that an idle connection keeps; bytes.
const IDLE_BUFFER_SIZE: usize = 2 * 1024;

/// A socket with a write buffer.
#[derive(Debug)]
pub(super) struct BufferedSocket {
    /// `None` once it is closed.
    socket: Option<DownstreamSocket>,
    write_buffer: Vec<u8>,
}

/// The result of a write, for the counters and `write_timeout`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct WriteProgress {
    /// Bytes that the socket or its TLS session accepted.
    pub(super) bytes_written: usize,
    /// The kernel accepted some bytes.
    pub(super) advanced: bool,
    /// The kernel accepts no more for now.
    pub(super) blocked: bool,
}

impl BufferedSocket {
    pub(super) fn new(socket: DownstreamSocket) -> Self {
        Self {
            socket: Some(socket),
            write_buffer: Vec::new(),
        }
    }

    /// Removes the socket and the buffered bytes, for the close.
    pub(super) fn take(&mut self) -> Option<(DownstreamSocket, Vec<u8>)> {
        let buffered = std::mem::take(&mut self.write_buffer);
        self.socket.take().map(|socket| (socket, buffered))
    }

    /// Frees an empty buffer that is large, so that an idle connection needs little memory.
    pub(super) fn shrink_buffer(&mut self) {
        if self.write_buffer.is_empty() && self.write_buffer.capacity() > IDLE_BUFFER_SIZE {
            self.write_buffer = Vec::new();
        }
    }

    /// Whether the buffer is empty.
    pub(super) fn is_flushed(&self) -> bool {
        self.write_buffer.is_empty()
    }

    /// Whether there are unsent bytes, in the buffer or in the TLS session.
    pub(super) fn has_unsent_bytes(&self) -> bool {
        let socket = self.socket.as_ref();
        !self.is_flushed() || socket.is_some_and(DownstreamSocket::has_unsent_tls_records)
    }

    /// The number of bytes in the buffer.
    pub(super) fn buffered(&self) -> usize {
        self.write_buffer.len()
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.write_buffer.capacity()
    }

    /// The local address.
    pub(super) fn local_address(&self) -> Option<SocketAddr> {
        self.socket.as_ref()?.local_address()
    }

    /// The user of the process that connected; `None`: not a Unix socket.
    pub(super) fn peer_uid(&self) -> Option<u32> {
        self.socket.as_ref()?.peer_uid()
    }

    /// The descriptor; -1 once it is closed.
    pub(super) fn raw_fd(&self) -> RawFd {
        self.socket.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }

    /// The socket below the buffer, to read from or to shut down.
    pub(super) fn socket(&mut self) -> io::Result<Pin<&mut DownstreamSocket>> {
        self.socket
            .as_mut()
            .map(Pin::new)
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Buffers the bytes, even beyond the size of the buffer.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.write_buffer.extend_from_slice(bytes);
    }

    /// Buffers the bytes if they fit; otherwise writes the buffer and then the bytes.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        progress: &mut WriteProgress,
    ) -> Poll<io::Result<usize>> {
        if self.write_buffer.len() + bytes.len() <= WRITE_BUFFER_SIZE {
            self.push(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        self.poll_write_all(cx, bytes, progress)
    }

    /// Writes the buffer, and flushes the TLS session.
    pub(super) fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        progress: &mut WriteProgress,
    ) -> Poll<io::Result<()>> {
        if !self.write_buffer.is_empty() {
            ready!(self.poll_write_all(cx, &[], progress))?;
        }
        let before = self.tls_bytes_written();
        let flushed = self.socket()?.poll_flush(cx);
        progress.advanced |= self.tls_bytes_written() != before;
        progress.blocked = flushed.is_pending();
        flushed
    }

    /// Writes the buffer, then `more`; returns how many bytes of `more` were accepted.
    fn poll_write_all(
        &mut self,
        cx: &mut Context<'_>,
        more: &[u8],
        progress: &mut WriteProgress,
    ) -> Poll<io::Result<usize>> {
        loop {
            let before = self.tls_bytes_written();
            let Poll::Ready(result) = self.poll_write_once(cx, more) else {
                // Even if TLS accepts no more, the kernel may have accepted bytes that were encrypted before.
                progress.advanced |= self.tls_bytes_written() != before;
                progress.blocked = true;
                return Poll::Pending;
            };
            let written = result?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            progress.bytes_written += written;
            progress.advanced = true;
            let from_buffer = written.min(self.write_buffer.len());
            self.write_buffer.drain(..from_buffer);
            if self.write_buffer.is_empty() && (written > from_buffer || more.is_empty()) {
                return Poll::Ready(Ok(written - from_buffer));
            }
        }
    }

    fn poll_write_once(&mut self, cx: &mut Context<'_>, more: &[u8]) -> Poll<io::Result<usize>> {
        let Self {
            socket,
            write_buffer,
        } = self;
        let Some(socket) = socket.as_mut().map(Pin::new) else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        if more.is_empty() {
            // The common case; `write` costs less than `writev`.
            socket.poll_write(cx, write_buffer)
        } else {
            socket.poll_write_vectored(cx, &[IoSlice::new(write_buffer), IoSlice::new(more)])
        }
    }

    /// Encrypted bytes that the kernel has accepted.
    fn tls_bytes_written(&self) -> u64 {
        self.socket
            .as_ref()
            .map_or(0, DownstreamSocket::tls_bytes_written)
    }
}
