//! Bounds the bytes of a response that were read from the peer and are not yet written to the client.
//!
//! Pingora 0.9.1 limits only the number of pieces in its channel and in the batch that it takes from there. `h2` limits the
//! bytes that it buffers, but one byte there keeps the memory of its whole piece. So a piece counts from its read until the
//! last slice of it is dropped. While a client does not read, no more is read from the peer. Without this, such a client
//! holds up to 500 KiB of a response.
//!
//! It can be removed when Pingora limits these bytes: README.md, request 9.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use parking_lot::Mutex;

/// No read from a peer of HTTP/1 begins while this many bytes are in transit. The last read may exceed it by 16 KiB.
const MAX_IN_TRANSIT: usize = 24 * 1024;

/// The same for a peer of HTTP/2; smaller, as up to `h2.window` bytes more wait in `h2`. The last read may exceed it by a DATA
/// frame: 16 KiB.
const MAX_IN_TRANSIT_H2: usize = 8 * 1024;

/// What a piece counts in addition to its bytes, so that small pieces are limited in number, too; bytes, estimated.
const PIECE_OVERHEAD: usize = 512;

/// Counts the pieces of one response until their memory is released.
#[derive(Debug)]
pub(crate) struct InTransit(Arc<InTransitCounter>);

#[derive(Debug)]
struct InTransitCounter {
    /// No read begins while this many bytes are in transit.
    limit: usize,
    /// The bytes of all pieces, each with [`PIECE_OVERHEAD`].
    bytes: AtomicUsize,
    /// Wakes the reader of the peer's connection.
    reader: Mutex<Option<Waker>>,
}

impl Default for InTransit {
    /// For a response of a peer of HTTP/1.
    fn default() -> Self {
        Self::limited_to(MAX_IN_TRANSIT)
    }
}

impl InTransit {
    /// For a response of a peer of HTTP/2.
    pub(crate) fn of_http2() -> Self {
        Self::limited_to(MAX_IN_TRANSIT_H2)
    }

    fn limited_to(limit: usize) -> Self {
        Self(Arc::new(InTransitCounter {
            limit,
            bytes: AtomicUsize::new(0),
            reader: Mutex::default(),
        }))
    }

    /// Counts a piece until it and all its slices are dropped. `size`: the bytes of memory that it holds.
    /// These are more than its length if it is a part of a larger buffer.
    pub(crate) fn track(&self, piece: Bytes, size: usize) -> Bytes {
        let size = size + PIECE_OVERHEAD;
        self.0.bytes.fetch_add(size, Relaxed);
        Bytes::from_owner(Tracked {
            piece,
            size,
            counter: Arc::clone(&self.0),
        })
    }

    /// Ready while fewer bytes than the limit are in transit, so that more may be read.
    pub(crate) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut reader = self.0.reader.lock();
        if self.0.bytes.load(Relaxed) < self.0.limit {
            return Poll::Ready(());
        }
        *reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// A piece that is counted until it is dropped. Any thread may drop it: the task of a client's HTTP/2 connection may run
/// on another thread than the reader.
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
        // `poll_room` checks the count and stores its waker under this lock: a piece that is dropped in between would
        // not wake the reader.
        let mut reader = self.counter.reader.lock();
        let before = self.counter.bytes.fetch_sub(self.size, Relaxed);
        let waker = if before - self.size < self.counter.limit {
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
