//! Active health checks.

use std::time::Duration;

use http::HeaderValue;

/// Active probes of every peer.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthConfig {
    /// What is asked.
    pub probe: ProbeConfig,
    /// Time from the start of one probe to the start of the next; each is moved by up to ±10 %.
    pub interval: Duration,
    /// The longest that one whole probe may take.
    pub timeout: Duration,
    /// Failed probes in a row that take an up peer down; at least 1.
    pub fall: u32,
    /// Passed probes in a row that bring a down peer up; at least 1.
    pub rise: u32,
}

/// What a probe asks of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeConfig {
    /// That it accepts a connection, and proves who it is where it has to.
    Tcp,
    /// That it answers a GET.
    Http {
        /// The path and query that are asked for; begins with `/`.
        path: String,
        /// The `Host` sent; `None`: the peer's address as written.
        host: Option<HeaderValue>,
        /// The statuses that pass, both ends included.
        expect: Vec<(u16, u16)>,
    },
    /// That it says `SERVING` when asked by gRPC's own protocol for that (`grpc.health.v1`).
    Grpc {
        /// The service that is asked for; empty: the server as a whole.
        service: String,
        /// The `:authority` sent; `None`: the peer's address as written.
        host: Option<HeaderValue>,
    },
}
