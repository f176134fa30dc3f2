//! What follows from a failed attempt: the next one, where the request may be repeated.
//!
//! The only place that sets Pingora's retry flag. Overriding Pingora's hooks replaces its own default (never
//! repeat a method that is not idempotent, or a body that is no longer whole);
//! [`policy::retry`](crate::policy::retry) states that rule anew.

use pingora::ErrorType::{
    ConnectionClosed, H2Downgrade, H2Error, ReadError, TLSHandshakeFailure, WriteError,
};
use pingora::proxy::Session;
use pingora::{Error, ErrorSource};

use super::context::Context;
use super::{outlier_detection, select};
use crate::clock;
use crate::fault::Fault;
use crate::policy::retry::{
    self, FailedAttempt, NoRetryReason, RetryClass, RetryDecision, RetryLimits,
};
use crate::proxy::classify::{self, FaultStage};

/// No connection to the peer: records the failure, and prepares the next attempt where one is allowed.
pub(crate) fn on_connect_failed(session: &mut Session, ctx: &mut Context, error: &mut Error) {
    let is_fresh = ctx
        .attempt
        .as_ref()
        .is_some_and(|it| it.needs_fresh_connection);
    let repeat = if is_stale_connection(error, is_fresh) {
        Repeatable::STALE_CONNECTION
    } else {
        let fault = classify::classify_connect(error.etype());
        outlier_detection::record_connect_failure(ctx, fault, error);
        Repeatable::on_any_connection(fault)
    };
    let again = prepare_retry(session, ctx, repeat);
    error.set_retry(again);
}

/// The exchange with the peer failed: prepares the next attempt where one is allowed.
pub(crate) fn on_exchange_failed(
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
        Repeatable::before_response(error, reused, falls_back)
    };
    let again = prepare_retry(session, ctx, repeat);
    error.set_retry(again);
}

/// Whether, and where, a failure allows the request to be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Repeatable {
    class: RetryClass,
    stale_connection: bool,
}

impl Repeatable {
    /// The connection ended before the peer looked at the request, which says nothing about the peer.
    const STALE_CONNECTION: Self = Self {
        class: RetryClass::AnyRequest,
        stale_connection: true,
    };

    fn on_any_connection(fault: Fault) -> Self {
        Self {
            class: fault.retry(),
            stale_connection: false,
        }
    }

    /// `reused`: the connection was from the pool. `falls_back`: HTTP/1.1 is left to be tried.
    fn before_response(error: &Error, reused: bool, falls_back: bool) -> Self {
        let unprocessed = classify::is_unprocessed(error);
        let downgraded = falls_back && *error.etype() == H2Downgrade;
        if *error.esource() == ErrorSource::Upstream && (unprocessed || downgraded) {
            return Self::STALE_CONNECTION;
        }
        let fault = classify::classify_error(error, FaultStage::AwaitingResponse);
        let closed = matches!(error.etype(), ReadError | WriteError | ConnectionClosed)
            && !classify::is_stream_reset(error);
        Self {
            stale_connection: reused && closed && fault == Fault::UpstreamReset,
            ..Self::on_any_connection(fault)
        }
    }
}

/// Whether a shared connection of HTTP/2 had ended, and no new one was tried.
fn is_stale_connection(error: &Error, is_fresh: bool) -> bool {
    !is_fresh && *error.etype() == H2Error && classify::h2_error(error).is_some()
}

/// Prepares the next attempt, where there may be one; false: the failure is final.
fn prepare_retry(session: &Session, ctx: &mut Context, repeat: Repeatable) -> bool {
    let Some(limits) = retry_limits(ctx) else {
        return false;
    };
    let failed = FailedAttempt {
        retry: repeat.class,
        stale_connection: repeat.stale_connection,
        method: &ctx.request.method,
        body_replayable: !session.as_ref().retry_buffer_truncated(),
        fresh_connection_tried: ctx
            .attempt
            .as_ref()
            .is_some_and(|it| it.needs_fresh_connection),
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

/// Counts a request that a limit kept from another peer; not where retries are off, or no peer is left.
fn count_retries_exhausted(ctx: &Context, reason: NoRetryReason, limits: RetryLimits) {
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
    let advanced = select::advance(ctx);
    if let (true, Some(upstream)) = (advanced, ctx.upstream()) {
        upstream.metrics.retries.inc();
    }
    advanced
}

fn retry_fresh_connection(ctx: &mut Context) -> bool {
    if let Some(attempt) = &mut ctx.attempt {
        attempt.needs_fresh_connection = true;
        attempt.connect_time = None;
    }
    ctx.attempt.is_some()
}

#[cfg(test)]
mod tests {
    use pingora::ErrorType::{self, InvalidHTTPHeader, ReadTimedout, WriteTimedout};

    use super::*;
    use crate::fault::Blame;

    fn before_response(error: &Error, reused: bool) -> (RetryClass, bool) {
        let repeat = Repeatable::before_response(error, reused, false);
        (repeat.class, repeat.stale_connection)
    }

    #[test]
    fn upstream_failure_before_the_response_follows_the_fault_table() {
        for (kind, class) in [
            (ReadError, RetryClass::IdempotentRequest),
            (WriteError, RetryClass::IdempotentRequest),
            (ConnectionClosed, RetryClass::IdempotentRequest),
            (WriteTimedout, RetryClass::Never),
            (InvalidHTTPHeader, RetryClass::Never),
            (H2Error, RetryClass::Never),
            (H2Downgrade, RetryClass::Never),
        ] {
            let error = Error::new_up(kind.clone());
            assert_eq!(before_response(&error, false), (class, false), "{kind:?}");
        }
    }

    #[test]
    fn closed_connection_is_stale_only_if_it_was_reused() {
        for kind in [ReadError, WriteError, ConnectionClosed] {
            let error = Error::new_up(kind.clone());
            let expected = (RetryClass::IdempotentRequest, true);
            assert_eq!(before_response(&error, true), expected, "{kind:?}");
        }
        for kind in [WriteTimedout, InvalidHTTPHeader] {
            let error = Error::new_up(kind.clone());
            let expected = (RetryClass::Never, false);
            assert_eq!(before_response(&error, true), expected, "{kind:?}");
        }
    }

    #[test]
    fn failure_of_the_client_or_of_our_own_is_final() {
        for kind in [ReadError, WriteError, ConnectionClosed, ReadTimedout] {
            for error in [Error::new_down(kind.clone()), Error::new_in(kind.clone())] {
                for reused in [false, true] {
                    let expected = (RetryClass::Never, false);
                    assert_eq!(before_response(&error, reused), expected, "{error}");
                }
            }
        }
    }

    #[test]
    fn downgrade_to_http1_repeats_every_request_where_http1_is_left() {
        let error = Error::new_up(H2Downgrade);
        let repeat = |falls_back| Repeatable::before_response(&error, false, falls_back);
        assert_eq!(repeat(true), Repeatable::STALE_CONNECTION);
        assert_eq!(repeat(false).class, RetryClass::Never);
    }

    #[test]
    fn failure_in_the_response_is_final() {
        for kind in [ReadError, WriteError, ConnectionClosed, WriteTimedout] {
            let fault = classify::classify_error(&Error::new_up(kind), FaultStage::Responding);
            let repeat = Repeatable::on_any_connection(fault);
            assert_eq!(repeat.class, RetryClass::Never, "{fault:?}");
        }
    }

    #[test]
    fn connect_failure_repeats_every_request_and_blames_local_shortage_on_no_peer() {
        for (kind, blame) in [
            (ErrorType::ConnectRefused, Blame::Peer),
            (ErrorType::ConnectTimedout, Blame::Peer),
            (TLSHandshakeFailure, Blame::Peer),
            (ErrorType::BindError, Blame::Proxy),
            (ErrorType::SocketError, Blame::Proxy),
            (ErrorType::InternalError, Blame::Proxy),
        ] {
            let fault = classify::classify_connect(&kind);
            assert_eq!(fault.blame(), blame, "{kind:?}");
            let repeat = Repeatable::on_any_connection(fault);
            assert_eq!(repeat.class, RetryClass::AnyRequest, "{kind:?}");
        }
    }

    #[test]
    fn shared_h2_connection_that_ended_is_stale_until_a_fresh_one_was_tried() {
        let reason = h2::Error::from(h2::Reason::NO_ERROR);
        let ended = Error::because(H2Error, "test", reason);
        assert!(is_stale_connection(&ended, false));
        assert!(!is_stale_connection(&ended, true));
        assert!(!is_stale_connection(&Error::new_up(H2Error), false));
        assert!(!is_stale_connection(
            &Error::new_up(ConnectionClosed),
            false
        ));
    }
}
