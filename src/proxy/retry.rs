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
pub(super) fn on_connect_failed(session: &mut Session, ctx: &mut Context, error: &mut Error) {
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
    set_retry(session, ctx, repeat, error);
}

/// Prepares the next attempt, if one is allowed, after the exchange with the peer failed.
pub(super) fn on_exchange_failed(
    session: &mut Session,
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
    let response_begun = ctx.peer_status != 0 || session.response_written().is_some();
    let repeat = if response_begun {
        Repeatable::on_any_connection(classify::classify_error(error, FaultStage::Responding))
    } else {
        let falls_back = ctx.attempt.as_ref().is_some_and(|it| it.force_http1);
        classify::before_response(error, reused, falls_back)
    };
    set_retry(session, ctx, repeat, error);
}

fn set_retry(session: &Session, ctx: &mut Context, repeat: Repeatable, error: &mut Error) {
    let body_replayable = !session.as_ref().retry_buffer_truncated();
    error.set_retry(retry::prepare_retry(ctx, repeat, body_replayable));
}

/// Why the handshake failed, if that is the error.
pub(crate) fn tls_failure(error: &Error) -> Option<PeerTlsFailure> {
    let is_handshake = *error.etype() == TLSHandshakeFailure;
    is_handshake.then(|| tls::classify_error(&error.to_string()))
}
