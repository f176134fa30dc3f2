//! The request's body: its size limit, and what its arrival means for the deadlines.

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use pingora::Result;
use pingora::http::RequestHeader;

use super::connect;
use super::context::Context;
use crate::downstream::{Exchange, Phase};
use crate::fault::Fault;

/// Refuses a body that is declared larger than the route allows.
pub(super) fn check_declared_length(request: &RequestHeader, ctx: &Context) -> Result<(), Fault> {
    let limit = ctx.route.as_ref().and_then(|route| route.max_body_size);
    match (declared_length(request), limit) {
        (Some(declared), Some(limit)) if declared > limit => Err(Fault::BodyTooLarge),
        _ => Ok(()),
    }
}

/// A piece of the request's body passed: its size is bounded, and the peer's time starts anew.
pub(super) fn on_request_body(piece: Option<&Bytes>, end: bool, ctx: &mut Context) -> Result<()> {
    ctx.request_body_bytes += piece.map_or(0, |piece| piece.len() as u64);
    if end {
        ctx.complete_body();
    }
    if is_too_large(ctx) {
        return Err(ctx.fail_with(Fault::BodyTooLarge));
    }
    connect::on_progress(ctx);
    Ok(())
}

/// The value of `Content-Length`; `None`: missing, or not a number.
pub(super) fn declared_length(request: &RequestHeader) -> Option<u64> {
    let declared = request.headers.get(CONTENT_LENGTH)?;
    declared.to_str().ok()?.parse().ok()
}

/// Bytes that pass through a tunnel are not a body.
fn is_too_large(ctx: &Context) -> bool {
    let limit = ctx.route.as_ref().and_then(|route| route.max_body_size);
    let is_tunnel = || ctx.exchange.as_deref().map(Exchange::phase) == Some(Phase::Tunnel);
    limit.is_some_and(|limit| ctx.request_body_bytes > limit) && !is_tunnel()
}
