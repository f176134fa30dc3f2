//! Keeps the key of a long request or stream active for as long as it lasts.
//!
//! A drain that keeps sessions keeps a key for `drain.idle` after its last record. A request can last longer, and
//! still belongs to its session. So its key is recorded again from time to time, and once more when the request ends
//! (`finish.rs`), in the configuration that is in force then.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::context::Context;
use crate::clock;
use crate::downstream::{ScheduledTask, TaskOutcome};
use crate::ring::Hash;
use crate::snapshot::Snapshot;
use crate::upstream::{HashTarget, PeerEpoch};

/// The shortest time between two records of a key.
const MIN_INTERVAL: Duration = Duration::from_millis(250);

/// Starts to record the key at the peer of an attempt, and no longer at the peer of the attempt before.
pub(crate) fn start(current: &Arc<ArcSwap<Snapshot>>, ctx: &Context) {
    let Some(exchange) = &ctx.exchange else {
        return;
    };
    match AffinityRefresh::for_attempt(current, ctx) {
        Some((refresh, first)) => {
            let first_run = clock::since_start().saturating_add(first);
            exchange.affinity_task.start(Box::new(refresh), first_run);
        }
        None => exchange.affinity_task.cancel(),
    }
}

/// One attempt: the request's key, and the peer that serves it.
struct AffinityRefresh {
    current: Arc<ArcSwap<Snapshot>>,
    upstream: Arc<str>,
    label: Arc<str>,
    epoch: PeerEpoch,
    key: Hash,
    last_recorded: Duration,
}

impl AffinityRefresh {
    /// The refresh, and the time until the key is recorded again. `None`: no drain of the upstream keeps sessions,
    /// or the key is not recorded at this peer.
    fn for_attempt(current: &Arc<ArcSwap<Snapshot>>, ctx: &Context) -> Option<(Self, Duration)> {
        let attempt = ctx.attempt.as_ref()?;
        let (epoch, first) = (
            attempt.epoch?,
            attempt.upstream.affinity_refresh_interval()?,
        );
        let Some(HashTarget::Key(key)) = &ctx.hash_target else {
            return None;
        };
        let refresh = Self {
            current: Arc::clone(current),
            upstream: Arc::clone(&attempt.upstream.name),
            label: Arc::clone(&attempt.peer()?.label),
            epoch,
            key: key.hash(),
            last_recorded: attempt.started,
        };
        Some((refresh, first.max(MIN_INTERVAL)))
    }

    /// Records the key, and returns the time until the next record. `None`: a drain would not keep the key at its
    /// peer any more.
    fn record(&self, now: Duration) -> Option<Duration> {
        let snapshot = self.current.load();
        let upstream = snapshot.upstreams.get(&*self.upstream)?;
        upstream.refresh_affinity((&self.label, self.epoch), self.key, now)
    }
}

impl ScheduledTask for AffinityRefresh {
    fn run(&mut self, now: Duration) -> TaskOutcome {
        // Most requests end so soon after the last record that another one would not matter.
        if now.saturating_sub(self.last_recorded) < MIN_INTERVAL {
            return TaskOutcome::RunAgain(MIN_INTERVAL);
        }
        self.last_recorded = now;
        match self.record(now) {
            Some(next) => TaskOutcome::RunAgain(next.max(MIN_INTERVAL)),
            None => TaskOutcome::Done,
        }
    }
}

impl std::fmt::Debug for AffinityRefresh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AffinityRefresh")
            .field("upstream", &self.upstream)
            .field("label", &self.label)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::super::{attempt_events, request_key, route, select};
    use super::*;

    const IDLE: Duration = Duration::from_secs(30);
    const SECOND: Duration = Duration::from_secs(1);

    /// A request on its first attempt, to an upstream with these settings.
    async fn attempted(settings: &str) -> Context {
        let mut ctx = Context::for_test(&format!(
            "routes: [{{upstream: app}}]\n\
             upstreams: {{app: {{key: path, peers: [\"127.0.0.1:2\"], health: off, {settings}}}}}"
        ));
        route::resolve_route(&HeaderMap::new(), &mut ctx).unwrap();
        request_key::compute_key(&HeaderMap::new(), &mut ctx).unwrap();
        select::select_initial(&mut ctx).await.unwrap();
        attempt_events::start(&mut ctx).unwrap();
        ctx
    }

    fn current(ctx: &Context) -> Arc<ArcSwap<Snapshot>> {
        Arc::new(ArcSwap::new(Arc::clone(&ctx.snapshot)))
    }

    #[tokio::test]
    async fn key_of_a_long_request_is_recorded_three_times_within_idle() {
        let ctx = attempted("drain: {idle: 30s}").await;
        let (mut refresh, first) = AffinityRefresh::for_attempt(&current(&ctx), &ctx).unwrap();
        assert_eq!(first, IDLE / 3);
        let started = refresh.last_recorded;
        // The attempt itself has recorded the key.
        assert_eq!(refresh.run(started), TaskOutcome::RunAgain(MIN_INTERVAL));
        assert_eq!(refresh.last_recorded, started);
        let later = started + first;
        assert_eq!(refresh.run(later), TaskOutcome::RunAgain(IDLE / 3));
        assert_eq!(refresh.last_recorded, later);
    }

    #[tokio::test]
    async fn key_is_not_recorded_more_often_than_the_shortest_interval() {
        let ctx = attempted("drain: {idle: 10s}").await;
        let (mut refresh, _) = AffinityRefresh::for_attempt(&current(&ctx), &ctx).unwrap();
        let first = refresh.last_recorded + SECOND;
        refresh.run(first);
        let too_early = first + MIN_INTERVAL / 2;
        assert_eq!(refresh.run(too_early), TaskOutcome::RunAgain(MIN_INTERVAL));
        assert_eq!(refresh.last_recorded, first);
    }

    #[tokio::test]
    async fn refresh_ends_when_a_reload_turns_the_drain_off() {
        let ctx = attempted("drain: {idle: 30s}").await;
        let current = current(&ctx);
        let (mut refresh, first) = AffinityRefresh::for_attempt(&current, &ctx).unwrap();
        current.store(attempted("drain: off").await.snapshot.clone());
        let later = refresh.last_recorded + first;
        assert_eq!(refresh.run(later), TaskOutcome::Done);
    }

    #[tokio::test]
    async fn upstream_that_keeps_no_keys_needs_no_refresh() {
        let ctx = attempted("drain: off").await;
        assert!(AffinityRefresh::for_attempt(&current(&ctx), &ctx).is_none());
    }
}
