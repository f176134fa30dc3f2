//! What is to be done from time to time as long as a request goes on, by the exchange's own timer, and once
//! when it is over.

use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;

use super::exchange::{Exchange, NEVER, after, now};

/// What is to be done.
pub trait Pulse: Debug + Send {
    /// Does it; the time to the next; `None`: it need not be done again.
    fn beat(&mut self) -> Option<Duration>;
}

/// The pulse of an exchange, while there is one.
#[derive(Debug)]
pub(super) struct Heart {
    pulse: Mutex<Option<Box<dyn Pulse>>>,
    /// In nanoseconds of [`crate::clock::since_start`].
    next: AtomicU64,
}

impl Default for Heart {
    fn default() -> Self {
        Self {
            pulse: Mutex::new(None),
            next: AtomicU64::new(NEVER),
        }
    }
}

impl Exchange {
    /// From now on, first after that time, instead of what was to be done until now.
    pub fn begin_pulse(&self, pulse: Box<dyn Pulse>, first: Duration) {
        *self.heart.pulse.lock() = Some(pulse);
        self.heart.next.store(after(first), Relaxed);
    }

    /// Not any more: it is another's turn, or nobody's.
    pub fn end_pulse(&self) {
        if self.heart.next.swap(NEVER, Relaxed) != NEVER {
            *self.heart.pulse.lock() = None;
        }
    }

    /// The request is over: for the last time.
    pub fn last_beat(&self) {
        if self.heart.next.swap(NEVER, Relaxed) != NEVER
            && let Some(mut pulse) = self.heart.pulse.lock().take()
        {
            pulse.beat();
        }
    }

    pub(super) fn next_beat(&self) -> u64 {
        self.heart.next.load(Relaxed)
    }

    /// Does it, if it is time.
    pub(super) fn beat(&self) {
        if self.next_beat() > now() {
            return;
        }
        let mut pulse = self.heart.pulse.lock();
        let next = pulse.as_mut().and_then(|pulse| pulse.beat());
        self.heart.next.store(next.map_or(NEVER, after), Relaxed);
        if next.is_none() {
            *pulse = None;
        }
    }
}
