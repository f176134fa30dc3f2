//! Keeps the key of a long request or stream active for as long as it lasts.
//!
//! A drain that keeps sessions goes by the time of a key's last request. A request that has lasted for longer
//! than that still belongs to the session, so its key is recorded again from time to time and once more when
//! it ends (`finish.rs`), in the configuration in force then.

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

/// Starts with the peer of an attempt, instead of the peer before.
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
    /// With the time until the key is due to be recorded again. `None`: no drain of the upstream keeps sessions,
    /// or the request is not with its key's owner.
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

    /// Records the key; the time until the next record. `None`: no drain would keep the key with its peer any
    /// more.
    fn record(&self, now: Duration) -> Option<Duration> {
        let snapshot = self.current.load();
        let upstream = snapshot.upstreams.get(&*self.upstream)?;
        upstream.refresh_affinity((&self.label, self.epoch), self.key, now)
    }
}

impl ScheduledTask for AffinityRefresh {
    fn run(&mut self, now: Duration) -> TaskOutcome {
        // Most requests end so soon after the last record that one more would make no difference.
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
