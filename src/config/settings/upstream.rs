//! An upstream: a named group of peers, and the policy that they share.

use http::HeaderValue;

use super::failure_policy::{OutlierDetectionConfig, RetryConfig, TimeoutsConfig};
use super::health::HealthConfig;
use super::load_balancing::{
    BoundedLoadConfig, HotKeysConfig, MovedStreamsConfig, SessionDrainConfig, SlowStartConfig,
};
use super::peer::PeerConfig;
use super::upstream_protocol::TransportConfig;
use crate::key::KeySource;
use crate::policy::flap_damping;
use crate::predict::LoadRules;
use crate::proxy_protocol::ProxyHeaderVersion;
use crate::ring::{Dialect, Member};

/// A named group of peers that share policy.
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamConfig {
    /// The key sources in order; the first one that a request has gives the key.
    pub key: Vec<KeySource>,
    /// The rule for requests that have none of the sources.
    pub missing_key: MissingKey,
    /// The ring dialect: how labels and keys are hashed.
    pub dialect: Dialect,
    /// The peers; at least one, labels unique.
    pub peers: Vec<PeerConfig>,
    /// Active health checks; `None`: off, every peer counts as up.
    pub health: Option<HealthConfig>,
    /// Ejection after failures of real requests; `None`: off.
    pub outlier_detection: Option<OutlierDetectionConfig>,
    /// Retries of failed attempts on other peers.
    pub retry: RetryConfig,
    /// Deadlines of each step of an exchange with a peer.
    pub timeouts: TimeoutsConfig,
    /// The `Host` header sent to peers.
    pub host_header: HostHeader,
    /// PROXY header sent at the start of each connection to a peer; `None`: none.
    pub proxy_protocol: Option<SendProxyConfig>,
    /// The largest share of the keys that a reload may move between peers, 0.0 ..= 1.0; a reload that
    /// would move more is refused. `None`: no limit.
    pub max_moved: Option<f64>,
    /// Bound on a peer's requests in flight, relative to its fair share; `None`: no bound.
    pub bounded_load: Option<BoundedLoadConfig>,
    /// Gradual handover of keys to a new or recovered peer; `None`: all at once.
    pub slow_start: Option<SlowStartConfig>,
    /// Keys that a draining peer keeps for a while; `None`: all move at once.
    pub drain: Option<SessionDrainConfig>,
    /// Distribution of very frequent keys over several peers; `None`: off.
    pub hot_keys: Option<HotKeysConfig>,
    /// Suppression of peers that alternate between up and down; `None`: off.
    pub flap_damping: Option<flap_damping::FlapDampingPolicy>,
    /// Closing of long streams on a peer that no longer owns their key; `None`: off.
    pub close_moved_streams: Option<MovedStreamsConfig>,
    /// Protocol and TLS of the connections to its peers.
    pub transport: TransportConfig,
    /// Whether gRPC-Web calls are translated to gRPC.
    pub grpc_web: bool,
}

impl UpstreamConfig {
    /// The peers as members of the ring.
    pub fn members(&self) -> impl Iterator<Item = Member<'_>> {
        self.peers.iter().map(PeerConfig::member)
    }

    /// The rules that send requests to a peer other than the key's owner. Without slow start: predictions
    /// assume that it has ended.
    pub fn rules(&self) -> LoadRules {
        LoadRules {
            bound: self.bounded_load.map(|load| load.factor),
            hot_keys: self.hot_keys.map(|hot| (hot.threshold, hot.spread)),
        }
    }

    /// Whether both compute the same hash for every request.
    pub fn hashes_like(&self, other: &Self) -> bool {
        self.key == other.key && self.dialect.hashes_keys_like(other.dialect)
    }
}

/// The rule for a request that has none of the upstream's key sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingKey {
    /// Sends it to the available peers in turn.
    RoundRobin,
    /// Answers 400.
    Reject,
}

/// The `Host` header sent to peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostHeader {
    /// The client's.
    Keep,
    /// The peer's address as written in the configuration.
    Peer,
    /// A fixed value.
    Set(HeaderValue),
}

/// The PROXY header sent at the start of each connection to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendProxyConfig {
    /// The version of the protocol.
    pub version: ProxyHeaderVersion,
    /// Extensions of the header; none in version 1.
    pub tlvs: Vec<TlvKind>,
}

/// An extension of a PROXY header of version 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlvKind {
    /// The server name of the client's TLS handshake (SNI).
    Authority,
    /// The protocol negotiated by ALPN.
    Alpn,
    /// TLS version and cipher, and the subject of the client's certificate.
    Tls,
    /// The connection's id from the PROXY header that was received, else the id of the request.
    UniqueId,
    /// `CRC32c` of the header.
    Checksum,
}
