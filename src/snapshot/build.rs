//! Builds the parts of a snapshot from a configuration.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use crate::clock;
use crate::config::{self, AcceptProxyConfig, Config, ListenAddress, PeerAddress, StartMode};
use crate::ring;
use crate::route::RouteConflict;
use crate::telemetry::metrics::Metrics;
use crate::tls::{self, ManagedCerts, SessionTickets};
use crate::upstream::{Address, Upstream};

/// The resolved addresses of peers.
pub(crate) type ResolvedAddresses = HashMap<PeerAddress, SocketAddr>;

/// Why a configuration could not be put in force.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A ring could not be built.
    #[error("upstream `{upstream}`: {source}")]
    Ring {
        /// The upstream's name.
        upstream: String,
        /// What is wrong with it.
        source: ring::Error,
    },
    /// The name of a peer was not resolved, with `start: strict`.
    #[error("upstream `{upstream}`: peer `{address}` has no address")]
    NoAddress {
        /// The upstream's name.
        upstream: String,
        /// The peer's address as written.
        address: PeerAddress,
    },
    /// TLS of a listener could not be set up.
    #[error("listener `{listener}`: {source}")]
    Tls {
        /// The listener's address as configured.
        listener: ListenAddress,
        /// What is wrong.
        source: tls::Error,
    },
    /// TLS of an upstream could not be set up.
    #[error("upstream `{upstream}`: {source}")]
    PeerTls {
        /// The upstream's name.
        upstream: String,
        /// What is wrong.
        source: tls::Error,
    },
    /// Two routes match the same requests.
    #[error("two routes match the same requests: {0}")]
    Routes(RouteConflict),
    /// A route names an upstream that does not exist.
    #[error("a route names upstream `{0}`, which does not exist")]
    UnknownUpstream(String),
}

pub(super) fn proxy_protocol(config: &Config) -> HashMap<ListenAddress, Arc<AcceptProxyConfig>> {
    let accepting = |listener: &config::ListenerConfig| {
        let accept = listener.proxy_protocol.clone()?;
        Some((listener.address.clone(), Arc::new(accept)))
    };
    config.listeners.iter().filter_map(accepting).collect()
}

pub(super) fn https_redirects(config: &Config) -> HashMap<String, u16> {
    let listeners = config.listeners.iter();
    listeners
        .filter_map(|listener| Some((listener.address.to_string(), listener.https_redirect?)))
        .collect()
}

pub(super) fn tls(
    config: &Config,
    tickets: &Arc<SessionTickets>,
    managed_certs: &Arc<ManagedCerts>,
) -> Result<HashMap<ListenAddress, Arc<tls::ListenerTls>>, Error> {
    let build = |listener: &config::ListenerConfig| {
        let tls = listener.tls.as_ref()?;
        let built = tls::ListenerTls::new(tls, &config.credentials, tickets, managed_certs);
        Some(match built {
            Ok(listener_tls) => Ok((listener.address.clone(), Arc::new(listener_tls))),
            Err(source) => Err(Error::Tls {
                listener: listener.address.clone(),
                source,
            }),
        })
    };
    config.listeners.iter().filter_map(build).collect()
}

pub(super) fn upstreams(
    config: &Config,
    addresses: &ResolvedAddresses,
    previous: Option<&BTreeMap<String, Arc<Upstream>>>,
    metrics: &Metrics,
) -> Result<BTreeMap<String, Arc<Upstream>>, Error> {
    let build = |(name, upstream): (&String, &config::UpstreamConfig)| {
        let resolved = peer_addresses((name, upstream), addresses, config.start)?;
        let tls = tls::UpstreamTls::new(&upstream.transport, &config.credentials);
        let tls = tls.map_err(|source| Error::PeerTls {
            upstream: name.clone(),
            source,
        })?;
        let previous = previous.and_then(|previous| previous.get(name));
        // An equal one is kept with its ring: a change of one upstream must not cost what all cost.
        if let Some(equal) = previous.filter(|one| one.is_equal(upstream, &resolved, tls.as_ref()))
        {
            return Ok((name.clone(), Arc::clone(equal)));
        }
        Upstream::new(
            name,
            upstream.clone(),
            (&resolved, tls),
            previous.map(Arc::as_ref),
            metrics,
            clock::since_start(),
        )
        .map(|built| (name.clone(), Arc::new(built)))
        .map_err(|source| Error::Ring {
            upstream: name.clone(),
            source,
        })
    };
    config.upstreams.iter().map(build).collect()
}

/// The addresses of an upstream's peers, in the order of the configuration.
fn peer_addresses(
    (name, upstream): (&str, &config::UpstreamConfig),
    addresses: &ResolvedAddresses,
    start: StartMode,
) -> Result<Vec<Address>, Error> {
    let address = |peer: &config::PeerConfig| match &peer.address {
        PeerAddress::Ip(address) => Ok(Address::Ip(*address)),
        PeerAddress::Unix(path) => Ok(Address::Unix(path.as_path().into())),
        PeerAddress::Name(..) if upstream.is_unresolved_by_source(peer) => Ok(Address::Unresolved),
        named @ PeerAddress::Name(..) => match (addresses.get(named), start) {
            (Some(address), _) => Ok(Address::Ip(*address)),
            (None, StartMode::Tolerant) => Ok(Address::Unresolved),
            (None, StartMode::Strict) => Err(Error::NoAddress {
                upstream: name.to_owned(),
                address: named.clone(),
            }),
        },
    };
    upstream.peers.iter().map(address).collect()
}
