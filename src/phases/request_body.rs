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
pub(crate) fn check_declared_length(request: &RequestHeader, ctx: &Context) -> Result<(), Fault> {
    let limit = ctx.route.as_ref().and_then(|route| route.max_body_size);
    match (declared_length(request), limit) {
        (Some(declared), Some(limit)) if declared > limit => Err(Fault::BodyTooLarge),
        _ => Ok(()),
    }
}

/// A piece of the request's body passed: its size is bounded, and the peer's time starts anew.
pub(crate) fn on_request_body(piece: Option<&Bytes>, end: bool, ctx: &mut Context) -> Result<()> {
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
pub(crate) fn declared_length(request: &RequestHeader) -> Option<u64> {
    let declared = request.headers.get(CONTENT_LENGTH)?;
    declared.to_str().ok()?.parse().ok()
}

/// Bytes that pass through a tunnel are not a body.
fn is_too_large(ctx: &Context) -> bool {
    let limit = ctx.route.as_ref().and_then(|route| route.max_body_size);
    let is_tunnel = || ctx.exchange.as_deref().map(Exchange::phase) == Some(Phase::Tunnel);
    limit.is_some_and(|limit| ctx.request_body_bytes > limit) && !is_tunnel()
}

/// Ends a request that is rejected because of its body. Pingora takes the end of the body queue for the peer's doing and
/// waits for the response; the sender of the body ends the exchange instead.
pub(crate) fn abort(ctx: &Context) {
    if let Some(exchange) = &ctx.exchange {
        exchange.body_queue.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::super::route;
    use super::*;

    const LIMITED: &str = "
routes: [{upstream: app, max_body_size: 10}]
upstreams: {app: {peers: [\"127.0.0.1:2\"]}}
";

    #[test]
    fn body_over_the_limit_of_its_route_is_refused_when_it_arrives() {
        let mut ctx = Context::for_test(LIMITED);
        let request = RequestHeader::build("GET", b"/", None).unwrap();
        route::resolve_route(&request, &mut ctx).unwrap();
        let piece = Bytes::from_static(b"12345");
        for _ in 0..2 {
            on_request_body(Some(&piece), false, &mut ctx).unwrap();
        }
        assert_eq!((ctx.request_body_bytes, ctx.fault), (10, None));
        on_request_body(None, true, &mut ctx).unwrap();
        assert!(ctx.request_body_complete);
        assert!(on_request_body(Some(&piece), false, &mut ctx).is_err());
        assert_eq!(ctx.fault, Some(Fault::BodyTooLarge));
    }

    #[test]
    fn declared_length_must_be_a_number() {
        let declared = |value: &'static str| {
            let mut request = RequestHeader::build("POST", b"/", None).unwrap();
            request.insert_header(CONTENT_LENGTH, value).unwrap();
            declared_length(&request)
        };
        assert_eq!(declared("0"), Some(0));
        assert_eq!(declared("18446744073709551615"), Some(u64::MAX));
        for wrong in ["", "-1", "1, 1", "18446744073709551616"] {
            assert_eq!(declared(wrong), None, "{wrong}");
        }
    }
}
