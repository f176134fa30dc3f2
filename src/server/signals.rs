//! What the process does on a signal.

use std::io;

use tokio::signal::unix::{Signal as Source, SignalKind, signal};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// TERM, INT: drain and exit.
    Stop,
    /// HUP: put the configuration file in force.
    Reload,
    /// USR1: open the log files anew.
    ReopenLogs,
    /// USR2: hand over to a new process.
    Upgrade,
}

/// The signals that mean something here.
#[derive(Debug)]
pub(super) struct Signals {
    term: Source,
    int: Source,
    hup: Source,
    usr1: Source,
    usr2: Source,
}

impl Signals {
    /// Catches the signals from here on.
    pub(super) fn install() -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
            usr1: signal(SignalKind::user_defined1())?,
            usr2: signal(SignalKind::user_defined2())?,
        })
    }

    /// Waits for a signal to stop; others that come before it are kept. Can be dropped and called
    /// again without losing one.
    pub(super) async fn recv_stop(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }

    /// Whether a signal to stop has come that nobody has heard yet.
    pub(super) async fn is_stop_pending(&mut self) -> bool {
        tokio::select! {
            biased;
            () = self.recv_stop() => true,
            () = std::future::ready(()) => false,
        }
    }

    /// The next signal. Can be dropped and called again without losing one.
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
