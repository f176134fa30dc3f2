//! What `h2` reads and writes through: follows the frames that come in, and keeps the phases of the
//! connection's own exchange.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::super::stream::ClientStream;
use super::frames::Frames;
use super::haste::Haste;
use super::traffic::Traffic;
use crate::clock;
use crate::telemetry::metrics::Violation;

/// The client's bytes, on their way to `h2` and back.
pub(super) struct Carrier {
    stream: ClientStream,
    frames: Frames,
    haste: Haste,
    /// What [`Traffic::answered`] was when `haste` was told.
    answered: u64,
    traffic: Arc<Traffic>,
    began: Duration,
}

impl Carrier {
    pub(super) fn new(stream: ClientStream, traffic: Arc<Traffic>) -> Self {
        Self {
            stream,
            frames: Frames::default(),
            haste: Haste::default(),
            answered: 0,
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
        let resets = self.frames.feed(bytes);
        if !resets.is_empty() {
            self.take_back(&resets);
        }
        let exchange = self.stream.exchange();
        if let Some(abuse) = self.abuse() {
            self.traffic.stop(abuse, exchange);
            return false;
        }
        self.traffic.note(&self.frames, exchange);
        true
    }

    fn take_back(&mut self, streams: &[u32]) {
        let metrics = &self.stream.exchange().connection.metrics;
        metrics.http2_resets.inc_by(streams.len() as u64);
        let answered = self.traffic.answered();
        self.haste.answered(answered - self.answered);
        self.answered = answered;
        for &stream in streams {
            if self.traffic.take_back(stream) {
                self.haste.taken_back(clock::since_start());
            }
        }
    }

    /// What is wrong with what the client does.
    fn abuse(&self) -> Option<Violation> {
        let now = clock::since_start();
        let given = self
            .traffic
            .given(self.stream.exchange().connection.bytes_out());
        if self.haste.is_too_great(now) {
            return Some(Violation::RapidReset);
        }
        let age = now.saturating_sub(self.began);
        let idle = self.frames.are_too_idle(given, age);
        idle.then_some(Violation::IdleFrames)
    }
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
