//! The hand-over, seen from the process that is replaced: it serves on until the new one has said
//! that it serves, and goes on serving if the new one never does.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::Access;
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::handover::{
    Activate, HandoverChannel, HandoverFailure, HandoverState, SUCCESSOR_ENV, SuccessorHandle,
    SuccessorReady,
};
use super::instance::ServerInstance;
use crate::admin::AppState;
use crate::clock;
use crate::lifecycle::{ControlError, ControlResult};

/// How long the new program may take to check the configuration.
const CHECK_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a new process that has failed may take to end by itself, so that its exit code is known.
const EXIT_TIMEOUT: Duration = Duration::from_secs(1);

/// An upgrade under way: the instance serves on meanwhile.
#[derive(Debug)]
pub(super) struct PendingUpgrade {
    task: JoinHandle<Result<StandbyProcess, ControlError>>,
    cancel: oneshot::Sender<()>,
    reply_to: Option<oneshot::Sender<ControlResult>>,
}

impl PendingUpgrade {
    /// Begins; `waiting` is told how it ends.
    pub(super) fn start(job: UpgradeJob, waiting: Option<oneshot::Sender<ControlResult>>) -> Self {
        let (call_off, called_off) = oneshot::channel();
        Self {
            task: tokio::spawn(job.run(called_off)),
            cancel: call_off,
            reply_to: waiting,
        }
    }

    /// Waits for the new process to be ready. Can be dropped and called again.
    pub(super) async fn wait_standby(&mut self) -> Result<StandbyProcess, ControlError> {
        let ended = (&mut self.task).await;
        ended.unwrap_or_else(|error| Err(ControlError::Failed(error.to_string())))
    }

    /// Ends it, whatever stage it is in: when this returns the new process is no more.
    pub(super) async fn cancel(mut self) {
        // It may just have come to its end.
        drop(self.cancel);
        let ended = (&mut self.task).await;
        let refusal = match ended {
            Ok(Ok(candidate)) => candidate.terminate(upgrade_cancelled()).await,
            Ok(Err(refusal)) => refusal,
            Err(error) => ControlError::Failed(error.to_string()),
        };
        log::warn!("upgrade: {refusal}");
        send_reply(self.reply_to, Err(refusal));
    }

    /// The word was given: whether to leave, or to serve on.
    pub(super) fn finish(
        self,
        outcome: Result<SuccessorHandle, ControlError>,
    ) -> Option<CompletedUpgrade> {
        match outcome {
            Ok(successor) => {
                let pid = successor.pid;
                log::info!("upgrade: process {pid} serves; this one drains");
                let waiting = self.reply_to;
                Some(CompletedUpgrade {
                    successor,
                    reply_to: waiting,
                })
            }
            Err(refusal) => {
                log::error!("upgrade: {refusal}; this process serves on");
                send_reply(self.reply_to, Err(refusal));
                None
            }
        }
    }
}

/// Another process serves.
#[derive(Debug)]
pub(super) struct CompletedUpgrade {
    pub(super) successor: SuccessorHandle,
    reply_to: Option<oneshot::Sender<ControlResult>>,
}

impl CompletedUpgrade {
    /// Tells who waits; from now on operators meet the successor.
    pub(super) fn reply(&mut self) {
        let pid = self.successor.pid;
        send_reply(self.reply_to.take(), Ok(serde_json::json!({ "pid": pid })));
    }
}

/// Who asked may have left meanwhile.
pub(super) fn send_reply(waiting: Option<oneshot::Sender<ControlResult>>, reply: ControlResult) {
    if let Some(waiting) = waiting {
        let _ = waiting.send(reply);
    }
}

fn upgrade_cancelled() -> ControlError {
    ControlError::Busy("this process is to end; the upgrade is called off".to_owned())
}

/// One upgrade.
pub(super) struct UpgradeJob {
    app_state: Arc<AppState>,
    program: PathBuf,
    arguments: Vec<OsString>,
    config_path: PathBuf,
    sockets: Vec<(String, OwnedFd)>,
}

impl UpgradeJob {
    /// Collects what does not change until the end: no listener comes or goes meanwhile.
    pub(super) fn new(instance: &ServerInstance) -> Result<Self, ControlError> {
        let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
        if arguments.first().is_none_or(|command| command != "run") {
            return Err(ControlError::Failed(
                "only an instance that was started with `clockwise run` can be upgraded".to_owned(),
            ));
        }
        let Some(source) = instance.config_path.clone() else {
            return Err(ControlError::Failed(
                "this instance has no configuration file to start a new one with".to_owned(),
            ));
        };
        let failed = |what| move |error| ControlError::Failed(format!("cannot {what}: {error}"));
        Ok(Self {
            app_state: Arc::clone(&instance.app_state),
            program: program_path().map_err(failed("find the program to start"))?,
            arguments,
            config_path: source,
            sockets: duplicate_sockets(instance).map_err(failed("hand the sockets over"))?,
        })
    }

    /// Checks, starts, hands over, and waits until the new process is ready; one that fails in any
    /// of it is no more when this ends.
    async fn run(self, mut off: oneshot::Receiver<()>) -> Result<StandbyProcess, ControlError> {
        log::info!("upgrade: starting {}", self.program.display());
        tokio::select! {
            checked = self.check_config() => checked?,
            _ = &mut off => return Err(upgrade_cancelled()),
        }
        let failed = |error: io::Error| ControlError::Failed(error.to_string());
        let (mut wire, theirs) = HandoverChannel::pair().map_err(failed)?;
        let child = self.spawn(theirs)?;
        let snapshot = self.app_state.snapshot.load_full();
        let told = clock::since_start();
        let estate = HandoverState {
            sockets: self.sockets,
            captured_at: clock::monotonic_micros(),
            peer_state: snapshot.state_for_successor(),
            ticket_keys: snapshot.session_tickets.export_keys(),
            ready_timeout: snapshot.config.upgrade_timeout,
        };
        let prepared = tokio::select! {
            prepared = SuccessorHandle::hand_over(&mut wire, &estate) => prepared,
            _ = &mut off => Err(HandoverFailure { error: upgrade_cancelled(), process_exits: false }),
        };
        match prepared {
            Ok(ready) => Ok(StandbyProcess {
                child,
                channel: wire,
                ready,
                state_sent_at: told,
            }),
            Err(failed) => Err(terminate_child(child, wire, failed).await),
        }
    }

    /// The new program reads the configuration as it is now: a program that cannot run, and a
    /// configuration that is wrong, are found before anything is handed over.
    async fn check_config(&self) -> Result<(), ControlError> {
        let mut command = Command::new(&self.program);
        command
            .arg("check")
            .arg("-c")
            .arg(&self.config_path)
            .env_remove(SUCCESSOR_ENV)
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
        let said = String::from_utf8_lossy(&output.stderr);
        Err(ControlError::Failed(format!(
            "the new program does not accept the configuration ({}):\n{said}",
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

/// A new process that could serve, and waits for the word.
#[derive(Debug)]
pub(super) struct StandbyProcess {
    child: Child,
    channel: HandoverChannel,
    ready: SuccessorReady,
    /// Since when what has become of the peers is news to it.
    state_sent_at: Duration,
}

impl StandbyProcess {
    /// Gives it the word, and waits until it serves: a moment.
    pub(super) async fn activate(
        mut self,
        subject: &AppState,
    ) -> Result<SuccessorHandle, ControlError> {
        let word = Activate {
            peer_state: subject.snapshot.load().state_since(self.state_sent_at),
            captured_at: Some(clock::monotonic_micros()),
            counters: subject.telemetry.metrics.export_counters(),
        };
        match SuccessorHandle::activate(&mut self.channel, &word).await {
            Ok(()) => Ok(SuccessorHandle::new(self.ready, self.channel)),
            Err(failed) => Err(terminate_child(self.child, self.channel, failed).await),
        }
    }

    async fn terminate(self, refusal: ControlError) -> ControlError {
        let ends = false;
        terminate_child(
            self.child,
            self.channel,
            HandoverFailure {
                error: refusal,
                process_exits: ends,
            },
        )
        .await
    }
}

/// Makes sure that the new process is gone, and adds how it ended. Only then is the pair closed: to a
/// process that lives, our end of it closed means that we have ended, and that it must serve.
async fn terminate_child(
    mut child: Child,
    mut wire: HandoverChannel,
    failed: HandoverFailure,
) -> ControlError {
    let patience = if failed.process_exits {
        EXIT_TIMEOUT
    } else {
        Duration::ZERO
    };
    let ended = tokio::time::timeout(patience, child.wait()).await;
    let end = match ended {
        Ok(Ok(status)) => format!("it ended with {status}"),
        _ => match child.kill().await {
            Ok(()) => "it was killed".to_owned(),
            Err(error) => format!("it could not be killed: {error}"),
        },
    };
    SuccessorHandle::cancel(&mut wire).await;
    drop(wire);
    match failed.error {
        ControlError::Failed(why) => ControlError::Failed(format!("{why}; {end}")),
        ControlError::LimitExceeded(why) => ControlError::LimitExceeded(format!("{why}; {end}")),
        ControlError::Busy(why) => ControlError::Busy(format!("{why}; {end}")),
    }
}

fn duplicate_sockets(instance: &ServerInstance) -> io::Result<Vec<(String, OwnedFd)>> {
    let sockets = instance
        .listeners
        .duplicates()
        .chain(instance.admin_sockets.duplicates());
    sockets
        .map(|(name, socket)| Ok((name, socket.try_clone()?)))
        .collect()
}

/// The program to start in the place of this one: what the name that this one was started by means
/// now, so that a link that was turned to a new version is followed; else its file.
pub(super) fn program_path() -> io::Result<PathBuf> {
    let by_name = std::env::args_os()
        .next()
        .and_then(|name| find_in_path(&name));
    by_name.map_or_else(current_program, Ok)
}

/// As a shell finds it. A path that cannot be run is an error of its own, not a reason to run another.
fn find_in_path(name: &OsStr) -> Option<PathBuf> {
    if name.as_encoded_bytes().contains(&b'/') {
        return Some(PathBuf::from(name));
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|program| is_executable(program))
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, Access::EXEC_OK).is_ok()
}

/// The file this process was started from. Where it was replaced, as an update does, the kernel
/// calls the old one deleted; the new one is what is wanted.
fn current_program() -> io::Result<PathBuf> {
    let running = std::env::current_exe()?;
    let name = running.to_string_lossy();
    Ok(name
        .strip_suffix(" (deleted)")
        .map_or_else(|| running.clone(), PathBuf::from))
}

fn cannot_run(program: &Path, error: &io::Error) -> ControlError {
    ControlError::Failed(format!("cannot run {}: {error}", program.display()))
}
