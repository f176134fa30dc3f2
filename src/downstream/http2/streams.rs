//! The streams in progress on a connection, shared by the connection's task and those of its streams.
//!
//! Pingora notices only during a read or a write that a client has gone. While a peer does not accept the
//! request's body, Pingora does neither, possibly for minutes. So the registry notifies the stream's task when
//! the client resets the stream or closes the connection.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use h2::RecvStream;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::super::exchange::Exchange;
use super::super::phase::{AbortReason, Phase};
use super::frame_monitor::{FrameMonitor, ResponseProgress};
use super::rapid_reset::RAPID_RESET_AGE;
use crate::clock;
use crate::telemetry::metrics::{Bounded, Http2Violation};

/// The value of [`StreamRegistry::violation`] while there is no violation.
const NO_VIOLATION: u8 = u8::MAX;

/// How long a client may take to acknowledge GOAWAY before the connection is closed: a round trip.
const GOAWAY_ACK_TIMEOUT: Duration = Duration::from_secs(1);

/// The streams of one connection, and the state that its tasks share.
///
/// The tasks wake each other by other means than these atomics, so `Relaxed` is enough.
#[derive(Debug)]
pub(super) struct StreamRegistry {
    /// The streams being served, by stream id.
    streams: Mutex<HashMap<u32, Arc<StreamEntry>>>,
    all_ended: Notify,
    request_ended_late: Notify,
    /// How often the client's socket has taken everything that was to be written.
    flushes: AtomicU64,
    flushed: Notify,
    /// The id of the newest stream that was served.
    last_stream_id: AtomicU32,
    /// Streams on which the response has begun.
    responses_started: AtomicU64,
    /// Chunks of responses that were sent completely.
    chunks_sent: AtomicU64,
    /// The client's first frame has arrived.
    has_first_frame: AtomicBool,
    /// A header block has begun and has not ended.
    in_header_block: AtomicBool,
    /// GOAWAY was sent: the client should open no more streams.
    goaway_sent: AtomicBool,
    /// Streams that the client has opened.
    streams_opened: AtomicU64,
    /// The index of the [`Http2Violation`] that was found, or [`NO_VIOLATION`].
    violation: AtomicU8,
}

impl Default for StreamRegistry {
    fn default() -> Self {
        Self {
            streams: Mutex::default(),
            all_ended: Notify::new(),
            request_ended_late: Notify::new(),
            flushes: AtomicU64::new(0),
            flushed: Notify::new(),
            last_stream_id: AtomicU32::new(0),
            responses_started: AtomicU64::new(0),
            chunks_sent: AtomicU64::new(0),
            has_first_frame: AtomicBool::new(false),
            in_header_block: AtomicBool::new(false),
            goaway_sent: AtomicBool::new(false),
            streams_opened: AtomicU64::new(0),
            violation: AtomicU8::new(NO_VIOLATION),
        }
    }
}

/// One stream in the [`StreamRegistry`].
#[derive(Debug)]
pub(super) struct StreamEntry {
    registry: Arc<StreamRegistry>,
    exchange: Arc<Exchange>,
    /// When the request's header was complete, on the clock of [`clock::since_start`].
    opened_at: Duration,
    /// The response has begun.
    response_started: AtomicBool,
    /// The response is complete or was abandoned: a reset has no effect any more.
    ended: AtomicBool,
    client_gone: Notify,
    /// The response is complete, and the request is not.
    answered_early: Notify,
    /// The request of such a response, when nothing else reads it any more.
    rest_of_request: Mutex<Option<RecvStream>>,
}

/// Keeps a stream in the [`StreamRegistry`]; removes it when dropped, also after a panic.
#[derive(Debug)]
pub(super) struct StreamGuard {
    entry: Arc<StreamEntry>,
    stream_id: u32,
}

impl StreamGuard {
    pub(super) fn entry(&self) -> &Arc<StreamEntry> {
        &self.entry
    }

    /// Waits until the client has reset the stream or closed the connection; the exchange is aborted before.
    pub(super) async fn wait_client_gone(&self) {
        self.entry.client_gone.notified().await;
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        let registry = &self.entry.registry;
        let mut streams = registry.streams.lock();
        streams.remove(&self.stream_id);
        if streams.is_empty() {
            registry.all_ended.notify_one();
        }
    }
}

impl StreamEntry {
    /// Counts the response when it begins; later calls do nothing.
    pub(super) fn on_response_started(&self) {
        if !self.response_started.swap(true, Relaxed) {
            self.registry.responses_started.fetch_add(1, Relaxed);
        }
    }

    /// Counts a chunk of the response that was sent completely.
    pub(super) fn on_chunk_sent(&self) {
        self.registry.chunks_sent.fetch_add(1, Relaxed);
    }

    /// The number of flushes of the connection so far.
    pub(super) fn flushes(&self) -> u64 {
        self.registry.flushes.load(Relaxed)
    }

    /// Waits for a flush after the first `flushes`.
    pub(super) async fn wait_flushed_after(&self, flushes: u64) {
        loop {
            // Before the check: a flush between the two must not be missed.
            let next = self.registry.flushed.notified();
            if self.flushes() > flushes {
                return;
            }
            next.await;
        }
    }

    /// Signals that the request has ended after its response.
    pub(super) fn end_request_late(&self) {
        self.registry.request_ended_late.notify_one();
    }

    /// Signals that the response is complete, and the request is not.
    pub(super) fn on_answered_early(&self) {
        self.answered_early.notify_one();
    }

    /// Waits for [`on_answered_early`](Self::on_answered_early).
    pub(super) async fn wait_answered_early(&self) {
        self.answered_early.notified().await;
    }

    /// Leaves the rest of a request to the stream's task.
    pub(super) fn leave_rest_of_request(&self, rest: RecvStream) {
        *self.rest_of_request.lock() = Some(rest);
    }

    pub(super) fn take_rest_of_request(&self) -> Option<RecvStream> {
        self.rest_of_request.lock().take()
    }

    /// Records that nothing more is sent on the stream.
    pub(super) fn mark_ended(&self) {
        self.ended.store(true, Relaxed);
    }

    /// Aborts the exchange, because the client no longer waits for the response; returns whether the reset
    /// counts as rapid.
    fn on_reset(&self) -> bool {
        if self.ended.load(Relaxed) {
            return false;
        }
        self.exchange.on_client_gone();
        self.client_gone.notify_one();
        let age = clock::since_start().saturating_sub(self.opened_at);
        age < RAPID_RESET_AGE && !self.response_started.load(Relaxed)
    }
}

impl StreamRegistry {
    /// Adds a stream, until the guard is dropped.
    pub(super) fn register(
        registry: &Arc<Self>,
        stream_id: u32,
        exchange: &Arc<Exchange>,
    ) -> StreamGuard {
        let entry = Arc::new(StreamEntry {
            registry: Arc::clone(registry),
            exchange: Arc::clone(exchange),
            opened_at: clock::since_start(),
            response_started: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            client_gone: Notify::new(),
            answered_early: Notify::new(),
            rest_of_request: Mutex::new(None),
        });
        registry.last_stream_id.fetch_max(stream_id, Relaxed);
        let mut streams = registry.streams.lock();
        streams.insert(stream_id, Arc::clone(&entry));
        StreamGuard { entry, stream_id }
    }

    /// Handles a client's reset of a stream; returns whether it counts as rapid.
    pub(super) fn on_client_reset(&self, stream_id: u32) -> bool {
        match self.streams.lock().get(&stream_id) {
            Some(entry) => entry.on_reset(),
            // A newer stream was reset before it was accepted; an older one has ended already.
            None => stream_id > self.last_stream_id.load(Relaxed),
        }
    }

    /// Aborts the remaining streams when the connection has ended.
    pub(super) fn abort_all(&self) {
        for entry in self.streams.lock().values() {
            entry.on_reset();
        }
    }

    /// Waits until the last of the streams has ended.
    pub(super) async fn wait_all_ended(&self) {
        self.all_ended.notified().await;
    }

    /// Records that the client's socket has taken everything that was to be written.
    pub(super) fn on_flushed(&self) {
        self.flushes.fetch_add(1, Relaxed);
        self.flushed.notify_waiters();
    }

    /// Waits until a request has ended after its response.
    pub(super) async fn request_ended_late(&self) {
        self.request_ended_late.notified().await;
    }

    /// Shares bytes that were received and sent among the open streams, for `min_body_rate`.
    pub(super) fn share_out(&self, received: usize, sent: usize, exchange: &Exchange) {
        let streams = self.streams.lock().len();
        let share = &exchange.connection.stream_share;
        share.add(received as u64, sent as u64, streams);
    }

    pub(super) fn streams_opened(&self) -> u64 {
        self.streams_opened.load(Relaxed)
    }

    pub(super) fn responses_started(&self) -> u64 {
        self.responses_started.load(Relaxed)
    }

    /// The progress of the responses; `bytes` is the total number of bytes sent.
    pub(super) fn response_progress(&self, bytes: u64) -> ResponseProgress {
        ResponseProgress {
            bytes,
            chunks: self.chunks_sent.load(Relaxed),
        }
    }

    pub(super) fn is_in_header_block(&self) -> bool {
        self.in_header_block.load(Relaxed)
    }

    pub(super) fn violation(&self) -> Option<Http2Violation> {
        let index = usize::from(self.violation.load(Relaxed));
        Http2Violation::ALL.get(index).copied()
    }

    /// Stores the violation, and aborts the connection's own exchange for it.
    pub(super) fn abort_connection(&self, violation: Http2Violation, exchange: &Exchange) {
        let index = u8::try_from(violation.index()).unwrap_or(NO_VIOLATION);
        self.violation.store(index, Relaxed);
        exchange.abort(AbortReason::Http2Abuse);
    }

    /// Copies the monitor's state, and updates the phase.
    pub(super) fn update_from_frames(&self, frames: &FrameMonitor, exchange: &Exchange) {
        self.streams_opened.store(frames.streams_opened(), Relaxed);
        self.has_first_frame
            .store(frames.has_first_frame(), Relaxed);
        self.in_header_block
            .store(frames.is_in_header_block(), Relaxed);
        self.update_phase(exchange);
    }

    /// Sets the phase of the connection's own exchange. Only the connection's task may call this.
    pub(super) fn update_phase(&self, exchange: &Exchange) {
        let phase = match () {
            // Until the first frame, `header_timeout` runs from the accept.
            () if !self.has_first_frame.load(Relaxed) => return,
            () if self.is_in_header_block() => Phase::Header,
            () if !self.streams.lock().is_empty() => Phase::Request,
            () => Phase::Idle,
        };
        if exchange.phase() == phase {
            return;
        }
        match phase {
            Phase::Idle if self.goaway_sent.load(Relaxed) => {
                exchange.enter(phase, Some(GOAWAY_ACK_TIMEOUT));
            }
            Phase::Idle => exchange.begin_keepalive(),
            Phase::Header => exchange.enter(phase, Some(exchange.limits().header_timeout)),
            _ => exchange.enter(phase, None),
        }
    }

    /// Shortens the idle time to [`GOAWAY_ACK_TIMEOUT`], for the current and all later idle phases.
    pub(super) fn on_goaway_sent(&self, exchange: &Exchange) {
        self.goaway_sent.store(true, Relaxed);
        if exchange.phase() == Phase::Idle {
            exchange.enter(Phase::Idle, Some(GOAWAY_ACK_TIMEOUT));
        }
    }
}
