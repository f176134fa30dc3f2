//! A response on its way from an HTTP/2 peer to an HTTP/2 client that may stop reading.
//!
//! Pingora 0.9.1 reads ahead of the client: four chunks in a channel, and up to five in the write that waits. As each chunk
//! is read, the peer's window opens again. This limit on bytes keeps the rest in that window, and at the peer.
//!
//! Together with the peer's window and the send buffer of the client's stream it bounds the memory of a response that its
//! client does not read (`conf/README.md`, "Protocols").

use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

/// The bytes that were read and not written yet, above which nothing more is read. One chunk may exceed it: a frame, at
/// most 16 KiB.
const HIGH_WATERMARK: usize = 16 << 10;

/// The bytes of one response between the reader of the peer and the writer of the client.
#[derive(Debug, Default)]
pub(crate) struct ResponseBacklog(Mutex<Backlog>);

#[derive(Debug, Default)]
struct Backlog {
    bytes: usize,
    reader_waker: Option<Waker>,
}

impl ResponseBacklog {
    /// Drops the state of the attempt before.
    pub(crate) fn reset(&self) {
        *self.0.lock() = Backlog::default();
    }

    /// Ready while the next chunk may be read.
    pub(super) fn poll_capacity(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut backlog = self.0.lock();
        if backlog.bytes < HIGH_WATERMARK {
            return Poll::Ready(());
        }
        backlog.reader_waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// A chunk was read from the peer.
    pub(super) fn on_read(&self, bytes: usize) {
        let mut backlog = self.0.lock();
        backlog.bytes = backlog.bytes.saturating_add(bytes);
    }

    /// Bytes were handed to the client's stream. A translation may have made them more than were read.
    pub(crate) fn on_written(&self, bytes: usize) {
        let mut backlog = self.0.lock();
        backlog.bytes = backlog.bytes.saturating_sub(bytes);
        if backlog.bytes < HIGH_WATERMARK
            && let Some(reader) = backlog.reader_waker.take()
        {
            reader.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has_capacity(backlog: &ResponseBacklog) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        backlog.poll_capacity(&mut cx).is_ready()
    }

    #[test]
    fn response_backlog_pauses_the_reader_until_the_client_takes_bytes() {
        let backlog = ResponseBacklog::default();
        backlog.on_read(HIGH_WATERMARK - 1);
        assert!(has_capacity(&backlog));
        backlog.on_read(HIGH_WATERMARK);
        assert!(!has_capacity(&backlog));
        backlog.on_written(HIGH_WATERMARK - 1);
        assert!(!has_capacity(&backlog));
        backlog.on_written(1);
        assert!(has_capacity(&backlog));
        backlog.on_written(HIGH_WATERMARK);
        backlog.on_read(HIGH_WATERMARK);
        assert!(
            !has_capacity(&backlog),
            "more written than read is no credit"
        );
        backlog.reset();
        assert!(has_capacity(&backlog));
    }
}
