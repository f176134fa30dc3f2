//! The process that stands above the proxy where the proxy's own process must not be the first: in
//! a container the end of process 1 is the end of all, and an upgrade ends the process it began in.
//!
//! It starts the proxy, passes signals on to the process that leads, takes the place of parents that
//! have left, and ends with the exit code of the last leader. It reads no configuration and has no
//! connection. Who leads it learns as systemd does, from `MAINPID` on the socket `NOTIFY_SOCKET`;
//! what else is said there it passes on to its own service manager, if it has one.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal as Number, WaitOptions, WaitStatus};
use tokio::signal::unix::{Signal as Source, SignalKind, signal};

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

/// The longest message that is read; systemd's own bound is the same.
const MAX_MESSAGE: usize = 4096;

/// The most generations between a process and us, its supervisor.
const MAX_ANCESTORS: usize = 100;

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
    let supervised = std::env::var_os(SUPERVISED).as_deref() == Some(OsStr::new("1"));
    (asked || std::process::id() == 1) && !supervised
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
    mailbox: tokio::net::UnixDatagram,
    signals: Signals,
    ended: Source,
    leader: Pid,
    /// Whether the leader has said that it is coming to its end.
    farewell: bool,
    /// The processes that have led and have not ended: the leader, and those that drain.
    workers: Vec<Pid>,
    /// The exit code of the last leader that has ended.
    code: Option<u8>,
    /// Whether a signal to stop has come.
    stopping: bool,
}

/// What happens next.
enum Next {
    Message(String),
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
        let (mailbox, name) = open_mailbox()?;
        let leader = spawn(&name).map_err(Error::Spawn)?;
        // The proxy has them; a socket that we held too would outlive it.
        drop(activation::receive());
        Ok(Self {
            mailbox,
            signals,
            ended,
            leader,
            farewell: false,
            workers: vec![leader],
            code: None,
            stopping: false,
        })
    }

    async fn run(mut self) -> u8 {
        loop {
            match self.next().await {
                Next::Message(message) => self.hear(&message),
                Next::Signal(signal) => self.pass_on(signal),
                Next::Orphaned => {
                    if let Some(code) = self.abdicate() {
                        return code;
                    }
                }
                Next::Ended => {
                    // Children first: theirs are the exit codes that can be had.
                    let alone = self.reap();
                    self.miss();
                    if let Some(code) = self.code.filter(|_| alone) {
                        return code;
                    }
                }
            }
        }
    }

    async fn next(&mut self) -> Next {
        let mut message = vec![0; MAX_MESSAGE];
        let interregnum = self.code.is_some();
        tokio::select! {
            // In this order: the new leader before the end of the old one.
            biased;
            Ok(length) = self.mailbox.recv(&mut message) => {
                message.truncate(length);
                Next::Message(String::from_utf8_lossy(&message).into_owned())
            }
            _ = self.ended.recv() => Next::Ended,
            signal = self.signals.recv() => Next::Signal(signal),
            () = tokio::time::sleep(INTERREGNUM), if interregnum => Next::Orphaned,
            () = tokio::time::sleep(LOOK), if !interregnum => Next::Ended,
        }
    }

    /// To whoever stands above us, we are the main process, whoever leads.
    fn hear(&mut self, message: &str) {
        let main = message
            .lines()
            .find_map(|line| line.strip_prefix("MAINPID="))
            .and_then(|pid| Pid::from_raw(pid.parse().ok()?));
        if let Some(pid) = main.filter(|&pid| pid != self.leader && descends_from_us(pid)) {
            log::info!("process {pid} leads now; it was {}", self.leader);
            self.leader = pid;
            self.workers.push(pid);
            self.farewell = false;
            self.code = None;
        }
        self.farewell |= message.lines().any(|line| line == "STOPPING=1");
        let rest = message.lines().filter(|line| !line.starts_with("MAINPID="));
        let rest: Vec<_> = rest.collect();
        notify::tell(&rest.join("\n"));
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
        if again || signal == Signal::ReopenLogs || self.code.is_some() {
            self.tell_all(number);
        } else {
            tell(self.leader, number);
        }
    }

    /// Takes note of every process that has ended; whether none is left.
    fn reap(&mut self) -> bool {
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => self.bury(pid, status),
                Ok(None) => return false,
                Err(error) if error == rustix::io::Errno::INTR => {}
                Err(_) => return true,
            }
        }
    }

    fn bury(&mut self, pid: Pid, status: WaitStatus) {
        self.workers.retain(|&worker| worker != pid);
        if pid == self.leader {
            self.code = Some(code(status));
        }
    }

    /// A leader that ended as another process's child: its exit code is not for us to have.
    fn miss(&mut self) {
        if self.code.is_none() && !descends_from_us(self.leader) {
            self.workers.retain(|&worker| worker != self.leader);
            self.code = Some(u8::from(!self.farewell));
        }
    }

    /// Without a leader nobody accepts: those that drain are not waited for where it failed, so that
    /// whoever stands above us can start anew.
    fn abdicate(&mut self) -> Option<u8> {
        let code = self.code?;
        self.workers.retain(|&worker| descends_from_us(worker));
        if code != 0 {
            self.tell_all(Number::TERM);
        }
        self.workers.is_empty().then_some(code)
    }

    fn tell_all(&self, number: Number) {
        let alive = self
            .workers
            .iter()
            .filter(|&&worker| descends_from_us(worker));
        alive.for_each(|&worker| tell(worker, number));
    }
}

/// It has no name in the file system, which a container may not let us write to.
fn open_mailbox() -> io::Result<(tokio::net::UnixDatagram, String)> {
    let name = format!(
        "clockwise-{}-{:016x}",
        std::process::id(),
        rand::random::<u64>()
    );
    let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
    socket.set_nonblocking(true)?;
    Ok((tokio::net::UnixDatagram::from_std(socket)?, name))
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

/// Anybody on the machine can write to the mailbox, but nobody else can be our descendant.
fn descends_from_us(pid: Pid) -> bool {
    std::iter::successors(Some(pid), |&pid| parent(pid))
        .take(MAX_ANCESTORS)
        .any(|ancestor| ancestor == rustix::process::getpid())
}

/// The fourth field of `proc_pid_stat(5)`; the second one, in brackets, may hold anything. `None`
/// for a process that has ended.
fn parent(pid: Pid) -> Option<Pid> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    // Zombies have ended, whoever their parent is.
    fields.next().filter(|&state| state != "Z")?;
    Pid::from_raw(fields.next()?.parse().ok()?)
}

fn tell(worker: Pid, number: Number) {
    // It may have ended a moment ago, which we hear of next.
    let _ = rustix::process::kill_process(worker, number);
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
    fn a_child_descends_from_us_and_our_parent_does_not() {
        let mut child = Command::new("sleep").arg("10").spawn().unwrap();
        assert!(descends_from_us(Pid::from_child(&child)));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!descends_from_us(rustix::process::getppid().unwrap()));
    }

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
