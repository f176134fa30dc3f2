//! `POST /v1/upstreams/{u}/peers/{label}/drain` and `…/enable`: take a peer off the ring, and put it back.

use http::StatusCode;

use super::json;
use super::query::command_params;
use super::response::AdminResponse;
use crate::clock;
use crate::upstream::{LastPeer, Upstream};

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
    /// The flag `force` of a query; `enable` has no parameters.
    pub(super) fn parse_force(&self, query: &str) -> Result<bool, String> {
        if self.draining {
            let ([force], []) = command_params(query, ["force"], [])?;
            Ok(force)
        } else {
            let ([], []) = command_params(query, [], [])?;
            Ok(false)
        }
    }

    /// Executes the command; the response shows the peer after it. Computes shares of the ring: belongs in the worker
    /// pool.
    ///
    /// # Errors
    /// 404: the upstream has no such peer. 409: no other peer takes keys, and the drain is not forced; or a peer that is
    /// to be enabled has left its source.
    pub(super) fn execute(
        &self,
        upstream: &Upstream,
        force: bool,
    ) -> Result<AdminResponse, AdminResponse> {
        let now = clock::since_start();
        let peer = upstream.peer_by_label(&self.label);
        let peer = peer.ok_or_else(|| self.peer_not_found(upstream))?;
        let mut moved = None;
        let changed = if self.draining {
            moved = Some(upstream.current_key_space_share(peer, now));
            let drained = upstream.drain_peer(peer, force, now);
            drained.map_err(|LastPeer| self.last_peer())?
        } else if peer.state.is_leaving() {
            return Err(self.is_leaving());
        } else {
            peer.set_draining(false, now)
        };
        if changed {
            let event = if self.draining { "started" } else { "ended" };
            let (name, label) = (&upstream.name, &self.label);
            log::info!("upstream {name}: peer {label}: drain {event} by the operator");
        }
        // Enabling also ends flap damping, which would keep the peer off the ring; an ejection stays.
        if !self.draining {
            peer.lift_suppression(now);
        }
        let report = json::changed_peer(upstream, peer, moved);
        Ok(AdminResponse::json(&report))
    }

    fn last_peer(&self) -> AdminResponse {
        let Self {
            upstream, label, ..
        } = self;
        let message = format!(
            "peer `{label}` is the last one of upstream `{upstream}` that takes keys: requests would get 503; use --force (`?force`) to drain it all the same"
        );
        AdminResponse::needs_force(&message)
    }

    fn is_leaving(&self) -> AdminResponse {
        let Self {
            upstream, label, ..
        } = self;
        let message = format!(
            "peer `{label}` of upstream `{upstream}` has left its source, or an operator has removed it, and drains; it is in service again when it is back"
        );
        AdminResponse::error(StatusCode::CONFLICT, &message)
    }

    fn peer_not_found(&self, upstream: &Upstream) -> AdminResponse {
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
