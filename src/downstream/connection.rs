//! One client connection: what holds for every request on it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

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
    pub limits: DownstreamConfig,
    /// What its TLS handshake agreed on; `None`: it is not encrypted.
    pub tls: Option<TlsSession>,
    /// The listener's address as configured.
    pub listener_address: Arc<str>,
    /// Where the listener is counted.
    pub metrics: Arc<ListenerMetrics>,
    /// Its place among the open connections.
    permit: ConnectionPermit,
    pub(super) shutdown: ShutdownWatch,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    pub(super) socket: Mutex<BufferedSocket>,
}

impl Connection {
    /// A connection that was just accepted.
    pub fn new(
        (socket, secured): (DownstreamSocket, Option<TlsSession>),
        party: ConnectionInfo,
        (listener, metrics): (Arc<str>, Arc<ListenerMetrics>),
        guest: ConnectionPermit,
        limits: DownstreamConfig,
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
