//! The signals that the process handles, and those that it sends to its successor.

use std::io;

use rustix::process::{Pid, Signal as SignalNumber};
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};

/// The action that a signal requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// TERM, INT: drain and exit.
    Stop,
    /// HUP: reload the configuration file.
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

    /// Sends the signal to a process. Errors are ignored: the process may have exited.
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
    /// Installs the handlers. Must be called inside a Tokio runtime.
    pub(super) fn install() -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
            usr1: signal(SignalKind::user_defined1())?,
            usr2: signal(SignalKind::user_defined2())?,
        })
    }

    /// Waits for a stop signal (TERM or INT); other signals stay pending. Cancel-safe: no signal is lost.
    pub(super) async fn recv_stop(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }

    /// Consumes a pending stop signal, and returns whether there was one.
    pub(super) async fn take_pending_stop(&mut self) -> bool {
        tokio::select! {
            biased;
            () = self.recv_stop() => true,
            () = std::future::ready(()) => false,
        }
    }

    /// Waits for the next signal. Cancel-safe: no signal is lost.
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
