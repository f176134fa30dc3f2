//! The request's body: checks its size, and restarts the peer's timer as it arrives.

use http::header::CONTENT_LENGTH;

use super::connect;
use super::context::Context;
use crate::downstream::{Exchange, Phase};
use crate::fault::Fault;
use crate::header::HeaderRead;

/// Refuses a body that is declared larger than the route allows.
pub(crate) fn check_declared_length(headers: &impl HeaderRead, ctx: &Context) -> Result<(), Fault> {
    let limit = ctx.route.as_ref().and_then(|route| route.max_body_size);
    match (declared_length(headers), limit) {
        (Some(declared), Some(limit)) if declared > limit => Err(Fault::BodyTooLarge),
        _ => Ok(()),
    }
}

/// Counts a piece of the request's body, and restarts the peer's timer. `length`: bytes.
///
/// # Errors
/// [`Fault::BodyTooLarge`] if the body is larger than the route allows.
pub(crate) fn on_piece(length: usize, end: bool, ctx: &mut Context) -> Result<(), Fault> {
    ctx.request_body_bytes += length as u64;
    if let Some(exchange) = &ctx.exchange {
        exchange.on_body_bytes(ctx.request_body_bytes);
    }
    if end {
        ctx.complete_body();
    }
    if is_too_large(ctx) {
        return Err(Fault::BodyTooLarge);
    }
    connect::on_progress(ctx);
    Ok(())
}

/// The value of `Content-Length`; `None`: missing, or not a number.
fn declared_length(headers: &impl HeaderRead) -> Option<u64> {
    let declared = headers.get(&CONTENT_LENGTH)?;
    str::from_utf8(declared).ok()?.parse().ok()
}

/// Bytes that pass through a tunnel are not a body.
fn is_too_large(ctx: &Context) -> bool {
    let limit = ctx.route.as_ref().and_then(|route| route.max_body_size);
    let is_tunnel = || ctx.exchange.as_deref().map(Exchange::phase) == Some(Phase::Tunnel);
    limit.is_some_and(|limit| ctx.request_body_bytes > limit) && !is_tunnel()
}

#[cfg(test)]
mod tests {
    use super::super::route;
    use super::*;
    use crate::header::header_map;

    const LIMITED: &str = "
routes: [{upstream: app, max_body_size: 10}]
upstreams: {app: {peers: [\"127.0.0.1:2\"]}}
";

    #[test]
    fn body_over_the_limit_of_its_route_is_refused_when_it_arrives() {
        let mut ctx = Context::for_test(LIMITED);
        route::resolve_route(&header_map(&[]), &mut ctx).unwrap();
        for _ in 0..2 {
            on_piece(5, false, &mut ctx).unwrap();
        }
        assert_eq!(ctx.request_body_bytes, 10);
        on_piece(0, true, &mut ctx).unwrap();
        assert!(ctx.request_body_complete);
        let refused = on_piece(5, false, &mut ctx);
        assert_eq!(refused, Err(Fault::BodyTooLarge));
    }

    #[test]
    fn declared_length_must_be_a_number() {
        let declared = |value| declared_length(&header_map(&[("content-length", value)]));
        assert_eq!(declared("0"), Some(0));
        assert_eq!(declared("18446744073709551615"), Some(u64::MAX));
        for wrong in ["", "-1", "1, 1", "18446744073709551616"] {
            assert_eq!(declared(wrong), None, "{wrong}");
        }
    }
}
