//! `min_body_rate` of one exchange: the meters of its two bodies.
//!
//! Reads no clock, and keeps its values in cells, as [`Deadlines`](super::deadlines::Deadlines) does, which it gives two
//! more deadlines. Of a request's body it measures the time in which a read waits for the client; of a response, that in
//! which a write waits for the client.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::time_cell::{NEVER, TimeCell, nanos};
use crate::policy::min_rate::{MinRate, RateMeter};

/// The meters of one exchange; stopped until a request begins.
#[derive(Debug)]
pub(super) struct BodyRates {
    /// `None`: `off`.
    least: Option<MinRate>,
    is_running: AtomicBool,
    /// The client sends its body after `100 Continue`: until then it is not waited for.
    is_held: AtomicBool,
    pub(super) request: MeterCell,
    pub(super) response: MeterCell,
}

impl BodyRates {
    pub(super) fn new(least: Option<MinRate>) -> Self {
        Self {
            least,
            is_running: AtomicBool::new(false),
            is_held: AtomicBool::new(false),
            request: MeterCell::new(),
            response: MeterCell::new(),
        }
    }

    /// Begins to measure the bodies of a request and its response.
    pub(super) fn start(&self) {
        self.request.set(RateMeter::default());
        self.response.set(RateMeter::default());
        self.is_held.store(false, Relaxed);
        self.is_running.store(self.least.is_some(), Relaxed);
    }

    /// Ends the measurement: between requests, and for what may be silent.
    pub(super) fn stop(&self) {
        self.is_running.store(false, Relaxed);
        self.request.waiting_since.set(NEVER);
        self.response.waiting_since.set(NEVER);
    }

    pub(super) fn is_running(&self) -> bool {
        self.is_running.load(Relaxed)
    }

    /// The client waits for `100 Continue` (RFC 9110 §10.1.1).
    pub(super) fn hold_request(&self) {
        self.is_held.store(true, Relaxed);
    }

    /// The client has its `100 Continue`, or sends without it; false: it did not wait for one.
    pub(super) fn release_request(&self) -> bool {
        let was_held = self.is_held.load(Relaxed);
        self.is_held.store(false, Relaxed);
        was_held
    }

    /// A read of the request's body waits for the client.
    pub(super) fn begin_request_wait(&self, now: Duration) {
        if self.is_running() && !self.is_held.load(Relaxed) {
            self.request.begin_wait(now);
        }
    }

    /// A write of the response waits for the client.
    pub(super) fn begin_response_wait(&self, now: Duration) {
        if self.is_running() {
            self.response.begin_wait(now);
        }
    }

    /// The ends of the waits for the request and for the response, in nanoseconds; [`NEVER`]: none is due.
    pub(super) fn deadlines(&self) -> (u64, u64) {
        let Some(least) = self.least else {
            return (NEVER, NEVER);
        };
        (self.request.deadline(least), self.response.deadline(least))
    }
}

/// A [`RateMeter`] that is `Sync`; see [`TimeCell`].
#[derive(Debug)]
pub(super) struct MeterCell {
    bytes: AtomicU64,
    waited: TimeCell,
    /// [`NEVER`]: nothing is waited for.
    waiting_since: TimeCell,
}

impl MeterCell {
    fn new() -> Self {
        let cell = Self {
            bytes: AtomicU64::new(0),
            waited: TimeCell::never(),
            waiting_since: TimeCell::never(),
        };
        cell.set(RateMeter::default());
        cell
    }

    fn get(&self) -> RateMeter {
        let since = self.waiting_since.get();
        RateMeter {
            bytes: self.bytes.load(Relaxed),
            waited: Duration::from_nanos(self.waited.get()),
            waiting_since: (since != NEVER).then(|| Duration::from_nanos(since)),
        }
    }

    fn set(&self, meter: RateMeter) {
        self.bytes.store(meter.bytes, Relaxed);
        self.waited.set(nanos(meter.waited));
        self.waiting_since
            .set(meter.waiting_since.map_or(NEVER, nanos));
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.waiting_since.get() != NEVER
    }

    fn begin_wait(&self, now: Duration) {
        let mut meter = self.get();
        meter.begin_wait(now);
        self.set(meter);
    }

    /// The client has sent or taken something, or is not waited for any more.
    pub(super) fn end_wait(&self, now: Duration) {
        let mut meter = self.get();
        meter.end_wait(now);
        self.set(meter);
    }

    /// At least `total` bytes have passed since the start.
    pub(super) fn reach(&self, total: u64) {
        let bytes = self.bytes.load(Relaxed);
        self.bytes.store(bytes.max(total), Relaxed);
    }

    /// `count` more bytes have passed.
    pub(super) fn add(&self, count: usize) {
        let bytes = self.bytes.load(Relaxed);
        self.bytes
            .store(bytes.saturating_add(count as u64), Relaxed);
    }

    fn deadline(&self, least: MinRate) -> u64 {
        if !self.is_waiting() {
            return NEVER;
        }
        self.get().deadline(least).map_or(NEVER, nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: MinRate = MinRate {
        rate: 100,
        grace: Duration::from_secs(5),
    };

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    type Event = fn(&BodyRates);

    #[test]
    fn deadlines_after_each_event_are_those_of_the_table() {
        // The events in order, each with the ends of the two waits after it, in seconds.
        let table: &[(Event, Option<u64>, Option<u64>)] = &[
            (|it| it.begin_request_wait(seconds(1)), None, None),
            (BodyRates::start, None, None),
            (|it| it.begin_request_wait(seconds(10)), Some(15), None),
            (|it| it.begin_request_wait(seconds(12)), Some(15), None),
            (|it| it.request.reach(700), Some(17), None),
            (|it| it.request.reach(300), Some(17), None),
            (|it| it.request.end_wait(seconds(13)), None, None),
            (|it| it.begin_request_wait(seconds(20)), Some(24), None),
            (|it| it.begin_response_wait(seconds(20)), Some(24), Some(25)),
            (|it| it.response.add(600), Some(24), Some(26)),
            (BodyRates::stop, None, None),
            (|it| it.begin_request_wait(seconds(30)), None, None),
            (BodyRates::start, None, None),
            (BodyRates::hold_request, None, None),
            (|it| it.begin_request_wait(seconds(30)), None, None),
            (|it| assert!(it.release_request()), None, None),
            (|it| assert!(!it.release_request()), None, None),
            (|it| it.begin_request_wait(seconds(40)), Some(45), None),
        ];
        let rates = BodyRates::new(Some(LEAST));
        let due = |seconds: Option<u64>| seconds.map_or(NEVER, |it| it * 1_000_000_000);
        for (index, (event, request, response)) in table.iter().enumerate() {
            event(&rates);
            let expected = (due(*request), due(*response));
            assert_eq!(rates.deadlines(), expected, "event {index}");
        }
        let off = BodyRates::new(None);
        off.start();
        off.begin_request_wait(seconds(1));
        off.begin_response_wait(seconds(1));
        assert_eq!(off.deadlines(), (NEVER, NEVER));
    }
}
