//! One request/response exchange: its phase, the deadlines that apply, and how it ends.
//!
//! On HTTP/1 a connection has one exchange, which restarts with each request; between two requests it is idle. On
//! HTTP/2 each stream has its own exchange, and the connection has another one that carries no request: its phases
//! are those of the connection itself.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use super::buffered_socket::WriteProgress;
use super::connection::Connection;
use super::deadlines::Deadlines;
use super::graceful_close::GracefulClose;
use super::local_reply::LocalReply;
use super::phase::{AbortReason, Phase};
use super::request_progress::RequestProgress;
use super::scheduled_task::{BOUNDARY_TIMEOUT, ScheduledTask, TaskSlot};
use super::stream_boundary::{BoundaryScanner, StreamKind};
use super::watermark::Watermark;
use crate::clock;
use crate::config::DownstreamConfig;
use crate::fault::Fault;
use crate::pingora_compat::body_queue::{BodyQueue, BodySource};
use crate::pingora_compat::interim_responses::InterimResponses;
use crate::pingora_compat::tunnel::TunnelPacing;

/// The value of [`Exchange::abort_reason`] without an abort.
const NO_REASON: u8 = u8::MAX;

/// The idle time of an evicted connection: long enough for a request that is already on its way.
const EVICTION_GRACE: Duration = Duration::from_secs(1);

/// One request and its response, shared by the task that serves it, the byte stream below and the proxy's
/// hooks.
///
/// Only one task at a time uses an exchange; the fields are atomics because Pingora's traits require
/// `Send + Sync`. A task that sets a value for another one also wakes it, so `Relaxed` is enough.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// The connection that carries it.
    pub connection: Arc<Connection>,
    pub(super) is_http2_stream: bool,
    pub(super) deadlines: Deadlines,
    request: RequestProgress,
    /// An [`AbortReason`], or [`NO_REASON`].
    abort_reason: AtomicU8,
    /// The response to an aborted request; the exchange ends with it.
    local_reply: OnceLock<Box<LocalReply>>,
    lingering_close: AtomicBool,
    /// No request follows on the connection after this one.
    keepalive_forbidden: AtomicBool,
    reset_on_close: AtomicBool,
    pub(super) graceful_close: GracefulClose,
    /// Keeps the request's key active while the request is in progress.
    pub affinity_task: TaskSlot,
    /// The request's body on its way from Pingora to a peer.
    pub body_queue: BodyQueue,
    /// The interim responses of a peer that Pingora has passed on.
    pub(super) interim_responses: InterimResponses,
    /// The connection's [`StreamShare`](super::connection::StreamShare) when the exchange began.
    pub(super) share_at_start: (u64, u64),
    /// In a tunnel: the bytes that are buffered for the peer, and those for the client.
    pub(super) to_peer: Watermark,
    pub(super) to_client: Watermark,
}

impl Exchange {
    /// The exchange of a new connection: its first request is due within the header time.
    pub(super) fn for_connection(connection: Arc<Connection>) -> Arc<Self> {
        let limit = connection.limits.header_timeout;
        let exchange = Self::new(connection, false);
        exchange.enter(Phase::Idle, Some(limit));
        Arc::new(exchange)
    }

    /// The exchange of an HTTP/2 stream; its request header is complete.
    pub(super) fn for_stream(connection: Arc<Connection>) -> Arc<Self> {
        let exchange = Self::new(connection, true);
        exchange.begin_request();
        Arc::new(exchange)
    }

    fn new(connection: Arc<Connection>, is_http2_stream: bool) -> Self {
        let limits = &connection.limits;
        Self {
            is_http2_stream,
            deadlines: Deadlines::new(limits.write_timeout, limits.min_body_rate),
            share_at_start: connection.stream_share.get(),
            connection,
            request: RequestProgress::new(),
            abort_reason: AtomicU8::new(NO_REASON),
            local_reply: OnceLock::new(),
            lingering_close: AtomicBool::new(false),
            keepalive_forbidden: AtomicBool::new(false),
            reset_on_close: AtomicBool::new(false),
            graceful_close: GracefulClose::default(),
            affinity_task: TaskSlot::default(),
            body_queue: BodyQueue::default(),
            interim_responses: InterimResponses::default(),
            to_peer: Watermark::default(),
            to_client: Watermark::default(),
        }
    }

    pub(super) fn limits(&self) -> &DownstreamConfig {
        &self.connection.limits
    }

    /// Whether this is the exchange of an HTTP/2 stream.
    pub(crate) fn is_http2_stream(&self) -> bool {
        self.is_http2_stream
    }
}

/// Phases and deadlines.
impl Exchange {
    /// The current phase.
    pub(crate) fn phase(&self) -> Phase {
        self.deadlines.phase()
    }

    /// Whether the protocol was upgraded.
    pub(super) fn is_tunnel(&self) -> bool {
        self.phase() == Phase::Tunnel
    }

    /// Enters a phase that must end within `limit`; `None`: unlimited.
    pub(crate) fn enter(&self, phase: Phase, limit: Option<Duration>) {
        if let Some(limit) = limit {
            return self.enter_at(phase, limit, clock::since_start());
        }
        self.deadlines.enter_unlimited(phase);
        if matches!(phase, Phase::Response | Phase::Tunnel) {
            self.begin_response();
        }
    }

    /// As [`enter`](Self::enter), at a time that is known.
    pub(crate) fn enter_at(&self, phase: Phase, limit: Duration, now: Duration) {
        self.deadlines.enter(phase, limit, now);
        if matches!(phase, Phase::Response | Phase::Tunnel) {
            self.begin_response();
        }
    }

    /// Restarts the phase's limit, because bytes were relayed.
    pub(crate) fn restart_phase_timer(&self) {
        self.deadlines.restart_phase(clock::since_start());
    }

    /// The header of a request is complete: starts the limit of the whole request.
    pub(crate) fn begin_request(&self) {
        self.deadlines.enter_unlimited(Phase::Request);
        self.deadlines.rates.start();
        self.limit_total(self.limits().request_timeout);
    }

    /// The protocol was upgraded: the tunnel's limits replace that of the request. Requests a lingering close too,
    /// because the client may be sending when the peer ends the tunnel.
    pub(crate) fn begin_tunnel(&self, idle: Duration, total: Option<Duration>, write: Duration) {
        self.enter(Phase::Tunnel, Some(idle));
        self.deadlines.rates.stop();
        self.deadlines.set_peer_write_limit(write);
        self.limit_total(total);
        self.request_lingering_close();
    }

    fn limit_total(&self, limit: Option<Duration>) {
        match limit {
            Some(limit) => self.deadlines.set_total(limit, clock::since_start()),
            None => self.deadlines.clear_total(),
        }
    }

    /// Shortens the limit of the whole request to `limit` from now; never lengthens it.
    pub(crate) fn cap_request_time(&self, limit: Duration) {
        self.deadlines.cap_total(limit, clock::since_start());
    }

    /// Time left for the whole request; `None`: unlimited.
    pub(crate) fn request_time_left(&self) -> Option<Duration> {
        self.deadlines.total_left(clock::since_start)
    }

    /// Begins to wait for the next request; a part of it may have arrived already (pipelining).
    pub(super) fn begin_keepalive(&self) {
        let limits = self.limits();
        self.deadlines.clear_total();
        self.deadlines.rates.stop();
        if self.request.begin_next(self.connection.bytes_in()) {
            self.enter(Phase::Header, Some(limits.header_timeout));
        } else {
            self.enter(Phase::Idle, Some(limits.keepalive));
        }
        self.graceful_close.reset();
        self.body_queue.clear();
        self.connection.socket.lock().shrink_buffer();
    }

    /// If the connection limit is reached, shortens the idle time to [`EVICTION_GRACE`].
    pub(super) fn shorten_idle_timeout(&self) {
        if self.connection.is_at_connection_limit() {
            self.deadlines.cap_phase(EVICTION_GRACE);
        }
    }

    /// When the timer must fire next, in nanoseconds of [`clock::since_start`].
    pub(super) fn next_wakeup(&self) -> u64 {
        let tasks = self.graceful_close.next_run();
        let tasks = tasks.min(self.affinity_task.next_run());
        self.deadlines.next().0.min(tasks)
    }

    /// Aborts the exchange if a deadline is reached; returns the reason.
    pub(super) fn expire(&self, now: Duration) -> Option<AbortReason> {
        self.credit_shares();
        let reason = self.deadlines.expired(now)?;
        self.abort(reason);
        Some(reason)
    }

    /// Runs the scheduled tasks that are due.
    pub(super) fn run_due_tasks(&self, now: Duration) {
        self.graceful_close.run_if_due(now);
        self.affinity_task.run_if_due(now);
    }
}

/// The bytes of the request, and whether a response has begun.
impl Exchange {
    /// Bytes were received; the first ones of a request start `header_timeout`.
    pub(super) fn on_bytes_received(&self, count: usize) {
        self.end_body_wait();
        if self.phase() != Phase::Idle {
            return;
        }
        if self.connection.bytes_in() == count as u64 {
            // For the first request, `header_timeout` runs from the accept.
            self.deadlines.set_phase(Phase::Header);
        } else {
            self.enter(Phase::Header, Some(self.limits().header_timeout));
        }
    }

    pub(super) fn header_is_too_large(&self) -> bool {
        self.phase() == Phase::Header
            && self.request.received(self.connection.bytes_in())
                > self.limits().max_header_size as u64
    }

    /// Sets the length of the request (header and body) in bytes; without a call it is unknown, as with a chunked
    /// body.
    pub(crate) fn set_request_length(&self, bytes: u64) {
        self.request.set_length(bytes);
    }

    /// The request ends before the last `unused` bytes that were received.
    pub(crate) fn end_request(&self, unused: usize) {
        let received = self.request.received(self.connection.bytes_in());
        self.request
            .set_length(received.saturating_sub(unused as u64));
    }

    /// The request's body was read to its end, or it has none.
    pub(crate) fn mark_body_complete(&self) {
        self.request.mark_body_complete();
    }

    /// The final response header begins: from now on no other status can be sent.
    pub(crate) fn begin_response(&self) {
        self.request.begin_response();
    }

    /// Whether a final response has begun; cleared between two requests.
    pub(crate) fn response_begun(&self) -> bool {
        self.request.response_begun()
    }

    /// The last piece of the final response was handed to the client's stream, or is handed to it now.
    pub(crate) fn complete_response(&self) {
        self.request.complete_response();
    }

    /// Whether the whole final response was sent: nothing that happens later is a failure of this exchange.
    pub(crate) fn response_complete(&self) -> bool {
        self.request.response_complete()
            && (self.is_http2_stream || !self.connection.socket.lock().has_unsent_bytes())
    }
}

/// Writes to the client and, in a tunnel, to the peer.
impl Exchange {
    /// Records a write to the client's socket.
    pub(super) fn on_write(&self, progress: WriteProgress, buffered: usize) {
        if progress.bytes_written > 0 {
            self.connection.add_bytes_out(progress.bytes_written);
            self.on_response_bytes(progress.bytes_written);
            self.to_client.set_buffered(buffered);
        }
        if progress.advanced {
            self.on_write_progress();
        }
        if progress.blocked {
            self.on_write_blocked();
        }
    }

    /// The client's side accepted bytes: writes to it are no longer blocked.
    pub(super) fn on_write_progress(&self) {
        if self.deadlines.is_client_blocked() {
            self.deadlines.unblock_client(clock::since_start());
        }
    }

    /// A write to the client is blocked: starts `write_timeout`, unless it runs already.
    pub(super) fn on_write_blocked(&self) {
        if !self.deadlines.is_client_blocked() {
            self.deadlines.block_client(clock::since_start());
        }
    }
}

/// The two directions of a tunnel.
impl Exchange {
    /// Records that `buffered` bytes wait for the peer, and whether it has taken some.
    pub(crate) fn on_peer_write(&self, buffered: usize, progress: bool) {
        self.to_peer.set_buffered(buffered);
        if buffered > 0 || progress {
            let now = clock::since_start();
            self.deadlines.on_peer_write(buffered > 0, progress, now);
        }
    }

    /// Ready while the client takes what the peer sends, so that more of it may be read.
    pub(crate) fn poll_client_writable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.to_client.poll_below(cx)
    }
}

/// For tunnels through Pingora.
impl TunnelPacing for Exchange {
    fn on_peer_write(&self, buffered: usize, progress: bool) {
        Self::on_peer_write(self, buffered, progress);
    }

    fn poll_client_writable(&self, cx: &mut Context<'_>) -> Poll<()> {
        Self::poll_client_writable(self, cx)
    }
}

impl BodySource for Exchange {
    fn body_queue(&self) -> &BodyQueue {
        &self.body_queue
    }

    fn interim_responses(&self) -> &InterimResponses {
        &self.interim_responses
    }
}

/// The abort and the close.
impl Exchange {
    /// The abort reason, if the exchange was aborted. Set before the session is dropped, so that the access log of
    /// an aborted request has it.
    pub(crate) fn abort_reason(&self) -> Option<AbortReason> {
        AbortReason::from_u8(self.abort_reason.load(Relaxed))
    }

    pub(super) fn abort(&self, reason: AbortReason) {
        self.abort_reason.store(reason as u8, Relaxed);
    }

    /// The client no longer waits for the response: aborts the exchange, unless it was aborted before. Any task may
    /// call this, and must then wake the task of the exchange.
    pub(super) fn on_client_gone(&self) {
        let gone = AbortReason::ClientGone as u8;
        let _ = self
            .abort_reason
            .compare_exchange(NO_REASON, gone, Relaxed, Relaxed);
    }

    /// Whether the exchange ends with a reset, without a response of our own: its HTTP/2 request is malformed.
    pub(crate) fn is_malformed(&self) -> bool {
        self.abort_reason() == Some(AbortReason::MalformedRequest)
    }

    /// Clears an abort: for a limit that does not end the exchange.
    pub(super) fn clear_abort(&self) {
        self.abort_reason.store(NO_REASON, Relaxed);
    }

    /// The fault for the abort; `None`: the exchange was not aborted. `body_sent`: the whole request body was
    /// sent to the peer.
    pub(crate) fn abort_fault(&self, body_sent: bool) -> Option<Fault> {
        match self.abort_reason()? {
            AbortReason::RequestTimeout if self.is_reply_due() && self.body_is_incomplete() => {
                Some(Fault::BodyTimeout)
            }
            reason => Some(reason.fault(body_sent)),
        }
    }

    /// Whether an aborted exchange ends with an error response: the client waits for one, and none has begun.
    pub(crate) fn is_reply_due(&self) -> bool {
        let awaits_response = matches!(
            self.abort_reason(),
            Some(
                AbortReason::HeaderTimeout
                    | AbortReason::HeaderTooLarge
                    | AbortReason::RequestTimeout
                    | AbortReason::BodyTooSlow
                    | AbortReason::FirstByteTimeout
            )
        );
        awaits_response && !self.response_begun()
    }

    /// Stores the response to an aborted request; it is sent after the session was dropped.
    pub(crate) fn set_local_reply(&self, reply: LocalReply) {
        // An exchange is aborted once, so no reply replaces another.
        let _ = self.local_reply.set(Box::new(reply));
    }

    /// The response to send after an abort: the stored one, or the plain error page. `None`: none is sent.
    pub(super) fn local_reply(&self) -> Option<LocalReply> {
        if !self.is_reply_due() {
            return None;
        }
        match self.local_reply.get() {
            Some(reply) => Some(LocalReply::clone(reply)),
            None => Some(LocalReply::page(self.abort_fault(true)?)),
        }
    }

    pub(super) fn body_is_incomplete(&self) -> bool {
        self.request.is_body_incomplete(self.connection.bytes_in())
    }

    /// Requests a lingering close: a client that is still sending must not get a reset before it has read the
    /// response (RFC 9112 §9.6).
    pub(crate) fn request_lingering_close(&self) {
        self.lingering_close.store(true, Relaxed);
    }

    /// Makes the connection of HTTP/1 close after this response.
    pub(crate) fn forbid_keepalive(&self) {
        self.keepalive_forbidden.store(true, Relaxed);
    }

    pub(super) fn is_keepalive_forbidden(&self) -> bool {
        self.keepalive_forbidden.load(Relaxed)
    }

    pub(super) fn wants_lingering_close(&self) -> bool {
        self.lingering_close.load(Relaxed)
    }

    /// Makes the close a reset. If the end of a body is the close of the connection, only a reset shows that the
    /// body is truncated; and for a client that does not read, the kernel would keep unsent bytes for minutes.
    pub(crate) fn reset_on_close(&self) {
        self.reset_on_close.store(true, Relaxed);
    }

    /// Whether the close is a reset: a limit was exceeded in the middle of a response or because the client does
    /// not read it, or [`Exchange::reset_on_close`] was called.
    pub(super) fn closes_with_reset(&self) -> bool {
        let is_truncated = match self.abort_reason() {
            Some(AbortReason::ClientWriteTimeout | AbortReason::PeerReadTimeout) => true,
            Some(AbortReason::RequestTimeout | AbortReason::FirstByteTimeout) => {
                self.response_begun()
            }
            Some(AbortReason::BodyTooSlow) => {
                self.response_begun() && !self.request.response_complete()
            }
            _ => false,
        };
        is_truncated || self.reset_on_close.load(Relaxed)
    }

    /// Starts `task`, which decides when to end the stream of this response; must be called before the response
    /// header is written. A tunnel gets 10 s beyond its total limit to reach a boundary.
    pub(crate) fn close_stream_by(
        &self,
        kind: StreamKind,
        task: Box<dyn ScheduledTask>,
        first_run: Duration,
    ) {
        let scanner = if self.is_http2_stream {
            BoundaryScanner::for_http2(kind)
        } else {
            BoundaryScanner::new(kind)
        };
        self.graceful_close.start(scanner, task, first_run);
        if self.is_tunnel() {
            self.deadlines.extend_total(BOUNDARY_TIMEOUT);
        }
    }

    /// Aborts a stream that shall close, if it is at a boundary and all its bytes were sent.
    pub(super) fn close_at_boundary(&self) {
        // On HTTP/2, `h2` has all bytes of the stream already; the socket may buffer bytes of other streams.
        if let Some(reason) = self.graceful_close.reason_at_boundary()
            && (self.is_http2_stream || self.connection.socket.lock().is_flushed())
        {
            self.abort(reason);
        }
    }

    /// How many of these bytes may be sent; `None`: the stream ends before them.
    pub(super) fn sendable_len(&self, bytes: &[u8]) -> Option<usize> {
        self.graceful_close.sendable_len(bytes)
    }

    /// These bytes of the response were sent.
    pub(super) fn on_bytes_sent(&self, bytes: &[u8]) {
        self.graceful_close.on_bytes_sent(bytes);
    }

    /// The bytes that tell the client that the stream has ended; empty in the middle of a message.
    pub(super) fn stream_end_marker(&self) -> &'static [u8] {
        self.graceful_close.end_marker()
    }
}

#[cfg(test)]
impl Exchange {
    /// The exchange of a new connection, and the client's end of the connection.
    pub(crate) fn for_test(
        limits: DownstreamConfig,
        limit: &Arc<super::ConnectionLimit>,
    ) -> (Arc<Self>, tokio::net::UnixStream) {
        let (socket, client) = tokio::net::UnixStream::pair().unwrap();
        let metrics = crate::telemetry::metrics::Metrics::new("1", jiff::Timestamp::UNIX_EPOCH);
        let (_, shutdown) = tokio::sync::watch::channel(false);
        let connection = Connection::new(
            (super::DownstreamSocket::Unix(socket), None),
            super::ConnectionInfo::default(),
            ("x".into(), Arc::new(metrics.listener("x"))),
            limit.acquire(),
            limits,
            shutdown,
        );
        (Self::for_connection(connection), client)
    }
}

#[cfg(test)]
mod tests {
    use super::super::connection_limit::ConnectionLimit;
    use super::super::time_cell::nanos;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn exchange(request_timeout: Option<Duration>) -> (Arc<Exchange>, tokio::net::UnixStream) {
        let limits = DownstreamConfig {
            request_timeout,
            ..DownstreamConfig::DEFAULT
        };
        Exchange::for_test(limits, &ConnectionLimit::new(None))
    }

    fn receive(exchange: &Exchange, count: usize) {
        exchange.connection.add_bytes_in(count);
        exchange.on_bytes_received(count);
    }

    /// The status that is sent after an abort.
    fn status(exchange: &Exchange) -> Option<u16> {
        Some(exchange.local_reply()?.status.as_u16())
    }

    #[track_caller]
    fn assert_due(exchange: &Exchange, limit: Duration, reason: AbortReason) {
        let (deadline, found) = exchange.deadlines.next();
        let left = deadline.saturating_sub(nanos(clock::since_start()));
        let left = Duration::from_nanos(left);
        assert_eq!(found, reason);
        assert!(left <= limit && limit < left + SECOND, "{left:?}");
    }

    #[tokio::test]
    async fn exchange_applies_the_configured_limit_of_each_phase() {
        let (exchange, _client) = exchange(Some(100 * SECOND));
        let limits = exchange.limits();
        assert_due(&exchange, limits.header_timeout, AbortReason::IdleTimeout);
        receive(&exchange, 1);
        assert_due(&exchange, limits.header_timeout, AbortReason::HeaderTimeout);
        exchange.begin_request();
        assert_due(&exchange, 100 * SECOND, AbortReason::RequestTimeout);
        exchange.begin_keepalive();
        assert_due(&exchange, limits.keepalive, AbortReason::IdleTimeout);
        exchange.begin_tunnel(7 * SECOND, None, 3 * SECOND);
        assert_due(&exchange, 7 * SECOND, AbortReason::TunnelIdleTimeout);
        exchange.begin_tunnel(7 * SECOND, Some(5 * SECOND), 3 * SECOND);
        assert_due(&exchange, 5 * SECOND, AbortReason::TunnelTotalTimeout);
        exchange.on_peer_write(1, false);
        assert_due(&exchange, 3 * SECOND, AbortReason::PeerWriteTimeout);
        exchange.on_peer_write(0, true);
        assert_due(&exchange, 5 * SECOND, AbortReason::TunnelTotalTimeout);
    }

    #[tokio::test]
    async fn exchange_request_deadline_can_only_be_shortened_by_the_client() {
        let (exchange, _client) = exchange(Some(100 * SECOND));
        assert_eq!(exchange.request_time_left(), None);
        exchange.begin_request();
        exchange.cap_request_time(200 * SECOND);
        assert_due(&exchange, 100 * SECOND, AbortReason::RequestTimeout);
        exchange.cap_request_time(10 * SECOND);
        assert_due(&exchange, 10 * SECOND, AbortReason::RequestTimeout);
        assert!(exchange.request_time_left().unwrap() <= 10 * SECOND);
        exchange.begin_keepalive();
        assert_eq!(exchange.request_time_left(), None);
    }

    #[tokio::test]
    async fn bytes_after_a_request_start_the_next_header_phase() {
        let (exchange, _client) = exchange(None);
        receive(&exchange, 100);
        exchange.begin_request();
        exchange.set_request_length(70);
        exchange.begin_keepalive();
        assert_eq!(exchange.phase(), Phase::Header);
        receive(&exchange, 20);
        exchange.begin_request();
        exchange.set_request_length(50);
        exchange.begin_keepalive();
        assert_eq!(exchange.phase(), Phase::Idle);
    }

    #[tokio::test]
    async fn client_is_waited_for_only_while_its_body_is_due() {
        let (exchange, _client) = exchange(None);
        let nothing_is_due = || assert_eq!(exchange.deadlines.next().0, u64::MAX);
        receive(&exchange, 100);
        exchange.begin_request();
        exchange.set_request_length(110);
        exchange.on_read_blocked();
        assert_due(&exchange, 5 * SECOND, AbortReason::BodyTooSlow);
        receive(&exchange, 9);
        nothing_is_due();
        exchange.on_read_blocked();
        assert_due(&exchange, 5 * SECOND, AbortReason::BodyTooSlow);
        receive(&exchange, 1);
        exchange.on_read_blocked();
        nothing_is_due();
        exchange.set_request_length(120);
        exchange.lift_min_body_rate();
        exchange.on_read_blocked();
        nothing_is_due();
    }

    #[tokio::test]
    async fn stream_below_the_rate_is_ended_only_if_its_share_of_the_connection_is_too() {
        let (exchange, _client) = exchange(None);
        let stream = Exchange::for_stream(Arc::clone(&exchange.connection));
        stream.on_read_blocked();
        let now = clock::since_start();
        // 2,400 bytes for each of 10 streams: 10 s at the rate.
        exchange.connection.stream_share.add(24_000, 0, 10);
        assert_eq!(stream.expire(now + 6 * SECOND), None);
        let reason = stream.expire(now + 11 * SECOND);
        assert_eq!(reason, Some(AbortReason::BodyTooSlow));
        assert_eq!(status(&stream), Some(408));
    }

    #[tokio::test]
    async fn error_status_is_sent_only_before_a_response_started() {
        let (exchange, _client) = exchange(None);
        receive(&exchange, 100);
        exchange.begin_request();
        assert_eq!(status(&exchange), None);
        exchange.abort(AbortReason::RequestTimeout);
        exchange.set_request_length(101);
        assert_eq!(status(&exchange), Some(408), "the body is due");
        exchange.set_request_length(100);
        assert_eq!(status(&exchange), Some(504));
        exchange.begin_response();
        assert_eq!(status(&exchange), None);
    }

    #[tokio::test]
    async fn client_that_leaves_does_not_replace_the_reason_of_an_abort() {
        let (exchange, _client) = exchange(None);
        exchange.abort(AbortReason::RequestTimeout);
        exchange.on_client_gone();
        assert_eq!(exchange.abort_reason(), Some(AbortReason::RequestTimeout));
        exchange.clear_abort();
        exchange.on_client_gone();
        assert_eq!(exchange.abort_reason(), Some(AbortReason::ClientGone));
    }
}
