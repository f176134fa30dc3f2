//! Clients of every kind at once, none of which retries, so that whatever a change of the instance
//! breaks is seen.

use std::collections::BTreeMap;
use std::io::{self, Error};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::client::{Connection, Request, Response};
use super::edge::Edge;
use super::wait;

/// Running clients.
pub(crate) struct MixedLoad {
    address: SocketAddr,
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    done: Mutex<BTreeMap<&'static str, ClientStats>>,
    failures: Mutex<Vec<String>>,
}

/// The results of the clients of one kind.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ClientStats {
    /// Requests or messages with a response.
    pub(crate) answered: usize,
    /// The longest time of one of them, including the client's pauses.
    pub(crate) longest: Duration,
}

/// The size of an upload or a download, in pieces.
const PIECE: usize = 64 << 10;
const PIECES: usize = 40;

/// The length of a download, which its origin must send.
pub(crate) const DOWNLOAD: usize = PIECE * PIECES;

/// The pause between two pieces: an upload or a download lasts about two seconds.
const PIECE_PAUSE: Duration = Duration::from_millis(50);

impl MixedLoad {
    /// No clients yet.
    pub(crate) fn before(edge: &Edge) -> Self {
        Self {
            address: edge.address,
            shared: Arc::default(),
            clients: Vec::new(),
        }
    }

    /// Adds keep-alive connections that send requests without pause.
    pub(crate) fn busy(self, count: usize) -> Self {
        self.join("busy", count, |address, _| {
            let mut kept = None;
            move || ask(&mut kept, address)
        })
    }

    /// Adds keep-alive connections that send about one request per second, at different intervals.
    pub(crate) fn idle(self, count: usize) -> Self {
        self.join("idle", count, |address, index| {
            let pause = Duration::from_millis(700) + Duration::from_millis(37 * index % 600);
            let mut kept = None;
            move || {
                thread::sleep(pause);
                ask(&mut kept, address)
            }
        })
    }

    /// Adds clients that open a new connection for each request.
    pub(crate) fn fresh(self, count: usize) -> Self {
        self.join("fresh", count, |address, _| move || ask(&mut None, address))
    }

    /// Adds clients that send `POST /upload`, one piece at a time.
    pub(crate) fn uploads(self, count: usize) -> Self {
        self.join("upload", count, |address, _| move || upload(address))
    }

    /// Adds clients that read `GET /download`, one piece at a time; they expect [`DOWNLOAD`] bytes.
    pub(crate) fn downloads(self, count: usize) -> Self {
        self.join("download", count, |address, _| move || download(address))
    }

    /// Adds clients that open a WebSocket with `GET /socket` and send echo messages in a loop.
    pub(crate) fn sockets(self, count: usize) -> Self {
        self.join("socket", count, |address, _| {
            let mut kept = None;
            move || echo(&mut kept, address)
        })
    }

    fn join<Client: FnMut() -> io::Result<()> + Send + 'static>(
        mut self,
        kind: &'static str,
        count: usize,
        make: impl Fn(SocketAddr, u64) -> Client,
    ) -> Self {
        for index in (0..).take(count) {
            let (shared, mut client) = (Arc::clone(&self.shared), make(self.address, index));
            self.clients
                .push(thread::spawn(move || shared.repeat(kind, &mut client)));
        }
        self
    }

    /// Waits until clients of every kind have `count` further responses.
    #[track_caller]
    pub(crate) fn wait_for_more(&self, count: usize) {
        let before = self.done();
        for kind in self.shared.kinds() {
            let goal = before.get(kind).map_or(0, |done| done.answered) + count;
            let reached = || {
                self.done()
                    .get(kind)
                    .is_some_and(|done| done.answered >= goal)
            };
            wait::until(&format!("{kind} clients to be answered"), reached);
        }
    }

    fn done(&self) -> BTreeMap<&'static str, ClientStats> {
        self.shared.done.lock().expect("not poisoned").clone()
    }

    /// Stops the clients and ignores their failures.
    pub(crate) fn abandon(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for client in self.clients.drain(..) {
            client.join().expect("a client");
        }
    }

    /// Stops the clients after their current request. Panics if any request failed.
    #[track_caller]
    pub(crate) fn stop(self) -> BTreeMap<&'static str, ClientStats> {
        self.shared.stop.store(true, Ordering::SeqCst);
        let done = Arc::clone(&self.shared);
        for client in self.clients {
            client.join().expect("a client");
        }
        let failures = done.failures.lock().expect("not poisoned");
        let first: Vec<_> = failures.iter().take(10).collect();
        assert!(
            failures.is_empty(),
            "{} failures: {first:#?}",
            failures.len()
        );
        done.done.lock().expect("not poisoned").clone()
    }
}

impl Shared {
    fn repeat(&self, kind: &'static str, client: &mut impl FnMut() -> io::Result<()>) {
        self.count(kind, |_| {});
        while !self.stop.load(Ordering::SeqCst) {
            let (outcome, took) = wait::timed(&mut *client);
            match outcome {
                Ok(()) => self.count(kind, |done| {
                    done.answered += 1;
                    done.longest = done.longest.max(took);
                }),
                Err(error) => self.fail(format!("{kind}: {error}")),
            }
        }
    }

    fn count(&self, kind: &'static str, change: impl FnOnce(&mut ClientStats)) {
        let mut done = self.done.lock().expect("not poisoned");
        change(done.entry(kind).or_default());
    }

    fn fail(&self, why: String) {
        self.failures.lock().expect("not poisoned").push(why);
        // A refused connect fails at once; a few failures are enough.
        thread::sleep(Duration::from_millis(20));
    }

    fn kinds(&self) -> Vec<&'static str> {
        let done = self.done.lock().expect("not poisoned");
        done.keys().copied().collect()
    }
}

/// Sends one request over the kept connection, or over a new one after `Connection: close`.
fn ask(kept: &mut Option<Connection>, address: SocketAddr) -> io::Result<()> {
    let mut connection = match kept.take() {
        Some(connection) => connection,
        None => Connection::try_open(address)?,
    };
    let response = expect_ok(connection.get("/?k=a")?)?;
    if !response.closes() {
        *kept = Some(connection);
    }
    Ok(())
}

fn upload(address: SocketAddr) -> io::Result<()> {
    let mut connection = Connection::try_open(address)?;
    connection.send(format!(
        "POST /upload HTTP/1.1\r\nHost: h\r\nContent-Length: {DOWNLOAD}\r\n\r\n"
    ))?;
    let piece = vec![b'u'; PIECE];
    for _ in 0..PIECES {
        thread::sleep(PIECE_PAUSE);
        connection.send(&piece)?;
    }
    let arrived = expect_ok(connection.response()?)?.json()["length"].as_u64();
    match arrived {
        Some(length) if length == DOWNLOAD as u64 => Ok(()),
        other => Err(Error::other(format!("{other:?} bytes arrived"))),
    }
}

fn download(address: SocketAddr) -> io::Result<()> {
    let mut connection = Connection::try_open(address)?;
    connection.send("GET /download HTTP/1.1\r\nHost: h\r\n\r\n")?;
    expect_ok(connection.head()?)?;
    for _ in 0..PIECES {
        thread::sleep(PIECE_PAUSE);
        connection.exactly(PIECE)?;
    }
    Ok(())
}

fn echo(kept: &mut Option<Connection>, address: SocketAddr) -> io::Result<()> {
    let mut socket = match kept.take() {
        Some(socket) => socket,
        None => open_socket(address)?,
    };
    thread::sleep(Duration::from_millis(20));
    socket.send("are you there?")?;
    let answer = socket.exactly(14)?;
    *kept = Some(socket);
    if answer == b"are you there?" {
        Ok(())
    } else {
        Err(Error::other("another echo"))
    }
}

/// Opens a WebSocket.
pub(crate) fn open_socket(address: SocketAddr) -> io::Result<Connection> {
    let mut connection = Connection::try_open(address)?;
    match connection.exchange(&Request::socket("/socket"))? {
        Response { status: 101, .. } => Ok(connection),
        other => Err(Error::other(format!("{other:?}"))),
    }
}

fn expect_ok(response: Response) -> io::Result<Response> {
    if response.status == 200 {
        Ok(response)
    } else {
        Err(Error::other(format!("{response:?}")))
    }
}
