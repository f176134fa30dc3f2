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
use super::super::phase::{Cause, Phase};
use super::FAREWELL;
use super::frames::{Frames, Given};
use super::haste::AT_ONCE;
use crate::clock;
use crate::telemetry::metrics::{Bounded, Violation};

/// No violation.
const NONE: u8 = u8::MAX;

#[derive(Debug)]
pub(super) struct Traffic {
    /// The streams that are being served.
    streams: Mutex<HashMap<u32, Arc<Place>>>,
    all_ended: Notify,
    /// The newest stream that was served.
    newest: AtomicU32,
    /// Streams whose response has begun.
    answered: AtomicU64,
    /// Pieces of responses that the client took whole.
    pieces: AtomicU64,
    /// The client's first frame is there.
    greeted: AtomicBool,
    /// Some of a header is there, and not all.
    in_header: AtomicBool,
    /// The client was asked to open no more streams.
    leaving: AtomicBool,
    /// Streams that the client has opened.
    opened: AtomicU64,
    /// Which [`Violation`] the frames are, or [`NONE`].
    abuse: AtomicU8,
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            streams: Mutex::default(),
            all_ended: Notify::new(),
            newest: AtomicU32::new(0),
            answered: AtomicU64::new(0),
            pieces: AtomicU64::new(0),
            greeted: AtomicBool::new(false),
            in_header: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            opened: AtomicU64::new(0),
            abuse: AtomicU8::new(NONE),
        }
    }
}

/// A stream's place in the [`Traffic`].
#[derive(Debug)]
pub(super) struct Place {
    traffic: Arc<Traffic>,
    exchange: Arc<Exchange>,
    /// When its header was complete, since the process started.
    opened: Duration,
    /// The response has begun.
    answered: AtomicBool,
    /// Nothing can follow on it: nobody can take it back any more.
    over: AtomicBool,
    client_left: Notify,
}

/// Holds a stream's [`Place`]; gives it up when dropped, however the stream ended.
#[derive(Debug)]
pub(super) struct Guard {
    place: Arc<Place>,
    stream: u32,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let traffic = &self.place.traffic;
        let mut streams = traffic.streams.lock();
        streams.remove(&self.stream);
        if streams.is_empty() {
            traffic.all_ended.notify_one();
        }
    }
}

impl Guard {
    pub(super) fn place(&self) -> &Arc<Place> {
        &self.place
    }

    /// Waits until nobody waits for the stream any more; its exchange knows then.
    pub(super) async fn client_left(&self) {
        self.place.client_left.notified().await;
    }
}

impl Place {
    /// The response begins.
    pub(super) fn answer(&self) {
        if !self.answered.swap(true, Relaxed) {
            self.traffic.answered.fetch_add(1, Relaxed);
        }
    }

    /// A piece of the response went out whole.
    pub(super) fn passed(&self) {
        self.traffic.pieces.fetch_add(1, Relaxed);
    }

    /// Nothing follows on the stream.
    pub(super) fn end(&self) {
        self.over.store(true, Relaxed);
    }

    /// The client waits for it no longer; whether that was all that it wanted.
    fn take_back(&self) -> bool {
        if self.over.load(Relaxed) {
            return false;
        }
        self.exchange.client_left();
        self.client_left.notify_one();
        let age = clock::since_start().saturating_sub(self.opened);
        age < AT_ONCE && !self.answered.load(Relaxed)
    }
}

impl Traffic {
    pub(super) fn enter(traffic: &Arc<Self>, stream: u32, exchange: &Arc<Exchange>) -> Guard {
        let place = Arc::new(Place {
            traffic: Arc::clone(traffic),
            exchange: Arc::clone(exchange),
            opened: clock::since_start(),
            answered: AtomicBool::new(false),
            over: AtomicBool::new(false),
            client_left: Notify::new(),
        });
        traffic.newest.fetch_max(stream, Relaxed);
        traffic.streams.lock().insert(stream, Arc::clone(&place));
        Guard { place, stream }
    }

    /// The client takes a stream back; whether it has done nothing but ask.
    pub(super) fn take_back(&self, stream: u32) -> bool {
        match self.streams.lock().get(&stream) {
            Some(place) => place.take_back(),
            None => stream > self.newest.load(Relaxed),
        }
    }

    /// The connection is over: nobody waits for what is left of its streams.
    pub(super) fn abandon(&self) {
        for place in self.streams.lock().values() {
            place.take_back();
        }
    }

    /// Waits until the last of the streams has ended.
    pub(super) async fn all_ended(&self) {
        self.all_ended.notified().await;
    }

    pub(super) fn opened(&self) -> u64 {
        self.opened.load(Relaxed)
    }

    pub(super) fn answered(&self) -> u64 {
        self.answered.load(Relaxed)
    }

    /// What the client was sent, `bytes` in all.
    pub(super) fn given(&self, bytes: u64) -> Given {
        Given {
            bytes,
            pieces: self.pieces.load(Relaxed),
        }
    }

    pub(super) fn is_in_header(&self) -> bool {
        self.in_header.load(Relaxed)
    }

    pub(super) fn abuse(&self) -> Option<Violation> {
        let abuse = usize::from(self.abuse.load(Relaxed));
        Violation::ALL.get(abuse).copied()
    }

    /// The client is not to go on like this.
    pub(super) fn stop(&self, abuse: Violation, exchange: &Exchange) {
        let index = u8::try_from(abuse.index()).unwrap_or(NONE);
        self.abuse.store(index, Relaxed);
        exchange.expire(Cause::Abuse);
    }

    pub(super) fn note(&self, frames: &Frames, exchange: &Exchange) {
        self.opened.store(frames.streams(), Relaxed);
        self.greeted.store(frames.is_greeted(), Relaxed);
        self.in_header.store(frames.is_in_header(), Relaxed);
        self.settle(exchange);
    }

    /// Puts the connection's exchange into the phase that it is in. To be called by its own task.
    pub(super) fn settle(&self, exchange: &Exchange) {
        let phase = match () {
            // The time of the first header runs since the accept.
            () if !self.greeted.load(Relaxed) => return,
            () if self.is_in_header() => Phase::Header,
            () if !self.streams.lock().is_empty() => Phase::Request,
            () => Phase::Idle,
        };
        if exchange.phase() == phase {
            return;
        }
        match phase {
            Phase::Idle if self.leaving.load(Relaxed) => exchange.enter(phase, Some(FAREWELL)),
            Phase::Idle => exchange.rest(),
            Phase::Header => exchange.enter(phase, Some(exchange.limits().header_timeout)),
            _ => exchange.enter(phase, None),
        }
    }

    /// The client was asked to leave: it is to be idle no longer than that takes.
    pub(super) fn leave(&self, exchange: &Exchange) {
        self.leaving.store(true, Relaxed);
        if exchange.phase() == Phase::Idle {
            exchange.enter(Phase::Idle, Some(FAREWELL));
        }
    }
}
