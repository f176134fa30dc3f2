//! What was read of a stream's request body and waits for its peer.
//!
//! Pingora has one loop for both ways of a request: while a piece of the body waits for a peer to take it,
//! nothing of the response is taken from that peer. One that takes nothing before its response is taken
//! (gRPC answers while it is asked) would wait for ever. So the loop never waits for the peer: it puts
//! the piece here, and what sends it on is polled beside the loop. Who waits is the reader of the
//! body, and there the loop goes on with the response.
//!
//! Invariant: no piece is read while [`ROOM`] bytes wait.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use parking_lot::Mutex;

/// What waits at most before the client must; bytes.
const MAX_BUFFERED: usize = 64 << 10;

/// The pieces of one request's body, on their way from its reader to its sender.
#[derive(Debug, Default)]
pub struct BodyQueue(Mutex<BodyQueueInner>);

#[derive(Debug, Default)]
struct BodyQueueInner {
    state: BodyQueueState,
    chunks: VecDeque<Bytes>,
    /// Bytes in them.
    buffered: usize,
    reader_waker: Option<Waker>,
    sender_waker: Option<Waker>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum BodyQueueState {
    /// This attempt does without.
    #[default]
    Inactive,
    Open,
    /// No piece follows those that are here.
    Ended,
    /// The peer takes no more.
    Stopped,
    /// The request itself is refused.
    Aborted,
}

impl BodyQueue {
    /// Another attempt: what waited for the last one is void.
    pub fn reset(&self) {
        *self.0.lock() = BodyQueueInner::default();
    }

    /// From here on pieces go this way.
    pub fn open(&self) {
        self.0.lock().state = BodyQueueState::Open;
    }

    /// Puts a piece in, at once. What a peer refuses is dropped.
    pub fn push(&self, piece: Bytes) {
        let mut queue = self.0.lock();
        if queue.state == BodyQueueState::Open {
            queue.buffered += piece.len();
            queue.chunks.push_back(piece);
            wake(&mut queue.sender_waker);
        }
    }

    /// That was all.
    pub fn end(&self) {
        let mut queue = self.0.lock();
        if queue.state == BodyQueueState::Open {
            queue.state = BodyQueueState::Ended;
            wake(&mut queue.sender_waker);
        }
    }

    /// The peer takes no more, be it that it needs no more (RFC 9113, 8.1) or that it is gone.
    pub fn stop_sending(&self) {
        let mut queue = self.0.lock();
        queue.chunks.clear();
        queue.buffered = 0;
        queue.state = BodyQueueState::Stopped;
        wake(&mut queue.reader_waker);
    }

    /// The request is refused by what its body turned out to be: who sends it on must end the exchange.
    pub fn abort(&self) {
        let mut queue = self.0.lock();
        if queue.state != BodyQueueState::Inactive {
            queue.state = BodyQueueState::Aborted;
            wake(&mut queue.sender_waker);
        }
    }

    /// The next piece for the peer, and whether it is the last; after that none is to be asked for.
    /// `None`: the request is abandoned.
    pub fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<(Bytes, bool)>> {
        let mut queue = self.0.lock();
        if queue.state == BodyQueueState::Aborted {
            return Poll::Ready(None);
        }
        let piece = queue.chunks.pop_front();
        let ended = queue.state != BodyQueueState::Open && queue.chunks.is_empty();
        match piece {
            Some(piece) => {
                queue.buffered -= piece.len();
                wake(&mut queue.reader_waker);
                Poll::Ready(Some((piece, ended)))
            }
            None if ended => Poll::Ready(Some((Bytes::new(), true))),
            None => {
                queue.sender_waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Ready while there is room for another piece, or none is needed.
    pub(super) fn poll_capacity(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut queue = self.0.lock();
        if queue.state != BodyQueueState::Open || queue.buffered < MAX_BUFFERED {
            return Poll::Ready(());
        }
        queue.reader_waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Whether the pieces of this attempt go this way.
    pub(super) fn is_active(&self) -> bool {
        self.0.lock().state != BodyQueueState::Inactive
    }

    /// Whether the peer takes no more.
    pub(super) fn is_stopped(&self) -> bool {
        self.0.lock().state == BodyQueueState::Stopped
    }
}

fn wake(waiting: &mut Option<Waker>) {
    if let Some(waker) = waiting.take() {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now<T>(poll: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Option<T> {
        match poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    fn next(upload: &BodyQueue) -> Option<(Bytes, bool)> {
        now(|cx| upload.poll_next(cx)).flatten()
    }

    fn has_room(upload: &BodyQueue) -> bool {
        now(|cx| upload.poll_capacity(cx)).is_some()
    }

    fn open() -> BodyQueue {
        let upload = BodyQueue::default();
        upload.open();
        upload
    }

    #[test]
    fn body_queue_keeps_chunk_order_and_marks_the_last() {
        let upload = open();
        assert_eq!(next(&upload), None);
        upload.push(Bytes::from_static(b"a"));
        upload.push(Bytes::from_static(b"b"));
        assert_eq!(next(&upload), Some((Bytes::from_static(b"a"), false)));
        upload.end();
        assert_eq!(next(&upload), Some((Bytes::from_static(b"b"), true)));
        let late = open();
        late.push(Bytes::from_static(b"a"));
        assert_eq!(next(&late), Some((Bytes::from_static(b"a"), false)));
        late.end();
        assert_eq!(next(&late), Some((Bytes::new(), true)));
    }

    #[test]
    fn body_queue_blocks_the_writer_while_it_is_full() {
        let upload = open();
        assert!(has_room(&upload));
        upload.push(Bytes::from(vec![0; MAX_BUFFERED]));
        assert!(!has_room(&upload));
        assert!(next(&upload).is_some());
        assert!(has_room(&upload));
    }

    #[test]
    fn body_queue_that_is_refused_never_blocks_the_writer() {
        let upload = open();
        upload.push(Bytes::from(vec![0; MAX_BUFFERED]));
        upload.stop_sending();
        assert!(has_room(&upload) && upload.is_stopped());
        upload.push(Bytes::from(vec![0; MAX_BUFFERED]));
        assert!(has_room(&upload));
        upload.abort();
        assert!(now(|cx| upload.poll_next(cx)).is_some_and(|next| next.is_none()));
        upload.reset();
        assert!(!upload.is_active() && !upload.is_stopped());
    }
}
