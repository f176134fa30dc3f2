//! Ends a long stream between two messages, so that the client knows that it has received a complete stream.
//!
//! A [`ScheduledTask`] decides when: the stream has lasted for too long, or its key has moved to another peer.
//! From then on bytes are relayed only up to the next boundary; there the exchange is aborted, and the client gets
//! the stream's end marker. A stream without such a task costs one load per write.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;

use super::phase::AbortReason;
use super::scheduled_task::{ScheduledTask, TaskOutcome, TaskSlot};
use super::stream_boundary::BoundaryScanner;

/// Closes the stream of an exchange when its task asks for it.
#[derive(Debug, Default)]
pub(super) struct GracefulClose {
    task: TaskSlot,
    /// Whether `progress.reason` is set; saves the lock in every poll.
    is_closing: AtomicBool,
    progress: Mutex<StreamProgress>,
}

/// The position in the stream, and whether the stream shall end.
#[derive(Debug, Default)]
struct StreamProgress {
    /// Boxed, because few exchanges carry a stream.
    scanner: Option<Box<BoundaryScanner>>,
    /// Why the stream shall end at its next boundary; `None`: it continues.
    reason: Option<AbortReason>,
}

impl GracefulClose {
    /// Tracks a stream from its first byte on; `task` first runs at `first_run`.
    pub(super) fn start(
        &self,
        scanner: BoundaryScanner,
        task: Box<dyn ScheduledTask>,
        first_run: Duration,
    ) {
        *self.progress.lock() = StreamProgress {
            scanner: Some(Box::new(scanner)),
            reason: None,
        };
        self.task.start(task, first_run);
    }

    /// Clears the state after the stream has ended.
    pub(super) fn reset(&self) {
        if !self.task.is_empty() {
            self.task.cancel();
            self.is_closing.store(false, Relaxed);
            *self.progress.lock() = StreamProgress::default();
        }
    }

    pub(super) fn next_run(&self) -> u64 {
        self.task.next_run()
    }

    /// Runs the task if it is due, and stores its decision.
    pub(super) fn run_if_due(&self, now: Duration) {
        let Some(outcome) = self.task.run_if_due(now) else {
            return;
        };
        let reason = match outcome {
            TaskOutcome::CloseStream(reason) => Some(reason),
            TaskOutcome::RunAgain(_) | TaskOutcome::Done => None,
        };
        let mut progress = self.progress.lock();
        // A stream that has stopped at a boundary must end: nothing would wake its session.
        progress.reason = reason.or(progress.reason_at_boundary());
        self.is_closing.store(progress.reason.is_some(), Relaxed);
    }

    /// The reason to end the stream now, if it shall end and is at a boundary.
    pub(super) fn reason_at_boundary(&self) -> Option<AbortReason> {
        if !self.is_closing.load(Relaxed) {
            return None;
        }
        self.progress.lock().reason_at_boundary()
    }

    /// How many of these bytes may be sent; `None`: the stream ends before them.
    pub(super) fn sendable_len(&self, bytes: &[u8]) -> Option<usize> {
        if self.task.is_empty() {
            return Some(bytes.len());
        }
        let progress = self.progress.lock();
        match &progress.scanner {
            Some(_) if progress.reason_at_boundary().is_some() => None,
            Some(scanner) if progress.reason.is_some() => Some(scanner.len_to_boundary(bytes)),
            _ => Some(bytes.len()),
        }
    }

    pub(super) fn on_bytes_sent(&self, bytes: &[u8]) {
        if self.task.is_empty() {
            return;
        }
        if let Some(scanner) = &mut self.progress.lock().scanner {
            scanner.feed(bytes);
        }
    }

    /// The bytes that tell the client that the stream has ended; empty in the middle of a message.
    pub(super) fn end_marker(&self) -> &'static [u8] {
        let progress = self.progress.lock();
        match &progress.scanner {
            Some(scanner) if progress.reason_at_boundary().is_some() => scanner.end_marker(),
            _ => b"",
        }
    }
}

impl StreamProgress {
    fn reason_at_boundary(&self) -> Option<AbortReason> {
        let scanner = self.scanner.as_deref();
        let is_at_boundary = scanner.is_some_and(BoundaryScanner::is_at_boundary);
        self.reason.filter(|_| is_at_boundary)
    }
}
