//! `request_body_filter`: the body's size, its translation, and the end of a request that is refused for it.

use bytes::Bytes;
use pingora::proxy::Session;

use crate::fault::Fault;
use crate::phases::{Context, request_body};

/// Checks and translates a piece of the request's body before it is sent to the peer.
///
/// # Errors
/// The request is refused because of its body.
pub(super) fn on_request_body(
    body: &mut Option<Bytes>,
    end: bool,
    ctx: &mut Context,
) -> Result<(), Fault> {
    let length = body.as_ref().map_or(0, Bytes::len);
    let passed =
        request_body::on_piece(length, end, ctx).and_then(|()| decode_grpc_web(body, end, ctx));
    if let (Err(_), Some(exchange)) = (passed, &ctx.exchange) {
        // If the body queue ends, Pingora assumes that the peer ended it, and waits for the response. So the sender
        // of the body ends the exchange.
        exchange.body_queue.abort();
    }
    passed
}

/// Notes that a request has no body, or none that is sent again: the wait for the response begins. For a custom protocol,
/// Pingora 0.9.1 does not call `request_body_filter` then.
///
/// # Errors
/// Those of [`request_body::on_piece`].
pub(super) fn on_body_before_attempt(
    session: &mut Session,
    ctx: &mut Context,
) -> Result<(), Fault> {
    let is_queued = ctx
        .attempt
        .as_ref()
        .is_some_and(|it| it.queued_version.is_some());
    let session = session.as_mut();
    if is_queued && session.is_body_done() && session.get_retry_buffer().is_none() {
        request_body::on_piece(0, true, ctx)?;
    }
    Ok(())
}

fn decode_grpc_web(body: &mut Option<Bytes>, end: bool, ctx: &mut Context) -> Result<(), Fault> {
    let Some(translation) = &mut ctx.grpc_web else {
        return Ok(());
    };
    let decoded = translation.decode_request_body(body, end);
    decoded.map_err(|_| Fault::BadRequest)
}
