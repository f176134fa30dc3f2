//! A running proxy: carries out what signals and operators ask, one thing at a time, until its end.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::process::{Pid, Signal as Number};
use tokio::sync::oneshot;

use super::background::BackgroundTasks;
use super::drain;
use super::pingora_setup::PingoraProxy;
use super::sd_notify;
use super::signals::{Signal, Signals};
use super::sockets::{Listeners, OpenAdminSockets};
use super::upgrade::{self, CompletedUpgrade, PendingUpgrade, StandbyProcess, send_reply};
use super::{ShutdownOutcome, reload};
use crate::acme::CertManager;
use crate::admin::AppState;
use crate::lifecycle::{ControlCommand, ControlError, ControlReceiver, ControlResult};
use crate::probe::{ProbeConnectors, Probes};
use crate::telemetry::Telemetry;

/// A running proxy.
pub(super) struct ServerInstance {
    pub(super) app_state: Arc<AppState>,
    /// The configuration file.
    pub(super) config_path: Option<PathBuf>,
    pub(super) commands: ControlReceiver,
    pub(super) proxy: Arc<PingoraProxy>,
    pub(super) prober: ProbeConnectors,
    pub(super) probes: Probes,
    pub(super) listeners: Listeners,
    pub(super) admin_sockets: OpenAdminSockets,
    pub(super) background: BackgroundTasks,
    /// Orders certificates, while this process leads.
    pub(super) cert_manager: Option<CertManager>,
    /// While it is under way nothing else changes, so that what was handed over stays true.
    pub(super) upgrade: Option<PendingUpgrade>,
    /// A signal, or the watched file, asked for a reload while an upgrade was under way.
    pub(super) reload_pending: bool,
    /// The log files were opened anew while an upgrade was under way: the new process may have the
    /// ones before.
    pub(super) reopen_pending: bool,
}

/// What happens next.
enum InstanceEvent {
    Signal(Signal),
    Command(ControlCommand, oneshot::Sender<ControlResult>),
    /// The configuration file is another one, and it is to be watched.
    ConfigFileChanged,
    /// The new process of the upgrade under way is ready, or there is none.
    StandbyReady(Box<Result<StandbyProcess, ControlError>>),
}

/// Goes on, or comes to its end: with a successor, or without.
type LoopControl<T = ()> = ControlFlow<Option<CompletedUpgrade>, T>;

impl ServerInstance {
    /// Serves until it is told to stop, or another process has taken over; then drains.
    pub(super) async fn serve(mut self, mut signals: Signals) -> (ShutdownOutcome, Arc<Telemetry>) {
        let succession = loop {
            let next = self.next_event(&mut signals).await;
            if let ControlFlow::Break(succession) = self.handle_event(next, &mut signals).await {
                break succession;
            }
        };
        sd_notify::stopping(succession.is_some());
        drain::run(self, signals, succession).await
    }

    async fn next_event(&mut self, signals: &mut Signals) -> InstanceEvent {
        let candidate = async {
            match &mut self.upgrade {
                Some(underway) => underway.wait_standby().await,
                None => std::future::pending().await,
            }
        };
        let snapshot = self.app_state.snapshot.load_full();
        tokio::select! {
            signal = signals.recv() => InstanceEvent::Signal(signal),
            () = self.background.run_until_config_change(&self.app_state, &snapshot.config, self.config_path.as_deref()) => InstanceEvent::ConfigFileChanged,
            Some((order, reply)) = self.commands.recv() => InstanceEvent::Command(order, reply),
            candidate = candidate => InstanceEvent::StandbyReady(Box::new(candidate)),
        }
    }

    async fn handle_event(&mut self, next: InstanceEvent, signals: &mut Signals) -> LoopControl {
        match next {
            InstanceEvent::Signal(Signal::Stop) => self.begin_shutdown().await,
            InstanceEvent::Signal(Signal::ReopenLogs) => {
                self.app_state.telemetry.reopen();
                self.reopen_pending = self.upgrade.is_some();
                LoopControl::Continue(())
            }
            InstanceEvent::Signal(Signal::Reload) | InstanceEvent::ConfigFileChanged => {
                self.reload_and_log(signals).await
            }
            InstanceEvent::Signal(Signal::Upgrade) => {
                self.start_upgrade(signals, false, None).await
            }
            InstanceEvent::Command(ControlCommand::Upgrade { force }, reply) => {
                self.start_upgrade(signals, force, Some(reply)).await
            }
            InstanceEvent::Command(ControlCommand::Reload { dry_run, force }, reply) => {
                let done = match self.upgrade {
                    Some(_) => Err(upgrade_in_progress()),
                    None => self.reload(signals, dry_run, force).await?,
                };
                send_reply(Some(reply), done);
                LoopControl::Continue(())
            }
            InstanceEvent::StandbyReady(candidate) => {
                self.activate_successor(*candidate, signals).await
            }
        }
    }

    /// A new process that does not serve yet must not come to do so.
    async fn begin_shutdown(&mut self) -> LoopControl {
        if let Some(underway) = self.upgrade.take() {
            underway.cancel().await;
        }
        LoopControl::Break(None)
    }

    /// Where nobody waits for an answer, the log is told.
    async fn reload_and_log(&mut self, signals: &mut Signals) -> LoopControl {
        if self.upgrade.is_some() {
            log::warn!("reload: put off, an upgrade is under way");
            self.reload_pending = true;
            return LoopControl::Continue(());
        }
        self.reload_pending = false;
        if let Err(refusal) = self.reload(signals, false, false).await? {
            log::error!("reload: {refusal}");
        }
        LoopControl::Continue(())
    }

    /// Names that are looked up and peers that are asked take their time; a signal to stop does not
    /// wait for them. Until a reload's swap nothing has changed.
    async fn reload(
        &mut self,
        signals: &mut Signals,
        dry_run: bool,
        force: bool,
    ) -> LoopControl<ControlResult> {
        sd_notify::reloading();
        if !dry_run {
            let snapshot = self.app_state.snapshot.load();
            self.background
                .note_reload(self.config_path.as_deref(), &snapshot.config);
        }
        let done = tokio::select! {
            biased;
            () = signals.recv_stop() => return LoopControl::Break(None),
            done = reload::reload(self, dry_run, force) => done,
        };
        sd_notify::ready();
        LoopControl::Continue(done)
    }

    async fn start_upgrade(
        &mut self,
        signals: &mut Signals,
        force: bool,
        waiting: Option<oneshot::Sender<ControlResult>>,
    ) -> LoopControl {
        let job = match self.upgrade {
            Some(_) => Err(upgrade_in_progress()),
            None => self.prepare_upgrade(signals, force).await?,
        };
        match job {
            Ok(job) => self.upgrade = Some(PendingUpgrade::start(job, waiting)),
            Err(refusal) => {
                log::error!("upgrade: {refusal}");
                send_reply(waiting, Err(refusal));
            }
        }
        LoopControl::Continue(())
    }

    /// The new process moves as many keys as a reload would, and is held to the same limit. Whatever
    /// else is wrong with the file is the new program's to say: it may know more than this one.
    async fn prepare_upgrade(
        &mut self,
        signals: &mut Signals,
        force: bool,
    ) -> LoopControl<Result<upgrade::UpgradeJob, ControlError>> {
        if !force && self.config_path.is_some() {
            let plan = tokio::select! {
                biased;
                () = signals.recv_stop() => return LoopControl::Break(None),
                plan = reload::reload(self, true, false) => plan,
            };
            if let Err(limit @ ControlError::LimitExceeded(_)) = plan {
                return LoopControl::Continue(Err(limit));
            }
        }
        LoopControl::Continue(upgrade::UpgradeJob::new(self))
    }

    /// Gives the word. What was asked of the service meanwhile is the next leader's to do.
    async fn activate_successor(
        &mut self,
        candidate: Result<StandbyProcess, ControlError>,
        signals: &mut Signals,
    ) -> LoopControl {
        let Some(underway) = self.upgrade.take() else {
            return LoopControl::Continue(());
        };
        let reopen = std::mem::take(&mut self.reopen_pending);
        let outcome = match candidate {
            Ok(candidate) => candidate.activate(&self.app_state).await,
            Err(refusal) => Err(refusal),
        };
        match underway.finish(outcome) {
            Some(succession) => {
                let leader = succession.successor.pid;
                if reopen {
                    forward_signal(leader, Number::USR1);
                }
                if std::mem::take(&mut self.reload_pending) {
                    forward_signal(leader, Number::HUP);
                }
                if signals.is_stop_pending().await {
                    forward_signal(leader, Number::TERM);
                }
                LoopControl::Break(Some(succession))
            }
            None if self.reload_pending => self.reload_and_log(signals).await,
            None => LoopControl::Continue(()),
        }
    }
}

/// Sends a signal that came for the service to the process that leads it now.
pub(super) fn forward_signal(leader: u32, number: Number) {
    let pid = i32::try_from(leader).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It may be gone; then there is nobody to tell.
        let _ = rustix::process::kill_process(pid, number);
    }
}

fn upgrade_in_progress() -> ControlError {
    ControlError::Busy("an upgrade is under way".to_owned())
}
