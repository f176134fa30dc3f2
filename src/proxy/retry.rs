//! What follows from a failed attempt: the peer is blamed, and the next attempt prepared.
//!
//! The only place that sets Pingora's retry flag. Overriding Pingora's hooks replaces its own safe
//! default (never repeat a method that is not idempotent, or a body that is no longer whole);
//! [`policy::retry`](crate::policy::retry) states that rule anew.

use pingora::ErrorSource::{Downstream, Internal, Unset, Upstream};
use pingora::ErrorType::{
    BindError, ConnectionClosed, H2Downgrade, H2Error, InternalError, ReadError, SocketError,
    TLSHandshakeFailure, WriteError, WriteTimedout,
};
use pingora::proxy::Session;
use pingora::{Error, ErrorType};

use super::context::Context;
use super::select;
use crate::clock;
use crate::policy::ejection::EjectionPolicy;
use crate::policy::retry::{
    self, FailedAttempt, Failure, NoRetryReason, RetryDecision, RetryLimits,
};
use crate::tls::{classify_error, describe_failure};

/// There was no connection to the peer: blames it, and moves on where that is allowed.
pub(super) fn on_connect_failed(session: &mut Session, ctx: &mut Context, error: &mut Error) {
    let failure = if is_stale_connection(ctx, error) {
        Failure::Unprocessed
    } else {
        record_connect_failure(ctx, error);
        Failure::ConnectFailed
    };
    let again = prepare_retry(session, ctx, failure);
    error.set_retry(again);
}

/// A connection with other requests on it had come to its end; a new one was not even tried.
fn is_stale_connection(ctx: &Context, error: &Error) -> bool {
    let fresh = ctx
        .attempt
        .as_ref()
        .is_some_and(|attempt| attempt.fresh_connection);
    !fresh && *error.etype() == H2Error && h2_cause(error).is_some()
}

/// The exchange with the peer broke: moves on where that is allowed.
pub(super) fn on_exchange_failed(
    session: &mut Session,
    ctx: &mut Context,
    error: &mut Error,
    reused: bool,
) {
    if *error.etype() == TLSHandshakeFailure {
        // The connection stood, and was found wanting before anything was sent.
        return on_connect_failed(session, ctx, error);
    }
    if let (H2Downgrade, Some(attempt)) = (error.etype(), &mut ctx.attempt) {
        attempt.force_http1 = !attempt.upstream.config.transport.protocol.is_always_h2();
    }
    let failure = match error.esource() {
        Downstream | Internal | Unset => Failure::Downstream,
        Upstream if ctx.status != 0 || session.response_written().is_some() => {
            Failure::ResponseStarted
        }
        Upstream => failure_before_response(ctx, error, reused),
    };
    let again = prepare_retry(session, ctx, failure);
    error.set_retry(again);
}

fn failure_before_response(ctx: &Context, error: &Error, reused: bool) -> Failure {
    let http1 = ctx
        .attempt
        .as_ref()
        .is_some_and(|attempt| attempt.force_http1);
    match error.etype() {
        _ if h2_cause(error).is_some_and(is_unprocessed) => Failure::Unprocessed,
        H2Downgrade if http1 => Failure::Unprocessed,
        _ if h2_cause(error).is_some_and(is_remote_reset) => Failure::ResetBeforeResponse,
        WriteTimedout => Failure::FirstByteTimeout,
        ReadError | WriteError | ConnectionClosed if reused => Failure::ReusedConnectionClosed,
        ReadError | WriteError | ConnectionClosed => Failure::ResetBeforeResponse,
        _ => Failure::ResponseStarted,
    }
}

fn h2_cause(error: &Error) -> Option<&h2::Error> {
    error.root_cause().downcast_ref()
}

/// The stream was refused, or is above the last one that the peer has looked at when it said good-bye
/// (RFC 9113, 8.7); `h2` tells no others of that.
fn is_unprocessed(error: &h2::Error) -> bool {
    let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    error.is_remote() && (refused || error.is_go_away())
}

fn is_remote_reset(error: &h2::Error) -> bool {
    error.is_remote() && error.is_reset()
}

/// Running out of local ports or descriptors says nothing about the peer.
fn is_peer_failure(error: &ErrorType) -> bool {
    !matches!(error, BindError | SocketError | InternalError)
}

fn record_connect_failure(ctx: &Context, error: &Error) {
    let (Some(upstream), Some(peer)) = (ctx.upstream(), ctx.peer()) else {
        return;
    };
    if !is_peer_failure(error.etype()) {
        return;
    }
    let tls = (*error.etype() == TLSHandshakeFailure).then(|| classify_error(&error.to_string()));
    if let Some(failure) = tls {
        upstream.metrics.tls_failures.inc(failure);
    }
    peer.metrics.connect_failures.inc();
    // Whoever may choose the name that a peer must prove must not choose who is ejected.
    if tls.is_some() && peer.server_name.is_none() {
        return;
    }
    let Some(passive) = &upstream.config.outlier_detection else {
        return;
    };
    let rules = EjectionPolicy {
        failures: passive.failures,
        base_ejection: passive.eject,
        max_ejection: passive.max_eject,
    };
    if let Some(length) = peer.on_connect_failure(&rules, clock::since_start()) {
        peer.metrics.ejections.inc();
        let why = tls.map_or("connects fail", describe_failure);
        log::warn!(
            "upstream {}: peer {} is ejected for {length:?}: {why}",
            upstream.name,
            peer.label
        );
    }
}

/// Prepares the next attempt, where there may be one; false: this failure is final.
fn prepare_retry(session: &mut Session, ctx: &mut Context, failure: Failure) -> bool {
    let Some(limits) = retry_limits(ctx) else {
        return false;
    };
    let failed = FailedAttempt {
        failure,
        method: &ctx.request.method,
        body_replayable: !session.as_ref().retry_buffer_truncated(),
        fresh_connection_tried: ctx
            .attempt
            .as_ref()
            .is_some_and(|attempt| attempt.fresh_connection),
        attempts: ctx.attempts,
        elapsed: clock::since_start().saturating_sub(ctx.started),
    };
    match retry::decide(&failed, limits) {
        RetryDecision::GiveUp(reason) => {
            count_retries_exhausted(ctx, reason, limits);
            false
        }
        RetryDecision::SamePeerFreshConnection => retry_fresh_connection(ctx),
        RetryDecision::NextPeer => retry_next_peer(ctx),
    }
}

fn retry_limits(ctx: &Context) -> Option<RetryLimits> {
    let retry = ctx.upstream()?.config.retry;
    Some(RetryLimits {
        attempts: retry.attempts,
        timeout: retry.timeout,
    })
}

/// Where retries are off, or no peer is left, no limit is to blame.
fn count_retries_exhausted(ctx: &mut Context, reason: NoRetryReason, limits: RetryLimits) {
    let limited = matches!(
        reason,
        NoRetryReason::AttemptsExhausted | NoRetryReason::TimeoutElapsed
    ) && limits.attempts > 1;
    if limited
        && select::has_untried_peer(ctx)
        && let Some(upstream) = ctx.upstream()
    {
        upstream.metrics.retries_exhausted.inc();
    }
}

fn retry_next_peer(ctx: &mut Context) -> bool {
    let moved = select::advance(ctx);
    if let (true, Some(upstream)) = (moved, ctx.upstream()) {
        upstream.metrics.retries.inc();
    }
    moved
}

fn retry_fresh_connection(ctx: &mut Context) -> bool {
    if let Some(attempt) = &mut ctx.attempt {
        attempt.fresh_connection = true;
        attempt.connect_time = None;
    }
    ctx.attempt.is_some()
}
