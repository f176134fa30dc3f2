//! One client connection: who it is from, what passes on it, and when it has waited too long.
//!
//! ```text
//!  listener ──► Connection ──► Exchange ◄── proxy hooks say which phase a request is in, until when
//!                   │             │
//!               introduction.rs whose it is, as whoever passes it on says; before anything else
//!               handshake.rs  TLS
//!               serve.rs      which HTTP is spoken (preface.rs), and how the connection is closed
//!               stream.rs     the bytes: they are read and written through it; it counts
//!               http1.rs      HTTP/1: one exchange after the other
//!               flow.rs       what it may become: a tunnel, of which neither direction waits for the other
//!               http2/        HTTP/2: many at once
//!                                 │
//!                             phase.rs   the phases, their limits, and what each limit means
//!                             watch.rs   one lazy timer: is a limit passed?
//!                             upload.rs  what waits of a body for its peer
//!                             tenure.rs  may a long stream stay? ending.rs: where it can end
//!                             pulse.rs   what is done from time to time while a request goes on
//! ```
//!
//! Pingora times single reads and writes, and nothing at all between two requests or in a flush; a
//! client that drips bytes, takes none, or holds an idle connection, is never told off. So the
//! deadlines stand here, around its session. What must hold: a request that is being answered is
//! cut only by a deadline that the operator set, never by the end of an idle time.

mod body_queue;
mod connection_limit;
mod deadline_timer;
mod exchange;
mod http1;
mod http2;
mod io;
pub mod listener;
mod per_client_limit;
mod periodic;
mod phase;
mod preface;
mod proxy_header;
mod serve;
mod socket;
mod stream_boundary;
mod stream_policy;
mod tls_handshake;
mod watermark;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use http::HeaderValue;
use parking_lot::Mutex;
use pingora::server::ShutdownWatch;

pub use self::body_queue::BodyQueue;
pub use self::connection_limit::{ConnectionLimit, ConnectionPermit};
pub use self::exchange::Exchange;
pub use self::periodic::PeriodicTask;
pub use self::phase::{AbortReason, Phase};
pub use self::proxy_header::{ConnectionInfo, canonical_addr, read_proxy_header};
pub use self::serve::{CloseReason, serve};
pub use self::socket::DownstreamSocket;
pub use self::stream_boundary::StreamKind;
pub use self::stream_policy::{StreamPolicy, StreamVerdict};
pub use self::tls_handshake::{ClientCertificate, TlsSession, accept_tls};

use self::io::BufferedSocket;
use crate::config::DownstreamConfig as Limits;
use crate::telemetry::metrics::ListenerMetrics;

/// One client connection: what holds for every request on it. Shared by whatever serves it.
///
/// The counters only carry values between tasks that wake each other through other means; `Relaxed`
/// is enough for them.
#[derive(Debug)]
pub struct Connection {
    /// The client's address, as known before any request; `None`: unknown, as on a Unix socket.
    pub client_addr: Option<SocketAddr>,
    /// Its IP address as a field's value, made once: every request tells its peer.
    pub client_ip_value: Option<HeaderValue>,
    /// Who is at the other end of the socket.
    pub info: ConnectionInfo,
    /// What the client may do, as it was when the connection was accepted.
    pub limits: Limits,
    /// What its TLS handshake agreed on; `None`: it is not encrypted.
    pub tls: Option<TlsSession>,
    /// The listener's address as configured.
    pub listener_address: Arc<str>,
    /// Where the listener is counted.
    pub metrics: Arc<ListenerMetrics>,
    /// Its place among the open connections.
    permit: ConnectionPermit,
    shutdown: ShutdownWatch,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    socket: Mutex<BufferedSocket>,
}

impl Connection {
    /// A connection that was just accepted.
    pub fn new(
        (socket, secured): (DownstreamSocket, Option<TlsSession>),
        party: ConnectionInfo,
        (listener, metrics): (Arc<str>, Arc<ListenerMetrics>),
        guest: ConnectionPermit,
        limits: Limits,
        shutdown: ShutdownWatch,
    ) -> Arc<Self> {
        let client = party.client_addr();
        Arc::new(Self {
            client_addr: client,
            client_ip_value: client.and_then(|client| client.ip().to_string().try_into().ok()),
            info: party,
            limits,
            tls: secured,
            listener_address: listener,
            metrics,
            permit: guest,
            shutdown,
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            socket: Mutex::new(BufferedSocket::new(socket)),
        })
    }

    /// Whether the client speaks TLS: to us, or to whom passes its connection on.
    pub fn is_encrypted(&self) -> bool {
        self.tls.is_some() || self.info.is_encrypted()
    }

    /// The address that the client connected to; `None`: unknown.
    pub fn destination_addr(&self) -> Option<SocketAddr> {
        let own = || self.socket.lock().local_address().map(canonical_addr);
        self.info.destination_addr().or_else(own)
    }

    /// Whether its client was asked for a certificate.
    pub fn requests_client_cert(&self) -> bool {
        let secured = self.tls.as_ref();
        secured.is_some_and(|secured| secured.requests_client_cert)
    }

    /// The certificate that the client showed, where it was asked for one.
    pub fn client_certificate(&self) -> Option<&ClientCertificate> {
        self.tls.as_ref()?.client_certificate.as_ref()
    }

    /// There are as many connections as there may be: the client should leave after the next response.
    pub fn is_at_connection_limit(&self) -> bool {
        self.permit.limit().is_reached()
    }

    /// Its listener is closing: the client should leave after the next response.
    pub fn is_draining(&self) -> bool {
        *self.shutdown.borrow()
    }

    /// Bytes that the client has sent so far.
    pub fn bytes_in(&self) -> u64 {
        self.bytes_in.load(Relaxed)
    }

    /// Bytes that the client was sent so far.
    pub fn bytes_out(&self) -> u64 {
        self.bytes_out.load(Relaxed)
    }

    fn connection_limit(&self) -> &ConnectionLimit {
        self.permit.limit()
    }
}
