//! What is under way on a connection: known to its task and to those of its streams.
//!
//! Pingora notices that a client has left where it reads or writes for it. While a peer does not take
//! a request's body it does neither, maybe for minutes; so whoever serves a stream is told from here.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::super::exchange::Exchange;
use super::super::phase::{AbortReason, Phase};
use super::GOAWAY_ACK_TIMEOUT;
use super::frame_monitor::{FrameMonitor, ResponseProgress};
use super::rapid_reset::RAPID_RESET_AGE;
use crate::clock;
use crate::telemetry::metrics::{Bounded, Http2Violation};

/// No violation.
const NO_VIOLATION: u8 = u8::MAX;

#[derive(Debug)]
pub(super) struct StreamRegistry {
    /// The streams that are being served.
    streams: Mutex<HashMap<u32, Arc<StreamEntry>>>,
    all_ended: Notify,
    /// The newest stream that was served.
    last_stream_id: AtomicU32,
    /// Streams whose response has begun.
    responses_started: AtomicU64,
    /// Pieces of responses that the client took whole.
    chunks_sent: AtomicU64,
    /// The client's first frame is there.
    has_first_frame: AtomicBool,
    /// Some of a header is there, and not all.
    in_header_block: AtomicBool,
    /// The client was asked to open no more streams.
    goaway_sent: AtomicBool,
    /// Streams that the client has opened.
    streams_opened: AtomicU64,
    /// Which [`Violation`] the frames are, or [`NONE`].
    violation: AtomicU8,
}

impl Default for StreamRegistry {
    fn default() -> Self {
        Self {
            streams: Mutex::default(),
            all_ended: Notify::new(),
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

/// A stream's place in the [`Traffic`].
#[derive(Debug)]
pub(super) struct StreamEntry {
    registry: Arc<StreamRegistry>,
    exchange: Arc<Exchange>,
    /// When its header was complete, since the process started.
    opened_at: Duration,
    /// The response has begun.
    response_started: AtomicBool,
    /// Nothing can follow on it: nobody can take it back any more.
    ended: AtomicBool,
    client_gone: Notify,
}

/// Holds a stream's [`Place`]; gives it up when dropped, however the stream ended.
#[derive(Debug)]
pub(super) struct StreamGuard {
    entry: Arc<StreamEntry>,
    stream_id: u32,
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        let traffic = &self.entry.registry;
        let mut streams = traffic.streams.lock();
        streams.remove(&self.stream_id);
        if streams.is_empty() {
            traffic.all_ended.notify_one();
        }
    }
}

impl StreamGuard {
    pub(super) fn entry(&self) -> &Arc<StreamEntry> {
        &self.entry
    }

    /// Waits until nobody waits for the stream any more; its exchange knows then.
    pub(super) async fn wait_client_gone(&self) {
        self.entry.client_gone.notified().await;
    }
}

impl StreamEntry {
    /// The response begins.
    pub(super) fn on_response_started(&self) {
        if !self.response_started.swap(true, Relaxed) {
            self.registry.responses_started.fetch_add(1, Relaxed);
        }
    }

    /// A piece of the response went out whole.
    pub(super) fn on_chunk_sent(&self) {
        self.registry.chunks_sent.fetch_add(1, Relaxed);
    }

    /// Nothing follows on the stream.
    pub(super) fn mark_ended(&self) {
        self.ended.store(true, Relaxed);
    }

    /// The client waits for it no longer; whether that was all that it wanted.
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
    pub(super) fn register(
        traffic: &Arc<Self>,
        stream: u32,
        exchange: &Arc<Exchange>,
    ) -> StreamGuard {
        let place = Arc::new(StreamEntry {
            registry: Arc::clone(traffic),
            exchange: Arc::clone(exchange),
            opened_at: clock::since_start(),
            response_started: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            client_gone: Notify::new(),
        });
        traffic.last_stream_id.fetch_max(stream, Relaxed);
        traffic.streams.lock().insert(stream, Arc::clone(&place));
        StreamGuard {
            entry: place,
            stream_id: stream,
        }
    }

    /// The client takes a stream back; whether it has done nothing but ask.
    pub(super) fn on_client_reset(&self, stream: u32) -> bool {
        match self.streams.lock().get(&stream) {
            Some(place) => place.on_reset(),
            None => stream > self.last_stream_id.load(Relaxed),
        }
    }

    /// The connection is over: nobody waits for what is left of its streams.
    pub(super) fn abort_all(&self) {
        for place in self.streams.lock().values() {
            place.on_reset();
        }
    }

    /// Waits until the last of the streams has ended.
    pub(super) async fn wait_all_ended(&self) {
        self.all_ended.notified().await;
    }

    pub(super) fn streams_opened(&self) -> u64 {
        self.streams_opened.load(Relaxed)
    }

    pub(super) fn responses_started(&self) -> u64 {
        self.responses_started.load(Relaxed)
    }

    /// What the client was sent, `bytes` in all.
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
        let abuse = usize::from(self.violation.load(Relaxed));
        Http2Violation::ALL.get(abuse).copied()
    }

    /// The client is not to go on like this.
    pub(super) fn abort_connection(&self, abuse: Http2Violation, exchange: &Exchange) {
        let index = u8::try_from(abuse.index()).unwrap_or(NO_VIOLATION);
        self.violation.store(index, Relaxed);
        exchange.abort(AbortReason::Http2Abuse);
    }

    pub(super) fn update_from_frames(&self, frames: &FrameMonitor, exchange: &Exchange) {
        self.streams_opened.store(frames.streams_opened(), Relaxed);
        self.has_first_frame
            .store(frames.has_first_frame(), Relaxed);
        self.in_header_block
            .store(frames.is_in_header_block(), Relaxed);
        self.update_phase(exchange);
    }

    /// Puts the connection's exchange into the phase that it is in. To be called by its own task.
    pub(super) fn update_phase(&self, exchange: &Exchange) {
        let phase = match () {
            // The time of the first header runs since the accept.
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
                exchange.enter(phase, Some(GOAWAY_ACK_TIMEOUT))
            }
            Phase::Idle => exchange.begin_keepalive(),
            Phase::Header => exchange.enter(phase, Some(exchange.limits().header_timeout)),
            _ => exchange.enter(phase, None),
        }
    }

    /// The client was asked to leave: it is to be idle no longer than that takes.
    pub(super) fn on_goaway_sent(&self, exchange: &Exchange) {
        self.goaway_sent.store(true, Relaxed);
        if exchange.phase() == Phase::Idle {
            exchange.enter(Phase::Idle, Some(GOAWAY_ACK_TIMEOUT));
        }
    }
}
