//! One request to a peer of HTTP/1 and its response.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::TE;
use http::{HeaderMap, Method};
use parking_lot::Mutex;
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::UniqueIDType;
use pingora::protocols::tls::SslDigest;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connections::PeerConnections;
use super::peer_stream::PeerStream;
use super::pool::PoolKey;
use super::request::RequestWriter;
use super::response::ResponseReader;
use crate::clock;
use crate::pingora_compat::body_queue::BodySource;
use crate::pingora_compat::body_sender::{BodySender, BodyToSend};

/// A connection that carries one request.
pub(super) struct Http1Session {
    stream: SharedStream,
    key: PoolKey,
    method: Method,
    /// `None` before [`Self::start`].
    source: Option<Arc<dyn BodySource>>,
    /// The whole request was written: only then can the connection be used again.
    is_sent: Arc<AtomicBool>,
    response: ResponseReader,
    header: Option<ResponseHeader>,
}

impl Http1Session {
    /// A session on a connection that carries no request.
    pub(super) fn new(stream: PeerStream, key: PoolKey) -> Self {
        Self {
            stream: SharedStream(Arc::new(Mutex::new(stream))),
            key,
            method: Method::GET,
            source: None,
            is_sent: Arc::default(),
            response: ResponseReader::default(),
            header: None,
        }
    }

    /// The TLS session; `None` without TLS.
    pub(super) fn tls_session(&self) -> Option<Arc<SslDigest>> {
        self.stream.0.lock().tls_session()
    }

    /// Pingora's id of the connection: its file descriptor.
    pub(super) fn fd(&self) -> UniqueIDType {
        self.stream.0.lock().fd()
    }

    /// Pools the connection for at most `idle`; closes it if it cannot carry another request, or if the request's sender is
    /// not dropped yet.
    pub(super) fn release(self, connections: &PeerConnections, idle: Duration) {
        if !self.is_sent.load(Relaxed) || !self.response.leaves_reusable() {
            return;
        }
        if let Some(stream) = Arc::into_inner(self.stream.0) {
            connections.put(self.key, stream.into_inner(), idle, clock::since_start());
        }
    }

    /// Returns the sender of the request: it writes while it is polled. `end`: no body follows the header.
    ///
    /// # Errors
    /// Those of [`RequestWriter::new`].
    pub(super) fn start(
        &mut self,
        request: &mut RequestHeader,
        end: bool,
        body: BodyToSend,
    ) -> Result<BodySender> {
        self.method = request.method.clone();
        self.response.passes_trailers = request.headers.contains_key(TE);
        let queue = body.source.body_queue();
        // In a retry, `end` may be set although trailers were read: only a body can carry them.
        let writer = RequestWriter::new(request, !end || queue.has_trailers())?;
        queue.open();
        if end {
            queue.end();
        }
        self.source = Some(Arc::clone(&body.source));
        let sending = writer.send(body, self.stream.clone(), Arc::clone(&self.is_sent));
        Ok(BodySender::new(sending))
    }

    /// Reads the next header of the response, interim or final.
    ///
    /// # Errors
    /// Those of [`ResponseReader::read_head`].
    pub(super) async fn read_head(&mut self) -> Result<()> {
        let read = self.response.read_head(&mut self.stream, &self.method);
        self.header = Some(read.await?);
        self.stop_request_after_response();
        Ok(())
    }

    /// Reads the next piece of the response's body; `None`: it has ended.
    ///
    /// # Errors
    /// Those of [`ResponseReader::read_piece`].
    pub(super) async fn read_piece(&mut self) -> Result<Option<Bytes>> {
        let piece = self.response.read_piece(&mut self.stream).await?;
        self.stop_request_after_response();
        Ok(piece)
    }

    /// Stops sending the request once its response is complete: the peer needs no more of it (RFC 9110 §10.1.1, RFC 9112
    /// §9.3). The connection cannot be used again then.
    fn stop_request_after_response(&self) {
        if self.response.is_read()
            && !self.is_sent.load(Relaxed)
            && let Some(source) = &self.source
        {
            source.body_queue().stop_sending();
        }
    }

    /// Takes the trailers of the response; `None` after the first call.
    pub(super) fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.response.take_trailers()
    }

    /// Whether the response was read to its end, and its trailers were taken.
    pub(super) fn is_finished(&self) -> bool {
        self.response.is_finished()
    }

    /// The header that was read last, interim or final.
    pub(super) fn header(&self) -> Option<&ResponseHeader> {
        self.header.as_ref()
    }

    /// Keeps the connection out of the pool: [`Self::release`] closes it.
    pub(super) fn abort(&mut self) {
        self.is_sent.store(false, Relaxed);
    }
}

/// The stream of a session and of its sender. One task polls both, so the lock is never contended.
#[derive(Clone, Debug)]
struct SharedStream(Arc<Mutex<PeerStream>>);

impl AsyncRead for SharedStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut *self.0.lock()).poll_read(cx, buffer)
    }
}

impl AsyncWrite for SharedStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut *self.0.lock()).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut *self.0.lock()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut *self.0.lock()).poll_shutdown(cx)
    }
}
