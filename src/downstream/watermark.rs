//! Backpressure of a tunnel, in which neither direction blocks the other.
//!
//! In Pingora 0.9.1 one task relays both directions, and it finishes a write to one side before it reads again. A
//! client that does not read would block its own bytes to the peer, and two sides that both write a lot before
//! they read would deadlock. So a write into a tunnel never blocks: bytes that the receiver does not accept yet
//! are buffered, and above the watermark no more is read from the sender.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

/// Buffered bytes above which nothing more is read from the sender. One read that was in progress may exceed it.
const HIGH_WATERMARK: usize = 64 * 1024;

/// One direction of a tunnel. One task uses both ends, so `Relaxed` is enough for the flag.
#[derive(Debug, Default)]
pub(super) struct Watermark {
    is_above: AtomicBool,
    /// Wakes the task that waits to read from the sender.
    reader_waker: Mutex<Option<Waker>>,
}

impl Watermark {
    /// Sets the number of bytes that are buffered for the receiver.
    pub(super) fn set_buffered(&self, bytes: usize) {
        let is_above = bytes > HIGH_WATERMARK;
        if is_above == self.is_above.load(Relaxed) {
            return;
        }
        self.is_above.store(is_above, Relaxed);
        if !is_above && let Some(reader) = self.reader_waker.lock().take() {
            reader.wake();
        }
    }

    /// Ready while reading from the sender is allowed.
    pub(super) fn poll_below(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.is_above.load(Relaxed) {
            return Poll::Ready(());
        }
        *self.reader_waker.lock() = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn watermark_pauses_the_reader_until_the_buffer_drains() {
        let watermark = Watermark::default();
        poll_fn(|cx| {
            watermark.set_buffered(HIGH_WATERMARK);
            assert!(watermark.poll_below(cx).is_ready());
            watermark.set_buffered(HIGH_WATERMARK + 1);
            assert!(watermark.poll_below(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        tokio::join!(poll_fn(|cx| watermark.poll_below(cx)), async {
            watermark.set_buffered(0);
        });
    }
}
