//! Limits and deadlines of clients, and the headers that forward their address.

use std::time::Duration;

use http::HeaderName;

/// Limits and deadlines of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DownstreamConfig {
    /// From a request's first byte (or the accept) to the end of its header.
    pub header_timeout: Duration,
    /// Idle time of a connection between two requests.
    pub keepalive: Duration,
    /// Requests on one connection; `None`: no limit.
    pub keepalive_requests: Option<u32>,
    /// Concurrent requests of one HTTP/2 connection.
    pub max_streams: u32,
    /// Between two reads of a request body.
    pub read_timeout: Duration,
    /// For one write of the response.
    pub write_timeout: Duration,
    /// A whole exchange, from the end of the request's header to the end of the response; `None`: no limit.
    pub request_timeout: Option<Duration>,
    /// Concurrent connections of all listeners together; `None`: no limit.
    pub max_connections: Option<usize>,
    /// Concurrent connections of one client, all listeners together; `None`: no limit.
    pub per_client: Option<PerClientLimitConfig>,
    /// Bytes of request line and header fields; more is answered 431.
    pub max_header_size: usize,
    /// Bytes of the request target; more is answered 414.
    pub max_uri_length: usize,
    /// Bytes of a request body; more is answered 413. `None`: no limit.
    pub max_body_size: Option<u64>,
}

impl DownstreamConfig {
    /// The default values.
    pub const DEFAULT: Self = Self {
        header_timeout: Duration::from_secs(10),
        keepalive: Duration::from_secs(60),
        keepalive_requests: None,
        max_streams: 100,
        read_timeout: Duration::from_secs(60),
        write_timeout: Duration::from_secs(60),
        request_timeout: None,
        max_connections: None,
        per_client: None,
        max_header_size: 32 * 1024,
        max_uri_length: 8 * 1024,
        max_body_size: None,
    };
}

/// Limit on the concurrent connections of one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerClientLimitConfig {
    /// Connections; at least 1.
    pub limit: u32,
    /// Bits of an IPv4 address that identify a client; at most 32.
    pub v4_prefix: u8,
    /// Bits of an IPv6 address that identify a client; at most 128. The default is 64: one customer
    /// usually has a whole /64.
    pub v6_prefix: u8,
}

impl PerClientLimitConfig {
    /// The default prefix lengths, and no limit.
    pub const DEFAULT: Self = Self {
        limit: u32::MAX,
        v4_prefix: 32,
        v6_prefix: 64,
    };
}

/// The request headers that tell peers about the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardingConfig {
    /// `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Host`.
    pub x_forwarded: bool,
    /// `Forwarded` (RFC 7239).
    pub forwarded: bool,
    /// `Client-Cert` (RFC 9440): the client's certificate.
    pub client_cert: bool,
    /// The header with the request id; `None`: not sent.
    pub request_id: Option<HeaderName>,
}
