//! The old process's side of a hot restart: sends sockets and state, activates the new process, reports the drain.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use tokio::time::timeout;

use super::protocol::{
    Activate, CANCEL_MESSAGE, DrainReport, HandoverChannel, Hello, IO_TIMEOUT, PROTOCOL_VERSION,
    SuccessorMessage, is_disconnect,
};
use crate::lifecycle::ControlError;
use crate::tls::TicketKeys;
use crate::upstream::PersistedState;

/// The sockets and state that the old process sends first.
pub(super) struct HandoverState {
    /// The sockets by name.
    pub(super) sockets: Vec<(String, OwnedFd)>,
    /// The state at `captured_at`.
    pub(super) peer_state: PersistedState,
    /// The time in microseconds of the kernel's monotonic clock.
    pub(super) captured_at: i64,
    pub(super) ticket_keys: TicketKeys,
    /// How long to wait for the new process to be ready.
    pub(super) ready_timeout: Duration,
}

/// Sends sockets and state, and waits until the new process is ready. The caller keeps `channel` open until a failed new
/// process has ended: if the channel closed earlier, the new process would conclude that this one has exited, and serve.
pub(super) async fn hand_over(
    channel: &mut HandoverChannel,
    state: &HandoverState,
) -> Result<SuccessorReady, HandoverFailure> {
    let sent = async { timeout(IO_TIMEOUT, send_hello(channel, state)).await? }.await;
    // Even if not all could be sent: the new process may have answered why it does not read on.
    match timeout(state.ready_timeout, channel.receive()).await {
        Ok(Ok(SuccessorMessage::Ready {
            pid,
            adopted_sockets,
        })) => Ok(SuccessorReady {
            pid,
            adopted_sockets,
        }),
        Ok(Ok(other)) => Err(HandoverFailure::unexpected_message(other)),
        Ok(Err(error)) => Err(HandoverFailure::from_io(&sent.err().unwrap_or(error))),
        Err(_) => Err(HandoverFailure::timed_out(state.ready_timeout)),
    }
}

async fn send_hello(channel: &mut HandoverChannel, state: &HandoverState) -> io::Result<()> {
    let (names, sockets): (Vec<_>, Vec<_>) = state
        .sockets
        .iter()
        .map(|(name, socket)| (name.clone(), socket.as_fd()))
        .unzip();
    let hello = Hello {
        format: PROTOCOL_VERSION,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        sockets: names,
        peer_state: state.peer_state.clone(),
        captured_at: Some(state.captured_at),
        ticket_keys: state.ticket_keys.clone(),
        ready_timeout_ms: u64::try_from(state.ready_timeout.as_millis()).ok(),
    };
    channel.send(&hello).await?;
    channel.send_sockets(&sockets).await
}

/// Activates the new process, and waits until it serves.
pub(super) async fn activate(
    channel: &mut HandoverChannel,
    message: &Activate,
) -> Result<(), HandoverFailure> {
    let serving = async {
        channel.send(message).await?;
        channel.receive().await
    };
    match timeout(IO_TIMEOUT, serving).await {
        Ok(Ok(SuccessorMessage::Serving)) => Ok(()),
        Ok(Ok(other)) => Err(HandoverFailure::unexpected_message(other)),
        Ok(Err(error)) => Err(HandoverFailure::from_io(&error)),
        Err(_) => Err(HandoverFailure::timed_out(IO_TIMEOUT)),
    }
}

/// Tells the new process not to serve, even if this one exits: the child that was killed may be a script, and the new
/// process a child of that script.
pub(super) async fn cancel(channel: &mut HandoverChannel) {
    // Nearly always the new process has exited.
    let _ = timeout(CANCEL_TIMEOUT, channel.send(&CANCEL_MESSAGE)).await;
}

/// A new process that is ready to serve.
#[derive(Debug)]
pub(super) struct SuccessorReady {
    pub(super) pid: u32,
    adopted_sockets: Vec<String>,
}

/// The new process, seen from the old one; it serves.
#[derive(Debug)]
pub(in crate::server) struct SuccessorHandle {
    /// Its process id.
    pub(in crate::server) pid: u32,
    /// The names of the sockets that it keeps.
    pub(in crate::server) adopted_sockets: Vec<String>,
    channel: HandoverChannel,
}

impl SuccessorHandle {
    pub(super) fn new(ready: SuccessorReady, channel: HandoverChannel) -> Self {
        Self {
            pid: ready.pid,
            adopted_sockets: ready.adopted_sockets,
            channel,
        }
    }

    /// Sends the drains that operators have changed since activation, and waits until they are applied.
    pub(in crate::server) async fn send_final_state(
        &mut self,
        connections: u64,
        state: PersistedState,
    ) {
        let report = DrainReport {
            connections,
            peer_state: Some(state),
            counters: None,
        };
        let applied = async {
            self.channel.send(&report).await?;
            self.channel.receive::<SuccessorMessage>().await
        };
        // A new process that has exited needs no state.
        let _ = timeout(IO_TIMEOUT, applied).await;
    }

    /// Reports how many connections are left; `false`: the new process has exited.
    pub(in crate::server) async fn send_progress(&mut self, connections: u64) -> bool {
        let report = DrainReport {
            connections,
            peer_state: None,
            counters: None,
        };
        self.channel.send(&report).await.is_ok()
    }

    /// Sends the last message: all counters of this process.
    pub(in crate::server) async fn send_final_counters(
        &mut self,
        connections: u64,
        counters: String,
    ) {
        let report = DrainReport {
            connections,
            peer_state: None,
            counters: Some(counters),
        };
        // A new process that has exited needs no counters.
        let _ = timeout(IO_TIMEOUT, self.channel.send(&report)).await;
    }
}

/// Why the new process did not take over.
#[derive(Debug)]
pub(super) struct HandoverFailure {
    pub(super) error: ControlError,
    /// The new process has exited, or is about to.
    pub(super) process_exits: bool,
}

impl HandoverFailure {
    fn with_exit(reason: String) -> Self {
        Self {
            error: ControlError::Failed(reason),
            process_exits: true,
        }
    }

    fn without_exit(reason: String) -> Self {
        Self {
            error: ControlError::Failed(reason),
            process_exits: false,
        }
    }

    fn unexpected_message(message: SuccessorMessage) -> Self {
        match message {
            SuccessorMessage::StartFailed(reason) => {
                Self::with_exit(format!("the new process could not start: {reason}"))
            }
            _ => Self::without_exit("the new process sent an unexpected message".to_owned()),
        }
    }

    fn timed_out(limit: Duration) -> Self {
        Self::without_exit(format!(
            "the new process did not acknowledge within {limit:?}"
        ))
    }

    fn from_io(error: &io::Error) -> Self {
        if is_disconnect(error) {
            return Self::with_exit("the new process ended before it acknowledged".to_owned());
        }
        Self::without_exit(format!("the connection to the new process failed: {error}"))
    }
}

/// The time limit for the last message to a new process after the upgrade was cancelled.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn state(sockets: usize, ready_timeout: Duration) -> HandoverState {
        let open = |index| {
            let (socket, _) = std::os::unix::net::UnixStream::pair().unwrap();
            (format!("socket {index}"), OwnedFd::from(socket))
        };
        HandoverState {
            sockets: (0..sockets).map(open).collect(),
            peer_state: PersistedState::default(),
            captured_at: 1_000_000,
            ticket_keys: TicketKeys::default(),
            ready_timeout,
        }
    }

    fn pair() -> (HandoverChannel, HandoverChannel) {
        let (ours, theirs) = HandoverChannel::pair().unwrap();
        (ours, HandoverChannel::new(theirs.into()).unwrap())
    }

    async fn failure(ours: &mut HandoverChannel, ready_timeout: Duration) -> String {
        let failed = hand_over(ours, &state(0, ready_timeout)).await;
        failed.unwrap_err().error.to_string()
    }

    #[tokio::test]
    async fn handover_sends_many_sockets_with_long_names_in_order() {
        let (mut ours, mut theirs) = pair();
        let successor = async {
            let hello: Hello = theirs.receive().await.unwrap();
            let received = theirs.receive_sockets(hello.sockets.len()).await.unwrap();
            assert_eq!((hello.format, received.len()), (PROTOCOL_VERSION, 300));
            assert_eq!(hello.captured_at, Some(1_000_000));
            let ready = SuccessorMessage::Ready {
                pid: 7,
                adopted_sockets: hello.sockets,
            };
            theirs.send(&ready).await.unwrap();
        };
        let state = state(300, IO_TIMEOUT);
        let (ready, ()) = tokio::join!(hand_over(&mut ours, &state), successor);
        let ready = ready.unwrap();
        assert_eq!((ready.pid, ready.adopted_sockets.len()), (7, 300));
        assert_eq!(ready.adopted_sockets[299], "socket 299");
    }

    #[tokio::test]
    async fn handover_failure_reports_why_the_successor_failed_or_ended() {
        let (mut ours, theirs) = pair();
        drop(theirs);
        let gone = failure(&mut ours, IO_TIMEOUT).await;
        assert!(gone.contains("ended before it acknowledged"), "{gone}");
        let (mut ours, mut theirs) = pair();
        let failed = SuccessorMessage::StartFailed("no room".to_owned());
        theirs.send(&failed).await.unwrap();
        let reason = failure(&mut ours, IO_TIMEOUT).await;
        assert!(reason.contains("could not start: no room"), "{reason}");
    }

    #[tokio::test]
    async fn handover_successor_that_hangs_times_out() {
        let (mut ours, _theirs) = pair();
        let late = failure(&mut ours, Duration::from_millis(50)).await;
        assert!(late.contains("did not acknowledge within 50ms"), "{late}");
    }

    #[tokio::test]
    async fn handover_successor_serving_before_activation_is_an_error() {
        let (mut ours, mut theirs) = pair();
        theirs.send(&SuccessorMessage::Serving).await.unwrap();
        let early = failure(&mut ours, IO_TIMEOUT).await;
        assert!(early.contains("unexpected message"), "{early}");
    }
}
