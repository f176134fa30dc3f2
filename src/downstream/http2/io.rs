//! The transport that `h2` reads from and writes to: checks the client's frames on their way in, and
//! keeps the phase of the connection's own exchange up to date.

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

/// The client's byte stream; checks each byte for abuse before `h2` gets it.
pub(super) struct Http2Io {
    io: DownstreamIo,
    frame_monitor: FrameMonitor,
    rapid_reset: RapidResetDetector,
    /// The part of [`StreamRegistry::responses_started`] that `rapid_reset` has counted already.
    responses_seen: u64,
    registry: Arc<StreamRegistry>,
    started_at: Duration,
}

impl Http2Io {
    pub(super) fn new(io: DownstreamIo, registry: Arc<StreamRegistry>) -> Self {
        Self {
            io,
            frame_monitor: FrameMonitor::default(),
            rapid_reset: RapidResetDetector::default(),
            responses_seen: 0,
            registry,
            started_at: clock::since_start(),
        }
    }

    /// Checks bytes that the client has sent; false: the connection was aborted for a violation.
    fn on_bytes_received(&mut self, bytes: &[u8]) -> bool {
        let exchange = self.io.exchange();
        if !self.frame_monitor.has_first_frame() {
            exchange.on_bytes_received(bytes.len());
        }
        self.registry.share_out(bytes.len(), 0, exchange);
        let resets = self.frame_monitor.feed(bytes);
        if !resets.is_empty() {
            self.on_client_resets(&resets);
        }
        let exchange = self.io.exchange();
        if let Some(violation) = self.find_violation() {
            self.registry.abort_connection(violation, exchange);
            return false;
        }
        self.registry
            .update_from_frames(&self.frame_monitor, exchange);
        true
    }

    fn on_client_resets(&mut self, stream_ids: &[u32]) {
        let metrics = &self.io.exchange().connection.metrics;
        metrics.http2_resets.inc_by(stream_ids.len() as u64);
        let responses = self.registry.responses_started();
        self.rapid_reset
            .on_responses(responses - self.responses_seen);
        self.responses_seen = responses;
        for &stream_id in stream_ids {
            if self.registry.on_client_reset(stream_id) {
                self.rapid_reset.on_rapid_reset(clock::since_start());
            }
        }
    }

    /// The limit that the client has exceeded, if any.
    fn find_violation(&self) -> Option<Http2Violation> {
        let now = clock::since_start();
        if self.rapid_reset.is_exceeded(now) {
            return Some(Http2Violation::RapidReset);
        }
        let bytes_sent = self.io.exchange().connection.bytes_out();
        let progress = self.registry.response_progress(bytes_sent);
        let age = now.saturating_sub(self.started_at);
        let flood = self.frame_monitor.is_control_flood(progress, age);
        flood.then_some(Http2Violation::ControlFlood)
    }
}

impl AsyncRead for Http2Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.io.exchange().abort_reason().is_some() {
            // The connection is being closed: nothing more is read. `DeadlineTimer` ends the task.
            return Poll::Pending;
        }
        let before = buf.filled().len();
        ready!(self.io.poll_read_raw(cx, buf))?;
        if self.on_bytes_received(buf.filled().get(before..).unwrap_or_default()) {
            Poll::Ready(Ok(()))
        } else {
            // `h2` must not process frames that exceed a limit.
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
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, bytes))?;
        self.registry.share_out(0, written, self.io.exchange());
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.registry.on_flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
