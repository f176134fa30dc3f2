//! When an exchange waits for the bodies of its client: what the carriers report for `min_body_rate`.

use super::exchange::Exchange;
use crate::clock;

impl Exchange {
    /// A read of the request is blocked: the client is waited for, if its body is due.
    pub(super) fn on_read_blocked(&self) {
        let rates = &self.deadlines.rates;
        if rates.is_running()
            && !rates.request.is_waiting()
            // If the peer takes no more of the body, nothing of it is waited for.
            && !self.body_queue.is_stopped()
            && (self.is_http2_stream || self.body_is_incomplete())
        {
            rates.begin_request_wait(clock::since_start());
        }
    }

    /// The client is not waited for: bytes have come, or the body is not read now.
    pub(crate) fn end_body_wait(&self) {
        let request = &self.deadlines.rates.request;
        if request.is_waiting() {
            request.end_wait(clock::since_start());
        }
    }

    /// The client sends its body after `100 Continue`.
    pub(crate) fn hold_body_wait(&self) {
        self.deadlines.rates.hold_request();
    }

    /// The client has its `100 Continue`: from now on it is waited for.
    pub(crate) fn release_body_wait(&self) {
        let rates = &self.deadlines.rates;
        if rates.release_request() && self.body_is_incomplete() {
            rates.begin_request_wait(clock::since_start());
        }
    }

    /// `total` bytes of the request's body have arrived. The client may send them without `100 Continue`.
    pub(crate) fn on_body_bytes(&self, total: u64) {
        self.deadlines.rates.release_request();
        self.deadlines.rates.request.reach(total);
    }

    /// The client has taken `count` more bytes of the response.
    pub(super) fn on_response_bytes(&self, count: usize) {
        self.deadlines.rates.response.add(count);
    }

    /// Neither body has a least rate: both directions may be silent for long, or the response is our own.
    pub(crate) fn lift_min_body_rate(&self) {
        self.deadlines.rates.stop();
    }

    /// Counts a stream's part of what passed on its connection as its own, if that is more: streams that share a slow
    /// connection wait for each other.
    pub(super) fn credit_shares(&self) {
        if self.is_http2_stream {
            let (received, sent) = self.connection.stream_share.since(self.share_at_start);
            self.deadlines.rates.request.reach(received);
            self.deadlines.rates.response.reach(sent);
        }
    }
}
