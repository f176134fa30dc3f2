//! Beside a long stream: is its peer still the one that its key is at home with?
//!
//! It is looked at from time to time, against the configuration that is in force then. One whose key
//! has been at home with another peer for the chosen time is ended, at the chosen rate; its client comes
//! back, to the right peer. A key that a draining peer keeps is at home there, and a stream that was sent
//! elsewhere by intention (its home was full, its key hot) is left alone.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use pingora_proxy::Session;

use super::context::Context;
use crate::clock;
use crate::config::MovedStreams;
use crate::connection::{AbortReason, StreamVerdict};
use crate::snapshot::Snapshot;
use crate::upstream::{Address, HashTarget, Tried, Upstream};

/// The longest time between two looks.
const SELDOM: Duration = Duration::from_secs(5);
/// The shortest.
const OFTEN: Duration = Duration::from_millis(20);

/// A stream at its peer.
pub(super) struct Tenant {
    current: Arc<ArcSwap<Snapshot>>,
    upstream: Arc<str>,
    key: Box<[u8]>,
    label: Arc<str>,
    address: Address,
    /// Since when its key is at home with another.
    moved: Option<Duration>,
}

impl Tenant {
    /// With the time to the first look. `None`: its upstream lets it stay, or it never was at home.
    pub(super) fn of(
        current: &Arc<ArcSwap<Snapshot>>,
        session: &Session,
        ctx: &Context,
    ) -> Option<(Self, Duration)> {
        let rules = rules(ctx.upstream()?)?;
        let attempt = ctx.attempt.as_ref().filter(|attempt| !attempt.guest)?;
        let peer = attempt.peer()?;
        let tenant = Self {
            current: Arc::clone(current),
            upstream: Arc::clone(&attempt.upstream.name),
            key: super::pick::key_of(session, ctx)?,
            label: Arc::clone(&peer.label),
            address: peer.address.clone(),
            moved: None,
        };
        Some((tenant, between(rules)))
    }

    /// Where nobody could serve the key, its peer is as good as any.
    fn is_home(&self, upstream: &Upstream, now: Duration) -> bool {
        let target = HashTarget::Key(upstream.key(&self.key));
        upstream
            .select(&target, &Tried::none(), now)
            .is_none_or(|home| {
                let same = home.peer.label == self.label && home.peer.address == self.address;
                same || !home.peer.state.is_available(now)
            })
    }

    /// Where the upstream, or the wish, is gone, the stream stays.
    pub(super) fn look(&mut self) -> StreamVerdict {
        let snapshot = self.current.load_full();
        let upstream = snapshot.upstreams.get(&*self.upstream);
        if let Some(upstream) = upstream
            && let Some(rules) = rules(upstream)
        {
            return self.look_at(upstream, rules);
        }
        self.moved = None;
        StreamVerdict::RecheckAfter(SELDOM)
    }

    fn look_at(&mut self, upstream: &Upstream, rules: MovedStreams) -> StreamVerdict {
        let now = clock::since_start();
        if self.is_home(upstream, now) {
            self.moved = None;
            return StreamVerdict::RecheckAfter(between(rules));
        }
        let since = *self.moved.get_or_insert(now);
        match since.saturating_add(rules.after).checked_sub(now) {
            Some(left) if !left.is_zero() => StreamVerdict::RecheckAfter(left.min(between(rules))),
            _ if upstream.try_end_stream(now) => StreamVerdict::Close(AbortReason::KeyMoved),
            _ => StreamVerdict::RecheckAfter(between(rules).min(Duration::from_millis(500))),
        }
    }
}

impl std::fmt::Debug for Tenant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tenant")
            .field("upstream", &self.upstream)
            .field("label", &self.label)
            .field("moved", &self.moved)
            .finish_non_exhaustive()
    }
}

fn rules(upstream: &Upstream) -> Option<MovedStreams> {
    upstream.config.close_moved_streams
}

/// The time to the next look: an eighth of what a stream may stay, and by chance up to half as much
/// more, so that streams that began together do not all look at once.
fn between(rules: MovedStreams) -> Duration {
    let time = (rules.after / 8).clamp(OFTEN, SELDOM);
    time.mul_f64(1.0 + 0.5 * rand::random::<f64>())
}
