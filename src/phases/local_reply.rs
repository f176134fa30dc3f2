//! Makes every response that no peer made: error pages, redirects, ACME tokens.
//!
//! Each has the request id, and HSTS on a listener with `hsts`. The [fault table](crate::fault) has the page of each
//! failure, and its form for gRPC. The carrier sends the response. If a deadline has dropped the carrier's session,
//! the response is stored in the [`Exchange`], and sent from there.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_LENGTH, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};

use super::context::Context;
use super::response_fields;
use crate::downstream::{Exchange, LocalReply};
use crate::fault::Fault;
use crate::grpc;

/// `Retry-After` if peers are not probed: the time until one is available is unknown.
const UNPROBED_RETRY_AFTER: Duration = Duration::from_secs(2);

/// Whether the connection must close after a request that was refused with this fault: the boundary between this
/// request and the next one cannot be trusted.
pub(crate) fn must_close(ctx: &Context, fault: Fault) -> bool {
    matches!(fault, Fault::BadHost | Fault::BadRequest) || ctx.request.method == Method::CONNECT
}

/// Completes a response that the carrier sends now.
pub(crate) fn begin_reply(ctx: &Context, reply: LocalReply) -> LocalReply {
    if let Some(exchange) = &ctx.exchange {
        exchange.begin_response();
        // The rest of the body is only read to keep the connection; `read_timeout` limits that.
        exchange.lift_min_body_rate();
    }
    complete(ctx, reply)
}

/// Leaves the response to an aborted request in its exchange. Returns the status and the length of the body
/// in bytes; `None` if the client gets no response.
pub(crate) fn leave_reply(ctx: &Context, exchange: &Exchange, fault: Fault) -> Option<(u16, u64)> {
    if !exchange.is_reply_due() {
        return None;
    }
    let reply = complete(ctx, fault_reply(ctx, fault));
    let sent = (reply.status.as_u16(), reply.body.len() as u64);
    exchange.set_local_reply(reply);
    Some(sent)
}

/// Adds the request id and HSTS, which all responses of our own have, and counts the response. A response to HEAD
/// has no body (RFC 9110 §9.3.2).
pub(crate) fn complete(ctx: &Context, mut reply: LocalReply) -> LocalReply {
    if let (Some(name), Some(id)) = (&ctx.snapshot.forwarding.request_id, &ctx.request.id) {
        reply.headers.insert(name.clone(), id.clone());
    }
    response_fields::set_on_every(&mut reply.headers, ctx);
    if ctx.request.method == Method::HEAD {
        reply.body = Bytes::new();
    }
    ctx.telemetry.metrics.process.local_replies.inc();
    reply
}

/// The response after a failure: a page; or, for a gRPC client, a header with the gRPC status.
pub(crate) fn fault_reply(ctx: &Context, fault: Fault) -> LocalReply {
    if let Some(content_type) = &ctx.request.grpc_content_type {
        return grpc_reply(content_type, ctx.request.version, fault);
    }
    let mut page = LocalReply::page(fault);
    let (name, value) = match fault {
        Fault::NoAvailablePeer => (RETRY_AFTER, Some(retry_after(ctx))),
        Fault::MethodNotAllowed => (ALLOW, allowed_methods(ctx)),
        _ => return page,
    };
    page.headers.extend(value.map(|value| (name, value)));
    page
}

fn grpc_reply(content_type: &HeaderValue, client: Version, fault: Fault) -> LocalReply {
    let mut headers = HeaderMap::with_capacity(8);
    headers.extend(grpc::trailers_only(
        content_type,
        fault.grpc_status(),
        fault.name(),
    ));
    if client < Version::HTTP_2 {
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    LocalReply {
        status: StatusCode::OK,
        headers,
        body: Bytes::new(),
    }
}

/// Seconds until a peer that recovers now counts as up: the time of `rise` probes, rounded up.
fn retry_after(ctx: &Context) -> HeaderValue {
    let health = ctx
        .upstream()
        .and_then(|upstream| upstream.config.health.as_ref());
    let time = health.map_or(UNPROBED_RETRY_AFTER, |health| {
        health.interval.saturating_mul(health.rise)
    });
    let seconds = time.as_millis().div_ceil(1000).max(1);
    HeaderValue::from(u64::try_from(seconds).unwrap_or(u64::MAX))
}

/// The methods that the routes for this host and path accept (RFC 9110 §15.5.6).
fn allowed_methods(ctx: &Context) -> Option<HeaderValue> {
    let methods = ctx
        .snapshot
        .routes
        .allowed_methods(ctx.request.host_text(), ctx.request.path());
    let methods: Vec<_> = methods.iter().map(|method| method.as_str()).collect();
    HeaderValue::try_from(methods.join(", ")).ok()
}

#[cfg(test)]
mod tests {
    use super::super::route;
    use super::*;
    use crate::grpc::{MESSAGE, STATUS};

    #[test]
    fn grpc_reply_of_every_fault_is_a_200_with_the_status_of_the_table() {
        let kind = HeaderValue::from_static("application/grpc+proto");
        for &fault in Fault::ALL {
            let reply = grpc_reply(&kind, Version::HTTP_2, fault);
            assert_eq!(reply.status, 200);
            assert!(reply.body.is_empty());
            let headers = &reply.headers;
            assert_eq!(headers[STATUS], HeaderValue::from(fault.grpc_status()));
            assert_eq!(headers[MESSAGE], fault.name());
            assert!(!headers.contains_key(CONTENT_LENGTH));
        }
    }

    #[test]
    fn grpc_reply_over_http1_has_a_length() {
        let kind = HeaderValue::from_static("application/grpc-web");
        let reply = grpc_reply(&kind, Version::HTTP_11, Fault::NoRoute);
        assert_eq!(reply.headers[CONTENT_LENGTH], "0");
    }

    const ROUTES: &str = "
routes: [{methods: [GET, POST], upstream: app}]
upstreams:
  app: {health: {tcp: true, interval: 1500ms, rise: 3}, peers: [\"127.0.0.1:2\"]}
";

    #[test]
    fn every_reply_has_the_request_id() {
        let mut ctx = Context::for_test(ROUTES);
        ctx.request.id = Some(HeaderValue::from_static("mine"));
        let reply = complete(&ctx, fault_reply(&ctx, Fault::Internal));
        assert_eq!(reply.headers["x-request-id"], "mine");
        assert_eq!(reply.body, "500 internal\n");
    }

    #[test]
    fn reply_to_head_has_the_length_and_no_body() {
        let mut ctx = Context::for_test(ROUTES);
        ctx.request.method = Method::HEAD;
        let reply = complete(&ctx, fault_reply(&ctx, Fault::NoRoute));
        assert_eq!(reply.headers[CONTENT_LENGTH], "13");
        assert!(reply.body.is_empty());
    }

    #[test]
    fn method_not_allowed_names_the_allowed_methods() {
        let ctx = Context::for_test(ROUTES);
        let reply = fault_reply(&ctx, Fault::MethodNotAllowed);
        assert_eq!(reply.headers[ALLOW], "GET, POST");
    }

    #[test]
    fn no_available_peer_retry_after_is_the_time_until_probes_may_pass() {
        let mut ctx = Context::for_test(ROUTES);
        let reply = fault_reply(&ctx, Fault::NoAvailablePeer);
        assert_eq!(reply.headers[RETRY_AFTER], "2", "not probed");
        route::resolve_route(&HeaderMap::new(), &mut ctx).unwrap();
        let reply = fault_reply(&ctx, Fault::NoAvailablePeer);
        assert_eq!(reply.headers[RETRY_AFTER], "5", "3 × 1.5 s");
    }

    #[test]
    fn grpc_client_gets_no_page() {
        let mut ctx = Context::for_test(ROUTES);
        ctx.request.grpc_content_type = Some(HeaderValue::from_static("application/grpc"));
        let reply = fault_reply(&ctx, Fault::MethodNotAllowed);
        assert_eq!(reply.status, 200);
        assert_eq!(reply.headers[STATUS], "12");
    }
}
