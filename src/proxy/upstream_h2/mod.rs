//! Phase 6, outward: requests of HTTP/2 to peers that speak it too, with both ways free at any time.
//!
//! Pingora's own way for them has one loop that sends the request and takes the response, and that waits
//! for the peer within it: see [`Upload`](crate::downstream::Upload). Its way for protocols of one's own
//! has the same loop, but leaves to us what a write is. So HTTP/2 is made known to it as such a protocol.
//! Under it are Pingora's connections, pools and streams of HTTP/2; what is our own is how a body is
//! sent on.
//!
//! Clients of HTTP/1 stay on Pingora's way: few of them read while they send, and theirs is to translate.

mod body_sender;
mod session;

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::Version;
use pingora::connectors::ConnectorOptions;
use pingora::connectors::http::custom::{Connection, Connector};
use pingora::connectors::http::v2::{self, H2HandshakeSettings, handshake};
use pingora::http::RequestHeader;
use pingora::protocols::Stream;
use pingora::protocols::http::v2::client::Http2Session;
use pingora::protocols::tls::{ALPN, CustomALPN};
use pingora::server::configuration::ServerConf;
use pingora::upstreams::peer::{HttpPeer, Peer};
use pingora::{Error, ErrorType, OkOrErr, Result};

use self::session::UpstreamH2Session;
use super::context::Context;

/// What Pingora is told is spoken: HTTP/2, and nothing else will do.
const ALPN_H2_ONLY: &[u8] = b"h2 duplex";
/// HTTP/2, or HTTP/1.1 where the peer does not speak it.
const ALPN_H2_OR_HTTP1: &[u8] = b"h2 duplex, http/1.1";

/// Where connections to a peer of HTTP/2 are kept, none is that speaks HTTP/1: such a one may be left
/// from before a reload.
const POOL_KEY: u64 = 0x6832_6475_706c_6578;

/// Has a peer that may speak HTTP/2 spoken to in this way.
pub(super) fn enable(peer: &mut HttpPeer) {
    let spoken = match peer.options.alpn.get_min_http_version() {
        2 => {
            peer.group_key ^= POOL_KEY;
            ALPN_H2_ONLY
        }
        _ => ALPN_H2_OR_HTTP1,
    };
    peer.options.alpn = ALPN::Custom(CustomALPN::new(spoken.to_vec()));
}

/// The request goes this way: what sends it learns where its body comes from.
pub(super) fn attach_exchange(asked: &RequestHeader, request: &mut RequestHeader, ctx: &Context) {
    // Pingora's other ways have changed the version, or had another to begin with.
    let is_duplex = asked.version == Version::HTTP_2 && request.version == Version::HTTP_2;
    if let (true, Some(exchange)) = (is_duplex, &ctx.exchange) {
        request.extensions_mut().insert(Arc::clone(exchange));
    }
}

/// The request is refused by its body. On this way Pingora would take that for the peer's doing, and wait
/// for the response.
pub(super) fn abandon_body(ctx: &Context) {
    if let Some(exchange) = &ctx.exchange {
        exchange.body_queue.abort();
    }
}

/// Connects to peers, for streams of HTTP/2.
pub struct UpstreamH2Connector {
    connector: v2::Connector,
}

impl UpstreamH2Connector {
    /// With pools as Pingora's own.
    pub fn new(conf: &ServerConf) -> Self {
        let options = ConnectorOptions::from_server_conf(conf);
        Self {
            connector: v2::Connector::new(Some(options)),
        }
    }

    async fn connect(&self, peer: &HttpPeer, stream: Stream) -> Result<Http2Session> {
        let mut settings = H2HandshakeSettings::new();
        settings.max_streams = peer.options.max_h2_streams;
        settings.ping_interval = peer.options.h2_ping_interval;
        let connection = handshake(stream, settings).await?;
        let session = connection.spawn_stream().await?;
        if connection.more_streams_allowed() {
            self.connector
                .in_use_pool()
                .insert(peer.reuse_hash(), connection);
        }
        session.or_err(ErrorType::H2Error, "a new connection takes no stream")
    }
}

#[async_trait]
impl Connector for UpstreamH2Connector {
    type Session = UpstreamH2Session;

    async fn get_http_session<P: Peer + Send + Sync + 'static>(
        &self,
        peer: &P,
    ) -> Result<(Connection<UpstreamH2Session>, bool)> {
        let (peer, only) = resolve_alpn(peer).or_err(ErrorType::InternalError, "another's peer")?;
        let stream = self.connector.transport().new_stream(&peer).await?;
        let spoken = match stream.selected_alpn_proto() {
            Some(protocol) => matches!(protocol, ALPN::H2),
            None => only && !peer.is_tls(),
        };
        if spoken {
            let session = self.connect(&peer, stream).await?;
            return Ok((Connection::Session(session.into()), false));
        }
        if only {
            return Error::e_explain(ErrorType::TLSHandshakeFailure, "no HTTP/2");
        }
        Ok((Connection::Stream(stream), false))
    }

    /// A connection that turns out to have ended is none.
    async fn reused_http_session<P: Peer + Send + Sync + 'static>(
        &self,
        peer: &P,
    ) -> Option<UpstreamH2Session> {
        let session = self.connector.reused_http_session(peer).await;
        session.ok().flatten().map(UpstreamH2Session::from)
    }

    async fn release_http_session<P: Peer + Send + Sync + 'static>(
        &self,
        session: UpstreamH2Session,
        peer: &P,
        idle_timeout: Option<Duration>,
    ) {
        if session.requires_http1() {
            self.connector.prefer_h1(peer);
        }
        let session = session.into_inner();
        self.connector
            .release_http_session(session, peer, idle_timeout);
    }
}

/// The peer as it is connected to, and whether nothing but HTTP/2 will do.
fn resolve_alpn<P: Peer + 'static>(peer: &P) -> Option<(HttpPeer, bool)> {
    let mut peer = (peer as &dyn Any).downcast_ref::<HttpPeer>()?.clone();
    let only = match &peer.options.alpn {
        ALPN::Custom(spoken) => spoken.protocol() == ALPN_H2_ONLY,
        _ => false,
    };
    peer.options.set_http_version(2, if only { 2 } else { 1 });
    Some((peer, only))
}
