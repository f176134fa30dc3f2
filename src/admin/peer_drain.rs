//! `POST /v1/upstreams/{u}/peers/{label}/drain` and `…/enable`: take a peer off the ring, and put it back.

use http::StatusCode;

use super::response::AdminResponse;
use crate::clock;
use crate::upstream::Upstream;

/// The most peers that an error message lists.
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
        // Enabling also ends flap damping, which would keep the peer off the ring; an ejection stays.
        if !self.draining {
            peer.lift_suppression(now);
        }
        Ok(())
    }

    pub(super) fn peer_not_found(&self, upstream: &Upstream) -> AdminResponse {
        let peers = upstream.peers();
        let labels = peers.iter().map(|peer| &*peer.label);
        let labels: Vec<_> = labels.take(MAX_LISTED_LABELS).collect();
        let labels = labels.join(", ");
        let more = if peers.len() > MAX_LISTED_LABELS {
            ", …"
        } else {
            ""
        };
        let (name, label) = (&upstream.name, &self.label);
        let message = format!("upstream `{name}` has no peer `{label}`; it has: {labels}{more}");
        AdminResponse::error(StatusCode::NOT_FOUND, &message)
    }
}
