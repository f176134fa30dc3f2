//! The configuration that is being translated: one model for all three languages.
//!
//! A value that is `None` or empty was not set, and keeps Clockwise's default. Comments go above the item that
//! they belong to.

mod complete;

use std::time::Duration;

use http::HeaderName;

use super::source::SourceSpan;
use super::tls::{TlsOriginationDraft, TlsTerminationDraft};
use crate::config;
use crate::route::{HostPattern, PathPrefix};

/// A whole configuration.
#[derive(Debug, Default)]
pub(super) struct ConfigDraft {
    pub(super) comments: Vec<String>,
    pub(super) listeners: Vec<ListenerDraft>,
    pub(super) routes: Vec<RouteDraft>,
    /// `rewrite` or `off`; `None`: as Clockwise's default, `match`.
    pub(super) normalize_path: Option<&'static str>,
    pub(super) upstreams: Vec<UpstreamDraft>,
    pub(super) downstream: DownstreamDraft,
    pub(super) trusted_proxies: Vec<String>,
    /// The trusted proxies name the client in a PROXY header, not in `X-Forwarded-For`.
    pub(super) client_from_proxy_header: bool,
    pub(super) threads: Option<String>,
    pub(super) access_log: Option<String>,
    pub(super) error_level: Option<&'static str>,
    pub(super) drain_timeout: Option<Duration>,
    pub(super) pool_size: Option<u64>,
}

/// A socket that clients connect to.
#[derive(Debug)]
pub(super) struct ListenerDraft {
    pub(super) address: String,
    pub(super) backlog: Option<u64>,
    /// `None` is plain HTTP. TLS without a certificate marks a listener that could not be translated.
    pub(super) tls: Option<TlsTerminationDraft>,
    /// The HTTPS port of the redirect, and the span of its directive.
    pub(super) https_redirect: Option<(u16, SourceSpan)>,
    /// Its settings come before those of other servers on the same address.
    pub(super) is_default: bool,
    pub(super) span: SourceSpan,
    pub(super) ipv6_only: bool,
    /// Sources that must send a PROXY header.
    pub(super) accept_proxy_from: Option<Vec<String>>,
    /// Span of the directive that sets `accept_proxy_from`.
    pub(super) accept_proxy_span: SourceSpan,
    pub(super) comments: Vec<String>,
}

/// A route: the requests of a host and a path, and their upstream.
#[derive(Clone, Debug)]
pub(super) struct RouteDraft {
    pub(super) host: HostPattern,
    pub(super) path: PathPrefix,
    pub(super) upstream: String,
    pub(super) max_body_size: Option<SizeLimit>,
    /// A client certificate is required.
    pub(super) client_cert: bool,
    /// The protocols to which clients may switch; `None`: `websocket`, the default.
    pub(super) upgrade: Option<Vec<String>>,
    pub(super) comments: Vec<String>,
    pub(super) span: SourceSpan,
}

/// A limit in bytes, or no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SizeLimit {
    Bytes(u64),
    Unlimited,
}

/// A group of peers.
#[derive(Clone, Debug, Default)]
pub(super) struct UpstreamDraft {
    /// The name in the old configuration, until [`ConfigDraft::complete`] makes it a valid one.
    pub(super) name: String,
    pub(super) key: Vec<KeySourceDraft>,
    pub(super) ring: Option<RingDraft>,
    /// `1.25` is 125 %.
    pub(super) bounded_load: Option<String>,
    pub(super) slow_start: Option<Duration>,
    pub(super) peers: Vec<PeerDraft>,
    pub(super) health: HealthDraft,
    pub(super) outlier_detection: OutlierDetectionDraft,
    pub(super) retry: RetryDraft,
    pub(super) timeouts: TimeoutsDraft,
    pub(super) host_header: Option<String>,
    /// `None` is plain TCP.
    pub(super) tls: Option<TlsOriginationDraft>,
    /// `h2` or `auto` over TLS, `h2c` without TLS; `None` is HTTP/1.1.
    pub(super) protocol: Option<&'static str>,
    /// Translates gRPC-Web to gRPC; only with a `protocol`.
    pub(super) grpc_web: bool,
    /// The PROXY header that peers get.
    pub(super) send_proxy: Option<SendProxyDraft>,
    pub(super) comments: Vec<String>,
}

/// Where a key comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum KeySourceDraft {
    ClientIp,
    /// The bytes of the address instead of its text.
    ClientIpBinary,
    ClientNetwork {
        v4: u8,
        v6: u8,
    },
    Header(String),
    /// The first or the last element of a header field.
    HeaderElement(String, &'static str),
    /// All lines of a header field, with the empty ones: `joined` or `sorted`.
    HeaderLines(String, &'static str),
    Cookie(String),
    /// The first cookie, also if it is empty.
    CookieOrEmpty(String),
    Query(String),
    /// The first parameter, also if it is empty.
    QueryOrEmpty(String),
    Path,
    NormalizedPath,
    PathAndQuery,
    Host,
    /// All present values, joined; the separator unless it is the default.
    Any(Vec<Self>, Option<&'static str>),
}

/// The PROXY header that peers get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SendProxyDraft {
    /// `v1` or `v2`.
    pub(super) version: &'static str,
    /// TLV names of the YAML.
    pub(super) tlvs: Vec<&'static str>,
}

/// The placement of servers and keys in the old system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RingDraft {
    pub(super) dialect: &'static str,
    /// Values are words and numbers that need no quotes in YAML.
    pub(super) options: Vec<(&'static str, String)>,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PeerDraft {
    pub(super) address: String,
    /// Set if another peer has the same address.
    pub(super) label: Option<String>,
    /// The text that places it on the ring, unless that is the address.
    pub(super) id: Option<String>,
    /// The name in SNI and in its certificate, unless the upstream's holds.
    pub(super) server_name: Option<String>,
    pub(super) weight: u64,
    pub(super) comments: Vec<String>,
    pub(super) span: SourceSpan,
}

/// Active health checks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum HealthDraft {
    #[default]
    Unset,
    Off,
    On(ProbeDraft),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ProbeDraft {
    /// The path of an HTTP probe; `None` is a TCP probe.
    pub(super) http: Option<String>,
    pub(super) host: Option<String>,
    pub(super) expect: Vec<String>,
    pub(super) interval: Option<Duration>,
    pub(super) timeout: Option<Duration>,
    pub(super) fall: Option<u64>,
    pub(super) rise: Option<u64>,
}

/// Ejection after failures of real requests: those that nginx counts by default, which are not responses of any status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum OutlierDetectionDraft {
    #[default]
    Unset,
    Off,
    On {
        failures: u64,
        eject: Duration,
    },
}

/// Retries on other peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RetryDraft {
    /// Attempts in total; 1 means no retry.
    pub(super) attempts: Option<u64>,
    pub(super) timeout: Option<Duration>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TimeoutsDraft {
    pub(super) connect: Option<Duration>,
    pub(super) first_byte: Option<Duration>,
    pub(super) read: Option<Duration>,
    pub(super) write: Option<Duration>,
    pub(super) idle: Option<Duration>,
    pub(super) tunnel: Option<Duration>,
}

/// Limits and timeouts of clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DownstreamDraft {
    pub(super) header_timeout: Option<Duration>,
    pub(super) keepalive: Option<Duration>,
    pub(super) keepalive_requests: Option<u64>,
    pub(super) read_timeout: Option<Duration>,
    pub(super) write_timeout: Option<Duration>,
    pub(super) max_connections: Option<u64>,
    pub(super) max_header_size: Option<u64>,
    pub(super) max_uri_length: Option<u64>,
    pub(super) max_body_size: Option<SizeLimit>,
}

impl KeySourceDraft {
    /// The source without the reading of empty and repeated values that only the ring of the old system needs.
    pub(super) fn without_options(self) -> Self {
        match self {
            Self::HeaderLines(name, _) => Self::Header(name),
            Self::CookieOrEmpty(name) => Self::Cookie(name),
            Self::QueryOrEmpty(name) => Self::Query(name),
            Self::Any(sources, separator) => {
                let sources = sources.into_iter().map(Self::without_options);
                Self::Any(sources.collect(), separator)
            }
            other => other,
        }
    }

    /// Whether its names are valid.
    pub(super) fn is_valid(&self) -> bool {
        match self {
            Self::Header(name) | Self::HeaderElement(name, _) | Self::HeaderLines(name, _) => {
                HeaderName::from_bytes(name.as_bytes()).is_ok()
            }
            Self::Cookie(name) | Self::CookieOrEmpty(name) => config::is_cookie_name(name),
            Self::Query(name) | Self::QueryOrEmpty(name) => config::is_query_name(name),
            Self::Any(sources, _) => sources.iter().all(Self::is_valid),
            _ => true,
        }
    }
}

impl PeerDraft {
    pub(super) fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            label: None,
            id: None,
            server_name: None,
            weight: 1,
            comments: Vec::new(),
            span: SourceSpan::default(),
        }
    }
}

impl ListenerDraft {
    pub(super) fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            backlog: None,
            tls: None,
            https_redirect: None,
            is_default: false,
            span: SourceSpan::default(),
            ipv6_only: false,
            accept_proxy_from: None,
            accept_proxy_span: SourceSpan::default(),
            comments: Vec::new(),
        }
    }
}

impl RouteDraft {
    /// A route for every request.
    pub(super) fn catch_all(upstream: &str, span: SourceSpan) -> Self {
        Self {
            host: HostPattern::Any,
            path: PathPrefix::ROOT,
            upstream: upstream.to_owned(),
            max_body_size: None,
            client_cert: false,
            upgrade: None,
            comments: Vec::new(),
            span,
        }
    }
}
