//! What an instance does when sources have found other peers.

use super::{LoopControl, ServerInstance, upgrade_in_progress};
use crate::lifecycle::ControlResult;
use crate::server::signals::Signals;

impl ServerInstance {
    /// Puts the lists in force that are due. Probing new peers takes time, so a stop signal ends it.
    pub(super) async fn apply_discovered(&mut self, signals: &mut Signals) -> LoopControl {
        let apply = self
            .discovery
            .apply_due(&mut self.data_plane, &mut self.lookups);
        tokio::select! {
            biased;
            () = signals.recv_stop() => LoopControl::Break(None),
            () = apply => LoopControl::Continue(()),
        }
    }

    /// Puts the held lists of an upstream in force for an operator.
    pub(super) async fn accept_peers(
        &mut self,
        signals: &mut Signals,
        upstream: &str,
    ) -> LoopControl<ControlResult> {
        if self.upgrade.is_some() {
            // The new process reads the sources itself, and holds what this one holds.
            return LoopControl::Continue(Err(upgrade_in_progress()));
        }
        let accept = self
            .discovery
            .accept(upstream, &mut self.data_plane, &mut self.lookups);
        tokio::select! {
            biased;
            () = signals.recv_stop() => LoopControl::Break(None),
            result = accept => LoopControl::Continue(result),
        }
    }
}
