//! Sends the responses of our own through Pingora's session.

use http::Version;
use pingora::protocols::http::HttpTask;
use pingora::proxy::{FailToProxy, Session};
use pingora::{Error, Result};

use super::classify;
use crate::downstream::LocalReply;
use crate::fault::Fault;
use crate::grpc;
use crate::phases::attempt::FaultStage;
use crate::phases::{Context, local_reply};

/// Answers a request that goes to no peer. The connection stays open if the request's end is certain.
pub(super) async fn reply_without_upstream(
    session: &mut Session,
    ctx: &mut Context,
    fault: Fault,
) -> Result<()> {
    ctx.fault = Some(fault);
    if local_reply::must_close(ctx, fault) {
        ctx.forbid_keepalive();
    }
    send(session, ctx, local_reply::fault_reply(ctx, fault)).await
}

/// Answers a request that failed at the peer or on the way to it, if no response has begun.
pub(super) async fn reply_after_failure(
    session: &mut Session,
    ctx: &mut Context,
    error: &Error,
) -> FailToProxy {
    if ctx.response_complete() && !classify::is_failed_write(error) {
        // The rest of the request is missing; the client has what it asked for.
        ctx.forbid_keepalive();
        return FailToProxy {
            error_code: 0,
            can_reuse_downstream: false,
        };
    }
    let stage = ctx.stage();
    let fault = ctx
        .fault
        .unwrap_or_else(|| classify::classify_error(error, stage));
    ctx.fault = Some(fault);
    ctx.forbid_keepalive();
    if stage == FaultStage::Responding || fault.is_client_abort() || ctx.is_malformed() {
        if !fault.is_client_abort() && !ctx.is_malformed() {
            send_grpc_error_trailers(session, fault).await;
        }
        ctx.reset_if_close_ends_body();
        return FailToProxy {
            error_code: 0,
            can_reuse_downstream: false,
        };
    }
    // An error means that the client is gone; the access log has the fault.
    let reply = local_reply::fault_reply(ctx, fault);
    let _ = send(session, ctx, reply).await;
    FailToProxy {
        error_code: fault.status(),
        can_reuse_downstream: false,
    }
}

/// Sends a response of our own; nothing if the stream is to be reset.
pub(super) async fn send(session: &mut Session, ctx: &Context, reply: LocalReply) -> Result<()> {
    if ctx.is_malformed() {
        return Ok(());
    }
    let reply = local_reply::begin_reply(ctx, reply);
    let (header, body) = reply.into_parts();
    let mut tasks = vec![HttpTask::Header(Box::new(header), body.is_empty())];
    if !body.is_empty() {
        tasks.push(HttpTask::Body(Some(body), true));
    }
    session.write_response_tasks(tasks).await.map(drop)
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
