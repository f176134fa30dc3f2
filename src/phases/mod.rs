//! The phases of a request, in their order. They are the same for both *carriers* of requests: Pingora (`proxy`) and the
//! HTTP/1 engine (`engine`).
//!
//! A carrier reads a request, calls these functions, and acts on their results. The functions do not depend on Pingora's
//! session: a header is any type that [`header`](crate::header) can read or edit, and a failure is a [`Fault`].
//!
//! | phase | files |
//! |---|---|
//! | begin | [`begin`], [`request_info`]: the exchange's clocks, the client, the id |
//! | route | [`acme_http01`], [`validate`], [`redirect`], [`route`], [`request_key`], [`upgrade`]: limits, route, key |
//! | peer | [`select`], [`attempt`], [`attempt_events`], [`affinity_refresh`]: the walk, the peer of each attempt |
//! | forward | [`proxy_header`], [`connect`], [`forward_request`], [`request_body`]: the request to the peer |
//! | respond | [`forward_response`], [`response_fields`], [`sticky_cookie`], [`stream_limits`], [`grpc_web`]: the response to the client |
//! | fail | [`outlier_detection`], [`retry`], [`local_reply`]: blame, the next attempt, our own response |
//! | finish | [`finish`], [`partial_request`]: counters and the access-log line |
//!
//! [`Context`] is the state of one request.

pub(crate) mod acme_http01;
pub(crate) mod affinity_refresh;
pub(crate) mod attempt;
pub(crate) mod attempt_events;
pub(crate) mod begin;
pub(crate) mod connect;
mod context;
pub(crate) mod finish;
pub(crate) mod forward_request;
pub(crate) mod forward_response;
pub(crate) mod grpc_web;
pub(crate) mod local_reply;
pub(crate) mod outlier_detection;
mod partial_request;
pub(crate) mod proxy_header;
mod redirect;
pub(crate) mod request_body;
pub(crate) mod request_info;
mod request_key;
mod response_fields;
pub(crate) mod retry;
pub(crate) mod route;
pub(crate) mod select;
mod sticky_cookie;
pub(crate) mod stream_limits;
mod upgrade;
pub(crate) mod validate;

pub(crate) use self::context::Context;
pub(crate) use self::partial_request::PartialRequests;

use crate::downstream::LocalReply;
use crate::fault::Fault;
use crate::header::HeaderRead;

/// The decision about a request before a peer is chosen.
#[derive(Debug)]
pub(crate) enum RoutingDecision {
    /// It has a route and a key: [`select::select_initial`] comes next.
    Forward,
    /// It is answered with this.
    Reply(LocalReply),
}

/// Validates a request, and finds its route and key.
///
/// # Errors
/// The request is refused with this fault.
pub(crate) fn route_request(
    raw: validate::RawHeader<'_>,
    headers: &impl HeaderRead,
    ctx: &mut Context,
) -> Result<RoutingDecision, Fault> {
    validate::validate(raw, headers, ctx)?;
    if let Some(reply) = redirect::redirect(ctx)? {
        return Ok(RoutingDecision::Reply(reply));
    }
    route::resolve_route(headers, ctx)?;
    request_key::compute_key(headers, ctx)?;
    Ok(RoutingDecision::Forward)
}
