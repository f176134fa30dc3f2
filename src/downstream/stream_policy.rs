//! Whether a long stream may stay: asked from time to time by the exchange's own timer, so nobody
//! else has to know of the stream. Exchanges that are none pay nothing.

use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;

use super::exchange::{Exchange, NEVER, deadline_after, now_nanos};
use super::phase::AbortReason;
use super::stream_boundary::{BoundaryScanner, StreamKind};

/// How long a stream that is to end has for coming to a place where it can, until it is asked again.
const BOUNDARY_TIMEOUT: Duration = Duration::from_secs(10);

/// What decides whether a stream may stay.
pub trait StreamPolicy: Debug + Send {
    /// Looks now.
    fn check(&mut self) -> StreamVerdict;
}

/// What came of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamVerdict {
    /// The stream may stay at least until the next look, so long from now.
    RecheckAfter(Duration),
    /// The stream is to end where it can, for this reason.
    Close(AbortReason),
}

/// What an exchange knows of its stream's stay.
#[derive(Debug)]
pub(super) struct StreamPolicyState {
    policy: Mutex<Option<Box<dyn StreamPolicy>>>,
    /// When to look, in nanoseconds of [`crate::clock::since_start`].
    next_check: AtomicU64,
    is_closing: AtomicBool,
    graceful_close: Mutex<GracefulClose>,
}

/// How far the stream has come, for the places where it can be ended.
#[derive(Debug, Default)]
struct GracefulClose {
    /// `None`: nobody wants to know.
    scanner: Option<Box<BoundaryScanner>>,
    /// Why the stream is to end at the next place where it can; `None`: it is not.
    reason: Option<AbortReason>,
}

impl Default for StreamPolicyState {
    fn default() -> Self {
        Self {
            policy: Mutex::new(None),
            next_check: AtomicU64::new(NEVER),
            is_closing: AtomicBool::new(false),
            graceful_close: Mutex::default(),
        }
    }
}

impl Exchange {
    /// A stream begins with the header that is about to be written; `tenure` is asked after `first`.
    pub fn begin_stream_policy(
        &self,
        kind: StreamKind,
        tenure: Box<dyn StreamPolicy>,
        first: Duration,
    ) {
        let ending = if self.is_http2_stream() {
            BoundaryScanner::for_http2(kind)
        } else {
            BoundaryScanner::new(kind)
        };
        *self.stream_policy.graceful_close.lock() = GracefulClose {
            scanner: Some(Box::new(ending)),
            reason: None,
        };
        self.extend_tunnel_deadline(BOUNDARY_TIMEOUT);
        *self.stream_policy.policy.lock() = Some(tenure);
        self.stream_policy
            .next_check
            .store(deadline_after(first), Relaxed);
    }

    /// The stream is over.
    pub(super) fn end_stream_policy(&self) {
        if self.stream_policy.next_check.swap(NEVER, Relaxed) != NEVER {
            *self.stream_policy.policy.lock() = None;
            self.stream_policy.is_closing.store(false, Relaxed);
            *self.stream_policy.graceful_close.lock() = GracefulClose::default();
        }
    }

    pub(super) fn next_policy_check(&self) -> u64 {
        self.stream_policy.next_check.load(Relaxed)
    }

    /// Looks, if it is time.
    pub(super) fn check_stream_policy(&self) {
        if self.next_policy_check() > now_nanos() {
            return;
        }
        let look = self
            .stream_policy
            .policy
            .lock()
            .as_mut()
            .map(|tenure| tenure.check());
        let (leaving, next) = match look {
            None => (None, NEVER),
            Some(StreamVerdict::RecheckAfter(wait)) => (None, deadline_after(wait)),
            Some(StreamVerdict::Close(cause)) => (Some(cause), deadline_after(BOUNDARY_TIMEOUT)),
        };
        self.stream_policy.next_check.store(next, Relaxed);
        let mut course = self.stream_policy.graceful_close.lock();
        course.set_reason(leaving);
        self.stream_policy
            .is_closing
            .store(course.reason.is_some(), Relaxed);
    }

    /// Ends the stream that is to end, once it is where it can, and the client has all of it.
    pub(super) fn close_at_boundary(&self) {
        if !self.stream_policy.is_closing.load(Relaxed) {
            return;
        }
        let end = self
            .stream_policy
            .graceful_close
            .lock()
            .reason_at_boundary();
        // What a stream among others has written is on its way, whoever else waits there.
        if let Some(cause) = end
            && (self.is_http2_stream() || self.connection.socket.lock().is_flushed())
        {
            self.abort(cause);
        }
    }

    /// How many of these bytes may pass; `None`: none, the stream ends here.
    pub(super) fn sendable_len(&self, bytes: &[u8]) -> Option<usize> {
        if self.next_policy_check() == NEVER {
            return Some(bytes.len());
        }
        let course = self.stream_policy.graceful_close.lock();
        match &course.scanner {
            Some(_) if course.reason_at_boundary().is_some() => None,
            Some(ending) if course.reason.is_some() => Some(ending.len_to_boundary(bytes)),
            _ => Some(bytes.len()),
        }
    }

    /// These bytes passed.
    pub(super) fn on_bytes_sent(&self, bytes: &[u8]) {
        if self.next_policy_check() == NEVER {
            return;
        }
        if let Some(ending) = &mut self.stream_policy.graceful_close.lock().scanner {
            ending.feed(bytes);
        }
    }

    /// What tells the client that its stream is over; nothing, where it has to end in the middle.
    pub(super) fn stream_end_marker(&self) -> &'static [u8] {
        let course = self.stream_policy.graceful_close.lock();
        let ending = course
            .scanner
            .as_ref()
            .filter(|_| course.reason_at_boundary().is_some());
        ending.map_or(b"", |ending| ending.end_marker())
    }
}

impl GracefulClose {
    /// Whether the stream is to end, and why. One that has come to a place where it can is not let go on:
    /// nobody would wake the session.
    fn set_reason(&mut self, leaving: Option<AbortReason>) {
        self.reason = leaving.or(self.reason_at_boundary());
    }

    /// Why the stream ends here, if it does.
    fn reason_at_boundary(&self) -> Option<AbortReason> {
        let can_end = self
            .scanner
            .as_deref()
            .is_some_and(BoundaryScanner::is_at_boundary);
        self.reason.filter(|_| can_end)
    }
}
