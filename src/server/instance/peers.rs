//! What an instance does when sources have found other peers, or an operator changes peers.

use serde_json::Value;

use super::{LoopControl, ServerInstance, upgrade_in_progress};
use crate::lifecycle::{ControlResult, PeerChangeRequest};
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

    /// Changes a peer for an operator. The result comes after the state file has the change.
    pub(super) async fn change_peers(
        &mut self,
        signals: &mut Signals,
        request: &PeerChangeRequest,
    ) -> LoopControl<ControlResult> {
        if self.upgrade.is_some() {
            // The new process has the changes of the moment when the upgrade began.
            return LoopControl::Continue(Err(upgrade_in_progress()));
        }
        let change = self
            .discovery
            .change_peers(request, &mut self.data_plane, &mut self.lookups);
        let mut result = tokio::select! {
            biased;
            () = signals.recv_stop() => return LoopControl::Break(None),
            result = change => result,
        };
        if let Ok(report) = &mut result
            && !request.dry_run
        {
            self.save_change(report).await;
        }
        LoopControl::Continue(result)
    }

    /// Writes the state file; adds a warning to the report if that fails.
    async fn save_change(&mut self, report: &mut Value) {
        let Err(error) = self.background.save_state(&self.app_state).await else {
            return;
        };
        let warnings = report.get_mut("warnings").and_then(Value::as_array_mut);
        if let Some(warnings) = warnings {
            let text = format!(
                "the state file cannot be written: {error}; until it can, the change does not outlive a restart"
            );
            warnings.push(text.into());
        }
    }
}
