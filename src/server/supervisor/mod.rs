//! The process that stands above the proxy where the proxy's own process must not be the first: in
//! a container the end of process 1 is the end of all, and an upgrade ends the process it began in.
//!
//! It starts the proxy, passes signals on to the process that leads, takes the place of parents that
//! have left, and ends with the exit code of the last leader. It reads no configuration and has no
//! connection. Who leads it learns as systemd does, from `MAINPID` on the socket `NOTIFY_SOCKET`, and
//! believes only its own descendants; what else they say there it passes on to its own service
//! manager, if it has one.

mod notify_socket;
mod process_tree;
mod workers;

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal as Number, WaitOptions, WaitStatus};
use tokio::signal::unix::{Signal as Source, SignalKind, signal};

use self::notify_socket::{NotifyMessage, NotifySocket};
use self::workers::Workers;
use super::hot_restart::program_path;
use super::process_role::{self, SUPERVISED_ENV};
use super::signals::{Signal, Signals};
use super::{sd_notify, socket_activation};

/// How long a new process may take to say that it leads when the old one has ended: both happen at
/// the end of an upgrade, in either order.
const LEADER_CHANGE_TIMEOUT: Duration = Duration::from_secs(1);

/// How often to look whether the leader lives. The system tells us of our children at once, but the
/// leader is another process's child while the one that started it still drains.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Why there can be no supervisor.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system says no.
    #[error("cannot supervise: {0}")]
    System(#[from] io::Error),
    /// The proxy's process could not be started.
    #[error("cannot start the proxy's process: {0}")]
    Spawn(io::Error),
}

/// Whether this process is to be a supervisor: where it is asked to, and as process 1.
pub fn should_supervise(asked: bool) -> bool {
    (asked || std::process::id() == 1) && !process_role::is_supervised()
}

/// Runs this program again, with the same arguments, as the proxy, and returns the exit code of the
/// process that led last; that of one killed by a signal is 128 and the signal's number.
///
/// # Errors
/// [`Error`]: nothing was started.
pub fn supervise() -> Result<u8, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async { Ok(Supervisor::start()?.run().await) })
}

#[derive(Debug)]
struct Supervisor {
    notify_socket: NotifySocket,
    signals: Signals,
    child_exits: Source,
    workers: Workers,
    /// Whether a signal to stop has come.
    stopping: bool,
}

/// What happens next.
enum SupervisorEvent {
    Message(NotifyMessage),
    /// A child, or maybe the leader.
    ChildExited,
    Signal(Signal),
    /// Nobody has led for so long that nobody will.
    NoLeader,
}

impl Supervisor {
    fn start() -> Result<Self, Error> {
        // First: until its handler is installed, a signal ends the process.
        let signals = Signals::install()?;
        let ended = signal(SignalKind::child())?;
        // Process 1 is everybody's next parent; others must ask for it.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(io::Error::from)?;
        let (mailbox, name) = NotifySocket::open()?;
        let leader = spawn_worker(&name).map_err(Error::Spawn)?;
        // The proxy has them; a socket that we held too would outlive it.
        drop(socket_activation::take_passed_sockets());
        Ok(Self {
            notify_socket: mailbox,
            signals,
            child_exits: ended,
            workers: Workers::new(leader),
            stopping: false,
        })
    }

    async fn run(mut self) -> u8 {
        loop {
            match self.next_event().await {
                SupervisorEvent::Message(message) => self.handle_message(&message),
                SupervisorEvent::Signal(signal) => self.forward_signal(signal),
                SupervisorEvent::NoLeader => {
                    if let Some(code) = self.workers.replace_leader(self.stopping) {
                        return code;
                    }
                }
                SupervisorEvent::ChildExited => {
                    // Children first: theirs are the exit codes that can be had.
                    let alone = self.reap_children();
                    self.workers.remove_exited();
                    if let Some(code) = self.workers.exit_code().filter(|_| alone) {
                        return code;
                    }
                }
            }
        }
    }

    async fn next_event(&mut self) -> SupervisorEvent {
        let interregnum = self.workers.exit_code().is_some();
        tokio::select! {
            // In this order: the new leader before the end of the old one.
            biased;
            Ok(message) = self.notify_socket.receive() => SupervisorEvent::Message(message),
            _ = self.child_exits.recv() => SupervisorEvent::ChildExited,
            signal = self.signals.recv() => SupervisorEvent::Signal(signal),
            () = tokio::time::sleep(LEADER_CHANGE_TIMEOUT), if interregnum => SupervisorEvent::NoLeader,
            () = tokio::time::sleep(POLL_INTERVAL), if !interregnum => SupervisorEvent::ChildExited,
        }
    }

    fn handle_message(&mut self, message: &NotifyMessage) {
        let Some(sender) = message.sender else { return };
        if let Some(passed_on) = self.workers.handle_message(sender, &message.text) {
            sd_notify::notify(&passed_on);
        }
    }

    /// A first signal to stop is the leader's, who drains beside those that drain already. A second
    /// one is everybody's.
    fn forward_signal(&mut self, signal: Signal) {
        let number = match signal {
            Signal::Stop => Number::TERM,
            Signal::Reload => Number::HUP,
            Signal::ReopenLogs => Number::USR1,
            Signal::Upgrade => Number::USR2,
        };
        let again = signal == Signal::Stop && std::mem::replace(&mut self.stopping, true);
        if again || signal == Signal::ReopenLogs || self.workers.exit_code().is_some() {
            self.workers.signal_all(number);
        } else {
            self.workers.signal_leader(number);
        }
    }

    /// Takes note of every process that has ended; whether none is left.
    fn reap_children(&mut self) -> bool {
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => self.workers.record_exit(pid, exit_code(status)),
                Ok(None) => return false,
                Err(Errno::INTR) => {}
                Err(Errno::CHILD) => return true,
                Err(error) => {
                    // Not that nobody is left: the next look may succeed.
                    log::warn!("cannot ask which processes have ended: {error}");
                    return false;
                }
            }
        }
    }
}

/// In a process group of its own: what a terminal sends to all of ours would reach it twice.
fn spawn_worker(mailbox: &str) -> io::Result<Pid> {
    let mut command = Command::new(program_path()?);
    command
        .args(std::env::args_os().skip(1))
        .env(SUPERVISED_ENV, "1")
        .env(sd_notify::SOCKET_ENV, format!("@{mailbox}"))
        .stdin(Stdio::null())
        .process_group(0);
    // What was meant for us is meant for it; where no process is named, whoever reads it is.
    for meant_for in ["LISTEN_PID", sd_notify::WATCHDOG_PID_ENV] {
        if std::env::var(meant_for).is_ok_and(|pid| pid == std::process::id().to_string()) {
            command.env_remove(meant_for);
        }
    }
    let child = command.spawn()?;
    Ok(Pid::from_child(&child))
}

/// As a shell has it.
fn exit_code(status: WaitStatus) -> u8 {
    let code = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => 1,
    };
    u8::try_from(code).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::zombie_processes, reason = "waited for by its id")]
    fn worker_exit_code_follows_the_shell_convention() {
        let code_of = |script: &str| {
            let child = Command::new("sh").args(["-c", script]).spawn().unwrap();
            let pid = Some(Pid::from_child(&child));
            let ended = rustix::process::waitpid(pid, WaitOptions::empty());
            exit_code(ended.unwrap().unwrap().1)
        };
        assert_eq!((code_of("exit 3"), code_of("kill -9 $$")), (3, 137));
    }
}
