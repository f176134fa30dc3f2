//! One client connection: the data and counters that its requests share.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::HeaderValue;
use parking_lot::Mutex;
use pingora::server::ShutdownWatch;

use super::buffered_socket::BufferedSocket;
use super::connection_limit::{ConnectionLimit, ConnectionPermit};
use super::proxy_header::{ConnectionInfo, canonical_addr};
use super::socket::DownstreamSocket;
use super::tls_handshake::{ClientCertificate, TlsSession};
use crate::config::DownstreamConfig;
use crate::telemetry::metrics::ListenerMetrics;

/// One client connection, shared by its exchanges.
///
/// No other data depends on the counters, so `Relaxed` is enough.
#[derive(Debug)]
pub(crate) struct Connection {
    /// The client's address: the socket's, or the one that a PROXY header names; `None`: unknown, as on a Unix
    /// socket.
    pub client_addr: Option<SocketAddr>,
    /// The client's IP address as a header value, made once for the forwarding headers of all requests.
    pub client_ip_value: Option<HeaderValue>,
    /// The socket's remote address and the PROXY header.
    pub info: ConnectionInfo,
    /// Limits and timeouts, as configured when the connection was accepted.
    pub limits: DownstreamConfig,
    /// The result of the TLS handshake; `None`: the connection is not encrypted.
    pub tls: Option<TlsSession>,
    /// The listener's address as configured.
    pub listener_address: Arc<str>,
    /// The listener's metrics.
    pub metrics: Arc<ListenerMetrics>,
    /// Counts the connection as open.
    permit: ConnectionPermit,
    pub(super) shutdown: ShutdownWatch,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    pub(super) stream_share: StreamShare,
    pub(super) socket: Mutex<BufferedSocket>,
    /// The cookies that were generated for this client a short time ago.
    issued_cookies: Mutex<Vec<IssuedCookie>>,
}

/// The bytes that each stream of an HTTP/2 connection would have received and sent, had they been shared out evenly among the
/// streams that were open.
#[derive(Debug, Default)]
pub(super) struct StreamShare {
    received: AtomicU64,
    sent: AtomicU64,
}

impl StreamShare {
    /// `received` and `sent` bytes have passed while `streams` were open.
    pub(super) fn add(&self, received: u64, sent: u64, streams: usize) {
        let streams = streams.max(1) as u64;
        self.received.fetch_add(received / streams, Relaxed);
        self.sent.fetch_add(sent / streams, Relaxed);
    }

    /// The bytes so far: received, and sent.
    pub(super) fn get(&self) -> (u64, u64) {
        (self.received.load(Relaxed), self.sent.load(Relaxed))
    }

    /// The bytes after `start`, an earlier result of [`get`](Self::get).
    pub(super) fn since(&self, start: (u64, u64)) -> (u64, u64) {
        let (received, sent) = self.get();
        (
            received.saturating_sub(start.0),
            sent.saturating_sub(start.1),
        )
    }
}

/// The time in which requests without the cookie count as the parallel first ones of a client. Later ones may be of
/// other clients behind a proxy that is not in `trusted_proxies`.
const ISSUE_WINDOW: Duration = Duration::from_secs(10);

/// A cookie that was generated on a connection.
#[derive(Debug)]
struct IssuedCookie {
    upstream: Arc<str>,
    name: Box<str>,
    value: String,
    made_at: Duration,
}

impl Connection {
    /// A connection that was just accepted.
    pub(crate) fn new(
        (socket, tls): (DownstreamSocket, Option<TlsSession>),
        info: ConnectionInfo,
        (listener_address, metrics): (Arc<str>, Arc<ListenerMetrics>),
        permit: ConnectionPermit,
        limits: DownstreamConfig,
        shutdown: ShutdownWatch,
    ) -> Arc<Self> {
        let client_addr = info.client_addr();
        Arc::new(Self {
            client_addr,
            client_ip_value: client_addr.and_then(|addr| addr.ip().to_string().try_into().ok()),
            info,
            limits,
            tls,
            listener_address,
            metrics,
            permit,
            shutdown,
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            stream_share: StreamShare::default(),
            socket: Mutex::new(BufferedSocket::new(socket)),
            issued_cookies: Mutex::default(),
        })
    }

    /// The value of the client's cookie for an upstream, both by name; made if none was within [`ISSUE_WINDOW`].
    pub(crate) fn issued_cookie(
        &self,
        (upstream, cookie): (&Arc<str>, &str),
        now: Duration,
        make: impl FnOnce() -> String,
    ) -> String {
        let mut issued = self.issued_cookies.lock();
        issued.retain(|it| now.saturating_sub(it.made_at) < ISSUE_WINDOW);
        let known = issued
            .iter()
            .find(|it| it.upstream == *upstream && *it.name == *cookie);
        if let Some(known) = known {
            return known.value.clone();
        }
        let value = make();
        issued.push(IssuedCookie {
            upstream: Arc::clone(upstream),
            name: cookie.into(),
            value: value.clone(),
            made_at: now,
        });
        value
    }

    /// Whether the client uses TLS: to this listener, or to the proxy in front of it.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.tls.is_some() || self.info.is_encrypted()
    }

    /// The address that the client connected to; `None`: unknown.
    pub(crate) fn destination_addr(&self) -> Option<SocketAddr> {
        let local = || self.socket.lock().local_address().map(canonical_addr);
        self.info.destination_addr().or_else(local)
    }

    /// The user of the process that connected; `None`: not a Unix socket.
    pub(crate) fn client_uid(&self) -> Option<u32> {
        self.socket.lock().peer_uid()
    }

    /// Whether the listener asks clients for a certificate.
    pub(crate) fn requests_client_cert(&self) -> bool {
        let tls = self.tls.as_ref();
        tls.is_some_and(|tls| tls.requests_client_cert)
    }

    /// The certificate that the client presented, if any.
    pub(crate) fn client_certificate(&self) -> Option<&ClientCertificate> {
        self.tls.as_ref()?.client_certificate.as_ref()
    }

    /// Whether the connection limit is reached: then the next response has `Connection: close`.
    pub(crate) fn is_at_connection_limit(&self) -> bool {
        self.permit.limit().is_reached()
    }

    /// Whether the listener is closing: then the next response has `Connection: close`.
    pub(crate) fn is_draining(&self) -> bool {
        *self.shutdown.borrow()
    }

    /// Bytes received from the client so far, without TLS.
    pub(crate) fn bytes_in(&self) -> u64 {
        self.bytes_in.load(Relaxed)
    }

    /// Bytes sent to the client so far, without TLS.
    pub(crate) fn bytes_out(&self) -> u64 {
        self.bytes_out.load(Relaxed)
    }

    pub(super) fn add_bytes_in(&self, count: usize) {
        self.bytes_in.fetch_add(count as u64, Relaxed);
    }

    pub(super) fn add_bytes_out(&self, count: usize) {
        self.bytes_out.fetch_add(count as u64, Relaxed);
    }

    pub(super) fn connection_limit(&self) -> &ConnectionLimit {
        self.permit.limit()
    }
}
