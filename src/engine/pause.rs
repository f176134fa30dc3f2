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
    /// The side pauses. Ready once it has for `limit`.
    pub(super) fn poll_paused(&mut self, cx: &mut Context<'_>, limit: Duration) -> Poll<()> {
        let timer = self.0.get_or_insert_with(|| Box::pin(sleep(limit)));
        timer.as_mut().poll(cx)
    }

    /// The side goes on.
    pub(super) fn reset(&mut self) {
        self.0 = None;
    }
}
