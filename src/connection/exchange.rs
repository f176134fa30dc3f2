//! One request and its response: how far it has come, and until when it may take.
//!
//! On HTTP/1 a connection has one exchange, which begins anew with each request and waits for the next
//! one in between. On HTTP/2 each stream has its own, and the connection one that carries no request:
//! its phases are those of the connection itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use super::flow::Flow;
use super::phase::{Cause, Phase};
use super::pulse::Heart;
use super::tenure::Stay;
use super::upload::Upload;
use super::{Connection, Limits};
use crate::clock;

/// No deadline: later than any process lives.
pub(super) const NEVER: u64 = u64::MAX;

/// A request's length that only its last chunk tells.
const UNTOLD: u64 = u64::MAX;

/// No cause: nothing has expired.
const NONE: u8 = u8::MAX;

/// How long a client that waits for a place lets a connection be idle: long enough for a request
/// that is on its way.
const GRACE: Duration = Duration::from_secs(1);

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
    is_stream: bool,
    phase: AtomicU8,
    /// How long the phase may take, when it must be over, and when the whole request; the latter two
    /// in nanoseconds of [`clock::since_start`].
    limit: AtomicU64,
    deadline: AtomicU64,
    request_deadline: AtomicU64,
    /// Since when a write waits for the client; [`NEVER`]: none does.
    blocked_since: AtomicU64,
    /// A [`Cause`], or [`NONE`].
    expired: AtomicU8,
    /// What [`Connection::bytes_in`] was where the request begins, and the request's whole length.
    begins_at: AtomicU64,
    length: AtomicU64,
    /// The body of a request whose length is [`UNTOLD`] has been read to its end.
    body_complete: AtomicBool,
    response_begun: AtomicBool,
    /// The client may still be sending when the connection is closed: see [`Exchange::linger`].
    linger: AtomicBool,
    cut_hard: AtomicBool,
    /// Whether the stream that it carries may stay.
    pub(super) stay: Stay,
    /// What is done from time to time while a request goes on.
    pub(super) heart: Heart,
    /// What waits of the request's body for a peer, on a stream.
    pub upload: Upload,
    /// In a tunnel: what waits for the peer, and what for the client.
    pub(super) inward: Flow,
    pub(super) outward: Flow,
    /// Since when the peer takes nothing of what it is sent there, and how long it may be so.
    peer_blocked_since: AtomicU64,
    peer_limit: AtomicU64,
}

impl Exchange {
    /// What a connection begins with: its first request is due within the header time.
    pub(super) fn first(connection: Arc<Connection>) -> Arc<Self> {
        let limit = connection.limits.header_timeout;
        let exchange = Self::new(connection, false);
        exchange.enter(Phase::Idle, Some(limit));
        Arc::new(exchange)
    }

    /// A stream whose request's header is complete.
    pub(super) fn of_stream(connection: Arc<Connection>) -> Arc<Self> {
        let exchange = Self::new(connection, true);
        exchange.begin_request();
        Arc::new(exchange)
    }

    fn new(connection: Arc<Connection>, is_stream: bool) -> Self {
        Self {
            connection,
            is_stream,
            phase: AtomicU8::new(Phase::Idle as u8),
            limit: AtomicU64::new(NEVER),
            deadline: AtomicU64::new(NEVER),
            request_deadline: AtomicU64::new(NEVER),
            blocked_since: AtomicU64::new(NEVER),
            expired: AtomicU8::new(NONE),
            begins_at: AtomicU64::new(0),
            length: AtomicU64::new(UNTOLD),
            body_complete: AtomicBool::new(false),
            response_begun: AtomicBool::new(false),
            linger: AtomicBool::new(false),
            cut_hard: AtomicBool::new(false),
            stay: Stay::default(),
            heart: Heart::default(),
            upload: Upload::default(),
            inward: Flow::default(),
            outward: Flow::default(),
            peer_blocked_since: AtomicU64::new(NEVER),
            peer_limit: AtomicU64::new(NEVER),
        }
    }

    /// The phase that the request is in.
    pub fn phase(&self) -> Phase {
        Phase::from_u8(self.phase.load(Relaxed))
    }

    /// Enters a phase that must be over within `limit`; `None`: it may take any time.
    pub fn enter(&self, phase: Phase, limit: Option<Duration>) {
        self.phase.store(phase as u8, Relaxed);
        self.limit.store(limit.map_or(NEVER, nanos), Relaxed);
        self.restart();
        if matches!(phase, Phase::Response | Phase::Tunnel) {
            self.begin_response();
        }
    }

    /// The phase's limit begins anew: something passed.
    pub fn restart(&self) {
        let deadline = match self.limit.load(Relaxed) {
            NEVER => NEVER,
            limit => now().saturating_add(limit),
        };
        self.deadline.store(deadline, Relaxed);
    }

    /// The header of a request is complete: from here on the whole request is on the clock.
    pub fn begin_request(&self) {
        self.enter(Phase::Request, None);
        let limit = self.limits().request_timeout;
        self.request_deadline
            .store(limit.map_or(NEVER, after), Relaxed);
    }

    /// The client waits for no longer than that; the whole request may take less already.
    pub fn bound_request(&self, limit: Duration) {
        self.request_deadline.fetch_min(after(limit), Relaxed);
    }

    /// How long the whole request may still take; `None`: as long as it likes.
    pub fn time_left(&self) -> Option<Duration> {
        match self.request_deadline.load(Relaxed) {
            NEVER => None,
            deadline => Some(Duration::from_nanos(deadline.saturating_sub(now()))),
        }
    }

    /// How many bytes the request has in all, header and body; unknown until told, as it is with a
    /// chunked body.
    pub fn set_request_length(&self, bytes: u64) {
        self.length.store(bytes, Relaxed);
    }

    /// The request's body was read to its end, or there is none.
    pub fn complete_body(&self) {
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
        self.peer_limit.store(nanos(write), Relaxed);
        self.request_deadline
            .store(total.map_or(NEVER, after), Relaxed);
        self.linger();
    }

    /// A tunnel that can be ended politely has so long beyond its time for coming to a place where it can.
    pub(super) fn grant(&self, grace: Duration) {
        if self.phase() == Phase::Tunnel {
            let deadline = self.request_deadline.load(Relaxed);
            let later = deadline.saturating_add(nanos(grace));
            self.request_deadline.store(later, Relaxed);
        }
    }

    /// Which limit was passed, if one was. Known before the session is dropped, so that what is
    /// recorded of a request that was cut is what happened.
    pub fn expired(&self) -> Option<Cause> {
        Cause::from_u8(self.expired.load(Relaxed))
    }

    /// The status that the client of an expired exchange is sent; `None`: nothing is said, or
    /// nothing more, as a response has begun.
    pub fn last_word(&self) -> Option<u16> {
        match self.expired()? {
            _ if self.response_begun() => None,
            Cause::Header => Some(408),
            Cause::HeaderTooLarge => Some(431),
            Cause::Request if self.body_is_due() => Some(408),
            Cause::Request | Cause::FirstByte => Some(504),
            Cause::Idle
            | Cause::Gap
            | Cause::Tunnel
            | Cause::TunnelTotal
            | Cause::PeerStalled
            | Cause::ClientStalled
            | Cause::Moved
            | Cause::Abuse
            | Cause::ClientGone => None,
        }
    }

    /// Asks for a lingering close: a client that is still sending must not get a reset before it has
    /// read what it was sent (RFC 9112, 9.6).
    pub fn linger(&self) {
        self.linger.store(true, Relaxed);
    }

    /// Makes the close a reset. A body that ends with the connection has no other way to say that it
    /// is not whole, and a client that takes nothing would hold the kernel's memory for minutes.
    pub fn cut_hard(&self) {
        self.cut_hard.store(true, Relaxed);
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.connection.limits
    }

    /// Whether it is a stream of HTTP/2.
    pub fn is_stream(&self) -> bool {
        self.is_stream
    }

    pub(super) fn is_to_linger(&self) -> bool {
        self.linger.load(Relaxed)
    }

    /// A limit was passed in the middle of a response, or because the client takes nothing of it; or
    /// the response itself has asked for a cut.
    pub(super) fn is_cut_short(&self) -> bool {
        let expired = match self.expired() {
            Some(Cause::ClientStalled | Cause::Gap) => true,
            Some(Cause::Request | Cause::FirstByte) => self.response_begun(),
            _ => false,
        };
        expired || self.cut_hard.load(Relaxed)
    }

    /// Back to waiting for a request, between two of them. What came after the last one's end is
    /// the next one's header already.
    pub(super) fn rest(&self) {
        let received = self.connection.bytes_in();
        let end = match self.length.swap(UNTOLD, Relaxed) {
            UNTOLD => received,
            length => (self.begins_at.load(Relaxed).saturating_add(length)).min(received),
        };
        self.begins_at.store(end, Relaxed);
        self.body_complete.store(false, Relaxed);
        self.response_begun.store(false, Relaxed);
        self.request_deadline.store(NEVER, Relaxed);
        if end < received {
            self.enter(Phase::Header, Some(self.limits().header_timeout));
        } else {
            self.enter(Phase::Idle, Some(self.limits().keepalive));
        }
        self.end_stay();
        self.connection.wire.lock().shrink();
    }

    /// Others wait for a place: this connection, which is idle, is so no longer than [`GRACE`].
    pub(super) fn make_way(&self) {
        if self.connection.is_crowded() {
            let deadline = self.deadline.load(Relaxed);
            let since = deadline.saturating_sub(self.limit.load(Relaxed));
            let soon = since.saturating_add(nanos(GRACE));
            self.deadline.store(deadline.min(soon), Relaxed);
        }
    }

    /// When the next limit is passed, and what that means.
    pub(super) fn next_deadline(&self) -> (u64, Cause) {
        let phase = self.phase();
        let blocked = self.blocked_since.load(Relaxed);
        let stalled = blocked.saturating_add(nanos(self.limits().write_timeout));
        // A gap in the response is not the peer's while the client does not take what is there.
        let excused = phase == Phase::Response && blocked != NEVER;
        let own = if excused {
            NEVER
        } else {
            self.deadline.load(Relaxed)
        };
        let request = self.request_deadline.load(Relaxed);
        let first = earlier((own, phase.cause()), (request, phase.cause_in_total()));
        let first = earlier(first, (stalled, Cause::ClientStalled));
        let blocked = self.peer_blocked_since.load(Relaxed);
        let stalled = blocked.saturating_add(self.peer_limit.load(Relaxed));
        earlier(first, (stalled, Cause::PeerStalled))
    }

    pub(super) fn expire(&self, cause: Cause) {
        self.expired.store(cause as u8, Relaxed);
    }

    /// Nobody waits for the response; unless a limit was passed before. May be called by any task, which
    /// is to wake the one that works on the exchange.
    pub(super) fn client_left(&self) {
        let gone = Cause::ClientGone as u8;
        let _ = self.expired.compare_exchange(NONE, gone, Relaxed, Relaxed);
    }

    /// The limit that was passed had a consequence other than the end.
    pub(super) fn go_on(&self) {
        self.expired.store(NONE, Relaxed);
    }

    fn body_is_due(&self) -> bool {
        match self.length.load(Relaxed) {
            UNTOLD => !self.body_complete.load(Relaxed),
            length => self.received_of_request() < length,
        }
    }

    pub(super) fn header_is_too_large(&self) -> bool {
        self.phase() == Phase::Header
            && self.received_of_request() > self.limits().max_header_size as u64
    }

    fn received_of_request(&self) -> u64 {
        let received = self.connection.bytes_in();
        received.saturating_sub(self.begins_at.load(Relaxed))
    }

    /// Bytes came in; the first ones of a request start its header's time.
    pub(super) fn received(&self, count: usize) {
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
    pub(super) fn write_went_on(&self) {
        if self.blocked_since.load(Relaxed) == NEVER {
            return;
        }
        self.blocked_since.store(NEVER, Relaxed);
        if matches!(self.phase(), Phase::Response | Phase::Tunnel) {
            self.restart();
        }
    }

    /// The client does not take what it is sent; its time to do so starts with the first refusal.
    pub(super) fn write_blocked(&self) {
        if self.blocked_since.load(Relaxed) == NEVER {
            self.blocked_since.store(now(), Relaxed);
        }
    }

    /// In a tunnel: whether something waits for the peer, and whether it has just taken something.
    pub fn peer_takes(&self, waiting: usize, progress: bool) {
        self.inward.waits(waiting);
        if progress {
            self.restart();
        }
        if waiting == 0 {
            self.peer_blocked_since.store(NEVER, Relaxed);
        } else if progress || self.peer_blocked_since.load(Relaxed) == NEVER {
            self.peer_blocked_since.store(now(), Relaxed);
        }
    }

    /// In a tunnel: whether the client takes what the peer sends, so that more of it may be read.
    pub fn poll_client_takes(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.outward.poll_room(cx)
    }

    pub(super) fn is_tunnel(&self) -> bool {
        self.phase() == Phase::Tunnel
    }

    /// Sends what waits to be sent.
    pub(super) fn push(&self, cx: &mut Context<'_>) {
        self.connection.wire.lock().push(self, cx);
    }
}

fn earlier(one: (u64, Cause), other: (u64, Cause)) -> (u64, Cause) {
    if other.0 < one.0 { other } else { one }
}

pub(super) fn now() -> u64 {
    nanos(clock::since_start())
}

pub(super) fn after(limit: Duration) -> u64 {
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
        gate: &Arc<super::Gate>,
    ) -> (Arc<Self>, tokio::net::UnixStream) {
        let (ours, clients) = tokio::net::UnixStream::pair().unwrap();
        let metrics = crate::telemetry::metrics::Metrics::new("1", jiff::Timestamp::UNIX_EPOCH);
        let (_, shutdown) = tokio::sync::watch::channel(false);
        let connection = Connection::new(
            (super::Socket::Unix(ours), None),
            super::Party::default(),
            ("x".into(), Arc::new(metrics.listener("x"))),
            gate.enter(),
            limits,
            shutdown,
        );
        (Self::first(connection), clients)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::super::gate::Gate;
    use super::super::serve;
    use super::super::stream::ClientStream;
    use super::super::watch::{Watch, tend};
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn received(exchange: &Exchange, count: usize) {
        let connection = &exchange.connection;
        connection.bytes_in.fetch_add(count as u64, Relaxed);
        exchange.received(count);
    }

    fn left(exchange: &Exchange) -> (Duration, Cause) {
        let (deadline, cause) = exchange.next_deadline();
        (Duration::from_nanos(deadline.saturating_sub(now())), cause)
    }

    #[track_caller]
    fn assert_due(exchange: &Exchange, limit: Duration, cause: Cause) {
        let (left, found) = left(exchange);
        assert_eq!(found, cause);
        assert!(left <= limit && limit < left + SECOND, "{left:?}");
    }

    #[tokio::test]
    async fn each_phase_has_its_own_limit_and_cause() {
        let limits = Limits {
            request_timeout: Some(100 * SECOND),
            ..Limits::DEFAULT
        };
        let (exchange, _client) = Exchange::for_test(limits, &Gate::new(None));
        assert_due(&exchange, limits.header_timeout, Cause::Idle);
        received(&exchange, 1);
        assert_due(&exchange, limits.header_timeout, Cause::Header);
        exchange.begin_request();
        assert_due(&exchange, 100 * SECOND, Cause::Request);
        exchange.enter(Phase::AwaitResponse, Some(7 * SECOND));
        assert_due(&exchange, 7 * SECOND, Cause::FirstByte);
        exchange.enter(Phase::Response, Some(8 * SECOND));
        assert_due(&exchange, 8 * SECOND, Cause::Gap);
        exchange.rest();
        assert_due(&exchange, limits.keepalive, Cause::Idle);
        exchange.begin_tunnel(7 * SECOND, None, 3 * SECOND);
        assert_due(&exchange, 7 * SECOND, Cause::Tunnel);
        exchange.begin_tunnel(7 * SECOND, Some(5 * SECOND), 3 * SECOND);
        assert_due(&exchange, 5 * SECOND, Cause::TunnelTotal);
        exchange.peer_takes(1, false);
        assert_due(&exchange, 3 * SECOND, Cause::PeerStalled);
        exchange.peer_takes(0, true);
        assert_due(&exchange, 5 * SECOND, Cause::TunnelTotal);
    }

    #[tokio::test]
    async fn a_client_may_wait_for_less_than_it_may_take() {
        let limits = Limits {
            request_timeout: Some(100 * SECOND),
            ..Limits::DEFAULT
        };
        let (exchange, _client) = Exchange::for_test(limits, &Gate::new(None));
        assert_eq!(exchange.time_left(), None);
        exchange.begin_request();
        exchange.bound_request(200 * SECOND);
        assert_due(&exchange, 100 * SECOND, Cause::Request);
        exchange.bound_request(10 * SECOND);
        assert_due(&exchange, 10 * SECOND, Cause::Request);
        assert!(exchange.time_left().unwrap() <= 10 * SECOND);
        exchange.rest();
        assert_eq!(exchange.time_left(), None);
    }

    #[tokio::test]
    async fn a_gap_is_the_peers_only_while_the_client_takes_what_is_there() {
        let (exchange, _client) = Exchange::for_test(Limits::DEFAULT, &Gate::new(None));
        exchange.enter(Phase::Response, Some(SECOND));
        exchange.deadline.store(0, Relaxed); // as if the gap were over
        exchange.write_blocked();
        let stall = Limits::DEFAULT.write_timeout;
        assert_due(&exchange, stall, Cause::ClientStalled);
        exchange.write_went_on();
        assert_due(&exchange, SECOND, Cause::Gap);
    }

    #[tokio::test]
    async fn what_comes_behind_a_request_is_the_next_header() {
        let (exchange, _client) = Exchange::for_test(Limits::DEFAULT, &Gate::new(None));
        received(&exchange, 100);
        exchange.begin_request();
        exchange.set_request_length(70);
        exchange.rest();
        assert_eq!(exchange.phase(), Phase::Header);
        assert_eq!(exchange.received_of_request(), 30);
        received(&exchange, 20);
        exchange.begin_request();
        exchange.set_request_length(50);
        exchange.rest();
        assert_eq!(exchange.phase(), Phase::Idle);
    }

    #[tokio::test]
    async fn a_status_is_sent_only_where_none_was() {
        let (exchange, _client) = Exchange::for_test(Limits::DEFAULT, &Gate::new(None));
        received(&exchange, 100);
        exchange.begin_request();
        assert_eq!(exchange.last_word(), None);
        exchange.expire(Cause::Request);
        exchange.set_request_length(101);
        assert_eq!(exchange.last_word(), Some(408), "the body is due");
        exchange.set_request_length(100);
        assert_eq!(exchange.last_word(), Some(504));
        exchange.begin_response();
        assert_eq!(exchange.last_word(), None);
    }

    #[tokio::test]
    async fn what_a_session_wrote_is_sent_though_it_is_gone() {
        let (exchange, mut client) = Exchange::for_test(Limits::DEFAULT, &Gate::new(None));
        let mut stream = ClientStream::new(Arc::clone(&exchange)).unwrap();
        stream.write_all(b"head").await.unwrap();
        drop(stream);
        assert_eq!(exchange.connection.bytes_out(), 0, "gathered, not sent");
        serve::close(&exchange, b"").await;
        let mut read = Vec::new();
        client.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"head");
    }

    #[tokio::test]
    async fn what_waits_is_sent_when_the_session_pauses_without_reading() {
        let (exchange, mut client) = Exchange::for_test(Limits::DEFAULT, &Gate::new(None));
        let mut stream = ClientStream::new(Arc::clone(&exchange)).unwrap();
        let mut work = Box::pin(async {
            stream.write_all(b"head").await.unwrap();
            std::future::pending::<()>().await;
        });
        let mut watch = Watch::new();
        let mut tended = Box::pin(tend(&exchange, &mut work));
        let mut guard = Box::pin(watch.guard(&exchange, &mut tended));
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
    async fn an_idle_connection_keeps_a_small_buffer() {
        let (exchange, _client) = Exchange::for_test(Limits::DEFAULT, &Gate::new(None));
        let mut stream = ClientStream::new(Arc::clone(&exchange)).unwrap();
        stream.write_all(&[0; 10_000]).await.unwrap();
        stream.flush().await.unwrap();
        exchange.rest();
        assert_eq!(exchange.connection.wire.lock().capacity(), 0);
    }

    #[tokio::test]
    async fn only_who_is_idle_longest_is_called() {
        let gate = Gate::new(Some(2));
        let _guests = [gate.enter(), gate.enter()];
        let (mut first, mut second) = (gate.call(), gate.call());
        poll_fn(|cx| {
            assert!(first.poll_called(cx).is_pending());
            assert!(second.poll_called(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        gate.one_left(Duration::ZERO).await;
        poll_fn(|cx| {
            assert!(first.poll_called(cx).is_ready());
            assert!(second.poll_called(cx).is_pending());
            Poll::Ready(())
        })
        .await;
    }
}
