//! The signals that the process receives, and those it sends on.

use std::io;

use rustix::process::{Pid, Signal as SignalNumber};
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// TERM, INT: drain and exit.
    Stop,
    /// HUP: put the configuration file in force.
    Reload,
    /// USR1: reopen the log files.
    ReopenLogs,
    /// USR2: start an upgrade.
    Upgrade,
}

impl Signal {
    /// The signal to send for the same effect.
    pub(super) fn number(self) -> SignalNumber {
        match self {
            Self::Stop => SignalNumber::TERM,
            Self::Reload => SignalNumber::HUP,
            Self::ReopenLogs => SignalNumber::USR1,
            Self::Upgrade => SignalNumber::USR2,
        }
    }

    /// Sends it to a process. One that has exited gets none.
    pub(super) fn send_to(self, pid: u32) {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, self.number());
        }
    }
}

/// The signals that the process handles.
#[derive(Debug)]
pub(super) struct Signals {
    term: SignalStream,
    int: SignalStream,
    hup: SignalStream,
    usr1: SignalStream,
    usr2: SignalStream,
}

impl Signals {
    /// Installs the handlers. Call within the runtime.
    pub(super) fn install() -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
            usr1: signal(SignalKind::user_defined1())?,
            usr2: signal(SignalKind::user_defined2())?,
        })
    }

    /// Waits for a signal to stop; others stay pending. Can be dropped and called again without losing one.
    pub(super) async fn recv_stop(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }

    /// Takes a pending signal to stop; whether there was one.
    pub(super) async fn take_pending_stop(&mut self) -> bool {
        tokio::select! {
            biased;
            () = self.recv_stop() => true,
            () = std::future::ready(()) => false,
        }
    }

    /// Waits for the next signal. Can be dropped and called again without losing one.
    pub(super) async fn recv(&mut self) -> Signal {
        tokio::select! {
            _ = self.term.recv() => Signal::Stop,
            _ = self.int.recv() => Signal::Stop,
            _ = self.hup.recv() => Signal::Reload,
            _ = self.usr1.recv() => Signal::ReopenLogs,
            _ = self.usr2.recv() => Signal::Upgrade,
        }
    }
}
