//! What the process does on a signal.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::telemetry::Telemetry;

/// The signals that mean something here.
#[derive(Debug)]
pub(super) struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
    usr1: Signal,
    usr2: Signal,
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

    /// Handles what comes until the process is told to stop.
    pub(super) async fn until_stop(&mut self, telemetry: &Telemetry) {
        loop {
            tokio::select! {
                _ = self.term.recv() => return,
                _ = self.int.recv() => return,
                _ = self.usr1.recv() => telemetry.reopen(),
                _ = self.hup.recv() => log::warn!("SIGHUP is ignored: this version cannot reload"),
                _ = self.usr2.recv() => log::warn!("SIGUSR2 is ignored: this version cannot upgrade"),
            }
        }
    }
}
