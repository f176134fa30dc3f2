//! One immutable configuration in force. A request takes one and sees it from start to end.

mod diff;
pub mod metric_cleanup;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::client_addr::TrustedProxies;
use crate::clock;
use crate::config::{
    self, AcceptProxyConfig, Config, ForwardingConfig, ListenAddress, PeerAddress,
};
use crate::ring;
use crate::route::{RouteConflict, RouteTable};
use crate::telemetry::metrics::{Metrics, RouteMetrics};
use crate::tls::ManagedCerts;
use crate::tls::{self, SessionTickets};
use crate::upstream::{Address, DrainHandover, MAX_EXPORTED_KEYS, PersistedState, Upstream};

pub use self::diff::{ChangeKind, MaxMovedExceeded, NameChanges, SnapshotDiff, UpstreamDiff};

/// One configuration in force: routes, upstreams and what else a request needs.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts the configurations of this process, from 1.
    pub generation: u64,
    /// Which request goes where.
    pub routes: RouteTable<Arc<RouteTarget>>,
    /// The upstreams by name.
    pub upstreams: BTreeMap<String, Arc<Upstream>>,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: TrustedProxies,
    /// What the peers are told about the client.
    pub forwarding: ForwardingConfig,
    /// What the listeners' handshakes are made with, by the configured address.
    pub tls: HashMap<ListenAddress, Arc<tls::ListenerTls>>,
    /// Who says to the listeners whose connections they are given, by the configured address.
    pub proxy_protocol: HashMap<ListenAddress, Arc<AcceptProxyConfig>>,
    /// To which port of HTTPS plain listeners send their clients on, by the configured address.
    pub https_redirects: HashMap<String, u16>,
    /// The keys of the TLS sessions; the same in every configuration of the process.
    pub session_tickets: Arc<SessionTickets>,
    /// The certificates that were ordered; the same in every configuration of the process.
    pub managed_certs: Arc<ManagedCerts>,
    /// Everything the operator wrote.
    pub config: Config,
}

/// Where a route leads.
#[derive(Debug)]
pub struct RouteTarget {
    /// The upstream.
    pub upstream: Arc<Upstream>,
    /// Bytes of a request body; above it 413; `None`: no limit.
    pub max_body_size: Option<u64>,
    /// Only clients that have shown a certificate may come here.
    pub requires_client_cert: bool,
    /// Where the route is counted.
    pub metrics: RouteMetrics,
}

/// What is added to a time in which keys were active: their clock ticks a few times a second.
const ACTIVITY_TICK: Duration = Duration::from_secs(1);

/// The peers' addresses, looked up.
pub type ResolvedAddresses = HashMap<PeerAddress, SocketAddr>;

/// Why a configuration could not be put in force.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A ring could not be built.
    #[error("upstream `{upstream}`: {source}")]
    Ring {
        /// The upstream's name.
        upstream: String,
        /// What is wrong with it.
        source: ring::Error,
    },
    /// A peer's name has no address.
    #[error("upstream `{upstream}`: peer `{address}` has no address")]
    NoAddress {
        /// The upstream's name.
        upstream: String,
        /// The peer's address as written.
        address: PeerAddress,
    },
    /// A listener's TLS could not be had.
    #[error("listener `{listener}`: {source}")]
    Tls {
        /// The listener's address as configured.
        listener: ListenAddress,
        /// What is wrong.
        source: tls::Error,
    },
    /// An upstream's TLS could not be had.
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

impl Snapshot {
    /// Builds the next configuration; peers that `previous` had keep their state. Where that fails,
    /// nothing more is counted than before.
    ///
    /// # Errors
    /// [`Error`]; `config` was loaded by [`crate::config`], so only a peer without an address is
    /// to be expected.
    pub fn new(
        config: Config,
        addresses: &ResolvedAddresses,
        previous: Option<&Self>,
        metrics: &Metrics,
    ) -> Result<Self, Error> {
        let tickets = previous.map_or_else(SessionTickets::new, |previous| {
            Arc::clone(&previous.session_tickets)
        });
        let issued =
            previous.map_or_else(Arc::default, |previous| Arc::clone(&previous.managed_certs));
        let tls = build_tls(&config, &tickets, &issued)?;
        let built = build_upstreams(&config, addresses, previous, metrics).and_then(|upstreams| {
            let routes = build_routes(&config, &upstreams, metrics)?;
            Ok((upstreams, routes))
        });
        // What was built before the failure is counted already.
        let (upstreams, routes) = built.inspect_err(|_| {
            metric_cleanup::remove_stale(
                metrics,
                &config,
                previous.map(|previous| &previous.config),
            );
        })?;
        Ok(Self {
            generation: previous.map_or(0, |previous| previous.generation) + 1,
            routes,
            upstreams,
            trusted_proxies: TrustedProxies::new(config.trusted_proxies.clone()),
            forwarding: config.forwarding.clone(),
            tls,
            session_tickets: tickets,
            proxy_protocol: proxy_protocol_configs(&config),
            managed_certs: issued,
            https_redirects: https_redirects(&config),
            config,
        })
    }

    /// What a process that takes this one's place should know: the same as [`Self::memory`], and the keys
    /// that all peers served lately, at most [`MAX_REMEMBERED`] more.
    pub fn state_for_successor(&self) -> PersistedState {
        self.state_with_keys(Duration::MAX)
    }

    /// What that process should know when it is to serve, of which it knows what was so at `then`.
    pub fn state_since(&self, then: Duration) -> PersistedState {
        let since = clock::since_start().saturating_sub(then);
        self.state_with_keys(since.saturating_add(ACTIVITY_TICK))
    }

    fn state_with_keys(&self, within: Duration) -> PersistedState {
        let (mut memory, mut room) = (self.persisted_state(), MAX_EXPORTED_KEYS);
        let now = clock::since_start();
        for (name, upstream) in &self.upstreams {
            if let Some(peers) = memory.upstreams.get_mut(name) {
                upstream.export_active_keys(peers, &mut room, within, now);
            }
        }
        memory
    }

    /// What another process should know of the peers.
    pub fn persisted_state(&self) -> PersistedState {
        let now = clock::since_start();
        let upstreams = self
            .upstreams
            .iter()
            .map(|(name, upstream)| (name.clone(), upstream.export_state(now)));
        let hot = self
            .upstreams
            .iter()
            .map(|(name, upstream)| (name.clone(), upstream.export_hot_keys(now)));
        let cold = self
            .upstreams
            .iter()
            .filter_map(|(name, upstream)| Some((name.clone(), upstream.export_cold_start(now)?)));
        PersistedState {
            upstreams: upstreams.collect(),
            hot_keys: hot.filter(|(_, hot)| !hot.is_empty()).collect(),
            cold_start_ms_ago: cold.collect(),
        }
    }

    /// The looked-up addresses of the peers that are written as names.
    pub fn addresses(&self) -> ResolvedAddresses {
        let upstreams = self.upstreams.values();
        let peers =
            upstreams.flat_map(|upstream| upstream.config.peers.iter().zip(upstream.peers()));
        peers
            .filter_map(|(written, peer)| match (&written.address, &peer.address) {
                (PeerAddress::Name(..), Address::Ip(address)) => {
                    Some((written.address.clone(), *address))
                }
                _ => None,
            })
            .collect()
    }

    /// The upstreams whose peers do not have to prove who they are, though TLS is spoken.
    pub fn unverified_upstreams(&self) -> impl Iterator<Item = &str> {
        let trusting =
            |upstream: &&Arc<Upstream>| upstream.tls.as_ref().is_some_and(|tls| !tls.verify);
        self.upstreams
            .values()
            .filter(trusting)
            .map(|upstream| &*upstream.name)
    }

    /// Takes over which peers operators have taken out, and nothing else.
    pub fn restore_drains(&self, memory: &PersistedState) {
        let now = clock::since_start();
        for (name, upstream) in &self.upstreams {
            let known = memory.upstreams.get(name).into_iter().flatten();
            let drains = known.map(|(label, known)| (label.as_str(), known.draining));
            upstream.restore_drains(drains, now);
        }
    }

    /// Takes over which peers operators have taken out since this configuration was built from
    /// `previous`; [`Drains::settle`] once it is in force.
    pub fn take_drains(&self, previous: &Self) -> PendingDrains {
        let now = clock::since_start();
        let upstreams = self.upstreams.iter();
        let pairs =
            upstreams.filter_map(|(name, after)| Some((previous.upstreams.get(name)?, after)));
        PendingDrains(
            pairs
                .flat_map(|(before, after)| after.hand_over_drains(before, now))
                .collect(),
        )
    }

    /// Takes over what another process has learned since it told of `before`.
    pub fn apply_delta(&self, before: &PersistedState, memory: &PersistedState) {
        let (now, none) = (clock::since_start(), BTreeMap::new());
        for (name, upstream) in &self.upstreams {
            if let Some(known) = memory.upstreams.get(name) {
                upstream.restore_cold_start(memory.cold_start_ms_ago.get(name).copied(), now);
                let before = before.upstreams.get(name).unwrap_or(&none);
                upstream.apply_delta(before, known, now);
                let hot = memory.hot_keys.get(name).map_or(&[][..], Vec::as_slice);
                upstream.restore_hot_keys(hot, now);
            }
        }
    }

    /// It is in force, in the place of `previous`: brings to an end what that had begun and this one does not have.
    pub fn activate(&self, previous: &Self) {
        let now = clock::since_start();
        for (name, upstream) in &self.upstreams {
            upstream.reconcile(now);
            if let Some(before) = previous.upstreams.get(name) {
                upstream.take_over_from(before);
            }
        }
    }

    /// Takes over what another process knew of the peers.
    pub fn restore(&self, memory: &PersistedState) {
        let now = clock::since_start();
        for (name, upstream) in &self.upstreams {
            if let Some(known) = memory.upstreams.get(name) {
                // First: what is new begins slowly by that.
                upstream.restore_cold_start(memory.cold_start_ms_ago.get(name).copied(), now);
                upstream.restore_state(known, now);
            }
            if let Some(hot) = memory.hot_keys.get(name) {
                upstream.restore_hot_keys(hot, now);
            }
        }
    }
}

/// The drains of peers that are judged anew in another configuration: orders about one that is about
/// to be replaced count for the one that replaces it.
#[derive(Debug)]
pub struct PendingDrains(Vec<DrainHandover>);

impl PendingDrains {
    /// Takes over the orders that came while the one configuration replaced the other.
    pub fn apply(self) {
        let now = clock::since_start();
        self.0.into_iter().for_each(|drain| drain.finish(now));
    }
}

fn proxy_protocol_configs(config: &Config) -> HashMap<ListenAddress, Arc<AcceptProxyConfig>> {
    let introduced = |listener: &config::ListenerConfig| {
        let introductions = listener.proxy_protocol.clone()?;
        Some((listener.address.clone(), Arc::new(introductions)))
    };
    config.listeners.iter().filter_map(introduced).collect()
}

fn https_redirects(config: &Config) -> HashMap<String, u16> {
    let listeners = config.listeners.iter();
    listeners
        .filter_map(|listener| Some((listener.address.to_string(), listener.https_redirect?)))
        .collect()
}

fn build_tls(
    config: &Config,
    tickets: &Arc<SessionTickets>,
    issued: &Arc<ManagedCerts>,
) -> Result<HashMap<ListenAddress, Arc<tls::ListenerTls>>, Error> {
    let build = |listener: &config::ListenerConfig| {
        let tls = listener.tls.as_ref()?;
        let server = tls::ListenerTls::new(tls, &config.credentials, tickets, issued);
        Some(match server {
            Ok(server) => Ok((listener.address.clone(), Arc::new(server))),
            Err(source) => Err(Error::Tls {
                listener: listener.address.clone(),
                source,
            }),
        })
    };
    config.listeners.iter().filter_map(build).collect()
}

fn build_upstreams(
    config: &Config,
    addresses: &ResolvedAddresses,
    previous: Option<&Snapshot>,
    metrics: &Metrics,
) -> Result<BTreeMap<String, Arc<Upstream>>, Error> {
    let build = |(name, upstream): (&String, &config::UpstreamConfig)| {
        let resolved = peer_addresses(name, upstream, addresses)?;
        let tls = tls::UpstreamTls::new(&upstream.transport, &config.credentials);
        let tls = tls.map_err(|source| Error::PeerTls {
            upstream: name.clone(),
            source,
        })?;
        let previous = previous.and_then(|previous| previous.upstreams.get(name));
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

fn peer_addresses(
    name: &str,
    upstream: &config::UpstreamConfig,
    addresses: &ResolvedAddresses,
) -> Result<Vec<Address>, Error> {
    let address = |peer: &config::PeerConfig| match &peer.address {
        PeerAddress::Ip(address) => Ok(Address::Ip(*address)),
        PeerAddress::Unix(path) => Ok(Address::Unix(path.as_path().into())),
        named @ PeerAddress::Name(..) => addresses
            .get(named)
            .map(|address| Address::Ip(*address))
            .ok_or_else(|| Error::NoAddress {
                upstream: name.to_owned(),
                address: named.clone(),
            }),
    };
    upstream.peers.iter().map(address).collect()
}

fn build_routes(
    config: &Config,
    upstreams: &BTreeMap<String, Arc<Upstream>>,
    metrics: &Metrics,
) -> Result<RouteTable<Arc<RouteTarget>>, Error> {
    let target = |route: &config::RouteConfig| {
        let upstream = upstreams
            .get(&route.upstream)
            .ok_or_else(|| Error::UnknownUpstream(route.upstream.clone()))?;
        let target = RouteTarget {
            upstream: Arc::clone(upstream),
            max_body_size: route
                .max_body_size
                .unwrap_or(config.downstream.max_body_size),
            requires_client_cert: route.client_cert,
            metrics: metrics.route(&route.matches.to_string()),
        };
        Ok((route.matches.clone(), Arc::new(target)))
    };
    let routes: Vec<_> = config
        .routes
        .iter()
        .map(target)
        .collect::<Result<_, Error>>()?;
    RouteTable::new(routes).map_err(Error::Routes)
}

#[cfg(test)]
mod tests;
