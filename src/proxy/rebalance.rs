//! Beside a long stream: is its peer still the one that its key is at home with?
//!
//! It is looked at from time to time, against the configuration that is in force then. One whose key
//! has been at home with another peer for the chosen time is ended, at the chosen rate; its client comes
//! back, to the right peer. A key that a draining peer keeps is at home there, and a stream that was sent
//! elsewhere by intention (its home was full, its key hot) is left alone.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use pingora::proxy::Session;

use super::context::Context;
use crate::clock;
use crate::config::MovedStreamsConfig;
use crate::downstream::{AbortReason, StreamVerdict};
use crate::snapshot::Snapshot;
use crate::upstream::{Address, HashTarget, Tried, Upstream};

/// The longest time between two looks.
const MAX_INTERVAL: Duration = Duration::from_secs(5);
/// The shortest.
const MIN_INTERVAL: Duration = Duration::from_millis(20);

/// A stream at its peer.
pub(super) struct RebalanceCheck {
    current: Arc<ArcSwap<Snapshot>>,
    upstream: Arc<str>,
    key: Box<[u8]>,
    label: Arc<str>,
    address: Address,
    /// Since when its key is at home with another.
    moved_since: Option<Duration>,
}

impl RebalanceCheck {
    /// With the time to the first look. `None`: its upstream lets it stay, or it never was at home.
    pub(super) fn for_stream(
        current: &Arc<ArcSwap<Snapshot>>,
        session: &Session,
        ctx: &Context,
    ) -> Option<(Self, Duration)> {
        let rules = rebalance_config(ctx.upstream()?)?;
        let attempt = ctx
            .attempt
            .as_ref()
            .filter(|attempt| !attempt.is_overflow)?;
        let peer = attempt.peer()?;
        let tenant = Self {
            current: Arc::clone(current),
            upstream: Arc::clone(&attempt.upstream.name),
            key: super::select::key_bytes(session, ctx)?,
            label: Arc::clone(&peer.label),
            address: peer.address.clone(),
            moved_since: None,
        };
        Some((tenant, check_interval(rules)))
    }

    /// Where nobody could serve the key, its peer is as good as any.
    fn is_assigned(&self, upstream: &Upstream, now: Duration) -> bool {
        let target = HashTarget::Key(upstream.key(&self.key));
        upstream
            .select(&target, &Tried::none(), now)
            .is_none_or(|home| {
                let same = home.peer.label == self.label && home.peer.address == self.address;
                same || !home.peer.state.is_available(now)
            })
    }

    /// Where the upstream, or the wish, is gone, the stream stays.
    pub(super) fn check(&mut self) -> StreamVerdict {
        let snapshot = self.current.load_full();
        let upstream = snapshot.upstreams.get(&*self.upstream);
        if let Some(upstream) = upstream
            && let Some(rules) = rebalance_config(upstream)
        {
            return self.check_against(upstream, rules);
        }
        self.moved_since = None;
        StreamVerdict::RecheckAfter(MAX_INTERVAL)
    }

    fn check_against(&mut self, upstream: &Upstream, rules: MovedStreamsConfig) -> StreamVerdict {
        let now = clock::since_start();
        if self.is_assigned(upstream, now) {
            self.moved_since = None;
            return StreamVerdict::RecheckAfter(check_interval(rules));
        }
        let since = *self.moved_since.get_or_insert(now);
        match since.saturating_add(rules.after).checked_sub(now) {
            Some(left) if !left.is_zero() => {
                StreamVerdict::RecheckAfter(left.min(check_interval(rules)))
            }
            _ if upstream.try_end_stream(now) => StreamVerdict::Close(AbortReason::KeyMoved),
            _ => StreamVerdict::RecheckAfter(check_interval(rules).min(Duration::from_millis(500))),
        }
    }
}

impl std::fmt::Debug for RebalanceCheck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tenant")
            .field("upstream", &self.upstream)
            .field("label", &self.label)
            .field("moved", &self.moved_since)
            .finish_non_exhaustive()
    }
}

fn rebalance_config(upstream: &Upstream) -> Option<MovedStreamsConfig> {
    upstream.config.close_moved_streams
}

/// The time to the next look: an eighth of what a stream may stay, and by chance up to half as much
/// more, so that streams that began together do not all look at once.
fn check_interval(rules: MovedStreamsConfig) -> Duration {
    let time = (rules.after / 8).clamp(MIN_INTERVAL, MAX_INTERVAL);
    time.mul_f64(1.0 + 0.5 * rand::random::<f64>())
}
