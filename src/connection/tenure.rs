//! Whether a long stream may stay: asked from time to time by the exchange's own timer, so nobody
//! else has to know of the stream. Exchanges that are none pay nothing.

use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;

use super::ending::{Ending, Kind};
use super::exchange::{Exchange, NEVER, after, now};
use super::phase::Cause;

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
    /// The stream is to end where it can, for this reason.
    End(Cause),
}

/// What an exchange knows of its stream's stay.
#[derive(Debug)]
pub(super) struct Stay {
    tenure: Mutex<Option<Box<dyn Tenure>>>,
    /// When to look, in nanoseconds of [`crate::clock::since_start`].
    next_look: AtomicU64,
    leaving: AtomicBool,
    course: Mutex<Course>,
}

/// How far the stream has come, for the places where it can be ended.
#[derive(Debug, Default)]
struct Course {
    /// `None`: nobody wants to know.
    ending: Option<Box<Ending>>,
    /// Why the stream is to end at the next place where it can; `None`: it is not.
    leaving: Option<Cause>,
}

impl Default for Stay {
    fn default() -> Self {
        Self {
            tenure: Mutex::new(None),
            next_look: AtomicU64::new(NEVER),
            leaving: AtomicBool::new(false),
            course: Mutex::default(),
        }
    }
}

impl Exchange {
    /// A stream begins with the header that is about to be written; `tenure` is asked after `first`.
    pub fn begin_stay(&self, kind: Kind, tenure: Box<dyn Tenure>, first: Duration) {
        let ending = if self.is_stream() {
            Ending::of_body(kind)
        } else {
            Ending::new(kind)
        };
        *self.stay.course.lock() = Course {
            ending: Some(Box::new(ending)),
            leaving: None,
        };
        self.grant(PATIENCE);
        *self.stay.tenure.lock() = Some(tenure);
        self.stay.next_look.store(after(first), Relaxed);
    }

    /// The stream is over.
    pub(super) fn end_stay(&self) {
        if self.stay.next_look.swap(NEVER, Relaxed) != NEVER {
            *self.stay.tenure.lock() = None;
            self.stay.leaving.store(false, Relaxed);
            *self.stay.course.lock() = Course::default();
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
            None => (None, NEVER),
            Some(Look::Again(wait)) => (None, after(wait)),
            Some(Look::End(cause)) => (Some(cause), after(PATIENCE)),
        };
        self.stay.next_look.store(next, Relaxed);
        let mut course = self.stay.course.lock();
        course.set_leaving(leaving);
        self.stay.leaving.store(course.leaving.is_some(), Relaxed);
    }

    /// Ends the stream that is to end, once it is where it can, and the client has all of it.
    pub(super) fn leave_if_it_can(&self) {
        if !self.stay.leaving.load(Relaxed) {
            return;
        }
        let end = self.stay.course.lock().end();
        // What a stream among others has written is on its way, whoever else waits there.
        if let Some(cause) = end
            && (self.is_stream() || self.connection.wire.lock().is_empty())
        {
            self.expire(cause);
        }
    }

    /// How many of these bytes may pass; `None`: none, the stream ends here.
    pub(super) fn room(&self, bytes: &[u8]) -> Option<usize> {
        if self.next_look() == NEVER {
            return Some(bytes.len());
        }
        let course = self.stay.course.lock();
        match &course.ending {
            Some(_) if course.end().is_some() => None,
            Some(ending) if course.leaving.is_some() => Some(ending.room(bytes)),
            _ => Some(bytes.len()),
        }
    }

    /// These bytes passed.
    pub(super) fn passed(&self, bytes: &[u8]) {
        if self.next_look() == NEVER {
            return;
        }
        if let Some(ending) = &mut self.stay.course.lock().ending {
            ending.feed(bytes);
        }
    }

    /// What tells the client that its stream is over; nothing, where it has to end in the middle.
    pub(super) fn last_words(&self) -> &'static [u8] {
        let course = self.stay.course.lock();
        let ending = course.ending.as_ref().filter(|_| course.end().is_some());
        ending.map_or(b"", |ending| ending.last_words())
    }
}

impl Course {
    /// Whether the stream is to end, and why. One that has come to a place where it can is not let go on:
    /// nobody would wake the session.
    fn set_leaving(&mut self, leaving: Option<Cause>) {
        self.leaving = leaving.or(self.end());
    }

    /// Why the stream ends here, if it does.
    fn end(&self) -> Option<Cause> {
        let can_end = self.ending.as_deref().is_some_and(Ending::can_end);
        self.leaving.filter(|_| can_end)
    }
}
