//! An HTTP/1.1 client that sends exactly the given bytes and reads one response at a time, so that tests can send
//! valid, invalid or partial requests.
//!
//! Every socket operation has a deadline of [`PATIENCE`].

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::ops::{Deref, DerefMut};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustls::{ConnectionCommon, SideData, StreamOwned};
use socket2::{Domain, SockRef, Socket as Socket2, Type};

use super::wait::PATIENCE;

/// One request, with the bytes that are sent.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    method: String,
    target: String,
    headers: String,
    body: Vec<u8>,
}

impl Request {
    /// A request with `Host: test` unless another one is given.
    pub(crate) fn new(method: &str, target: &str) -> Self {
        let (method, target) = (method.to_owned(), target.to_owned());
        Self {
            method,
            target,
            headers: String::new(),
            body: Vec::new(),
        }
    }

    pub(crate) fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    pub(crate) fn post(target: &str, body: impl Into<Vec<u8>>) -> Self {
        Self::new("POST", target).body(body)
    }

    /// A WebSocket handshake.
    pub(crate) fn socket(target: &str) -> Self {
        Self::get(target)
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.extend([name, ": ", value, "\r\n"]);
        self
    }

    /// Adds a body and its `Content-Length`.
    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        let length = self.body.len().to_string();
        self.header("Content-Length", &length)
    }

    fn bytes(&self) -> Vec<u8> {
        let Self {
            method,
            target,
            headers,
            body,
        } = self;
        let named = |line: &str| line.to_ascii_lowercase().starts_with("host:");
        let host = if headers.lines().any(named) {
            ""
        } else {
            "Host: test\r\n"
        };
        let mut bytes = format!("{method} {target} HTTP/1.1\r\n{host}{headers}\r\n").into_bytes();
        bytes.extend_from_slice(body);
        bytes
    }
}

/// One complete response.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// The value of the first header with this name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// True if the response announces the close of the connection.
    pub(crate) fn closes(&self) -> bool {
        self.header("connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// Sends one request on a new connection.
#[track_caller]
pub(crate) fn send(address: SocketAddr, request: &Request) -> Response {
    try_send(address, request).unwrap_or_else(|error| panic!("request to {address}: {error}"))
}

pub(crate) fn try_send(address: SocketAddr, request: &Request) -> io::Result<Response> {
    Connection::try_open(address)?.exchange(request)
}

pub(crate) trait Socket: Read + Write + Send {
    /// Shuts down the sending direction.
    fn finish(&mut self) -> io::Result<()>;
    fn set_read_timeout(&self, timeout: Duration) -> io::Result<()>;
    /// Makes the close a RST instead of a FIN.
    fn reset_on_close(&self) -> io::Result<()>;
    /// Another handle to the same socket.
    fn again(&self) -> io::Result<Box<dyn Socket>> {
        Err(ErrorKind::Unsupported.into())
    }
}

/// A client's connection that is kept open between requests.
pub(crate) struct Connection {
    socket: BufReader<Box<dyn Socket>>,
    /// Before the connect or the last send began, so no timeout of the other side began earlier.
    active: Instant,
}

impl Connection {
    #[track_caller]
    pub(crate) fn open(address: SocketAddr) -> Self {
        Self::try_open(address).unwrap_or_else(|error| panic!("connect {address}: {error}"))
    }

    pub(crate) fn try_open(address: SocketAddr) -> io::Result<Self> {
        let active = Instant::now();
        let socket = TcpStream::connect_timeout(&address, PATIENCE)?;
        socket.set_nodelay(true)?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let connection = Self::over(Box::new(socket))?;
        Ok(Self {
            active,
            ..connection
        })
    }

    /// Connects from the local address `source`.
    pub(crate) fn from(source: IpAddr, address: SocketAddr) -> io::Result<Self> {
        let socket = Socket2::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
        socket.connect(&address.into())?;
        Self::over(Box::new(TcpStream::from(socket)))
    }

    pub(crate) fn unix(path: &Path) -> io::Result<Self> {
        Self::over(Box::new(UnixStream::connect(path)?))
    }

    /// Wraps an established socket, of client or server.
    pub(crate) fn over(socket: Box<dyn Socket>) -> io::Result<Self> {
        socket.set_read_timeout(PATIENCE)?;
        Ok(Self {
            socket: BufReader::new(socket),
            active: Instant::now(),
        })
    }

    /// Sends a request and reads its response.
    pub(crate) fn exchange(&mut self, request: &Request) -> io::Result<Response> {
        let sent = self.begin(request);
        // A server may respond and close before it has read the request: the response counts.
        self.response_to(&request.method)
            .map_err(|error| sent.err().unwrap_or(error))
    }

    /// Sends a request without reading a response.
    pub(crate) fn begin(&mut self, request: &Request) -> io::Result<()> {
        self.send(request.bytes())
    }

    pub(crate) fn get(&mut self, target: &str) -> io::Result<Response> {
        self.exchange(&Request::get(target))
    }

    /// Sends raw bytes.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.active = Instant::now();
        let socket = self.socket.get_mut();
        socket.write_all(bytes.as_ref())?;
        socket.flush()
    }

    /// Two handles to the connection, to read and write concurrently. Not for TLS.
    pub(crate) fn halves(self) -> (Self, Self) {
        let other = self
            .socket
            .get_ref()
            .again()
            .expect("the socket can be cloned");
        (self, Self::over(other).expect("the timeouts can be set"))
    }

    /// Shuts down the sending direction; the other one stays open.
    pub(crate) fn finish_sending(&mut self) {
        let _ = self.socket.get_mut().finish();
    }

    /// Resets the connection.
    pub(crate) fn reset(self) {
        let _ = self.socket.get_ref().reset_on_close();
    }

    /// Reads the final response to a GET; interim responses are skipped.
    pub(crate) fn response(&mut self) -> io::Result<Response> {
        self.response_to("GET")
    }

    fn response_to(&mut self, method: &str) -> io::Result<Response> {
        let mut response = self.head()?;
        while matches!(response.status, 100 | 102..=199) {
            response = self.head()?;
        }
        response.body = self.body(method, &response)?;
        Ok(response)
    }

    /// Reads the header of a response, interim or final.
    pub(crate) fn head(&mut self) -> io::Result<Response> {
        let status_line = self.line()?;
        let status = status_line
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        Ok(Response {
            status: status.ok_or_else(|| malformed(&status_line))?,
            headers: self.fields()?,
            body: Vec::new(),
        })
    }

    /// Reads a request's header, as a server.
    pub(crate) fn read_request(&mut self) -> io::Result<(String, Vec<(String, String)>)> {
        Ok((self.line()?, self.fields()?))
    }

    fn fields(&mut self) -> io::Result<Vec<(String, String)>> {
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(headers);
            }
            let (name, value) = line.split_once(':').ok_or_else(|| malformed(&line))?;
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    /// The length of the body (RFC 9112 §6.3).
    fn body(&mut self, method: &str, head: &Response) -> io::Result<Vec<u8>> {
        if method == "HEAD" || matches!(head.status, 101 | 204 | 304) {
            return Ok(Vec::new());
        }
        if head.header("transfer-encoding").is_some() {
            return self.chunks();
        }
        match head.header("content-length") {
            Some(length) => self.exactly(length.parse().map_err(|_| malformed(length))?),
            None => self.rest(),
        }
    }

    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            match self.chunk()? {
                last if last.is_empty() => return Ok(body),
                chunk => body.extend(chunk),
            }
        }
    }

    /// Reads one chunk of a body; the last one is empty.
    pub(crate) fn chunk(&mut self) -> io::Result<Vec<u8>> {
        let line = self.line()?;
        let size = usize::from_str_radix(&line, 16).map_err(|_| malformed(&line))?;
        let chunk = self.exactly(size)?;
        self.line()?;
        Ok(chunk)
    }

    /// Reads exactly `length` bytes.
    pub(crate) fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.socket.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Reads until the other side closes.
    pub(crate) fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.socket.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// The time from the connect or the last send until the other side closes or resets. Panics if it does not.
    #[track_caller]
    pub(crate) fn time_to_close(&mut self) -> Duration {
        let end = self.rest();
        let took = self.active.elapsed();
        let open = end.is_err_and(|error| timed_out(&error));
        assert!(!open, "the connection is still open after {took:?}");
        took
    }

    /// True if the connection stays open and nothing arrives for `time`.
    pub(crate) fn idles_for(&mut self, time: Duration) -> bool {
        let socket = self.socket.get_ref();
        socket
            .set_read_timeout(time)
            .expect("the timeout can be set");
        let idle = self.socket.fill_buf().is_err_and(|error| timed_out(&error));
        self.socket
            .get_ref()
            .set_read_timeout(PATIENCE)
            .expect("the timeout can be set");
        idle
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.socket.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    }
}

fn malformed(text: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("not HTTP: `{text}`"))
}

fn timed_out(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

impl Socket for TcpStream {
    fn finish(&mut self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }

    fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
        Self::set_read_timeout(self, Some(timeout))
    }

    fn reset_on_close(&self) -> io::Result<()> {
        SockRef::from(self).set_linger(Some(Duration::ZERO))
    }

    fn again(&self) -> io::Result<Box<dyn Socket>> {
        Ok(Box::new(self.try_clone()?))
    }
}

impl Socket for UnixStream {
    fn finish(&mut self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }

    fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
        Self::set_read_timeout(self, Some(timeout))
    }

    fn reset_on_close(&self) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }
}

/// TLS of client or server.
impl<C, S> Socket for StreamOwned<C, TcpStream>
where
    C: DerefMut + Deref<Target = ConnectionCommon<S>> + Send,
    S: SideData,
{
    fn finish(&mut self) -> io::Result<()> {
        self.conn.send_close_notify();
        self.flush()?;
        self.sock.shutdown(Shutdown::Write)
    }

    fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.sock.set_read_timeout(Some(timeout))
    }

    fn reset_on_close(&self) -> io::Result<()> {
        self.sock.reset_on_close()
    }
}
