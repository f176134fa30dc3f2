//! The connections to peers: idle ones in the pool, and new ones.

use std::sync::{Arc, Weak};
use std::time::Duration;

use pingora::Result;
use pingora::connectors::TransportConnector;
use pingora::upstreams::peer::HttpPeer;

use super::peer_stream::PeerStream;
use super::pool::{Pool, PoolKey, is_plain_tcp};
use crate::clock;

/// The time between two sweeps of the pool.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Makes connections, and keeps those that are idle.
pub(crate) struct PeerConnections {
    pool: Pool,
    /// Makes the connections with TLS, a Unix socket or a PROXY header.
    connector: TransportConnector,
}

impl PeerConnections {
    /// Connections of `threads` worker threads, with a pool of `pool_size` idle ones. Must be called inside a Tokio
    /// runtime.
    pub(crate) fn new(threads: usize, pool_size: usize) -> Arc<Self> {
        let connections = Arc::new(Self {
            pool: Pool::new(threads, pool_size),
            connector: TransportConnector::new(None),
        });
        tokio::spawn(sweep(Arc::downgrade(&connections)));
        connections
    }

    /// Takes an idle connection. `now`: on the clock of [`clock::since_start`].
    pub(crate) fn take(&self, key: &PoolKey, now: Duration) -> Option<PeerStream> {
        self.pool.take(key, now)
    }

    /// Keeps a connection for another request, at most for `idle` from `now`.
    pub(crate) fn put(&self, key: PoolKey, stream: PeerStream, idle: Duration, now: Duration) {
        if !idle.is_zero() {
            self.pool.put(key, stream, now.saturating_add(idle));
        }
    }

    /// Makes a new connection; the options of `peer` have the time limits.
    ///
    /// # Errors
    /// The connect failed; nothing of a request was sent.
    pub(crate) async fn connect(&self, peer: &HttpPeer) -> Result<PeerStream> {
        match (peer._address.as_inet(), peer.options.connection_timeout) {
            (Some(address), Some(limit)) if is_plain_tcp(peer) => {
                PeerStream::connect_tcp(*address, limit).await
            }
            _ => PeerStream::connect_with(&self.connector, peer).await,
        }
    }
}

/// Closes connections that are idle for too long, until the pool is dropped.
async fn sweep(connections: Weak<PeerConnections>) {
    loop {
        tokio::time::sleep(SWEEP_INTERVAL).await;
        let Some(connections) = connections.upgrade() else {
            return;
        };
        connections.pool.sweep(clock::since_start());
    }
}
