//! Limits and deadlines of clients, and the headers that forward their address.

use std::time::Duration;

use http::HeaderName;

/// What a client may do, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DownstreamConfig {
    /// From a request's first byte (or the accept) to the end of its header.
    pub header_timeout: Duration,
    /// How long a connection may be idle between two requests.
    pub keepalive: Duration,
    /// Requests on one connection; `None`: no limit.
    pub keepalive_requests: Option<u32>,
    /// Requests at once on one connection of HTTP/2.
    pub max_streams: u32,
    /// Between two reads of a request body.
    pub read_timeout: Duration,
    /// For one write of the response.
    pub write_timeout: Duration,
    /// A whole request, from its header's end to the response's end; `None`: no limit.
    pub request_timeout: Option<Duration>,
    /// Connections at once, all listeners together; `None`: no limit.
    pub max_connections: Option<usize>,
    /// Connections at once of one client, all listeners together; `None`: no limit.
    pub per_client: Option<PerClientLimitConfig>,
    /// Bytes of request line and header fields; above it 431.
    pub max_header_size: usize,
    /// Bytes of the request target; above it 414.
    pub max_uri_length: usize,
    /// Bytes of a request body; above it 413; `None`: no limit.
    pub max_body_size: Option<u64>,
}

impl DownstreamConfig {
    /// What holds where the operator wrote nothing.
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

/// How many connections one client may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerClientLimitConfig {
    /// At once; at least 1.
    pub limit: u32,
    /// Bits of an IPv4 address that tell one client from another; at most 32.
    pub v4_prefix: u8,
    /// Bits of an IPv6 address that do; at most 128. Who has one such address has a network of 64 bits.
    pub v6_prefix: u8,
}

impl PerClientLimitConfig {
    /// What holds where only a limit is written.
    pub const DEFAULT: Self = Self {
        limit: u32::MAX,
        v4_prefix: 32,
        v6_prefix: 64,
    };
}

/// What is told to the peers about the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardingConfig {
    /// `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Host`.
    pub x_forwarded: bool,
    /// `Forwarded` (RFC 7239).
    pub forwarded: bool,
    /// `Client-Cert` (RFC 9440): the certificate that the client showed.
    pub client_cert: bool,
    /// The header that carries the request id; `None`: none is sent.
    pub request_id: Option<HeaderName>,
}
