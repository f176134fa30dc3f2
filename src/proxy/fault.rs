//! What went wrong with a request, judged once: whose blame, which status, may it be tried again.
//!
//! The only place that knows statuses for failures, and the only one that sets Pingora's retry
//! flag. Overriding Pingora's hooks replaces its own safe default (never repeat a method that is
//! not idempotent, or a body that is no longer whole); [`retry::judge`] states that rule anew.

use pingora_error::ErrorSource::{Downstream, Internal, Unset, Upstream};
use pingora_error::ErrorType::{
    BindError, ConnectTimedout, ConnectionClosed, ReadError, ReadTimedout, TLSHandshakeTimedout,
    WriteError, WriteTimedout,
};
use pingora_error::{Error, ErrorType};
use pingora_proxy::Session;

use super::context::Context;
use super::pick;
use crate::clock;
use crate::policy::ejection::Rules;
use crate::policy::retry::{self, FailedAttempt, Failure, Limits, Reason, Verdict};

/// What went wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// `Host` is missing, or there are several.
    BadHost,
    /// The request makes no sense.
    BadRequest,
    /// The client's body did not come in time.
    BodyTimeout,
    /// The body is larger than allowed.
    BodyTooLarge,
    /// The client left before its response was complete.
    ClientGone,
    /// The client did not take the response in time.
    ClientStalled,
    /// No connection to the peer.
    ConnectFailed,
    /// No connection to the peer in time.
    ConnectTimeout,
    /// The process ended before the request did.
    Cut,
    /// The peer did not begin to answer in time.
    FirstByteTimeout,
    /// The header is larger than allowed.
    HeaderTooLarge,
    /// Our own failure.
    Internal,
    /// The peer's answer makes no sense.
    BadResponse,
    /// The route is not for this method.
    MethodNotAllowed,
    /// None of the key sources is present, and the upstream refuses that.
    MissingKey,
    /// No peer is up.
    NoPeer,
    /// No route is for this host and path.
    NoRoute,
    /// Our own code panicked.
    Panic,
    /// The whole request took longer than it may.
    RequestTimeout,
    /// The peer closed the connection before it answered.
    Reset,
    /// The response broke off.
    ResponseCut,
    /// The peer paused for too long in the middle of its response.
    ResponseStalled,
    /// The peer did not take the request in time.
    SendTimeout,
    /// The request target is longer than allowed.
    UriTooLong,
}

impl Fault {
    /// The status that the client is sent, if it was sent none yet. 499, as nginx has it, is never
    /// seen by a client: it is gone.
    pub(super) fn status(self) -> u16 {
        match self {
            Self::BadHost | Self::BadRequest | Self::MissingKey => 400,
            Self::NoRoute => 404,
            Self::MethodNotAllowed => 405,
            Self::BodyTimeout => 408,
            Self::BodyTooLarge => 413,
            Self::UriTooLong => 414,
            Self::HeaderTooLarge => 431,
            Self::ClientGone | Self::ClientStalled => 499,
            Self::Internal | Self::Panic => 500,
            Self::BadResponse | Self::ConnectFailed | Self::Reset | Self::ResponseCut => 502,
            Self::Cut | Self::NoPeer => 503,
            Self::ConnectTimeout
            | Self::FirstByteTimeout
            | Self::RequestTimeout
            | Self::ResponseStalled
            | Self::SendTimeout => 504,
        }
    }

    /// For the access log, the `fault` label of the metrics, and the error page.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::BadHost => "bad_host",
            Self::BadRequest => "bad_request",
            Self::BadResponse => "bad_response",
            Self::BodyTimeout => "body_timeout",
            Self::BodyTooLarge => "body_too_large",
            Self::ClientGone => "client_gone",
            Self::ClientStalled => "client_stalled",
            Self::ConnectFailed => "connect_failed",
            Self::ConnectTimeout => "connect_timeout",
            Self::Cut => "cut",
            Self::FirstByteTimeout => "first_byte_timeout",
            Self::HeaderTooLarge => "header_too_large",
            Self::Internal => "internal",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::MissingKey => "missing_key",
            Self::NoPeer => "no_peer",
            Self::NoRoute => "no_route",
            Self::Panic => "panic",
            Self::RequestTimeout => "request_timeout",
            Self::Reset => "reset",
            Self::ResponseCut => "response_cut",
            Self::ResponseStalled => "response_stalled",
            Self::SendTimeout => "send_timeout",
            Self::UriTooLong => "uri_too_long",
        }
    }
}

/// There was no connection to the peer: blames it, and moves on where that is allowed.
pub(super) fn connect_failed(session: &mut Session, ctx: &mut Context, error: &mut Error) {
    if is_peers_fault(error.etype()) {
        blame(ctx);
    }
    let again = try_again(session, ctx, Failure::ConnectFailed);
    error.set_retry(again);
}

/// The exchange with the peer broke: moves on where that is allowed.
pub(super) fn exchange_failed(
    session: &mut Session,
    ctx: &mut Context,
    error: &mut Error,
    reused: bool,
) {
    let failure = match error.esource() {
        Downstream | Internal | Unset => Failure::Downstream,
        Upstream if ctx.status != 0 || session.response_written().is_some() => {
            Failure::ResponseStarted
        }
        Upstream => match error.etype() {
            ReadTimedout | WriteTimedout => Failure::FirstByteTimeout,
            ReadError | WriteError | ConnectionClosed if reused => Failure::ReusedDead,
            ReadError | WriteError | ConnectionClosed => Failure::ResetBeforeResponse,
            _ => Failure::ResponseStarted,
        },
    };
    let again = try_again(session, ctx, failure);
    error.set_retry(again);
}

/// What the final error of a request amounts to.
pub(super) fn judge(session: &Session, ctx: &Context, error: &Error) -> Fault {
    let started = session
        .response_written()
        .is_some_and(|response| !response.status.is_informational());
    ctx.fault.unwrap_or_else(|| match error.esource() {
        Downstream => downstream(error.etype()),
        Upstream
            if ctx
                .attempt
                .as_ref()
                .is_some_and(|attempt| attempt.connect.is_none()) =>
        {
            connecting(error.etype())
        }
        Upstream => upstream(error.etype(), started),
        Internal | Unset => Fault::Internal,
    })
}

fn downstream(error: &ErrorType) -> Fault {
    match error {
        ReadTimedout => Fault::BodyTimeout,
        WriteTimedout => Fault::ClientStalled,
        ReadError | WriteError | ConnectionClosed => Fault::ClientGone,
        _ => Fault::BadRequest,
    }
}

fn connecting(error: &ErrorType) -> Fault {
    match error {
        ConnectTimedout | TLSHandshakeTimedout => Fault::ConnectTimeout,
        _ => Fault::ConnectFailed,
    }
}

fn upstream(error: &ErrorType, started: bool) -> Fault {
    match error {
        ReadTimedout if started => Fault::ResponseStalled,
        ReadTimedout => Fault::FirstByteTimeout,
        WriteTimedout => Fault::SendTimeout,
        _ if started => Fault::ResponseCut,
        ReadError | WriteError | ConnectionClosed => Fault::Reset,
        _ => Fault::BadResponse,
    }
}

/// Running out of local ports or descriptors says nothing about the peer.
fn is_peers_fault(error: &ErrorType) -> bool {
    !matches!(
        error,
        BindError | ErrorType::SocketError | ErrorType::InternalError
    )
}

fn blame(ctx: &Context) {
    let (Some(upstream), Some(peer)) = (ctx.upstream(), ctx.peer()) else {
        return;
    };
    peer.metrics.connect_failures.inc();
    let Some(passive) = &upstream.config.passive else {
        return;
    };
    let rules = Rules {
        failures: passive.failures,
        eject: passive.eject,
        max_eject: passive.max_eject,
    };
    if let Some(length) = peer.state.on_connect_failure(&rules, clock::since_start()) {
        peer.metrics.ejections.inc();
        log::warn!(
            "upstream {}: peer {} is ejected for {length:?}: connects fail",
            upstream.name,
            peer.label
        );
    }
}

/// Prepares the next attempt, where there may be one; false: this failure is final.
fn try_again(session: &mut Session, ctx: &mut Context, failure: Failure) -> bool {
    let Some(retry) = ctx.upstream().map(|upstream| upstream.config.retry) else {
        return false;
    };
    let failed = FailedAttempt {
        failure,
        method: &ctx.ask.method,
        written: failure != Failure::ConnectFailed,
        body_replayable: !session.as_ref().retry_buffer_truncated(),
        refreshed: ctx.attempt.as_ref().is_some_and(|attempt| attempt.fresh),
        attempts: ctx.attempts,
        elapsed: clock::since_start().saturating_sub(ctx.started),
    };
    match retry::judge(
        &failed,
        Limits {
            attempts: retry.attempts,
            timeout: retry.timeout,
        },
    ) {
        Verdict::GiveUp(Reason::AttemptsUsed | Reason::TimeUp) => {
            count_retry(ctx, false);
            false
        }
        Verdict::GiveUp(_) => false,
        Verdict::SamePeerFresh => refresh(ctx),
        Verdict::NextPeer => {
            let moved = pick::move_on(ctx);
            count_retry(ctx, moved);
            moved
        }
    }
}

fn count_retry(ctx: &Context, moved: bool) {
    let Some(upstream) = ctx.upstream() else {
        return;
    };
    if moved {
        upstream.metrics.retries.inc()
    } else {
        upstream.metrics.retries_exhausted.inc()
    };
}

fn refresh(ctx: &mut Context) -> bool {
    if let Some(attempt) = &mut ctx.attempt {
        attempt.fresh = true;
        attempt.connect = None;
    }
    ctx.attempt.is_some()
}
