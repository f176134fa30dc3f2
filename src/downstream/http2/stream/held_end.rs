//! Holds back the last part of a successful response until the rest of a short upload was read and dropped.
//!
//! A peer may answer before it has the whole request (RFC 9113 §8.1). Once libcurl 7.88 (Debian 12) has a whole response, by
//! its length too, it reads nothing more of its transfer, not even window updates. After a 2xx it goes on to send its upload:
//! one that is larger than the window then waits for ever. While a part of the response is due, it reads. After other statuses
//! it stops sending.

use std::time::Duration;

use pingora::protocols::http::HttpTask;
use tokio::time::timeout;

use super::super::super::close::LINGERING_CLOSE;
use super::super::early_end::LINGER;
use super::Http2Stream;

/// The longest time for which the last part is held back, and the most bytes that are read meanwhile. A client that sends
/// nothing for [`LINGER`] gets it earlier.
const MAX_HOLD: (Duration, usize) = LINGERING_CLOSE;

impl Http2Stream {
    /// Waits until the rest of the request was read, within [`MAX_HOLD`], if `task` ends a response that has to wait for it.
    pub(super) async fn wait_for_short_rest(&mut self, task: &HttpTask) {
        let is_due = self.ends_successfully(task) && self.has_short_rest();
        if !is_due || self.body.is_dropped {
            return;
        }
        self.body.is_dropped = true;
        // The client is waited for, not the peer, which has answered.
        self.exchange.on_write_blocked();
        // An error shows in the write that follows.
        let body = &mut self.body;
        let rest = async { while let Ok(Some(_)) = body.read_with_timeout(Some(LINGER)).await {} };
        let _ = timeout(MAX_HOLD.0, rest).await;
        self.exchange.on_write_progress();
    }

    fn ends_successfully(&self, task: &HttpTask) -> bool {
        let is_end = task.is_end() && !matches!(task, HttpTask::Failed(_));
        let header = match task {
            HttpTask::Header(header, _) => Some(header),
            _ => self.response.as_ref().map(|(header, _)| header),
        };
        is_end && header.is_some_and(|header| header.status.is_success())
    }

    /// Whether the client is sending a body of known length, and little of it is left, but some. Streams in both directions
    /// have no such length, and their clients may wait for the end of the response.
    fn has_short_rest(&self) -> bool {
        let rest = self.body.rest_length();
        !self.body.complete && rest.is_some_and(|rest| (1..=MAX_HOLD.1).contains(&rest))
    }
}
