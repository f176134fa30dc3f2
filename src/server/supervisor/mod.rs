//! The process above the proxy, for when the proxy's own process must not be the first: in a container the exit of
//! process 1 ends everything, and an upgrade ends the process that started it.
//!
//! It starts the proxy, forwards signals to the leading process, adopts orphaned processes, and ends with the exit code
//! of the last leader. It reads no configuration and has no connections. Like systemd, it learns which process leads from
//! `MAINPID` on the socket `NOTIFY_SOCKET`, but accepts it only from its own descendants; their other messages it forwards
//! to its own service manager, if it has one.

mod notify_socket;
mod process_tree;
mod workers;

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, WaitStatus};
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};

use self::notify_socket::{NotifyMessage, NotifySocket};
use self::workers::Workers;
use super::hot_restart::program_path;
use super::process_role::{self, SUPERVISED_ENV};
use super::signals::{Signal, Signals};
use super::{sd_notify, socket_activation};

/// Why the supervisor could not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A system call failed.
    #[error("cannot supervise: {0}")]
    System(#[from] io::Error),
    /// The proxy's process could not be started.
    #[error("cannot start the proxy's process: {0}")]
    Spawn(io::Error),
}

/// Whether this process becomes a supervisor: on request, and as process 1.
pub(crate) fn should_supervise(requested: bool) -> bool {
    (requested || std::process::id() == 1) && !process_role::is_supervised()
}

/// Starts this program again as the proxy, with the same arguments, and returns the exit code of the last leader; for a
/// leader killed by a signal, 128 plus the signal's number.
///
/// # Errors
/// [`Error`]: nothing was started.
pub(crate) fn supervise() -> Result<u8, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async { Ok(Supervisor::start()?.run().await) })
}

#[derive(Debug)]
struct Supervisor {
    notify_socket: NotifySocket,
    signals: Signals,
    child_exits: SignalStream,
    workers: Workers,
    /// A signal to stop has come.
    stopping: bool,
}

/// An event that the supervisor handles.
enum SupervisorEvent {
    Message(NotifyMessage),
    /// A child has exited, or it is time to look whether the leader has.
    ChildExited,
    Signal(Signal),
    /// The leader has exited, and no other has reported within [`LEADER_CHANGE_TIMEOUT`].
    NoLeader,
}

impl Supervisor {
    fn start() -> Result<Self, Error> {
        // First: until a handler is installed, a signal ends the process.
        let signals = Signals::install()?;
        let child_exits = signal(SignalKind::child())?;
        // Makes this process the next parent of orphaned descendants, as process 1 is without this call.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(io::Error::from)?;
        let (notify_socket, name) = NotifySocket::open()?;
        let leader = spawn_worker(&name).map_err(Error::Spawn)?;
        // The proxy has inherited them; a second descriptor here would keep them open after its exit.
        drop(socket_activation::take_passed_sockets());
        Ok(Self {
            notify_socket,
            signals,
            child_exits,
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
                    // Children first: only their exit codes can be read.
                    let no_child_left = self.reap_children();
                    self.workers.remove_exited();
                    if let Some(code) = self.workers.exit_code().filter(|_| no_child_left) {
                        return code;
                    }
                }
            }
        }
    }

    async fn next_event(&mut self) -> SupervisorEvent {
        let has_no_leader = self.workers.exit_code().is_some();
        tokio::select! {
            // The report of a new leader comes before the exit of the old one.
            biased;
            Ok(message) = self.notify_socket.receive() => SupervisorEvent::Message(message),
            _ = self.child_exits.recv() => SupervisorEvent::ChildExited,
            signal = self.signals.recv() => SupervisorEvent::Signal(signal),
            () = tokio::time::sleep(LEADER_CHANGE_TIMEOUT), if has_no_leader => SupervisorEvent::NoLeader,
            () = tokio::time::sleep(POLL_INTERVAL), if !has_no_leader => SupervisorEvent::ChildExited,
        }
    }

    fn handle_message(&mut self, message: &NotifyMessage) {
        let Some(sender) = message.sender else { return };
        if let Some(forwarded) = self.workers.handle_message(sender, &message.text) {
            sd_notify::notify(&forwarded);
        }
    }

    /// Sends a signal to the leader. The first signal to stop makes only the leader drain; earlier workers drain
    /// already. The second one goes to all workers.
    fn forward_signal(&mut self, signal: Signal) {
        let is_second_stop = signal == Signal::Stop && std::mem::replace(&mut self.stopping, true);
        if is_second_stop || signal == Signal::ReopenLogs || self.workers.exit_code().is_some() {
            self.workers.signal_all(signal.number());
        } else {
            self.workers.signal_leader(signal.number());
        }
    }

    /// Records every child that has exited; whether no child is left.
    fn reap_children(&mut self) -> bool {
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => self.workers.record_exit(pid, exit_code(status)),
                Ok(None) => return false,
                Err(Errno::INTR) => {}
                Err(Errno::CHILD) => return true,
                Err(error) => {
                    // Children may be left; the next call may succeed.
                    log::warn!("cannot read which child processes have exited: {error}");
                    return false;
                }
            }
        }
    }
}

/// Starts the first worker, in a process group of its own: a signal that a terminal sends to the supervisor's group would
/// reach it twice.
fn spawn_worker(notify_socket: &str) -> io::Result<Pid> {
    let mut command = Command::new(program_path()?);
    command
        .args(std::env::args_os().skip(1))
        .env(SUPERVISED_ENV, "1")
        .env(sd_notify::SOCKET_ENV, format!("@{notify_socket}"))
        .stdin(Stdio::null())
        .process_group(0);
    // These name this process; without them, the sockets and the watchdog are for the process that reads them.
    for pid_variable in ["LISTEN_PID", sd_notify::WATCHDOG_PID_ENV] {
        if std::env::var(pid_variable).is_ok_and(|pid| pid == std::process::id().to_string()) {
            command.env_remove(pid_variable);
        }
    }
    let child = command.spawn()?;
    Ok(Pid::from_child(&child))
}

/// The exit code as a shell shows it.
fn exit_code(status: WaitStatus) -> u8 {
    let code = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => 1,
    };
    u8::try_from(code).unwrap_or(u8::MAX)
}

/// How long a new process may take to report that it leads after the old one has exited: both happen at the end of an
/// upgrade, in either order.
const LEADER_CHANGE_TIMEOUT: Duration = Duration::from_secs(1);

/// How often to look whether the leader is alive. The system reports the exit of children at once, but the leader is the
/// child of the process that started it while that one still drains.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

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
