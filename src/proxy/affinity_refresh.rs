//! Beside a request that takes long: its key is active as long as it goes on.
//!
//! A drain that keeps sessions goes by when a key had its last request. A stream, or a request, that is older
//! than that is still one: so it is recorded from time to time, and when it ends, in the configuration that is in
//! force then.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::context::Context;
use crate::clock;
use crate::downstream::PeriodicTask;
use crate::ring::Hash;
use crate::snapshot::Snapshot;
use crate::upstream::{HashTarget, PeerEpoch};

/// The shortest time between two records.
const MIN_INTERVAL: Duration = Duration::from_millis(250);

/// The peer of this attempt is known: if the key is at home with it, it stays so.
pub(super) fn start(current: &Arc<ArcSwap<Snapshot>>, ctx: &Context) {
    let Some(exchange) = &ctx.exchange else {
        return;
    };
    match AffinityRefresh::for_attempt(current, ctx) {
        Some((session, first)) => exchange.start_periodic(Box::new(session), first),
        None => exchange.stop_periodic(),
    }
}

/// A request of a key at its peer.
struct AffinityRefresh {
    current: Arc<ArcSwap<Snapshot>>,
    upstream: Arc<str>,
    label: Arc<str>,
    epoch: PeerEpoch,
    key: Hash,
    last_recorded: Duration,
}

impl AffinityRefresh {
    /// With the time until it is due to be recorded again.
    fn for_attempt(current: &Arc<ArcSwap<Snapshot>>, ctx: &Context) -> Option<(Self, Duration)> {
        let attempt = ctx.attempt.as_ref()?;
        let (tenure, first) = (
            attempt.epoch?,
            attempt.upstream.affinity_refresh_interval()?,
        );
        let Some(HashTarget::Key(key)) = &ctx.target else {
            return None;
        };
        let session = Self {
            current: Arc::clone(current),
            upstream: Arc::clone(&attempt.upstream.name),
            label: Arc::clone(&attempt.peer()?.label),
            epoch: tenure,
            key: key.hash(),
            last_recorded: attempt.started,
        };
        Some((session, first.max(MIN_INTERVAL)))
    }
}

impl PeriodicTask for AffinityRefresh {
    fn run(&mut self) -> Option<Duration> {
        let now = clock::since_start();
        // Most requests are over before that would make a difference.
        if now.saturating_sub(self.last_recorded) < MIN_INTERVAL {
            return Some(MIN_INTERVAL);
        }
        self.last_recorded = now;
        let snapshot = self.current.load();
        let upstream = snapshot.upstreams.get(&*self.upstream)?;
        let next = upstream.refresh_affinity((&self.label, self.epoch), self.key, now)?;
        Some(next.max(MIN_INTERVAL))
    }
}

impl std::fmt::Debug for AffinityRefresh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("upstream", &self.upstream)
            .field("label", &self.label)
            .field("tenure", &self.epoch)
            .finish_non_exhaustive()
    }
}
