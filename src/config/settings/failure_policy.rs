//! Outlier detection, retries and timeouts of an upstream.

use std::time::Duration;

/// Ejection of a peer after failures of real requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutlierDetectionConfig {
    /// Failed connects in a row that eject a peer; at least 1.
    pub failures: u32,
    /// Duration of the first ejection; each repetition doubles it.
    pub eject: Duration,
    /// The longest ejection.
    pub max_eject: Duration,
}

/// Retries of failed attempts on other peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryConfig {
    /// Attempts in total, the first included; 1 ..= 16.
    pub attempts: u32,
    /// No further attempt starts later than this after the first one started.
    pub timeout: Duration,
}

/// Deadlines of each step of an exchange with a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeoutsConfig {
    /// To connect.
    pub connect: Duration,
    /// From the last byte of the request to the header of the response.
    pub first_byte: Duration,
    /// Between two reads of a response body.
    pub read: Duration,
    /// The same for bodies that may pause for long: gRPC in both directions, event streams.
    pub stream: Duration,
    /// For one write of the request.
    pub write: Duration,
    /// How long an unused connection is kept; should be below the peer's own keep-alive timeout.
    pub idle: Duration,
    /// Deadlines after a protocol upgrade (WebSocket).
    pub tunnel: TunnelTimeoutsConfig,
}

/// Deadlines of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelTimeoutsConfig {
    /// Without a byte in either direction.
    pub idle: Duration,
    /// From its start to its end; `None`: no limit.
    pub total: Option<Duration>,
}
