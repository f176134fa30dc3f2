//! Backpressure of a tunnel, in which neither direction waits for the other.
//!
//! Pingora 0.9.1 writes what it has read to the other side before it reads on, and one task does that in both
//! directions: a client that reads nothing would hold up its own bytes to the peer, and two sides that both
//! write much before they read would deadlock. So a write into a tunnel never blocks. What the other side does
//! not take yet is buffered, and above the watermark the sender is not read from.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

/// Buffered bytes above which the sender is not read from; one read more may be on its way by then.
const HIGH_WATERMARK: usize = 64 * 1024;

/// One direction of a tunnel. One task works on both ends, so the flag only carries a value between them.
#[derive(Debug, Default)]
pub(super) struct Watermark {
    is_above: AtomicBool,
    /// The paused reader of the sender.
    reader_waker: Mutex<Option<Waker>>,
}

impl Watermark {
    /// Sets the number of bytes that wait for the receiver.
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

    /// Ready while the sender may be read from.
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
