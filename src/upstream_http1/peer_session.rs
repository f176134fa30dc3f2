//! One request to a peer of either HTTP version and its response, as a session of Pingora's custom protocol.

use std::future::{Future, poll_fn};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;
use http::{HeaderMap, Version};
use pingora::ErrorType::InternalError;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::custom::client::Session;
use pingora::protocols::http::custom::{BodyWrite, CustomMessageWrite};
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{Digest, UniqueIDType};
use pingora::{Error, OkOrErr as _, Result};

use super::session::Http1Session;
use crate::pingora_compat::body_queue::BodySource;
use crate::pingora_compat::body_sender::{BodyFailure, BodyQueueWriter, BodySender, BodyToSend};
use crate::pingora_compat::upstream_h2::UpstreamH2Session;
use crate::pingora_compat::user_data;

/// In the digest of every session: the version of its connection. Pingora 0.9.1 does not tell its hooks which connector a
/// connection is from.
static HTTP1_MARKER: LazyLock<Option<Arc<ProxyDigest>>> =
    LazyLock::new(|| marker(Version::HTTP_11));
static HTTP2_MARKER: LazyLock<Option<Arc<ProxyDigest>>> = LazyLock::new(|| marker(Version::HTTP_2));

struct VersionMarker(Version);

fn marker(version: Version) -> Option<Arc<ProxyDigest>> {
    user_data::wrap(&Arc::new(VersionMarker(version))).ok()
}

/// The version of the connection with this digest; `None`: it has no [`PeerSession`], but is one of Pingora's own, for a
/// tunnel.
pub(crate) fn connected_version(digest: Option<&Digest>) -> Option<Version> {
    let proxy = digest?.proxy_digest.as_deref()?;
    let marker = user_data::unwrap::<VersionMarker>(proxy)?;
    Some(marker.0)
}

/// The part of a session that depends on the version.
pub(super) enum VersionSession {
    Http1(Box<Http1Session>),
    Http2(Box<UpstreamH2Session>),
}

/// A request to a peer.
pub(crate) struct PeerSession {
    session: VersionSession,
    /// The connection's, with a marker.
    digest: Digest,
    /// The source of the request's body.
    source: Option<Arc<dyn BodySource>>,
    /// Sends the request, or its body; taken by Pingora, which polls it.
    sender: Option<BodySender>,
    /// Receives the error if the request could not be sent.
    failure: BodyFailure,
    /// The number of [interim responses](BodySource::interim_responses) once the client has all that were read here.
    interim_due: u64,
    write_timeout: Option<Duration>,
}

impl From<Http1Session> for PeerSession {
    fn from(session: Http1Session) -> Self {
        let digest = Digest {
            proxy_digest: HTTP1_MARKER.clone(),
            ssl_digest: session.tls_session(),
            ..Digest::default()
        };
        Self::new(VersionSession::Http1(Box::new(session)), digest)
    }
}

impl From<Box<UpstreamH2Session>> for PeerSession {
    fn from(session: Box<UpstreamH2Session>) -> Self {
        let digest = Digest {
            proxy_digest: HTTP2_MARKER.clone(),
            ..session.digest().cloned().unwrap_or_default()
        };
        Self::new(VersionSession::Http2(session), digest)
    }
}

impl PeerSession {
    fn new(session: VersionSession, digest: Digest) -> Self {
        Self {
            session,
            digest,
            source: None,
            sender: None,
            failure: BodyFailure::default(),
            interim_due: 0,
            write_timeout: None,
        }
    }

    /// Waits until the client's stream has taken the interim responses that were read: an error would overtake them.
    async fn wait_for_interim_responses(&self) {
        if let Some(source) = &self.source {
            let interim = source.interim_responses();
            poll_fn(|cx| interim.poll_taken(self.interim_due, cx)).await;
        }
    }

    /// Ends the request; returns the connection's part.
    pub(super) fn into_inner(self) -> VersionSession {
        self.session
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
impl Session for PeerSession {
    async fn write_request_header(&mut self, mut req: Box<RequestHeader>, end: bool) -> Result<()> {
        let source: Option<Arc<dyn BodySource>> = req.extensions_mut().remove();
        let source = source.or_err(InternalError, "a request without a body queue")?;
        let (failure, failed) = BodyFailure::channel();
        let body = BodyToSend {
            source: Arc::clone(&source),
            limit: self.write_timeout,
            failure,
        };
        self.sender = match &mut self.session {
            VersionSession::Http1(session) => Some(session.start(&mut req, end, body)?),
            VersionSession::Http2(session) => session.start(req, end, body)?,
        };
        self.failure = failed;
        self.interim_due = source.interim_responses().taken();
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
        let read = match &mut self.session {
            VersionSession::Http1(session) => {
                or_failure(&mut self.failure, session.read_head()).await
            }
            VersionSession::Http2(session) => {
                or_failure(&mut self.failure, session.read_head()).await
            }
        };
        if read.is_err() {
            self.wait_for_interim_responses().await;
            return read;
        }
        let header = self.response_header();
        let is_interim = header.is_some_and(|header| header.status.is_informational());
        self.interim_due += u64::from(is_interim);
        Ok(())
    }

    async fn read_response_body(&mut self) -> Result<Option<Bytes>> {
        match &mut self.session {
            VersionSession::Http1(session) => {
                or_failure(&mut self.failure, session.read_piece()).await
            }
            VersionSession::Http2(session) => {
                or_failure(&mut self.failure, session.read_piece()).await
            }
        }
    }

    async fn read_trailers(&mut self) -> Result<Option<HeaderMap>> {
        match &mut self.session {
            // They were read with the body.
            VersionSession::Http1(session) => Ok(session.take_trailers()),
            VersionSession::Http2(session) => {
                or_failure(&mut self.failure, session.read_trailers()).await
            }
        }
    }

    async fn check_response_end_or_error(&mut self, _headers: bool) -> Result<bool> {
        match &mut self.session {
            VersionSession::Http1(session) => Ok(session.is_finished()),
            VersionSession::Http2(session) => session.check_end(),
        }
    }

    fn response_finished(&self) -> bool {
        match &self.session {
            VersionSession::Http1(session) => session.is_finished(),
            VersionSession::Http2(session) => session.is_finished(),
        }
    }

    fn response_header(&self) -> Option<&ResponseHeader> {
        match &self.session {
            VersionSession::Http1(session) => session.header(),
            VersionSession::Http2(session) => session.header(),
        }
    }

    async fn shutdown(&mut self, _code: u32, _ctx: &str) {
        match &mut self.session {
            VersionSession::Http1(session) => session.abort(),
            VersionSession::Http2(session) => session.abort(),
        }
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
        self.digest.socket_digest.as_ref()?.peer_addr()
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        self.digest.socket_digest.as_ref()?.local_addr()
    }

    fn fd(&self) -> UniqueIDType {
        match &self.session {
            VersionSession::Http1(session) => session.fd(),
            VersionSession::Http2(session) => session.fd(),
        }
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
