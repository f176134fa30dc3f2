//! How one process hands its sockets and its memory to the next: a Unix socket pair, and who says
//! what on it.
//!
//! ```text
//!   predecessor                                   successor (its end is its standard input)
//!      │ ── hello: format, version, names, memory ──►  │
//!      │ ── the sockets, in the order of the names ──► │  resolves, binds what is new, asks the peers
//!      │ ◄───────────── ready, or refused: why ─────── │  all that can fail is behind it
//!      │ ── go: memory and counters of this moment ──► │  accepts
//!      │ ◄──────────────────────────────── serving ─── │
//!      │  stops accepting, drains                      │
//!      │ ── connections left, twice a second ────────► │  shows it in `status`
//!      │ ── end of file: it has exited ──────────────► │
//! ```
//!
//! A message is its length (4 bytes, big endian) and that many bytes of JSON. The format has a
//! number: a successor that does not know it refuses, and fields that it does not know are ignored.
//!
//! No successor serves without the word: one that is late, or whose upgrade was called off, can be
//! killed without a client having met it. Only where the predecessor has ended without a word, the
//! successor serves all the same, as nobody else does. Both accept from the same queues from the word
//! on, so no connection falls between them.

use std::ffi::OsStr;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use rustix::process::{Pid, PidfdFlags};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::sockets::InheritedSockets;
use crate::admin::AppState;
use crate::clock;
use crate::lifecycle::{self, ControlError};
use crate::tls::TicketKeys;
use crate::upstream::PersistedState;

/// The format of the messages; another number means another format.
const PROTOCOL_VERSION: u32 = 2;

/// Tells a process that its standard input is its predecessor.
pub(super) const SUCCESSOR_ENV: &str = "CLOCKWISE_SUCCESSOR";

/// The largest message; the memory of 100,000 peers is a tenth of it.
const MAX_MESSAGE: u32 = 256 << 20;

/// The most descriptors in one kernel message (Linux: `SCM_MAX_FD`, 253).
const FDS_PER_MESSAGE: usize = 64;

/// How long either side waits for what the other sends without delay.
const IO_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the last word to a process that was given up may take.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(1);

/// In the place of the word to serve ([`Go`], which it is not): the upgrade was called off.
const CANCEL_MESSAGE: &str = "called off";

/// How long a process whose end of the pair is closed may take to end: a moment, where it was killed.
const EXIT_WAIT: Timespec = Timespec {
    tv_sec: 2,
    tv_nsec: 0,
};

/// Why a process could not take over.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The predecessor is not on standard input, or hung up.
    #[error("it cannot be heard: {0}")]
    Io(#[from] io::Error),
    /// The predecessor wants no successor any more, and lives.
    #[error("it has called the upgrade off")]
    Cancelled,
    /// What came is not what this version knows.
    #[error(
        "it speaks hand-over format {theirs} (version {version}), this version knows {PROTOCOL_VERSION}; upgrade step by step, or restart"
    )]
    UnsupportedVersion {
        /// Its number.
        theirs: u32,
        /// Its version.
        version: String,
    },
}

/// The first message.
#[derive(Debug, Deserialize, Serialize)]
struct Hello {
    format: u32,
    version: String,
    pid: u32,
    /// One name per socket that follows.
    #[serde(default)]
    sockets: Vec<String>,
    /// As of `at`.
    #[serde(default)]
    peer_state: PersistedState,
    /// By the kernel's monotonic clock, in microseconds: both processes have the same.
    #[serde(default)]
    captured_at: Option<i64>,
    /// So that clients can resume their sessions.
    #[serde(default)]
    ticket_keys: TicketKeys,
    /// How long the predecessor waits for the successor to be ready, in milliseconds.
    #[serde(default)]
    ready_timeout_ms: Option<u64>,
}

/// The word to serve, with what has become of the peers since the hello.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(super) struct Activate {
    /// As of `at`.
    #[serde(default)]
    pub(super) peer_state: PersistedState,
    /// By the kernel's monotonic clock, in microseconds.
    #[serde(default)]
    pub(super) captured_at: Option<i64>,
    #[serde(default)]
    pub(super) counters: String,
}

/// What has happened at the predecessor between the hello and the word to serve.
#[derive(Debug, Default)]
pub(super) struct StateDelta {
    /// What it knew of the peers at first, without the times.
    pub(super) baseline: PersistedState,
    /// What it knows now.
    pub(super) peer_state: PersistedState,
    pub(super) counters: String,
}

/// The successor's answer.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum SuccessorMessage {
    /// Nothing that can fail is left to be done.
    Ready {
        /// Its process id.
        pid: u32,
        /// The names of the sockets that it goes on with; others are the predecessor's to close.
        #[serde(default)]
        kept: Vec<String>,
    },
    /// It accepts connections.
    Serving,
    /// It has taken note of what changed since the word to serve.
    StateApplied,
    /// It could not start, and is about to exit.
    StartFailed(String),
}

/// What the predecessor says while it drains.
#[derive(Debug, Deserialize, Serialize)]
struct DrainReport {
    connections: u64,
    /// With the first message: what operators did to the peers until their doors were closed.
    #[serde(default)]
    peer_state: Option<PersistedState>,
    /// With the last message: what was counted while draining is not lost.
    #[serde(default)]
    counters: Option<String>,
}

/// Whether this process was started to take over from another.
pub fn is_successor() -> bool {
    std::env::var_os(SUCCESSOR_ENV).as_deref() == Some(OsStr::new("1"))
}

/// Seen from the successor: the process whose place it takes.
#[derive(Debug)]
pub(super) struct PredecessorHandle {
    channel: HandoverChannel,
    pid: u32,
    /// Readable when it has ended; `None`: it already has.
    pidfd: Option<OwnedFd>,
    sockets: InheritedSockets,
    peer_state: PersistedState,
    /// As of when, by the kernel's monotonic clock in microseconds.
    captured_at: Option<i64>,
    /// What it has told of the peers last, without the times.
    baseline: PersistedState,
    ticket_keys: TicketKeys,
    ready_timeout: Duration,
}

impl PredecessorHandle {
    /// Hears what is handed over; `None` where this process was started on its own.
    pub(super) async fn connect() -> Result<Option<Self>, Error> {
        if !is_successor() {
            return Ok(None);
        }
        let stream =
            std::os::unix::net::UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        let mut wire = HandoverChannel::new(stream)?;
        let hello: Hello = wire.receive_with_timeout().await?;
        if hello.format != PROTOCOL_VERSION {
            let error = Error::UnsupportedVersion {
                theirs: hello.format,
                version: hello.version,
            };
            // It would learn as much from our exit.
            let _ = wire
                .send(&SuccessorMessage::StartFailed(error.to_string()))
                .await;
            return Err(error);
        }
        let received = wire.receive_sockets(hello.sockets.len()).await?;
        Ok(Some(Self {
            channel: wire,
            pid: hello.pid,
            pidfd: open_pidfd(hello.pid)?,
            baseline: hello.peer_state.without_elapsed_times(),
            sockets: hello.sockets.into_iter().zip(received).collect(),
            peer_state: hello.peer_state,
            captured_at: hello.captured_at,
            ticket_keys: hello.ticket_keys,
            ready_timeout: hello
                .ready_timeout_ms
                .map_or(Duration::MAX, Duration::from_millis),
        }))
    }

    /// What it handed over, with what it remembers of the peers as of now: a slow start has gone on since,
    /// and keys that came home there must not leave again here.
    pub(super) fn take_sockets_and_state(&mut self) -> (InheritedSockets, PersistedState) {
        let age = elapsed_since(self.captured_at, clock::monotonic_micros());
        (
            std::mem::take(&mut self.sockets),
            std::mem::take(&mut self.peer_state).aged(age),
        )
    }

    /// The keys of its TLS sessions.
    pub(super) fn take_ticket_keys(&mut self) -> TicketKeys {
        std::mem::take(&mut self.ticket_keys)
    }

    /// How long it waits until this process must be ready.
    pub(super) fn ready_timeout(&self) -> Duration {
        self.ready_timeout
    }

    /// Tells it to serve on, and why.
    pub(super) async fn send_start_failure(&mut self, why: &str) {
        // It would learn as much from our exit, but not why.
        let _ = self
            .channel
            .send(&SuccessorMessage::StartFailed(why.to_owned()))
            .await;
    }

    /// Tells it that nothing can fail any more, and waits for the word to serve. A predecessor that
    /// has ended cannot say it: then this process serves all the more.
    ///
    /// # Errors
    /// It lives, and says no more: this process must not serve.
    pub(super) async fn await_activation(
        &mut self,
        kept: Vec<String>,
    ) -> Result<StateDelta, Error> {
        let pid = std::process::id();
        // Where it no longer listens, it may have said why.
        let _ = self
            .channel
            .send(&SuccessorMessage::Ready { pid, kept })
            .await;
        match self.channel.receive::<Activate>().await {
            Ok(go) => {
                let told = go.peer_state.without_elapsed_times();
                let age = elapsed_since(go.captured_at, clock::monotonic_micros());
                Ok(StateDelta {
                    baseline: std::mem::replace(&mut self.baseline, told),
                    peer_state: go.peer_state.aged(age),
                    counters: go.counters,
                })
            }
            Err(error) if is_disconnect(&error) && self.has_exited().await => {
                log::warn!("the process before this one is gone ({error}); this one serves");
                Ok(StateDelta::default())
            }
            Err(_) => Err(Error::Cancelled),
        }
    }

    /// Tells it that this process serves, and listens to how its drain goes until it has exited.
    pub(super) fn announce_serving(mut self, subject: Arc<AppState>) {
        tokio::spawn(async move {
            if let Err(error) = self.channel.send(&SuccessorMessage::Serving).await {
                log::warn!("the process before this one is gone: {error}");
                return;
            }
            self.follow_drain(&subject).await;
            subject.lifecycle.set_predecessor(None);
        });
    }

    async fn follow_drain(&mut self, subject: &AppState) {
        while let Ok(progress) = self.channel.receive::<DrainReport>().await {
            subject
                .lifecycle
                .set_predecessor(Some(lifecycle::PredecessorStatus {
                    pid: self.pid,
                    connections: progress.connections,
                }));
            if let Some(memory) = progress.peer_state {
                // Operators may have met this process already: their orders are not taken back.
                let news = memory.drain_changes_since(&self.baseline);
                subject.snapshot.load().restore_drains(&news);
                // If it is gone, it does not wait for this either.
                let _ = self.channel.send(&SuccessorMessage::StateApplied).await;
            }
            if let Some(counters) = progress.counters {
                subject.telemetry.metrics.carry_over(&counters);
            }
        }
    }

    /// Its end of the pair is closed when it is killed, and when it gives this process up.
    async fn has_exited(&mut self) -> bool {
        let Some(life) = self.pidfd.take() else {
            return true;
        };
        let ended = tokio::task::spawn_blocking(move || {
            let mut end = [PollFd::new(&life, PollFlags::IN)];
            rustix::event::poll(&mut end, Some(&EXIT_WAIT))
        });
        matches!(ended.await, Ok(Ok(1)))
    }
}

/// The time between two readings of the kernel's monotonic clock, in microseconds.
fn elapsed_since(then: Option<i64>, now: i64) -> Duration {
    let micros = then.map_or(0, |then| now.saturating_sub(then));
    Duration::from_micros(u64::try_from(micros).unwrap_or_default())
}

/// A descriptor that is readable when the process has ended; `None`: it already has. Our parent may
/// be another: a script that the program is started by, or whoever takes orphans in.
fn open_pidfd(pid: u32) -> io::Result<Option<OwnedFd>> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    match pid.map(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty())) {
        Some(Ok(life)) => Ok(Some(life)),
        Some(Err(rustix::io::Errno::SRCH)) | None => Ok(None),
        Some(Err(error)) => Err(error.into()),
    }
}

/// What a predecessor hands over.
pub(super) struct HandoverState {
    pub(super) sockets: Vec<(String, OwnedFd)>,
    /// As of `at`.
    pub(super) peer_state: PersistedState,
    /// By the kernel's monotonic clock, in microseconds.
    pub(super) captured_at: i64,
    pub(super) ticket_keys: TicketKeys,
    /// How long it waits for the successor to be ready.
    pub(super) ready_timeout: Duration,
}

/// Why a hand-over came to nothing.
#[derive(Debug)]
pub(super) struct HandoverFailure {
    pub(super) error: ControlError,
    /// The new process has ended, or is about to.
    pub(super) process_exits: bool,
}

/// Seen from the predecessor: the process that takes its place.
#[derive(Debug)]
pub(super) struct SuccessorHandle {
    /// Its process id.
    pub(super) pid: u32,
    /// The names of the sockets that it goes on with.
    pub(super) adopted_sockets: Vec<String>,
    channel: HandoverChannel,
}

impl SuccessorHandle {
    /// Hands over, and waits until it is ready. The pair must outlive the process, or it would take
    /// our patience for our end: so `wire` stays with the caller where this fails.
    pub(super) async fn hand_over(
        wire: &mut HandoverChannel,
        estate: &HandoverState,
    ) -> Result<SuccessorReady, HandoverFailure> {
        let sent = async { timeout(IO_TIMEOUT, wire.send_hello(estate)).await? }.await;
        // A process that does not want to hear it all may still have said why.
        match timeout(estate.ready_timeout, wire.receive()).await {
            Ok(Ok(SuccessorMessage::Ready { pid, kept })) => Ok(SuccessorReady {
                pid,
                adopted_sockets: kept,
            }),
            Ok(Ok(other)) => Err(HandoverFailure::unexpected_message(other)),
            Ok(Err(error)) => Err(HandoverFailure::from_io(&sent.err().unwrap_or(error))),
            Err(_) => Err(HandoverFailure::timed_out(estate.ready_timeout)),
        }
    }

    /// Gives the word, and waits until it serves.
    pub(super) async fn activate(
        wire: &mut HandoverChannel,
        word: &Activate,
    ) -> Result<(), HandoverFailure> {
        let served = async {
            wire.send(word).await?;
            wire.receive().await
        };
        match timeout(IO_TIMEOUT, served).await {
            Ok(Ok(SuccessorMessage::Serving)) => Ok(()),
            Ok(Ok(other)) => Err(HandoverFailure::unexpected_message(other)),
            Ok(Err(error)) => Err(HandoverFailure::from_io(&error)),
            Err(_) => Err(HandoverFailure::timed_out(IO_TIMEOUT)),
        }
    }

    /// Tells it that it must not serve, whatever becomes of us: what we have started may be another
    /// process's parent, and not that process itself.
    pub(super) async fn cancel(wire: &mut HandoverChannel) {
        // Nearly always it is gone.
        let _ = timeout(CANCEL_TIMEOUT, wire.send(&CANCEL_MESSAGE)).await;
    }

    /// It serves.
    pub(super) fn new(ready: SuccessorReady, wire: HandoverChannel) -> Self {
        let SuccessorReady {
            pid,
            adopted_sockets: kept,
        } = ready;
        Self {
            pid,
            adopted_sockets: kept,
            channel: wire,
        }
    }

    /// Tells it what operators have changed since the word, and waits until that is noted.
    pub(super) async fn send_final_state(&mut self, connections: u64, memory: PersistedState) {
        let progress = DrainReport {
            connections,
            peer_state: Some(memory),
            counters: None,
        };
        let noted = async {
            self.channel.send(&progress).await?;
            self.channel.receive::<SuccessorMessage>().await
        };
        // If the successor is gone, nobody is left to know.
        let _ = timeout(IO_TIMEOUT, noted).await;
    }

    /// Tells it how many connections are left; false: it is gone.
    pub(super) async fn send_progress(&mut self, connections: u64) -> bool {
        let progress = DrainReport {
            connections,
            peer_state: None,
            counters: None,
        };
        self.channel.send(&progress).await.is_ok()
    }

    /// The last word: what this process has counted in all.
    pub(super) async fn send_final_counters(&mut self, connections: u64, counters: String) {
        let progress = DrainReport {
            connections,
            peer_state: None,
            counters: Some(counters),
        };
        // If the successor is gone, nobody is left to count on.
        let _ = timeout(IO_TIMEOUT, self.channel.send(&progress)).await;
    }
}

/// A successor's word that it could serve.
#[derive(Debug)]
pub(super) struct SuccessorReady {
    pub(super) pid: u32,
    adopted_sockets: Vec<String>,
}

impl HandoverFailure {
    fn with_exit(why: String) -> Self {
        Self {
            error: ControlError::Failed(why),
            process_exits: true,
        }
    }

    fn unexpected_message(answer: SuccessorMessage) -> Self {
        match answer {
            SuccessorMessage::StartFailed(why) => {
                Self::with_exit(format!("the new process refused: {why}"))
            }
            _ => Self {
                process_exits: false,
                ..Self::with_exit("the new process makes no sense".to_owned())
            },
        }
    }

    fn timed_out(patience: Duration) -> Self {
        Self {
            process_exits: false,
            ..Self::with_exit(format!(
                "the new process did not acknowledge within {patience:?}"
            ))
        }
    }

    fn from_io(error: &io::Error) -> Self {
        if is_disconnect(error) {
            return Self::with_exit("the new process ended before it acknowledged".to_owned());
        }
        Self {
            process_exits: false,
            ..Self::with_exit(format!("the new process cannot be talked to: {error}"))
        }
    }
}

/// The other end of the pair is closed.
fn is_disconnect(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | BrokenPipe | ConnectionReset)
}

/// One end of the socket pair.
#[derive(Debug)]
pub(super) struct HandoverChannel(UnixStream);

impl HandoverChannel {
    /// Two ends; the other one is for a process that does not know this runtime.
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        Ok((Self::new(ours)?, theirs.into()))
    }

    fn new(stream: std::os::unix::net::UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        UnixStream::from_std(stream).map(Self)
    }

    async fn send_hello(&mut self, estate: &HandoverState) -> io::Result<()> {
        let (names, sockets): (Vec<_>, Vec<_>) = estate
            .sockets
            .iter()
            .map(|(name, socket)| (name.clone(), socket.as_fd()))
            .unzip();
        let patience = u64::try_from(estate.ready_timeout.as_millis()).ok();
        let hello = Hello {
            format: PROTOCOL_VERSION,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            sockets: names,
            peer_state: estate.peer_state.clone(),
            captured_at: Some(estate.captured_at),
            ticket_keys: estate.ticket_keys.clone(),
            ready_timeout_ms: patience,
        };
        self.send(&hello).await?;
        self.send_sockets(&sockets).await
    }

    async fn send(&mut self, message: &impl Serialize) -> io::Result<()> {
        let mut bytes = vec![0; 4];
        serde_json::to_writer(&mut bytes, message)?;
        let length = u32::try_from(bytes.len() - 4).map_err(|_| io::ErrorKind::InvalidInput)?;
        let (prefix, _) = bytes.split_at_mut(4);
        prefix.copy_from_slice(&length.to_be_bytes());
        self.0.write_all(&bytes).await
    }

    /// What the other side sends without delay.
    async fn receive_with_timeout<T: for<'a> Deserialize<'a>>(&mut self) -> io::Result<T> {
        timeout(IO_TIMEOUT, self.receive()).await?
    }

    async fn receive<T: for<'a> Deserialize<'a>>(&mut self) -> io::Result<T> {
        let length = self.0.read_u32().await?;
        if length > MAX_MESSAGE {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a message without bounds",
            ));
        }
        let mut body = vec![0; length as usize];
        self.0.read_exact(&mut body).await?;
        Ok(serde_json::from_slice(&body)?)
    }

    /// One byte goes with each batch: descriptors do not travel alone.
    async fn send_sockets(&self, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
        for batch in sockets.chunks(FDS_PER_MESSAGE) {
            let send = || send_batch(&self.0, batch);
            self.0.async_io(Interest::WRITABLE, send).await?;
        }
        Ok(())
    }

    async fn receive_sockets(&self, count: usize) -> io::Result<Vec<OwnedFd>> {
        let mut sockets = Vec::with_capacity(count);
        while sockets.len() < count {
            let receive = || receive_batch(&self.0);
            let batch = self.0.async_io(Interest::READABLE, receive);
            sockets.extend(timeout(IO_TIMEOUT, batch).await??);
        }
        Ok(sockets)
    }
}

fn send_batch(stream: &UnixStream, batch: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_PER_MESSAGE))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(batch)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let byte = [IoSlice::new(&[0])];
    rustix::net::sendmsg(stream, &byte, &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn receive_batch(stream: &UnixStream) -> io::Result<Vec<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_PER_MESSAGE))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut bytes = [IoSliceMut::new(&mut byte)];
    let read = rustix::net::recvmsg(stream, &mut bytes, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    if read.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let rights = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(received) => Some(received),
        _ => None,
    });
    Ok(rights.flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estate(sockets: usize, patience: Duration) -> HandoverState {
        let open = |index| {
            let (socket, _) = std::os::unix::net::UnixStream::pair().unwrap();
            (format!("socket {index}"), OwnedFd::from(socket))
        };
        HandoverState {
            sockets: (0..sockets).map(open).collect(),
            peer_state: PersistedState::default(),
            captured_at: 1_000_000,
            ticket_keys: TicketKeys::default(),
            ready_timeout: patience,
        }
    }

    fn pair() -> (HandoverChannel, HandoverChannel) {
        let (ours, theirs) = HandoverChannel::pair().unwrap();
        (ours, HandoverChannel::new(theirs.into()).unwrap())
    }

    async fn failure(ours: &mut HandoverChannel, patience: Duration) -> String {
        let failed = SuccessorHandle::hand_over(ours, &estate(0, patience)).await;
        failed.unwrap_err().error.to_string()
    }

    #[tokio::test]
    async fn handover_sends_many_sockets_with_long_names_in_order() {
        let (mut ours, mut theirs) = pair();
        let successor = async {
            let hello: Hello = theirs.receive().await.unwrap();
            let received = theirs.receive_sockets(hello.sockets.len()).await.unwrap();
            assert_eq!((hello.format, received.len()), (PROTOCOL_VERSION, 300));
            assert_eq!(
                elapsed_since(hello.captured_at, 2_500_000),
                Duration::from_millis(1500)
            );
            let (pid, kept) = (7, hello.sockets);
            theirs
                .send(&SuccessorMessage::Ready { pid, kept })
                .await
                .unwrap();
        };
        let estate = estate(300, IO_TIMEOUT);
        let (ready, ()) = tokio::join!(SuccessorHandle::hand_over(&mut ours, &estate), successor);
        let ready = ready.unwrap();
        assert_eq!((ready.pid, ready.adopted_sockets.len()), (7, 300));
        assert_eq!(ready.adopted_sockets[299], "socket 299");
    }

    #[tokio::test]
    async fn handover_failure_reports_why_the_successor_refused_or_ended() {
        let (mut ours, theirs) = pair();
        drop(theirs);
        let gone = failure(&mut ours, IO_TIMEOUT).await;
        assert!(gone.contains("ended before it acknowledged"), "{gone}");
        let (mut ours, mut theirs) = pair();
        let no = SuccessorMessage::StartFailed("no room".to_owned());
        theirs.send(&no).await.unwrap();
        let refused = failure(&mut ours, IO_TIMEOUT).await;
        assert!(refused.contains("refused: no room"), "{refused}");
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
        assert!(early.contains("makes no sense"), "{early}");
    }

    #[test]
    fn handover_message_ignores_unknown_fields_and_defaults_missing_ones() {
        let hello: Hello =
            serde_json::from_str(r#"{"format":2,"version":"9","pid":1,"colour":"blue"}"#).unwrap();
        assert!(hello.sockets.is_empty() && hello.peer_state == PersistedState::default());
        assert_eq!(elapsed_since(hello.captured_at, 2_500_000), Duration::ZERO);
    }
}
