//! One request to a peer of HTTP/1 and its response, as a session of Pingora's custom protocol.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;
use http::header::TE;
use http::{HeaderMap, Method};
use parking_lot::Mutex;
use pingora::ErrorType::InternalError;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::custom::client;
use pingora::protocols::http::custom::{BodyWrite, CustomMessageWrite};
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{Digest, UniqueIDType};
use pingora::{Error, OkOrErr as _, Result};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connections::PeerConnections;
use super::peer_stream::PeerStream;
use super::pool::PoolKey;
use super::request::RequestWriter;
use super::response::ResponseReader;
use crate::clock;
use crate::pingora_compat::body_queue::BodySource;
use crate::pingora_compat::body_sender::{BodyFailure, BodyQueueWriter, BodySender};
use crate::pingora_compat::user_data;

/// In the digest of every session. Pingora 0.9.1 does not tell its hooks which connector a connection is from.
static HTTP1_MARKER: LazyLock<Option<Arc<ProxyDigest>>> =
    LazyLock::new(|| user_data::wrap(&Arc::new(Http1Marker)).ok());

struct Http1Marker;

/// Whether the connection with this digest is one of [`Http1Session`].
pub(crate) fn is_connected(digest: Option<&Digest>) -> bool {
    let proxy = digest.and_then(|digest| digest.proxy_digest.as_deref());
    proxy.is_some_and(|proxy| user_data::unwrap::<Http1Marker>(proxy).is_some())
}

/// A connection that carries one request.
pub(crate) struct Http1Session {
    stream: SharedStream,
    key: PoolKey,
    digest: Digest,
    method: Method,
    /// The source of the request's body.
    source: Option<Arc<dyn BodySource>>,
    /// Sends the request; taken by Pingora, which polls it.
    sender: Option<BodySender>,
    failure: BodyFailure,
    /// Whether the peer has the whole request.
    is_sent: Arc<AtomicBool>,
    response: ResponseReader,
    /// The head that was read last.
    header: Option<ResponseHeader>,
    write_timeout: Option<Duration>,
}

impl Http1Session {
    /// A session on a connection that carries no request.
    pub(super) fn new(stream: PeerStream, key: PoolKey) -> Self {
        let digest = Digest {
            proxy_digest: HTTP1_MARKER.clone(),
            ssl_digest: stream.tls_session(),
            ..Digest::default()
        };
        Self {
            stream: SharedStream(Arc::new(Mutex::new(stream))),
            key,
            digest,
            method: Method::GET,
            source: None,
            sender: None,
            failure: BodyFailure::default(),
            is_sent: Arc::default(),
            response: ResponseReader::default(),
            header: None,
            write_timeout: None,
        }
    }

    /// Keeps the connection for another request, if it can carry one.
    pub(super) fn release(self, connections: &PeerConnections, idle: Duration) {
        if !self.is_sent.load(Relaxed) || !self.response.leaves_reusable() {
            return;
        }
        drop(self.sender);
        if let Some(stream) = Arc::into_inner(self.stream.0) {
            connections.put(self.key, stream.into_inner(), idle, clock::since_start());
        }
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
}

/// Ends early with the error of the sender, if there is one.
async fn or_failure<T>(
    failure: &mut BodyFailure,
    read: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::select! {
        biased;
        error = failure.wait() => Err(error),
        read = read => read,
    }
}

#[async_trait]
impl client::Session for Http1Session {
    async fn write_request_header(&mut self, mut req: Box<RequestHeader>, end: bool) -> Result<()> {
        self.method = req.method.clone();
        self.response.passes_trailers = req.headers.contains_key(TE);
        let source: Option<Arc<dyn BodySource>> = req.extensions_mut().remove();
        let source = source.or_err(InternalError, "a request without a body queue")?;
        let writer = RequestWriter::new(&mut req, !end)?;
        source.body_queue().open();
        if end {
            source.body_queue().end();
        }
        let (failure, failed) = BodyFailure::channel();
        let ends = (Arc::clone(&self.is_sent), failure);
        let (body, stream) = (Arc::clone(&source), self.stream.clone());
        let sending = writer.send(body, stream, self.write_timeout, ends);
        self.sender = Some(BodySender::new(sending));
        self.failure = failed;
        self.source = Some(source);
        Ok(())
    }

    async fn write_request_body(&mut self, _data: Bytes, _end: bool) -> Result<()> {
        Error::e_explain(InternalError, "the body goes through the queue")
    }

    async fn finish_request_body(&mut self) -> Result<()> {
        Ok(())
    }

    // The phases of the exchange time the wait for a response.
    fn set_read_timeout(&mut self, _timeout: Option<Duration>) {}

    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.write_timeout = timeout;
    }

    async fn read_response_header(&mut self) -> Result<()> {
        let read = self.response.read_head(&mut self.stream, &self.method);
        self.header = Some(or_failure(&mut self.failure, read).await?);
        self.stop_request_after_response();
        Ok(())
    }

    async fn read_response_body(&mut self) -> Result<Option<Bytes>> {
        let read = self.response.read_piece(&mut self.stream);
        let piece = or_failure(&mut self.failure, read).await?;
        self.stop_request_after_response();
        Ok(piece)
    }

    async fn read_trailers(&mut self) -> Result<Option<HeaderMap>> {
        Ok(self.response.take_trailers())
    }

    async fn check_response_end_or_error(&mut self, _headers: bool) -> Result<bool> {
        Ok(self.response.is_finished())
    }

    fn response_finished(&self) -> bool {
        self.response.is_finished()
    }

    fn response_header(&self) -> Option<&ResponseHeader> {
        self.header.as_ref()
    }

    async fn shutdown(&mut self, _code: u32, _ctx: &str) {
        // The connection is closed, not kept.
        self.is_sent.store(false, Relaxed);
    }

    fn was_upgraded(&self) -> bool {
        false
    }

    fn digest(&self) -> Option<&Digest> {
        Some(&self.digest)
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        Some(&mut self.digest)
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        None
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        None
    }

    fn fd(&self) -> UniqueIDType {
        self.stream.0.lock().fd()
    }

    fn take_request_body_writer(&mut self) -> Option<Box<dyn BodyWrite>> {
        let source = self.source.clone()?;
        Some(Box::new(BodyQueueWriter(source)))
    }

    // HTTP has no messages besides request and response; the reader of such messages sends the request.

    fn take_custom_message_reader(
        &mut self,
    ) -> Option<Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>> {
        let sender = self.sender.take().unwrap_or_else(BodySender::empty);
        Some(Box::new(sender))
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        Some(Box::new(()))
    }

    async fn drain_custom_messages(&mut self) -> Result<()> {
        Ok(())
    }

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
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
