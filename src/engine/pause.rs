//! The limit on one pause: the time in which a client may send nothing, or a peer may accept nothing.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Sleep, sleep};

/// Measures a pause. The timer is created when the pause begins, so a transfer without pauses needs none.
#[derive(Debug, Default)]
pub(super) struct PauseTimer(Option<Pin<Box<Sleep>>>);

impl PauseTimer {
    /// Begins a pause of the side, if none has begun. Ready when the pause has lasted `limit`.
    pub(super) fn poll_paused(&mut self, cx: &mut Context<'_>, limit: Duration) -> Poll<()> {
        let timer = self.0.get_or_insert_with(|| Box::pin(sleep(limit)));
        timer.as_mut().poll(cx)
    }

    /// Ends the pause: the side has sent or taken bytes again.
    pub(super) fn reset(&mut self) {
        self.0 = None;
    }
}
