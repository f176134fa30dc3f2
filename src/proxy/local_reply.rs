//! What a client is told when no peer answers it.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Method, StatusCode, Version};
use pingora::http::ResponseHeader;
use pingora::protocols::http::HttpTask;
use pingora::proxy::{FailToProxy, Session};
use pingora::{Error, Result};

use super::context::{Attempt, Context};
use super::fault::{self, Fault, FaultStage};
use super::forward;
use crate::grpc;

/// Answers a request that goes to no peer; the connection lives on, where its body allows that.
pub(super) async fn reply_without_upstream(
    session: &mut Session,
    ctx: &mut Context,
    fault: Fault,
) -> Result<()> {
    ctx.fault = Some(fault);
    if matches!(fault, Fault::BadHost | Fault::BadRequest) || ctx.request.method == Method::CONNECT
    {
        // Where one request ends and the next begins can no longer be trusted.
        session.set_keepalive(None);
    }
    send_fault(session, ctx, fault).await
}

/// Answers a request that failed on its way, where nothing was sent yet.
pub(super) async fn reply_after_failure(
    session: &mut Session,
    ctx: &mut Context,
    error: &Error,
) -> FailToProxy {
    let stage = fault_stage(ctx);
    let fault = ctx
        .fault
        .unwrap_or_else(|| fault::classify_error(error, stage));
    ctx.fault = Some(fault);
    session.set_keepalive(None);
    let gone = matches!(fault, Fault::ClientGone | Fault::ClientStalled);
    if stage == FaultStage::Responding || gone {
        if !gone {
            send_grpc_error_trailers(session, fault).await;
        }
        ctx.abort_response();
        return FailToProxy {
            error_code: 0,
            can_reuse_downstream: false,
        };
    }
    // A client that cannot be told is gone; the access log has the fault.
    if send_fault(session, ctx, fault).await.is_ok() {
        drain_request_body(session, ctx).await;
    }
    FailToProxy {
        error_code: fault.status(),
        can_reuse_downstream: false,
    }
}

/// Takes what a client of HTTP/2 still sends of its request, for a while: some take the end of their stream
/// for a failure while they are at it. Pingora sees out only what did not fail.
async fn drain_request_body(session: &mut Session, ctx: &mut Context) {
    if session.req_header().version < Version::HTTP_2 {
        return;
    }
    // The peer has no part in it any more.
    if let Some(attempt) = &mut ctx.attempt {
        attempt.permit = None;
    }
    session.as_downstream_mut().shutdown().await;
}

/// For a client of gRPC: says what went wrong behind what it was sent. Over HTTP/1 there are no trailers.
async fn send_grpc_error_trailers(session: &mut Session, fault: Fault) {
    if session.req_header().version < Version::HTTP_2 {
        return;
    }
    let status = StatusCode::from_u16(fault.status()).unwrap_or_default();
    let sent = session.response_written();
    let trailers = sent.and_then(|sent| grpc::error_trailers(&sent.headers, status, fault.name()));
    if let Some(trailers) = trailers {
        let end = HttpTask::Trailer(Some(Box::new(trailers)));
        // A client that cannot be told is gone; the access log has the fault.
        let _ = session.write_response_tasks(vec![end]).await;
    }
}

fn fault_stage(ctx: &Context) -> FaultStage {
    let connecting = |attempt: &Attempt| attempt.connect_time.is_none();
    if ctx.response_begun() {
        FaultStage::Responding
    } else if ctx.attempt.as_ref().is_some_and(connecting) {
        FaultStage::Connecting
    } else {
        FaultStage::AwaitingResponse
    }
}

async fn send_fault(session: &mut Session, ctx: &Context, fault: Fault) -> Result<()> {
    if let Some(header) = grpc_error_header(session, fault)? {
        return send(session, ctx, header, Bytes::new()).await;
    }
    let (header, body) = error_page(ctx, fault)?;
    send(session, ctx, header, body).await
}

/// For a client of gRPC: its own kind of page.
fn grpc_error_header(session: &Session, fault: Fault) -> Result<Option<ResponseHeader>> {
    let mut header = ResponseHeader::build(fault.status(), Some(8))?;
    let request = &session.req_header().headers;
    let Some(fields) = grpc::trailers_only(request, header.status, fault.name()) else {
        return Ok(None);
    };
    header.set_status(200)?;
    for (name, value) in fields {
        header.insert_header(name, value)?;
    }
    if session.req_header().version < Version::HTTP_2 {
        header.set_content_length(0)?;
    }
    Ok(Some(header))
}

/// Sends an answer of our own.
pub(super) async fn send(
    session: &mut Session,
    ctx: &Context,
    mut header: ResponseHeader,
    body: Bytes,
) -> Result<()> {
    forward::set_hsts(&mut header, ctx)?;
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

fn error_page(ctx: &Context, fault: Fault) -> Result<(ResponseHeader, Bytes)> {
    let body = format!("{} {}\n", fault.status(), fault.name());
    let mut header = ResponseHeader::build(fault.status(), Some(8))?;
    header.insert_header(CONTENT_TYPE, "text/plain")?;
    header.insert_header(CACHE_CONTROL, "no-store")?;
    header.set_content_length(body.len())?;
    if let (Some(name), Some(id)) = (&ctx.snapshot.forwarding.request_id, &ctx.request.id) {
        header.insert_header(name.clone(), id.clone())?;
    }
    match fault {
        Fault::NoAvailablePeer => header.insert_header(RETRY_AFTER, retry_after(ctx))?,
        Fault::MethodNotAllowed => header.insert_header(ALLOW, allowed_methods(ctx))?,
        _ => {}
    }
    Ok((header, body.into()))
}

/// Seconds after which a peer that recovers now counts as up: the probes that takes, rounded up.
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

/// Where nobody probes, an operator has taken every peer out; who knows for how long.
const UNPROBED_RETRY_AFTER: Duration = Duration::from_secs(2);

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
