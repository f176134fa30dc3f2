//! What `h2` reads and writes through: follows the frames that come in, and keeps the phases of the
//! connection's own exchange.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use super::super::exchange::Exchange;
use super::super::phase::{Cause, Phase};
use super::super::stream::ClientStream;
use super::FAREWELL;
use super::frames::Frames;
use crate::clock;
use crate::telemetry::metrics::{Bounded, Violation};

/// No violation.
const NONE: u8 = u8::MAX;

/// The client's bytes, on their way to `h2` and back.
pub(super) struct Carrier {
    stream: ClientStream,
    frames: Frames,
    traffic: Arc<Traffic>,
    began: Duration,
}

/// What is under way on a connection: known to its task and to those of its streams.
#[derive(Debug)]
pub(super) struct Traffic {
    /// Streams that are being served.
    active: AtomicUsize,
    all_ended: Notify,
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
            active: AtomicUsize::new(0),
            all_ended: Notify::new(),
            greeted: AtomicBool::new(false),
            in_header: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            opened: AtomicU64::new(0),
            abuse: AtomicU8::new(NONE),
        }
    }
}

/// A stream's place in the [`Traffic`]; leaves when dropped, however the stream ended.
#[derive(Debug)]
pub(super) struct Guard(Arc<Traffic>);

impl Drop for Guard {
    fn drop(&mut self) {
        if self.0.active.fetch_sub(1, Relaxed) == 1 {
            self.0.all_ended.notify_one();
        }
    }
}

impl Traffic {
    pub(super) fn enter(traffic: &Arc<Self>) -> Guard {
        traffic.active.fetch_add(1, Relaxed);
        Guard(Arc::clone(traffic))
    }

    /// Waits until the last of the streams has ended.
    pub(super) async fn all_ended(&self) {
        self.all_ended.notified().await;
    }

    pub(super) fn opened(&self) -> u64 {
        self.opened.load(Relaxed)
    }

    pub(super) fn is_in_header(&self) -> bool {
        self.in_header.load(Relaxed)
    }

    pub(super) fn abuse(&self) -> Option<Violation> {
        let abuse = usize::from(self.abuse.load(Relaxed));
        Violation::ALL.get(abuse).copied()
    }

    fn note(&self, frames: &Frames, exchange: &Exchange) {
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
            () if self.active.load(Relaxed) > 0 => Phase::Request,
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

impl Carrier {
    pub(super) fn new(stream: ClientStream, traffic: Arc<Traffic>) -> Self {
        Self {
            stream,
            frames: Frames::default(),
            traffic,
            began: clock::since_start(),
        }
    }

    /// The client has sent these bytes; false: it is not to go on like this.
    fn received(&mut self, bytes: &[u8]) -> bool {
        let exchange = self.stream.exchange();
        if !self.frames.is_greeted() {
            exchange.received(bytes.len());
        }
        let resets = self.frames.resets();
        self.frames.feed(bytes);
        let connection = &exchange.connection;
        let resets = self.frames.resets() - resets;
        if resets > 0 {
            connection.metrics.http2_resets.inc_by(resets);
        }
        let age = clock::since_start().saturating_sub(self.began);
        if let Some(abuse) = self.frames.abuse(connection.bytes_out(), age) {
            self.traffic.abuse.store(index(abuse), Relaxed);
            exchange.expire(Cause::Abuse);
            return false;
        }
        self.traffic.note(&self.frames, exchange);
        true
    }
}

fn index(violation: Violation) -> u8 {
    u8::try_from(violation.index()).unwrap_or(NONE)
}

impl AsyncRead for Carrier {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.stream.exchange().expired().is_some() {
            // Nothing that it sends counts any more; the watch takes it from here.
            return Poll::Pending;
        }
        let before = buf.filled().len();
        ready!(self.stream.poll_receive(cx, buf))?;
        if self.received(buf.filled().get(before..).unwrap_or_default()) {
            Poll::Ready(Ok(()))
        } else {
            buf.set_filled(before);
            Poll::Pending
        }
    }
}

impl AsyncWrite for Carrier {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
