//! The two directions of a tunnel: neither waits for the other.
//!
//! Pingora hands what it has read to the other side before it reads on, and one task does that both ways: a
//! client that takes nothing would keep its own bytes from the peer, and two sides that both say much
//! before they listen would wait for each other. So in a tunnel a write is always taken; what the other
//! side does not take yet waits here, and who sent it is not read from until that is little again.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

/// So much may wait before its sender is held back; bytes. Some more is on its way by then.
const HIGH_WATERMARK: usize = 64 * 1024;

/// One direction. Both its ends are in one task, so the flag only carries a value between them.
#[derive(Debug, Default)]
pub(super) struct Watermark {
    is_above: AtomicBool,
    /// The reader that is held back.
    reader_waker: Mutex<Option<Waker>>,
}

impl Watermark {
    /// So much waits for whom it is meant for.
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

    /// Whether more may be read from whom it comes from.
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
        let flow = Watermark::default();
        poll_fn(|cx| {
            flow.set_buffered(HIGH_WATERMARK);
            assert!(flow.poll_below(cx).is_ready());
            flow.set_buffered(HIGH_WATERMARK + 1);
            assert!(flow.poll_below(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        tokio::join!(poll_fn(|cx| flow.poll_below(cx)), async {
            flow.set_buffered(0)
        });
    }
}
