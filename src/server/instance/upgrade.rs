//! The upgrade of an instance: checks, starts the new process, and activates it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::{LoopControl, ServerInstance, upgrade_in_progress};
use crate::lifecycle::{ControlError, ControlResult};
use crate::server::hot_restart::{PendingUpgrade, StandbyProcess, UpgradeJob, send_reply};
use crate::server::reload::ReloadOptions;
use crate::server::signals::{Signal, Signals};

impl ServerInstance {
    pub(super) async fn start_upgrade(
        &mut self,
        signals: &mut Signals,
        force: bool,
        reply_to: Option<oneshot::Sender<ControlResult>>,
    ) -> LoopControl {
        let job = match self.upgrade {
            Some(_) => Err(upgrade_in_progress()),
            None => self.prepare_upgrade(signals, force).await?,
        };
        match job {
            Ok(job) => self.upgrade = Some(PendingUpgrade::start(job, reply_to)),
            Err(error) => {
                log::error!("upgrade: {error}");
                send_reply(reply_to, Err(error));
            }
        }
        LoopControl::Continue(())
    }

    /// Checks `max_moved` first, unless forced: an upgrade moves the same keys as a reload of the same file. Other
    /// errors in the file are ignored here: the new program checks it, and may support more settings than this one.
    async fn prepare_upgrade(
        &mut self,
        signals: &mut Signals,
        force: bool,
    ) -> LoopControl<Result<UpgradeJob, ControlError>> {
        if !force && self.app_state.lifecycle.config_path().is_some() {
            let dry_run = ReloadOptions {
                dry_run: true,
                force: false,
            };
            let plan = tokio::select! {
                biased;
                () = signals.recv_stop() => return LoopControl::Break(None),
                plan = self.reload_config_file(dry_run) => plan,
            };
            if let Err(limit @ ControlError::LimitExceeded(_)) = plan {
                return LoopControl::Continue(Err(limit));
            }
        }
        LoopControl::Continue(UpgradeJob::new(
            Arc::clone(&self.app_state),
            self.app_state.lifecycle.config_path(),
            self.duplicate_sockets(),
        ))
    }

    fn duplicate_sockets(&self) -> io::Result<Vec<(String, OwnedFd)>> {
        let sockets = self
            .data_plane
            .duplicates()
            .chain(self.admin_sockets.duplicates());
        sockets
            .map(|(name, socket)| Ok((name, socket.try_clone()?)))
            .collect()
    }

    /// Activates the new process, and sends it the signals that arrived during the upgrade.
    pub(super) async fn activate_successor(
        &mut self,
        standby: Result<StandbyProcess, ControlError>,
        signals: &mut Signals,
    ) -> LoopControl {
        let Some(upgrade) = self.upgrade.take() else {
            return LoopControl::Continue(());
        };
        let reopen = std::mem::take(&mut self.reopen_pending);
        let activated = match standby {
            Ok(standby) => standby.activate(&self.app_state).await,
            Err(error) => Err(error),
        };
        match upgrade.finish(activated) {
            Some(completed) => {
                let successor_pid = completed.successor.pid;
                if reopen {
                    Signal::ReopenLogs.send_to(successor_pid);
                }
                if std::mem::take(&mut self.reload_pending) {
                    Signal::Reload.send_to(successor_pid);
                }
                if signals.take_pending_stop().await {
                    Signal::Stop.send_to(successor_pid);
                }
                LoopControl::Break(Some(completed))
            }
            None if self.reload_pending => self.reload_and_log(signals).await,
            None => LoopControl::Continue(()),
        }
    }
}
