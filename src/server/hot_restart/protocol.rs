//! The messages of a hot restart, and the Unix socket pair that carries them.
//!
//! ```text
//!   old process                                   new process (its standard input is its end)
//!      │ ── Hello: format, socket names, state ──────► │
//!      │ ── sockets, in the order of their names ────► │  resolves, binds what is new, probes the peers
//!      │ ◄─────────────── Ready, or StartFailed ────── │  from here on nothing can fail
//!      │ ── Activate: state and counters of now ─────► │  accepts
//!      │ ◄──────────────────────────────── Serving ─── │
//!      │  stops accepting, drains                      │
//!      │ ── DrainReport, twice a second ─────────────► │  shows it in `status`
//!      │ ── end of file: it has exited ──────────────► │
//! ```
//!
//! A message is its length (4 bytes, big endian) and that many bytes of JSON. Unknown fields are ignored; an unknown
//! format number is an error. Before `Activate` the new process accepts nothing, so it can be killed unnoticed; if the
//! old process exits without a word, the new one serves at once. After it both accept from the same sockets.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::tls::TicketKeys;
use crate::upstream::PersistedState;

/// The format of the messages; raised with every incompatible change.
pub(super) const PROTOCOL_VERSION: u32 = 3;

/// How long either side waits for a message that the other sends without delay.
pub(super) const IO_TIMEOUT: Duration = Duration::from_secs(10);

/// The message instead of [`Activate`] if the upgrade was cancelled. It does not parse as an [`Activate`].
pub(super) const CANCEL_MESSAGE: &str = "cancelled";

/// Why a process could not take over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The old process is not on standard input, or closed its end.
    #[error("the hand-over connection failed: {0}")]
    Io(#[from] io::Error),
    /// The old process cancelled the upgrade and continues to serve.
    #[error("it cancelled the upgrade")]
    Cancelled,
    /// The old process uses another format of the messages.
    #[error(
        "it uses hand-over format {theirs} (version {version}), this program only format {PROTOCOL_VERSION}; upgrade to a version in between first, or restart"
    )]
    UnsupportedVersion {
        /// The format of the old process.
        theirs: u32,
        /// The program version of the old process.
        version: String,
    },
}

/// Old to new: the first message. The sockets follow it.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Hello {
    pub(super) format: u32,
    /// The program version.
    pub(super) version: String,
    pub(super) pid: u32,
    /// The name of each socket that follows.
    #[serde(default)]
    pub(super) sockets: Vec<String>,
    /// As of `captured_at`.
    #[serde(default)]
    pub(super) peer_state: PersistedState,
    /// Microseconds of the kernel's monotonic clock, which both processes share.
    #[serde(default)]
    pub(super) captured_at: Option<i64>,
    /// Let clients resume their TLS sessions.
    #[serde(default)]
    pub(super) ticket_keys: TicketKeys,
    /// How long the old process waits for `Ready`, in milliseconds.
    #[serde(default)]
    pub(super) ready_timeout_ms: Option<u64>,
}

/// Old to new: accept connections now.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(super) struct Activate {
    /// As of `captured_at`.
    #[serde(default)]
    pub(super) peer_state: PersistedState,
    /// Microseconds of the kernel's monotonic clock.
    #[serde(default)]
    pub(super) captured_at: Option<i64>,
    /// The counters in the Prometheus text format.
    #[serde(default)]
    pub(super) counters: String,
}

/// New to old.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum SuccessorMessage {
    /// All that can fail is done; waits for [`Activate`].
    Ready {
        /// Its process id.
        pid: u32,
        /// The names of the sockets it keeps; the old process closes the others.
        #[serde(default)]
        adopted_sockets: Vec<String>,
    },
    /// It accepts connections.
    Serving,
    /// The state of a [`DrainReport`] is applied.
    StateApplied,
    /// It could not start, for this reason, and is about to exit.
    StartFailed(String),
}

/// Old to new: how far the drain is.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct DrainReport {
    /// Open connections.
    pub(super) connections: u64,
    /// In the first report: the state once the admin sockets are closed, with every drain by an operator.
    #[serde(default)]
    pub(super) peer_state: Option<PersistedState>,
    /// In the last report: all counters, with what was counted while draining.
    #[serde(default)]
    pub(super) counters: Option<String>,
}

/// One end of the socket pair.
#[derive(Debug)]
pub(super) struct HandoverChannel(UnixStream);

impl HandoverChannel {
    /// Two ends; the second one is for the new process. Must be called inside a Tokio runtime.
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        Ok((Self::new(ours)?, theirs.into()))
    }

    pub(super) fn new(stream: std::os::unix::net::UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        UnixStream::from_std(stream).map(Self)
    }

    pub(super) async fn send(&mut self, message: &impl Serialize) -> io::Result<()> {
        let mut bytes = vec![0; 4];
        serde_json::to_writer(&mut bytes, message)?;
        let length = u32::try_from(bytes.len() - 4).map_err(|_| io::ErrorKind::InvalidInput)?;
        let (prefix, _) = bytes.split_at_mut(4);
        prefix.copy_from_slice(&length.to_be_bytes());
        self.0.write_all(&bytes).await
    }

    /// Receives a message that the other side sends within [`IO_TIMEOUT`].
    pub(super) async fn receive_with_timeout<T: for<'a> Deserialize<'a>>(
        &mut self,
    ) -> io::Result<T> {
        timeout(IO_TIMEOUT, self.receive()).await?
    }

    pub(super) async fn receive<T: for<'a> Deserialize<'a>>(&mut self) -> io::Result<T> {
        let length = self.0.read_u32().await?;
        if length > MAX_MESSAGE {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a message of {length} bytes, at most {MAX_MESSAGE} are allowed"),
            ));
        }
        let mut body = vec![0; length as usize];
        self.0.read_exact(&mut body).await?;
        Ok(serde_json::from_slice(&body)?)
    }

    pub(super) async fn send_sockets(&self, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
        for batch in sockets.chunks(FDS_PER_MESSAGE) {
            let send = || send_batch(&self.0, batch);
            self.0.async_io(Interest::WRITABLE, send).await?;
        }
        Ok(())
    }

    pub(super) async fn receive_sockets(&self, count: usize) -> io::Result<Vec<OwnedFd>> {
        let mut sockets = Vec::with_capacity(count);
        while sockets.len() < count {
            let receive = || receive_batch(&self.0);
            let batch = self.0.async_io(Interest::READABLE, receive);
            sockets.extend(timeout(IO_TIMEOUT, batch).await??);
        }
        Ok(sockets)
    }
}

/// Whether the error says that the other end of the pair is closed.
pub(super) fn is_disconnect(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | BrokenPipe | ConnectionReset)
}

fn send_batch(stream: &UnixStream, batch: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_PER_MESSAGE))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(batch)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // On a stream socket, descriptors need at least one byte of data to go with (`unix(7)`).
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

/// The largest message; the state of 100,000 peers is a tenth of it.
const MAX_MESSAGE: u32 = 256 << 20;

/// The most descriptors in one kernel message (Linux allows 253, `SCM_MAX_FD`).
const FDS_PER_MESSAGE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handover_message_ignores_unknown_fields_and_defaults_missing_ones() {
        let hello: Hello =
            serde_json::from_str(r#"{"format":3,"version":"9","pid":1,"colour":"blue"}"#).unwrap();
        assert!(hello.sockets.is_empty() && hello.peer_state == PersistedState::default());
        assert_eq!(hello.captured_at, None);
    }
}
