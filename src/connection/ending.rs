//! Where a stream can be ended so that its client knows that it has seen all of it.
//!
//! Reads along with what the client is sent, header included. A WebSocket can be ended between two
//! frames, by a close frame (RFC 6455 §5.4: control frames may stand between the fragments of a
//! message); an event stream behind a whole event, by the last chunk or, where there are none, by the
//! end of the connection; a stream of gRPC behind a whole message, by its trailers. What does not parse has no such place. Pure; holds no bytes of the stream.

/// A kind of stream that can be ended politely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// WebSocket frames, behind a 101.
    WebSocket,
    /// `text/event-stream`, in chunks or up to the connection's end.
    Events {
        /// In chunks.
        chunked: bool,
    },
    /// Messages of gRPC, on HTTP/2.
    Messages,
}

/// How far a stream has come.
#[derive(Clone, Debug)]
pub(super) struct Ending {
    /// The header, until it is over.
    head: Option<Head>,
    body: Body,
}

#[derive(Clone, Debug)]
enum Body {
    Frames(Frames),
    Events {
        /// `None`: the connection's end is the stream's.
        chunks: Option<Chunks>,
        events: Events,
    },
    Messages(Messages),
}

impl Ending {
    /// A stream of which nothing was sent yet, not even its header.
    pub(super) fn new(kind: Kind) -> Self {
        let body = match kind {
            Kind::WebSocket => Body::Frames(Frames::Header(FrameHeader::default())),
            Kind::Events { chunked } => Body::Events {
                chunks: chunked.then_some(Chunks::Size(None)),
                events: Events::default(),
            },
            Kind::Messages => Body::Messages(Messages::default()),
        };
        Self {
            head: Some(Head::default()),
            body,
        }
    }

    /// A stream that HTTP/2 frames: neither header nor chunks are among its bytes.
    pub(super) fn of_body(kind: Kind) -> Self {
        let kind = match kind {
            Kind::Events { .. } => Kind::Events { chunked: false },
            Kind::WebSocket | Kind::Messages => kind,
        };
        Self {
            head: None,
            ..Self::new(kind)
        }
    }

    /// The client is sent these bytes.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while let Some(rest) = bytes.get(self.step(bytes)..).filter(|_| !bytes.is_empty()) {
            bytes = rest;
        }
    }

    /// How many of these bytes the client could be sent up to a place where the stream can end; all
    /// where there is none.
    pub(super) fn room(&self, bytes: &[u8]) -> usize {
        let mut ahead = self.clone();
        let mut rest = bytes;
        while !rest.is_empty() && !ahead.can_end() {
            rest = rest.get(ahead.step(rest)..).unwrap_or_default();
        }
        bytes.len() - rest.len()
    }

    /// Whether the stream can end here.
    pub(super) fn can_end(&self) -> bool {
        let whole = match &self.body {
            Body::Frames(frames) => frames.is_between(),
            Body::Events { chunks, events } => {
                chunks.as_ref().is_none_or(Chunks::is_between) && events.is_between()
            }
            Body::Messages(messages) => messages.is_between(),
        };
        self.head.is_none() && whole
    }

    /// What tells the client that this is the end.
    pub(super) fn last_words(&self) -> &'static [u8] {
        match &self.body {
            // Final, close, two bytes: 1001, going away.
            Body::Frames(_) => &[0x88, 2, 0x03, 0xe9],
            Body::Events {
                chunks: Some(_), ..
            } => b"0\r\n\r\n",
            // Of messages, the stream itself tells the end.
            Body::Events { chunks: None, .. } | Body::Messages(_) => b"",
        }
    }

    /// Takes as many of the bytes as have one meaning, at least one; how many.
    fn step(&mut self, bytes: &[u8]) -> usize {
        let Some(&byte) = bytes.first() else { return 0 };
        if let Some(head) = &mut self.head {
            if head.push(byte) {
                self.head = head.is_interim().then(Head::default);
            }
            return 1;
        }
        match &mut self.body {
            Body::Frames(frames) => frames.step(byte, bytes.len()),
            Body::Events { chunks, events } => {
                if chunks.as_mut().is_none_or(|chunks| chunks.step(byte)) {
                    events.step(byte);
                }
                1
            }
            Body::Messages(messages) => messages.step(byte, bytes.len()),
        }
    }
}

/// A response's header, as Pingora writes it: lines end with CRLF.
#[derive(Clone, Debug, Default)]
struct Head {
    /// `HTTP/1.1 101`: the version and the status.
    start: [u8; 12],
    length: usize,
    /// How much of the empty line at its end is there.
    matched: usize,
}

impl Head {
    /// Whether that was its last byte.
    fn push(&mut self, byte: u8) -> bool {
        const END: &[u8] = b"\r\n\r\n";
        if let Some(place) = self.start.get_mut(self.length) {
            *place = byte;
        }
        self.length = self.length.saturating_add(1);
        let expected = END.get(self.matched) == Some(&byte);
        self.matched = if expected {
            self.matched + 1
        } else {
            usize::from(byte == b'\r')
        };
        self.matched == END.len()
    }

    /// Another header follows.
    fn is_interim(&self) -> bool {
        let status = self.start.get(9..).unwrap_or_default();
        status.starts_with(b"1") && status != b"101"
    }
}

/// WebSocket frames (RFC 6455 §5.2).
#[derive(Clone, Debug)]
enum Frames {
    Header(FrameHeader),
    Payload {
        left: u64,
        closes: bool,
    },
    /// A close frame has passed, or something that is no frame.
    Over,
}

#[derive(Clone, Copy, Debug, Default)]
struct FrameHeader {
    bytes: [u8; 14],
    length: usize,
}

impl Frames {
    fn is_between(&self) -> bool {
        matches!(self, Self::Header(header) if header.length == 0)
    }

    fn step(&mut self, byte: u8, available: usize) -> usize {
        match self {
            Self::Header(header) => {
                if let Some(next) = header.push(byte) {
                    *self = next;
                }
                1
            }
            Self::Payload { left, closes } => {
                let taken = usize::try_from(*left).map_or(available, |left| left.min(available));
                *left -= taken as u64;
                if *left == 0 {
                    *self = Self::after(*closes);
                }
                taken
            }
            Self::Over => available,
        }
    }

    fn after(closes: bool) -> Self {
        if closes {
            Self::Over
        } else {
            Self::Header(FrameHeader::default())
        }
    }
}

impl FrameHeader {
    /// What follows the header, if that was its last byte.
    fn push(&mut self, byte: u8) -> Option<Frames> {
        *self.bytes.get_mut(self.length)? = byte;
        self.length += 1;
        let [first, second, rest @ ..] = &self.bytes;
        let extended = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        // A server masks nothing; a peer that does so is none the worse for it.
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        if self.length < 2 + extended + mask {
            return None;
        }
        let long = rest.iter().take(extended);
        let long = long.fold(0, |sum: u64, &byte| sum << 8 | u64::from(byte));
        let left = if extended == 0 {
            u64::from(second & 0x7f)
        } else {
            long
        };
        let closes = first & 0x0f == 8;
        Some(match left {
            0 => Frames::after(closes),
            _ if left >> 63 != 0 => Frames::Over,
            _ => Frames::Payload { left, closes },
        })
    }
}

/// Chunks (RFC 9112 §7.1).
#[derive(Clone, Debug)]
enum Chunks {
    /// In a chunk's size; `None`: before it.
    Size(Option<u64>),
    /// Behind the digits, up to the end of the line.
    Line(u64),
    Data(u64),
    /// Behind the data, up to the end of the line.
    End,
    /// The last chunk has begun, or something that is no chunk.
    Over,
}

impl Chunks {
    fn is_between(&self) -> bool {
        matches!(self, Self::Size(None))
    }

    /// Whether this byte is data.
    fn step(&mut self, byte: u8) -> bool {
        let digit = char::from(byte).to_digit(16).map(u64::from);
        let is_data = matches!(self, Self::Data(_));
        *self = match (&*self, digit) {
            (Self::Size(size), Some(digit)) => match size.unwrap_or(0).checked_mul(16) {
                Some(size) => Self::Size(Some(size + digit)),
                None => Self::Over,
            },
            (Self::Size(Some(size)), None) if byte != b'\n' => Self::Line(*size),
            (Self::Line(0), _) if byte == b'\n' => Self::Over,
            (Self::Line(size), _) if byte == b'\n' => Self::Data(*size),
            (Self::Line(size), _) => Self::Line(*size),
            (Self::Data(1), _) => Self::End,
            (Self::Data(left), _) => Self::Data(left - 1),
            (Self::End, _) if byte == b'\n' => Self::Size(None),
            (Self::End, _) => Self::End,
            _ => Self::Over,
        };
        is_data
    }
}

/// Events (WHATWG HTML §9.2.6): lines that end with CR, LF or both; an empty one ends the event.
#[derive(Clone, Copy, Debug, Default)]
struct Events {
    line: Line,
    /// A field came since the last empty line.
    begun: bool,
    /// The byte before was CR: an LF belongs to it.
    after_cr: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Line {
    #[default]
    Empty,
    Comment,
    Field,
}

impl Events {
    /// A comment, as servers send to keep a connection, begins no event.
    fn is_between(self) -> bool {
        self.line == Line::Empty && !self.begun
    }

    fn step(&mut self, byte: u8) {
        let after_cr = std::mem::replace(&mut self.after_cr, byte == b'\r');
        match byte {
            b'\n' if after_cr => {}
            b'\r' | b'\n' => {
                self.begun &= self.line != Line::Empty;
                self.line = Line::Empty;
            }
            b':' if self.line == Line::Empty => self.line = Line::Comment,
            _ if self.line == Line::Empty => (self.line, self.begun) = (Line::Field, true),
            _ => {}
        }
    }
}

/// Messages of gRPC: each behind a byte of flags and its length in four (`Length-Prefixed-Message`, in
/// the protocol's description).
#[derive(Clone, Copy, Debug, Default)]
struct Messages {
    prefix: [u8; 5],
    /// How much of the prefix is there.
    length: usize,
    /// Of the message behind it; bytes.
    left: u32,
}

impl Messages {
    fn is_between(self) -> bool {
        self.length == 0 && self.left == 0
    }

    fn step(&mut self, byte: u8, available: usize) -> usize {
        if self.left > 0 {
            let available = u32::try_from(available).unwrap_or(u32::MAX);
            let taken = self.left.min(available);
            self.left -= taken;
            return taken as usize;
        }
        if let Some(place) = self.prefix.get_mut(self.length) {
            *place = byte;
        }
        self.length += 1;
        if self.length == self.prefix.len() {
            let [_, length @ ..] = self.prefix;
            (self.length, self.left) = (0, u32::from_be_bytes(length));
        }
        1
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SWITCH: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
    const OK: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";
    const EVENTS: Kind = Kind::Events { chunked: false };
    const CHUNKS: Kind = Kind::Events { chunked: true };

    fn behind(kind: Kind, pieces: &[&[u8]]) -> Ending {
        let mut ending = Ending::new(kind);
        for piece in pieces {
            ending.feed(piece);
        }
        ending
    }

    #[test]
    fn nothing_ends_within_a_header() {
        let early = b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n";
        assert!(!behind(EVENTS, &[]).can_end());
        assert!(!behind(EVENTS, &[OK.split_last().unwrap().1]).can_end());
        assert!(!behind(EVENTS, &[early]).can_end());
        assert!(behind(EVENTS, &[early, early, OK]).can_end());
        assert!(behind(Kind::WebSocket, &[SWITCH]).can_end());
    }

    #[test]
    fn events_end_behind_an_empty_line() {
        for (text, can_end) in [
            ("data: 1", false),
            ("data: 1\n", false),
            ("data: 1\n\n", true),
            ("data: 1\r\n", false),
            ("data: 1\r\n\r", true),
            ("data: 1\r\n\r\n", true),
            ("data: 1\r\r", true),
            ("data: 1\n\ndata", false),
            (": ping", false),
            (": ping\n", true),
            ("data: 1\n: ping\n", false),
            ("\n", true),
        ] {
            assert_eq!(
                behind(EVENTS, &[OK, text.as_bytes()]).can_end(),
                can_end,
                "{text:?}"
            );
        }
    }

    #[test]
    fn chunked_events_end_between_chunks() {
        for (text, can_end) in [
            ("", true),
            ("9", false),
            ("9\r\ndata: 1\n\n", false),
            ("9\r\ndata: 1\n\n\r", false),
            ("9\r\ndata: 1\n\n\r\n", true),
            ("8;x=1\r\ndata: 1\n\r\n", false),
            ("8\r\ndata: 1\n\r\n1\r\n\n\r\n", true),
            ("0\r\n\r\n", false),
            ("x", false),
            ("11111111111111111\r\n", false),
        ] {
            assert_eq!(
                behind(CHUNKS, &[OK, text.as_bytes()]).can_end(),
                can_end,
                "{text:?}"
            );
        }
    }

    #[test]
    fn a_websocket_is_over_behind_a_close_frame() {
        assert!(!behind(Kind::WebSocket, &[SWITCH, &[0x88, 0]]).can_end());
        assert!(!behind(Kind::WebSocket, &[SWITCH, &[0x88, 2, 3, 0xe8]]).can_end());
        let absurd = [0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0];
        assert!(!behind(Kind::WebSocket, &[SWITCH, &absurd]).can_end());
    }

    #[test]
    fn messages_end_behind_their_last_byte() {
        for (bytes, can_end) in [
            (&b""[..], true),
            (b"\0", false),
            (b"\0\0\0\0\0", true),
            (b"\x01\0\0\0\x03", false),
            (b"\0\0\0\0\x03ab", false),
            (b"\0\0\0\0\x03abc", true),
            (b"\0\0\0\0\x03abc\0", false),
            (b"\0\0\0\0\x03abc\0\0\0\0\x01d", true),
        ] {
            let mut whole = Ending::of_body(Kind::Messages);
            whole.feed(bytes);
            assert_eq!(whole.can_end(), can_end, "{bytes:?}");
            let mut pieces = Ending::of_body(Kind::Messages);
            for byte in bytes {
                pieces.feed(&[*byte]);
            }
            assert_eq!(pieces.can_end(), can_end, "{bytes:?}");
        }
        let mut begun = Ending::of_body(Kind::Messages);
        begun.feed(b"\0\0\0\0\x03a");
        assert_eq!(begun.room(b"bc\0\0"), 2);
    }

    /// A frame with its length in the shortest form, masked or not.
    fn frame((length, masked): (usize, bool)) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut frame = vec![0x82];
        match (u8::try_from(length), u16::try_from(length)) {
            (Ok(short @ 0..126), _) => frame.push(mask | short),
            (_, Ok(long)) => {
                frame.push(mask | 0x7e);
                frame.extend(long.to_be_bytes());
            }
            _ => {
                frame.push(mask | 0x7f);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.resize(frame.len() + length + if masked { 4 } else { 0 }, 0x88);
        frame
    }

    proptest! {
        #[test]
        fn a_websocket_can_end_between_two_frames_and_nowhere_else(
            frames in prop::collection::vec((prop_oneof![0..130_usize, 65_530..65_540_usize], any::<bool>()), 1..5),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 1..20),
        ) {
            let frames: Vec<_> = frames.into_iter().map(frame).collect();
            let ends: Vec<_> = frames.iter().scan(0, |sum, frame| { *sum += frame.len(); Some(*sum) }).collect();
            let bytes = frames.concat();
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.sort_unstable();
            let mut ending = behind(Kind::WebSocket, &[SWITCH]);
            let mut at = 0;
            for cut in cuts {
                ending.feed(&bytes[at..cut]);
                prop_assert_eq!(ending.can_end(), cut == 0 || ends.contains(&cut));
                let next = ends.iter().find(|end| **end >= cut).map_or(0, |end| end - cut);
                let room = if ending.can_end() { 0 } else { next };
                prop_assert_eq!(ending.room(&bytes[cut..]), room);
                at = cut;
            }
        }

        #[test]
        fn nothing_is_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0..200_usize) {
            for kind in [Kind::WebSocket, EVENTS, CHUNKS, Kind::Messages] {
                let cut = cut.min(bytes.len());
                let whole = behind(kind, &[OK, &bytes]);
                let parts = behind(kind, &[OK, &bytes[..cut], &bytes[cut..]]);
                prop_assert_eq!(whole.can_end(), parts.can_end());
            }
        }
    }
}
