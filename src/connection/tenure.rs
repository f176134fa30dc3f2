//! Whether a long stream may stay: asked from time to time by the connection's own timer, so nobody
//! else has to know of the stream. Connections that carry none pay nothing.

use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;

use super::ending::Kind;
use super::{Cause, Connection, NEVER, after, now};

/// How long a stream that is to end has for coming to a place where it can, until it is asked again.
const PATIENCE: Duration = Duration::from_secs(10);

/// What decides whether a stream may stay.
pub trait Tenure: Debug + Send {
    /// Looks now.
    fn look(&mut self) -> Look;
}

/// What came of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// The stream may stay at least until the next look, so long from now.
    Again(Duration),
    /// The stream is to end where it can.
    End,
}

/// What a connection knows of its stream's stay.
#[derive(Debug)]
pub(super) struct Stay {
    tenure: Mutex<Option<Box<dyn Tenure>>>,
    /// When to look, in nanoseconds of [`crate::clock::since_start`].
    next_look: AtomicU64,
    leaving: AtomicBool,
}

impl Default for Stay {
    fn default() -> Self {
        Self {
            tenure: Mutex::new(None),
            next_look: AtomicU64::new(NEVER),
            leaving: AtomicBool::new(false),
        }
    }
}

impl Connection {
    /// A stream begins with the header that is about to be written; `tenure` is asked after `first`.
    pub fn begin_stay(&self, kind: Kind, tenure: Box<dyn Tenure>, first: Duration) {
        self.wire.lock().follow(Some(kind));
        *self.stay.tenure.lock() = Some(tenure);
        self.stay.next_look.store(after(first), Relaxed);
    }

    /// The stream is over.
    pub(super) fn end_stay(&self) {
        if self.stay.next_look.swap(NEVER, Relaxed) != NEVER {
            *self.stay.tenure.lock() = None;
            self.stay.leaving.store(false, Relaxed);
            self.wire.lock().follow(None);
        }
    }

    pub(super) fn next_look(&self) -> u64 {
        self.stay.next_look.load(Relaxed)
    }

    /// Looks, if it is time.
    pub(super) fn look(&self) {
        if self.next_look() > now() {
            return;
        }
        let look = self.stay.tenure.lock().as_mut().map(|tenure| tenure.look());
        let (leaving, next) = match look {
            None => (false, NEVER),
            Some(Look::Again(wait)) => (false, after(wait)),
            Some(Look::End) => (true, after(PATIENCE)),
        };
        self.stay.next_look.store(next, Relaxed);
        let mut wire = self.wire.lock();
        wire.set_leaving(leaving);
        self.stay.leaving.store(wire.is_leaving(), Relaxed);
    }

    /// Ends the stream that is to end, once it is where it can.
    pub(super) fn leave_if_it_can(&self) {
        if self.stay.leaving.load(Relaxed) && self.wire.lock().has_left() {
            self.expire(Cause::Moved);
        }
    }
}
