//! Phases 4 and 5: the walk from the request's key, and the peer of each attempt.

use std::future::poll_fn;
use std::sync::Arc;

use tokio::time::timeout;

use super::attempt::Attempt;
use super::context::Context;
use crate::clock;
use crate::fault::Fault;
use crate::upstream::in_flight::UpstreamPermit;
use crate::upstream::{Admission, AdmitOutcome, QueuedRequest};

/// Chooses the peer of the first attempt. If it is full, the request may wait for it in a queue.
pub(crate) async fn select_initial(ctx: &mut Context) -> Result<(), Fault> {
    let (Some(upstream), Some(target)) = (ctx.upstream().map(Arc::clone), ctx.hash_target.clone())
    else {
        return Err(Fault::NoRoute);
    };
    let mut now = clock::since_start();
    let admitted =
        match upstream.admit_or_enqueue(&target, &ctx.tried, now, upstream.begin_request()) {
            Ok(AdmitOutcome::Admitted(admitted)) => Ok(admitted),
            Ok(AdmitOutcome::Queued(queued)) => {
                let admitted = Box::pin(wait_in_queue(queued)).await;
                now = clock::since_start();
                admitted
            }
            Err(permit) => Err(permit),
        };
    if let Ok(admitted) = admitted {
        ctx.attempt = Some(Attempt::new(&upstream, &target, &ctx.tried, admitted, now));
        return Ok(());
    }
    upstream.metrics.no_available_peer.inc();
    Err(Fault::NoAvailablePeer)
}

/// Waits in the queue of a full peer. After the queue's timeout another available peer is chosen.
async fn wait_in_queue(mut queued: QueuedRequest<'_>) -> Result<Admission, UpstreamPermit<'_>> {
    let limit = queued.timeout();
    let turn = poll_fn(|context| queued.poll(context.waker(), clock::since_start()));
    let _ = timeout(limit, turn).await;
    queued.finish(clock::since_start())
}

/// Leaves the peer that failed and chooses the next one of the same walk; false: no peer is left.
pub(crate) fn advance(ctx: &mut Context) -> bool {
    let failed = ctx.attempt.as_ref().map(|attempt| attempt.member);
    if let Some(member) = failed {
        ctx.tried.insert(member);
    }
    let advanced = select_next(ctx);
    let peer = ctx
        .upstream()
        .zip(failed)
        .and_then(|(upstream, member)| upstream.peer(member));
    if let (true, Some(peer)) = (advanced, peer) {
        peer.metrics.retries.inc();
    }
    advanced
}

/// Whether another peer is available for the request.
pub(crate) fn has_untried_peer(ctx: &Context) -> bool {
    let (Some(target), Some(attempt)) = (&ctx.hash_target, &ctx.attempt) else {
        return false;
    };
    let mut tried = ctx.tried;
    tried.insert(attempt.member);
    attempt
        .upstream
        .select(target, &tried, clock::since_start())
        .is_some()
}

fn select_next(ctx: &mut Context) -> bool {
    let Some(upstream) = ctx.upstream().map(Arc::clone) else {
        return false;
    };
    let Some(target) = &ctx.hash_target else {
        return false;
    };
    // The request leaves the peer of the failed attempt, and stays in flight at the upstream.
    let permit = ctx
        .attempt
        .as_mut()
        .and_then(|attempt| attempt.permit.take())
        .map_or_else(
            || upstream.begin_request(),
            |permit| upstream.leave_peer(permit),
        );
    let now = clock::since_start();
    let Ok(admitted) = upstream.admit(target, &ctx.tried, now, permit) else {
        return false;
    };
    ctx.attempt = Some(Attempt::new(&upstream, target, &ctx.tried, admitted, now));
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn attempts_visit_each_peer_of_the_walk_once() {
        let mut ctx = Context::for_test_with_key("\"127.0.0.1:2\", \"127.0.0.1:3\"");
        select_initial(&mut ctx).await.unwrap();
        let first = ctx.attempt.as_ref().unwrap().member;
        assert!(has_untried_peer(&ctx));
        assert!(advance(&mut ctx));
        let second = ctx.attempt.as_ref().unwrap().member;
        assert_ne!(first, second);
        assert!(!has_untried_peer(&ctx));
        assert!(!advance(&mut ctx));
    }

    #[tokio::test]
    async fn request_without_an_available_peer_fails() {
        let mut ctx = Context::for_test_with_key("\"127.0.0.1:2\"");
        select_initial(&mut ctx).await.unwrap();
        let member = ctx.attempt.take().unwrap().member;
        ctx.tried.insert(member);
        let selected = select_initial(&mut ctx).await;
        assert_eq!(selected, Err(Fault::NoAvailablePeer));
    }
}
