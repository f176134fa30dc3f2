//! A route: which requests go to which upstream.

use crate::route::RouteMatch;

/// What a request must look like, and what is then done with it.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteConfig {
    /// Host, path and methods.
    pub matches: RouteMatch,
    /// The name of an upstream that exists.
    pub upstream: String,
    /// Overrides [`Downstream::max_body_size`]; outer `None`: not set, inner `None`: no limit.
    pub max_body_size: Option<Option<u64>>,
    /// Only clients that have shown a certificate may take it, on whichever listener they come.
    pub client_cert: bool,
}
