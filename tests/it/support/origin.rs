//! An HTTP/1 origin with scripted behaviour: describes each request, or misbehaves in one way.
//!
//! By default it responds with JSON about the request ([`Behaviour::Echo`]). A held response ([`Behaviour::Hold`],
//! [`Behaviour::Stall`]) is released by the next [`Origin::behave`], so that tests need no sleep.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::json;
use socket2::SockRef;

use super::port::{self, ClosedPort};
use super::wait::{self, PATIENCE};

/// An origin's reaction to a request.
#[derive(Clone, Debug, Default)]
pub(crate) enum Behaviour {
    /// 200 and JSON: `origin`, `method`, `target`, `version`, `headers` ([name, value] pairs),
    /// `length` of the body, `connection` and `request` (which one on that connection, from 1).
    #[default]
    Echo,
    /// Exactly these bytes for any request.
    Raw(Vec<u8>),
    /// Exactly these bytes before the request's body is read, then the close.
    Last(Vec<u8>),
    /// 200 with this many bytes of body.
    Body(usize),
    /// Reads the request and responds by the next behaviour.
    Hold,
    /// Announces the second number of bytes, sends the first number, and sends the rest at the next
    /// behaviour.
    Stall(usize, usize),
    /// Resets the connection after the request's header.
    Reset,
    /// Announces a body, sends this many bytes of it, and resets the connection.
    ResetAfter(usize),
    /// Echoes the first request on a connection and resets the connection on the second, as seen by a client
    /// that reuses a connection while the server closes it.
    ResetReused,
    /// Sends `100 Continue` if requested, then echoes.
    Continue,
    /// Switches protocols, then echoes every byte.
    Upgrade,
}

/// A running origin, stopped when dropped.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    /// `None` while it is down.
    listener: Option<(TcpListener, JoinHandle<()>)>,
    held: Option<ClosedPort>,
}

struct Shared {
    name: String,
    behaviour: Mutex<Behaviour>,
    changed: Condvar,
    connections: AtomicUsize,
    requests: AtomicUsize,
    open: Mutex<Vec<Weak<TcpStream>>>,
}

impl Origin {
    /// An echoing origin.
    pub(crate) fn start() -> Self {
        Self::behaving(Behaviour::Echo)
    }

    pub(crate) fn behaving(behaviour: Behaviour) -> Self {
        let address = port::free();
        let mut origin = Self::stopped(address, behaviour);
        origin.up();
        origin
    }

    pub(crate) fn some(count: usize) -> Vec<Self> {
        (0..count).map(|_| Self::start()).collect()
    }

    /// An origin that responds with its label.
    pub(crate) fn named() -> Self {
        Self::named_at(port::free())
    }

    /// [`Self::named`] at this address.
    pub(crate) fn named_at(address: SocketAddr) -> Self {
        let mut origin = Self::stopped(address, Behaviour::Echo);
        origin.up();
        let name = origin.label();
        let length = name.len();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{name}");
        origin.behave(Behaviour::Raw(answer.into_bytes()));
        origin
    }

    fn stopped(address: SocketAddr, behaviour: Behaviour) -> Self {
        let shared = Shared {
            name: address.to_string(),
            behaviour: Mutex::new(behaviour),
            changed: Condvar::new(),
            connections: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            open: Mutex::new(Vec::new()),
        };
        Self {
            address,
            shared: Arc::new(shared),
            listener: None,
            held: None,
        }
    }

    /// The default label: the address.
    pub(crate) fn label(&self) -> String {
        self.address.to_string()
    }

    /// Sets the behaviour from now on and releases held responses.
    pub(crate) fn behave(&self, behaviour: Behaviour) {
        *self.shared.behaviour.lock().expect("not poisoned") = behaviour;
        self.shared.changed.notify_all();
    }

    /// Connections accepted so far, probes included.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Connections that neither side has closed.
    pub(crate) fn open_connections(&self) -> usize {
        let open = self.shared.open.lock().expect("not poisoned");
        open.iter()
            .filter(|socket| socket.strong_count() > 0)
            .count()
    }

    /// Request headers read so far.
    pub(crate) fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }

    pub(crate) fn wait_for_requests(&self, count: usize) {
        wait::until("the origin to get its requests", || {
            self.requests() >= count
        });
    }

    /// Stops listening and resets open connections.
    pub(crate) fn down(&mut self) {
        self.close();
        let address = self.address;
        self.held = Some(ClosedPort::hold(address));
    }

    /// Listens again on the same port.
    pub(crate) fn up(&mut self) {
        self.held = None;
        let socket = port::reusable(self.address);
        socket.listen(1024).expect("listen");
        let listener = TcpListener::from(socket);
        let accepting = listener.try_clone().expect("another handle");
        let shared = Arc::clone(&self.shared);
        let thread = thread::spawn(move || shared.accept(&accepting));
        self.listener = Some((listener, thread));
    }

    fn close(&mut self) {
        if let Some((listener, thread)) = self.listener.take() {
            // Wakes the thread in accept(), which exits on the error.
            let _ = SockRef::from(&listener).shutdown(Shutdown::Both);
            let _ = thread.join();
        }
        let open = self.shared.open.lock().expect("not poisoned").split_off(0);
        for socket in open.iter().filter_map(Weak::upgrade) {
            reset_on_close(&socket);
            // Wakes the reading thread, which then closes the socket.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.behave(Behaviour::Reset);
        self.close();
    }
}

/// A request's header.
struct ReceivedRequest {
    method: String,
    target: String,
    version: String,
    headers: Vec<(String, String)>,
}

/// One accepted connection, with its part in the counts.
struct ServedConnection<'a> {
    socket: BufReader<&'a TcpStream>,
    connection: usize,
    request: usize,
}

impl Shared {
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        while let Ok((socket, _)) = listener.accept() {
            let connection = self.connections.fetch_add(1, Ordering::SeqCst) + 1;
            let (shared, socket) = (Arc::clone(self), Arc::new(socket));
            self.open
                .lock()
                .expect("not poisoned")
                .push(Arc::downgrade(&socket));
            thread::spawn(move || shared.serve(&socket, connection));
        }
    }

    fn serve(&self, socket: &TcpStream, connection: usize) -> io::Result<()> {
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(10 * PATIENCE))?;
        let mut served = ServedConnection {
            socket: BufReader::new(socket),
            connection,
            request: 0,
        };
        while let Some(asked) = served.ask()? {
            self.requests.fetch_add(1, Ordering::SeqCst);
            served.request += 1;
            if !self.answer(&mut served, &asked)? {
                break;
            }
        }
        Ok(())
    }

    /// Handles a request; true if the connection can be reused.
    fn answer(
        &self,
        served: &mut ServedConnection<'_>,
        asked: &ReceivedRequest,
    ) -> io::Result<bool> {
        let mut behaviour = self.behaviour.lock().expect("not poisoned").clone();
        if matches!(behaviour, Behaviour::Hold) {
            behaviour = self.next_behaviour();
        }
        match behaviour {
            Behaviour::Echo | Behaviour::Hold => self.echo(served, asked)?,
            Behaviour::Raw(bytes) => {
                served.read_body(asked)?;
                served.write(&bytes)?;
            }
            Behaviour::Body(length) => {
                served.write(head(length))?;
                served.write_zeros(length)?;
            }
            Behaviour::Stall(first, total) => {
                served.write(head(total))?;
                served.write_zeros(first)?;
                self.next_behaviour();
                served.write_zeros(total - first)?;
            }
            Behaviour::ResetReused if served.request == 1 => self.echo(served, asked)?,
            Behaviour::Reset | Behaviour::ResetReused => return Ok(served.reset()),
            Behaviour::ResetAfter(length) => {
                served.write(head(length + 1))?;
                served.write_zeros(length)?;
                return Ok(served.reset());
            }
            Behaviour::Last(bytes) => {
                served.write(&bytes)?;
                return Ok(false);
            }
            Behaviour::Continue => {
                if asked.header("expect").is_some() {
                    served.write("HTTP/1.1 100 Continue\r\n\r\n")?;
                }
                self.echo(served, asked)?;
            }
            Behaviour::Upgrade => return served.upgrade(),
        }
        Ok(true)
    }

    /// Waits until [`Origin::behave`] is called.
    fn next_behaviour(&self) -> Behaviour {
        let behaviour = self.behaviour.lock().expect("not poisoned");
        let held = |now: &mut Behaviour| matches!(now, Behaviour::Hold | Behaviour::Stall(..));
        self.changed
            .wait_while(behaviour, held)
            .expect("not poisoned")
            .clone()
    }

    fn echo(&self, served: &mut ServedConnection<'_>, asked: &ReceivedRequest) -> io::Result<()> {
        let length = served.read_body(asked)?;
        let body = json!({
            "origin": self.name,
            "method": asked.method,
            "target": asked.target,
            "version": asked.version,
            "headers": asked.headers,
            "length": length,
            "connection": served.connection,
            "request": served.request,
        })
        .to_string();
        let length = body.len();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        );
        let body = if asked.method == "HEAD" { "" } else { &body };
        served.write(head + body)
    }
}

fn head(length: usize) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")
}

impl ReceivedRequest {
    fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

impl ServedConnection<'_> {
    /// Reads the next request's header; `None` at the end of the connection.
    fn ask(&mut self) -> io::Result<Option<ReceivedRequest>> {
        let line = self.line()?;
        let mut words = line.split(' ').map(str::to_owned);
        let (Some(method), Some(target), Some(version)) =
            (words.next(), words.next(), words.next())
        else {
            return Ok(None);
        };
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            match line.split_once(':') {
                Some((name, value)) => headers.push((name.to_owned(), value.trim().to_owned())),
                None => {
                    return Ok(Some(ReceivedRequest {
                        method,
                        target,
                        version,
                        headers,
                    }));
                }
            }
        }
    }

    /// Reads and discards the body; returns its length.
    fn read_body(&mut self, asked: &ReceivedRequest) -> io::Result<u64> {
        if asked.header("transfer-encoding").is_some() {
            return self.read_chunks();
        }
        let length = asked
            .header("content-length")
            .and_then(|length| length.parse().ok());
        self.skip(length.unwrap_or(0))
    }

    fn read_chunks(&mut self) -> io::Result<u64> {
        let mut length = 0;
        loop {
            let size = u64::from_str_radix(&self.line()?, 16).map_err(io::Error::other)?;
            length += self.skip(size)?;
            self.line()?;
            if size == 0 {
                return Ok(length);
            }
        }
    }

    fn skip(&mut self, length: u64) -> io::Result<u64> {
        let skipped = io::copy(&mut self.socket.by_ref().take(length), &mut io::sink())?;
        if skipped == length {
            Ok(length)
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }

    fn write(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.socket.get_mut().write_all(bytes.as_ref())
    }

    fn write_zeros(&mut self, length: usize) -> io::Result<()> {
        let length = u64::try_from(length).expect("fits");
        io::copy(&mut io::repeat(b'0').take(length), self.socket.get_mut()).map(drop)
    }

    /// Always `false`: the connection cannot be reused.
    fn reset(&self) -> bool {
        reset_on_close(self.socket.get_ref());
        false
    }

    fn upgrade(&mut self) -> io::Result<bool> {
        self.write(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        )?;
        let mut back = *self.socket.get_ref();
        io::copy(&mut self.socket, &mut back)?;
        Ok(false)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.socket.read_line(&mut line)?;
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    }
}

/// Makes the close of this socket a RST instead of a FIN.
fn reset_on_close(socket: &TcpStream) {
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}
