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

use pingora_core::apps::HttpServerApp;
use pingora_core::server::ShutdownWatch;
use socket2::{SockFilter, SockRef};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::clock;
use crate::config::{Downstream as Limits, Introductions, Listener as Written};
use crate::connection::{
    Connection, End, Gate, Guest, Party, Secured, Socket, canonical, introduction, secure, serve,
};
use crate::proxy_protocol::Header;
use crate::telemetry::log::Occasionally;
use crate::telemetry::metrics::{BadRequest, Held, ListenerMetrics, Refused};
use crate::tls;

pub use self::bind::BindError;

/// How long to wait when accepting fails, as it does without free descriptors; less where a
/// connection ends meanwhile.
const BREATHER: Duration = Duration::from_millis(100);

/// How often a closing listener waits that long for a descriptor before it gives up what waits.
const LAST_BREATHERS: usize = 50;

/// How often one listener warns that accepting fails.
const WARNINGS: Duration = Duration::from_secs(10);

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
    warnings: Occasionally,
}

/// What a listener's new connections are served by.
#[derive(Debug)]
pub struct Terms {
    /// What a client may do.
    pub limits: Limits,
    /// Who says whose connections these are; `None`: they are of those who connect.
    pub introductions: Option<Arc<Introductions>>,
    /// How they are encrypted; `None`: they are not.
    pub tls: Option<Arc<tls::Server>>,
    /// Where they are not, clients may begin with HTTP/2.
    pub h2c: bool,
}

/// A client that has come: its connection, and its address where it has one.
type Arrival = (Socket, Option<SocketAddr>);

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
        bind::check(&socket, written, shared)?;
        match bind::adopt(written, socket) {
            Ok(socket) => Ok(Self::new(written.address.to_string(), socket, metrics)),
            Err(_) => Self::bind(written, metrics),
        }
    }

    /// Wraps a Unix socket that is already bound.
    pub fn unix(path: &str, socket: UnixListener, metrics: ListenerMetrics) -> Self {
        Self::new(path.to_owned(), Bound::Unix(socket), metrics)
    }

    fn new(configured: String, socket: Bound, metrics: ListenerMetrics) -> Self {
        Self {
            configured: configured.into(),
            metrics: Arc::new(metrics),
            socket,
            handed_over: Arc::default(),
            warnings: Occasionally::every(WARNINGS),
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
        duplicate.map_err(|source| BindError::new(&self.configured, source))
    }

    /// Set it before `shutdown` where another process accepts from the same socket: what still waits
    /// in the kernel is then its to take.
    pub fn handed_over(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.handed_over)
    }

    /// The address it is bound to, with the port that the kernel chose; `None` for a Unix socket.
    pub fn bound(&self) -> Option<SocketAddr> {
        match &self.socket {
            Bound::Tcp(socket) => socket.local_addr().ok(),
            Bound::Unix(_) => None,
        }
    }

    /// The address it is bound to, for people; that of a Unix socket is as configured.
    pub fn name(&self) -> String {
        let bound = self.bound().map(|address| address.to_string());
        bound.unwrap_or_else(|| self.configured.to_string())
    }

    /// Accepts connections and serves them with `app`, until `shutdown`; then takes what still waits
    /// in the kernel, and closes the socket. The connections live on.
    pub async fn run<A>(
        self,
        app: Arc<A>,
        gate: Arc<Gate>,
        terms: impl Fn() -> Terms + Send + Sync,
        mut shutdown: ShutdownWatch,
    ) where
        A: HttpServerApp + Send + Sync + 'static,
    {
        let listener = (Arc::clone(&self.configured), Arc::clone(&self.metrics));
        let door = Door {
            app,
            gate,
            terms,
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
                    self.wait_for_room(&door.gate, &mut shutdown).await;
                    door.admit(arrival);
                }
                Err(error) => self.complain(&error, &door.gate).await,
            }
        }
        if !self.handed_over.load(Ordering::SeqCst) {
            self.finish(&door).await;
        }
    }

    /// A client that has come while all places are taken is held until one is free. Only then is it
    /// known that somebody waits, and that idle connections are in somebody's way.
    async fn wait_for_room(&self, gate: &Gate, shutdown: &mut ShutdownWatch) {
        gate.set_exhausted(false);
        if gate.is_full() {
            self.metrics.full.inc();
            tokio::select! {
                () = gate.room() => {}
                // The one at the door is inside already: closing shuts nobody out.
                _ = shutdown.changed() => {}
            }
        }
    }

    /// Takes whoever is at the door, and nobody after.
    async fn finish<A, T>(&self, door: &Door<A, T>)
    where
        A: HttpServerApp + Send + Sync + 'static,
        T: Fn() -> Terms + Send + Sync,
    {
        self.refuse_new();
        let over = tokio::time::sleep(LAST_HANDSHAKES);
        tokio::pin!(over);
        loop {
            let arrived = tokio::select! {
                arrived = self.accept() => arrived,
                () = &mut over => break,
            };
            match arrived {
                Ok(arrival) => door.admit(arrival),
                Err(error) => self.complain(&error, &door.gate).await,
            }
        }
        let mut breathers = LAST_BREATHERS;
        loop {
            match self.accept_waiting() {
                Ok(arrival) => door.admit(arrival),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if concerns_one(&error) => {}
                Err(_) if breathers == 0 => return,
                Err(error) => {
                    breathers -= 1;
                    self.complain(&error, &door.gate).await;
                }
            }
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

    async fn accept(&self) -> io::Result<Arrival> {
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

    /// A connection that the kernel has accepted and nobody has taken yet; asks the kernel itself, as
    /// the runtime may not know yet that there is one.
    fn accept_waiting(&self) -> io::Result<Arrival> {
        let (socket, client) = match &self.socket {
            Bound::Tcp(listener) => SockRef::from(listener).accept()?,
            Bound::Unix(listener) => SockRef::from(listener).accept()?,
        };
        socket.set_nonblocking(true)?;
        let socket = match &self.socket {
            Bound::Tcp(_) => Socket::Tcp(TcpStream::from_std(socket.into())?),
            Bound::Unix(_) => Socket::Unix(UnixStream::from_std(socket.into())?),
        };
        Ok((socket, client.as_socket()))
    }

    /// Accepting failed. Without a free descriptor it goes on failing until a connection ends, so the
    /// others are asked to.
    async fn complain(&self, error: &io::Error, gate: &Gate) {
        self.metrics.accept_errors.inc();
        if concerns_one(error) {
            return;
        }
        if let Some(held_back) = self.warnings.now(clock::since_start()) {
            let name = &self.configured;
            log::warn!("accepting on {name} fails: {error} ({held_back} more since the last time)");
        }
        gate.set_exhausted(is_exhaustion(error));
        gate.one_left(BREATHER).await;
    }
}

/// A client that was gone before it was accepted, or a signal: the next accept may well succeed.
fn concerns_one(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted
    )
}

/// Neither the process (EMFILE) nor the system (ENFILE) has a descriptor left.
fn is_exhaustion(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE]
        .iter()
        .any(|errno| code == Some(errno.raw_os_error()))
}

/// What every connection of a listener is handed.
struct Door<A, T> {
    app: Arc<A>,
    gate: Arc<Gate>,
    terms: T,
    listener: (Arc<str>, Arc<ListenerMetrics>),
    shutdown: ShutdownWatch,
}

impl<A, T> Door<A, T>
where
    A: HttpServerApp + Send + Sync + 'static,
    T: Fn() -> Terms,
{
    fn admit(&self, (socket, remote): Arrival) {
        let (_, metrics) = &self.listener;
        metrics.accepted.inc();
        if let Socket::Tcp(tcp) = &socket {
            // Responses are gathered into one write here; the kernel need not wait for more.
            let _ = tcp.set_nodelay(true);
        }
        let visit = Visit {
            remote: remote.map(canonical),
            listener: self.listener.clone(),
            guest: self.gate.enter(),
            terms: (self.terms)(),
            shutdown: self.shutdown.clone(),
        };
        // In a task of its own from the first byte on: whoever is slow at it keeps nobody waiting.
        tokio::spawn(visit.serve(socket, Arc::clone(&self.app)));
    }
}

/// One client, from the door on.
struct Visit {
    /// The address on the other end of the socket.
    remote: Option<SocketAddr>,
    listener: (Arc<str>, Arc<ListenerMetrics>),
    guest: Guest,
    terms: Terms,
    shutdown: ShutdownWatch,
}

impl Visit {
    async fn serve<A>(mut self, mut socket: Socket, app: Arc<A>)
    where
        A: HttpServerApp + Send + Sync + 'static,
    {
        let metrics = Arc::clone(&self.listener.1);
        let _open = Held::new(&metrics.active);
        let party = match self.meet(&mut socket).await {
            Ok(party) => party,
            Err(refused) => return metrics.refused.inc(refused),
        };
        let Some(secured) = secure_if(self.terms.tls.as_deref(), socket, &metrics).await else {
            return;
        };
        let connection = Connection::new(
            secured,
            party,
            self.listener,
            self.guest,
            self.terms.limits,
            self.shutdown,
        );
        count(&metrics, serve(connection, self.terms.h2c, &app).await);
    }
}

impl Visit {
    /// Learns whose connection it is, and whether that client may have one more.
    async fn meet(&mut self, socket: &mut Socket) -> Result<Party, Refused> {
        let header = self.introduction(socket).await?;
        let party = Party {
            remote: self.remote,
            header: header.map(Box::new),
        };
        match (party.client(), self.terms.limits.per_client) {
            (Some(client), Some(rule)) if !self.guest.seat(client.ip(), rule) => {
                Err(Refused::ClientLimit)
            }
            _ => Ok(party),
        }
    }

    /// Who is to say whose connection it is must: whether a header is there is never guessed, or
    /// everybody could say it.
    async fn introduction(&self, socket: &mut Socket) -> Result<Option<Header>, Refused> {
        let Some(rule) = &self.terms.introductions else {
            return Ok(None);
        };
        let believed = self
            .remote
            .is_none_or(|remote| rule.from.contains(remote.ip()));
        if believed {
            introduction(socket, rule.timeout).await.map(Some)
        } else if rule.serve_others {
            Ok(None)
        } else {
            Err(Refused::Stranger)
        }
    }
}

/// Does the handshake, where there is one to do; `None`: it failed, and was counted.
async fn secure_if(
    tls: Option<&tls::Server>,
    socket: Socket,
    metrics: &ListenerMetrics,
) -> Option<(Socket, Option<Secured>)> {
    let Some(tls) = tls else {
        return Some((socket, None));
    };
    match secure(socket, tls).await {
        Ok((socket, secured)) => {
            metrics.handshakes.inc(secured.kind());
            Some((socket, Some(secured)))
        }
        Err(reason) => {
            metrics.handshake_failures.inc(reason);
            None
        }
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
        End::HeaderTooLarge => metrics.bad_requests.inc(BadRequest::HeaderTooLarge),
        End::Malformed => metrics.bad_requests.inc(BadRequest::Malformed),
        End::HeaderCut => metrics.bad_requests.inc(BadRequest::Truncated),
        End::Violation(violation) => metrics.http2_violations.inc(violation),
    }
}
