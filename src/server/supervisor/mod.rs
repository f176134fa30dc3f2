//! The process that stands above the proxy where the proxy's own process must not be the first: in
//! a container the end of process 1 is the end of all, and an upgrade ends the process it began in.
//!
//! It starts the proxy, passes signals on to the process that leads, takes the place of parents that
//! have left, and ends with the exit code of the last leader. It reads no configuration and has no
//! connection. Who leads it learns as systemd does, from `MAINPID` on the socket `NOTIFY_SOCKET`, and
//! believes only its own descendants; what else they say there it passes on to its own service
//! manager, if it has one.

mod kin;
mod mailbox;
mod succession;

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal as Number, WaitOptions, WaitStatus};
use tokio::signal::unix::{Signal as Source, SignalKind, signal};

use self::mailbox::{Mailbox, Message};
use self::succession::Succession;
use super::signals::{Signal, Signals};
use super::{activation, notify, upgrade};

/// Tells a process that it has a supervisor, and is not to be one.
const SUPERVISED: &str = "CLOCKWISE_SUPERVISED";

/// How long a new process may take to say that it leads when the old one has ended: both happen at
/// the end of an upgrade, in either order.
const INTERREGNUM: Duration = Duration::from_secs(1);

/// How often to look whether the leader lives. The system tells us of our children at once, but the
/// leader is another process's child while the one that started it still drains.
const LOOK: Duration = Duration::from_millis(500);

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
pub fn is_supervisor(asked: bool) -> bool {
    (asked || std::process::id() == 1) && !is_above_us()
}

/// Whether this process was started by a supervisor, or by one that was.
pub(super) fn is_above_us() -> bool {
    std::env::var_os(SUPERVISED).as_deref() == Some(OsStr::new("1"))
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
    mailbox: Mailbox,
    signals: Signals,
    ended: Source,
    succession: Succession,
    /// Whether a signal to stop has come.
    stopping: bool,
}

/// What happens next.
enum Next {
    Message(Message),
    /// A child, or maybe the leader.
    Ended,
    Signal(Signal),
    /// Nobody has led for so long that nobody will.
    Orphaned,
}

impl Supervisor {
    fn start() -> Result<Self, Error> {
        // First: until its handler is installed, a signal ends the process.
        let signals = Signals::install()?;
        let ended = signal(SignalKind::child())?;
        // Process 1 is everybody's next parent; others must ask for it.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(io::Error::from)?;
        let (mailbox, name) = Mailbox::open()?;
        let leader = spawn(&name).map_err(Error::Spawn)?;
        // The proxy has them; a socket that we held too would outlive it.
        drop(activation::receive());
        Ok(Self {
            mailbox,
            signals,
            ended,
            succession: Succession::new(leader),
            stopping: false,
        })
    }

    async fn run(mut self) -> u8 {
        loop {
            match self.next().await {
                Next::Message(message) => self.hear(&message),
                Next::Signal(signal) => self.pass_on(signal),
                Next::Orphaned => {
                    if let Some(code) = self.succession.abdicate(self.stopping) {
                        return code;
                    }
                }
                Next::Ended => {
                    // Children first: theirs are the exit codes that can be had.
                    let alone = self.reap();
                    self.succession.miss();
                    if let Some(code) = self.succession.code().filter(|_| alone) {
                        return code;
                    }
                }
            }
        }
    }

    async fn next(&mut self) -> Next {
        let interregnum = self.succession.code().is_some();
        tokio::select! {
            // In this order: the new leader before the end of the old one.
            biased;
            Ok(message) = self.mailbox.receive() => Next::Message(message),
            _ = self.ended.recv() => Next::Ended,
            signal = self.signals.recv() => Next::Signal(signal),
            () = tokio::time::sleep(INTERREGNUM), if interregnum => Next::Orphaned,
            () = tokio::time::sleep(LOOK), if !interregnum => Next::Ended,
        }
    }

    fn hear(&mut self, message: &Message) {
        let Some(sender) = message.sender else { return };
        if let Some(passed_on) = self.succession.hear(sender, &message.text) {
            notify::tell(&passed_on);
        }
    }

    /// A first signal to stop is the leader's, who drains beside those that drain already. A second
    /// one is everybody's.
    fn pass_on(&mut self, signal: Signal) {
        let number = match signal {
            Signal::Stop => Number::TERM,
            Signal::Reload => Number::HUP,
            Signal::ReopenLogs => Number::USR1,
            Signal::Upgrade => Number::USR2,
        };
        let again = signal == Signal::Stop && std::mem::replace(&mut self.stopping, true);
        if again || signal == Signal::ReopenLogs || self.succession.code().is_some() {
            self.succession.tell_all(number);
        } else {
            self.succession.tell_leader(number);
        }
    }

    /// Takes note of every process that has ended; whether none is left.
    fn reap(&mut self) -> bool {
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => self.succession.bury(pid, code(status)),
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
fn spawn(mailbox: &str) -> io::Result<Pid> {
    let mut command = Command::new(upgrade::program()?);
    command
        .args(std::env::args_os().skip(1))
        .env(SUPERVISED, "1")
        .env(notify::SOCKET, format!("@{mailbox}"))
        .stdin(Stdio::null())
        .process_group(0);
    // What was meant for us is meant for it; where no process is named, whoever reads it is.
    for meant_for in ["LISTEN_PID", notify::WATCHDOG_PID] {
        if std::env::var(meant_for).is_ok_and(|pid| pid == std::process::id().to_string()) {
            command.env_remove(meant_for);
        }
    }
    let child = command.spawn()?;
    Ok(Pid::from_child(&child))
}

/// As a shell has it.
fn code(status: WaitStatus) -> u8 {
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
    fn an_exit_code_is_as_a_shell_has_it() {
        let code_of = |script: &str| {
            let child = Command::new("sh").args(["-c", script]).spawn().unwrap();
            let pid = Some(Pid::from_child(&child));
            let ended = rustix::process::waitpid(pid, WaitOptions::empty());
            code(ended.unwrap().unwrap().1)
        };
        assert_eq!((code_of("exit 3"), code_of("kill -9 $$")), (3, 137));
    }
}
