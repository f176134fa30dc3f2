//! Outlier detection, retries and timeouts of an upstream.

use std::time::Duration;

/// Ejection of a peer on failures of real traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutlierDetectionConfig {
    /// Failed connects in a row that eject a peer; at least 1.
    pub failures: u32,
    /// How long the first ejection lasts; each repetition doubles it.
    pub eject: Duration,
    /// The longest ejection.
    pub max_eject: Duration,
}

/// How failed attempts are repeated on other peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryConfig {
    /// Attempts in total, the first included; 1 ..= 16.
    pub attempts: u32,
    /// No further attempt starts later than this after the first one started.
    pub timeout: Duration,
}

/// How long each step of an exchange with a peer may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeoutsConfig {
    /// Until the connection stands.
    pub connect: Duration,
    /// From the request's last byte to the response's header.
    pub first_byte: Duration,
    /// Between two reads of a response body.
    pub read: Duration,
    /// The same, where a body is silent by nature: of gRPC in either direction, and of event streams.
    pub stream: Duration,
    /// For one write of the request.
    pub write: Duration,
    /// How long an unused connection is kept; keep it below the peer's own keep-alive timeout.
    pub idle: Duration,
    /// After a protocol upgrade (WebSocket).
    pub tunnel: TunnelTimeoutsConfig,
}

/// How long a tunnel may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelTimeoutsConfig {
    /// Without a byte in either direction.
    pub idle: Duration,
    /// From its beginning to its end; `None`: no limit.
    pub total: Option<Duration>,
}
