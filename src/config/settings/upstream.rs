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
    /// Where the key comes from: the first source that is present.
    pub key: Vec<KeySource>,
    /// What happens when no source is present.
    pub missing_key: MissingKey,
    /// How labels and keys are placed on the ring.
    pub dialect: Dialect,
    /// The servers; at least one, labels unique.
    pub peers: Vec<PeerConfig>,
    /// Active probes; `None`: off, every peer counts as up.
    pub health: Option<HealthConfig>,
    /// Ejection on failures of real traffic; `None`: off.
    pub outlier_detection: Option<OutlierDetectionConfig>,
    /// How failed attempts are repeated on other peers.
    pub retry: RetryConfig,
    /// How long each step of an exchange with a peer may take.
    pub timeouts: TimeoutsConfig,
    /// The `Host` that a peer is sent.
    pub host_header: HostHeader,
    /// What a peer is told of each connection before its first request; `None`: nothing.
    pub proxy_protocol: Option<SendProxyConfig>,
    /// The largest share of the keys that a reload may move between peers, 0.0 ..= 1.0; one that
    /// would move more is refused. `None`: no limit.
    pub max_moved: Option<f64>,
    /// How far above its fair share of the requests in flight a peer may be; `None`: as far as its
    /// keys take it.
    pub bounded_load: Option<BoundedLoadConfig>,
    /// How a peer that comes back, or is new, gets its keys; `None`: all at once.
    pub slow_start: Option<SlowStartConfig>,
    /// Which keys a draining peer keeps for a while; `None`: none.
    pub drain: Option<SessionDrainConfig>,
    /// Which keys have too many requests for one peer, and go to several; `None`: none.
    pub hot_keys: Option<HotKeysConfig>,
    /// How a peer that comes and goes is kept off the ring; `None`: it is not.
    pub flap_damping: Option<flap_damping::FlapDampingPolicy>,
    /// When long streams on a peer that no longer owns their key are closed; `None`: never.
    pub close_moved_streams: Option<MovedStreamsConfig>,
    /// How its peers are spoken to.
    pub transport: TransportConfig,
    /// Whether calls by gRPC-Web reach them as gRPC.
    pub grpc_web: bool,
}

impl UpstreamConfig {
    /// The peers as the ring takes them.
    pub fn members(&self) -> impl Iterator<Item = Member<'_>> {
        self.peers.iter().map(PeerConfig::member)
    }

    /// What keeps requests from their home. A slow start is not in it: to a prediction it is over.
    pub fn rules(&self) -> LoadRules {
        LoadRules {
            bound: self.bounded_load.map(|load| load.factor),
            hot_keys: self.hot_keys.map(|hot| (hot.threshold, hot.spread)),
        }
    }

    /// Whether a key has the same hash in both.
    pub fn hashes_like(&self, other: &Self) -> bool {
        self.key == other.key && self.dialect.hashes_keys_like(other.dialect)
    }
}

/// What happens to a request that has none of the upstream's key sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingKey {
    /// It goes to the available peers in turn.
    RoundRobin,
    /// It is answered 400.
    Reject,
}

/// The `Host` that a peer is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostHeader {
    /// The one the client sent.
    Keep,
    /// The peer's address as written in the configuration.
    Peer,
    /// This one.
    Set(HeaderValue),
}

/// What a peer is told of each connection, in a header of the PROXY protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendProxyConfig {
    /// How it is written.
    pub version: ProxyHeaderVersion,
    /// What is said besides the addresses; version 1 says nothing else.
    pub tlvs: Vec<TlvKind>,
}

/// What a peer is told of a connection besides the addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlvKind {
    /// The name that the client asked for in TLS.
    Authority,
    /// The protocol that was agreed on in TLS.
    Alpn,
    /// Version and cipher of TLS, and whom the client's certificate is for.
    Tls,
    /// What the connection is called: by who passed it on to us, else the id of the request.
    UniqueId,
    /// The header's checksum.
    Checksum,
}
