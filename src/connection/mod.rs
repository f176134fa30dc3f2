//! One client connection: who it is from, how far it has come, and when it has waited too long.
//!
//! ```text
//!  listener ──► Connection ◄── proxy hooks say which phase a request is in, and until when
//!                   │
//!               introduction.rs  whose it is, as whoever passes it on says; before anything else
//!               handshake.rs TLS
//!               stream.rs    the bytes: Pingora reads and writes through it; it counts
//!               phase.rs     the phases, their limits, and what each limit means
//!               watch.rs     one lazy timer: is a limit passed?
//!               tenure.rs    may a long stream stay? ending.rs: where it can end
//!               serve.rs     the keep-alive loop of HTTP/1, and what a client is told at the end
//! ```
//!
//! Pingora times single reads and writes, and nothing at all between two requests or in a flush; a
//! client that drips bytes, takes none, or holds an idle connection, is never told off. So the
//! deadlines stand here, around its session. What must hold: a request that is being answered is
//! cut only by a deadline that the operator set, never by the end of an idle time.

mod clients;
mod ending;
mod gate;
mod handshake;
mod introduction;
mod phase;
mod serve;
mod socket;
mod stream;
mod tenure;
mod watch;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::task::Context;
use std::time::Duration;

use http::HeaderValue;
use parking_lot::Mutex;
use pingora_core::server::ShutdownWatch;

pub use self::ending::Kind;
pub use self::gate::{Gate, Guest};
pub use self::handshake::{ClientCertificate, Secured, secure};
pub use self::introduction::{Party, canonical, introduction};
pub use self::phase::{Cause, Phase};
pub use self::serve::{End, serve_http1};
pub use self::socket::Socket;
pub use self::stream::ClientStream;
pub use self::tenure::{Look, Tenure};

use self::stream::Wire;
use self::tenure::Stay;
use crate::clock;
use crate::config::Downstream as Limits;
use crate::telemetry::metrics::ListenerMetrics;

/// No deadline: later than any process lives.
const NEVER: u64 = u64::MAX;

/// A request's length that only its last chunk tells.
const UNTOLD: u64 = u64::MAX;

/// No cause: nothing has expired.
const NONE: u8 = u8::MAX;

/// How long a client that waits for a place lets a connection be idle: long enough for a request
/// that is on its way.
const GRACE: Duration = Duration::from_secs(1);

/// The state of one client connection, shared by the accept task, the stream and the proxy's hooks.
///
/// One task works on a connection at a time, so the atomics only carry values between the layers of
/// that task (through Pingora's `Send + Sync` bounds); `Relaxed` is enough for them.
#[derive(Debug)]
pub struct Connection {
    /// The client's address, as known before any request; `None`: unknown, as on a Unix socket.
    pub client: Option<SocketAddr>,
    /// Its IP address as a field's value, made once: every request tells its peer.
    pub client_text: Option<HeaderValue>,
    /// Who is at the other end of the socket.
    pub party: Party,
    /// What the client may do, as it was when the connection was accepted.
    pub limits: Limits,
    /// What its TLS handshake agreed on; `None`: it is not encrypted.
    pub secured: Option<Secured>,
    /// The listener's address as configured.
    pub listener: Arc<str>,
    /// Where the listener is counted.
    pub metrics: Arc<ListenerMetrics>,
    /// Its place among the open connections.
    guest: Guest,
    shutdown: ShutdownWatch,
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
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    /// What [`Connection::bytes_in`] was where the request begins, and the request's whole length.
    begins_at: AtomicU64,
    length: AtomicU64,
    /// The body of a request whose length is [`UNTOLD`] has been read to its end.
    body_complete: AtomicBool,
    response_begun: AtomicBool,
    /// The response went out before the request's body was read: see [`Connection::linger`].
    linger: AtomicBool,
    cut_hard: AtomicBool,
    /// Whether the stream that it carries may stay.
    stay: Stay,
    wire: Mutex<Wire>,
}

impl Connection {
    /// A connection that was just accepted; its first request is due within the header time.
    pub fn new(
        (socket, secured): (Socket, Option<Secured>),
        party: Party,
        (listener, metrics): (Arc<str>, Arc<ListenerMetrics>),
        guest: Guest,
        limits: Limits,
        shutdown: ShutdownWatch,
    ) -> Arc<Self> {
        let client = party.client();
        Arc::new(Self {
            client,
            client_text: client.and_then(|client| client.ip().to_string().try_into().ok()),
            party,
            limits,
            secured,
            listener,
            metrics,
            guest,
            shutdown,
            phase: AtomicU8::new(Phase::Idle as u8),
            limit: AtomicU64::new(nanos(limits.header_timeout)),
            deadline: AtomicU64::new(after(limits.header_timeout)),
            request_deadline: AtomicU64::new(NEVER),
            blocked_since: AtomicU64::new(NEVER),
            expired: AtomicU8::new(NONE),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            begins_at: AtomicU64::new(0),
            length: AtomicU64::new(UNTOLD),
            body_complete: AtomicBool::new(false),
            response_begun: AtomicBool::new(false),
            linger: AtomicBool::new(false),
            cut_hard: AtomicBool::new(false),
            stay: Stay::default(),
            wire: Mutex::new(Wire::new(socket)),
        })
    }

    /// Whether the client speaks TLS: to us, or to whom passes its connection on.
    pub fn is_encrypted(&self) -> bool {
        self.secured.is_some() || self.party.is_encrypted()
    }

    /// The address that the client connected to; `None`: unknown.
    pub fn destination(&self) -> Option<SocketAddr> {
        let own = || self.wire.lock().local_address().map(canonical);
        self.party.destination().or_else(own)
    }

    /// Whether its client was asked for a certificate.
    pub fn asks_client(&self) -> bool {
        let secured = self.secured.as_ref();
        secured.is_some_and(|secured| secured.asks_client)
    }

    /// The certificate that the client showed, where it was asked for one.
    pub fn client_certificate(&self) -> Option<&ClientCertificate> {
        self.secured.as_ref()?.client.as_ref()
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
        let limit = self.limits.request_timeout;
        self.request_deadline
            .store(limit.map_or(NEVER, after), Relaxed);
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

    /// There are as many connections as there may be: the next response should be this one's last.
    pub fn is_crowded(&self) -> bool {
        self.guest.gate().is_full()
    }

    /// Its listener is closing: the next response should be this one's last.
    pub fn is_draining(&self) -> bool {
        *self.shutdown.borrow()
    }

    /// The protocol was upgraded: the whole-request limit no longer holds, only the idle one.
    pub fn begin_tunnel(&self) {
        self.enter(Phase::Tunnel, None);
        self.request_deadline.store(NEVER, Relaxed);
    }

    /// Which limit was passed, if one was. Known before the session is dropped, so that what is
    /// recorded of a request that was cut is what happened.
    pub fn expired(&self) -> Option<Cause> {
        Cause::from_u8(self.expired.load(Relaxed))
    }

    /// The status that the client of an expired connection is sent; `None`: nothing is said, or
    /// nothing more, as a response has begun.
    pub fn last_word(&self) -> Option<u16> {
        match self.expired()? {
            _ if self.response_begun() => None,
            Cause::Header => Some(408),
            Cause::HeaderTooLarge => Some(431),
            Cause::Request if self.body_is_due() => Some(408),
            Cause::Request | Cause::FirstByte => Some(504),
            Cause::Idle | Cause::Gap | Cause::Tunnel | Cause::ClientStalled | Cause::Moved => None,
        }
    }

    /// Bytes that the client has sent so far.
    pub fn bytes_in(&self) -> u64 {
        self.bytes_in.load(Relaxed)
    }

    /// Bytes that the client was sent so far.
    pub fn bytes_out(&self) -> u64 {
        self.bytes_out.load(Relaxed)
    }

    /// Asks for a lingering close: a client that is still sending a body must not get a reset before
    /// it has read the response (RFC 9112, 9.6).
    pub fn linger(&self) {
        self.linger.store(true, Relaxed);
    }

    /// Makes the close a reset. A body that ends with the connection has no other way to say that it
    /// is not whole, and a client that takes nothing would hold the kernel's memory for minutes.
    pub fn cut_hard(&self) {
        self.cut_hard.store(true, Relaxed);
    }

    fn gate(&self) -> &Gate {
        self.guest.gate()
    }

    /// Back to waiting for a request, between two of them. What came after the last one's end is
    /// the next one's header already.
    fn rest(&self) {
        let received = self.bytes_in();
        let end = match self.length.swap(UNTOLD, Relaxed) {
            UNTOLD => received,
            length => (self.begins_at.load(Relaxed).saturating_add(length)).min(received),
        };
        self.begins_at.store(end, Relaxed);
        self.body_complete.store(false, Relaxed);
        self.response_begun.store(false, Relaxed);
        self.request_deadline.store(NEVER, Relaxed);
        if end < received {
            self.enter(Phase::Header, Some(self.limits.header_timeout));
        } else {
            self.enter(Phase::Idle, Some(self.limits.keepalive));
        }
        self.end_stay();
        self.wire.lock().shrink();
    }

    /// Others wait for a place: this connection, which is idle, is so no longer than [`GRACE`].
    fn make_way(&self) {
        if self.is_crowded() {
            let deadline = self.deadline.load(Relaxed);
            let since = deadline.saturating_sub(self.limit.load(Relaxed));
            let soon = since.saturating_add(nanos(GRACE));
            self.deadline.store(deadline.min(soon), Relaxed);
        }
    }

    /// When the next limit is passed, and what that means.
    fn next_deadline(&self) -> (u64, Cause) {
        let phase = self.phase();
        let blocked = self.blocked_since.load(Relaxed);
        let stalled = blocked.saturating_add(nanos(self.limits.write_timeout));
        // A gap in the response is not the peer's while the client does not take what is there.
        let excused = phase == Phase::Response && blocked != NEVER;
        let own = if excused {
            NEVER
        } else {
            self.deadline.load(Relaxed)
        };
        let request = self.request_deadline.load(Relaxed);
        let first = earlier((own, phase.cause()), (request, Cause::Request));
        earlier(first, (stalled, Cause::ClientStalled))
    }

    fn expire(&self, cause: Cause) {
        self.expired.store(cause as u8, Relaxed);
    }

    fn body_is_due(&self) -> bool {
        match self.length.load(Relaxed) {
            UNTOLD => !self.body_complete.load(Relaxed),
            length => self.received_of_request() < length,
        }
    }

    fn header_is_too_large(&self) -> bool {
        self.phase() == Phase::Header
            && self.received_of_request() > self.limits.max_header_size as u64
    }

    fn received_of_request(&self) -> u64 {
        self.bytes_in().saturating_sub(self.begins_at.load(Relaxed))
    }

    /// Bytes came in; the first ones of a request start its header's time.
    fn received(&self, count: usize) {
        let before = self.bytes_in.fetch_add(count as u64, Relaxed);
        if self.phase() != Phase::Idle {
            return;
        }
        if before == 0 {
            // The time of the first header runs since the accept.
            self.phase.store(Phase::Header as u8, Relaxed);
        } else {
            self.enter(Phase::Header, Some(self.limits.header_timeout));
        }
    }

    /// Bytes went out. Where that took the client a while, the phase's limit begins anew: what is
    /// relayed could not flow meanwhile.
    fn sent(&self, count: usize) {
        self.bytes_out.fetch_add(count as u64, Relaxed);
        if self.blocked_since.load(Relaxed) == NEVER {
            return;
        }
        self.blocked_since.store(NEVER, Relaxed);
        if matches!(self.phase(), Phase::Response | Phase::Tunnel) {
            self.restart();
        }
    }

    /// The client does not take what it is sent; its time to do so starts with the first refusal.
    fn write_blocked(&self) {
        if self.blocked_since.load(Relaxed) == NEVER {
            self.blocked_since.store(now(), Relaxed);
        }
    }

    /// Sends what waits to be sent.
    fn push(&self, cx: &mut Context<'_>) {
        self.wire.lock().push(self, cx);
    }
}

fn earlier(one: (u64, Cause), other: (u64, Cause)) -> (u64, Cause) {
    if other.0 < one.0 { other } else { one }
}

fn now() -> u64 {
    nanos(clock::since_start())
}

fn after(limit: Duration) -> u64 {
    nanos(clock::since_start().saturating_add(limit))
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(NEVER - 1)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    use super::*;
    use crate::telemetry::metrics::Metrics;

    const SECOND: Duration = Duration::from_secs(1);

    /// A connection, and the client's end of it.
    fn connection(limits: Limits, gate: &Arc<Gate>) -> (Arc<Connection>, UnixStream) {
        let (ours, clients) = UnixStream::pair().unwrap();
        let metrics = Metrics::new("1", jiff::Timestamp::UNIX_EPOCH).listener("x");
        let (_, shutdown) = tokio::sync::watch::channel(false);
        let connection = Connection::new(
            (Socket::Unix(ours), None),
            Party::default(),
            ("x".into(), Arc::new(metrics)),
            gate.enter(),
            limits,
            shutdown,
        );
        (connection, clients)
    }

    fn left(connection: &Connection) -> (Duration, Cause) {
        let (deadline, cause) = connection.next_deadline();
        (Duration::from_nanos(deadline.saturating_sub(now())), cause)
    }

    #[track_caller]
    fn assert_due(connection: &Connection, limit: Duration, cause: Cause) {
        let (left, found) = left(connection);
        assert_eq!(found, cause);
        assert!(left <= limit && limit < left + SECOND, "{left:?}");
    }

    #[tokio::test]
    async fn each_phase_has_its_own_limit_and_cause() {
        let limits = Limits {
            request_timeout: Some(100 * SECOND),
            ..Limits::DEFAULT
        };
        let (connection, _client) = connection(limits, &Gate::new(None));
        assert_due(&connection, limits.header_timeout, Cause::Idle);
        connection.received(1);
        assert_due(&connection, limits.header_timeout, Cause::Header);
        connection.begin_request();
        assert_due(&connection, 100 * SECOND, Cause::Request);
        connection.enter(Phase::AwaitResponse, Some(7 * SECOND));
        assert_due(&connection, 7 * SECOND, Cause::FirstByte);
        connection.enter(Phase::Response, Some(8 * SECOND));
        assert_due(&connection, 8 * SECOND, Cause::Gap);
        connection.rest();
        assert_due(&connection, limits.keepalive, Cause::Idle);
        connection.begin_tunnel();
        assert_eq!(left(&connection).1, Cause::Tunnel);
    }

    #[tokio::test]
    async fn a_gap_is_the_peers_only_while_the_client_takes_what_is_there() {
        let (connection, _client) = connection(Limits::DEFAULT, &Gate::new(None));
        connection.enter(Phase::Response, Some(SECOND));
        connection.deadline.store(0, Relaxed); // as if the gap were over
        connection.write_blocked();
        let stall = Limits::DEFAULT.write_timeout;
        assert_due(&connection, stall, Cause::ClientStalled);
        connection.sent(1);
        assert_due(&connection, SECOND, Cause::Gap);
    }

    #[tokio::test]
    async fn what_comes_behind_a_request_is_the_next_header() {
        let (connection, _client) = connection(Limits::DEFAULT, &Gate::new(None));
        connection.received(100);
        connection.begin_request();
        connection.set_request_length(70);
        connection.rest();
        assert_eq!(connection.phase(), Phase::Header);
        assert_eq!(connection.received_of_request(), 30);
        connection.received(20);
        connection.begin_request();
        connection.set_request_length(50);
        connection.rest();
        assert_eq!(connection.phase(), Phase::Idle);
    }

    #[tokio::test]
    async fn a_status_is_sent_only_where_none_was() {
        let (connection, _client) = connection(Limits::DEFAULT, &Gate::new(None));
        connection.received(100);
        connection.begin_request();
        assert_eq!(connection.last_word(), None);
        connection.expire(Cause::Request);
        connection.set_request_length(101);
        assert_eq!(connection.last_word(), Some(408), "the body is due");
        connection.set_request_length(100);
        assert_eq!(connection.last_word(), Some(504));
        connection.begin_response();
        assert_eq!(connection.last_word(), None);
    }

    #[tokio::test]
    async fn what_a_session_wrote_is_sent_though_it_is_gone() {
        let (connection, mut client) = connection(Limits::DEFAULT, &Gate::new(None));
        let mut stream = ClientStream::new(Arc::clone(&connection)).unwrap();
        stream.write_all(b"head").await.unwrap();
        drop(stream);
        assert_eq!(connection.bytes_out(), 0, "gathered, not sent");
        serve::close(&connection).await;
        let mut read = Vec::new();
        client.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"head");
    }

    #[tokio::test]
    async fn what_waits_is_sent_when_the_session_pauses_without_reading() {
        let (connection, mut client) = connection(Limits::DEFAULT, &Gate::new(None));
        let mut stream = ClientStream::new(Arc::clone(&connection)).unwrap();
        let mut work = Box::pin(async {
            stream.write_all(b"head").await.unwrap();
            std::future::pending::<()>().await;
        });
        let mut watch = watch::Watch::new();
        let mut guard = Box::pin(watch.guard(&connection, &mut work));
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
        let (connection, _client) = connection(Limits::DEFAULT, &Gate::new(None));
        let mut stream = ClientStream::new(Arc::clone(&connection)).unwrap();
        stream.write_all(&[0; 10_000]).await.unwrap();
        stream.flush().await.unwrap();
        connection.rest();
        assert_eq!(connection.wire.lock().capacity(), 0);
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
