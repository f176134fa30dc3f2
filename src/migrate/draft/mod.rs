//! What the old system does, in our words: the one shape that all three languages become.
//!
//! A value that is `None` or empty was not said, and is left to our default. Comments stand above
//! what they belong to.

mod complete;

use std::time::Duration;

use http::HeaderName;

use super::source::SourceSpan;
use super::tls::{TlsOriginationDraft, TlsTerminationDraft};
use crate::config;
use crate::route::{HostPattern, PathPrefix};

/// One whole configuration.
#[derive(Debug, Default)]
pub(super) struct ConfigDraft {
    pub(super) comments: Vec<String>,
    pub(super) listeners: Vec<ListenerDraft>,
    pub(super) routes: Vec<RouteDraft>,
    pub(super) upstreams: Vec<UpstreamDraft>,
    pub(super) downstream: DownstreamDraft,
    pub(super) trusted_proxies: Vec<String>,
    /// These name the client in a header of the PROXY protocol, not in `X-Forwarded-For`.
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
    /// `None`: plain HTTP. Without a certificate it is one that could not be translated.
    pub(super) tls: Option<TlsTerminationDraft>,
    /// The port of HTTPS that all requests are sent to, and where that is said.
    pub(super) https_redirect: Option<(u16, SourceSpan)>,
    /// What it says comes before what others say of the same address.
    pub(super) is_default: bool,
    /// Where it is said.
    pub(super) span: SourceSpan,
    pub(super) ipv6_only: bool,
    /// Whose header of the PROXY protocol is believed.
    pub(super) accept_proxy_from: Option<Vec<String>>,
    /// Where it is said that somebody's is.
    pub(super) accept_proxy_span: SourceSpan,
    pub(super) comments: Vec<String>,
}

/// Which requests go to which upstream.
#[derive(Clone, Debug)]
pub(super) struct RouteDraft {
    pub(super) host: HostPattern,
    pub(super) path: PathPrefix,
    pub(super) upstream: String,
    pub(super) max_body_size: Option<SizeLimit>,
    /// Only clients get through that have shown a certificate.
    pub(super) client_cert: bool,
    pub(super) comments: Vec<String>,
    pub(super) span: SourceSpan,
}

/// A number of bytes, or none that is too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SizeLimit {
    Bytes(u64),
    Unlimited,
}

/// A group of peers.
#[derive(Clone, Debug, Default)]
pub(super) struct UpstreamDraft {
    /// As in the old configuration, until [`Setup::complete`] makes it one of ours.
    pub(super) name: String,
    pub(super) key: Vec<KeySourceDraft>,
    pub(super) ring: Option<RingDraft>,
    /// `1.25` for 125 %.
    pub(super) bounded_load: Option<String>,
    pub(super) slow_start: Option<Duration>,
    pub(super) peers: Vec<PeerDraft>,
    pub(super) health: HealthDraft,
    pub(super) outlier_detection: OutlierDetectionDraft,
    pub(super) retry: RetryDraft,
    pub(super) timeouts: TimeoutsDraft,
    pub(super) host_header: Option<String>,
    /// `None`: plain.
    pub(super) tls: Option<TlsOriginationDraft>,
    /// `h2`, or `auto` where the peer chooses, within TLS; `h2c` without.
    pub(super) protocol: Option<&'static str>,
    /// Calls by gRPC-Web reach the peers as gRPC; only with a protocol.
    pub(super) grpc_web: bool,
    /// What the peers are told in a header of the PROXY protocol.
    pub(super) send_proxy: Option<SendProxyDraft>,
    pub(super) comments: Vec<String>,
}

/// Where a key comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum KeySourceDraft {
    ClientIp,
    /// The octets of the address instead of its text.
    ClientIpBinary,
    ClientNetwork {
        v4: u8,
        v6: u8,
    },
    Header(String),
    /// The first or the last element of a header field.
    HeaderElement(String, &'static str),
    Cookie(String),
    Query(String),
    Path,
    PathAndQuery,
    Host,
    /// Those that are present, one after the other; the separator if it is not ours.
    Any(Vec<Self>, Option<&'static str>),
}

/// What the peers are told in a header of the PROXY protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SendProxyDraft {
    /// `v1` or `v2`.
    pub(super) version: &'static str,
    /// Words of ours.
    pub(super) tlvs: Vec<&'static str>,
}

/// How the old system places servers and keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RingDraft {
    pub(super) dialect: &'static str,
    /// Values are words and numbers of ours, which need no quotes.
    pub(super) options: Vec<(&'static str, String)>,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PeerDraft {
    pub(super) address: String,
    /// Where another peer has the same address.
    pub(super) label: Option<String>,
    /// What the old system places it by, where that is not the address.
    pub(super) id: Option<String>,
    /// What it is asked for and must prove in TLS, where that is not what the upstream says.
    pub(super) server_name: Option<String>,
    pub(super) weight: u64,
    pub(super) comments: Vec<String>,
    pub(super) span: SourceSpan,
}

/// Probes of the peers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum HealthDraft {
    #[default]
    Unset,
    Off,
    On(ProbeDraft),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ProbeDraft {
    /// The path of an HTTP probe.
    pub(super) http: Option<String>,
    pub(super) host: Option<String>,
    pub(super) expect: Vec<String>,
    pub(super) interval: Option<Duration>,
    pub(super) timeout: Option<Duration>,
    pub(super) fall: Option<u64>,
    pub(super) rise: Option<u64>,
}

/// Ejection on failures of real requests.
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

/// Attempts on other peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RetryDraft {
    /// In total; 1 is none.
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

/// What a client may do.
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
    /// Whether a key can come from there.
    pub(super) fn is_valid(&self) -> bool {
        match self {
            Self::Header(name) | Self::HeaderElement(name, _) => {
                HeaderName::from_bytes(name.as_bytes()).is_ok()
            }
            Self::Cookie(name) => config::is_cookie_name(name),
            Self::Query(name) => config::is_query_name(name),
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
    /// Every request to `upstream`.
    pub(super) fn catch_all(upstream: &str, place: SourceSpan) -> Self {
        Self {
            host: HostPattern::Any,
            path: PathPrefix::ROOT,
            upstream: upstream.to_owned(),
            max_body_size: None,
            client_cert: false,
            comments: Vec::new(),
            span: place,
        }
    }
}
