//! Phase 1: binds sockets and accepts connections.
//!
//! Our own accept loop, not Pingora's: a port that cannot be had is an error before anything runs,
//! the number of connections is bounded, and stopping takes what the kernel has already accepted.

pub mod bind;
pub mod unix;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pingora::apps::HttpServerApp;
use pingora::server::ShutdownWatch;
use socket2::{SockFilter, SockRef};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::clock;
use crate::config::{AcceptProxyConfig, DownstreamConfig as Limits, ListenerConfig as Written};
use crate::downstream::{
    CloseReason, Connection, ConnectionInfo, ConnectionLimit, ConnectionPermit, DownstreamSocket,
    TlsSession, accept_tls, canonical_addr, read_proxy_header, serve,
};
use crate::proxy_protocol::ProxyHeader;
use crate::telemetry::error_log::LogRateLimit;
use crate::telemetry::metrics::{BadRequest, ConnectionRefusal, GaugeGuard, ListenerMetrics};
use crate::tls;

pub use self::bind::BindError;

/// How long to wait when accepting fails, as it does without free descriptors; less where a
/// connection ends meanwhile.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// How often a closing listener waits that long for a descriptor before it gives up what waits.
const MAX_DRAIN_BACKOFFS: usize = 50;

/// How often one listener warns that accepting fails.
const WARNING_INTERVAL: Duration = Duration::from_secs(10);

/// How long handshakes that have begun may take to complete when a listener closes: a round trip.
const HANDSHAKE_DRAIN_TIME: Duration = Duration::from_millis(200);

/// A socket filter (classic BPF, `socket(7)`: `SO_ATTACH_FILTER`) that drops a connection's first
/// segment, the one with SYN and without ACK (RFC 9293, 3.1: byte 13 of the header), and no other.
const DROP_SYN_FILTER: [SockFilter; 5] = [
    SockFilter::new(0x30, 0, 0, 13),       // load the flags
    SockFilter::new(0x54, 0, 0, 0x12),     // of them only SYN and ACK
    SockFilter::new(0x15, 0, 1, 0x02),     // SYN alone?
    SockFilter::new(0x06, 0, 0, 0),        // then drop it
    SockFilter::new(0x06, 0, 0, u32::MAX), // else take the whole segment
];

/// A bound socket of either family.
#[derive(Debug)]
pub enum ListenSocket {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket; its file is removed when it is closed by us.
    Unix(UnixListener),
}

/// A listener: a bound socket, and what its connections need.
#[derive(Debug)]
pub struct Listener {
    /// The address as configured; port 0 stays 0.
    pub configured_address: Arc<str>,
    /// Where it is counted.
    pub metrics: Arc<ListenerMetrics>,
    socket: ListenSocket,
    handed_over: Arc<AtomicBool>,
    accept_warnings: LogRateLimit,
}

/// What a listener's new connections are served by.
#[derive(Debug)]
pub struct ConnectionConfig {
    /// What a client may do.
    pub limits: Limits,
    /// Who says whose connections these are; `None`: they are of those who connect.
    pub proxy_protocol: Option<Arc<AcceptProxyConfig>>,
    /// How they are encrypted; `None`: they are not.
    pub tls: Option<Arc<tls::ListenerTls>>,
    /// Where they are not, clients may begin with HTTP/2.
    pub h2c: bool,
}

/// A client that has come: its connection, and its address where it has one.
type AcceptedSocket = (DownstreamSocket, Option<SocketAddr>);

impl Listener {
    /// Binds what is written. Call within a runtime.
    ///
    /// # Errors
    /// [`BindError`], with the address and what to do.
    pub fn bind(written: &Written, metrics: ListenerMetrics) -> Result<Self, BindError> {
        let socket =
            bind::bind(written).map_err(|source| BindError::new(&written.address, source))?;
        Ok(Self::new(written.address.to_string(), socket, metrics))
    }

    /// Takes over a listening socket that another process bound for this listener; one that is none is
    /// bound instead. A process that was about to close it may have shut new connections out
    /// ([`Self::refuse_new`]): they are let in.
    ///
    /// # Errors
    /// It was bound in another way than is written.
    pub fn adopt(
        written: &Written,
        socket: OwnedFd,
        shared: bool,
        metrics: ListenerMetrics,
    ) -> Result<Self, BindError> {
        bind::check_rebind(&socket, written, shared)?;
        match bind::adopt(written, socket) {
            Ok(socket) => Ok(Self::new(written.address.to_string(), socket, metrics)),
            Err(_) => Self::bind(written, metrics),
        }
    }

    /// Wraps a Unix socket that is already bound.
    pub fn from_unix(path: &str, socket: UnixListener, metrics: ListenerMetrics) -> Self {
        Self::new(path.to_owned(), ListenSocket::Unix(socket), metrics)
    }

    fn new(configured: String, socket: ListenSocket, metrics: ListenerMetrics) -> Self {
        Self {
            configured_address: configured.into(),
            metrics: Arc::new(metrics),
            socket,
            handed_over: Arc::default(),
            accept_warnings: LogRateLimit::every(WARNING_INTERVAL),
        }
    }

    /// A second descriptor of its socket, to hand over; the socket lives while either does.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub fn duplicate_fd(&self) -> Result<OwnedFd, BindError> {
        let duplicate = match &self.socket {
            ListenSocket::Tcp(socket) => socket.as_fd().try_clone_to_owned(),
            ListenSocket::Unix(socket) => socket.as_fd().try_clone_to_owned(),
        };
        duplicate.map_err(|source| BindError::new(&self.configured_address, source))
    }

    /// Set it before `shutdown` where another process accepts from the same socket: what still waits
    /// in the kernel is then its to take.
    pub fn handed_over(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.handed_over)
    }

    /// The address it is bound to, with the port that the kernel chose; `None` for a Unix socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &self.socket {
            ListenSocket::Tcp(socket) => socket.local_addr().ok(),
            ListenSocket::Unix(_) => None,
        }
    }

    /// The address it is bound to, for people; that of a Unix socket is as configured.
    pub fn display_address(&self) -> String {
        let bound = self.local_addr().map(|address| address.to_string());
        bound.unwrap_or_else(|| self.configured_address.to_string())
    }

    /// Accepts connections and serves them with `app`, until `shutdown`; then takes what still waits
    /// in the kernel, and closes the socket. The connections live on.
    pub async fn run<A>(
        self,
        app: Arc<A>,
        gate: Arc<ConnectionLimit>,
        terms: impl Fn() -> ConnectionConfig + Send + Sync,
        mut shutdown: ShutdownWatch,
    ) where
        A: HttpServerApp + Send + Sync + 'static,
    {
        let listener = (
            Arc::clone(&self.configured_address),
            Arc::clone(&self.metrics),
        );
        let door = Acceptor {
            app,
            connection_limit: gate,
            connection_config: terms,
            listener,
            shutdown: shutdown.clone(),
        };
        while !*shutdown.borrow() {
            let arrived = tokio::select! {
                biased;
                _ = shutdown.changed() => break,
                arrived = self.accept() => arrived,
            };
            match arrived {
                Ok(arrival) => {
                    self.wait_for_capacity(&door.connection_limit, &mut shutdown)
                        .await;
                    door.spawn_connection(arrival);
                }
                Err(error) => self.on_accept_error(&error, &door.connection_limit).await,
            }
        }
        if !self.handed_over.load(Ordering::SeqCst) {
            self.drain_accept_queue(&door).await;
        }
    }

    /// A client that has come while all places are taken is held until one is free. Only then is it
    /// known that somebody waits, and that idle connections are in somebody's way.
    async fn wait_for_capacity(&self, gate: &ConnectionLimit, shutdown: &mut ShutdownWatch) {
        gate.set_out_of_descriptors(false);
        if gate.is_reached() {
            self.metrics.full.inc();
            tokio::select! {
                () = gate.wait_for_capacity() => {}
                // The one at the door is inside already: closing shuts nobody out.
                _ = shutdown.changed() => {}
            }
        }
    }

    /// Takes whoever is at the door, and nobody after.
    async fn drain_accept_queue<A, T>(&self, door: &Acceptor<A, T>)
    where
        A: HttpServerApp + Send + Sync + 'static,
        T: Fn() -> ConnectionConfig + Send + Sync,
    {
        self.drop_new_syns();
        let over = tokio::time::sleep(HANDSHAKE_DRAIN_TIME);
        tokio::pin!(over);
        loop {
            let arrived = tokio::select! {
                arrived = self.accept() => arrived,
                () = &mut over => break,
            };
            match arrived {
                Ok(arrival) => door.spawn_connection(arrival),
                Err(error) => self.on_accept_error(&error, &door.connection_limit).await,
            }
        }
        let mut breathers = MAX_DRAIN_BACKOFFS;
        loop {
            match self.accept_nonblocking() {
                Ok(arrival) => door.spawn_connection(arrival),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if is_transient_error(&error) => {}
                Err(_) if breathers == 0 => return,
                Err(error) => {
                    breathers -= 1;
                    self.on_accept_error(&error, &door.connection_limit).await;
                }
            }
        }
    }

    /// Lets no further handshake begin, without closing the socket: what the kernel has begun can be
    /// finished and accepted. Closing at once would reset a connection that was established a moment
    /// before, with a request on its way. Later clients are refused when the socket is closed.
    fn drop_new_syns(&self) {
        let ListenSocket::Tcp(socket) = &self.socket else {
            return;
        };
        if let Err(error) = SockRef::from(socket).attach_filter(&DROP_SYN_FILTER) {
            log::debug!(
                "cannot hold new connections off {}: {error}",
                self.configured_address
            );
        }
    }

    async fn accept(&self) -> io::Result<AcceptedSocket> {
        match &self.socket {
            ListenSocket::Tcp(socket) => socket
                .accept()
                .await
                .map(|(tcp, client)| (DownstreamSocket::Tcp(tcp), Some(client))),
            ListenSocket::Unix(socket) => socket
                .accept()
                .await
                .map(|(unix, _)| (DownstreamSocket::Unix(unix), None)),
        }
    }

    /// A connection that the kernel has accepted and nobody has taken yet; asks the kernel itself, as
    /// the runtime may not know yet that there is one.
    fn accept_nonblocking(&self) -> io::Result<AcceptedSocket> {
        let (socket, client) = match &self.socket {
            ListenSocket::Tcp(listener) => SockRef::from(listener).accept()?,
            ListenSocket::Unix(listener) => SockRef::from(listener).accept()?,
        };
        socket.set_nonblocking(true)?;
        let socket = match &self.socket {
            ListenSocket::Tcp(_) => DownstreamSocket::Tcp(TcpStream::from_std(socket.into())?),
            ListenSocket::Unix(_) => DownstreamSocket::Unix(UnixStream::from_std(socket.into())?),
        };
        Ok((socket, client.as_socket()))
    }

    /// Accepting failed. Without a free descriptor it goes on failing until a connection ends, so the
    /// others are asked to.
    async fn on_accept_error(&self, error: &io::Error, gate: &ConnectionLimit) {
        self.metrics.accept_errors.inc();
        if is_transient_error(error) {
            return;
        }
        if let Some(held_back) = self.accept_warnings.try_acquire(clock::since_start()) {
            let name = &self.configured_address;
            log::warn!("accepting on {name} fails: {error} ({held_back} more since the last time)");
        }
        gate.set_out_of_descriptors(is_out_of_descriptors(error));
        gate.evict_idle_and_wait(ACCEPT_BACKOFF).await;
    }
}

/// A client that was gone before it was accepted, or a signal: the next accept may well succeed.
fn is_transient_error(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted
    )
}

/// Neither the process (EMFILE) nor the system (ENFILE) has a descriptor left.
fn is_out_of_descriptors(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE]
        .iter()
        .any(|errno| code == Some(errno.raw_os_error()))
}

/// What every connection of a listener is handed.
struct Acceptor<A, T> {
    app: Arc<A>,
    connection_limit: Arc<ConnectionLimit>,
    connection_config: T,
    listener: (Arc<str>, Arc<ListenerMetrics>),
    shutdown: ShutdownWatch,
}

impl<A, T> Acceptor<A, T>
where
    A: HttpServerApp + Send + Sync + 'static,
    T: Fn() -> ConnectionConfig,
{
    fn spawn_connection(&self, (socket, remote): AcceptedSocket) {
        let (_, metrics) = &self.listener;
        metrics.accepted.inc();
        if let DownstreamSocket::Tcp(tcp) = &socket {
            // Responses are gathered into one write here; the kernel need not wait for more.
            let _ = tcp.set_nodelay(true);
        }
        let visit = ConnectionTask {
            remote_addr: remote.map(canonical_addr),
            listener: self.listener.clone(),
            permit: self.connection_limit.acquire(),
            config: (self.connection_config)(),
            shutdown: self.shutdown.clone(),
        };
        // In a task of its own from the first byte on: whoever is slow at it keeps nobody waiting.
        tokio::spawn(visit.serve(socket, Arc::clone(&self.app)));
    }
}

/// One client, from the door on.
struct ConnectionTask {
    /// The address on the other end of the socket.
    remote_addr: Option<SocketAddr>,
    listener: (Arc<str>, Arc<ListenerMetrics>),
    permit: ConnectionPermit,
    config: ConnectionConfig,
    shutdown: ShutdownWatch,
}

impl ConnectionTask {
    async fn serve<A>(mut self, mut socket: DownstreamSocket, app: Arc<A>)
    where
        A: HttpServerApp + Send + Sync + 'static,
    {
        let metrics = Arc::clone(&self.listener.1);
        let _open = GaugeGuard::new(&metrics.active);
        let party = match self.identify_client(&mut socket).await {
            Ok(party) => party,
            Err(refused) => return metrics.refused.inc(refused),
        };
        let Some(secured) =
            accept_tls_if_configured(self.config.tls.as_deref(), socket, &metrics).await
        else {
            return;
        };
        let connection = Connection::new(
            secured,
            party,
            self.listener,
            self.permit,
            self.config.limits,
            self.shutdown,
        );
        count_close_reason(&metrics, serve(connection, self.config.h2c, &app).await);
    }
}

impl ConnectionTask {
    /// Learns whose connection it is, and whether that client may have one more.
    async fn identify_client(
        &mut self,
        socket: &mut DownstreamSocket,
    ) -> Result<ConnectionInfo, ConnectionRefusal> {
        let header = self.read_header_if_trusted(socket).await?;
        let party = ConnectionInfo {
            remote_addr: self.remote_addr,
            proxy_header: header.map(Box::new),
        };
        match (party.client_addr(), self.config.limits.per_client) {
            (Some(client), Some(rule)) if !self.permit.acquire_for_client(client.ip(), rule) => {
                Err(ConnectionRefusal::ClientLimit)
            }
            _ => Ok(party),
        }
    }

    /// Who is to say whose connection it is must: whether a header is there is never guessed, or
    /// everybody could say it.
    async fn read_header_if_trusted(
        &self,
        socket: &mut DownstreamSocket,
    ) -> Result<Option<ProxyHeader>, ConnectionRefusal> {
        let Some(rule) = &self.config.proxy_protocol else {
            return Ok(None);
        };
        let believed = self
            .remote_addr
            .is_none_or(|remote| rule.from.contains(remote.ip()));
        if believed {
            read_proxy_header(socket, rule.timeout).await.map(Some)
        } else if rule.accept_untrusted {
            Ok(None)
        } else {
            Err(ConnectionRefusal::UntrustedSource)
        }
    }
}

/// Does the handshake, where there is one to do; `None`: it failed, and was counted.
async fn accept_tls_if_configured(
    tls: Option<&tls::ListenerTls>,
    socket: DownstreamSocket,
    metrics: &ListenerMetrics,
) -> Option<(DownstreamSocket, Option<TlsSession>)> {
    let Some(tls) = tls else {
        return Some((socket, None));
    };
    match accept_tls(socket, tls).await {
        Ok((socket, secured)) => {
            metrics.handshakes.inc(secured.handshake_kind());
            Some((socket, Some(secured)))
        }
        Err(reason) => {
            metrics.handshake_failures.inc(reason);
            None
        }
    }
}

fn count_close_reason(metrics: &ListenerMetrics, end: CloseReason) {
    match end {
        CloseReason::Clean | CloseReason::RequestTimeout => {}
        CloseReason::IdleTimeout => {
            metrics.idle_closed.inc();
        }
        CloseReason::HeaderTimeout => {
            metrics.header_timeouts.inc();
        }
        CloseReason::HeaderTooLarge => metrics.bad_requests.inc(BadRequest::HeaderTooLarge),
        CloseReason::MalformedRequest => metrics.bad_requests.inc(BadRequest::Malformed),
        CloseReason::HeaderTruncated => metrics.bad_requests.inc(BadRequest::Truncated),
        CloseReason::Http2Violation(violation) => metrics.http2_violations.inc(violation),
    }
}
