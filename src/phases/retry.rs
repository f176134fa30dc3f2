//! Starts the next attempt after a failed one, if the request may be repeated.
//!
//! [`policy::retry`](crate::policy::retry) contains the rule. The carrier of the request classifies the failure.

use super::context::Context;
use super::{attempt_events, select};
use crate::clock;
use crate::fault::Fault;
use crate::policy::retry::{
    self, FailedAttempt, NoRetryReason, RetryClass, RetryDecision, RetryLimits,
};

/// A failure: whether it allows the request to be repeated, and at which peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Repeatable {
    /// The failure.
    pub(crate) fault: Fault,
    /// The requests that may be repeated.
    pub(crate) class: RetryClass,
    /// Whether the connection was closed before the peer processed the request.
    pub(crate) stale_connection: bool,
}

impl Repeatable {
    /// The connection ended before the peer processed the request. This is no failure of the peer.
    pub(crate) const STALE_CONNECTION: Self = Self {
        fault: Fault::UpstreamReset,
        class: RetryClass::AnyRequest,
        stale_connection: true,
    };

    /// A failure that can happen on a pooled and on a fresh connection.
    pub(crate) fn on_any_connection(fault: Fault) -> Self {
        Self {
            fault,
            class: fault.retry(),
            stale_connection: false,
        }
    }
}

/// Counts the failure, and prepares the next attempt if there may be one; false: the failure is final.
pub(crate) fn prepare_retry(ctx: &mut Context, repeat: Repeatable) -> bool {
    if let Some(exchange) = &ctx.exchange {
        // Until the next peer is connected, the body is not read.
        exchange.end_body_wait();
    }
    let fresh_connection_tried = ctx
        .attempt
        .as_ref()
        .is_some_and(|it| it.needs_fresh_connection);
    // A peer that processes nothing on a fresh connection either is to blame.
    let is_stale = repeat.stale_connection && !fresh_connection_tried;
    attempt_events::fail(ctx, repeat.fault, is_stale);
    let Some(limits) = retry_limits(ctx) else {
        return false;
    };
    let failed = FailedAttempt {
        retry: repeat.class,
        stale_connection: repeat.stale_connection,
        method: &ctx.request.method,
        body_replayable: ctx.body_replayable,
        fresh_connection_tried,
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

/// Counts a request that a limit kept from another peer; not if retries are off or no peer is left.
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
    use super::*;

    #[tokio::test]
    async fn attempt_is_repeated_only_while_the_body_can_be_sent_again() {
        let mut ctx = Context::for_test_with_key("\"127.0.0.1:2\", \"127.0.0.1:3\"");
        select::select_initial(&mut ctx).await.unwrap();
        attempt_events::start(&mut ctx).unwrap();
        let first = ctx.attempt.as_ref().unwrap().member;
        let reset = Repeatable::on_any_connection(Fault::UpstreamReset);
        ctx.body_replayable = false;
        assert!(!prepare_retry(&mut ctx, reset));
        ctx.body_replayable = true;
        assert!(prepare_retry(&mut ctx, reset));
        assert_ne!(ctx.attempt.as_ref().unwrap().member, first);
    }
}
