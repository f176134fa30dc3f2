//! How one process hands its sockets and its memory to the next: a Unix socket pair, and who says
//! what on it.
//!
//! ```text
//!   predecessor                                   successor (its end is its standard input)
//!      │ ── hello: format, version, names, memory ──►  │
//!      │ ── the sockets, in the order of the names ──► │  resolves, binds what is new, asks the peers,
//!      │                                               │  accepts
//!      │ ◄──────────── serving, or refused: why ────── │
//!      │  stops accepting, drains                      │
//!      │ ── connections left, twice a second ────────► │  shows it in `status`
//!      │ ── end of file: it has exited ──────────────► │
//! ```
//!
//! A message is its length (4 bytes, big endian) and that many bytes of JSON. The format has a
//! number: a successor that does not know it refuses, and fields that it does not know are ignored.
//! Until the successor has said that it serves, nothing has changed for the predecessor; both accept
//! from the same queues after that, so no connection falls between them.

use std::ffi::OsStr;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::{Deserialize, Serialize};

use super::sockets::Inherited;
use crate::admin::Subject;
use crate::lifecycle::{self, Refusal};
use crate::upstream::Memory;

/// The format of the messages; another number means another format.
const FORMAT: u32 = 1;

/// Tells a process that its standard input is its predecessor.
pub(super) const SUCCESSOR: &str = "CLOCKWISE_SUCCESSOR";

/// The largest message; the memory of 100,000 peers is a tenth of it.
const MAX_MESSAGE: u32 = 256 << 20;

/// The most descriptors in one kernel message (Linux: `SCM_MAX_FD`, 253).
const BATCH: usize = 64;

/// How long either side waits for the other within a message, or for what is sent without delay.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a process could not take over.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The predecessor is not on standard input, or hung up.
    #[error("it cannot be heard: {0}")]
    Io(#[from] io::Error),
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
    #[serde(default)]
    memory: Memory,
    #[serde(default)]
    counters: String,
}

/// The successor's answer.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    /// It accepts connections.
    Serving {
        /// Its process id.
        pid: u32,
    },
    /// It has taken note of what changed since the hello.
    Noted,
    /// It could not start, and is about to exit.
    Refused(String),
}

/// What the predecessor says while it drains.
#[derive(Debug, Deserialize, Serialize)]
struct Progress {
    connections: u64,
    /// With the first message: what has become of the peers since the hello.
    #[serde(default)]
    memory: Option<Memory>,
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
    stream: UnixStream,
    pid: u32,
    sockets: Inherited,
    memory: Memory,
    counters: String,
}

impl Predecessor {
    /// Hears what is handed over; `None` where this process was started on its own.
    pub(super) fn meet() -> Result<Option<Self>, Error> {
        if !is_successor() {
            return Ok(None);
        }
        let mut stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let Hello {
            format,
            version,
            pid,
            sockets,
            memory,
            counters,
        } = receive(&mut stream)?;
        if format != FORMAT {
            let error = Error::Format {
                theirs: format,
                version,
            };
            // It would learn as much from our exit.
            let _ = send(&mut stream, &Answer::Refused(error.to_string()));
            return Err(error);
        }
        let received = receive_sockets(&stream, sockets.len())?;
        let sockets = sockets.into_iter().zip(received).collect();
        Ok(Some(Self {
            stream,
            pid,
            sockets,
            memory,
            counters,
        }))
    }

    /// What it handed over.
    pub(super) fn take(&mut self) -> (Inherited, Memory) {
        (
            std::mem::take(&mut self.sockets),
            std::mem::take(&mut self.memory),
        )
    }

    /// Tells it to serve on, and why.
    pub(super) fn refuse(mut self, why: &str) {
        // It would learn as much from our exit, but not why.
        let _ = send(&mut self.stream, &Answer::Refused(why.to_owned()));
    }

    /// Tells it that this process serves, and listens to how its drain goes until it has exited. If
    /// it is gone already, this process serves all the more.
    pub(super) fn acknowledge(mut self, subject: Arc<Subject>) -> Result<(), Error> {
        subject.telemetry.metrics.inherit(&self.counters);
        let pid = std::process::id();
        if let Err(error) = send(&mut self.stream, &Answer::Serving { pid }) {
            log::warn!("the process before this one is gone: {error}");
            return Ok(());
        }
        self.stream.set_read_timeout(None)?;
        let name = "predecessor".to_owned();
        std::thread::Builder::new()
            .name(name)
            .spawn(move || self.listen(&subject))?;
        Ok(())
    }

    fn listen(mut self, subject: &Subject) {
        let lifecycle = &subject.lifecycle;
        while let Ok(progress) = receive::<Progress>(&mut self.stream) {
            let Progress {
                connections,
                memory,
                counters,
            } = progress;
            lifecycle.set_predecessor(Some(lifecycle::Predecessor {
                pid: self.pid,
                connections,
            }));
            if let Some(memory) = memory {
                subject.snapshot.load().recall_drains(&memory);
                // If it is gone, it does not wait for this either.
                let _ = send(&mut self.stream, &Answer::Noted);
            }
            if let Some(counters) = counters {
                subject.telemetry.metrics.inherit(&counters);
            }
        }
        lifecycle.set_predecessor(None);
    }
}

/// Seen from the predecessor: the process that takes its place.
#[derive(Debug)]
pub(super) struct Successor {
    /// Its process id.
    pub(super) pid: u32,
    stream: UnixStream,
}

impl Successor {
    /// Tells it what has changed since the hello, and waits until that is noted.
    pub(super) fn update(&mut self, connections: u64, memory: Memory) {
        let progress = Progress {
            connections,
            memory: Some(memory),
            counters: None,
        };
        // If the successor is gone, nobody is left to know.
        if send(&mut self.stream, &progress).is_ok() {
            let _ = receive::<Answer>(&mut self.stream);
        }
    }

    /// Tells it how many connections are left; false: it is gone.
    pub(super) fn tell(&mut self, connections: u64) -> bool {
        // A few bytes, twice a second, to a thread that only reads: this does not block.
        send(
            &mut self.stream,
            &Progress {
                connections,
                memory: None,
                counters: None,
            },
        )
        .is_ok()
    }

    /// The last word: what this process has counted in all.
    pub(super) fn leave(&mut self, connections: u64, counters: String) {
        let progress = Progress {
            connections,
            memory: None,
            counters: Some(counters),
        };
        // If the successor is gone, nobody is left to count on.
        let _ = send(&mut self.stream, &progress);
    }
}

/// What a predecessor hands over.
pub(super) struct Estate {
    pub(super) sockets: Vec<(String, OwnedFd)>,
    pub(super) memory: Memory,
    pub(super) counters: String,
}

/// Why a hand-over came to nothing.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) refusal: Refusal,
    /// The new process has ended, or is about to; else it may still come to serve, and must not.
    pub(super) ends: bool,
}

/// Hands over, and waits until the successor serves. Blocks: call it where that is allowed.
pub(super) fn hand_over(
    mut stream: UnixStream,
    estate: &Estate,
    limit: Duration,
) -> Result<Successor, Failed> {
    let sent = tell_all(&mut stream, estate, limit);
    // A process that does not want to hear it all may still have said why.
    match receive(&mut stream) {
        Ok(Answer::Serving { pid }) => {
            // From now on it answers at once, or never.
            let _ = stream.set_read_timeout(Some(PATIENCE));
            Ok(Successor { pid, stream })
        }
        Ok(Answer::Refused(why)) => Err(Failed::because(format!("the new process refused: {why}"))),
        Ok(Answer::Noted) => Err(Failed::because("the new process makes no sense".to_owned())),
        Err(error) => Err(Failed::by(&sent.err().unwrap_or(error), limit)),
    }
}

fn tell_all(stream: &mut UnixStream, estate: &Estate, limit: Duration) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_read_timeout(Some(limit))?;
    let (names, sockets): (Vec<_>, Vec<_>) = estate
        .sockets
        .iter()
        .map(|(name, socket)| (name.clone(), socket.as_fd()))
        .unzip();
    let hello = Hello {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        sockets: names,
        memory: estate.memory.clone(),
        counters: estate.counters.clone(),
    };
    send(stream, &hello)?;
    send_sockets(stream, &sockets)
}

impl Failed {
    fn because(why: String) -> Self {
        Self {
            refusal: Refusal::Failed(why),
            ends: true,
        }
    }

    fn by(error: &io::Error, limit: Duration) -> Self {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, TimedOut, UnexpectedEof, WouldBlock};
        match error.kind() {
            WouldBlock | TimedOut => Self {
                refusal: Refusal::Failed(format!(
                    "the new process did not acknowledge within {limit:?}"
                )),
                ends: false,
            },
            UnexpectedEof | BrokenPipe | ConnectionReset => {
                Self::because("the new process ended before it acknowledged".to_owned())
            }
            _ => Self {
                refusal: Refusal::Failed(format!("the new process cannot be talked to: {error}")),
                ends: false,
            },
        }
    }
}

fn send(stream: &mut UnixStream, message: &impl Serialize) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    let length = u32::try_from(body.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    stream.write_all(&length.to_be_bytes())?;
    stream.write_all(&body)
}

fn receive<T: for<'a> Deserialize<'a>>(stream: &mut UnixStream) -> io::Result<T> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if length > MAX_MESSAGE {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a message without bounds",
        ));
    }
    let mut body = vec![0; length as usize];
    stream.read_exact(&mut body)?;
    Ok(serde_json::from_slice(&body)?)
}

/// One byte goes with each batch: descriptors do not travel alone.
fn send_sockets(stream: &UnixStream, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
    for batch in sockets.chunks(BATCH) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(batch)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        rustix::net::sendmsg(
            stream,
            &[IoSlice::new(&[0])],
            &mut control,
            SendFlags::NOSIGNAL,
        )?;
    }
    Ok(())
}

fn receive_sockets(stream: &UnixStream, count: usize) -> io::Result<Vec<OwnedFd>> {
    let mut sockets = Vec::with_capacity(count);
    while sockets.len() < count {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let mut bytes = [IoSliceMut::new(&mut byte)];
        let read = rustix::net::recvmsg(stream, &mut bytes, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        if read.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                sockets.extend(received);
            }
        }
    }
    Ok(sockets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipes(count: usize) -> Vec<(String, OwnedFd)> {
        let open = |index| {
            (
                format!("socket {index}"),
                OwnedFd::from(UnixStream::pair().unwrap().0),
            )
        };
        (0..count).map(open).collect()
    }

    #[test]
    fn many_sockets_of_long_names_arrive_in_order() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let estate = Estate {
            sockets: pipes(300),
            memory: Memory::default(),
            counters: String::new(),
        };
        std::thread::scope(|scope| {
            let handed = scope.spawn(|| hand_over(ours, &estate, PATIENCE).unwrap().pid);
            let hello: Hello = receive(&mut theirs).unwrap();
            let received = receive_sockets(&theirs, hello.sockets.len()).unwrap();
            assert_eq!((hello.format, received.len()), (FORMAT, 300));
            send(&mut theirs, &Answer::Serving { pid: 7 }).unwrap();
            assert_eq!(handed.join().unwrap(), 7);
        });
    }

    #[test]
    fn a_successor_that_hangs_up_or_refuses_is_a_failure_with_its_reason() {
        let estate = Estate {
            sockets: Vec::new(),
            memory: Memory::default(),
            counters: String::new(),
        };
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        let gone = hand_over(ours, &estate, PATIENCE).unwrap_err().refusal;
        assert!(
            gone.to_string().contains("ended before it acknowledged"),
            "{gone}"
        );
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        send(&mut theirs, &Answer::Refused("no room".to_owned())).unwrap();
        let refused = hand_over(ours, &estate, PATIENCE).unwrap_err().refusal;
        assert!(
            refused.to_string().contains("refused: no room"),
            "{refused}"
        );
    }

    #[test]
    fn a_successor_that_hangs_is_waited_for_only_so_long() {
        let estate = Estate {
            sockets: Vec::new(),
            memory: Memory::default(),
            counters: String::new(),
        };
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let late = hand_over(ours, &estate, Duration::from_millis(50))
            .unwrap_err()
            .refusal;
        assert!(
            late.to_string().contains("did not acknowledge within 50ms"),
            "{late}"
        );
    }

    #[test]
    fn an_unknown_field_is_ignored_and_a_missing_one_has_its_default() {
        let hello: Hello =
            serde_json::from_str(r#"{"format":1,"version":"9","pid":1,"colour":"blue"}"#).unwrap();
        assert!(hello.sockets.is_empty() && hello.memory == Memory::default());
    }
}
