//! Phase 1: binds sockets and accepts connections.
//!
//! Our own accept loop, not Pingora's: a port that cannot be had is an error before anything runs,
//! the number of connections is bounded, and stopping takes what the kernel has already accepted.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pingora_core::apps::HttpServerApp;
use pingora_core::server::ShutdownWatch;
use socket2::{Domain, Protocol, SockFilter, SockRef, Socket as RawSocket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::config::Downstream as Limits;
use crate::connection::{Connection, Downstream, End, Gate, Guest, Socket, serve_http1};
use crate::telemetry::metrics::{BadRequest, Held, ListenerMetrics};

/// How long to wait when accepting fails, as it does without free descriptors.
const BREATHER: Duration = Duration::from_millis(100);

/// How long handshakes that have begun may take to complete when a listener closes: a round trip.
const LAST_HANDSHAKES: Duration = Duration::from_millis(200);

/// A socket filter (classic BPF, `socket(7)`: `SO_ATTACH_FILTER`) that drops a connection's first
/// segment, the one with SYN and without ACK (RFC 9293, 3.1: byte 13 of the header), and no other.
const NO_SYN: [SockFilter; 5] = [
    SockFilter::new(0x30, 0, 0, 13),       // load the flags
    SockFilter::new(0x54, 0, 0, 0x12),     // of them only SYN and ACK
    SockFilter::new(0x15, 0, 1, 0x02),     // SYN alone?
    SockFilter::new(0x06, 0, 0, 0),        // then drop it
    SockFilter::new(0x06, 0, 0, u32::MAX), // else take the whole segment
];

/// Why a listener cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}{}", advice(source))]
pub struct BindError {
    address: String,
    source: io::Error,
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; another process has it (try `ss -ltnp`)",
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need the capability CAP_NET_BIND_SERVICE"
        }
        io::ErrorKind::AddrNotAvailable => "; no interface of this machine has that address",
        _ => "",
    }
}

/// A bound socket of either family.
#[derive(Debug)]
pub enum Bound {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket; its file is removed when it is closed by us.
    Unix(UnixListener),
}

/// A listener: a bound socket, and what its connections need.
#[derive(Debug)]
pub struct Listener {
    /// The address as configured; port 0 stays 0.
    pub configured: Arc<str>,
    /// Where it is counted.
    pub metrics: Arc<ListenerMetrics>,
    socket: Bound,
    handed_over: Arc<AtomicBool>,
}

impl Listener {
    /// Binds a TCP address; `backlog` connections may wait in the kernel. Call within a runtime.
    ///
    /// # Errors
    /// [`BindError`], with the address and what to do.
    pub fn tcp(
        address: SocketAddr,
        backlog: u32,
        metrics: ListenerMetrics,
    ) -> Result<Self, BindError> {
        let socket = bind(address, backlog)
            .and_then(|socket| TcpListener::from_std(socket.into()))
            .map_err(|source| BindError {
                address: address.to_string(),
                source,
            })?;
        let metrics = Arc::new(metrics);
        Ok(Self {
            configured: address.to_string().into(),
            metrics,
            socket: Bound::Tcp(socket),
            handed_over: Arc::default(),
        })
    }

    /// Wraps a Unix socket that is already bound.
    pub fn unix(path: &str, socket: UnixListener, metrics: ListenerMetrics) -> Self {
        Self {
            configured: path.into(),
            metrics: Arc::new(metrics),
            socket: Bound::Unix(socket),
            handed_over: Arc::default(),
        }
    }

    /// A second descriptor of its socket, to hand over; the socket lives while either does.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub fn duplicate(&self) -> Result<OwnedFd, BindError> {
        let duplicate = match &self.socket {
            Bound::Tcp(socket) => socket.as_fd().try_clone_to_owned(),
            Bound::Unix(socket) => socket.as_fd().try_clone_to_owned(),
        };
        duplicate.map_err(|source| BindError {
            address: self.configured.to_string(),
            source,
        })
    }

    /// Set it before `shutdown` where another process accepts from the same socket: what still waits
    /// in the kernel is then its to take.
    pub fn handed_over(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.handed_over)
    }

    /// Takes over a listening TCP socket that another process bound to `address`.
    ///
    /// # Errors
    /// The descriptor is not a listening socket.
    pub fn adopt_tcp(
        address: SocketAddr,
        socket: OwnedFd,
        metrics: ListenerMetrics,
    ) -> io::Result<Self> {
        let socket = std::net::TcpListener::from(socket);
        socket.set_nonblocking(true)?;
        Ok(Self {
            configured: address.to_string().into(),
            metrics: Arc::new(metrics),
            socket: Bound::Tcp(TcpListener::from_std(socket)?),
            handed_over: Arc::default(),
        })
    }

    /// The address it is bound to, with the port that the kernel chose; `None` for a Unix socket.
    pub fn bound(&self) -> Option<SocketAddr> {
        match &self.socket {
            Bound::Tcp(socket) => socket.local_addr().ok(),
            Bound::Unix(_) => None,
        }
    }

    /// Accepts connections and serves them with `app`, until `shutdown`; then takes what still waits
    /// in the kernel, and closes the socket. The connections live on.
    pub async fn run<A>(
        self,
        app: Arc<A>,
        gate: Arc<Gate>,
        limits: impl Fn() -> Limits + Send,
        mut shutdown: ShutdownWatch,
    ) where
        A: HttpServerApp + Send + Sync + 'static,
    {
        let listener = (Arc::clone(&self.configured), Arc::clone(&self.metrics));
        let door = Door {
            app,
            listener,
            shutdown: shutdown.clone(),
        };
        while !*shutdown.borrow() {
            let entered = tokio::select! {
                biased;
                _ = shutdown.changed() => break,
                entered = self.accept(&gate) => entered,
            };
            match entered {
                Ok((socket, client)) => door.admit(socket, client, gate.enter(), limits()),
                Err(error) => self.complain(&error).await,
            }
        }
        if self.handed_over.load(Ordering::SeqCst) {
            return;
        }
        self.refuse_new();
        let over = tokio::time::sleep(LAST_HANDSHAKES);
        tokio::pin!(over);
        loop {
            let entered = tokio::select! {
                entered = self.accept_now() => entered,
                () = &mut over => break,
            };
            match entered {
                Ok((socket, client)) => door.admit(socket, client, gate.enter(), limits()),
                Err(error) => self.complain(&error).await,
            }
        }
        for (socket, client) in self.rest() {
            door.admit(socket, client, gate.enter(), limits());
        }
    }

    /// Lets no further handshake begin, without closing the socket: what the kernel has begun can be
    /// finished and accepted. Closing at once would reset a connection that was established a moment
    /// before, with a request on its way. Later clients are refused when the socket is closed.
    fn refuse_new(&self) {
        let Bound::Tcp(socket) = &self.socket else {
            return;
        };
        if let Err(error) = SockRef::from(socket).attach_filter(&NO_SYN) {
            log::debug!(
                "cannot hold new connections off {}: {error}",
                self.configured
            );
        }
    }

    async fn accept(&self, gate: &Gate) -> io::Result<(Socket, Option<SocketAddr>)> {
        if gate.is_full() {
            self.metrics.full.inc();
            gate.room().await;
        }
        self.accept_now().await
    }

    async fn accept_now(&self) -> io::Result<(Socket, Option<SocketAddr>)> {
        match &self.socket {
            Bound::Tcp(socket) => socket
                .accept()
                .await
                .map(|(tcp, client)| (Socket::Tcp(tcp), Some(client))),
            Bound::Unix(socket) => socket
                .accept()
                .await
                .map(|(unix, _)| (Socket::Unix(unix), None)),
        }
    }

    /// A client that is gone before it was accepted is no reason to pause.
    async fn complain(&self, error: &io::Error) {
        self.metrics.accept_errors.inc();
        if error.kind() != io::ErrorKind::ConnectionAborted {
            log::warn!("accepting on {} fails: {error}", self.configured);
            tokio::time::sleep(BREATHER).await;
        }
    }

    /// The connections that the kernel has accepted and nobody has taken yet.
    fn rest(self) -> Vec<(Socket, Option<SocketAddr>)> {
        match self.socket {
            Bound::Tcp(socket) => {
                let Ok(socket) = socket.into_std() else {
                    return Vec::new();
                };
                let waiting = std::iter::from_fn(|| socket.accept().ok());
                let adopt = |(tcp, client): (std::net::TcpStream, _)| {
                    tcp.set_nonblocking(true).ok()?;
                    Some((Socket::Tcp(TcpStream::from_std(tcp).ok()?), Some(client)))
                };
                waiting.filter_map(adopt).collect()
            }
            Bound::Unix(socket) => {
                let Ok(socket) = socket.into_std() else {
                    return Vec::new();
                };
                let waiting = std::iter::from_fn(|| socket.accept().ok());
                let adopt = |(unix, _): (std::os::unix::net::UnixStream, _)| {
                    unix.set_nonblocking(true).ok()?;
                    Some((Socket::Unix(UnixStream::from_std(unix).ok()?), None))
                };
                waiting.filter_map(adopt).collect()
            }
        }
    }
}

fn bind(address: SocketAddr, backlog: u32) -> io::Result<RawSocket> {
    let socket = RawSocket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // A restarted server must not wait for its predecessor's connections to be forgotten.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // `[::]` takes IPv4 as well, whatever the system's default is.
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket)
}

/// What every connection of a listener is handed.
struct Door<A> {
    app: Arc<A>,
    listener: (Arc<str>, Arc<ListenerMetrics>),
    shutdown: ShutdownWatch,
}

impl<A: HttpServerApp + Send + Sync + 'static> Door<A> {
    fn admit(&self, socket: Socket, client: Option<SocketAddr>, guest: Guest, limits: Limits) {
        let (name, metrics) = self.listener.clone();
        metrics.accepted.inc();
        let client =
            client.map(|client| SocketAddr::new(client.ip().to_canonical(), client.port()));
        let (app, shutdown) = (Arc::clone(&self.app), self.shutdown.clone());
        tokio::spawn(async move {
            let _open = Held::new(&metrics.active);
            let connection = Connection::new(client, (name, Arc::clone(&metrics)), guest, limits);
            if let Socket::Tcp(tcp) = &socket {
                // Responses are gathered into one write here; the kernel need not wait for more.
                let _ = tcp.set_nodelay(true);
            }
            if let Ok(stream) = Downstream::new(socket, Arc::clone(&connection)) {
                count(
                    &metrics,
                    serve_http1(stream, &connection, &app, &shutdown).await,
                );
            }
        });
    }
}

fn count(metrics: &ListenerMetrics, end: End) {
    match end {
        End::Clean | End::RequestTimeout => {}
        End::IdleTimeout => {
            metrics.idle_closed.inc();
        }
        End::HeaderTimeout => {
            metrics.header_timeouts.inc();
        }
        End::Malformed => metrics.bad_requests.inc(BadRequest::Malformed),
        End::HeaderCut => metrics.bad_requests.inc(BadRequest::Truncated),
    }
}
