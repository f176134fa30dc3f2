//! `fail_to_connect` and `error_while_proxy`: a failed attempt, and whether Pingora makes another one.
//!
//! The only place that sets Pingora's retry flag. These hooks replace Pingora's own rule, which never repeats a method
//! that is not idempotent, or a body that is not complete any more; [`policy::retry`](crate::policy::retry) contains
//! the same rule.

use pingora::Error;
use pingora::ErrorType::{H2Downgrade, TLSHandshakeFailure};
use pingora::proxy::Session;

use super::classify;
use crate::phases::attempt::FaultStage;
use crate::phases::retry::{self, Repeatable};
use crate::phases::{Context, outlier_detection};
use crate::telemetry::metrics::PeerTlsFailure;
use crate::tls;

/// Records that no connection to the peer was made, and prepares the next attempt if one is allowed.
pub(super) fn on_connect_failed(session: &Session, ctx: &mut Context, error: &mut Error) {
    ctx.body_replayable = is_body_replayable(session);
    let is_fresh = ctx
        .attempt
        .as_ref()
        .is_some_and(|it| it.needs_fresh_connection);
    let repeat = if classify::is_stale_connection(error, is_fresh) {
        Repeatable::STALE_CONNECTION
    } else {
        let fault = classify::classify_connect(error.etype());
        outlier_detection::record_connect_failure(ctx, fault, tls_failure(error));
        Repeatable::on_any_connection(fault)
    };
    set_retry(ctx, repeat, error);
}

/// Prepares the next attempt, if one is allowed, after the exchange with the peer failed.
pub(super) fn on_exchange_failed(
    session: &Session,
    ctx: &mut Context,
    error: &mut Error,
    reused: bool,
) {
    if *error.etype() == TLSHandshakeFailure {
        // `connect` refused the connection after the handshake, before anything was sent.
        return on_connect_failed(session, ctx, error);
    }
    if let (H2Downgrade, Some(attempt)) = (error.etype(), &mut ctx.attempt) {
        attempt.force_http1 = !attempt.upstream.config.transport.protocol.is_always_h2();
    }
    ctx.body_replayable = is_body_replayable(session);
    // An interim response leaves the request without an answer.
    let written = session.response_written();
    let is_answered = written.is_some_and(|header| !header.status.is_informational());
    let repeat = if ctx.peer_status != 0 || is_answered {
        Repeatable::on_any_connection(classify::classify_error(error, FaultStage::Responding))
    } else {
        before_response(error, ctx, reused)
    };
    set_retry(ctx, repeat, error);
}

/// Whether all that Pingora read of the request's body can be sent again.
pub(super) fn is_body_replayable(session: &Session) -> bool {
    !session.as_ref().retry_buffer_truncated()
}

/// Whether an exchange without a response may be repeated. The fault that a phase returned is not classified again.
fn before_response(error: &Error, ctx: &Context, reused: bool) -> Repeatable {
    if let Some(fault) = ctx.fault {
        return Repeatable::on_any_connection(fault);
    }
    let falls_back = ctx.attempt.as_ref().is_some_and(|it| it.force_http1);
    classify::before_response(error, reused, falls_back)
}

fn set_retry(ctx: &mut Context, repeat: Repeatable, error: &mut Error) {
    let repeats = retry::prepare_retry(ctx, repeat);
    if repeats {
        // It was the fault of this attempt only.
        ctx.fault = None;
    }
    error.set_retry(repeats);
}

/// Why the handshake failed, if that is the error.
pub(crate) fn tls_failure(error: &Error) -> Option<PeerTlsFailure> {
    let is_handshake = *error.etype() == TLSHandshakeFailure;
    is_handshake.then(|| tls::classify_error(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Fault;
    use crate::phases::{attempt_events, select};

    /// Whether Pingora makes another attempt after a phase returned `fault` before the response, and the fault that the
    /// request then has.
    async fn repeats_after(fault: Fault) -> (bool, Option<Fault>) {
        let mut ctx = Context::for_test_with_key("\"127.0.0.1:2\", \"127.0.0.1:3\"");
        select::select_initial(&mut ctx).await.unwrap();
        attempt_events::start(&mut ctx).unwrap();
        let mut error = super::super::fail(&mut ctx, fault);
        let repeat = before_response(&error, &ctx, false);
        set_retry(&mut ctx, repeat, &mut error);
        (error.retry(), ctx.fault)
    }

    #[tokio::test]
    async fn fault_of_a_phase_is_repeated_as_its_row_in_the_table_allows() {
        for fault in [Fault::UpstreamReset, Fault::ConnectFailed] {
            assert_eq!(repeats_after(fault).await, (true, None));
        }
        for fault in [Fault::BadResponse, Fault::BodyTooLarge, Fault::Internal] {
            assert_eq!(repeats_after(fault).await, (false, Some(fault)));
        }
    }
}
