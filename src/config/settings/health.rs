//! Active health checks.

use std::time::Duration;

use http::HeaderValue;

/// Active health checks of every peer.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthConfig {
    /// The kind of probe.
    pub probe: ProbeConfig,
    /// Time from the start of one probe to the start of the next, with a jitter of ±10 %.
    pub interval: Duration,
    /// Limit for one whole probe.
    pub timeout: Duration,
    /// Failed probes in a row that take an up peer down; at least 1.
    pub fall: u32,
    /// Passed probes in a row that bring a down peer up; at least 1.
    pub rise: u32,
}

/// The kind of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeConfig {
    /// Connects; with TLS, including the handshake.
    Tcp,
    /// Sends a GET request.
    Http {
        /// Path and query; begins with `/`.
        path: String,
        /// The `Host` sent; `None`: the peer's address as written.
        host: Option<HeaderValue>,
        /// Ranges of statuses that pass, both ends included.
        expect: Vec<(u16, u16)>,
    },
    /// Calls `grpc.health.v1.Health/Check`; `SERVING` passes.
    Grpc {
        /// The service; empty: the whole server.
        service: String,
        /// The `:authority` sent; `None`: the peer's address as written.
        host: Option<HeaderValue>,
    },
}
