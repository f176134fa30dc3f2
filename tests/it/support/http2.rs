//! An HTTP/2 client that sends any frames and shows the frames it receives.
//!
//! Header blocks are literals without indexing, so any block can be made, also malformed ones. Of received header
//! blocks only the status is decoded; tests of other fields use curl.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::wait::PATIENCE;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Frame types (RFC 9113 §6).
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const PRIORITY: u8 = 2;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PUSH_PROMISE: u8 = 5;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
}

/// Flags; the first is `ACK` on SETTINGS and PING.
pub(crate) mod flag {
    pub(crate) const ACK: u8 = 1;
    pub(crate) const END_STREAM: u8 = 1;
    pub(crate) const END_HEADERS: u8 = 4;
    pub(crate) const PADDED: u8 = 8;
    pub(crate) const PRIORITY: u8 = 32;
}

/// Error codes (RFC 9113 §7).
pub(crate) mod code {
    pub(crate) const NO_ERROR: u32 = 0;
    pub(crate) const PROTOCOL_ERROR: u32 = 1;
    pub(crate) const INTERNAL_ERROR: u32 = 2;
    pub(crate) const FLOW_CONTROL_ERROR: u32 = 3;
    pub(crate) const STREAM_CLOSED: u32 = 5;
    pub(crate) const FRAME_SIZE_ERROR: u32 = 6;
    pub(crate) const REFUSED_STREAM: u32 = 7;
    pub(crate) const CANCEL: u32 = 8;
    pub(crate) const COMPRESSION_ERROR: u32 = 9;
    pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;
}

/// One complete frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Self {
        let payload = payload.into();
        Self {
            kind,
            flags,
            stream,
            payload,
        }
    }

    pub(crate) fn settings(list: &[(u16, u32)]) -> Self {
        let pair =
            |(name, value): &(u16, u32)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat();
        Self::new(
            kind::SETTINGS,
            0,
            0,
            list.iter().flat_map(pair).collect::<Vec<_>>(),
        )
    }

    /// A complete header in one HEADERS frame.
    pub(crate) fn headers(stream: u32, flags: u8, fields: &[(&str, &str)]) -> Self {
        Self::new(
            kind::HEADERS,
            flag::END_HEADERS | flags,
            stream,
            block(fields),
        )
    }

    pub(crate) fn data(stream: u32, flags: u8, data: impl Into<Vec<u8>>) -> Self {
        Self::new(kind::DATA, flags, stream, data)
    }

    pub(crate) fn reset(stream: u32, code: u32) -> Self {
        Self::new(kind::RST_STREAM, 0, stream, code.to_be_bytes())
    }

    pub(crate) fn window(stream: u32, more: u32) -> Self {
        Self::new(kind::WINDOW_UPDATE, 0, stream, more.to_be_bytes())
    }

    pub(crate) fn ping(flags: u8) -> Self {
        Self::new(kind::PING, flags, 0, *b"12345678")
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.announcing(self.payload.len())
    }

    /// The frame with a false length in its header.
    pub(crate) fn announcing(&self, length: usize) -> Vec<u8> {
        let length = u32::try_from(length).unwrap().to_be_bytes();
        let start = [&length[1..], &[self.kind, self.flags]].concat();
        [&start[..], &self.stream.to_be_bytes(), &self.payload].concat()
    }

    /// The error code of `RST_STREAM` or GOAWAY.
    pub(crate) fn code(&self) -> u32 {
        let at = if self.kind == kind::GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }

    fn is(&self, kind: u8, flag: u8) -> bool {
        self.kind == kind && self.flags & flag == flag
    }
}

/// A header block without compression (RFC 7541 §6.2.2).
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields
        .iter()
        .flat_map(|(name, value)| [vec![0], text(name), text(value)].concat())
        .collect()
}

fn text(text: &str) -> Vec<u8> {
    [number(text.len()), text.as_bytes().to_vec()].concat()
}

/// An integer with a prefix of seven bits (RFC 7541 §5.1).
fn number(number: usize) -> Vec<u8> {
    let Some(mut rest) = number.checked_sub(127) else {
        return vec![u8::try_from(number).unwrap()];
    };
    let mut bytes = vec![127];
    while rest >= 128 {
        bytes.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    bytes.push(u8::try_from(rest).unwrap());
    bytes
}

/// The fields of a GET request.
pub(crate) fn get(path: &str) -> Vec<(&str, &str)> {
    request("GET", path)
}

pub(crate) fn request<'a>(method: &'a str, path: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        (":method", method),
        (":scheme", "http"),
        (":path", path),
        (":authority", "test"),
    ]
}

/// The data received on one stream, up to its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The status of every received header, including interim ones and trailers (0).
    pub(crate) statuses: Vec<u16>,
    pub(crate) body: Vec<u8>,
    /// The code of the `RST_STREAM` that ended the stream.
    pub(crate) reset: Option<u32>,
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }
}

/// The server's reaction on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// GOAWAY with this code, then the close.
    Goaway(u32),
    /// The close without GOAWAY.
    Closed,
    /// `RST_STREAM` with this code.
    Reset(u32),
    /// A response with this status.
    Status(u16),
    /// None: the server still acknowledges PING.
    Alive,
}

/// A client's connection.
pub(crate) struct Client {
    socket: TcpStream,
    read: Vec<u8>,
    /// Frames received while waiting for another one.
    pub(crate) aside: Vec<Frame>,
    next_stream: u32,
    windows: Windows,
}

/// The server's flow-control windows (RFC 9113 §5.2).
struct Windows {
    /// The initial window of a stream, in bytes.
    initial: i64,
    /// The windows of the connection (0) and of each stream, in bytes.
    left: HashMap<u32, i64>,
}

impl Windows {
    const FIRST: i64 = 65_535;

    fn new() -> Self {
        Self {
            initial: Self::FIRST,
            left: HashMap::from([(0, Self::FIRST)]),
        }
    }

    fn of(&mut self, stream: u32) -> &mut i64 {
        self.left.entry(stream).or_insert(self.initial)
    }

    /// Consumes the window of a stream, up to one frame; returns the number of bytes.
    fn take(&mut self, stream: u32) -> usize {
        let room = (*self.of(0)).min(*self.of(stream)).clamp(0, 1 << 14);
        *self.of(0) -= room;
        *self.of(stream) -= room;
        usize::try_from(room).unwrap()
    }

    fn note(&mut self, frame: &Frame) {
        let number = |bytes: &[u8]| i64::from(u32::from_be_bytes(bytes.try_into().unwrap()));
        match frame.kind {
            kind::WINDOW_UPDATE => *self.of(frame.stream) += number(&frame.payload),
            kind::SETTINGS => {
                let mut pairs = frame.payload.chunks(6);
                if let Some(size) = pairs.rfind(|pair| pair[..2] == [0, 4]) {
                    self.initial = number(&size[2..]);
                }
            }
            _ => {}
        }
    }
}

impl Client {
    /// Connects and sends nothing.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect_timeout(&address, PATIENCE).expect("connect");
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        Self {
            socket,
            read: Vec::new(),
            aside: Vec::new(),
            next_stream: 1,
            windows: Windows::new(),
        }
    }

    /// Connects, sends the preface and these SETTINGS, and acknowledges the server's.
    pub(crate) fn with(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let mut client = Self::connect(address);
        client.raw(PREFACE).unwrap();
        // Without a dynamic table each status can be decoded on its own.
        let settings = [&[(1, 0)], settings].concat();
        client.send(&Frame::settings(&settings)).unwrap();
        client.wait_for("SETTINGS", |frame| frame.is(kind::SETTINGS, 0));
        client
            .send(&Frame::new(kind::SETTINGS, flag::ACK, 0, []))
            .unwrap();
        client.wait_for("its ACK", |frame| frame.is(kind::SETTINGS, flag::ACK));
        client
    }

    pub(crate) fn open(address: SocketAddr) -> Self {
        Self::with(address, &[])
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes)
    }

    pub(crate) fn send(&mut self, frame: &Frame) -> io::Result<()> {
        self.raw(&frame.bytes())
    }

    /// The id of the next stream.
    pub(crate) fn stream(&mut self) -> u32 {
        let stream = self.next_stream;
        self.next_stream += 2;
        stream
    }

    /// Sends the header of a request with these flags; returns its stream.
    pub(crate) fn begin(&mut self, flags: u8, fields: &[(&str, &str)]) -> u32 {
        let stream = self.stream();
        self.send(&Frame::headers(stream, flags, fields)).unwrap();
        stream
    }

    /// Sends data on these streams until the windows stay closed for `time`; returns the number of bytes.
    pub(crate) fn fill(&mut self, streams: &[u32], time: Duration) -> usize {
        let mut sent = 0;
        loop {
            let before = sent;
            for &stream in streams {
                let room = self.windows.take(stream);
                if room > 0 {
                    self.send(&Frame::data(stream, 0, vec![b'x'; room]))
                        .unwrap();
                    sent += room;
                }
            }
            if sent > before {
                continue;
            }
            if self.read.is_empty() && self.idles_for(time) {
                return sent;
            }
            let frame = self.next().unwrap().expect("the connection is open");
            self.aside.push(frame);
        }
    }

    /// Sends a request without a body and reads the response.
    pub(crate) fn ask(&mut self, fields: &[(&str, &str)]) -> Answer {
        let stream = self.begin(flag::END_STREAM, fields);
        self.answer(stream)
    }

    pub(crate) fn get(&mut self, path: &str) -> Answer {
        self.ask(&get(path))
    }

    /// Reads a stream to its end and keeps the windows open.
    pub(crate) fn answer(&mut self, stream: u32) -> Answer {
        let mut answer = Answer::default();
        loop {
            let frame = self.next_of(stream);
            match frame.kind {
                kind::HEADERS => answer.statuses.push(status(&frame)),
                kind::DATA => {
                    answer.body.extend(&frame.payload);
                    self.give_back(&frame);
                }
                kind::RST_STREAM => {
                    answer.reset = Some(frame.code());
                    return answer;
                }
                _ => {}
            }
            if matches!(frame.kind, kind::HEADERS | kind::DATA)
                && frame.is(frame.kind, flag::END_STREAM)
            {
                return answer;
            }
        }
    }

    fn give_back(&mut self, data: &Frame) {
        let length = u32::try_from(data.payload.len()).unwrap();
        if length > 0 {
            // The server may have closed after its last frame.
            let _ = self.send(&Frame::window(0, length));
            let _ = self.send(&Frame::window(data.stream, length));
        }
    }

    /// The next frame on this stream.
    #[track_caller]
    pub(crate) fn next_of(&mut self, stream: u32) -> Frame {
        self.wait_for("a frame of the stream", |frame| frame.stream == stream)
    }

    /// The next frame that is `wanted`; others are kept for later.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, what: &str, wanted: impl Fn(&Frame) -> bool) -> Frame {
        if let Some(found) = self.aside.iter().position(&wanted) {
            return self.aside.remove(found);
        }
        loop {
            match self.next() {
                Ok(Some(frame)) if wanted(&frame) => return frame,
                Ok(Some(frame)) => self.aside.push(frame),
                ended => panic!(
                    "{ended:?} while waiting for {what}; before: {:?}",
                    self.aside
                ),
            }
        }
    }

    /// The next frame received; `None` at the end of the connection. Acknowledges PING.
    pub(crate) fn next(&mut self) -> io::Result<Option<Frame>> {
        let Some(header) = self.exactly(9)? else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        let stream = u32::from_be_bytes(header[5..9].try_into().unwrap());
        let Some(payload) = self.exactly(usize::try_from(length).unwrap())? else {
            return Err(ErrorKind::UnexpectedEof.into());
        };
        let frame = Frame::new(header[3], header[4], stream, payload);
        self.windows.note(&frame);
        if frame.kind == kind::PING && frame.flags & flag::ACK == 0 {
            let _ = self.send(&Frame::new(kind::PING, flag::ACK, 0, frame.payload.clone()));
        }
        Ok(Some(frame))
    }

    fn exactly(&mut self, length: usize) -> io::Result<Option<Vec<u8>>> {
        let mut buffer = [0; 16 * 1024];
        while self.read.len() < length {
            match self.socket.read(&mut buffer)? {
                0 if self.read.is_empty() => return Ok(None),
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                count => self.read.extend(&buffer[..count]),
            }
        }
        Ok(Some(self.read.drain(..length).collect()))
    }

    /// True if nothing arrives for `time`, not even the close.
    pub(crate) fn idles_for(&mut self, time: Duration) -> bool {
        self.socket.set_read_timeout(Some(time)).unwrap();
        let mut buffer = [0; 1024];
        let read = self.socket.read(&mut buffer);
        self.socket.set_read_timeout(Some(PATIENCE)).unwrap();
        match read {
            Ok(count) => {
                self.read.extend(&buffer[..count]);
                false
            }
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }

    /// The server's most severe reaction to the frames sent so far, up to its acknowledgement of two PINGs.
    /// The second is sent after the first is acknowledged, when the server has written everything else.
    pub(crate) fn outcome(&mut self) -> Outcome {
        let mut outcome = Outcome::Alive;
        for _ in 0..2 {
            let _ = self.send(&Frame::ping(0));
            loop {
                let Ok(Some(frame)) = self.next() else {
                    return Outcome::Closed;
                };
                match frame.kind {
                    kind::GOAWAY => return Outcome::Goaway(frame.code()),
                    kind::RST_STREAM => outcome = Outcome::Reset(frame.code()),
                    kind::HEADERS if outcome == Outcome::Alive => {
                        outcome = Outcome::Status(status(&frame));
                    }
                    kind::PING if frame.flags & flag::ACK != 0 => break,
                    _ => {}
                }
            }
        }
        outcome
    }

    /// The code of the next GOAWAY, and the time from then to the close.
    pub(crate) fn end(&mut self) -> (Option<u32>, Duration) {
        let start = Instant::now();
        let goaway = self.aside.iter().rfind(|frame| frame.kind == kind::GOAWAY);
        let mut code = goaway.map(Frame::code);
        loop {
            match self.next() {
                Ok(Some(frame)) if frame.kind == kind::GOAWAY => code = Some(frame.code()),
                Ok(Some(_)) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    panic!("the connection was not closed in time")
                }
                Ok(None) | Err(_) => return (code, start.elapsed()),
            }
        }
    }
}

/// The status in a header block as Clockwise writes it: the first field, indexed or with a literal value
/// (RFC 7541 appendices A and B). 0 if there is no status.
pub(crate) fn status(frame: &Frame) -> u16 {
    const INDEXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    let block = match frame.payload[..] {
        [0x20..=0x3f, ref rest @ ..] => rest,
        ref all => all,
    };
    match *block {
        [first @ 0x88..=0x8e, ..] => INDEXED[usize::from(first - 0x88)],
        [0x08 | 0x18 | 0x48, 0x03, ref digits @ ..] => digits[..3]
            .iter()
            .fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0')),
        [0x08 | 0x18 | 0x48, length, ref coded @ ..] if length & 0x80 != 0 => {
            decode(&coded[..usize::from(length & 0x7f)])
        }
        _ => 0,
    }
}

/// Decodes digits in Huffman code: 0 to 2 have five bits, the others six.
fn decode(coded: &[u8]) -> u16 {
    let bits: Vec<u16> = coded
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |at| u16::from(byte >> at & 1)))
        .collect();
    let (mut at, mut number) = (0, 0);
    for _ in 0..3 {
        let value = |length: usize| {
            bits[at..at + length]
                .iter()
                .fold(0, |sum, bit| sum << 1 | bit)
        };
        let (digit, length) = match value(5) {
            short @ 0..=2 => (short, 5),
            _ => (value(6) - 0x19 + 3, 6),
        };
        number = number * 10 + digit;
        at += length;
    }
    number
}

#[test]
fn http2_test_client_decodes_statuses() {
    let header = |payload: &[u8]| status(&Frame::new(kind::HEADERS, 0, 1, payload));
    assert_eq!(header(&[0x88]), 200);
    assert_eq!(header(&[0x8e, 0]), 500);
    assert_eq!(header(b"\x08\x03503"), 503);
    // RFC 7541 §C.6.1 and §C.6.3.
    assert_eq!(header(&[0x48, 0x82, 0x64, 0x02]), 302);
    assert_eq!(header(&[0x48, 0x83, 0x64, 0x0e, 0xff]), 307);
}
