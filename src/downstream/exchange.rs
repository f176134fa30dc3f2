//! One request and its response: how far it has come, and until when it may take.
//!
//! On HTTP/1 a connection has one exchange, which begins anew with each request and waits for the next
//! one in between. On HTTP/2 each stream has its own, and the connection one that carries no request:
//! its phases are those of the connection itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use super::body_queue::BodyQueue;
use super::periodic::PeriodicTimer;
use super::phase::{AbortReason, Phase};
use super::stream_policy::StreamPolicyState;
use super::watermark::Watermark;
use super::{Connection, Limits};
use crate::clock;

/// No deadline: later than any process lives.
pub(super) const NEVER: u64 = u64::MAX;

/// A request's length that only its last chunk tells.
const UNKNOWN_LENGTH: u64 = u64::MAX;

/// No cause: nothing has expired.
const NO_REASON: u8 = u8::MAX;

/// How long a client that waits for a place lets a connection be idle: long enough for a request
/// that is on its way.
const EVICTION_GRACE: Duration = Duration::from_secs(1);

/// One request and its response, shared by the task that serves it, the stream below and the proxy's
/// hooks.
///
/// One task works on an exchange at a time, so the atomics only carry values between the layers of
/// that task (through Pingora's `Send + Sync` bounds), or from one that wakes it; `Relaxed` is enough
/// for them.
#[derive(Debug)]
pub struct Exchange {
    /// The connection that it is on.
    pub connection: Arc<Connection>,
    /// It is a stream among others on that connection.
    is_http2_stream: bool,
    phase: AtomicU8,
    /// How long the phase may take, when it must be over, and when the whole request; the latter two
    /// in nanoseconds of [`clock::since_start`].
    phase_limit: AtomicU64,
    phase_deadline: AtomicU64,
    request_deadline: AtomicU64,
    /// Since when a write waits for the client; [`NEVER`]: none does.
    write_blocked_since: AtomicU64,
    /// A [`Cause`], or [`NONE`].
    abort_reason: AtomicU8,
    /// What [`Connection::bytes_in`] was where the request begins, and the request's whole length.
    request_offset: AtomicU64,
    request_length: AtomicU64,
    /// The body of a request whose length is [`UNTOLD`] has been read to its end.
    body_complete: AtomicBool,
    response_begun: AtomicBool,
    /// The client may still be sending when the connection is closed: see [`Exchange::linger`].
    lingering_close: AtomicBool,
    reset_on_close: AtomicBool,
    /// Whether the stream that it carries may stay.
    pub(super) stream_policy: StreamPolicyState,
    /// What is done from time to time while a request goes on.
    pub(super) periodic: PeriodicTimer,
    /// What waits of the request's body for a peer, on a stream.
    pub body_queue: BodyQueue,
    /// In a tunnel: what waits for the peer, and what for the client.
    pub(super) to_peer: Watermark,
    pub(super) to_client: Watermark,
    /// Since when the peer takes nothing of what it is sent there, and how long it may be so.
    peer_write_blocked_since: AtomicU64,
    peer_write_limit: AtomicU64,
}

impl Exchange {
    /// What a connection begins with: its first request is due within the header time.
    pub(super) fn for_connection(connection: Arc<Connection>) -> Arc<Self> {
        let limit = connection.limits.header_timeout;
        let exchange = Self::new(connection, false);
        exchange.enter(Phase::Idle, Some(limit));
        Arc::new(exchange)
    }

    /// A stream whose request's header is complete.
    pub(super) fn for_stream(connection: Arc<Connection>) -> Arc<Self> {
        let exchange = Self::new(connection, true);
        exchange.begin_request();
        Arc::new(exchange)
    }

    fn new(connection: Arc<Connection>, is_stream: bool) -> Self {
        Self {
            connection,
            is_http2_stream: is_stream,
            phase: AtomicU8::new(Phase::Idle as u8),
            phase_limit: AtomicU64::new(NEVER),
            phase_deadline: AtomicU64::new(NEVER),
            request_deadline: AtomicU64::new(NEVER),
            write_blocked_since: AtomicU64::new(NEVER),
            abort_reason: AtomicU8::new(NO_REASON),
            request_offset: AtomicU64::new(0),
            request_length: AtomicU64::new(UNKNOWN_LENGTH),
            body_complete: AtomicBool::new(false),
            response_begun: AtomicBool::new(false),
            lingering_close: AtomicBool::new(false),
            reset_on_close: AtomicBool::new(false),
            stream_policy: StreamPolicyState::default(),
            periodic: PeriodicTimer::default(),
            body_queue: BodyQueue::default(),
            to_peer: Watermark::default(),
            to_client: Watermark::default(),
            peer_write_blocked_since: AtomicU64::new(NEVER),
            peer_write_limit: AtomicU64::new(NEVER),
        }
    }

    /// The phase that the request is in.
    pub fn phase(&self) -> Phase {
        Phase::from_u8(self.phase.load(Relaxed))
    }

    /// Enters a phase that must be over within `limit`; `None`: it may take any time.
    pub fn enter(&self, phase: Phase, limit: Option<Duration>) {
        self.phase.store(phase as u8, Relaxed);
        self.phase_limit.store(limit.map_or(NEVER, nanos), Relaxed);
        self.restart_phase_timer();
        if matches!(phase, Phase::Response | Phase::Tunnel) {
            self.begin_response();
        }
    }

    /// The phase's limit begins anew: something passed.
    pub fn restart_phase_timer(&self) {
        let deadline = match self.phase_limit.load(Relaxed) {
            NEVER => NEVER,
            limit => now_nanos().saturating_add(limit),
        };
        self.phase_deadline.store(deadline, Relaxed);
    }

    /// The header of a request is complete: from here on the whole request is on the clock.
    pub fn begin_request(&self) {
        self.enter(Phase::Request, None);
        let limit = self.limits().request_timeout;
        self.request_deadline
            .store(limit.map_or(NEVER, deadline_after), Relaxed);
    }

    /// The client waits for no longer than that; the whole request may take less already.
    pub fn cap_request_time(&self, limit: Duration) {
        self.request_deadline
            .fetch_min(deadline_after(limit), Relaxed);
    }

    /// How long the whole request may still take; `None`: as long as it likes.
    pub fn request_time_left(&self) -> Option<Duration> {
        match self.request_deadline.load(Relaxed) {
            NEVER => None,
            deadline => Some(Duration::from_nanos(deadline.saturating_sub(now_nanos()))),
        }
    }

    /// How many bytes the request has in all, header and body; unknown until told, as it is with a
    /// chunked body.
    pub fn set_request_length(&self, bytes: u64) {
        self.request_length.store(bytes, Relaxed);
    }

    /// The request's body was read to its end, or there is none.
    pub fn mark_body_complete(&self) {
        self.body_complete.store(true, Relaxed);
    }

    /// Final head begun: from here on the client can be told no other status.
    pub fn begin_response(&self) {
        self.response_begun.store(true, Relaxed);
    }

    /// Whether a final response has begun; cleared between two requests.
    pub fn response_begun(&self) -> bool {
        self.response_begun.load(Relaxed)
    }

    /// The protocol was upgraded: the whole-request limit no longer holds, but the tunnel's own. The
    /// client may be sending whenever the peer ends it.
    pub fn begin_tunnel(&self, idle: Duration, total: Option<Duration>, write: Duration) {
        self.enter(Phase::Tunnel, Some(idle));
        self.peer_write_limit.store(nanos(write), Relaxed);
        self.request_deadline
            .store(total.map_or(NEVER, deadline_after), Relaxed);
        self.request_lingering_close();
    }

    /// A tunnel that can be ended politely has so long beyond its time for coming to a place where it can.
    pub(super) fn extend_tunnel_deadline(&self, grace: Duration) {
        if self.phase() == Phase::Tunnel {
            let deadline = self.request_deadline.load(Relaxed);
            let later = deadline.saturating_add(nanos(grace));
            self.request_deadline.store(later, Relaxed);
        }
    }

    /// Which limit was passed, if one was. Known before the session is dropped, so that what is
    /// recorded of a request that was cut is what happened.
    pub fn abort_reason(&self) -> Option<AbortReason> {
        AbortReason::from_u8(self.abort_reason.load(Relaxed))
    }

    /// The status that the client of an expired exchange is sent; `None`: nothing is said, or
    /// nothing more, as a response has begun.
    pub fn abort_status(&self) -> Option<u16> {
        match self.abort_reason()? {
            _ if self.response_begun() => None,
            AbortReason::HeaderTimeout => Some(408),
            AbortReason::HeaderTooLarge => Some(431),
            AbortReason::RequestTimeout if self.body_is_incomplete() => Some(408),
            AbortReason::RequestTimeout | AbortReason::FirstByteTimeout => Some(504),
            AbortReason::IdleTimeout
            | AbortReason::PeerReadTimeout
            | AbortReason::TunnelIdleTimeout
            | AbortReason::TunnelTotalTimeout
            | AbortReason::PeerWriteTimeout
            | AbortReason::ClientWriteTimeout
            | AbortReason::KeyMoved
            | AbortReason::Http2Abuse
            | AbortReason::ClientGone => None,
        }
    }

    /// Asks for a lingering close: a client that is still sending must not get a reset before it has
    /// read what it was sent (RFC 9112, 9.6).
    pub fn request_lingering_close(&self) {
        self.lingering_close.store(true, Relaxed);
    }

    /// Makes the close a reset. A body that ends with the connection has no other way to say that it
    /// is not whole, and a client that takes nothing would hold the kernel's memory for minutes.
    pub fn reset_on_close(&self) {
        self.reset_on_close.store(true, Relaxed);
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.connection.limits
    }

    /// Whether it is a stream of HTTP/2.
    pub fn is_http2_stream(&self) -> bool {
        self.is_http2_stream
    }

    pub(super) fn wants_lingering_close(&self) -> bool {
        self.lingering_close.load(Relaxed)
    }

    /// A limit was passed in the middle of a response, or because the client takes nothing of it; or
    /// the response itself has asked for a cut.
    pub(super) fn closes_with_reset(&self) -> bool {
        let expired = match self.abort_reason() {
            Some(AbortReason::ClientWriteTimeout | AbortReason::PeerReadTimeout) => true,
            Some(AbortReason::RequestTimeout | AbortReason::FirstByteTimeout) => {
                self.response_begun()
            }
            _ => false,
        };
        expired || self.reset_on_close.load(Relaxed)
    }

    /// Back to waiting for a request, between two of them. What came after the last one's end is
    /// the next one's header already.
    pub(super) fn begin_keepalive(&self) {
        let received = self.connection.bytes_in();
        let end = match self.request_length.swap(UNKNOWN_LENGTH, Relaxed) {
            UNKNOWN_LENGTH => received,
            length => (self.request_offset.load(Relaxed).saturating_add(length)).min(received),
        };
        self.request_offset.store(end, Relaxed);
        self.body_complete.store(false, Relaxed);
        self.response_begun.store(false, Relaxed);
        self.request_deadline.store(NEVER, Relaxed);
        if end < received {
            self.enter(Phase::Header, Some(self.limits().header_timeout));
        } else {
            self.enter(Phase::Idle, Some(self.limits().keepalive));
        }
        self.end_stream_policy();
        self.connection.socket.lock().shrink_buffer();
    }

    /// Others wait for a place: this connection, which is idle, is so no longer than [`GRACE`].
    pub(super) fn shorten_idle_timeout(&self) {
        if self.connection.is_at_connection_limit() {
            let deadline = self.phase_deadline.load(Relaxed);
            let since = deadline.saturating_sub(self.phase_limit.load(Relaxed));
            let soon = since.saturating_add(nanos(EVICTION_GRACE));
            self.phase_deadline.store(deadline.min(soon), Relaxed);
        }
    }

    /// When the next limit is passed, and what that means.
    pub(super) fn next_deadline(&self) -> (u64, AbortReason) {
        let phase = self.phase();
        let blocked = self.write_blocked_since.load(Relaxed);
        let stalled = blocked.saturating_add(nanos(self.limits().write_timeout));
        // A gap in the response is not the peer's while the client does not take what is there.
        let excused = phase == Phase::Response && blocked != NEVER;
        let own = if excused {
            NEVER
        } else {
            self.phase_deadline.load(Relaxed)
        };
        let request = self.request_deadline.load(Relaxed);
        let first = earlier(
            (own, phase.phase_timeout_reason()),
            (request, phase.total_timeout_reason()),
        );
        let first = earlier(first, (stalled, AbortReason::ClientWriteTimeout));
        let blocked = self.peer_write_blocked_since.load(Relaxed);
        let stalled = blocked.saturating_add(self.peer_write_limit.load(Relaxed));
        earlier(first, (stalled, AbortReason::PeerWriteTimeout))
    }

    pub(super) fn abort(&self, cause: AbortReason) {
        self.abort_reason.store(cause as u8, Relaxed);
    }

    /// Nobody waits for the response; unless a limit was passed before. May be called by any task, which
    /// is to wake the one that works on the exchange.
    pub(super) fn on_client_gone(&self) {
        let gone = AbortReason::ClientGone as u8;
        let _ = self
            .abort_reason
            .compare_exchange(NO_REASON, gone, Relaxed, Relaxed);
    }

    /// The limit that was passed had a consequence other than the end.
    pub(super) fn clear_abort(&self) {
        self.abort_reason.store(NO_REASON, Relaxed);
    }

    fn body_is_incomplete(&self) -> bool {
        match self.request_length.load(Relaxed) {
            UNKNOWN_LENGTH => !self.body_complete.load(Relaxed),
            length => self.request_bytes_received() < length,
        }
    }

    pub(super) fn header_is_too_large(&self) -> bool {
        self.phase() == Phase::Header
            && self.request_bytes_received() > self.limits().max_header_size as u64
    }

    fn request_bytes_received(&self) -> u64 {
        let received = self.connection.bytes_in();
        received.saturating_sub(self.request_offset.load(Relaxed))
    }

    /// Bytes came in; the first ones of a request start its header's time.
    pub(super) fn on_bytes_received(&self, count: usize) {
        if self.phase() != Phase::Idle {
            return;
        }
        if self.connection.bytes_in() == count as u64 {
            // The time of the first header runs since the accept.
            self.phase.store(Phase::Header as u8, Relaxed);
        } else {
            self.enter(Phase::Header, Some(self.limits().header_timeout));
        }
    }

    /// The client took something. Where that took it a while, the phase's limit begins anew: what is
    /// relayed could not flow meanwhile.
    pub(super) fn on_write_progress(&self) {
        if self.write_blocked_since.load(Relaxed) == NEVER {
            return;
        }
        self.write_blocked_since.store(NEVER, Relaxed);
        if matches!(self.phase(), Phase::Response | Phase::Tunnel) {
            self.restart_phase_timer();
        }
    }

    /// The client does not take what it is sent; its time to do so starts with the first refusal.
    pub(super) fn on_write_blocked(&self) {
        if self.write_blocked_since.load(Relaxed) == NEVER {
            self.write_blocked_since.store(now_nanos(), Relaxed);
        }
    }

    /// In a tunnel: whether something waits for the peer, and whether it has just taken something.
    pub fn on_peer_write(&self, waiting: usize, progress: bool) {
        self.to_peer.set_buffered(waiting);
        if progress {
            self.restart_phase_timer();
        }
        if waiting == 0 {
            self.peer_write_blocked_since.store(NEVER, Relaxed);
        } else if progress || self.peer_write_blocked_since.load(Relaxed) == NEVER {
            self.peer_write_blocked_since.store(now_nanos(), Relaxed);
        }
    }

    /// In a tunnel: whether the client takes what the peer sends, so that more of it may be read.
    pub fn poll_client_writable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.to_client.poll_below(cx)
    }

    pub(super) fn is_tunnel(&self) -> bool {
        self.phase() == Phase::Tunnel
    }

    /// Sends what waits to be sent.
    pub(super) fn flush_pending(&self, cx: &mut Context<'_>) {
        self.connection.socket.lock().flush_pending(self, cx);
    }
}

fn earlier(one: (u64, AbortReason), other: (u64, AbortReason)) -> (u64, AbortReason) {
    if other.0 < one.0 { other } else { one }
}

pub(super) fn now_nanos() -> u64 {
    nanos(clock::since_start())
}

pub(super) fn deadline_after(limit: Duration) -> u64 {
    nanos(clock::since_start().saturating_add(limit))
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(NEVER - 1)
}

#[cfg(test)]
impl Exchange {
    /// That of a connection, and the client's end of it.
    pub(crate) fn for_test(
        limits: Limits,
        gate: &Arc<super::ConnectionLimit>,
    ) -> (Arc<Self>, tokio::net::UnixStream) {
        let (ours, clients) = tokio::net::UnixStream::pair().unwrap();
        let metrics = crate::telemetry::metrics::Metrics::new("1", jiff::Timestamp::UNIX_EPOCH);
        let (_, shutdown) = tokio::sync::watch::channel(false);
        let connection = Connection::new(
            (super::DownstreamSocket::Unix(ours), None),
            super::ConnectionInfo::default(),
            ("x".into(), Arc::new(metrics.listener("x"))),
            gate.acquire(),
            limits,
            shutdown,
        );
        (Self::for_connection(connection), clients)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::super::connection_limit::ConnectionLimit;
    use super::super::deadline_timer::{DeadlineTimer, drive_connection};
    use super::super::io::DownstreamIo;
    use super::super::serve;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn received(exchange: &Exchange, count: usize) {
        let connection = &exchange.connection;
        connection.bytes_in.fetch_add(count as u64, Relaxed);
        exchange.on_bytes_received(count);
    }

    fn left(exchange: &Exchange) -> (Duration, AbortReason) {
        let (deadline, cause) = exchange.next_deadline();
        (
            Duration::from_nanos(deadline.saturating_sub(now_nanos())),
            cause,
        )
    }

    #[track_caller]
    fn assert_due(exchange: &Exchange, limit: Duration, cause: AbortReason) {
        let (left, found) = left(exchange);
        assert_eq!(found, cause);
        assert!(left <= limit && limit < left + SECOND, "{left:?}");
    }

    #[tokio::test]
    async fn exchange_phase_has_its_own_deadline_and_abort_reason() {
        let limits = Limits {
            request_timeout: Some(100 * SECOND),
            ..Limits::DEFAULT
        };
        let (exchange, _client) = Exchange::for_test(limits, &ConnectionLimit::new(None));
        assert_due(&exchange, limits.header_timeout, AbortReason::IdleTimeout);
        received(&exchange, 1);
        assert_due(&exchange, limits.header_timeout, AbortReason::HeaderTimeout);
        exchange.begin_request();
        assert_due(&exchange, 100 * SECOND, AbortReason::RequestTimeout);
        exchange.enter(Phase::AwaitResponse, Some(7 * SECOND));
        assert_due(&exchange, 7 * SECOND, AbortReason::FirstByteTimeout);
        exchange.enter(Phase::Response, Some(8 * SECOND));
        assert_due(&exchange, 8 * SECOND, AbortReason::PeerReadTimeout);
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
        let limits = Limits {
            request_timeout: Some(100 * SECOND),
            ..Limits::DEFAULT
        };
        let (exchange, _client) = Exchange::for_test(limits, &ConnectionLimit::new(None));
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
    async fn response_gap_counts_against_the_peer_only_while_the_client_reads() {
        let (exchange, _client) = Exchange::for_test(Limits::DEFAULT, &ConnectionLimit::new(None));
        exchange.enter(Phase::Response, Some(SECOND));
        exchange.phase_deadline.store(0, Relaxed); // as if the gap were over
        exchange.on_write_blocked();
        let stall = Limits::DEFAULT.write_timeout;
        assert_due(&exchange, stall, AbortReason::ClientWriteTimeout);
        exchange.on_write_progress();
        assert_due(&exchange, SECOND, AbortReason::PeerReadTimeout);
    }

    #[tokio::test]
    async fn bytes_after_a_request_start_the_next_header_phase() {
        let (exchange, _client) = Exchange::for_test(Limits::DEFAULT, &ConnectionLimit::new(None));
        received(&exchange, 100);
        exchange.begin_request();
        exchange.set_request_length(70);
        exchange.begin_keepalive();
        assert_eq!(exchange.phase(), Phase::Header);
        assert_eq!(exchange.request_bytes_received(), 30);
        received(&exchange, 20);
        exchange.begin_request();
        exchange.set_request_length(50);
        exchange.begin_keepalive();
        assert_eq!(exchange.phase(), Phase::Idle);
    }

    #[tokio::test]
    async fn error_status_is_sent_only_before_a_response_started() {
        let (exchange, _client) = Exchange::for_test(Limits::DEFAULT, &ConnectionLimit::new(None));
        received(&exchange, 100);
        exchange.begin_request();
        assert_eq!(exchange.abort_status(), None);
        exchange.abort(AbortReason::RequestTimeout);
        exchange.set_request_length(101);
        assert_eq!(exchange.abort_status(), Some(408), "the body is due");
        exchange.set_request_length(100);
        assert_eq!(exchange.abort_status(), Some(504));
        exchange.begin_response();
        assert_eq!(exchange.abort_status(), None);
    }

    #[tokio::test]
    async fn buffered_output_is_sent_after_the_session_is_dropped() {
        let (exchange, mut client) =
            Exchange::for_test(Limits::DEFAULT, &ConnectionLimit::new(None));
        let mut stream = DownstreamIo::new(Arc::clone(&exchange)).unwrap();
        stream.write_all(b"head").await.unwrap();
        drop(stream);
        assert_eq!(exchange.connection.bytes_out(), 0, "gathered, not sent");
        serve::close(&exchange, b"").await;
        let mut read = Vec::new();
        client.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"head");
    }

    #[tokio::test]
    async fn buffered_output_is_sent_when_the_session_waits_without_reading() {
        let (exchange, mut client) =
            Exchange::for_test(Limits::DEFAULT, &ConnectionLimit::new(None));
        let mut stream = DownstreamIo::new(Arc::clone(&exchange)).unwrap();
        let mut work = Box::pin(async {
            stream.write_all(b"head").await.unwrap();
            std::future::pending::<()>().await;
        });
        let mut watch = DeadlineTimer::new();
        let mut tended = Box::pin(drive_connection(&exchange, &mut work));
        let mut guard = Box::pin(watch.run_until_deadline(&exchange, &mut tended));
        poll_fn(|cx| {
            assert!(guard.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        let mut read = [0; 4];
        client.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"head");
    }

    #[tokio::test]
    async fn write_buffer_shrinks_when_the_connection_is_idle() {
        let (exchange, _client) = Exchange::for_test(Limits::DEFAULT, &ConnectionLimit::new(None));
        let mut stream = DownstreamIo::new(Arc::clone(&exchange)).unwrap();
        stream.write_all(&[0; 10_000]).await.unwrap();
        stream.flush().await.unwrap();
        exchange.begin_keepalive();
        assert_eq!(exchange.connection.socket.lock().capacity(), 0);
    }

    #[tokio::test]
    async fn idle_eviction_selects_the_connection_idle_longest() {
        let gate = ConnectionLimit::new(Some(2));
        let _guests = [gate.acquire(), gate.acquire()];
        let (mut first, mut second) = (gate.idle_eviction(), gate.idle_eviction());
        poll_fn(|cx| {
            assert!(first.poll_evicted(cx).is_pending());
            assert!(second.poll_evicted(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        gate.evict_idle_and_wait(Duration::ZERO).await;
        poll_fn(|cx| {
            assert!(first.poll_evicted(cx).is_ready());
            assert!(second.poll_evicted(cx).is_pending());
            Poll::Ready(())
        })
        .await;
    }
}
