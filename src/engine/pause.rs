//! The limit on one pause: how long one side may let the other wait.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Sleep, sleep};

/// Measures a pause. Without one it costs nothing: the timer is made when the pause begins.
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
