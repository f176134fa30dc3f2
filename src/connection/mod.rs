//! One client connection: who it is from, how far it has come, and when it has waited too long.
//!
//! ```text
//!  listener ──► Connection ◄── proxy hooks say which phase a request is in, and until when
//!                   │
//!               stream.rs    the bytes: Pingora reads and writes through it; it counts
//!               watch.rs     one lazy timer: is the phase's deadline over?
//!               serve.rs     the keep-alive loop of HTTP/1, and what a client is told at the end
//! ```
//!
//! Pingora times single reads, and none at all between two requests; a client that drips bytes, or
//! holds an idle connection, is never told off. So the deadlines stand here, around its session.
//! What must hold: a request that is being answered is cut only by a deadline that the operator
//! set, never by the end of an idle time.

mod gate;
mod serve;
mod stream;
mod watch;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::HeaderValue;
use parking_lot::Mutex;

pub use self::gate::{Gate, Guest};
pub use self::serve::{End, serve_http1};
pub use self::stream::{Downstream, Socket};

use crate::clock;
use crate::config::Downstream as Limits;
use crate::telemetry::metrics::ListenerMetrics;

/// How far the request that a connection is busy with has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Waiting for a request's first byte.
    Idle,
    /// Some of a request's header is there.
    Header,
    /// The request is being handled; a peer may be at work on it.
    Request,
    /// The request is with a peer, whose response has not begun.
    AwaitResponse,
    /// The response's header is there; its body flows.
    Response,
    /// The protocol was upgraded (WebSocket); bytes pass both ways.
    Tunnel,
}

impl Phase {
    const ALL: [Self; 6] = [
        Self::Idle,
        Self::Header,
        Self::Request,
        Self::AwaitResponse,
        Self::Response,
        Self::Tunnel,
    ];

    fn from_u8(value: u8) -> Self {
        Self::ALL
            .get(usize::from(value))
            .copied()
            .unwrap_or(Self::Idle)
    }
}

/// No deadline: later than any process lives.
const NEVER: u64 = u64::MAX;

/// The state of one client connection, shared by the accept task, the stream and the proxy's hooks.
///
/// One task works on a connection at a time, so the atomics only carry values between the layers of
/// that task (through Pingora's `Send + Sync` bounds); `Relaxed` is enough for them.
#[derive(Debug)]
pub struct Connection {
    /// The client's address; `None` on a Unix socket.
    pub client: Option<SocketAddr>,
    /// Its IP address as a field's value, made once: every request tells its peer.
    pub client_text: Option<HeaderValue>,
    /// What the client may do, as it was when the connection was accepted.
    pub limits: Limits,
    /// The listener's address as configured.
    pub listener: Arc<str>,
    /// Where the listener is counted.
    pub metrics: Arc<ListenerMetrics>,
    /// Its place among the open connections.
    guest: Guest,
    phase: AtomicU8,
    /// When the phase must be over, and when the whole request; nanoseconds of [`clock::since_start`].
    deadline: AtomicU64,
    request_deadline: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    /// The last write did not go through at once: the client is slow to read.
    write_blocked: AtomicBool,
    /// The response went out before the request's body was read: see [`Connection::linger`].
    linger: AtomicBool,
    /// The socket, given back when its stream is dropped.
    returned: Mutex<Option<Socket>>,
}

impl Connection {
    /// A connection that was just accepted; its first request is due within the header time.
    pub fn new(
        client: Option<SocketAddr>,
        (listener, metrics): (Arc<str>, Arc<ListenerMetrics>),
        guest: Guest,
        limits: Limits,
    ) -> Arc<Self> {
        Arc::new(Self {
            client,
            client_text: client.and_then(|client| client.ip().to_string().try_into().ok()),
            limits,
            listener,
            metrics,
            guest,
            phase: AtomicU8::new(Phase::Idle as u8),
            deadline: AtomicU64::new(after(limits.header_timeout)),
            request_deadline: AtomicU64::new(NEVER),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            write_blocked: AtomicBool::new(false),
            linger: AtomicBool::new(false),
            returned: Mutex::new(None),
        })
    }

    /// The phase that the request is in.
    pub fn phase(&self) -> Phase {
        Phase::from_u8(self.phase.load(Relaxed))
    }

    /// Enters a phase that must be over within `limit`; `None`: it may take any time.
    pub fn enter(&self, phase: Phase, limit: Option<Duration>) {
        self.phase.store(phase as u8, Relaxed);
        self.deadline.store(limit.map_or(NEVER, after), Relaxed);
    }

    /// The header of a request is complete: from here on the whole request is on the clock.
    pub fn begin_request(&self) {
        self.enter(Phase::Request, None);
        let limit = self.limits.request_timeout;
        self.request_deadline
            .store(limit.map_or(NEVER, after), Relaxed);
    }

    /// There are as many connections as there may be: the next response should be this one's last.
    pub fn is_crowded(&self) -> bool {
        self.guest.gate().is_full()
    }

    /// How much of the whole request's time is left; `None`: it has no limit.
    pub fn time_left(&self) -> Option<Duration> {
        match self.request_deadline.load(Relaxed) {
            NEVER => None,
            at => Some(Duration::from_nanos(at.saturating_sub(now()))),
        }
    }

    /// The protocol was upgraded: the whole-request limit no longer holds, only the idle one.
    pub fn begin_tunnel(&self) {
        self.enter(Phase::Tunnel, None);
        self.request_deadline.store(NEVER, Relaxed);
    }

    /// Whether the phase's time is over.
    pub fn is_overdue(&self) -> bool {
        self.next_deadline() <= now()
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

    /// Back to waiting for a request, between two of them.
    fn rest(&self) {
        self.request_deadline.store(NEVER, Relaxed);
        self.enter(Phase::Idle, Some(self.limits.keepalive));
    }

    fn next_deadline(&self) -> u64 {
        self.deadline
            .load(Relaxed)
            .min(self.request_deadline.load(Relaxed))
    }

    /// A gap in the response is not the peer's fault while the client does not take what is there.
    fn excused(&self) -> bool {
        self.phase() == Phase::Response
            && self.write_blocked.load(Relaxed)
            && self.request_deadline.load(Relaxed) > now()
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

    fn sent(&self, count: usize) {
        self.bytes_out.fetch_add(count as u64, Relaxed);
    }
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
