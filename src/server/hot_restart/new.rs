//! The new process's side of a hot restart: receives sockets and state, waits for activation, follows the drain of
//! the old process.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags};

use super::protocol::{
    Activate, DrainReport, Error, HandoverChannel, Hello, PROTOCOL_VERSION, SuccessorMessage,
    is_disconnect,
};
use crate::admin::AppState;
use crate::clock;
use crate::lifecycle::PredecessorStatus;
use crate::server::inherited_sockets::InheritedSockets;
use crate::server::process_role;
use crate::tls::TicketKeys;
use crate::upstream::PersistedState;

/// The old process, seen from the new one.
#[derive(Debug)]
pub(in crate::server) struct PredecessorHandle {
    channel: HandoverChannel,
    pid: u32,
    /// Readable once the old process has exited; `None`: it already has.
    pidfd: Option<OwnedFd>,
    sockets: InheritedSockets,
    peer_state: PersistedState,
    /// When `peer_state` was exported, in microseconds of the kernel's monotonic clock.
    captured_at: Option<i64>,
    /// The last state that was received, without elapsed times. The next one is compared with it.
    baseline: PersistedState,
    ticket_keys: TicketKeys,
    ready_timeout: Duration,
}

impl PredecessorHandle {
    /// Receives sockets and state; `None` if this process was not started by another one.
    pub(in crate::server) async fn connect() -> Result<Option<Self>, Error> {
        if !process_role::is_successor() {
            return Ok(None);
        }
        let stream =
            std::os::unix::net::UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        let mut channel = HandoverChannel::new(stream)?;
        let hello: Hello = channel.receive_with_timeout().await?;
        if hello.format != PROTOCOL_VERSION {
            let error = Error::UnsupportedVersion {
                theirs: hello.format,
                version: hello.version,
            };
            // If this is not sent, the old process still sees our exit.
            let _ = channel
                .send(&SuccessorMessage::StartFailed(error.to_string()))
                .await;
            return Err(error);
        }
        let sockets = channel.receive_sockets(hello.sockets.len()).await?;
        Ok(Some(Self {
            channel,
            pid: hello.pid,
            pidfd: open_pidfd(hello.pid)?,
            baseline: hello.peer_state.without_elapsed_times(),
            sockets: hello.sockets.into_iter().zip(sockets).collect(),
            peer_state: hello.peer_state,
            captured_at: hello.captured_at,
            ticket_keys: hello.ticket_keys,
            ready_timeout: hello
                .ready_timeout_ms
                .map_or(Duration::MAX, Duration::from_millis),
        }))
    }

    /// The sockets, and the state as of now: a slow start has gone on since it was exported, and a key that is back
    /// on its owner there must not leave it again here.
    pub(in crate::server) fn take_sockets_and_state(
        &mut self,
    ) -> (InheritedSockets, PersistedState) {
        let age = elapsed_since(self.captured_at, clock::monotonic_micros());
        (
            std::mem::take(&mut self.sockets),
            std::mem::take(&mut self.peer_state).aged(age),
        )
    }

    /// The state of the peers when it was exported.
    pub(in crate::server) fn peer_state(&self) -> &PersistedState {
        &self.peer_state
    }

    /// The keys of the old process's TLS session tickets.
    pub(in crate::server) fn take_ticket_keys(&mut self) -> TicketKeys {
        std::mem::take(&mut self.ticket_keys)
    }

    /// How long the old process waits for this one to be ready.
    pub(in crate::server) fn ready_timeout(&self) -> Duration {
        self.ready_timeout
    }

    /// Tells the old process why this one cannot start; the old one continues to serve.
    pub(in crate::server) async fn send_start_failure(&mut self, reason: &str) {
        // If this is not sent, the old process sees our exit, without the reason.
        let _ = self
            .channel
            .send(&SuccessorMessage::StartFailed(reason.to_owned()))
            .await;
    }

    /// Reports that nothing can fail any more, and waits for activation. If the old process has exited instead,
    /// this one must serve at once.
    ///
    /// # Errors
    /// The old process still runs and did not activate this one. This process must not serve then.
    pub(in crate::server) async fn await_activation(
        &mut self,
        adopted_sockets: Vec<String>,
    ) -> Result<StateDelta, Error> {
        let pid = std::process::id();
        let ready = SuccessorMessage::Ready {
            pid,
            adopted_sockets,
        };
        // Even if this fails, a message that says why may be waiting to be read.
        let _ = self.channel.send(&ready).await;
        match self.channel.receive::<Activate>().await {
            Ok(activate) => {
                let age = elapsed_since(activate.captured_at, clock::monotonic_micros());
                let baseline = activate.peer_state.without_elapsed_times();
                Ok(StateDelta {
                    baseline: std::mem::replace(&mut self.baseline, baseline),
                    peer_state: activate.peer_state.aged(age),
                    counters: activate.counters,
                })
            }
            Err(error) if is_disconnect(&error) && self.has_exited().await => {
                log::warn!("the old process has exited ({error}); this one serves");
                Ok(StateDelta::default())
            }
            Err(_) => Err(Error::Cancelled),
        }
    }

    /// Reports that this process serves, and follows the drain of the old one until its exit.
    pub(in crate::server) fn announce_serving(mut self, app_state: Arc<AppState>) {
        tokio::spawn(async move {
            if let Err(error) = self.channel.send(&SuccessorMessage::Serving).await {
                log::warn!("the old process has exited: {error}");
                return;
            }
            self.follow_drain(&app_state).await;
            app_state.lifecycle.set_predecessor(None);
        });
    }

    async fn follow_drain(&mut self, app_state: &AppState) {
        while let Ok(report) = self.channel.receive::<DrainReport>().await {
            let status = PredecessorStatus {
                pid: self.pid,
                connections: report.connections,
            };
            app_state.lifecycle.set_predecessor(Some(status));
            if let Some(state) = report.peer_state {
                // Only the changes: an operator may already have drained or enabled a peer through this process.
                let changes = state.drain_changes_since(&self.baseline);
                app_state.snapshot.load().restore_drains(&changes);
                // If the old process has exited, it does not wait for this.
                let _ = self.channel.send(&SuccessorMessage::StateApplied).await;
            }
            if let Some(counters) = report.counters {
                app_state.telemetry.metrics.carry_over(&counters);
            }
        }
    }

    /// Tells an exit from a cancelled upgrade: the old process closes its end of the pair in both.
    async fn has_exited(&mut self) -> bool {
        let Some(pidfd) = self.pidfd.take() else {
            return true;
        };
        let polled = tokio::task::spawn_blocking(move || {
            let mut exit = [PollFd::new(&pidfd, PollFlags::IN)];
            rustix::event::poll(&mut exit, Some(&EXIT_WAIT))
        });
        matches!(polled.await, Ok(Ok(1)))
    }
}

/// The changes at the old process between `Hello` and `Activate`.
///
/// Why state is sent twice: without the state in `Hello`, a new process that loses its predecessor before `Activate`
/// would have no drain, ejection and active key. Without the state in `Activate`, it would lose what happened while it
/// started and probed its peers, which takes seconds: a peer that was ejected then would get its keys back.
///
/// Why the second is applied as a difference to the first: the new process has probed the peers itself by then, and
/// its results are kept unless the old process has seen a change. The second also carries only the keys that were
/// active since the first; all of them (up to 8 MB) would lengthen the moment between the export and `Serving`, and of
/// the changes in that moment only drains are sent again, with the first `DrainReport`.
#[derive(Debug, Default)]
pub(in crate::server) struct StateDelta {
    /// The state in `Hello`, without elapsed times.
    baseline: PersistedState,
    /// The state in `Activate`.
    peer_state: PersistedState,
    counters: String,
}

impl StateDelta {
    /// Applies the changes to the configuration in force.
    pub(in crate::server) fn apply(&self, app_state: &AppState) {
        let snapshot = app_state.snapshot.load();
        snapshot.apply_delta(&self.baseline, &self.peer_state);
        app_state.telemetry.metrics.carry_over(&self.counters);
    }
}

/// The time between two readings of the kernel's monotonic clock, in microseconds; zero if the first is unknown.
fn elapsed_since(then: Option<i64>, now: i64) -> Duration {
    let micros = then.map_or(0, |then| now.saturating_sub(then));
    Duration::from_micros(u64::try_from(micros).unwrap_or_default())
}

/// A descriptor that is readable once the process has exited; `None`: it already has. The parent process does not do:
/// it may be a script that started the program, or the process that adopts orphans.
fn open_pidfd(pid: u32) -> io::Result<Option<OwnedFd>> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    match pid.map(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty())) {
        Some(Ok(pidfd)) => Ok(Some(pidfd)),
        Some(Err(rustix::io::Errno::SRCH)) | None => Ok(None),
        Some(Err(error)) => Err(error.into()),
    }
}

/// How long a killed process may take to exit after its end of the pair was closed.
const EXIT_WAIT: Timespec = Timespec {
    tv_sec: 2,
    tv_nsec: 0,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elapsed_time_is_zero_without_a_capture_time() {
        let elapsed = elapsed_since(Some(1_000_000), 2_500_000);
        assert_eq!(elapsed, Duration::from_millis(1500));
        assert_eq!(elapsed_since(None, 2_500_000), Duration::ZERO);
    }
}
