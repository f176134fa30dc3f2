//! Writes every response that no peer made: error pages, redirects, ACME tokens.
//!
//! All have the request id, and HSTS where it is due. A failure's page, and its form for gRPC, follow from the
//! [fault table](crate::fault). Pingora's session sends the response while there is one. A deadline drops the
//! session; then the response is left in the [`Exchange`], and sent from there.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_LENGTH, RETRY_AFTER};
use http::{HeaderValue, Method, Version};
use pingora::http::ResponseHeader;
use pingora::protocols::http::HttpTask;
use pingora::proxy::{FailToProxy, Session};
use pingora::{Error, Result};

use super::attempt::Attempt;
use super::context::Context;
use super::forward_response;
use crate::downstream::{Exchange, LocalReply};
use crate::fault::Fault;
use crate::grpc;
use crate::proxy::classify::{self, FaultStage};

/// `Retry-After` where peers are not probed: an operator took all of them out, for an unknown time.
const UNPROBED_RETRY_AFTER: Duration = Duration::from_secs(2);

/// Answers a request that goes to no peer. The connection stays open, where the request's end is certain.
pub(crate) async fn reply_without_upstream(
    session: &mut Session,
    ctx: &mut Context,
    fault: Fault,
) -> Result<()> {
    ctx.fault = Some(fault);
    if matches!(fault, Fault::BadHost | Fault::BadRequest) || ctx.request.method == Method::CONNECT
    {
        // Where this request ends and the next begins can no longer be trusted.
        session.set_keepalive(None);
    }
    let reply = fault_reply(ctx, fault)?;
    send(session, ctx, reply).await
}

/// Answers a request that failed at the peer or on the way to it, where no response has begun.
pub(crate) async fn reply_after_failure(
    session: &mut Session,
    ctx: &mut Context,
    error: &Error,
) -> FailToProxy {
    let stage = fault_stage(ctx);
    let fault = ctx
        .fault
        .unwrap_or_else(|| classify::classify_error(error, stage));
    ctx.fault = Some(fault);
    session.set_keepalive(None);
    if stage == FaultStage::Responding || fault.is_client_abort() {
        if !fault.is_client_abort() {
            send_grpc_error_trailers(session, fault).await;
        }
        ctx.reset_if_close_ends_body();
        return FailToProxy {
            error_code: 0,
            can_reuse_downstream: false,
        };
    }
    // An error means that the client is gone; the access log has the fault.
    if let Ok(reply) = fault_reply(ctx, fault)
        && send(session, ctx, reply).await.is_ok()
    {
        drain_request_body(session, ctx).await;
    }
    FailToProxy {
        error_code: fault.status(),
        can_reuse_downstream: false,
    }
}

/// Leaves the response to an aborted request in its exchange, where one is due; the status and the body's
/// length that the client gets.
pub(crate) fn leave_reply(ctx: &Context, exchange: &Exchange, fault: Fault) -> Option<(u16, u64)> {
    if !exchange.is_reply_due() {
        return None;
    }
    let reply = complete(ctx, fault_reply(ctx, fault).ok()?).ok()?;
    let sent = (reply.header.status.as_u16(), reply.body.len() as u64);
    exchange.set_local_reply(reply);
    Some(sent)
}

/// Sends a response of our own.
pub(crate) async fn send(session: &mut Session, ctx: &Context, reply: LocalReply) -> Result<()> {
    let LocalReply { header, body } = complete(ctx, reply)?;
    if let Some(exchange) = &ctx.exchange {
        exchange.begin_response();
        if !session.is_body_done() {
            exchange.request_lingering_close();
        }
        if exchange.connection.is_draining() {
            session.set_keepalive(None);
        }
    }
    let mut tasks = vec![HttpTask::Header(Box::new(header), body.is_empty())];
    if !body.is_empty() {
        tasks.push(HttpTask::Body(Some(body), true));
    }
    session.write_response_tasks(tasks).await.map(drop)
}

/// Adds what all responses of our own have, the request id and HSTS, and counts the response. One to HEAD has
/// no body (RFC 9110, 9.3.2).
pub(crate) fn complete(ctx: &Context, mut reply: LocalReply) -> Result<LocalReply> {
    if let (Some(name), Some(id)) = (&ctx.snapshot.forwarding.request_id, &ctx.request.id) {
        reply.header.insert_header(name.clone(), id.clone())?;
    }
    forward_response::set_hsts(&mut reply.header, ctx.connection())?;
    if ctx.request.method == Method::HEAD {
        reply.body = Bytes::new();
    }
    ctx.telemetry.metrics.process.local_replies.inc();
    Ok(reply)
}

/// The response that tells a client of a failure: a page, or for a client of gRPC a header with its status.
pub(crate) fn fault_reply(ctx: &Context, fault: Fault) -> Result<LocalReply> {
    if let Some(content_type) = &ctx.request.grpc_content_type {
        return grpc_reply(content_type, ctx.request.version, fault);
    }
    let mut page = LocalReply::page(fault)?;
    match fault {
        Fault::NoAvailablePeer => page.header.insert_header(RETRY_AFTER, retry_after(ctx))?,
        Fault::MethodNotAllowed => page.header.insert_header(ALLOW, allowed_methods(ctx))?,
        _ => {}
    }
    Ok(page)
}

fn grpc_reply(content_type: &HeaderValue, client: Version, fault: Fault) -> Result<LocalReply> {
    let mut header = ResponseHeader::build(200, Some(8))?;
    for (name, value) in grpc::trailers_only(content_type, fault.grpc_status(), fault.name()) {
        header.insert_header(name, value)?;
    }
    if client < Version::HTTP_2 {
        header.insert_header(CONTENT_LENGTH, 0)?;
    }
    Ok(LocalReply {
        header,
        body: Bytes::new(),
    })
}

/// Takes what a client of HTTP/2 still sends of its request, for a while: some clients report a failure when
/// their stream ends while they send. Pingora drains only requests that did not fail.
async fn drain_request_body(session: &mut Session, ctx: &mut Context) {
    if session.req_header().version < Version::HTTP_2 {
        return;
    }
    // The peer is done with the request.
    if let Some(attempt) = &mut ctx.attempt {
        attempt.permit = None;
    }
    session.as_downstream_mut().shutdown().await;
}

/// Ends a response of gRPC that has begun with a status in its trailers, which HTTP/1 does not have.
async fn send_grpc_error_trailers(session: &mut Session, fault: Fault) {
    if session.req_header().version < Version::HTTP_2 {
        return;
    }
    let sent = session.response_written();
    let trailers = sent
        .and_then(|sent| grpc::error_trailers(&sent.headers, fault.grpc_status(), fault.name()));
    if let Some(trailers) = trailers {
        let end = HttpTask::Trailer(Some(Box::new(trailers)));
        // An error means that the client is gone; the access log has the fault.
        let _ = session.write_response_tasks(vec![end]).await;
    }
}

fn fault_stage(ctx: &Context) -> FaultStage {
    let is_connecting = |attempt: &Attempt| attempt.connect_time.is_none();
    if ctx.response_begun() {
        FaultStage::Responding
    } else if ctx.attempt.as_ref().is_some_and(is_connecting) {
        FaultStage::Connecting
    } else {
        FaultStage::AwaitingResponse
    }
}

/// Seconds after which a peer that recovers now is up: the time of the probes that this takes, rounded up.
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

/// The methods that the routes for this host and path take (RFC 9110, 15.5.6).
fn allowed_methods(ctx: &Context) -> String {
    let methods = ctx
        .snapshot
        .routes
        .allowed_methods(ctx.request.host_text(), ctx.request.path());
    methods
        .iter()
        .map(|method| method.as_str())
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use pingora::http::RequestHeader;

    use super::super::route;
    use super::*;
    use crate::grpc::{MESSAGE, STATUS};

    #[test]
    fn grpc_reply_of_every_fault_is_a_200_with_the_status_of_the_table() {
        let kind = HeaderValue::from_static("application/grpc+proto");
        for &fault in Fault::ALL {
            let reply = grpc_reply(&kind, Version::HTTP_2, fault).unwrap();
            assert_eq!(reply.header.status, 200);
            assert!(reply.body.is_empty());
            let headers = &reply.header.headers;
            assert_eq!(headers[STATUS], HeaderValue::from(fault.grpc_status()));
            assert_eq!(headers[MESSAGE], fault.name());
            assert!(!headers.contains_key(CONTENT_LENGTH));
        }
    }

    #[test]
    fn grpc_reply_over_http1_has_a_length() {
        let kind = HeaderValue::from_static("application/grpc-web");
        let reply = grpc_reply(&kind, Version::HTTP_11, Fault::NoRoute).unwrap();
        assert_eq!(reply.header.headers[CONTENT_LENGTH], "0");
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
        let reply = complete(&ctx, fault_reply(&ctx, Fault::Internal).unwrap()).unwrap();
        assert_eq!(reply.header.headers["x-request-id"], "mine");
        assert_eq!(reply.body, "500 internal\n");
    }

    #[test]
    fn reply_to_head_has_the_length_and_no_body() {
        let mut ctx = Context::for_test(ROUTES);
        ctx.request.method = Method::HEAD;
        let reply = complete(&ctx, fault_reply(&ctx, Fault::NoRoute).unwrap()).unwrap();
        assert_eq!(reply.header.headers[CONTENT_LENGTH], "13");
        assert!(reply.body.is_empty());
    }

    #[test]
    fn method_not_allowed_names_the_allowed_methods() {
        let ctx = Context::for_test(ROUTES);
        let reply = fault_reply(&ctx, Fault::MethodNotAllowed).unwrap();
        assert_eq!(reply.header.headers[ALLOW], "GET, POST");
    }

    #[test]
    fn no_available_peer_says_when_probes_may_find_one() {
        let mut ctx = Context::for_test(ROUTES);
        let reply = fault_reply(&ctx, Fault::NoAvailablePeer).unwrap();
        assert_eq!(reply.header.headers[RETRY_AFTER], "2", "not probed");
        let request = RequestHeader::build("GET", b"/", None).unwrap();
        route::resolve_route(&request, &mut ctx).unwrap();
        let reply = fault_reply(&ctx, Fault::NoAvailablePeer).unwrap();
        assert_eq!(reply.header.headers[RETRY_AFTER], "5", "3 × 1.5 s");
    }

    #[test]
    fn grpc_client_gets_no_page() {
        let mut ctx = Context::for_test(ROUTES);
        ctx.request.grpc_content_type = Some(HeaderValue::from_static("application/grpc"));
        let reply = fault_reply(&ctx, Fault::MethodNotAllowed).unwrap();
        assert_eq!(reply.header.status, 200);
        assert_eq!(reply.header.headers[STATUS], "12");
    }
}
