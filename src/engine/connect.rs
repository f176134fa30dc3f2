//! The connection of an attempt: an idle one from the pool, or a new one.

use std::net::SocketAddr;
use std::time::Duration;

use pingora::ErrorType;
use pingora::upstreams::peer::HttpPeer;

use super::Engine;
use super::failure::ConnectFailure;
use crate::clock;
use crate::fault::Fault;
use crate::phases::Context as RequestContext;
use crate::proxy;
use crate::upstream::{Address, Upstream};
use crate::upstream_http1::{PeerStream, PoolKey};

/// How a new connection is made.
enum Way {
    Tcp(SocketAddr),
    /// By Pingora's connector.
    Pingora(Box<HttpPeer>),
}

/// A connection that carries one attempt.
#[derive(Debug)]
pub(super) struct PeerConnection {
    pub(super) stream: PeerStream,
    /// Whether it comes from the pool.
    pub(super) is_reused: bool,
    key: PoolKey,
    /// How long it may be idle in the pool.
    idle: Duration,
}

impl PeerConnection {
    /// Keeps the connection for another request.
    pub(super) fn release(self, engine: &Engine, now: Duration) {
        engine.peers.put(self.key, self.stream, self.idle, now);
    }
}

impl Engine {
    /// A connection to the peer of the attempt. With `is_upgrade` a new one: it may become a tunnel.
    ///
    /// # Errors
    /// No connection was made; nothing was sent.
    pub(super) async fn connect(
        &self,
        ctx: &mut RequestContext,
        is_upgrade: bool,
    ) -> Result<PeerConnection, ConnectFailure> {
        let (Some(attempt), Some(peer)) = (&ctx.attempt, ctx.peer()) else {
            return Err(Fault::Internal.into());
        };
        let upstream = &attempt.upstream;
        let timeouts = &upstream.config.timeouts;
        let is_plain = upstream.tls.is_none() && upstream.config.proxy_protocol.is_none();
        let (way, key) = match &peer.address {
            Address::Ip(address) if is_plain => {
                let key = PoolKey {
                    address: peer.address.clone(),
                    transport: PoolKey::PLAIN,
                };
                (Way::Tcp(*address), key)
            }
            _ => {
                let http = Box::new(proxy::connect::http_peer(ctx)?);
                let key = PoolKey::of(&http).ok_or(Fault::Internal)?;
                (Way::Pingora(http), key)
            }
        };
        let idle = self.take_idle(&key, attempt.needs_fresh_connection || is_upgrade);
        let is_reused = idle.is_some();
        let stream = match idle {
            Some(stream) => stream,
            // Boxed: most requests reuse a connection.
            None => Box::pin(self.connect_new(upstream, way)).await?,
        };
        Ok(PeerConnection {
            stream,
            is_reused,
            key,
            idle: timeouts.idle,
        })
    }

    async fn connect_new(
        &self,
        upstream: &Upstream,
        way: Way,
    ) -> Result<PeerStream, ConnectFailure> {
        match way {
            Way::Tcp(address) => {
                let limit = upstream.config.timeouts.connect;
                Ok(PeerStream::connect_tcp(address, limit).await?)
            }
            Way::Pingora(http) => {
                let stream = self.peers.connect(&http).await?;
                if let Some(tls) = &upstream.tls
                    && !tls.accepts_version(stream.tls_session().as_deref())
                {
                    return Err(pingora::Error::new_up(ErrorType::TLSHandshakeFailure).into());
                }
                Ok(stream)
            }
        }
    }

    fn take_idle(&self, key: &PoolKey, needs_new: bool) -> Option<PeerStream> {
        if needs_new {
            return None;
        }
        self.peers.take(key, clock::since_start())
    }
}
