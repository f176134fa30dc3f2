//! WebSocket frames (RFC 6455), valid or not, and scripts of them.

use std::io::{self, ErrorKind};

use super::client::{Connection, Request, Response};

/// First bytes of final frames: FIN and the opcode (RFC 6455 §5.2).
pub(crate) const CONTINUATION: u8 = FIN;
pub(crate) const TEXT: u8 = FIN | 0x1;
pub(crate) const BINARY: u8 = FIN | 0x2;
pub(crate) const CLOSE: u8 = FIN | 0x8;
pub(crate) const PING: u8 = FIN | 0x9;
pub(crate) const PONG: u8 = FIN | 0xa;
/// Cleared if more frames of the message follow.
pub(crate) const FIN: u8 = 0x80;
/// Reserved bits; RSV1 marks a compressed message (RFC 7692 §6).
pub(crate) const RSV1: u8 = 0x40;
pub(crate) const RSV2: u8 = 0x20;
pub(crate) const RSV3: u8 = 0x10;

/// A client's frame: masked, with a mask that depends on the length.
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
pub(crate) fn bare(first: u8, payload: &[u8]) -> Vec<u8> {
    [&head(first, payload.len()), payload].concat()
}

fn head(first: u8, length: usize) -> Vec<u8> {
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ 0..126), _) => vec![first, short],
        (_, Ok(long)) => [&[first, 126][..], &long.to_be_bytes()].concat(),
        _ => [&[first, 127][..], &(length as u64).to_be_bytes()].concat(),
    }
}

/// A message in several frames with `size` bytes each.
pub(crate) fn fragments(first: u8, message: &[u8], size: usize) -> Vec<u8> {
    let pieces: Vec<_> = message.chunks(size).collect();
    let last = pieces.len() - 1;
    let piece = |(index, piece): (usize, &&[u8])| {
        let kind = if index == 0 { first & !FIN } else { 0 };
        frame(kind | if index == last { FIN } else { 0 }, piece)
    };
    pieces.iter().enumerate().flat_map(piece).collect()
}

/// Reads one frame of a server; returns its bytes.
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

/// The bytes that a client sends, and the points at which it waits for frames.
#[derive(Clone)]
pub(crate) struct Script {
    pub(crate) name: String,
    /// The value of `Sec-WebSocket-Extensions`, if any.
    pub(crate) offers: Option<&'static str>,
    steps: Vec<Step>,
    /// The first bytes of the server's last frame.
    end: Vec<u8>,
}

#[derive(Clone)]
enum Step {
    /// Bytes sent in one write.
    Send(Vec<Vec<u8>>),
    /// Wait for this many frames.
    Await(usize),
}

/// The result of a script: the response to the handshake, and every later byte up to the end.
#[derive(PartialEq, Eq)]
pub(crate) struct Transcript {
    pub(crate) answer: Vec<(String, String)>,
    pub(crate) bytes: Vec<u8>,
}

impl Script {
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            offers: None,
            steps: Vec::new(),
            end: Vec::new(),
        }
    }

    pub(crate) fn offering(self, offers: &'static str) -> Self {
        let offers = Some(offers);
        Self { offers, ..self }
    }

    pub(crate) fn send(self, bytes: impl Into<Vec<u8>>) -> Self {
        self.step(Step::Send(vec![bytes.into()]))
    }

    /// Sends `size` bytes in each write.
    pub(crate) fn chop(self, bytes: impl AsRef<[u8]>, size: usize) -> Self {
        let pieces = bytes.as_ref().chunks(size).map(<[u8]>::to_vec);
        self.step(Step::Send(pieces.collect()))
    }

    /// Waits for this many frames of the server.
    pub(crate) fn answered(self, frames: usize) -> Self {
        self.step(Step::Await(frames))
    }

    /// The client closes normally.
    pub(crate) fn close(self) -> Self {
        self.close_with(&1000_u16.to_be_bytes())
    }

    /// The client closes with this payload, and the server echoes it.
    pub(crate) fn close_with(self, payload: &[u8]) -> Self {
        self.send(frame(CLOSE, payload)).ends(bare(CLOSE, payload))
    }

    /// The server closes with this code.
    pub(crate) fn fails(self, code: u16) -> Self {
        self.ends(bare(CLOSE, &code.to_be_bytes()))
    }

    /// The server's last frame begins with these bytes.
    pub(crate) fn ends(self, end: Vec<u8>) -> Self {
        Self { end, ..self }
    }

    fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    pub(crate) fn request(&self, target: &str) -> Request {
        let request = Request::socket(target);
        let request = request.header("Sec-WebSocket-Protocol", "chat, superchat");
        match self.offers {
            Some(offers) => request.header("Sec-WebSocket-Extensions", offers),
            None => request,
        }
    }

    /// The client's writes after its handshake.
    pub(crate) fn writes(&self) -> impl Iterator<Item = &[u8]> {
        let pieces = self.steps.iter().map(|step| match step {
            Step::Send(pieces) => &pieces[..],
            Step::Await(_) => &[],
        });
        pieces.flatten().map(Vec::as_slice)
    }

    /// Plays the client's part on a new connection, up to the server's close.
    pub(crate) fn play(&self, connection: &mut Connection, target: &str) -> io::Result<Transcript> {
        let answer = connection.exchange(&self.request(target))?;
        if answer.status != 101 {
            return Err(io::Error::other(format!("{answer:?}")));
        }
        let mut bytes = Vec::new();
        for step in &self.steps {
            match step {
                // The server may have closed already; its frames are read below.
                Step::Send(pieces) => drop(send(connection, pieces)),
                Step::Await(count) => {
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
                // A server that fails a connection may close before it has read everything.
                Err(error) if is_end(&error) => break,
                Err(error) => return Err(error),
            }
        }
        if !last.starts_with(&self.end) {
            return Err(io::Error::other(format!("ended with {last:?}")));
        }
        let answer = told(&answer);
        Ok(Transcript { answer, bytes })
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

/// The fields of a handshake's response except `Date`, sorted.
fn told(answer: &Response) -> Vec<(String, String)> {
    let lower = |(name, value): &(String, String)| (name.to_ascii_lowercase(), value.clone());
    let mut fields: Vec<_> = answer.headers.iter().map(lower).collect();
    fields.retain(|(name, _)| name != "date");
    fields.sort();
    fields
}
