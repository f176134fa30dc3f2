//! `POST /v1/upstreams/{u}/peers/{label}/drain` and `…/enable`: takes a peer out of service, or puts it
//! back.

use http::StatusCode;

use super::response::AdminResponse;
use crate::clock;
use crate::upstream::Upstream;

/// Peers that an error message lists.
const MAX_LISTED_LABELS: usize = 20;

/// An operator's command to one peer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PeerDrainCommand {
    pub(super) upstream: String,
    pub(super) label: String,
    /// True: drain the peer; false: enable it.
    pub(super) draining: bool,
}

impl PeerDrainCommand {
    /// # Errors
    /// 404: the upstream has no such peer.
    pub(super) fn apply(&self, upstream: &Upstream) -> Result<(), AdminResponse> {
        let (label, now) = (&self.label, clock::since_start());
        let peer = upstream.peer_by_label(label);
        let peer = peer.ok_or_else(|| self.peer_not_found(upstream))?;
        if peer.set_draining(self.draining, now) {
            let event = if self.draining { "started" } else { "ended" };
            let name = &upstream.name;
            log::info!("upstream {name}: peer {label}: drain {event} by the operator");
        }
        // An operator who enables a peer wants requests on it: flap damping ends, ejection does not.
        if !self.draining {
            peer.lift_suppression(now);
        }
        Ok(())
    }

    pub(super) fn peer_not_found(&self, upstream: &Upstream) -> AdminResponse {
        let peers = upstream.peers().iter().take(MAX_LISTED_LABELS);
        let labels = peers
            .map(|peer| &*peer.label)
            .collect::<Vec<_>>()
            .join(", ");
        let (name, label) = (&upstream.name, &self.label);
        let message = format!("upstream `{name}` has no peer `{label}`; it has: {labels}");
        AdminResponse::error(StatusCode::NOT_FOUND, &message)
    }
}
