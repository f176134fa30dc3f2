//! One upgrade, from the check of the configuration to activation. The old process serves until the new one does; if
//! the upgrade fails, it continues.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::old::{self, HandoverFailure, HandoverState, SuccessorHandle, SuccessorReady};
use super::program::program_path;
use super::protocol::{Activate, HandoverChannel};
use crate::admin::AppState;
use crate::clock;
use crate::lifecycle::{ControlError, ControlResult};
use crate::server::process_role::{SUCCESSOR_ENV, UPGRADE_CHECK_ENV};

/// An upgrade in progress; the instance serves meanwhile.
#[derive(Debug)]
pub(in crate::server) struct PendingUpgrade {
    task: JoinHandle<Result<StandbyProcess, ControlError>>,
    cancel: oneshot::Sender<()>,
    reply_to: Option<oneshot::Sender<ControlResult>>,
}

impl PendingUpgrade {
    /// Starts the upgrade; its result goes to `reply_to`. Must be called inside a Tokio runtime.
    pub(in crate::server) fn start(
        job: UpgradeJob,
        reply_to: Option<oneshot::Sender<ControlResult>>,
    ) -> Self {
        let (cancel, cancelled) = oneshot::channel();
        Self {
            task: tokio::spawn(job.run(cancelled)),
            cancel,
            reply_to,
        }
    }

    /// Waits until the new process is ready, or has failed. Cancel-safe; must not be called again once it has returned.
    pub(in crate::server) async fn wait_standby(&mut self) -> Result<StandbyProcess, ControlError> {
        let joined = (&mut self.task).await;
        joined.unwrap_or_else(|error| Err(ControlError::Failed(error.to_string())))
    }

    /// Ends the upgrade at any stage: the new process is killed, and told not to serve if it still runs.
    pub(in crate::server) async fn cancel(mut self) {
        // Dropping the sender cancels the task, unless it is done already.
        drop(self.cancel);
        let error = match (&mut self.task).await {
            Ok(Ok(standby)) => standby.terminate(upgrade_cancelled()).await,
            Ok(Err(error)) => error,
            Err(error) => ControlError::Failed(error.to_string()),
        };
        log::warn!("upgrade: {error}");
        send_reply(self.reply_to, Err(error));
    }

    /// Ends the upgrade with the result of the activation; `None`: this process serves on.
    pub(in crate::server) fn finish(
        self,
        result: Result<SuccessorHandle, ControlError>,
    ) -> Option<CompletedUpgrade> {
        match result {
            Ok(successor) => {
                log::info!("upgrade: process {} serves; this one drains", successor.pid);
                Some(CompletedUpgrade {
                    successor,
                    reply_to: self.reply_to,
                })
            }
            Err(error) => {
                log::error!("upgrade: {error}; this process continues to serve");
                send_reply(self.reply_to, Err(error));
                None
            }
        }
    }
}

/// An upgrade that has succeeded: the new process serves.
#[derive(Debug)]
pub(in crate::server) struct CompletedUpgrade {
    pub(in crate::server) successor: SuccessorHandle,
    reply_to: Option<oneshot::Sender<ControlResult>>,
}

impl CompletedUpgrade {
    /// Sends the upgrade command its result. By now all new connections go to the new process.
    ///
    /// `config_path`: the file that the new process has read, the same as that of this one.
    pub(in crate::server) fn reply(&mut self, config_path: Option<&Path>) {
        let pid = self.successor.pid;
        let report = serde_json::json!({
            "pid": pid,
            "config": config_path.map(|path| path.display().to_string()),
        });
        send_reply(self.reply_to.take(), Ok(report));
    }
}

/// Sends a result to the command that waits for it, if there is one; ignored if its client has disconnected.
pub(in crate::server) fn send_reply(
    reply_to: Option<oneshot::Sender<ControlResult>>,
    result: ControlResult,
) {
    if let Some(reply_to) = reply_to {
        let _ = reply_to.send(result);
    }
}

/// The inputs of an upgrade.
pub(in crate::server) struct UpgradeJob {
    app_state: Arc<AppState>,
    program: PathBuf,
    arguments: Vec<OsString>,
    config_path: PathBuf,
    sockets: Vec<(String, OwnedFd)>,
}

impl UpgradeJob {
    /// Collects the inputs, which stay valid: no listener is opened or closed during an upgrade.
    pub(in crate::server) fn new(
        app_state: Arc<AppState>,
        config_path: Option<&Path>,
        sockets: io::Result<Vec<(String, OwnedFd)>>,
    ) -> Result<Self, ControlError> {
        let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
        if arguments.first().is_none_or(|command| command != "run") {
            return Err(ControlError::Failed(
                "only an instance that was started with `clockwise run` can be upgraded".to_owned(),
            ));
        }
        let Some(config_path) = config_path else {
            return Err(ControlError::Failed(
                "this instance has no configuration file, so no new process can be started"
                    .to_owned(),
            ));
        };
        let failed = |what| move |error| ControlError::Failed(format!("cannot {what}: {error}"));
        Ok(Self {
            app_state,
            program: program_path().map_err(failed("find the program to start"))?,
            arguments,
            config_path: config_path.to_owned(),
            sockets: sockets.map_err(failed("hand the sockets over"))?,
        })
    }

    /// Checks the configuration, starts the new process, hands over sockets and state, and waits until it is ready. If
    /// a step fails, the new process is killed.
    async fn run(
        self,
        mut cancelled: oneshot::Receiver<()>,
    ) -> Result<StandbyProcess, ControlError> {
        log::info!("upgrade: starting {}", self.program.display());
        tokio::select! {
            checked = self.check_config() => checked?,
            _ = &mut cancelled => return Err(upgrade_cancelled()),
        }
        let failed = |error: io::Error| ControlError::Failed(error.to_string());
        let (mut channel, theirs) = HandoverChannel::pair().map_err(failed)?;
        let child = self.spawn(theirs)?;
        let snapshot = self.app_state.snapshot.load_full();
        let state_sent_at = clock::since_start();
        let state = HandoverState {
            sockets: self.sockets,
            captured_at: clock::monotonic_micros(),
            peer_state: snapshot.state_for_successor(),
            ticket_keys: snapshot.session_tickets.export_keys(),
            ready_timeout: snapshot.config.upgrade_timeout,
        };
        let ready = tokio::select! {
            ready = old::hand_over(&mut channel, &state) => ready,
            _ = &mut cancelled => Err(HandoverFailure { error: upgrade_cancelled(), process_exits: false }),
        };
        match ready {
            Ok(ready) => Ok(StandbyProcess {
                child,
                channel,
                ready,
                state_sent_at,
            }),
            Err(failure) => Err(terminate_child(child, channel, failure).await),
        }
    }

    /// Runs `check` of the new program: a program that cannot run, and a configuration that it does not accept, are
    /// found before anything is handed over.
    async fn check_config(&self) -> Result<(), ControlError> {
        let mut command = Command::new(&self.program);
        command
            .arg("check")
            .arg("-c")
            .arg(&self.config_path)
            .env_remove(SUCCESSOR_ENV)
            .env(UPGRADE_CHECK_ENV, "1")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let Ok(checked) = tokio::time::timeout(CHECK_TIMEOUT, command.output()).await else {
            return Err(ControlError::Failed(format!(
                "{} did not check the configuration within {CHECK_TIMEOUT:?}",
                self.program.display()
            )));
        };
        let output = checked.map_err(|error| cannot_run(&self.program, &error))?;
        if output.status.success() {
            return Ok(());
        }
        let report = String::from_utf8_lossy(&output.stderr);
        Err(ControlError::Failed(format!(
            "the new program does not accept the configuration ({}):\n{report}",
            output.status
        )))
    }

    fn spawn(&self, theirs: OwnedFd) -> Result<Child, ControlError> {
        Command::new(&self.program)
            .args(&self.arguments)
            .env(SUCCESSOR_ENV, "1")
            .stdin(Stdio::from(theirs))
            .spawn()
            .map_err(|error| cannot_run(&self.program, &error))
    }
}

/// A new process that is ready and waits for activation.
#[derive(Debug)]
pub(in crate::server) struct StandbyProcess {
    child: Child,
    channel: HandoverChannel,
    ready: SuccessorReady,
    /// When the state of `Hello` was exported; [`Activate`] has the changes since then.
    state_sent_at: Duration,
}

impl StandbyProcess {
    /// Activates the new process, and waits until it serves, for at most [`IO_TIMEOUT`](super::protocol::IO_TIMEOUT).
    pub(in crate::server) async fn activate(
        mut self,
        app_state: &AppState,
    ) -> Result<SuccessorHandle, ControlError> {
        let message = Activate {
            peer_state: app_state.snapshot.load().state_since(self.state_sent_at),
            captured_at: Some(clock::monotonic_micros()),
            counters: app_state.telemetry.metrics.export_counters(),
        };
        match old::activate(&mut self.channel, &message).await {
            Ok(()) => Ok(SuccessorHandle::new(self.ready, self.channel)),
            Err(failure) => Err(terminate_child(self.child, self.channel, failure).await),
        }
    }

    async fn terminate(self, error: ControlError) -> ControlError {
        let failure = HandoverFailure {
            error,
            process_exits: false,
        };
        terminate_child(self.child, self.channel, failure).await
    }
}

/// Waits until the new process has exited, or kills it, and adds its exit status to the error. The channel is closed
/// last: a new process that still runs would serve if it sees a closed channel and this process exits.
async fn terminate_child(
    mut child: Child,
    mut channel: HandoverChannel,
    failure: HandoverFailure,
) -> ControlError {
    let limit = if failure.process_exits {
        EXIT_TIMEOUT
    } else {
        Duration::ZERO
    };
    let exit = match tokio::time::timeout(limit, child.wait()).await {
        Ok(Ok(status)) => format!("it ended with {status}"),
        _ => match child.kill().await {
            Ok(()) => "it was killed".to_owned(),
            Err(error) => format!("it could not be killed: {error}"),
        },
    };
    old::cancel(&mut channel).await;
    drop(channel);
    match failure.error {
        ControlError::Failed(reason) => ControlError::Failed(format!("{reason}; {exit}")),
        ControlError::LimitExceeded(reason) => {
            ControlError::LimitExceeded(format!("{reason}; {exit}"))
        }
        ControlError::Busy(reason) => ControlError::Busy(format!("{reason}; {exit}")),
        // Of other commands.
        other @ (ControlError::NotFound(_)
        | ControlError::Exists(_)
        | ControlError::NeedsForce(_)) => other,
    }
}

fn upgrade_cancelled() -> ControlError {
    ControlError::Busy("the upgrade was cancelled: this process is shutting down".to_owned())
}

fn cannot_run(program: &Path, error: &io::Error) -> ControlError {
    ControlError::Failed(format!("cannot run {}: {error}", program.display()))
}

/// How long the new program may take to check the configuration.
const CHECK_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a new process that has failed may take to exit by itself, so that its exit status is known.
const EXIT_TIMEOUT: Duration = Duration::from_secs(1);
