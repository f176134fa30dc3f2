//! Makes cases: a grammar of frames (RFC 9113 §6).
//!
//! Streams with a known response, the witnesses, are opened among others, in the order of their ids; no other frame names
//! them. A case that changes frames in the middle, or says how long they are and lies, cannot know what becomes of them.

use std::collections::BTreeMap;
use std::fmt;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, FINAL_PING, Field, GOAWAY, HEADERS, PADDED,
    PING, PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, WITH_PRIORITY, block, frame,
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Fields that a request may have besides its pseudo-fields; most of them make it malformed.
const FIELDS: &[(&[u8], &[u8])] = &[
    (b"x-a", b"b"),
    (b"x-a", b" b"),
    (b"x-a", b"b\t"),
    (b"x-a", b""),
    (b"x-a", b"b\nc"),
    (b"x-a", b"b\0"),
    (b"x-a", b"\xff"),
    (b"X-A", b"b"),
    (b"", b"b"),
    (b"x a", b"b"),
    (b":path", b"/"),
    (b":status", b"200"),
    (b":foo", b"b"),
    (b":protocol", b"websocket"),
    (b"te", b"trailers"),
    (b"te", b"gzip"),
    (b"connection", b"close"),
    (b"transfer-encoding", b"chunked"),
    (b"content-length", b"0"),
    (b"content-length", b"5"),
    (b"content-length", b"99999999999999999999"),
    (b"host", b"other"),
    (b"cookie", b"a=b"),
    (b"cookie", b" a=b"),
    (b"expect", b"100-continue"),
    (b"grpc-timeout", b"1m"),
    (b"content-type", b"application/grpc"),
    (b"content-type", b"application/grpc-web-text"),
    (b"upgrade", b"websocket"),
];

/// What a client sends, and what it must get.
pub(super) struct Plan {
    bytes: Vec<u8>,
    /// Where the bytes are cut into writes.
    cuts: Vec<usize>,
    /// The body of the response on each witness.
    pub(super) witnesses: BTreeMap<u32, Vec<u8>>,
    /// Whether the witnesses arrive whole, if the connection goes on.
    pub(super) is_certain: bool,
    /// Whether the client ends its side behind the last byte.
    pub(super) half_closes: bool,
}

impl Plan {
    pub(super) fn pieces(&self) -> Vec<&[u8]> {
        let starts = [0].into_iter().chain(self.cuts.iter().copied());
        let ends = self.cuts.iter().copied().chain([self.bytes.len()]);
        let pieces = starts
            .zip(ends)
            .filter_map(|(start, end)| self.bytes.get(start..end));
        pieces.collect()
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lengths = self
            .witnesses
            .iter()
            .map(|(stream, body)| (stream, body.len()));
        out.debug_struct("Plan")
            .field("bytes", &self.bytes.escape_ascii().to_string())
            .field("witnesses", &lengths.collect::<Vec<_>>())
            .field("is_certain", &self.is_certain)
            .field("half_closes", &self.half_closes)
            .finish_non_exhaustive()
    }
}

/// Makes a case.
pub(super) fn plan(random: &mut StdRng) -> Plan {
    let mut maker = Maker::new();
    for _ in 0..random.gen_range(1..25) {
        maker.step(random);
    }
    maker.finish(random)
}

struct Maker {
    bytes: Vec<u8>,
    next_stream: u32,
    /// The other streams.
    hostile: Vec<u32>,
    witnesses: BTreeMap<u32, Vec<u8>>,
    /// The frames of uploads that are still to come.
    due: Vec<Vec<u8>>,
    is_certain: bool,
}

impl Maker {
    fn new() -> Self {
        // Without a dynamic table each status can be decoded on its own.
        let settings = frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0]);
        Self {
            bytes: [PREFACE, &settings].concat(),
            next_stream: 1,
            hostile: Vec::new(),
            witnesses: BTreeMap::new(),
            due: Vec::new(),
            is_certain: true,
        }
    }

    fn open(&mut self) -> u32 {
        let stream = self.next_stream;
        self.next_stream += 2;
        stream
    }

    fn push(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.bytes.extend(frame(kind, flags, stream, payload));
    }

    fn step(&mut self, random: &mut StdRng) {
        match random.gen_range(0..20) {
            0..=4 => self.witness_get(random),
            5 => self.witness_upload(random),
            6..=7 if !self.due.is_empty() => self.bytes.extend(self.due.remove(0)),
            8 => self.lie(random),
            _ => self.hostile_frame(random),
        }
    }

    fn witness_get(&mut self, random: &mut StdRng) {
        let stream = self.open();
        let length = *[0, 1, 100, 5000, 40_000].choose(random).expect("some");
        self.witnesses.insert(stream, vec![b'x'; length]);
        let path = format!("/{length}");
        let block = block(random, &request(b"GET", path.as_bytes()), &[]);
        self.push(HEADERS, END_STREAM | END_HEADERS, stream, &block);
    }

    fn witness_upload(&mut self, random: &mut StdRng) {
        let stream = self.open();
        let block = block(random, &request(b"POST", b"/upload"), &[]);
        self.push(HEADERS, END_HEADERS, stream, &block);
        let mut sum = 0;
        for _ in 0..random.gen_range(0..4) {
            let length = random.gen_range(0..4000);
            sum += length;
            self.due.push(frame(DATA, 0, stream, &vec![b'x'; length]));
        }
        self.due.push(frame(DATA, END_STREAM, stream, b""));
        self.witnesses.insert(stream, sum.to_string().into_bytes());
    }

    /// A frame of another length than it says.
    fn lie(&mut self, random: &mut StdRng) {
        if random.gen_range(0..4) > 0 {
            return;
        }
        self.is_certain = false;
        let at = self.bytes.len();
        self.hostile_frame(random);
        if let Some(byte) = self.bytes.get_mut(at + 2) {
            *byte = random.r#gen();
        }
    }

    fn hostile_frame(&mut self, random: &mut StdRng) {
        match random.gen_range(0..14) {
            0..=2 => self.request(random),
            3 => self.data(random),
            4 => self.second_header(random),
            5 => {
                let stream = self.any_stream(random);
                let flags = random.gen_range(0..8);
                let fields = some_fields(random);
                let block = block(random, &[], &fields);
                self.push(CONTINUATION, flags, stream, &block);
            }
            6..=7 => {
                let stream = self.any_stream(random);
                let code: u32 = random.gen_range(0..20);
                let payload = some_bytes(random, &code.to_be_bytes());
                self.push(RST_STREAM, 0, stream, &payload);
            }
            8 => self.settings(random),
            9 => {
                let payload = some_bytes(random, b"12345678");
                let flags = random.gen_range(0..4);
                let stream = u32::from(rarely(random));
                self.push(PING, flags, stream, &payload);
            }
            10 => {
                let stream = self.any_stream(random);
                let more = *[0, 1, 1000, 0x7fff_ffff, 0x8000_0001]
                    .choose(random)
                    .expect("some");
                let payload = some_bytes(random, &u32::to_be_bytes(more));
                self.push(WINDOW_UPDATE, 0, stream, &payload);
            }
            11 => {
                let stream = self.any_stream(random);
                let on = self.any_stream(random).to_be_bytes();
                let payload = some_bytes(random, &[on[0], on[1], on[2], on[3], 15]);
                self.push(PRIORITY, 0, stream, &payload);
            }
            12 => {
                let kind = *[PUSH_PROMISE, 10, 0x20, 0xff].choose(random).expect("some");
                let stream = self.any_stream(random);
                let payload = vec![0; random.gen_range(0..40)];
                self.push(kind, random.r#gen(), stream, &payload);
            }
            _ if rarely(random) => {
                // The server may close once it has no streams.
                self.is_certain = false;
                let payload = some_bytes(random, &[0; 8]);
                self.push(GOAWAY, 0, 0, &payload);
            }
            _ => self.large(random),
        }
    }

    /// A request that may be malformed, whole or begun.
    fn request(&mut self, random: &mut StdRng) {
        let stream = self.open();
        self.hostile.push(stream);
        let method = *[
            &b"GET"[..],
            b"POST",
            b"HEAD",
            b"CONNECT",
            b"OPTIONS",
            b"G T",
            b"",
        ]
        .choose(random)
        .expect("some");
        let path = *[
            &b"/10"[..],
            b"/",
            b"*",
            b"",
            b"/a b",
            b"/\xff",
            b"/#a",
            b"http://a/",
        ]
        .choose(random)
        .expect("some");
        let mut pseudo = request(method, path);
        if rarely(random) {
            let removed = random.gen_range(0..pseudo.len());
            pseudo.remove(removed);
        }
        let fields = some_fields(random);
        let mut payload = block(random, &pseudo, &fields);
        if rarely(random) && !payload.is_empty() {
            let at = random.gen_range(0..payload.len());
            payload[at] = random.r#gen();
        }
        let mut flags = random.gen_range(0..2) * END_STREAM;
        if random.gen_range(0..12) > 0 {
            flags |= END_HEADERS;
        }
        if random.gen_range(0..6) == 0 {
            flags |= WITH_PRIORITY;
            payload.splice(0..0, [0, 0, 0, random.gen_range(0..8), 15]);
        }
        if random.gen_range(0..6) == 0 {
            flags |= PADDED;
            let padding = random.gen_range(0..20);
            payload.insert(
                0,
                if rarely(random) {
                    random.r#gen()
                } else {
                    padding
                },
            );
            payload.resize(payload.len() + usize::from(padding), 0);
        }
        self.push(HEADERS, flags, stream, &payload);
    }

    fn data(&mut self, random: &mut StdRng) {
        let stream = self.any_stream(random);
        let mut flags = random.gen_range(0..2);
        let mut payload = vec![b'x'; *[0, 1, 5, 3000].choose(random).expect("some")];
        if random.gen_range(0..4) == 0 {
            flags |= PADDED;
            payload.insert(0, random.gen_range(0..8));
        }
        self.push(DATA, flags, stream, &payload);
    }

    /// Trailers, or a header that is none.
    fn second_header(&mut self, random: &mut StdRng) {
        let stream = self.any_stream(random);
        let flags = if rarely(random) {
            END_HEADERS
        } else {
            END_HEADERS | END_STREAM
        };
        let fields = some_fields(random);
        let block = block(random, &[], &fields);
        self.push(HEADERS, flags, stream, &block);
    }

    fn settings(&mut self, random: &mut StdRng) {
        let mut payload = Vec::new();
        for _ in 0..random.gen_range(0..4) {
            let name: u16 = random.gen_range(0..9);
            let value = *[0, 1, 100, 16_384, 65_535, 0x7fff_ffff, u32::MAX]
                .choose(random)
                .expect("some");
            // The table stays empty, so that statuses can be decoded.
            let value = if name == 1 { 0 } else { value };
            payload.extend(name.to_be_bytes());
            payload.extend(u32::to_be_bytes(value));
        }
        let payload = some_bytes(random, &payload);
        let flags = if rarely(random) { ACK } else { 0 };
        let stream = u32::from(rarely(random));
        self.push(SETTINGS, flags, stream, &payload);
    }

    /// A frame above the largest size, or a header in many frames.
    fn large(&mut self, random: &mut StdRng) {
        if random.gen_range(0..4) > 0 {
            return;
        }
        let stream = self.open();
        self.hostile.push(stream);
        let value = vec![b'x'; random.gen_range(8000..40_000)];
        let block = block(random, &request(b"GET", b"/1"), &[(b"x-large", &value)]);
        if rarely(random) {
            return self.push(HEADERS, END_HEADERS | END_STREAM, stream, &block);
        }
        let mut parts = block.chunks(random.gen_range(500..16_384)).peekable();
        let (mut kind, mut flags) = (HEADERS, END_STREAM);
        while let Some(part) = parts.next() {
            flags |= if parts.peek().is_none() {
                END_HEADERS
            } else {
                0
            };
            self.push(kind, flags, stream, part);
            (kind, flags) = (CONTINUATION, 0);
        }
    }

    /// A stream that is not a witness: open, ended, idle, or the connection itself.
    fn any_stream(&self, random: &mut StdRng) -> u32 {
        match random.gen_range(0..12) {
            0 => 0,
            1 => self.next_stream + 200,
            2 => 2,
            _ => self.hostile.choose(random).copied().unwrap_or(0),
        }
    }

    fn finish(mut self, random: &mut StdRng) -> Plan {
        for frame in std::mem::take(&mut self.due) {
            self.bytes.extend(frame);
        }
        // Whatever was set before, the witnesses get a window.
        self.push(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]);
        self.push(PING, 0, 0, FINAL_PING);
        let mut half_closes = false;
        if random.gen_range(0..10) == 0 {
            half_closes = true;
            self.is_certain = false;
            self.bytes.truncate(random.gen_range(0..=self.bytes.len()));
        }
        if random.gen_range(0..10) == 0 && self.bytes.len() > PREFACE.len() {
            self.is_certain = false;
            for _ in 0..random.gen_range(1..4) {
                let at = random.gen_range(0..self.bytes.len());
                self.bytes[at] = random.r#gen();
            }
        }
        let mut cuts = Vec::new();
        if random.r#gen() {
            cuts = (0..random.gen_range(1..6))
                .map(|_| random.gen_range(0..=self.bytes.len()))
                .collect();
            cuts.sort_unstable();
        }
        Plan {
            bytes: self.bytes,
            cuts,
            witnesses: self.witnesses,
            is_certain: self.is_certain,
            // A frame that is never complete would leave the connection waiting.
            half_closes: half_closes || !self.is_certain,
        }
    }
}

fn request<'a>(method: &'a [u8], path: &'a [u8]) -> Vec<Field<'a>> {
    vec![
        (b":method", method),
        (b":scheme", b"http"),
        (b":path", path),
        (b":authority", b"a.test"),
    ]
}

fn some_fields(random: &mut StdRng) -> Vec<Field<'static>> {
    let count = *[0, 0, 1, 1, 3].choose(random).expect("some");
    (0..count)
        .map(|_| *FIELDS.choose(random).expect("some"))
        .collect()
}

/// Mostly these bytes, or a payload of another length.
fn some_bytes(random: &mut StdRng, bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if rarely(random) {
        bytes.resize(random.gen_range(0..12), 0);
    }
    bytes
}

fn rarely(random: &mut StdRng) -> bool {
    random.gen_range(0..10) == 0
}
