//! Relays requests of HTTP/1 to peers of HTTP/1.1 with our own codec and connection pool, without Pingora's sessions.
//!
//! ```text
//!  downstream::http1 ──► request ──► phases: begin, validate, route, key, select
//!                                  │
//!                                  ├─► connect ──► pool, peer_stream
//!                                  ├─► relay ──┬─► upload      client ──► peer
//!                                  │           └─► download    client ◄── peer
//!                                  ├─► tunnel     client ◄─► peer, after 101
//!                                  └─► phases: retry, local_reply, finish
//! ```
//!
//! The engine does not serve gRPC calls, and upstreams with HTTP/2 or gRPC-Web: it leaves such a request to Pingora.
//!
//! Each connection has one task, which does all the work; each direction of a body has one buffer. The exchange enforces
//! its deadlines: it drops the future of a request. Two limits are timers of [`pause`], because only this loop can
//! measure them: the client pauses within a body, or the peer accepts no bytes.

mod connect;
mod connection;
mod download;
mod failure;
mod pause;
mod peer_stream;
mod pool;
mod relay;
mod request;
mod tunnel;
mod upload;

use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use pingora::connectors::TransportConnector;

use self::pool::Pool;
use crate::clock;
use crate::snapshot::Snapshot;
use crate::telemetry::Telemetry;

pub(crate) use self::connection::ConnectionState;

/// Serves the requests of HTTP/1 that need no session of Pingora.
pub(crate) struct Engine {
    snapshot: Arc<ArcSwap<Snapshot>>,
    telemetry: Arc<Telemetry>,
    pool: Arc<Pool>,
    /// Makes the connections with TLS, a Unix socket or a PROXY header.
    connector: TransportConnector,
}

impl Engine {
    /// An engine for `threads` worker threads, with a pool of `pool_size` idle connections. Each request uses the
    /// configuration that `snapshot` holds when the request begins. Must be called inside a Tokio runtime.
    pub(crate) fn new(
        snapshot: Arc<ArcSwap<Snapshot>>,
        telemetry: Arc<Telemetry>,
        (threads, pool_size): (usize, usize),
    ) -> Self {
        let pool = Arc::new(Pool::new(threads, pool_size));
        tokio::spawn(sweep(Arc::downgrade(&pool)));
        Self {
            pool,
            connector: TransportConnector::new(None),
            snapshot,
            telemetry,
        }
    }
}

/// The time between two sweeps of the pool.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Closes connections that are idle for too long, until the pool is dropped.
async fn sweep(pool: Weak<Pool>) {
    loop {
        tokio::time::sleep(SWEEP_INTERVAL).await;
        let Some(pool) = pool.upgrade() else { return };
        pool.sweep(clock::since_start());
    }
}
