//! How much of a request was received, and whether its response has begun.
//!
//! On HTTP/1, requests follow each other in one byte stream, so a request is a range of that stream. `bytes_in`
//! is the number of bytes received on the connection so far.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// A length that is not known in advance, such as that of a chunked body.
const UNKNOWN_LENGTH: u64 = u64::MAX;

/// The bytes of one request, and the start of its response.
///
/// Only the task of the exchange uses it; the atomics carry values between that task's layers, as those of
/// [`Deadlines`](super::deadlines::Deadlines) do.
#[derive(Debug)]
pub(super) struct RequestProgress {
    /// The offset of the request's first byte on the connection.
    offset: AtomicU64,
    /// The length of header and body; bytes.
    length: AtomicU64,
    body_complete: AtomicBool,
    response_begun: AtomicBool,
    response_complete: AtomicBool,
}

impl RequestProgress {
    pub(super) fn new() -> Self {
        Self {
            offset: AtomicU64::new(0),
            length: AtomicU64::new(UNKNOWN_LENGTH),
            body_complete: AtomicBool::new(false),
            response_begun: AtomicBool::new(false),
            response_complete: AtomicBool::new(false),
        }
    }

    pub(super) fn set_length(&self, bytes: u64) {
        self.length.store(bytes, Relaxed);
    }

    pub(super) fn mark_body_complete(&self) {
        self.body_complete.store(true, Relaxed);
    }

    pub(super) fn begin_response(&self) {
        self.response_begun.store(true, Relaxed);
    }

    pub(super) fn response_begun(&self) -> bool {
        self.response_begun.load(Relaxed)
    }

    pub(super) fn complete_response(&self) {
        self.response_complete.store(true, Relaxed);
    }

    pub(super) fn response_complete(&self) -> bool {
        self.response_complete.load(Relaxed)
    }

    /// Bytes received of this request and, with pipelining, of the requests after it.
    pub(super) fn received(&self, bytes_in: u64) -> u64 {
        bytes_in.saturating_sub(self.offset.load(Relaxed))
    }

    pub(super) fn is_body_incomplete(&self, bytes_in: u64) -> bool {
        match self.length.load(Relaxed) {
            UNKNOWN_LENGTH => !self.body_complete.load(Relaxed),
            length => self.received(bytes_in) < length,
        }
    }

    /// Moves on to the next request. True: a part of it has arrived already (pipelining).
    pub(super) fn begin_next(&self, bytes_in: u64) -> bool {
        let end = match self.length.load(Relaxed) {
            UNKNOWN_LENGTH => bytes_in,
            length => (self.offset.load(Relaxed).saturating_add(length)).min(bytes_in),
        };
        self.offset.store(end, Relaxed);
        self.length.store(UNKNOWN_LENGTH, Relaxed);
        self.body_complete.store(false, Relaxed);
        self.response_begun.store(false, Relaxed);
        self.response_complete.store(false, Relaxed);
        end < bytes_in
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_after_a_request_belong_to_the_next_one() {
        let request = RequestProgress::new();
        request.set_length(70);
        assert!(request.begin_next(100));
        assert_eq!(request.received(100), 30);
        request.set_length(50);
        assert!(!request.begin_next(120));
        assert_eq!(request.received(120), 0);
    }

    #[test]
    fn body_of_known_length_is_complete_with_its_last_byte() {
        let request = RequestProgress::new();
        request.set_length(101);
        assert!(request.is_body_incomplete(100));
        assert!(!request.is_body_incomplete(101));
    }

    #[test]
    fn body_of_unknown_length_is_complete_once_it_is_marked() {
        let request = RequestProgress::new();
        assert!(request.is_body_incomplete(100));
        request.mark_body_complete();
        assert!(!request.is_body_incomplete(100));
        request.begin_next(100);
        assert!(request.is_body_incomplete(200));
    }
}
