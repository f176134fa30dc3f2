//! Bounds the bytes of a response that are between its peer and its client.
//!
//! Pingora 0.9.1 passes a response on through a channel and a batch of pieces, and `h2` buffers the pieces that it may
//! send, each by number only. So a piece counts until its last byte was written and its memory released: a client that
//! does not read stops the reading from the peer, however the pieces are kept on their way.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use parking_lot::Mutex;

/// The bytes in transit from which on nothing more is read. One read may exceed it, by at most 16 KiB.
const MAX_IN_TRANSIT: usize = 24 * 1024;

/// The memory of a piece in addition to its bytes, estimated; bytes. Bounds the number of small pieces.
const PIECE_OVERHEAD: usize = 512;

/// The pieces of one response that are not released yet.
#[derive(Debug, Default)]
pub(crate) struct InTransit(Arc<InTransitCounter>);

#[derive(Debug, Default)]
struct InTransitCounter {
    bytes: AtomicUsize,
    /// Wakes the reader of the peer's connection.
    reader: Mutex<Option<Waker>>,
}

impl InTransit {
    /// Counts a piece until it is released. `size`: the bytes that it keeps in memory.
    pub(crate) fn track(&self, piece: Bytes, size: usize) -> Bytes {
        let size = size + PIECE_OVERHEAD;
        self.0.bytes.fetch_add(size, Relaxed);
        Bytes::from_owner(Tracked {
            piece,
            size,
            counter: Arc::clone(&self.0),
        })
    }

    /// Ready while more may be read.
    pub(crate) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut reader = self.0.reader.lock();
        if self.0.bytes.load(Relaxed) < MAX_IN_TRANSIT {
            return Poll::Ready(());
        }
        *reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// A piece, which counts until it is dropped. Any thread may drop it: that of an HTTP/2 connection does.
struct Tracked {
    piece: Bytes,
    size: usize,
    counter: Arc<InTransitCounter>,
}

impl AsRef<[u8]> for Tracked {
    fn as_ref(&self) -> &[u8] {
        &self.piece
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        // The lock orders this with the check of the reader, so that no wake-up is lost.
        let mut reader = self.counter.reader.lock();
        let before = self.counter.bytes.fetch_sub(self.size, Relaxed);
        let waker = if before - self.size < MAX_IN_TRANSIT {
            reader.take()
        } else {
            None
        };
        drop(reader);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    fn has_room(transit: &InTransit) -> bool {
        let mut idle = Context::from_waker(Waker::noop());
        transit.poll_room(&mut idle).is_ready()
    }

    #[tokio::test]
    async fn reader_waits_until_the_last_slice_of_a_piece_is_released() {
        let transit = InTransit::default();
        let piece = transit.track(Bytes::from(vec![7; MAX_IN_TRANSIT]), MAX_IN_TRANSIT);
        let slice = piece.slice(5..6);
        assert_eq!(&slice[..], [7]);
        drop(piece);
        assert!(!has_room(&transit));
        tokio::join!(poll_fn(|cx| transit.poll_room(cx)), async { drop(slice) });
        assert!(has_room(&transit));
    }

    #[test]
    fn small_pieces_are_limited_in_number() {
        let transit = InTransit::default();
        let pieces: Vec<_> = (0..)
            .map_while(|_| has_room(&transit).then(|| transit.track(Bytes::from_static(b"a"), 1)))
            .take(MAX_IN_TRANSIT)
            .collect();
        assert_eq!(pieces.len(), MAX_IN_TRANSIT.div_ceil(1 + PIECE_OVERHEAD));
    }
}
