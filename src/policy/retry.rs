//! Whether a failed attempt may be repeated, and where.
//!
//! The [`RetryClass`] of a [`fault`](crate::fault) says which requests may be repeated after it. Three conditions
//! apply to these requests: every byte of the body that was read can be sent again; the time limit since the first
//! attempt has not passed; an attempt is left for the next peer.
//!
//! A stale connection is one from the pool that the peer had already closed. It is no failure of the peer, so the
//! key must not move. The request is sent once more to the same peer, on a fresh connection. This does not count as
//! an attempt, and is done even if retries are off.
//!
//! After a timeout of the response the request is not repeated. The peer may still be working on it, and if
//! requests are slow because peers are busy, a repetition adds load. HAProxy and Envoy do the same by default.

use std::time::Duration;

use http::Method;

/// The requests that may be repeated after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryClass {
    /// None: the peer may be working on the request, the client may have seen some of the response, or
    /// no peer is to blame.
    Never,
    /// Those with an idempotent method (RFC 9110 §9.2.2): the peer may have acted on the request.
    IdempotentRequest,
    /// All: no peer has acted on the request.
    AnyRequest,
}

/// A failed attempt, and what came before it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FailedAttempt<'a> {
    /// The requests that may be repeated after this failure.
    pub retry: RetryClass,
    /// Whether the cause is a stale connection, not the peer.
    pub stale_connection: bool,
    /// The request's method.
    pub method: &'a Method,
    /// Whether all that was read of the client's body can be sent again; `true` if nothing was read.
    pub body_replayable: bool,
    /// Whether this peer was already tried on a fresh connection after a stale one.
    pub fresh_connection_tried: bool,
    /// Attempts so far, this one included; fresh connections to a peer already tried do not count.
    pub attempts: u32,
    /// Time since the first attempt started.
    pub elapsed: Duration,
}

/// How often and how long it may be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RetryLimits {
    /// Attempts in total, the first included.
    pub attempts: u32,
    /// No further attempt starts this long after the first one started, or later.
    pub timeout: Duration,
}

/// What to do after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RetryDecision {
    /// Try the next available peer of the walk that was not tried.
    NextPeer,
    /// Try the same peer again, on a connection that is not from the pool.
    SamePeerFreshConnection,
    /// Answer the client.
    GiveUp(NoRetryReason),
}

/// Why an attempt is not repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRetryReason {
    /// The failure is final for every request.
    FinalFailure,
    /// The peer may have acted on the request, and the method is not idempotent.
    NotIdempotent,
    /// A part of the client's body is no longer buffered, so it cannot be sent again.
    BodyNotReplayable,
    /// The time for attempts is over.
    TimeoutElapsed,
    /// All attempts are used.
    AttemptsExhausted,
}

/// Decides what follows a failed attempt.
pub(crate) fn decide(failed: &FailedAttempt<'_>, limits: RetryLimits) -> RetryDecision {
    match no_retry_reason(failed, limits) {
        Some(reason) => RetryDecision::GiveUp(reason),
        None if failed.stale_connection && !failed.fresh_connection_tried => {
            RetryDecision::SamePeerFreshConnection
        }
        None if failed.attempts >= limits.attempts => {
            RetryDecision::GiveUp(NoRetryReason::AttemptsExhausted)
        }
        None => RetryDecision::NextPeer,
    }
}

/// Whether a request that was sent twice has the effect of one sent once (RFC 9110 §9.2.2). Unknown
/// methods do not.
pub(crate) fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

/// The reason why the attempt may be repeated nowhere, if there is one.
fn no_retry_reason(failed: &FailedAttempt<'_>, limits: RetryLimits) -> Option<NoRetryReason> {
    match failed.retry {
        RetryClass::Never => Some(NoRetryReason::FinalFailure),
        RetryClass::IdempotentRequest if !is_idempotent(failed.method) => {
            Some(NoRetryReason::NotIdempotent)
        }
        RetryClass::IdempotentRequest | RetryClass::AnyRequest => limit_reached(failed, limits),
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
    use super::RetryClass::{AnyRequest, IdempotentRequest, Never};
    use super::RetryDecision::{GiveUp, NextPeer, SamePeerFreshConnection};
    use super::*;

    const LIMITS: RetryLimits = RetryLimits {
        attempts: 3,
        timeout: Duration::from_secs(10),
    };

    /// The first attempt of a request without a body.
    fn first(retry: RetryClass, method: &Method) -> FailedAttempt<'_> {
        FailedAttempt {
            retry,
            stale_connection: false,
            method,
            body_replayable: true,
            fresh_connection_tried: false,
            attempts: 1,
            elapsed: Duration::ZERO,
        }
    }

    fn stale(retry: RetryClass, method: &Method) -> FailedAttempt<'_> {
        FailedAttempt {
            stale_connection: true,
            ..first(retry, method)
        }
    }

    #[test]
    fn retry_class_and_method_decide_on_the_first_failure() {
        let final_failure = GiveUp(NoRetryReason::FinalFailure);
        let not_idempotent = GiveUp(NoRetryReason::NotIdempotent);
        for (retry, get, post) in [
            (AnyRequest, NextPeer, NextPeer),
            (IdempotentRequest, NextPeer, not_idempotent),
            (Never, final_failure, final_failure),
        ] {
            assert_eq!(decide(&first(retry, &Method::GET), LIMITS), get);
            assert_eq!(decide(&first(retry, &Method::POST), LIMITS), post);
        }
    }

    #[test]
    fn stale_connection_is_replaced_if_the_request_may_be_repeated() {
        let not_idempotent = GiveUp(NoRetryReason::NotIdempotent);
        for (retry, get, post) in [
            (AnyRequest, SamePeerFreshConnection, SamePeerFreshConnection),
            (IdempotentRequest, SamePeerFreshConnection, not_idempotent),
        ] {
            assert_eq!(decide(&stale(retry, &Method::GET), LIMITS), get);
            assert_eq!(decide(&stale(retry, &Method::POST), LIMITS), post);
        }
    }

    #[test]
    fn retry_after_a_fresh_connection_goes_to_the_next_peer() {
        for retry in [AnyRequest, IdempotentRequest] {
            let again = FailedAttempt {
                fresh_connection_tried: true,
                ..stale(retry, &Method::GET)
            };
            assert_eq!(decide(&again, LIMITS), NextPeer);
        }
    }

    #[test]
    fn retry_without_a_replayable_body_gives_up() {
        for retry in [AnyRequest, IdempotentRequest] {
            for failed in [first(retry, &Method::PUT), stale(retry, &Method::PUT)] {
                let gone = FailedAttempt {
                    body_replayable: false,
                    ..failed
                };
                let expected = GiveUp(NoRetryReason::BodyNotReplayable);
                assert_eq!(decide(&gone, LIMITS), expected);
            }
        }
    }

    #[test]
    fn retry_attempts_are_limited_without_counting_stale_connections() {
        let at = |attempts, failed: FailedAttempt<'static>| FailedAttempt { attempts, ..failed };
        let refused = first(AnyRequest, &Method::GET);
        let closed = stale(IdempotentRequest, &Method::GET);
        let exhausted = GiveUp(NoRetryReason::AttemptsExhausted);
        assert_eq!(decide(&at(2, refused), LIMITS), NextPeer);
        assert_eq!(decide(&at(3, refused), LIMITS), exhausted);
        assert_eq!(decide(&at(3, closed), LIMITS), SamePeerFreshConnection);
        let off = RetryLimits {
            attempts: 1,
            ..LIMITS
        };
        assert_eq!(decide(&at(1, refused), off), exhausted);
        assert_eq!(decide(&at(1, closed), off), SamePeerFreshConnection);
    }

    #[test]
    fn retry_time_is_limited() {
        let at = |elapsed, failed: FailedAttempt<'static>| FailedAttempt { elapsed, ..failed };
        let late = LIMITS.timeout;
        let in_time = late.saturating_sub(Duration::from_nanos(1));
        let refused = first(AnyRequest, &Method::GET);
        let closed = stale(IdempotentRequest, &Method::GET);
        let elapsed = GiveUp(NoRetryReason::TimeoutElapsed);
        assert_eq!(decide(&at(in_time, refused), LIMITS), NextPeer);
        assert_eq!(decide(&at(late, refused), LIMITS), elapsed);
        assert_eq!(decide(&at(late, closed), LIMITS), elapsed);
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
