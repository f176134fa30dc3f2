//! Plays a case, and checks its laws.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::frames::{
    ACK, DATA, END_STREAM, FINAL_PING, GOAWAY, HEADERS, PING, REFUSED_STREAM, RST_STREAM, SETTINGS,
    frame, settings_ack, window_update,
};
use super::generate::Plan;

/// Longer than the process takes on a busy machine, and shorter than its own time limits.
const PATIENCE: Duration = Duration::from_secs(25);

/// What has arrived on a stream.
#[derive(Debug, Default)]
struct Response {
    is_200: bool,
    body: Vec<u8>,
    ended: bool,
    reset: Option<u32>,
}

/// What has arrived on the connection.
#[derive(Debug, Default)]
struct Received {
    responses: BTreeMap<u32, Response>,
    goaway: Option<u32>,
    closed: bool,
    acknowledged: bool,
}

/// Plays a case; returns what happened in one word.
///
/// # Errors
/// The law that was broken.
pub(super) fn play(plan: &Plan, address: SocketAddr) -> Result<String, String> {
    let mut socket = connect(address)?;
    for piece in plan.pieces() {
        // The process may have closed the connection before.
        if socket.write_all(piece).is_err() {
            break;
        }
    }
    if plan.half_closes {
        let _ = socket.shutdown(Shutdown::Write);
    }
    let received = receive(plan, &mut socket)?;
    drop(socket);
    ask_elsewhere(address)?;
    if plan.is_certain && !received.closed && received.goaway.is_none_or(|code| code == 0) {
        check_witnesses(plan, &received)?;
    }
    Ok(match (received.goaway, received.closed) {
        (Some(code), _) => format!("GOAWAY {code}"),
        (None, true) => "closed".into(),
        (None, false) => "goes on".into(),
    })
}

fn connect(address: SocketAddr) -> Result<TcpStream, String> {
    let connect = || {
        let socket = TcpStream::connect_timeout(&address, PATIENCE)?;
        socket.set_nodelay(true)?;
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.set_read_timeout(Some(Duration::from_millis(500)))?;
        Ok::<_, std::io::Error>(socket)
    };
    connect().map_err(|error| format!("no connection: {error}"))
}

/// Reads until the case is over: the end of the connection, or all responses and the acknowledgement of the last PING.
fn receive(plan: &Plan, socket: &mut TcpStream) -> Result<Received, String> {
    let (mut received, mut buffer) = (Received::default(), Vec::new());
    let end = Instant::now() + PATIENCE;
    let mut chunk = [0; 16 << 10];
    while !received.is_over(plan) {
        if Instant::now() > end {
            return Err(format!("neither an end nor all responses: {received:?}"));
        }
        match socket.read(&mut chunk) {
            Ok(0) => received.closed = true,
            Ok(count) => {
                buffer.extend_from_slice(&chunk[..count]);
                while let Some(length) = frame_length(&buffer) {
                    let frame: Vec<u8> = buffer.drain(..length).collect();
                    received.on_frame(&frame, socket);
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => received.closed = true,
        }
    }
    Ok(received)
}

/// The length of the first frame, if it is complete.
fn frame_length(buffer: &[u8]) -> Option<usize> {
    let [a, b, c, ..] = *buffer else { return None };
    let length = 9 + u32::from_be_bytes([0, a, b, c]) as usize;
    (buffer.len() >= length).then_some(length)
}

impl Received {
    fn is_over(&self, plan: &Plan) -> bool {
        let is_answered = |stream: &u32| {
            self.responses
                .get(stream)
                .is_some_and(|response| response.ended || response.reset.is_some())
        };
        let answered = || !plan.is_certain || plan.witnesses.keys().all(is_answered);
        self.closed || (!plan.half_closes && self.acknowledged && answered())
    }

    fn on_frame(&mut self, bytes: &[u8], socket: &mut TcpStream) {
        let [_, _, _, kind, flags, a, b, c, d, payload @ ..] = bytes else {
            return;
        };
        let stream = u32::from_be_bytes([*a, *b, *c, *d]);
        match *kind {
            HEADERS => {
                let response = self.responses.entry(stream).or_default();
                // `:status: 200` (RFC 7541 appendix A), behind changes of the table's size.
                let first = payload.iter().find(|&&byte| byte & 0xe0 != 0x20);
                response.is_200 |= first == Some(&0x88);
                response.ended |= flags & END_STREAM != 0;
            }
            DATA => {
                let response = self.responses.entry(stream).or_default();
                response.body.extend_from_slice(payload);
                response.ended |= flags & END_STREAM != 0;
                let length = u32::try_from(payload.len()).unwrap_or_default();
                if length > 0 {
                    let more = [window_update(0, length), window_update(stream, length)].concat();
                    let _ = socket.write_all(&more);
                }
            }
            RST_STREAM => {
                let response = self.responses.entry(stream).or_default();
                response.reset = payload.first_chunk().copied().map(u32::from_be_bytes);
            }
            SETTINGS if flags & ACK == 0 => drop(socket.write_all(&settings_ack())),
            PING if flags & ACK != 0 => self.acknowledged |= payload == FINAL_PING,
            PING => drop(socket.write_all(&frame(PING, ACK, 0, payload))),
            GOAWAY => {
                let code = payload.get(4..8).and_then(|code| code.first_chunk());
                self.goaway = code.copied().map(u32::from_be_bytes);
            }
            _ => {}
        }
    }
}

fn check_witnesses(plan: &Plan, received: &Received) -> Result<(), String> {
    for (stream, body) in &plan.witnesses {
        let Some(response) = received.responses.get(stream) else {
            return Err(format!("no response on stream {stream}"));
        };
        // Other streams of the case may take all that are allowed at once.
        let is_refused = response.reset == Some(REFUSED_STREAM) && !response.is_200;
        let is_right = response.is_200 && response.ended && response.body == *body;
        if !is_refused && !is_right {
            let expected = body.len();
            return Err(format!(
                "stream {stream}: {response:?}, not {expected} bytes"
            ));
        }
    }
    Ok(())
}

/// A request on a connection of its own.
fn ask_elsewhere(address: SocketAddr) -> Result<(), String> {
    let mut socket = connect(address)?;
    let ask = |socket: &mut TcpStream| {
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.write_all(b"GET /3 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).map(|_| answer)
    };
    match ask(&mut socket) {
        Ok(answer) if answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\nxxx") => {
            Ok(())
        }
        other => Err(format!("another connection is not served: {other:?}")),
    }
}
