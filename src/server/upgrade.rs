//! The hand-over, seen from the process that is replaced: it serves on until the new one has said
//! that it serves, and goes on serving if the new one never does.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::process::{Child, Command};

use super::handover::{Estate, Failed, SUCCESSOR, Successor, hand_over};
use super::instance::Instance;
use crate::admin::Subject;
use crate::lifecycle::Refusal;

/// How long the new program may take to check the configuration.
const CHECK: Duration = Duration::from_secs(30);

/// One upgrade.
pub(super) struct Job {
    subject: Arc<Subject>,
    program: PathBuf,
    arguments: Vec<OsString>,
    source: PathBuf,
    estate: Estate,
    limit: Duration,
}

impl Job {
    /// Collects what is handed over.
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
        let snapshot = instance.subject.snapshot.load();
        let estate = estate(instance)
            .map_err(|error| Refusal::Failed(format!("cannot hand the sockets over: {error}")))?;
        Ok(Self {
            subject: Arc::clone(&instance.subject),
            program: program().map_err(|error| {
                Refusal::Failed(format!("cannot find the program to start: {error}"))
            })?,
            arguments,
            source,
            estate,
            limit: snapshot.config.upgrade_timeout,
        })
    }

    /// Checks, starts, hands over, and waits for the acknowledgement; a new process that fails in
    /// any of it is killed.
    pub(super) async fn run(self) -> Result<Successor, Refusal> {
        log::info!("upgrade: starting {}", self.program.display());
        self.check().await?;
        let (ours, theirs) =
            UnixStream::pair().map_err(|error| Refusal::Failed(error.to_string()))?;
        let mut child = self.spawn(theirs)?;
        let (subject, estate, limit) = (self.subject, self.estate, self.limit);
        let handed = tokio::task::spawn_blocking(move || {
            let mut successor = hand_over(ours, &estate, limit)?;
            let memory = subject.snapshot.load().memory();
            successor.update(subject.gate.inside() as u64, memory);
            Ok(successor)
        });
        match handed.await {
            Ok(Ok(successor)) => {
                log::info!("upgrade: process {} serves; this one drains", successor.pid);
                Ok(successor)
            }
            Ok(Err(Failed { refusal, ends })) => Err(bury(&mut child, &refusal, ends).await),
            Err(error) => Err(bury(&mut child, &Refusal::Failed(error.to_string()), false).await),
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

    fn spawn(&self, theirs: UnixStream) -> Result<Child, Refusal> {
        Command::new(&self.program)
            .args(&self.arguments)
            .env(SUCCESSOR, "1")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .map_err(|error| cannot_run(&self.program, &error))
    }
}

/// Makes sure that the new process is gone, and adds how it ended. One that may still come to serve
/// is killed at once: connections that it took would be lost.
async fn bury(child: &mut Child, refusal: &Refusal, ends: bool) -> Refusal {
    let patience = if ends {
        Duration::from_secs(1)
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
    Refusal::Failed(format!("{refusal}; {end}"))
}

fn estate(instance: &Instance) -> io::Result<Estate> {
    let sockets = instance
        .listeners
        .duplicates()
        .chain(instance.doors.duplicates());
    let sockets = sockets.map(|(name, socket)| Ok((name, socket.try_clone()?)));
    Ok(Estate {
        sockets: sockets.collect::<io::Result<_>>()?,
        memory: instance.subject.snapshot.load().memory(),
        counters: instance.subject.telemetry.metrics.counters(),
    })
}

/// The file this process was started from. Where it was replaced, as an update does, the kernel
/// calls the old one deleted; the new one is what is wanted.
pub(super) fn program() -> io::Result<PathBuf> {
    let running = std::env::current_exe()?;
    let name = running.to_string_lossy();
    Ok(name
        .strip_suffix(" (deleted)")
        .map_or_else(|| running.clone(), PathBuf::from))
}

fn cannot_run(program: &Path, error: &io::Error) -> Refusal {
    Refusal::Failed(format!("cannot run {}: {error}", program.display()))
}
