//! A configuration in force: immutable, replaced as a whole. Each request uses one from start to end.

mod build;
mod diff;
pub(crate) mod metric_cleanup;
mod route_target;
mod runtime_peers;
mod state_transfer;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::client_addr::TrustedProxies;
use crate::clock;
use crate::config::{AcceptProxyConfig, Config, ForwardingConfig, ListenAddress, PeerAddress};
use crate::route::RouteTable;
use crate::telemetry::metrics::Metrics;
use crate::tls::{ListenerTls, ManagedCerts, SessionTickets};
use crate::upstream::{Address, Upstream};

pub(crate) use self::build::{Error, ResolvedAddresses};
pub(crate) use self::route_target::RouteTarget;

pub(crate) use self::diff::{MaxMovedExceeded, SnapshotDiff, moved_by_peers, movement_by_peers};
pub(crate) use self::runtime_peers::restore_runtime_peers;

/// One configuration in force: routes, upstreams and what else a request needs.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// The number of the configuration in this process, from 1.
    pub generation: u64,
    /// The routing table.
    pub routes: RouteTable<Arc<RouteTarget>>,
    /// The upstreams by name.
    pub upstreams: BTreeMap<String, Arc<Upstream>>,
    /// The proxies with a trusted `X-Forwarded-For`.
    pub trusted_proxies: TrustedProxies,
    /// The headers that tell peers about the client.
    pub forwarding: ForwardingConfig,
    /// TLS of the listeners, by configured address.
    pub tls: HashMap<ListenAddress, Arc<ListenerTls>>,
    /// The PROXY protocol of the listeners, by configured address.
    pub proxy_protocol: HashMap<ListenAddress, Arc<AcceptProxyConfig>>,
    /// The HTTPS port that a plain listener redirects to, by configured address.
    pub https_redirects: HashMap<String, u16>,
    /// The TLS session tickets; shared by all configurations of the process.
    pub session_tickets: Arc<SessionTickets>,
    /// The ACME certificates; shared by all configurations of the process.
    pub managed_certs: Arc<ManagedCerts>,
    /// The configuration as resolved.
    pub config: Config,
}

impl Snapshot {
    /// Builds the next configuration; peers of `previous` keep their state. A failure leaves no new metric
    /// series.
    ///
    /// # Errors
    /// [`Error`]; for a `config` that [`crate::config`] has loaded, only a peer without an address is
    /// expected, with `start: strict`.
    pub(crate) fn new(
        config: Config,
        addresses: &ResolvedAddresses,
        previous: Option<&Self>,
        metrics: &Metrics,
    ) -> Result<Self, Error> {
        let tickets = previous.map_or_else(SessionTickets::new, |previous| {
            Arc::clone(&previous.session_tickets)
        });
        let managed_certs =
            previous.map_or_else(Arc::default, |previous| Arc::clone(&previous.managed_certs));
        let tls = build::tls(&config, &tickets, &managed_certs)?;
        let previous_upstreams = previous.map(|previous| &previous.upstreams);
        let built = build::upstreams(&config, addresses, previous_upstreams, metrics).and_then(
            |upstreams| {
                let routes = route_target::build_routes(&config, &upstreams, metrics)?;
                Ok((upstreams, routes))
            },
        );
        // Building upstreams and routes creates their metric series: after a failure they are removed.
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
            proxy_protocol: build::proxy_protocol(&config),
            managed_certs,
            https_redirects: build::https_redirects(&config),
            config,
        })
    }

    /// The resolved addresses of the peers that are configured by name.
    pub(crate) fn addresses(&self) -> ResolvedAddresses {
        let upstreams = self.upstreams.values();
        let peers =
            upstreams.flat_map(|upstream| upstream.config.peers.iter().zip(upstream.peers()));
        peers
            .filter_map(|(config, peer)| match (&config.address, &peer.address) {
                (PeerAddress::Name(..), Address::Ip(address)) => {
                    Some((config.address.clone(), *address))
                }
                _ => None,
            })
            .collect()
    }

    /// The upstreams with TLS that do not verify the certificates of their peers.
    pub(crate) fn unverified_upstreams(&self) -> impl Iterator<Item = &str> {
        let is_unverified =
            |upstream: &&Arc<Upstream>| upstream.tls.as_ref().is_some_and(|tls| !tls.verify);
        self.upstreams
            .values()
            .filter(is_unverified)
            .map(|upstream| &*upstream.name)
    }

    /// Called when this configuration has replaced `previous`: ends what that has begun and this one does not
    /// have.
    pub(crate) fn activate(&self, previous: &Self) {
        let now = clock::since_start();
        for (name, upstream) in &self.upstreams {
            upstream.reconcile(now);
            if let Some(before) = previous.upstreams.get(name) {
                upstream.take_over_from(before);
            }
        }
    }
}

#[cfg(test)]
mod tests;
