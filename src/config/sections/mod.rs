//! The sections of a configuration, a file each or for a few small ones: types, defaults, keys, and the function that
//! reads them. [`config`](super) exports what is `pub(crate)` here.
//!
//! The types hold domain values (an address, a duration, a weight), never text that is parsed later. What can still fail
//! depends on the machine: a port in use, a host name without an address. The readers take their keys through
//! [`Fields`], which reports an invalid value and continues with the default. Only the [`CredentialLoader`] does I/O.

mod acme;
mod cookie;
mod credentials;
mod cross_checks;
mod domain_names;
mod downstream;
mod empty_value;
mod etcd;
mod file_path;
mod forwarding;
mod health;
mod host_header;
mod host_places;
mod key;
mod kubernetes;
mod listeners;
mod load_balancing;
mod networks;
mod normalize_path;
mod outlier_detection;
mod peer_address;
mod peer_sources;
mod peers;
mod process;
mod proxy_protocol;
mod resolver;
mod retry;
mod ring;
mod routes;
mod server_name;
mod socket;
mod timeouts;
mod tls;
mod upstream_protocol;
mod upstreams;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use super::credential_loader::CredentialLoader;
use super::fields::{Fields, items, parse_or_report};
use super::raw::{YamlNode, YamlValue};
use super::report::Problems;
use super::schema::SectionSchema;
use super::values::DURATION_BOUNDS;
use crate::config::span::Span;
use crate::ring::{Dialect, Weight};

pub(crate) use acme::{AcmeChallenge, AcmeConfig, KeyType};
pub(crate) use cookie::is_name as is_cookie_name;
pub(crate) use credentials::{CertificateFiles, CertificateSource, Credentials, Secret};
pub(crate) use domain_names::DomainNames;
pub(crate) use downstream::{DownstreamConfig, PerClientLimitConfig};
pub(crate) use etcd::{EtcdAccess, EtcdConfig};
pub(crate) use file_path::is_file_path;
pub(crate) use forwarding::ForwardingConfig;
pub(crate) use health::{HealthConfig, ProbeConfig, is_probe_path};
pub(crate) use host_header::{HostHeader, is_host};
pub(crate) use host_places::HostPlaces;
pub(crate) use key::is_query_name;
pub(crate) use kubernetes::{ApiServer, KubernetesConfig, KubernetesService, ServicePort};
pub(crate) use listeners::ListenerConfig;
pub(crate) use load_balancing::{
    BoundedLoadConfig, HotKeysConfig, MovedStreamsConfig, SessionDrainConfig, SlowStartConfig,
};
pub(crate) use normalize_path::NormalizePath;
pub(crate) use peer_address::{PeerAddress, is_address, parse_address as parse_peer_address};
pub(crate) use peer_sources::{DiscoveryConfig, DnsQuestion, PeerSource, SrvWeights};
pub(crate) use peers::PeerConfig;
pub(crate) use process::{
    AccessLogConfig, AdminConfig, ErrorLogConfig, StartMode, StateFileConfig,
};
pub(crate) use proxy_protocol::{AcceptProxyConfig, SendProxyConfig, TlvKind};
pub(crate) use resolver::ResolverConfig;
pub(crate) use retry::RetryConfig;
pub(crate) use routes::RouteConfig;
pub(crate) use socket::{ListenAddress, SocketAccess, SocketOptions, UnixAccount};
pub(crate) use timeouts::TimeoutsConfig;
pub(crate) use tls::{ClientAuthConfig, HstsConfig, MAX_HSTS_AGE, TlsConfig, TlsVersion};
pub(crate) use upstream_protocol::{
    NoServerName, PeerTlsConfig, TransportConfig, UpstreamProtocol,
};
pub(crate) use upstreams::{MissingKey, UpstreamConfig};

/// A complete configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The listeners; at least one.
    pub listeners: Vec<ListenerConfig>,
    /// The routes; at least one.
    pub routes: Vec<RouteConfig>,
    /// What happens to a path that differs from its normal form.
    pub normalize_path: NormalizePath,
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
    /// Whether a peer's name that cannot be resolved stops a start or a reload.
    pub start: StartMode,
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
    /// The name servers for sources of peers.
    pub resolver: ResolverConfig,
    /// The API server for sources of peers.
    pub kubernetes: KubernetesConfig,
    /// The cluster for sources of peers in etcd; `None`: none.
    pub etcd: Option<EtcdConfig>,
    /// Idle upstream connections kept for reuse, per worker thread.
    pub pool_size: usize,
    /// Automatic certificates; `None`: off.
    pub acme: Option<AcmeConfig>,
    /// The content of the certificate and key files when the configuration was loaded.
    pub credentials: Credentials,
}

impl Config {
    /// The access to etcd; `None`: `etcd` is not configured.
    pub(crate) fn etcd_access(&self) -> Option<EtcdAccess> {
        let etcd = self.etcd.as_ref()?;
        Some(etcd.access(&self.credentials))
    }

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
        let etcd = self.etcd.iter().flat_map(EtcdConfig::files);
        tls.flat_map(TlsConfig::files)
            .chain(peers.flat_map(PeerTlsConfig::files))
            .chain(acme)
            .chain(etcd)
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

const UPGRADE_TIMEOUT: Duration = Duration::from_secs(60);

/// The file of a source of peers.
pub(super) static PEER_LIST: SectionSchema = SectionSchema {
    title: "a list of peers",
    path: "",
    example: "peers: [10.0.0.1:8080]",
    keys: &["peers"],
    nested: &[&peers::PEER],
    ..SectionSchema::EMPTY
};

/// The top level of the file.
pub(super) static ROOT: SectionSchema = SectionSchema {
    title: "the configuration",
    path: "",
    example: "drain_timeout: 80s",
    keys: &[
        "listeners",
        "routes",
        "normalize_path",
        "upstreams",
        "downstream",
        "forwarding",
        "trusted_proxies",
        "admin",
        "threads",
        "start",
        "access_log",
        "error_log",
        "control",
        "drain_timeout",
        "upgrade_timeout",
        "watch",
        "state_file",
        "resolver",
        "kubernetes",
        "etcd",
        "pool_size",
        "acme",
    ],
    nested: &[
        &listeners::LISTENER,
        &routes::ROUTE,
        &upstreams::UPSTREAM,
        &downstream::DOWNSTREAM,
        &forwarding::FORWARDING,
        &process::ADMIN,
        &process::ACCESS_LOG,
        &process::ERROR_LOG,
        &process::STATE_FILE,
        &resolver::RESOLVER,
        &kubernetes::KUBERNETES,
        &etcd::ETCD,
        &acme::ACME,
    ],
    ..SectionSchema::EMPTY
};

/// Resolves `root`. If an error was reported, the result must not be used: resolving continues after an error
/// only to find more problems.
pub(super) fn read_config(
    root: &YamlNode,
    mut loader: CredentialLoader,
    problems: &Problems,
) -> Option<(Config, HostPlaces)> {
    let fields = Fields::open(root, &ROOT, problems)?;
    let listeners = listeners::read(&fields, &mut loader);
    let upstreams = upstreams::read(&fields, &mut loader);
    let normalize_path = normalize_path::read(&fields);
    let routes = routes::read(&fields, normalize_path, &upstreams);
    let admin = process::admin(&fields);
    cross_checks::check_across_sections(&fields, &listeners, &routes, &upstreams, admin.as_ref());
    let acme = acme::read(&fields, &listeners, &mut loader);
    let etcd = etcd::read(&fields, &mut loader);
    etcd::check_sources(&fields, &upstreams);
    let places = host_places::read(&fields, &listeners, &upstreams);
    let config = Config {
        listeners: without_spans(listeners),
        routes: without_spans(routes),
        normalize_path,
        upstreams: upstreams.resolved,
        downstream: downstream::downstream(&fields),
        forwarding: forwarding::read(&fields),
        trusted_proxies: downstream::trusted_proxies(&fields),
        admin,
        threads: process::threads(&fields),
        start: process::start(&fields),
        access_log: process::access_log(&fields),
        error_log: process::error_log(&fields),
        control: process::control(&fields),
        drain_timeout: process::drain_timeout(&fields),
        upgrade_timeout: fields.duration("upgrade_timeout", UPGRADE_TIMEOUT, DURATION_BOUNDS),
        watch: process::watch(&fields),
        state_file: process::state_file(&fields),
        resolver: resolver::read(&fields),
        kubernetes: kubernetes::read(&fields),
        etcd,
        pool_size: fields.number("pool_size", 512, 1..=65_536),
        acme,
        credentials: loader.credentials,
    };
    Some((config, places))
}

/// The peers of a list for an upstream with this dialect and TLS. If an error was reported, the result must not be used.
pub(super) fn read_peer_list(
    root: &YamlNode,
    dialect: Dialect,
    tls: Option<&PeerTlsConfig>,
    problems: &Problems,
) -> Vec<PeerConfig> {
    const HELP: &str = "list the servers, as in `- 10.0.0.1:8080`";
    let fields = if root.is_map() {
        Fields::open(root, &PEER_LIST, problems)
    } else {
        None
    };
    let list = match &fields {
        Some(fields) => fields.require("peers", HELP),
        None => Some(root),
    };
    let items = match list.map(|list| &list.value) {
        Some(YamlValue::List(items)) => items.as_slice(),
        _ => list.map_or(&[][..], |list| items(list, HELP, problems)),
    };
    let mut peers = peers::read_found(items, dialect, problems);
    upstream_protocol::assign_server_names(&mut peers, tls, problems);
    peers.into_iter().map(|spanned| spanned.peer).collect()
}

/// The weight of a peer of an upstream with this dialect.
pub(super) fn read_peer_weight(
    node: &YamlNode,
    dialect: Dialect,
    problems: &Problems,
) -> Option<Weight> {
    parse_or_report(node, problems, |node| peers::weight(node, dialect))
}

/// A peer that a source has as one item, for an upstream with this dialect and TLS. `name` labels it unless the item has a
/// label. If an error was reported, the result must not be used.
pub(super) fn read_single_peer(
    item: &YamlNode,
    name: &str,
    dialect: Dialect,
    tls: Option<&PeerTlsConfig>,
    problems: &Problems,
) -> Option<PeerConfig> {
    let mut peers: Vec<_> = peers::read_single(item, name, dialect, problems)
        .into_iter()
        .collect();
    upstream_protocol::assign_server_names(&mut peers, tls, problems);
    peers.pop().map(|spanned| spanned.peer)
}

fn without_spans<T>(spanned: Vec<(T, Span)>) -> Vec<T> {
    spanned.into_iter().map(|(value, _)| value).collect()
}
