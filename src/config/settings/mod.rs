//! The resolved configuration: checked, with every default filled in.
//!
//! Every value is a domain type (an address, a duration, a weight), never text that is parsed later.
//! Only `resolve` makes them. What can still fail afterwards depends on the machine: a port in use, a
//! host name that does not resolve.

mod acme;
mod credentials;
mod downstream;
mod failure_policy;
mod health;
mod listener;
mod load_balancing;
mod peer;
mod process;
mod route;
mod tls;
mod upstream;
mod upstream_protocol;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

pub use acme::{AcmeChallenge, AcmeConfig, DomainNames, ExternalAccountBinding, KeyType, Secret};
pub use credentials::Credentials;
pub use downstream::{DownstreamConfig, ForwardingConfig, PerClientLimitConfig};
pub use failure_policy::{
    OutlierDetectionConfig, RetryConfig, TimeoutsConfig, TunnelTimeoutsConfig,
};
pub use health::{HealthConfig, ProbeConfig};
pub use listener::{
    AcceptProxyConfig, ListenAddress, ListenerConfig, SocketAccess, SocketOptions, UnixAccount,
};
pub use load_balancing::{
    BoundedLoadConfig, HotKeysConfig, MovedStreamsConfig, SessionDrainConfig, SlowStartConfig,
};
pub use peer::{PeerAddress, PeerConfig};
pub use process::{AccessLogConfig, AdminConfig, ErrorLogConfig, StateFileConfig};
pub use route::RouteConfig;
pub use tls::{
    CertificateFiles, CertificateSource, ClientAuthConfig, HstsConfig, TlsConfig, TlsVersion,
};
pub use upstream::{HostHeader, MissingKey, SendProxyConfig, TlvKind, UpstreamConfig};
pub use upstream_protocol::{H2Config, PeerTlsConfig, TransportConfig, UpstreamProtocol};

/// A complete configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The listeners; at least one.
    pub listeners: Vec<ListenerConfig>,
    /// The routes; at least one.
    pub routes: Vec<RouteConfig>,
    /// The upstreams by name; at least one.
    pub upstreams: BTreeMap<String, UpstreamConfig>,
    /// Limits and deadlines of clients.
    pub downstream: DownstreamConfig,
    /// The request headers that tell peers about the client.
    pub forwarding: ForwardingConfig,
    /// Networks from which `X-Forwarded-For` is trusted; empty: none.
    pub trusted_proxies: Vec<IpNet>,
    /// The admin HTTP server; `None`: off.
    pub admin: Option<AdminConfig>,
    /// Worker threads; `None`: one per core.
    pub threads: Option<NonZeroUsize>,
    /// The access log: one line per request.
    pub access_log: AccessLogConfig,
    /// The error log, on stderr.
    pub error_log: ErrorLogConfig,
    /// The Unix socket of `clockwise status`, `drain`, …; `None`: the runtime directory's default.
    pub control: Option<PathBuf>,
    /// How long a stopping process waits for its connections before it closes them.
    pub drain_timeout: Duration,
    /// How long a new process may take to take over in an upgrade; above zero.
    pub upgrade_timeout: Duration,
    /// How often the configuration file is checked for changes, which are then loaded; `None`: reload
    /// on request only.
    pub watch: Option<Duration>,
    /// Keeps drains and health states across restarts; `None`: they are lost.
    pub state_file: Option<StateFileConfig>,
    /// Idle upstream connections kept for reuse, per worker thread.
    pub pool_size: usize,
    /// Automatic certificates; `None`: off.
    pub acme: Option<AcmeConfig>,
    /// The content of the certificate and key files when the configuration was loaded.
    pub credentials: Credentials,
}

impl Config {
    /// Whether the listener with this address accepts HTTP/2 without TLS.
    pub fn allows_h2c(&self, address: &ListenAddress) -> bool {
        let listener = self.listeners.iter().find(|one| one.address == *address);
        listener.is_some_and(|listener| listener.h2c)
    }

    /// The files that are read with the configuration file.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let tls = self.listeners.iter().filter_map(|one| one.tls.as_ref());
        let transports = self.upstreams.values().map(|upstream| &upstream.transport);
        let peers = transports.filter_map(|transport| transport.tls.as_ref());
        let acme = self.acme.iter().flat_map(AcmeConfig::files);
        tls.flat_map(TlsConfig::files)
            .chain(peers.flat_map(PeerTlsConfig::files))
            .chain(acme)
    }

    /// The names of every certificate to order, each certificate once.
    pub fn acme_certificate_names(&self) -> BTreeSet<&DomainNames> {
        let tls = self.listeners.iter().filter_map(|one| one.tls.as_ref());
        let sources = tls.flat_map(|tls| &tls.certificates);
        let names = sources.filter_map(|source| match source {
            CertificateSource::Files(_) => None,
            CertificateSource::Acme(names) => Some(names),
        });
        names.collect()
    }
}
