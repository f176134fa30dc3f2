//! Whether a failed attempt may be repeated, and where.
//!
//! | failure | must be safe to repeat ¹ | body must be whole ² | then |
//! |---|---|---|---|
//! | [`ConnectFailed`](Failure::ConnectFailed) | – (nothing was sent) | yes | next peer |
//! | [`Unprocessed`](Failure::Unprocessed) | – (nothing was done) | yes | the same peer on a fresh connection, once; then next peer |
//! | [`ReusedDead`](Failure::ReusedDead) | yes | yes | the same peer on a fresh connection, once; then next peer |
//! | [`ResetBeforeResponse`](Failure::ResetBeforeResponse) | yes | yes | next peer |
//! | [`FirstByteTimeout`](Failure::FirstByteTimeout) | | | never |
//! | [`ResponseStarted`](Failure::ResponseStarted) | | | never |
//! | [`Downstream`](Failure::Downstream) | | | never |
//!
//! ¹ The method is idempotent (RFC 9110 §9.2.2: a proxy must not repeat others by itself). ² All that was read of the client's body is still there to be sent again.
//!
//! On top of that, the time since the first attempt must be below its limit, and the next peer needs an attempt that is left.
//! The fresh connection needs none: that an idle connection has died says nothing about the peer, and a key
//! must not move for it. So it is tried even where retries are off.
//!
//! A response that does not come in time is not asked for elsewhere: the peer may still be working on it,
//! and where requests are slow because peers are busy, each repetition makes them busier. `HAProxy` and Envoy
//! decide alike unless told otherwise.

use std::time::Duration;

use http::Method;

/// How an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// There was no connection: refused, unreachable, not in time, no handshake.
    ConnectFailed,
    /// The peer said that it did nothing with the request (HTTP/2, RFC 9113, 8.7), or a connection that
    /// others use too was closed before it was sent.
    Unprocessed,
    /// A connection from the pool turned out to be closed before a byte of the response came.
    ReusedConnectionClosed,
    /// A fresh connection was closed or reset, or a write failed, before a byte of the response came.
    ResetBeforeResponse,
    /// The peer took the request, and did not begin to answer in time.
    FirstByteTimeout,
    /// It broke after the first byte of the response, which includes one that makes no sense.
    ResponseStarted,
    /// The client's side failed: it is gone, too slow, or its body is malformed.
    Downstream,
}

/// A failed attempt, and what came before it.
#[derive(Clone, Copy, Debug)]
pub struct FailedAttempt<'a> {
    /// How it failed.
    pub failure: Failure,
    /// The request's method.
    pub method: &'a Method,
    /// Whether all that was read of the client's body can be sent again; `true` if nothing was read.
    pub body_replayable: bool,
    /// Whether this peer already got a fresh connection after a dead one.
    pub fresh_connection_tried: bool,
    /// Attempts so far, this one included; fresh connections to a peer already tried do not count.
    pub attempts: u32,
    /// Time since the first attempt started.
    pub elapsed: Duration,
}

/// How often and how long it may be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryLimits {
    /// Attempts in total, the first included.
    pub attempts: u32,
    /// No further attempt starts this long after the first one started, or later.
    pub timeout: Duration,
}

/// What to do after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryDecision {
    /// Try the next available peer of the walk that was not tried.
    NextPeer,
    /// Try the same peer again, on a connection that is not from the pool.
    SamePeerFreshConnection,
    /// Answer the client.
    GiveUp(NoRetryReason),
}

/// Why an attempt is not repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRetryReason {
    /// The client is the one who failed.
    Downstream,
    /// The client may have seen part of the response.
    ResponseStarted,
    /// The peer may still be working on the request.
    RequestMayBeRunning,
    /// The peer may have acted on the request, and the method is not idempotent.
    NotIdempotent,
    /// Part of the client's body is no longer there to be sent again.
    BodyNotReplayable,
    /// The time for attempts is over.
    TimeoutElapsed,
    /// All attempts are used.
    AttemptsExhausted,
}

/// The rule of the table above.
pub fn decide(failed: &FailedAttempt<'_>, limits: RetryLimits) -> RetryDecision {
    match no_retry_reason(failed, limits) {
        Some(reason) => RetryDecision::GiveUp(reason),
        None if is_connection_failure(failed.failure) && !failed.fresh_connection_tried => {
            RetryDecision::SamePeerFreshConnection
        }
        None if failed.attempts >= limits.attempts => {
            RetryDecision::GiveUp(NoRetryReason::AttemptsExhausted)
        }
        None => RetryDecision::NextPeer,
    }
}

/// Whether it says something about a connection, and nothing about the peer.
fn is_connection_failure(failure: Failure) -> bool {
    matches!(
        failure,
        Failure::Unprocessed | Failure::ReusedConnectionClosed
    )
}

/// Whether a request that was sent twice has the effect of one sent once (RFC 9110 §9.2.2). Unknown
/// methods do not.
pub fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

/// Why it may not be repeated anywhere.
fn no_retry_reason(failed: &FailedAttempt<'_>, limits: RetryLimits) -> Option<NoRetryReason> {
    match failed.failure {
        Failure::Downstream => Some(NoRetryReason::Downstream),
        Failure::ResponseStarted => Some(NoRetryReason::ResponseStarted),
        Failure::FirstByteTimeout => Some(NoRetryReason::RequestMayBeRunning),
        Failure::ReusedConnectionClosed | Failure::ResetBeforeResponse
            if !is_idempotent(failed.method) =>
        {
            Some(NoRetryReason::NotIdempotent)
        }
        Failure::ConnectFailed
        | Failure::Unprocessed
        | Failure::ReusedConnectionClosed
        | Failure::ResetBeforeResponse => limit_reached(failed, limits),
    }
}

fn limit_reached(failed: &FailedAttempt<'_>, limits: RetryLimits) -> Option<NoRetryReason> {
    if !failed.body_replayable {
        Some(NoRetryReason::BodyNotReplayable)
    } else if failed.elapsed >= limits.timeout {
        Some(NoRetryReason::TimeoutElapsed)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::Failure::{
        ConnectFailed, Downstream, FirstByteTimeout, ResetBeforeResponse, ResponseStarted,
        ReusedConnectionClosed, Unprocessed,
    };
    use super::RetryDecision::{GiveUp, NextPeer, SamePeerFreshConnection};
    use super::*;

    const LIMITS: RetryLimits = RetryLimits {
        attempts: 3,
        timeout: Duration::from_secs(10),
    };
    const FAILURES: [Failure; 7] = [
        ConnectFailed,
        Unprocessed,
        ReusedConnectionClosed,
        ResetBeforeResponse,
        FirstByteTimeout,
        ResponseStarted,
        Downstream,
    ];

    /// The first attempt of a request without a body, which was sent.
    fn first(failure: Failure, method: &Method) -> FailedAttempt<'_> {
        FailedAttempt {
            failure,
            method,
            body_replayable: true,
            fresh_connection_tried: false,
            attempts: 1,
            elapsed: Duration::ZERO,
        }
    }

    #[test]
    fn retry_table_for_idempotent_methods() {
        let verdicts = FAILURES.map(|failure| decide(&first(failure, &Method::GET), LIMITS));
        assert_eq!(
            verdicts,
            [
                NextPeer,
                SamePeerFreshConnection,
                SamePeerFreshConnection,
                NextPeer,
                GiveUp(NoRetryReason::RequestMayBeRunning),
                GiveUp(NoRetryReason::ResponseStarted),
                GiveUp(NoRetryReason::Downstream),
            ]
        );
    }

    #[test]
    fn retry_table_for_non_idempotent_methods() {
        let verdicts = FAILURES.map(|failure| decide(&first(failure, &Method::POST), LIMITS));
        assert_eq!(
            verdicts,
            [
                NextPeer,
                SamePeerFreshConnection,
                GiveUp(NoRetryReason::NotIdempotent),
                GiveUp(NoRetryReason::NotIdempotent),
                GiveUp(NoRetryReason::RequestMayBeRunning),
                GiveUp(NoRetryReason::ResponseStarted),
                GiveUp(NoRetryReason::Downstream),
            ]
        );
    }

    #[test]
    fn retry_after_a_fresh_connection_goes_to_the_next_peer() {
        for failure in [ReusedConnectionClosed, Unprocessed] {
            let again = FailedAttempt {
                fresh_connection_tried: true,
                ..first(failure, &Method::GET)
            };
            assert_eq!(decide(&again, LIMITS), NextPeer);
        }
    }

    #[test]
    fn retry_without_a_replayable_body_gives_up() {
        for failure in [
            ConnectFailed,
            Unprocessed,
            ReusedConnectionClosed,
            ResetBeforeResponse,
        ] {
            let gone = FailedAttempt {
                body_replayable: false,
                ..first(failure, &Method::PUT)
            };
            assert_eq!(
                decide(&gone, LIMITS),
                GiveUp(NoRetryReason::BodyNotReplayable)
            );
        }
    }

    #[test]
    fn retry_attempts_are_limited_without_counting_stale_connections() {
        let at = |failure, attempts| FailedAttempt {
            attempts,
            ..first(failure, &Method::GET)
        };
        assert_eq!(decide(&at(ConnectFailed, 2), LIMITS), NextPeer);
        assert_eq!(
            decide(&at(ConnectFailed, 3), LIMITS),
            GiveUp(NoRetryReason::AttemptsExhausted)
        );
        assert_eq!(
            decide(&at(ReusedConnectionClosed, 3), LIMITS),
            SamePeerFreshConnection
        );
        let off = RetryLimits {
            attempts: 1,
            ..LIMITS
        };
        assert_eq!(
            decide(&at(ConnectFailed, 1), off),
            GiveUp(NoRetryReason::AttemptsExhausted)
        );
        assert_eq!(
            decide(&at(ReusedConnectionClosed, 1), off),
            SamePeerFreshConnection
        );
    }

    #[test]
    fn retry_time_is_limited() {
        let at = |failure, elapsed| FailedAttempt {
            elapsed,
            ..first(failure, &Method::GET)
        };
        let late = LIMITS.timeout;
        let in_time = late.saturating_sub(Duration::from_nanos(1));
        assert_eq!(decide(&at(ConnectFailed, in_time), LIMITS), NextPeer);
        assert_eq!(
            decide(&at(ConnectFailed, late), LIMITS),
            GiveUp(NoRetryReason::TimeoutElapsed)
        );
        assert_eq!(
            decide(&at(ReusedConnectionClosed, late), LIMITS),
            GiveUp(NoRetryReason::TimeoutElapsed)
        );
    }

    #[test]
    fn idempotent_methods_follow_rfc_9110() {
        let custom = Method::from_bytes(b"PURGE").unwrap();
        for no in [Method::POST, Method::PATCH, Method::CONNECT, custom] {
            assert!(!is_idempotent(&no), "{no}");
        }
        for yes in ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"] {
            assert!(is_idempotent(&yes.parse().unwrap()), "{yes}");
        }
    }
}
