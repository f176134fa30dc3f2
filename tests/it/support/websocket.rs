//! Builds and reads WebSocket frames (RFC 6455), valid or invalid, and runs a client's script of them.

use std::io::{self, ErrorKind};

use super::client::{Connection, Request, Response};

/// First bytes of the last frame of a message: FIN and the opcode (RFC 6455 §5.2).
pub(crate) const CONTINUATION: u8 = FIN;
pub(crate) const TEXT: u8 = FIN | 0x1;
pub(crate) const BINARY: u8 = FIN | 0x2;
pub(crate) const CLOSE: u8 = FIN | 0x8;
pub(crate) const PING: u8 = FIN | 0x9;
pub(crate) const PONG: u8 = FIN | 0xa;
/// The FIN bit; not set if more frames of the message follow.
pub(crate) const FIN: u8 = 0x80;
/// Reserved bits; RSV1 marks a compressed message (RFC 7692 §6).
pub(crate) const RSV1: u8 = 0x40;
pub(crate) const RSV2: u8 = 0x20;
pub(crate) const RSV3: u8 = 0x10;

/// A client's frame, masked; the mask depends on the length, so that it varies between frames.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = 0x37fa_213d_u32.rotate_left(u32::try_from(payload.len() % 32).expect("small"));
    let mask = mask.to_be_bytes();
    let mut frame = head(first, payload.len());
    frame[1] |= 0x80;
    frame.extend(mask);
    let masked = payload.iter().zip(mask.iter().cycle());
    frame.extend(masked.map(|(byte, mask)| byte ^ mask));
    frame
}

/// A server's frame: not masked.
pub(crate) fn server_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    [&head(first, payload.len()), payload].concat()
}

fn head(first: u8, length: usize) -> Vec<u8> {
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ 0..126), _) => vec![first, short],
        (_, Ok(long)) => [&[first, 126][..], &long.to_be_bytes()].concat(),
        _ => [&[first, 127][..], &(length as u64).to_be_bytes()].concat(),
    }
}

/// A client's message, split into frames with `size` bytes each.
pub(crate) fn fragments(first: u8, message: &[u8], size: usize) -> Vec<u8> {
    let pieces: Vec<_> = message.chunks(size).collect();
    let last = pieces.len() - 1;
    let piece = |(index, piece): (usize, &&[u8])| {
        let kind = if index == 0 { first & !FIN } else { 0 };
        frame(kind | if index == last { FIN } else { 0 }, piece)
    };
    pieces.iter().enumerate().flat_map(piece).collect()
}

/// Reads one frame from a server; returns its bytes, including the header.
pub(crate) fn read_frame(connection: &mut Connection) -> io::Result<Vec<u8>> {
    let mut frame = connection.exactly(2)?;
    let extended = match frame[1] & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let long = connection.exactly(extended)?;
    let length = match extended {
        0 => usize::from(frame[1] & 0x7f),
        _ => long
            .iter()
            .fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
    };
    frame.extend(long);
    frame.extend(connection.exactly(length)?);
    Ok(frame)
}

/// What a client sends, and after which frames it waits for frames of the server.
#[derive(Clone)]
pub(crate) struct Script {
    pub(crate) name: String,
    /// The value of `Sec-WebSocket-Extensions`, if any.
    pub(crate) extensions: Option<&'static str>,
    steps: Vec<Step>,
    /// The expected first bytes of the server's last frame.
    last_frame_start: Vec<u8>,
}

#[derive(Clone)]
enum Step {
    /// Send these pieces, each in its own write.
    Send(Vec<Vec<u8>>),
    /// Receive this many frames.
    Receive(usize),
}

/// The result of a script: the headers of the handshake's response, and all bytes received after it.
#[derive(PartialEq, Eq)]
pub(crate) struct Transcript {
    pub(crate) response_headers: Vec<(String, String)>,
    pub(crate) bytes: Vec<u8>,
}

impl Script {
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            extensions: None,
            steps: Vec::new(),
            last_frame_start: Vec::new(),
        }
    }

    /// Offers these extensions in the handshake.
    pub(crate) fn with_extensions(self, extensions: &'static str) -> Self {
        let extensions = Some(extensions);
        Self { extensions, ..self }
    }

    pub(crate) fn send(self, bytes: impl Into<Vec<u8>>) -> Self {
        self.step(Step::Send(vec![bytes.into()]))
    }

    /// Sends the bytes in several writes of `size` bytes each.
    pub(crate) fn send_in_pieces(self, bytes: impl AsRef<[u8]>, size: usize) -> Self {
        let pieces = bytes.as_ref().chunks(size).map(<[u8]>::to_vec);
        self.step(Step::Send(pieces.collect()))
    }

    /// Waits for this many frames from the server.
    pub(crate) fn await_frames(self, frames: usize) -> Self {
        self.step(Step::Receive(frames))
    }

    /// The client sends a close frame with status 1000 (normal closure).
    pub(crate) fn close(self) -> Self {
        self.close_with(&1000_u16.to_be_bytes())
    }

    /// The client sends a close frame with this payload, and the server must echo it.
    pub(crate) fn close_with(self, payload: &[u8]) -> Self {
        self.send(frame(CLOSE, payload))
            .ends_with_frame(server_frame(CLOSE, payload))
    }

    /// The server must send a close frame with this status code.
    pub(crate) fn closed_by_server(self, code: u16) -> Self {
        self.ends_with_frame(server_frame(CLOSE, &code.to_be_bytes()))
    }

    /// The server's last frame must begin with these bytes.
    pub(crate) fn ends_with_frame(self, last_frame_start: Vec<u8>) -> Self {
        Self {
            last_frame_start,
            ..self
        }
    }

    fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    pub(crate) fn request(&self, target: &str) -> Request {
        let request = Request::socket(target);
        let request = request.header("Sec-WebSocket-Protocol", "chat, superchat");
        match self.extensions {
            Some(extensions) => request.header("Sec-WebSocket-Extensions", extensions),
            None => request,
        }
    }

    /// The client's writes after the handshake.
    pub(crate) fn writes(&self) -> impl Iterator<Item = &[u8]> {
        let pieces = self.steps.iter().map(|step| match step {
            Step::Send(pieces) => &pieces[..],
            Step::Receive(_) => &[],
        });
        pieces.flatten().map(Vec::as_slice)
    }

    /// Runs the script on a new connection until the server closes it.
    pub(crate) fn run(&self, connection: &mut Connection, target: &str) -> io::Result<Transcript> {
        let response = connection.exchange(&self.request(target))?;
        if response.status != 101 {
            return Err(io::Error::other(format!("{response:?}")));
        }
        let mut bytes = Vec::new();
        for step in &self.steps {
            match step {
                // The server may have closed already; its frames are read below.
                Step::Send(pieces) => drop(send(connection, pieces)),
                Step::Receive(count) => {
                    for _ in 0..*count {
                        bytes.extend(read_frame(connection)?);
                    }
                }
            }
        }
        let mut last = Vec::new();
        loop {
            match read_frame(connection) {
                Ok(frame) => {
                    bytes.extend(&frame);
                    last = frame;
                }
                // After a protocol error, a server may close before it has read everything.
                Err(error) if is_end(&error) => break,
                Err(error) => return Err(error),
            }
        }
        if !last.starts_with(&self.last_frame_start) {
            return Err(io::Error::other(format!("ended with {last:?}")));
        }
        let response_headers = sorted_headers(&response);
        Ok(Transcript {
            response_headers,
            bytes,
        })
    }
}

fn send(connection: &mut Connection, pieces: &[Vec<u8>]) -> io::Result<()> {
    pieces.iter().try_for_each(|piece| connection.send(piece))
}

fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset
    )
}

/// The headers of the handshake's response except `Date`, sorted.
fn sorted_headers(response: &Response) -> Vec<(String, String)> {
    let lower = |(name, value): &(String, String)| (name.to_ascii_lowercase(), value.clone());
    let mut fields: Vec<_> = response.headers.iter().map(lower).collect();
    fields.retain(|(name, _)| name != "date");
    fields.sort();
    fields
}
