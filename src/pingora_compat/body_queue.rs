//! A request body on its way from the client to a peer.
//!
//! Pingora 0.9.1 has one loop for both directions of a request: while it waits for the peer to take a chunk of
//! the body, it does not read the response. A peer that stops reading until its response is read (gRPC responds
//! while the request is still being sent) would deadlock. So the loop never waits for the peer: it puts the chunk
//! here, and the sender is polled concurrently with the loop. Only the reader of the body waits, and meanwhile the loop
//! continues with the response.
//!
//! Invariant: no chunk is read while [`MAX_BUFFERED`] bytes wait.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use parking_lot::Mutex;

/// The most bytes that wait; if there are more, the client has to wait.
const MAX_BUFFERED: usize = 64 << 10;

/// The owner of a request's body queue: the downstream side of the request.
pub(crate) trait BodySource: Send + Sync {
    /// The queue.
    fn body_queue(&self) -> &BodyQueue;
}

/// The chunks of one request's body between their reader and their sender.
#[derive(Debug, Default)]
pub(crate) struct BodyQueue(Mutex<BodyQueueInner>);

#[derive(Debug, Default)]
struct BodyQueueInner {
    state: BodyQueueState,
    chunks: VecDeque<Bytes>,
    /// The sum of the chunks; bytes.
    buffered: usize,
    reader_waker: Option<Waker>,
    sender_waker: Option<Waker>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum BodyQueueState {
    /// This attempt does not use the queue.
    #[default]
    Inactive,
    Open,
    /// The last chunk is in the queue.
    Ended,
    /// The peer accepts no more.
    Stopped,
    /// The proxy rejects the request.
    Aborted,
}

impl BodyQueue {
    /// Drops the state of the attempt before.
    pub(crate) fn reset(&self) {
        *self.0.lock() = BodyQueueInner::default();
    }

    /// Chunks of this attempt go through the queue from here on.
    pub(crate) fn open(&self) {
        self.0.lock().state = BodyQueueState::Open;
    }

    /// Adds a chunk, without waiting; drops it if the peer accepts no more.
    pub(crate) fn push(&self, chunk: Bytes) {
        let mut queue = self.0.lock();
        if queue.state == BodyQueueState::Open {
            queue.buffered += chunk.len();
            queue.chunks.push_back(chunk);
            wake(&mut queue.sender_waker);
        }
    }

    /// No further chunk follows.
    pub(crate) fn end(&self) {
        let mut queue = self.0.lock();
        if queue.state == BodyQueueState::Open {
            queue.state = BodyQueueState::Ended;
            wake(&mut queue.sender_waker);
        }
    }

    /// The peer accepts no more: it needs no more (RFC 9113 §8.1), or its connection is closed.
    pub(crate) fn stop_sending(&self) {
        let mut queue = self.0.lock();
        queue.chunks.clear();
        queue.buffered = 0;
        queue.state = BodyQueueState::Stopped;
        wake(&mut queue.reader_waker);
        wake(&mut queue.sender_waker);
    }

    /// Ready when the peer accepts no more, or the request is aborted: for a sender that waits for the peer.
    pub(crate) fn poll_stopped(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut queue = self.0.lock();
        if matches!(
            queue.state,
            BodyQueueState::Stopped | BodyQueueState::Aborted
        ) {
            return Poll::Ready(());
        }
        queue.sender_waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The proxy rejects the request for its body, for example its size: the sender must reset its stream.
    pub(crate) fn abort(&self) {
        let mut queue = self.0.lock();
        if queue.state != BodyQueueState::Inactive {
            queue.state = BodyQueueState::Aborted;
            wake(&mut queue.sender_waker);
        }
    }

    /// The next chunk for the peer, and whether it is the last; not to be polled after that. `None`: the request
    /// is aborted. After [`stop_sending`](Self::stop_sending) an empty chunk is the last.
    pub(crate) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<(Bytes, bool)>> {
        let mut queue = self.0.lock();
        if queue.state == BodyQueueState::Aborted {
            return Poll::Ready(None);
        }
        let chunk = queue.chunks.pop_front();
        let ended = queue.state != BodyQueueState::Open && queue.chunks.is_empty();
        match chunk {
            Some(chunk) => {
                queue.buffered -= chunk.len();
                wake(&mut queue.reader_waker);
                Poll::Ready(Some((chunk, ended)))
            }
            None if ended => Poll::Ready(Some((Bytes::new(), true))),
            None => {
                queue.sender_waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Ready while another chunk fits, or the peer takes none.
    pub(crate) fn poll_capacity(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut queue = self.0.lock();
        if queue.state != BodyQueueState::Open || queue.buffered < MAX_BUFFERED {
            return Poll::Ready(());
        }
        queue.reader_waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Whether the peer accepts no more.
    pub(crate) fn is_stopped(&self) -> bool {
        self.0.lock().state == BodyQueueState::Stopped
    }
}

fn wake(slot: &mut Option<Waker>) {
    if let Some(waker) = slot.take() {
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

    fn next(queue: &BodyQueue) -> Option<(Bytes, bool)> {
        now(|cx| queue.poll_next(cx)).flatten()
    }

    fn has_capacity(queue: &BodyQueue) -> bool {
        now(|cx| queue.poll_capacity(cx)).is_some()
    }

    fn open() -> BodyQueue {
        let queue = BodyQueue::default();
        queue.open();
        queue
    }

    #[test]
    fn body_queue_keeps_chunk_order_and_marks_the_last() {
        let queue = open();
        assert_eq!(next(&queue), None);
        queue.push(Bytes::from_static(b"a"));
        queue.push(Bytes::from_static(b"b"));
        assert_eq!(next(&queue), Some((Bytes::from_static(b"a"), false)));
        queue.end();
        assert_eq!(next(&queue), Some((Bytes::from_static(b"b"), true)));
        let late = open();
        late.push(Bytes::from_static(b"a"));
        assert_eq!(next(&late), Some((Bytes::from_static(b"a"), false)));
        late.end();
        assert_eq!(next(&late), Some((Bytes::new(), true)));
    }

    #[test]
    fn body_queue_blocks_the_writer_while_it_is_full() {
        let queue = open();
        assert!(has_capacity(&queue));
        queue.push(Bytes::from(vec![0; MAX_BUFFERED]));
        assert!(!has_capacity(&queue));
        assert!(next(&queue).is_some());
        assert!(has_capacity(&queue));
    }

    #[test]
    fn body_queue_that_is_refused_never_blocks_the_writer() {
        let queue = open();
        queue.push(Bytes::from(vec![0; MAX_BUFFERED]));
        queue.stop_sending();
        assert!(has_capacity(&queue) && queue.is_stopped());
        queue.push(Bytes::from(vec![0; MAX_BUFFERED]));
        assert!(has_capacity(&queue));
        queue.abort();
        assert!(now(|cx| queue.poll_next(cx)).is_some_and(|next| next.is_none()));
        queue.reset();
        assert!(!queue.is_stopped());
    }
}
