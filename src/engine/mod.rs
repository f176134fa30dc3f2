//! Carries HTTP/1 from clients to peers, without Pingora: our own codec, our own pool of connections.
//!
//! ```text
//!  downstream::http1_engine ──► request ──► phases: begin, validate, route, key, select
//!                                  │
//!                                  ├─► connect ──► pool, peer_stream
//!                                  ├─► relay ──┬─► upload      client ──► peer
//!                                  │           └─► download    client ◄── peer
//!                                  └─► local_reply, phases: retry, finish
//! ```
//!
//! A request that it does not serve (an upgrade, `CONNECT`, an upstream of HTTP/2 or gRPC-Web) is put back whole, and its
//! connection goes on with Pingora.
//!
//! One task a connection does everything, so nothing here waits for another task. A body passes through one buffer a
//! direction. Deadlines are the exchange's, which drops the future of a request; the two that only this loop can know,
//! a pause in a body and a peer that takes nothing, are timers of [`pause`].

mod client;
mod connect;
mod download;
mod failure;
mod keep_alive;
mod local_reply;
mod pause;
mod peer_stream;
mod pool;
mod relay;
mod request;
mod upload;

use std::sync::Arc;

use arc_swap::ArcSwap;
use pingora::connectors::TransportConnector;

use self::pool::Pool;
use crate::phases::PartialRequests;
use crate::snapshot::Snapshot;
use crate::telemetry::Telemetry;

pub use self::request::ConnectionState;

/// Serves plain HTTP/1.
pub struct Engine {
    snapshot: Arc<ArcSwap<Snapshot>>,
    telemetry: Arc<Telemetry>,
    pool: Pool,
    /// Makes the connections that are not plain TCP.
    connector: TransportConnector,
    partial_requests: PartialRequests,
}

impl Engine {
    /// An engine that serves each request with the configuration that `snapshot` holds at its start, for `threads`
    /// worker threads and a pool of `pool_size` idle connections.
    pub fn new(
        snapshot: Arc<ArcSwap<Snapshot>>,
        telemetry: Arc<Telemetry>,
        (threads, pool_size): (usize, usize),
    ) -> Self {
        Self {
            partial_requests: PartialRequests::new(Arc::clone(&snapshot), Arc::clone(&telemetry)),
            pool: Pool::new(threads, pool_size),
            connector: TransportConnector::new(None),
            snapshot,
            telemetry,
        }
    }
}
