//! Ejects a peer after failures of real requests, as far as the other peers of the upstream allow it.
//!
//! Failed connects eject a peer whatever the others do. Other failures leave a share of the peers on the ring, and
//! always the last available one: the cause may be the requests, and then every peer fails them.

use std::time::Duration;

use super::peer_record::{EjectionOutcome, FailureEffect};
use super::{Peer, Upstream};
use crate::policy::ejection::{EjectionPolicy, FailureKind};
use crate::ring::MemberId;

impl Upstream {
    /// Records a failure of real traffic at a peer; `None`: the peer stays as it was.
    pub(crate) fn on_peer_failure(
        &self,
        member: MemberId,
        kind: FailureKind,
        policy: &EjectionPolicy,
        now: Duration,
    ) -> Option<EjectionOutcome> {
        let peer = self
            .peer(member)
            .filter(|_| policy.counted.contains(kind))?;
        match peer.on_failure(kind, policy, now) {
            FailureEffect::Counted => None,
            FailureEffect::Ejected { length } => Some(EjectionOutcome::Ejected { length }),
            FailureEffect::EjectionDue => {
                let _lock = self.shared.removal_lock.lock();
                let is_allowed = self.may_be_ejected(peer, policy, now);
                peer.eject_if_due(is_allowed, policy, now)
            }
        }
    }

    fn may_be_ejected(&self, peer: &Peer, policy: &EjectionPolicy, now: Duration) -> bool {
        let others = || {
            self.peers
                .iter()
                .filter(|other| !std::ptr::eq(*other, peer))
        };
        let ejected = others()
            .filter(|other| other.state.ejected_until(now).is_some())
            .count();
        ejected < policy.max_ejected.of(self.peers.len())
            && others().any(|other| other.state.is_available(now))
    }
}
