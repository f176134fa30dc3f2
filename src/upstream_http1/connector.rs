//! The connector that Pingora uses: HTTP/2 through `pingora_compat::upstream_h2`, HTTP/1 through our codec and pool.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::ErrorType::InternalError;
use pingora::connectors::http::custom::{Connection, Connector};
use pingora::protocols::tls::{ALPN, CustomALPN};
use pingora::upstreams::peer::{HttpPeer, Peer};
use pingora::{OkOrErr as _, Result};

use super::connections::PeerConnections;
use super::peer_session::{PeerSession, VersionSession};
use super::peer_stream::PeerStream;
use super::pool::PoolKey;
use super::session::Http1Session;
use crate::clock;
use crate::pingora_compat::upstream_h2::{self, NegotiatedPeer, UpstreamH2Connector};

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
            match self.h2.connect(http).await? {
                NegotiatedPeer::Http2(session) => session.into(),
                NegotiatedPeer::Http1(stream) => {
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
            && let Some(session) = self.h2.reuse(http).await
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
        match session.into_inner() {
            VersionSession::Http2(session) => self.h2.release(*session, peer, idle_timeout),
            VersionSession::Http1(session) => {
                session.release(&self.http1, idle_timeout.unwrap_or_default());
            }
        }
    }
}

fn http_peer<P: Peer + 'static>(peer: &P) -> Option<&HttpPeer> {
    (peer as &dyn Any).downcast_ref()
}
