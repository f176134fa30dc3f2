//! Queues the chunks of a request body between the client and a peer.
//!
//! Pingora 0.9.1 has one loop for both directions: while it waits until the peer takes a chunk of the body, it passes
//! nothing of the response on. If the peer takes no more until its response is read, both directions block for ever; a
//! bidirectional gRPC stream may do that. So the loop never waits for the peer: it puts the chunk into this queue, and the
//! sender is polled concurrently with the loop. If the queue is full, only the read of the next chunk waits, and the loop
//! continues with the response.
//!
//! Invariant: no read of a chunk begins while [`MAX_BUFFERED`] bytes are queued.
//!
//! It can be removed when Pingora reads a response while it waits to write the request: README.md, request 3.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use parking_lot::Mutex;

use super::interim_responses::InterimResponses;

/// While this many bytes are queued, no further chunk is read from the client. The last chunk may exceed it.
const MAX_BUFFERED: usize = 64 << 10;

/// The downstream side of a request, which owns the body queue.
pub(crate) trait BodySource: Send + Sync {
    /// The queue of this request.
    fn body_queue(&self) -> &BodyQueue;

    /// The interim responses that the client's stream has taken.
    fn interim_responses(&self) -> &InterimResponses;
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
    /// The trailers of the request, which each attempt sends after its last chunk.
    trailers: Option<Box<HeaderMap>>,
    reader_waker: Option<Waker>,
    sender_waker: Option<Waker>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum BodyQueueState {
    /// The current attempt does not use the queue.
    #[default]
    Inactive,
    Open,
    /// The client's body has ended: no chunk is added.
    Ended,
    /// Nothing more is sent to the peer: all chunks are dropped.
    Stopped,
    /// The proxy rejects the request because of its body.
    Aborted,
}

impl BodyQueue {
    /// Drops the chunks and the state of the previous attempt; the trailers stay.
    pub(crate) fn reset(&self) {
        let mut queue = self.0.lock();
        *queue = BodyQueueInner {
            trailers: queue.trailers.take(),
            ..BodyQueueInner::default()
        };
    }

    /// Drops everything: another request follows on the connection.
    pub(crate) fn clear(&self) {
        *self.0.lock() = BodyQueueInner::default();
    }

    /// Makes the chunks of this attempt go through the queue.
    pub(crate) fn open(&self) {
        self.0.lock().state = BodyQueueState::Open;
    }

    /// Adds a chunk without waiting for capacity; drops it unless the queue is open.
    pub(crate) fn push(&self, chunk: Bytes) {
        let mut queue = self.0.lock();
        if queue.state == BodyQueueState::Open {
            queue.buffered += chunk.len();
            queue.chunks.push_back(chunk);
            wake(&mut queue.sender_waker);
        }
    }

    /// Sets the request's trailers; to be called before [`end`](Self::end).
    pub(crate) fn set_trailers(&self, trailers: HeaderMap) {
        if !trailers.is_empty() {
            self.0.lock().trailers = Some(Box::new(trailers));
        }
    }

    /// The trailers to send after the last chunk; a copy, as another attempt may follow.
    pub(crate) fn trailers(&self) -> Option<HeaderMap> {
        self.0.lock().trailers.as_deref().cloned()
    }

    /// Whether there are trailers to send, so far as the request was read.
    pub(crate) fn has_trailers(&self) -> bool {
        self.0.lock().trailers.is_some()
    }

    /// Marks the end of the body: no further chunk follows.
    pub(crate) fn end(&self) {
        let mut queue = self.0.lock();
        if queue.state == BodyQueueState::Open {
            queue.state = BodyQueueState::Ended;
            wake(&mut queue.sender_waker);
        }
    }

    /// Drops the queued chunks and all later ones. The peer needs no more of the body (RFC 9113 §8.1), its connection is
    /// closed, or the sending has failed.
    pub(crate) fn stop_sending(&self) {
        let mut queue = self.0.lock();
        queue.chunks.clear();
        queue.buffered = 0;
        queue.state = BodyQueueState::Stopped;
        wake(&mut queue.reader_waker);
        wake(&mut queue.sender_waker);
    }

    /// Ready when the sending is stopped or the request is aborted. A sender polls it while it waits for the peer; it shares
    /// the waker of [`poll_next`](Self::poll_next), which the sender does not poll then.
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

    /// Tells the sender that the proxy rejects the request because of its body, for example its size: the sender must then
    /// end the attempt with an error.
    pub(crate) fn abort(&self) {
        let mut queue = self.0.lock();
        if queue.state != BodyQueueState::Inactive {
            queue.state = BodyQueueState::Aborted;
            wake(&mut queue.sender_waker);
        }
    }

    /// Takes the next chunk for the peer, and returns whether it is the last; must not be polled after the last one.
    /// `None`: the request is aborted. After [`stop_sending`](Self::stop_sending) it returns an empty last chunk.
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

    /// Ready when another chunk may be read from the client: fewer than [`MAX_BUFFERED`] bytes are queued, or the queue is
    /// not open.
    pub(crate) fn poll_capacity(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut queue = self.0.lock();
        if queue.state != BodyQueueState::Open || queue.buffered < MAX_BUFFERED {
            return Poll::Ready(());
        }
        queue.reader_waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Whether the sending was stopped ([`stop_sending`](Self::stop_sending)).
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
    fn full_body_queue_has_no_capacity_until_a_chunk_is_taken() {
        let queue = open();
        assert!(has_capacity(&queue));
        queue.push(Bytes::from(vec![0; MAX_BUFFERED]));
        assert!(!has_capacity(&queue));
        assert!(next(&queue).is_some());
        assert!(has_capacity(&queue));
    }

    #[test]
    fn stopped_body_queue_always_has_capacity_and_can_be_aborted() {
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

    #[test]
    fn trailers_stay_for_the_next_attempt_and_not_for_the_next_request() {
        let queue = open();
        queue.set_trailers(HeaderMap::new());
        assert!(!queue.has_trailers());
        let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), "1".parse().unwrap())]);
        queue.set_trailers(trailers.clone());
        queue.reset();
        assert_eq!(queue.trailers(), Some(trailers));
        queue.clear();
        assert!(!queue.has_trailers());
    }
}
