//! Carries HTTP/1 from clients to peers, without Pingora: our own codec, our own pool of connections.
//!
//! ```text
//!  downstream::http1_engine ──► request ──► phases: begin, validate, route, key, select
//!                                  │
//!                                  ├─► connect ──► pool, peer_stream
//!                                  ├─► relay ──┬─► upload      client ──► peer
//!                                  │           └─► download    client ◄── peer
//!                                  └─► phases: retry, local_reply, finish
//! ```
//!
//! A request that it does not serve (an upgrade, `CONNECT`, an upstream of HTTP/2 or gRPC-Web) is put back whole, and
//! its connection continues with Pingora.
//!
//! One task a connection does everything, so nothing here waits for another task. A body passes through one buffer a
//! direction. Deadlines are the exchange's, which drops the future of a request; the two that only this loop can know,
//! a pause in a body and a peer that takes nothing, are timers of [`pause`].

mod client;
mod connect;
mod connection;
mod download;
mod failure;
mod keep_alive;
mod pause;
mod peer_stream;
mod pool;
mod relay;
mod request;
mod upload;

use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use pingora::connectors::TransportConnector;

use self::pool::Pool;
use crate::clock;
use crate::phases::PartialRequests;
use crate::snapshot::Snapshot;
use crate::telemetry::Telemetry;

pub(crate) use self::connection::ConnectionState;

/// Serves plain HTTP/1.
pub(crate) struct Engine {
    snapshot: Arc<ArcSwap<Snapshot>>,
    telemetry: Arc<Telemetry>,
    pool: Arc<Pool>,
    /// Makes the connections that are not plain TCP.
    connector: TransportConnector,
    partial_requests: PartialRequests,
}

impl Engine {
    /// An engine that serves each request with the configuration that `snapshot` holds at its start, for `threads`
    /// worker threads and a pool of `pool_size` idle connections. Must be called inside a Tokio runtime.
    pub(crate) fn new(
        snapshot: Arc<ArcSwap<Snapshot>>,
        telemetry: Arc<Telemetry>,
        (threads, pool_size): (usize, usize),
    ) -> Self {
        let pool = Arc::new(Pool::new(threads, pool_size));
        tokio::spawn(sweep(Arc::downgrade(&pool)));
        Self {
            partial_requests: PartialRequests::new(Arc::clone(&snapshot), Arc::clone(&telemetry)),
            pool,
            connector: TransportConnector::new(None),
            snapshot,
            telemetry,
        }
    }
}

/// The time between two looks for connections that are idle for too long.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Closes connections that are idle for too long, as long as there is a pool.
async fn sweep(pool: Weak<Pool>) {
    loop {
        tokio::time::sleep(SWEEP_INTERVAL).await;
        let Some(pool) = pool.upgrade() else { return };
        pool.sweep(clock::since_start());
    }
}
