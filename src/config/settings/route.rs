//! A route: which requests go to which upstream.

use crate::route::RouteMatch;

/// Sends the requests that match to an upstream.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteConfig {
    /// Host, path and methods.
    pub matches: RouteMatch,
    /// The name of an upstream in the same configuration.
    pub upstream: String,
    /// Overrides [`DownstreamConfig::max_body_size`](super::DownstreamConfig::max_body_size); outer `None`:
    /// not set, inner `None`: no limit.
    pub max_body_size: Option<Option<u64>>,
    /// Whether a request needs a verified client certificate, on every listener.
    pub client_cert: bool,
}
