//! Periodic work while a request is in progress, run by the exchange's own timer.
//!
//! A slot without a task costs one load per poll. Only the task of the exchange uses a slot; it has an atomic and a
//! lock because Pingora's traits require `Send + Sync`.

use std::fmt::Debug;
use std::time::Duration;

use parking_lot::Mutex;

use super::phase::AbortReason;
use super::time_cell::{NEVER, TimeCell, nanos};

/// The time in which a stream that shall close must reach a boundary; after that, its task runs again.
pub(super) const BOUNDARY_TIMEOUT: Duration = Duration::from_secs(10);

/// Periodic work. `now` is the time of [`clock::since_start`](crate::clock::since_start).
pub(crate) trait ScheduledTask: Debug + Send {
    /// Runs once; returns what follows.
    fn run(&mut self, now: Duration) -> TaskOutcome;
}

/// The next step after a run of the task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TaskOutcome {
    /// Another run, after this time.
    RunAgain(Duration),
    /// No further run.
    Done,
    /// Close the stream at its next boundary. Only for tasks of
    /// [`Exchange::close_stream_by`](super::Exchange::close_stream_by); other tasks just run again.
    CloseStream(AbortReason),
}

/// One task and the time of its next run.
#[derive(Debug)]
pub(crate) struct TaskSlot {
    task: Mutex<Option<Box<dyn ScheduledTask>>>,
    /// Nanoseconds; [`NEVER`]: the slot is empty.
    next_run: TimeCell,
}

impl Default for TaskSlot {
    fn default() -> Self {
        Self {
            task: Mutex::new(None),
            next_run: TimeCell::never(),
        }
    }
}

impl TaskSlot {
    /// Sets the task, and replaces a previous one; the first run is due at `first_run`.
    pub(crate) fn start(&self, task: Box<dyn ScheduledTask>, first_run: Duration) {
        *self.task.lock() = Some(task);
        self.next_run.set(nanos(first_run));
    }

    /// Removes the task, if there is one, without running it.
    pub(crate) fn cancel(&self) {
        self.take();
    }

    /// Removes the task, if there is one, and runs it a last time.
    pub(crate) fn finish(&self, now: impl FnOnce() -> Duration) {
        if let Some(mut task) = self.take() {
            task.run(now());
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.next_run.get() == NEVER
    }

    pub(super) fn next_run(&self) -> u64 {
        self.next_run.get()
    }

    /// Runs the task if it is due.
    pub(super) fn run_if_due(&self, now: Duration) -> Option<TaskOutcome> {
        if self.next_run.get() > nanos(now) {
            return None;
        }
        let mut slot = self.task.lock();
        let outcome = slot.as_mut()?.run(now);
        let wait = match outcome {
            TaskOutcome::RunAgain(wait) => Some(wait),
            TaskOutcome::CloseStream(_) => Some(BOUNDARY_TIMEOUT),
            TaskOutcome::Done => None,
        };
        let next = wait.map_or(NEVER, |wait| nanos(now.saturating_add(wait)));
        self.next_run.set(next);
        if wait.is_none() {
            *slot = None;
        }
        Some(outcome)
    }

    /// Empties the slot. Takes the lock only if there is a task.
    fn take(&self) -> Option<Box<dyn ScheduledTask>> {
        if self.is_empty() {
            return None;
        }
        self.next_run.set(NEVER);
        self.task.lock().take()
    }
}
