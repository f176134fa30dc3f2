//! Counts the interim responses (1xx) that the client's stream has taken.
//!
//! Pingora 0.9.1 passes a response on through a channel. An error in a body goes through the channel, too, but an error
//! of a header ends the exchange at once (`proxy_custom.rs`, `custom_pipe_up_to_down_response`), and so it overtakes the interim
//! responses that are still in the channel. So the reader keeps such an error until the client's stream has taken them. Without
//! this, `103 Early Hints` that a failure follows at once would be lost.
//!
//! It can be removed when an error of a header goes through the channel: README.md, request 10.

use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

/// The interim responses to the requests of one exchange.
#[derive(Debug, Default)]
pub(crate) struct InterimResponses(Mutex<InterimCount>);

#[derive(Debug, Default)]
struct InterimCount {
    /// Those that the client's stream has taken.
    taken: u64,
    /// Wakes the reader of the peer's response.
    reader: Option<Waker>,
}

impl InterimResponses {
    /// The number of interim responses that the client's stream has taken.
    pub(crate) fn taken(&self) -> u64 {
        self.0.lock().taken
    }

    /// Counts an interim response that the client's stream has taken, even if this client gets none.
    pub(crate) fn on_taken(&self) {
        let mut count = self.0.lock();
        count.taken += 1;
        if let Some(reader) = count.reader.take() {
            reader.wake();
        }
    }

    /// Ready when the client's stream has taken `number` interim responses.
    pub(crate) fn poll_taken(&self, number: u64, cx: &mut Context<'_>) -> Poll<()> {
        let mut count = self.0.lock();
        if count.taken >= number {
            return Poll::Ready(());
        }
        count.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn reader_waits_until_the_last_interim_response_is_taken() {
        let interim = InterimResponses::default();
        interim.on_taken();
        let due = interim.taken() + 2;
        interim.on_taken();
        let mut idle = Context::from_waker(Waker::noop());
        assert!(interim.poll_taken(due, &mut idle).is_pending());
        tokio::join!(poll_fn(|cx| interim.poll_taken(due, cx)), async {
            interim.on_taken();
        });
    }
}
