//! The connector that Pingora uses: HTTP/2 through `pingora_compat::upstream_h2`, HTTP/1 through our codec and pool.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;
use http::HeaderMap;
use pingora::ErrorType::InternalError;
use pingora::connectors::http::custom::{Connection, Connector};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::custom::client::Session;
use pingora::protocols::http::custom::{BodyWrite, CustomMessageWrite};
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::tls::{ALPN, CustomALPN};
use pingora::protocols::{Digest, UniqueIDType};
use pingora::upstreams::peer::{HttpPeer, Peer};
use pingora::{OkOrErr as _, Result};

use super::connections::PeerConnections;
use super::peer_stream::PeerStream;
use super::pool::PoolKey;
use super::session::Http1Session;
use crate::clock;
use crate::pingora_compat::upstream_h2::{self, UpstreamH2Connector, UpstreamH2Session};

/// The name of the custom protocol: HTTP/1 only.
const ALPN_HTTP1: &[u8] = b"http/1.1 codec";

/// Makes requests to a peer use this connector.
pub(crate) fn enable(peer: &mut HttpPeer) {
    if peer.options.alpn.get_max_http_version() == 2 {
        upstream_h2::enable(peer);
    } else {
        peer.options.alpn = ALPN::Custom(CustomALPN::new(ALPN_HTTP1.to_vec()));
    }
}

/// Connects to peers of both versions.
pub(crate) struct PeerConnector {
    h2: UpstreamH2Connector,
    http1: Arc<PeerConnections>,
}

impl PeerConnector {
    /// `http1`: the connections that the engine uses, too.
    pub(crate) fn new(h2: UpstreamH2Connector, http1: Arc<PeerConnections>) -> Self {
        Self { h2, http1 }
    }

    /// An idle connection of HTTP/1, for a peer that need not speak HTTP/2.
    fn take_http1(&self, peer: &HttpPeer) -> Option<Http1Session> {
        if upstream_h2::requires_h2(peer) {
            return None;
        }
        let key = PoolKey::of(peer)?;
        let stream = self.http1.take(&key, clock::since_start())?;
        Some(Http1Session::new(stream, key))
    }

    async fn connect_http1(&self, peer: &HttpPeer) -> Result<Http1Session> {
        let key = PoolKey::of(peer).or_err(InternalError, "a peer without an address")?;
        let mut peer = peer.clone();
        peer.options.set_http_version(1, 1);
        let stream = self.http1.connect(&peer).await?;
        Ok(Http1Session::new(stream, key))
    }
}

#[async_trait]
impl Connector for PeerConnector {
    type Session = PeerSession;

    async fn get_http_session<P: Peer + Send + Sync + 'static>(
        &self,
        peer: &P,
    ) -> Result<(Connection<PeerSession>, bool)> {
        let http = http_peer(peer).or_err(InternalError, "not an HttpPeer")?;
        let session: PeerSession = if upstream_h2::is_enabled(http) {
            match self.h2.get_http_session(http).await? {
                (Connection::Session(session), _) => session.into(),
                (Connection::Stream(stream), _) => {
                    let key =
                        PoolKey::of(http).or_err(InternalError, "a peer without an address")?;
                    Http1Session::new(PeerStream::Pingora(stream), key).into()
                }
            }
        } else {
            self.connect_http1(http).await?.into()
        };
        Ok((Connection::Session(session), false))
    }

    async fn reused_http_session<P: Peer + Send + Sync + 'static>(
        &self,
        peer: &P,
    ) -> Option<PeerSession> {
        let http = http_peer(peer)?;
        if upstream_h2::is_enabled(http)
            && let Some(session) = self.h2.reused_http_session(http).await
        {
            return Some(session.into());
        }
        self.take_http1(http).map(PeerSession::from)
    }

    async fn release_http_session<P: Peer + Send + Sync + 'static>(
        &self,
        session: PeerSession,
        peer: &P,
        idle_timeout: Option<Duration>,
    ) {
        match session {
            PeerSession::Http2(session) => {
                self.h2
                    .release_http_session(*session, peer, idle_timeout)
                    .await;
            }
            PeerSession::Http1(session) => {
                session.release(&self.http1, idle_timeout.unwrap_or_default());
            }
        }
    }
}

fn http_peer<P: Peer + 'static>(peer: &P) -> Option<&HttpPeer> {
    (peer as &dyn Any).downcast_ref()
}

/// A request to a peer, over the version that its connection has.
pub(crate) enum PeerSession {
    Http1(Box<Http1Session>),
    Http2(Box<UpstreamH2Session>),
}

impl From<Http1Session> for PeerSession {
    fn from(session: Http1Session) -> Self {
        Self::Http1(Box::new(session))
    }
}

impl From<UpstreamH2Session> for PeerSession {
    fn from(session: UpstreamH2Session) -> Self {
        Self::Http2(Box::new(session))
    }
}

/// Calls the session of either version.
macro_rules! each {
    ($self:ident, $session:ident => $call:expr) => {
        match $self {
            Self::Http1($session) => $call,
            Self::Http2($session) => $call,
        }
    };
}

#[async_trait]
impl Session for PeerSession {
    async fn write_request_header(&mut self, req: Box<RequestHeader>, end: bool) -> Result<()> {
        each!(self, session => session.write_request_header(req, end).await)
    }

    async fn write_request_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        each!(self, session => session.write_request_body(data, end).await)
    }

    async fn finish_request_body(&mut self) -> Result<()> {
        each!(self, session => session.finish_request_body().await)
    }

    fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        each!(self, session => session.set_read_timeout(timeout));
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        each!(self, session => session.set_write_timeout(timeout));
    }

    async fn read_response_header(&mut self) -> Result<()> {
        each!(self, session => session.read_response_header().await)
    }

    async fn read_response_body(&mut self) -> Result<Option<Bytes>> {
        each!(self, session => session.read_response_body().await)
    }

    fn response_finished(&self) -> bool {
        each!(self, session => session.response_finished())
    }

    async fn shutdown(&mut self, code: u32, ctx: &str) {
        each!(self, session => session.shutdown(code, ctx).await);
    }

    fn response_header(&self) -> Option<&ResponseHeader> {
        each!(self, session => session.response_header())
    }

    fn was_upgraded(&self) -> bool {
        each!(self, session => session.was_upgraded())
    }

    fn digest(&self) -> Option<&Digest> {
        each!(self, session => session.digest())
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        each!(self, session => session.digest_mut())
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        each!(self, session => session.server_addr())
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        each!(self, session => session.client_addr())
    }

    async fn read_trailers(&mut self) -> Result<Option<HeaderMap>> {
        each!(self, session => session.read_trailers().await)
    }

    fn fd(&self) -> UniqueIDType {
        each!(self, session => session.fd())
    }

    async fn check_response_end_or_error(&mut self, headers: bool) -> Result<bool> {
        each!(self, session => session.check_response_end_or_error(headers).await)
    }

    fn take_request_body_writer(&mut self) -> Option<Box<dyn BodyWrite>> {
        each!(self, session => session.take_request_body_writer())
    }

    async fn finish_custom(&mut self) -> Result<()> {
        each!(self, session => session.finish_custom().await)
    }

    fn take_custom_message_reader(
        &mut self,
    ) -> Option<Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>> {
        each!(self, session => session.take_custom_message_reader())
    }

    async fn drain_custom_messages(&mut self) -> Result<()> {
        each!(self, session => session.drain_custom_messages().await)
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        each!(self, session => session.take_custom_message_writer())
    }
}
