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

use super::sockets::Inherited;
use crate::admin::Subject;
use crate::clock;
use crate::lifecycle::{self, Refusal};
use crate::tls::Keys;
use crate::upstream::PersistedState;

/// The format of the messages; another number means another format.
const FORMAT: u32 = 2;

/// Tells a process that its standard input is its predecessor.
pub(super) const SUCCESSOR: &str = "CLOCKWISE_SUCCESSOR";

/// The largest message; the memory of 100,000 peers is a tenth of it.
const MAX_MESSAGE: u32 = 256 << 20;

/// The most descriptors in one kernel message (Linux: `SCM_MAX_FD`, 253).
const BATCH: usize = 64;

/// How long either side waits for what the other sends without delay.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the last word to a process that was given up may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// In the place of the word to serve ([`Go`], which it is not): the upgrade was called off.
const CALLED_OFF: &str = "called off";

/// How long a process whose end of the pair is closed may take to end: a moment, where it was killed.
const LAST_BREATH: Timespec = Timespec {
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
    CalledOff,
    /// What came is not what this version knows.
    #[error(
        "it speaks hand-over format {theirs} (version {version}), this version knows {FORMAT}; upgrade step by step, or restart"
    )]
    Format {
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
    memory: PersistedState,
    /// By the kernel's monotonic clock, in microseconds: both processes have the same.
    #[serde(default)]
    at: Option<i64>,
    /// So that clients can resume their sessions.
    #[serde(default)]
    tickets: Keys,
    /// How long the predecessor waits for the successor to be ready, in milliseconds.
    #[serde(default)]
    patience: Option<u64>,
}

/// The word to serve, with what has become of the peers since the hello.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(super) struct Go {
    /// As of `at`.
    #[serde(default)]
    pub(super) memory: PersistedState,
    /// By the kernel's monotonic clock, in microseconds.
    #[serde(default)]
    pub(super) at: Option<i64>,
    #[serde(default)]
    pub(super) counters: String,
}

/// What has happened at the predecessor between the hello and the word to serve.
#[derive(Debug, Default)]
pub(super) struct News {
    /// What it knew of the peers at first, without the times.
    pub(super) before: PersistedState,
    /// What it knows now.
    pub(super) memory: PersistedState,
    pub(super) counters: String,
}

/// The successor's answer.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
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
    Noted,
    /// It could not start, and is about to exit.
    Refused(String),
}

/// What the predecessor says while it drains.
#[derive(Debug, Deserialize, Serialize)]
struct Progress {
    connections: u64,
    /// With the first message: what operators did to the peers until their doors were closed.
    #[serde(default)]
    memory: Option<PersistedState>,
    /// With the last message: what was counted while draining is not lost.
    #[serde(default)]
    counters: Option<String>,
}

/// Whether this process was started to take over from another.
pub fn is_successor() -> bool {
    std::env::var_os(SUCCESSOR).as_deref() == Some(OsStr::new("1"))
}

/// Seen from the successor: the process whose place it takes.
#[derive(Debug)]
pub(super) struct Predecessor {
    wire: Wire,
    pid: u32,
    /// Readable when it has ended; `None`: it already has.
    life: Option<OwnedFd>,
    sockets: Inherited,
    memory: PersistedState,
    /// As of when, by the kernel's monotonic clock in microseconds.
    at: Option<i64>,
    /// What it has told of the peers last, without the times.
    told: PersistedState,
    tickets: Keys,
    patience: Duration,
}

impl Predecessor {
    /// Hears what is handed over; `None` where this process was started on its own.
    pub(super) async fn meet() -> Result<Option<Self>, Error> {
        if !is_successor() {
            return Ok(None);
        }
        let stream =
            std::os::unix::net::UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        let mut wire = Wire::new(stream)?;
        let hello: Hello = wire.hear().await?;
        if hello.format != FORMAT {
            let error = Error::Format {
                theirs: hello.format,
                version: hello.version,
            };
            // It would learn as much from our exit.
            let _ = wire.send(&Answer::Refused(error.to_string())).await;
            return Err(error);
        }
        let received = wire.receive_sockets(hello.sockets.len()).await?;
        Ok(Some(Self {
            wire,
            pid: hello.pid,
            life: life_of(hello.pid)?,
            told: hello.memory.without_elapsed_times(),
            sockets: hello.sockets.into_iter().zip(received).collect(),
            memory: hello.memory,
            at: hello.at,
            tickets: hello.tickets,
            patience: hello.patience.map_or(Duration::MAX, Duration::from_millis),
        }))
    }

    /// What it handed over, with what it remembers of the peers as of now: a slow start has gone on since,
    /// and keys that came home there must not leave again here.
    pub(super) fn take(&mut self) -> (Inherited, PersistedState) {
        let age = age(self.at, clock::monotonic_micros());
        (
            std::mem::take(&mut self.sockets),
            std::mem::take(&mut self.memory).aged(age),
        )
    }

    /// The keys of its TLS sessions.
    pub(super) fn take_tickets(&mut self) -> Keys {
        std::mem::take(&mut self.tickets)
    }

    /// How long it waits until this process must be ready.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// Tells it to serve on, and why.
    pub(super) async fn refuse(&mut self, why: &str) {
        // It would learn as much from our exit, but not why.
        let _ = self.wire.send(&Answer::Refused(why.to_owned())).await;
    }

    /// Tells it that nothing can fail any more, and waits for the word to serve. A predecessor that
    /// has ended cannot say it: then this process serves all the more.
    ///
    /// # Errors
    /// It lives, and says no more: this process must not serve.
    pub(super) async fn ready(&mut self, kept: Vec<String>) -> Result<News, Error> {
        let pid = std::process::id();
        // Where it no longer listens, it may have said why.
        let _ = self.wire.send(&Answer::Ready { pid, kept }).await;
        match self.wire.receive::<Go>().await {
            Ok(go) => {
                let told = go.memory.without_elapsed_times();
                let age = age(go.at, clock::monotonic_micros());
                Ok(News {
                    before: std::mem::replace(&mut self.told, told),
                    memory: go.memory.aged(age),
                    counters: go.counters,
                })
            }
            Err(error) if is_hang_up(&error) && self.has_ended().await => {
                log::warn!("the process before this one is gone ({error}); this one serves");
                Ok(News::default())
            }
            Err(_) => Err(Error::CalledOff),
        }
    }

    /// Tells it that this process serves, and listens to how its drain goes until it has exited.
    pub(super) fn serving(mut self, subject: Arc<Subject>) {
        tokio::spawn(async move {
            if let Err(error) = self.wire.send(&Answer::Serving).await {
                log::warn!("the process before this one is gone: {error}");
                return;
            }
            self.listen(&subject).await;
            subject.lifecycle.set_predecessor(None);
        });
    }

    async fn listen(&mut self, subject: &Subject) {
        while let Ok(progress) = self.wire.receive::<Progress>().await {
            subject
                .lifecycle
                .set_predecessor(Some(lifecycle::Predecessor {
                    pid: self.pid,
                    connections: progress.connections,
                }));
            if let Some(memory) = progress.memory {
                // Operators may have met this process already: their orders are not taken back.
                let news = memory.drain_changes_since(&self.told);
                subject.snapshot.load().recall_drains(&news);
                // If it is gone, it does not wait for this either.
                let _ = self.wire.send(&Answer::Noted).await;
            }
            if let Some(counters) = progress.counters {
                subject.telemetry.metrics.inherit(&counters);
            }
        }
    }

    /// Its end of the pair is closed when it is killed, and when it gives this process up.
    async fn has_ended(&mut self) -> bool {
        let Some(life) = self.life.take() else {
            return true;
        };
        let ended = tokio::task::spawn_blocking(move || {
            let mut end = [PollFd::new(&life, PollFlags::IN)];
            rustix::event::poll(&mut end, Some(&LAST_BREATH))
        });
        matches!(ended.await, Ok(Ok(1)))
    }
}

/// The time between two readings of the kernel's monotonic clock, in microseconds.
fn age(then: Option<i64>, now: i64) -> Duration {
    let micros = then.map_or(0, |then| now.saturating_sub(then));
    Duration::from_micros(u64::try_from(micros).unwrap_or_default())
}

/// A descriptor that is readable when the process has ended; `None`: it already has. Our parent may
/// be another: a script that the program is started by, or whoever takes orphans in.
fn life_of(pid: u32) -> io::Result<Option<OwnedFd>> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    match pid.map(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty())) {
        Some(Ok(life)) => Ok(Some(life)),
        Some(Err(rustix::io::Errno::SRCH)) | None => Ok(None),
        Some(Err(error)) => Err(error.into()),
    }
}

/// What a predecessor hands over.
pub(super) struct Estate {
    pub(super) sockets: Vec<(String, OwnedFd)>,
    /// As of `at`.
    pub(super) memory: PersistedState,
    /// By the kernel's monotonic clock, in microseconds.
    pub(super) at: i64,
    pub(super) tickets: Keys,
    /// How long it waits for the successor to be ready.
    pub(super) patience: Duration,
}

/// Why a hand-over came to nothing.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) refusal: Refusal,
    /// The new process has ended, or is about to.
    pub(super) ends: bool,
}

/// Seen from the predecessor: the process that takes its place.
#[derive(Debug)]
pub(super) struct Successor {
    /// Its process id.
    pub(super) pid: u32,
    /// The names of the sockets that it goes on with.
    pub(super) kept: Vec<String>,
    wire: Wire,
}

impl Successor {
    /// Hands over, and waits until it is ready. The pair must outlive the process, or it would take
    /// our patience for our end: so `wire` stays with the caller where this fails.
    pub(super) async fn prepare(wire: &mut Wire, estate: &Estate) -> Result<Ready, Failed> {
        let sent = async { timeout(PATIENCE, wire.introduce(estate)).await? }.await;
        // A process that does not want to hear it all may still have said why.
        match timeout(estate.patience, wire.receive()).await {
            Ok(Ok(Answer::Ready { pid, kept })) => Ok(Ready { pid, kept }),
            Ok(Ok(other)) => Err(Failed::answered(other)),
            Ok(Err(error)) => Err(Failed::by(&sent.err().unwrap_or(error))),
            Err(_) => Err(Failed::late(estate.patience)),
        }
    }

    /// Gives the word, and waits until it serves.
    pub(super) async fn go(wire: &mut Wire, word: &Go) -> Result<(), Failed> {
        let served = async {
            wire.send(word).await?;
            wire.receive().await
        };
        match timeout(PATIENCE, served).await {
            Ok(Ok(Answer::Serving)) => Ok(()),
            Ok(Ok(other)) => Err(Failed::answered(other)),
            Ok(Err(error)) => Err(Failed::by(&error)),
            Err(_) => Err(Failed::late(PATIENCE)),
        }
    }

    /// Tells it that it must not serve, whatever becomes of us: what we have started may be another
    /// process's parent, and not that process itself.
    pub(super) async fn call_off(wire: &mut Wire) {
        // Nearly always it is gone.
        let _ = timeout(FAREWELL, wire.send(&CALLED_OFF)).await;
    }

    /// It serves.
    pub(super) fn new(ready: Ready, wire: Wire) -> Self {
        let Ready { pid, kept } = ready;
        Self { pid, kept, wire }
    }

    /// Tells it what operators have changed since the word, and waits until that is noted.
    pub(super) async fn update(&mut self, connections: u64, memory: PersistedState) {
        let progress = Progress {
            connections,
            memory: Some(memory),
            counters: None,
        };
        let noted = async {
            self.wire.send(&progress).await?;
            self.wire.receive::<Answer>().await
        };
        // If the successor is gone, nobody is left to know.
        let _ = timeout(PATIENCE, noted).await;
    }

    /// Tells it how many connections are left; false: it is gone.
    pub(super) async fn tell(&mut self, connections: u64) -> bool {
        let progress = Progress {
            connections,
            memory: None,
            counters: None,
        };
        self.wire.send(&progress).await.is_ok()
    }

    /// The last word: what this process has counted in all.
    pub(super) async fn leave(&mut self, connections: u64, counters: String) {
        let progress = Progress {
            connections,
            memory: None,
            counters: Some(counters),
        };
        // If the successor is gone, nobody is left to count on.
        let _ = timeout(PATIENCE, self.wire.send(&progress)).await;
    }
}

/// A successor's word that it could serve.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) pid: u32,
    kept: Vec<String>,
}

impl Failed {
    fn because(why: String) -> Self {
        Self {
            refusal: Refusal::Failed(why),
            ends: true,
        }
    }

    fn answered(answer: Answer) -> Self {
        match answer {
            Answer::Refused(why) => Self::because(format!("the new process refused: {why}")),
            _ => Self {
                ends: false,
                ..Self::because("the new process makes no sense".to_owned())
            },
        }
    }

    fn late(patience: Duration) -> Self {
        Self {
            ends: false,
            ..Self::because(format!(
                "the new process did not acknowledge within {patience:?}"
            ))
        }
    }

    fn by(error: &io::Error) -> Self {
        if is_hang_up(error) {
            return Self::because("the new process ended before it acknowledged".to_owned());
        }
        Self {
            ends: false,
            ..Self::because(format!("the new process cannot be talked to: {error}"))
        }
    }
}

/// The other end of the pair is closed.
fn is_hang_up(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | BrokenPipe | ConnectionReset)
}

/// One end of the socket pair.
#[derive(Debug)]
pub(super) struct Wire(UnixStream);

impl Wire {
    /// Two ends; the other one is for a process that does not know this runtime.
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        Ok((Self::new(ours)?, theirs.into()))
    }

    fn new(stream: std::os::unix::net::UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        UnixStream::from_std(stream).map(Self)
    }

    async fn introduce(&mut self, estate: &Estate) -> io::Result<()> {
        let (names, sockets): (Vec<_>, Vec<_>) = estate
            .sockets
            .iter()
            .map(|(name, socket)| (name.clone(), socket.as_fd()))
            .unzip();
        let patience = u64::try_from(estate.patience.as_millis()).ok();
        let hello = Hello {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            sockets: names,
            memory: estate.memory.clone(),
            at: Some(estate.at),
            tickets: estate.tickets.clone(),
            patience,
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
    async fn hear<T: for<'a> Deserialize<'a>>(&mut self) -> io::Result<T> {
        timeout(PATIENCE, self.receive()).await?
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
        for batch in sockets.chunks(BATCH) {
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
            sockets.extend(timeout(PATIENCE, batch).await??);
        }
        Ok(sockets)
    }
}

fn send_batch(stream: &UnixStream, batch: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(batch)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let byte = [IoSlice::new(&[0])];
    rustix::net::sendmsg(stream, &byte, &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn receive_batch(stream: &UnixStream) -> io::Result<Vec<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
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

    fn estate(sockets: usize, patience: Duration) -> Estate {
        let open = |index| {
            let (socket, _) = std::os::unix::net::UnixStream::pair().unwrap();
            (format!("socket {index}"), OwnedFd::from(socket))
        };
        Estate {
            sockets: (0..sockets).map(open).collect(),
            memory: PersistedState::default(),
            at: 1_000_000,
            tickets: Keys::default(),
            patience,
        }
    }

    fn pair() -> (Wire, Wire) {
        let (ours, theirs) = Wire::pair().unwrap();
        (ours, Wire::new(theirs.into()).unwrap())
    }

    async fn failure(ours: &mut Wire, patience: Duration) -> String {
        let failed = Successor::prepare(ours, &estate(0, patience)).await;
        failed.unwrap_err().refusal.to_string()
    }

    #[tokio::test]
    async fn many_sockets_of_long_names_arrive_in_order() {
        let (mut ours, mut theirs) = pair();
        let successor = async {
            let hello: Hello = theirs.receive().await.unwrap();
            let received = theirs.receive_sockets(hello.sockets.len()).await.unwrap();
            assert_eq!((hello.format, received.len()), (FORMAT, 300));
            assert_eq!(age(hello.at, 2_500_000), Duration::from_millis(1500));
            let (pid, kept) = (7, hello.sockets);
            theirs.send(&Answer::Ready { pid, kept }).await.unwrap();
        };
        let estate = estate(300, PATIENCE);
        let (ready, ()) = tokio::join!(Successor::prepare(&mut ours, &estate), successor);
        let ready = ready.unwrap();
        assert_eq!((ready.pid, ready.kept.len()), (7, 300));
        assert_eq!(ready.kept[299], "socket 299");
    }

    #[tokio::test]
    async fn a_successor_that_hangs_up_or_refuses_is_a_failure_with_its_reason() {
        let (mut ours, theirs) = pair();
        drop(theirs);
        let gone = failure(&mut ours, PATIENCE).await;
        assert!(gone.contains("ended before it acknowledged"), "{gone}");
        let (mut ours, mut theirs) = pair();
        let no = Answer::Refused("no room".to_owned());
        theirs.send(&no).await.unwrap();
        let refused = failure(&mut ours, PATIENCE).await;
        assert!(refused.contains("refused: no room"), "{refused}");
    }

    #[tokio::test]
    async fn a_successor_that_hangs_is_waited_for_only_so_long() {
        let (mut ours, _theirs) = pair();
        let late = failure(&mut ours, Duration::from_millis(50)).await;
        assert!(late.contains("did not acknowledge within 50ms"), "{late}");
    }

    #[tokio::test]
    async fn a_successor_that_serves_before_the_word_makes_no_sense() {
        let (mut ours, mut theirs) = pair();
        theirs.send(&Answer::Serving).await.unwrap();
        let early = failure(&mut ours, PATIENCE).await;
        assert!(early.contains("makes no sense"), "{early}");
    }

    #[test]
    fn an_unknown_field_is_ignored_and_a_missing_one_has_its_default() {
        let hello: Hello =
            serde_json::from_str(r#"{"format":2,"version":"9","pid":1,"colour":"blue"}"#).unwrap();
        assert!(hello.sockets.is_empty() && hello.memory == PersistedState::default());
        assert_eq!(age(hello.at, 2_500_000), Duration::ZERO);
    }
}
