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

use super::handover::{Estate, Failed, Go, Ready, SUCCESSOR, Successor, Wire};
use super::instance::Instance;
use crate::admin::Subject;
use crate::clock;
use crate::lifecycle::{Refusal, Reply};

/// How long the new program may take to check the configuration.
const CHECK: Duration = Duration::from_secs(30);

/// How long a new process that has failed may take to end by itself, so that its exit code is known.
const END: Duration = Duration::from_secs(1);

/// An upgrade under way: the instance serves on meanwhile.
#[derive(Debug)]
pub(super) struct Underway {
    task: JoinHandle<Result<Candidate, Refusal>>,
    call_off: oneshot::Sender<()>,
    waiting: Option<oneshot::Sender<Reply>>,
}

impl Underway {
    /// Begins; `waiting` is told how it ends.
    pub(super) fn begin(job: Job, waiting: Option<oneshot::Sender<Reply>>) -> Self {
        let (call_off, called_off) = oneshot::channel();
        Self {
            task: tokio::spawn(job.run(called_off)),
            call_off,
            waiting,
        }
    }

    /// Waits for the new process to be ready. Can be dropped and called again.
    pub(super) async fn candidate(&mut self) -> Result<Candidate, Refusal> {
        let ended = (&mut self.task).await;
        ended.unwrap_or_else(|error| Err(Refusal::Failed(error.to_string())))
    }

    /// Ends it, whatever stage it is in: when this returns the new process is no more.
    pub(super) async fn call_off(mut self) {
        // It may just have come to its end.
        drop(self.call_off);
        let ended = (&mut self.task).await;
        let refusal = match ended {
            Ok(Ok(candidate)) => candidate.dismiss(called_off()).await,
            Ok(Err(refusal)) => refusal,
            Err(error) => Refusal::Failed(error.to_string()),
        };
        log::warn!("upgrade: {refusal}");
        answer(self.waiting, Err(refusal));
    }

    /// The word was given: whether to leave, or to serve on.
    pub(super) fn settle(self, outcome: Result<Successor, Refusal>) -> Option<Succession> {
        match outcome {
            Ok(successor) => {
                let pid = successor.pid;
                log::info!("upgrade: process {pid} serves; this one drains");
                let waiting = self.waiting;
                Some(Succession { successor, waiting })
            }
            Err(refusal) => {
                log::error!("upgrade: {refusal}; this process serves on");
                answer(self.waiting, Err(refusal));
                None
            }
        }
    }
}

/// Another process serves.
#[derive(Debug)]
pub(super) struct Succession {
    pub(super) successor: Successor,
    waiting: Option<oneshot::Sender<Reply>>,
}

impl Succession {
    /// Tells who waits; from now on operators meet the successor.
    pub(super) fn announce(&mut self) {
        let pid = self.successor.pid;
        answer(self.waiting.take(), Ok(serde_json::json!({ "pid": pid })));
    }
}

/// Who asked may have left meanwhile.
pub(super) fn answer(waiting: Option<oneshot::Sender<Reply>>, reply: Reply) {
    if let Some(waiting) = waiting {
        let _ = waiting.send(reply);
    }
}

fn called_off() -> Refusal {
    Refusal::Busy("this process is to end; the upgrade is called off".to_owned())
}

/// One upgrade.
pub(super) struct Job {
    subject: Arc<Subject>,
    program: PathBuf,
    arguments: Vec<OsString>,
    source: PathBuf,
    sockets: Vec<(String, OwnedFd)>,
}

impl Job {
    /// Collects what does not change until the end: no listener comes or goes meanwhile.
    pub(super) fn new(instance: &Instance) -> Result<Self, Refusal> {
        let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
        if arguments.first().is_none_or(|command| command != "run") {
            return Err(Refusal::Failed(
                "only an instance that was started with `clockwise run` can be upgraded".to_owned(),
            ));
        }
        let Some(source) = instance.source.clone() else {
            return Err(Refusal::Failed(
                "this instance has no configuration file to start a new one with".to_owned(),
            ));
        };
        let failed = |what| move |error| Refusal::Failed(format!("cannot {what}: {error}"));
        Ok(Self {
            subject: Arc::clone(&instance.subject),
            program: program().map_err(failed("find the program to start"))?,
            arguments,
            source,
            sockets: sockets(instance).map_err(failed("hand the sockets over"))?,
        })
    }

    /// Checks, starts, hands over, and waits until the new process is ready; one that fails in any
    /// of it is no more when this ends.
    async fn run(self, mut off: oneshot::Receiver<()>) -> Result<Candidate, Refusal> {
        log::info!("upgrade: starting {}", self.program.display());
        tokio::select! {
            checked = self.check() => checked?,
            _ = &mut off => return Err(called_off()),
        }
        let failed = |error: io::Error| Refusal::Failed(error.to_string());
        let (mut wire, theirs) = Wire::pair().map_err(failed)?;
        let child = self.spawn(theirs)?;
        let snapshot = self.subject.snapshot.load_full();
        let told = clock::since_start();
        let estate = Estate {
            sockets: self.sockets,
            at: clock::monotonic_micros(),
            memory: snapshot.estate(),
            tickets: snapshot.tickets.keys(),
            patience: snapshot.config.upgrade_timeout,
        };
        let prepared = tokio::select! {
            prepared = Successor::prepare(&mut wire, &estate) => prepared,
            _ = &mut off => Err(Failed { refusal: called_off(), ends: false }),
        };
        match prepared {
            Ok(ready) => Ok(Candidate {
                child,
                wire,
                ready,
                told,
            }),
            Err(failed) => Err(bury(child, wire, failed).await),
        }
    }

    /// The new program reads the configuration as it is now: a program that cannot run, and a
    /// configuration that is wrong, are found before anything is handed over.
    async fn check(&self) -> Result<(), Refusal> {
        let mut command = Command::new(&self.program);
        command
            .arg("check")
            .arg("-c")
            .arg(&self.source)
            .env_remove(SUCCESSOR)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let Ok(checked) = tokio::time::timeout(CHECK, command.output()).await else {
            return Err(Refusal::Failed(format!(
                "{} did not check the configuration within {CHECK:?}",
                self.program.display()
            )));
        };
        let output = checked.map_err(|error| cannot_run(&self.program, &error))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(Refusal::Failed(format!(
            "the new program does not accept the configuration ({}):\n{said}",
            output.status
        )))
    }

    fn spawn(&self, theirs: OwnedFd) -> Result<Child, Refusal> {
        Command::new(&self.program)
            .args(&self.arguments)
            .env(SUCCESSOR, "1")
            .stdin(Stdio::from(theirs))
            .spawn()
            .map_err(|error| cannot_run(&self.program, &error))
    }
}

/// A new process that could serve, and waits for the word.
#[derive(Debug)]
pub(super) struct Candidate {
    child: Child,
    wire: Wire,
    ready: Ready,
    /// Since when what has become of the peers is news to it.
    told: Duration,
}

impl Candidate {
    /// Gives it the word, and waits until it serves: a moment.
    pub(super) async fn go(mut self, subject: &Subject) -> Result<Successor, Refusal> {
        let word = Go {
            memory: subject.snapshot.load().news(self.told),
            at: Some(clock::monotonic_micros()),
            counters: subject.telemetry.metrics.counters(),
        };
        match Successor::go(&mut self.wire, &word).await {
            Ok(()) => Ok(Successor::new(self.ready, self.wire)),
            Err(failed) => Err(bury(self.child, self.wire, failed).await),
        }
    }

    async fn dismiss(self, refusal: Refusal) -> Refusal {
        let ends = false;
        bury(self.child, self.wire, Failed { refusal, ends }).await
    }
}

/// Makes sure that the new process is gone, and adds how it ended. Only then is the pair closed: to a
/// process that lives, our end of it closed means that we have ended, and that it must serve.
async fn bury(mut child: Child, mut wire: Wire, failed: Failed) -> Refusal {
    let patience = if failed.ends { END } else { Duration::ZERO };
    let ended = tokio::time::timeout(patience, child.wait()).await;
    let end = match ended {
        Ok(Ok(status)) => format!("it ended with {status}"),
        _ => match child.kill().await {
            Ok(()) => "it was killed".to_owned(),
            Err(error) => format!("it could not be killed: {error}"),
        },
    };
    Successor::call_off(&mut wire).await;
    drop(wire);
    match failed.refusal {
        Refusal::Failed(why) => Refusal::Failed(format!("{why}; {end}")),
        Refusal::Limit(why) => Refusal::Limit(format!("{why}; {end}")),
        Refusal::Busy(why) => Refusal::Busy(format!("{why}; {end}")),
    }
}

fn sockets(instance: &Instance) -> io::Result<Vec<(String, OwnedFd)>> {
    let sockets = instance
        .listeners
        .duplicates()
        .chain(instance.doors.duplicates());
    sockets
        .map(|(name, socket)| Ok((name, socket.try_clone()?)))
        .collect()
}

/// The program to start in the place of this one: what the name that this one was started by means
/// now, so that a link that was turned to a new version is followed; else its file.
pub(super) fn program() -> io::Result<PathBuf> {
    let by_name = std::env::args_os().next().and_then(|name| find(&name));
    by_name.map_or_else(running, Ok)
}

/// As a shell finds it. A path that cannot be run is an error of its own, not a reason to run another.
fn find(name: &OsStr) -> Option<PathBuf> {
    if name.as_encoded_bytes().contains(&b'/') {
        return Some(PathBuf::from(name));
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|program| is_program(program))
}

fn is_program(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, Access::EXEC_OK).is_ok()
}

/// The file this process was started from. Where it was replaced, as an update does, the kernel
/// calls the old one deleted; the new one is what is wanted.
fn running() -> io::Result<PathBuf> {
    let running = std::env::current_exe()?;
    let name = running.to_string_lossy();
    Ok(name
        .strip_suffix(" (deleted)")
        .map_or_else(|| running.clone(), PathBuf::from))
}

fn cannot_run(program: &Path, error: &io::Error) -> Refusal {
    Refusal::Failed(format!("cannot run {}: {error}", program.display()))
}
