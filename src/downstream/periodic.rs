//! What is to be done from time to time as long as a request goes on, by the exchange's own timer, and once
//! when it is over.

use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;

use super::exchange::{Exchange, NEVER, deadline_after, now_nanos};

/// What is to be done.
pub trait PeriodicTask: Debug + Send {
    /// Does it; the time to the next; `None`: it need not be done again.
    fn run(&mut self) -> Option<Duration>;
}

/// The pulse of an exchange, while there is one.
#[derive(Debug)]
pub(super) struct PeriodicTimer {
    task: Mutex<Option<Box<dyn PeriodicTask>>>,
    /// In nanoseconds of [`crate::clock::since_start`].
    next_run: AtomicU64,
}

impl Default for PeriodicTimer {
    fn default() -> Self {
        Self {
            task: Mutex::new(None),
            next_run: AtomicU64::new(NEVER),
        }
    }
}

impl Exchange {
    /// From now on, first after that time, instead of what was to be done until now.
    pub fn start_periodic(&self, pulse: Box<dyn PeriodicTask>, first: Duration) {
        *self.periodic.task.lock() = Some(pulse);
        self.periodic.next_run.store(deadline_after(first), Relaxed);
    }

    /// Not any more: it is another's turn, or nobody's.
    pub fn stop_periodic(&self) {
        if self.periodic.next_run.swap(NEVER, Relaxed) != NEVER {
            *self.periodic.task.lock() = None;
        }
    }

    /// The request is over: for the last time.
    pub fn finish_periodic(&self) {
        if self.periodic.next_run.swap(NEVER, Relaxed) != NEVER
            && let Some(mut pulse) = self.periodic.task.lock().take()
        {
            pulse.run();
        }
    }

    pub(super) fn next_periodic(&self) -> u64 {
        self.periodic.next_run.load(Relaxed)
    }

    /// Does it, if it is time.
    pub(super) fn run_periodic(&self) {
        if self.next_periodic() > now_nanos() {
            return;
        }
        let mut pulse = self.periodic.task.lock();
        let next = pulse.as_mut().and_then(|pulse| pulse.run());
        self.periodic
            .next_run
            .store(next.map_or(NEVER, deadline_after), Relaxed);
        if next.is_none() {
            *pulse = None;
        }
    }
}
