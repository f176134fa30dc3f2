//! Records the start, the failure and the end of an [`Attempt`](super::attempt::Attempt).

use super::context::Context;
use super::outlier_detection;
use crate::clock;
use crate::downstream::Phase;
use crate::fault::Fault;

/// Starts the attempt on the selected peer: counts it, and resets the progress of the request's body and the exchange's phase.
///
/// If it replaces a stale connection by a fresh one, the time of the connect starts again. `ctx.attempts` then stays, and the
/// metric of the peer counts once more.
///
/// # Errors
/// [`Fault::Internal`] if no peer was selected.
pub(crate) fn start(ctx: &mut Context) -> Result<(), Fault> {
    // Every attempt sends the body from its first byte.
    (ctx.request_body_bytes, ctx.request_body_complete) = (0, false);
    ctx.response_ends_at_close = false;
    if let Some(exchange) = &ctx.exchange {
        exchange.enter(Phase::Request, None);
    }
    let attempt = ctx.attempt.as_mut().ok_or(Fault::Internal)?;
    // A fresh connection after a stale one belongs to the same attempt.
    if attempt.needs_fresh_connection {
        attempt.started = clock::since_start();
    } else {
        ctx.attempts += 1;
    }
    if let Some(peer) = ctx.peer() {
        peer.metrics.attempts.inc();
    }
    Ok(())
}

/// Counts a failure for outlier detection, if the attempt had a connection; [`record_connect_failure`] counts the others.
/// `is_stale`: the peer had closed the pooled connection while it was idle, which does not count.
///
/// [`record_connect_failure`]: outlier_detection::record_connect_failure
pub(super) fn fail(ctx: &Context, fault: Fault, is_stale: bool) {
    if !is_stale {
        outlier_detection::record_attempt_failure(ctx, fault);
    }
}

/// Ends the last attempt of a request: releases the permit, so that the request no longer counts as in flight at the peer.
pub(super) fn end(ctx: &mut Context) {
    if let Some(attempt) = &mut ctx.attempt {
        attempt.permit = None;
    }
}

#[cfg(test)]
mod tests {
    use super::super::select;
    use super::*;

    #[tokio::test]
    async fn attempt_on_a_fresh_connection_is_not_counted_again() {
        let mut ctx = Context::for_test_with_key("\"127.0.0.1:2\"");
        select::select_initial(&mut ctx).await.unwrap();
        start(&mut ctx).unwrap();
        assert_eq!(ctx.attempts, 1);
        ctx.request_body_bytes = 5;
        ctx.attempt.as_mut().unwrap().needs_fresh_connection = true;
        start(&mut ctx).unwrap();
        assert_eq!((ctx.attempts, ctx.request_body_bytes), (1, 0));
    }
}
