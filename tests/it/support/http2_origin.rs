//! An HTTP/2 origin without TLS, frame by frame, so that it can misbehave as no library would.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use super::port;

/// The origin's reaction to a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Http2Behaviour {
    /// 200 with the number of the connection and of the stream.
    Answer,
    /// 200, a body, and trailers.
    Trailers,
    /// These frames: kind, flags, payload.
    Frames(&'static [(u8, u8, &'static [u8])]),
    /// These frames in one segment, after the request's header.
    FramesEarly(&'static [(u8, u8, &'static [u8])]),
    /// These frames in one segment, then the close of the connection.
    LastFramesEarly(&'static [(u8, u8, &'static [u8])]),
    /// 200 after the request's header, then `RST_STREAM` with `NO_ERROR` (RFC 9113 §8.1).
    AnswerEarly,
    /// A response once [`Origin::release`] is called.
    Hold,
    /// The header of a 200 after the request's header, and nothing more.
    Begin,
    /// `RST_STREAM` with this code after the whole request.
    Reset(u32),
    /// `RST_STREAM` with this code after the request's header.
    ResetEarly(u32),
    /// `GOAWAY` with this code that excludes this stream, then the close.
    GoAway(u32),
    /// A response, `GOAWAY`, then the close.
    LastAnswer,
    /// A response, then the close without `GOAWAY`.
    Vanish,
}

pub(crate) const NO_ERROR: u32 = 0;
pub(crate) const INTERNAL_ERROR: u32 = 2;
pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;
pub(crate) const HTTP_1_1_REQUIRED: u32 = 13;

/// A running origin. It reads no more of a body than the initial window. Its threads end with the test.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    acts: Mutex<VecDeque<Http2Behaviour>>,
    connections: AtomicUsize,
    closed: AtomicUsize,
    requests: AtomicUsize,
    released: Mutex<bool>,
    changed: Condvar,
    /// The payload of its `SETTINGS`.
    settings: Vec<u8>,
}

impl Origin {
    /// Applies these behaviours to the first requests, one each, and responds to all others.
    pub(crate) fn start(acts: &[Http2Behaviour]) -> Self {
        Self::with_settings(acts, &[])
    }

    /// As [`Origin::start`], and takes no byte of a body: its initial window is 0 (RFC 9113 §6.5.2).
    pub(crate) fn without_window(acts: &[Http2Behaviour]) -> Self {
        const INITIAL_WINDOW_SIZE: [u8; 2] = [0, 4];
        Self::with_settings(acts, &[&INITIAL_WINDOW_SIZE[..], &[0; 4]].concat())
    }

    fn with_settings(acts: &[Http2Behaviour], settings: &[u8]) -> Self {
        let address = port::free();
        let listener = TcpListener::bind(address).expect("a free port");
        let shared = Arc::new(Shared {
            acts: Mutex::new(acts.iter().copied().collect()),
            settings: settings.to_vec(),
            ..Shared::default()
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let shared = Arc::clone(&accepting);
                thread::spawn(move || {
                    let _ = serve(&socket, &shared);
                    let _ = socket.shutdown(Shutdown::Both);
                    shared.closed.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, shared }
    }

    pub(crate) fn label(&self) -> String {
        self.address.to_string()
    }

    /// Connections with a preface so far.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Connections that have ended.
    pub(crate) fn closed(&self) -> usize {
        self.shared.closed.load(Ordering::SeqCst)
    }

    /// Request headers read so far.
    pub(crate) fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// Responds to held requests and holds no more.
    pub(crate) fn release(&self) {
        *self.shared.released.lock().unwrap() = true;
        self.shared.changed.notify_all();
    }
}

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
pub(crate) const END_STREAM: u8 = 1;
const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// `:status: 200` (RFC 7541 appendix A).
const OK: &[u8] = &[0x88];
/// `grpc-status: 0` as a literal.
const TRAILERS: &[u8] = b"\x00\x0bgrpc-status\x010";

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

fn serve(mut socket: &TcpStream, shared: &Arc<Shared>) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut preface = [0; 24];
    socket.read_exact(&mut preface)?;
    assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    let number = shared.connections.fetch_add(1, Ordering::SeqCst) + 1;
    send(socket, SETTINGS, 0, 0, &shared.settings)?;
    let mut acts: Vec<(u32, Http2Behaviour)> = Vec::new();
    loop {
        let frame = read(socket)?;
        match frame.kind {
            SETTINGS if frame.flags & ACK == 0 => send(socket, SETTINGS, ACK, 0, &[])?,
            PING if frame.flags & ACK == 0 => send(socket, PING, ACK, 0, &frame.payload)?,
            HEADERS => {
                shared.requests.fetch_add(1, Ordering::SeqCst);
                let act = shared.acts.lock().unwrap().pop_front();
                let act = act.unwrap_or(Http2Behaviour::Answer);
                if let Http2Behaviour::ResetEarly(_)
                | Http2Behaviour::Begin
                | Http2Behaviour::FramesEarly(_)
                | Http2Behaviour::LastFramesEarly(_) = act
                {
                    if !perform(socket, shared, number, frame.stream, act)? {
                        return Ok(());
                    }
                    continue;
                }
                if matches!(act, Http2Behaviour::AnswerEarly) {
                    answer(socket, frame.stream, "early")?;
                    let code = NO_ERROR.to_be_bytes();
                    send(socket, RST_STREAM, 0, frame.stream, &code)?;
                    continue;
                }
                acts.push((frame.stream, act));
            }
            _ => {}
        }
        let ends = matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0;
        let asked = acts.iter().position(|(stream, _)| *stream == frame.stream);
        if let (true, Some(place)) = (ends, asked) {
            let (stream, act) = acts.remove(place);
            if !perform(socket, shared, number, stream, act)? {
                return Ok(());
            }
        }
    }
}

/// True if the connection continues.
fn perform(
    socket: &TcpStream,
    shared: &Arc<Shared>,
    number: usize,
    stream: u32,
    act: Http2Behaviour,
) -> io::Result<bool> {
    let body = format!("connection {number} stream {stream}");
    match act {
        Http2Behaviour::Answer | Http2Behaviour::AnswerEarly => {
            answer(socket, stream, &body).map(|()| true)
        }
        Http2Behaviour::Trailers => {
            send(socket, HEADERS, END_HEADERS, stream, OK)?;
            send(socket, DATA, 0, stream, body.as_bytes())?;
            send(socket, HEADERS, END_HEADERS | END_STREAM, stream, TRAILERS).map(|()| true)
        }
        Http2Behaviour::Frames(frames) => {
            for (kind, flags, payload) in frames {
                send(socket, *kind, *flags, stream, payload)?;
            }
            Ok(true)
        }
        Http2Behaviour::FramesEarly(frames) | Http2Behaviour::LastFramesEarly(frames) => {
            let frame =
                |(kind, flags, payload): &(u8, u8, &[u8])| encoded(*kind, *flags, stream, payload);
            let segment: Vec<u8> = frames.iter().flat_map(frame).collect();
            let mut socket = socket;
            socket.write_all(&segment)?;
            if let Http2Behaviour::FramesEarly(_) = act {
                return Ok(true);
            }
            // Reads the rest: a close with unread bytes would reset the connection and lose the frames.
            socket.shutdown(Shutdown::Write)?;
            io::copy(&mut socket, &mut io::sink()).map(|_| false)
        }
        Http2Behaviour::Hold => {
            let (socket, shared) = (socket.try_clone()?, Arc::clone(shared));
            thread::spawn(move || {
                let released = shared.released.lock().unwrap();
                let wait = shared.changed.wait_while(released, |released| !*released);
                drop(wait);
                answer(&socket, stream, &body)
            });
            Ok(true)
        }
        Http2Behaviour::Begin => send(socket, HEADERS, END_HEADERS, stream, OK).map(|()| true),
        Http2Behaviour::Reset(code) | Http2Behaviour::ResetEarly(code) => {
            send(socket, RST_STREAM, 0, stream, &code.to_be_bytes()).map(|()| true)
        }
        Http2Behaviour::GoAway(code) => go_away(socket, 0, code).map(|()| false),
        Http2Behaviour::LastAnswer => {
            answer(socket, stream, &body)?;
            go_away(socket, stream, NO_ERROR).map(|()| false)
        }
        Http2Behaviour::Vanish => answer(socket, stream, &body).map(|()| false),
    }
}

fn answer(socket: &TcpStream, stream: u32, body: &str) -> io::Result<()> {
    send(socket, HEADERS, END_HEADERS, stream, OK)?;
    send(socket, DATA, END_STREAM, stream, body.as_bytes())
}

fn go_away(socket: &TcpStream, last: u32, code: u32) -> io::Result<()> {
    let payload = [last.to_be_bytes(), code.to_be_bytes()].concat();
    send(socket, GOAWAY, 0, 0, &payload)
}

/// Writes at once, so that several threads can write.
fn send(
    mut socket: &TcpStream,
    kind: u8,
    flags: u8,
    stream: u32,
    payload: &[u8],
) -> io::Result<()> {
    socket.write_all(&encoded(kind, flags, stream, payload))
}

fn encoded(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head, payload].concat()
}

fn read(mut socket: &TcpStream) -> io::Result<Frame> {
    let mut head = [0; 9];
    socket.read_exact(&mut head)?;
    let [kind, flags] = [head[3], head[4]];
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
    let mut payload = vec![0; length as usize];
    socket.read_exact(&mut payload)?;
    Ok(Frame {
        kind,
        flags,
        stream,
        payload,
    })
}
