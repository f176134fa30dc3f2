//! Hands drains that operators ordered over to the peers of a new configuration.

use std::sync::Arc;
use std::time::Duration;

use super::Upstream;
use super::peer::Peer;
use super::peer_record::PeerPolicy;
use super::peer_state::PeerState;

impl Upstream {
    /// Copies the drains of `previous` to the peers here with the same label that have a state of their own.
    pub fn hand_over_drains(
        &self,
        previous: &Self,
        now: Duration,
    ) -> impl Iterator<Item = DrainHandover> {
        let pairs = self
            .peers
            .iter()
            .filter_map(|peer| Some((previous.peer_by_label(&peer.label)?, peer)));
        pairs
            .filter(|(from, to)| !Arc::ptr_eq(&from.state, &to.state))
            .map(move |(from, to)| DrainHandover::begin(from, to, now))
    }
}

/// A drain that was copied from a peer to its successor; [`Self::finish`] copies it again if it was changed
/// meanwhile.
#[derive(Debug)]
pub struct DrainHandover {
    from: Arc<PeerState>,
    to: Arc<PeerState>,
    policy: PeerPolicy,
    draining_since: Option<Duration>,
}

impl DrainHandover {
    fn begin(from: &Peer, to: &Peer, now: Duration) -> Self {
        let draining_since = from.state.draining_since();
        to.inherit_drain(draining_since, now);
        Self {
            from: Arc::clone(&from.state),
            to: Arc::clone(&to.state),
            policy: to.policy.clone(),
            draining_since,
        }
    }

    /// Copies the drain if it was changed at the old peer since; otherwise a change at the new peer is kept.
    pub fn finish(self, now: Duration) {
        let draining_since = self.from.draining_since();
        if draining_since != self.draining_since {
            self.to.inherit_drain(draining_since, now, &self.policy);
        }
    }
}
