//! Relays requests of HTTP/1 to peers of HTTP/1.1 with our own codec, without Pingora's sessions.
//!
//! ```text
//!  downstream::http1 ──► request ──► phases: begin, validate, route, key, select
//!                                  │
//!                                  ├─► connect ──► upstream_http1: pool, new connections
//!                                  ├─► relay ──┬─► upload      client ──► peer
//!                                  │           └─► download    client ◄── peer
//!                                  ├─► tunnel     client ◄─► peer, after 101
//!                                  └─► phases: retry, local_reply, finish
//! ```
//!
//! The engine does not serve gRPC calls, and upstreams with HTTP/2 or gRPC-Web: it leaves such a request to Pingora.
//!
//! Each connection has one task, which does all the work; each direction of a body has one buffer. A connection that waits for
//! a request has none: [`buffers`] belong to requests. The exchange enforces
//! its deadlines: it drops the future of a request. Two limits are timers of [`pause`], because only this loop can
//! measure them: the client pauses within a body, or the peer accepts no bytes.

mod buffers;
mod connect;
mod download;
mod failure;
mod pause;
mod relay;
mod reply;
mod request;
mod tunnel;
mod upload;

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::snapshot::Snapshot;
use crate::telemetry::Telemetry;
use crate::upstream_http1::PeerConnections;

/// Serves the requests of HTTP/1 that need no session of Pingora.
pub(crate) struct Engine {
    snapshot: Arc<ArcSwap<Snapshot>>,
    telemetry: Arc<Telemetry>,
    peers: Arc<PeerConnections>,
}

impl Engine {
    /// An engine that uses the connections of `peers`. Each request uses the configuration that `snapshot` holds when
    /// the request begins.
    pub(crate) fn new(
        snapshot: Arc<ArcSwap<Snapshot>>,
        telemetry: Arc<Telemetry>,
        peers: Arc<PeerConnections>,
    ) -> Self {
        Self {
            snapshot,
            telemetry,
            peers,
        }
    }
}
