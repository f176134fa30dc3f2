//! What `h2` reads and writes through: follows the frames that come in, and keeps the phases of the
//! connection's own exchange.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::super::io::DownstreamIo;
use super::frame_monitor::FrameMonitor;
use super::rapid_reset::RapidResetDetector;
use super::streams::StreamRegistry;
use crate::clock;
use crate::telemetry::metrics::Http2Violation;

/// The client's bytes, on their way to `h2` and back.
pub(super) struct Http2Io {
    io: DownstreamIo,
    frame_monitor: FrameMonitor,
    rapid_reset: RapidResetDetector,
    /// What [`Traffic::answered`] was when `haste` was told.
    responses_seen: u64,
    registry: Arc<StreamRegistry>,
    started_at: Duration,
}

impl Http2Io {
    pub(super) fn new(stream: DownstreamIo, traffic: Arc<StreamRegistry>) -> Self {
        Self {
            io: stream,
            frame_monitor: FrameMonitor::default(),
            rapid_reset: RapidResetDetector::default(),
            responses_seen: 0,
            registry: traffic,
            started_at: clock::since_start(),
        }
    }

    /// The client has sent these bytes; false: it is not to go on like this.
    fn on_bytes_received(&mut self, bytes: &[u8]) -> bool {
        let exchange = self.io.exchange();
        if !self.frame_monitor.has_first_frame() {
            exchange.on_bytes_received(bytes.len());
        }
        let resets = self.frame_monitor.feed(bytes);
        if !resets.is_empty() {
            self.on_client_resets(&resets);
        }
        let exchange = self.io.exchange();
        if let Some(abuse) = self.find_violation() {
            self.registry.abort_connection(abuse, exchange);
            return false;
        }
        self.registry
            .update_from_frames(&self.frame_monitor, exchange);
        true
    }

    fn on_client_resets(&mut self, streams: &[u32]) {
        let metrics = &self.io.exchange().connection.metrics;
        metrics.http2_resets.inc_by(streams.len() as u64);
        let answered = self.registry.responses_started();
        self.rapid_reset
            .on_responses(answered - self.responses_seen);
        self.responses_seen = answered;
        for &stream in streams {
            if self.registry.on_client_reset(stream) {
                self.rapid_reset.on_rapid_reset(clock::since_start());
            }
        }
    }

    /// What is wrong with what the client does.
    fn find_violation(&self) -> Option<Http2Violation> {
        let now = clock::since_start();
        let given = self
            .registry
            .response_progress(self.io.exchange().connection.bytes_out());
        if self.rapid_reset.is_exceeded(now) {
            return Some(Http2Violation::RapidReset);
        }
        let age = now.saturating_sub(self.started_at);
        let idle = self.frame_monitor.is_control_flood(given, age);
        idle.then_some(Http2Violation::ControlFlood)
    }
}

impl AsyncRead for Http2Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.io.exchange().abort_reason().is_some() {
            // Nothing that it sends counts any more; the watch takes it from here.
            return Poll::Pending;
        }
        let before = buf.filled().len();
        ready!(self.io.poll_read_raw(cx, buf))?;
        if self.on_bytes_received(buf.filled().get(before..).unwrap_or_default()) {
            Poll::Ready(Ok(()))
        } else {
            buf.set_filled(before);
            Poll::Pending
        }
    }
}

impl AsyncWrite for Http2Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
