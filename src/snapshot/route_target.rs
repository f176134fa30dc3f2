//! The target of a route: its upstream and its settings, which apply to each request of the route.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::build::Error;
use crate::config::{self, Config};
use crate::route::{RouteTable, UpgradeProtocols};
use crate::telemetry::metrics::{Metrics, RouteMetrics};
use crate::upstream::Upstream;

/// The target of a route.
#[derive(Debug)]
pub(crate) struct RouteTarget {
    /// The upstream.
    pub upstream: Arc<Upstream>,
    /// The most bytes of a request body, above which the response is 413; `None`: no limit.
    pub max_body_size: Option<u64>,
    /// Whether clients without a certificate are refused.
    pub requires_client_cert: bool,
    /// The protocols to which clients may switch.
    pub upgrades: UpgradeProtocols,
    /// The metrics of the route.
    pub metrics: RouteMetrics,
}

/// Builds the routing table.
pub(super) fn build_routes(
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
            upgrades: route.upgrades.clone(),
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
