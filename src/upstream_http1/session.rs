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
    /// The source of the request's body.
    source: Option<Arc<dyn BodySource>>,
    /// Whether the peer has the whole request.
    is_sent: Arc<AtomicBool>,
    response: ResponseReader,
    /// The head that was read last.
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

    /// The session of TLS; `None` without TLS.
    pub(super) fn tls_session(&self) -> Option<Arc<SslDigest>> {
        self.stream.0.lock().tls_session()
    }

    /// The file descriptor of the connection.
    pub(super) fn fd(&self) -> UniqueIDType {
        self.stream.0.lock().fd()
    }

    /// Keeps the connection for another request, if it can carry one. The sender of the request is dropped before.
    pub(super) fn release(self, connections: &PeerConnections, idle: Duration) {
        if !self.is_sent.load(Relaxed) || !self.response.leaves_reusable() {
            return;
        }
        if let Some(stream) = Arc::into_inner(self.stream.0) {
            connections.put(self.key, stream.into_inner(), idle, clock::since_start());
        }
    }

    /// The sender of the request. `end`: no body follows the header.
    ///
    /// # Errors
    /// The header cannot be written.
    pub(super) fn start(
        &mut self,
        request: &mut RequestHeader,
        end: bool,
        body: BodyToSend,
    ) -> Result<BodySender> {
        self.method = request.method.clone();
        self.response.passes_trailers = request.headers.contains_key(TE);
        let queue = body.source.body_queue();
        // A body that the attempt before has read may have been empty but for its trailers.
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

    /// Stops the request once its response is complete: the peer needs no more (RFC 9110 §10.1.1, RFC 9112 §9.3), and
    /// its connection is not used again.
    fn stop_request_after_response(&self) {
        if self.response.is_read()
            && !self.is_sent.load(Relaxed)
            && let Some(source) = &self.source
        {
            source.body_queue().stop_sending();
        }
    }

    /// The trailers of the response, once.
    pub(super) fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.response.take_trailers()
    }

    /// Whether nothing of the response follows.
    pub(super) fn is_finished(&self) -> bool {
        self.response.is_finished()
    }

    /// The header of the response that was read last.
    pub(super) fn header(&self) -> Option<&ResponseHeader> {
        self.header.as_ref()
    }

    /// Makes the connection close after this request.
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
