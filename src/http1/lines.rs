//! Field lines (RFC 9112 §5) as ranges of the text that holds them.

use std::ops::Range;

use bytes::Bytes;

/// The fields that HTTP/1 itself reads, recognised once, when a line is parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum KnownField {
    Other = 0,
    Host = 1,
    ContentLength = 1 << 1,
    TransferEncoding = 1 << 2,
    Connection = 1 << 3,
    KeepAlive = 1 << 4,
    ProxyConnection = 1 << 5,
    Te = 1 << 6,
    Upgrade = 1 << 7,
    Expect = 1 << 8,
    Trailer = 1 << 9,
}

impl KnownField {
    pub(super) fn of(name: &[u8]) -> Self {
        let (text, known): (&[u8], _) = match name {
            [_, _] => (b"te", Self::Te),
            [_, _, _, _] => (b"host", Self::Host),
            [_, b'X' | b'x', _, _, _, _] => (b"expect", Self::Expect),
            [b'U' | b'u', _, _, _, _, _, _] => (b"upgrade", Self::Upgrade),
            [b'T' | b't', _, _, _, _, _, _] => (b"trailer", Self::Trailer),
            _ => match (name.len(), name.first()) {
                (10, Some(b'C' | b'c')) => (b"connection", Self::Connection),
                (10, Some(b'K' | b'k')) => (b"keep-alive", Self::KeepAlive),
                (14, Some(b'C' | b'c')) => (b"content-length", Self::ContentLength),
                (16, Some(b'P' | b'p')) => (b"proxy-connection", Self::ProxyConnection),
                (17, Some(b'T' | b't')) => (b"transfer-encoding", Self::TransferEncoding),
                _ => return Self::Other,
            },
        };
        // Setting this bit makes an upper-case letter lower-case; no other byte of a token becomes a letter or a hyphen.
        let is_same = name.iter().zip(text).all(|(a, b)| a | 0x20 == *b);
        if is_same { known } else { Self::Other }
    }
}

/// One line: offsets in the text that holds it. A message is smaller than 4 GiB.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    start: u32,
    name_end: u32,
    value_start: u32,
    value_end: u32,
    end: u32,
    pub(super) known: KnownField,
    /// Whether it is written as `name: value`, without further blanks.
    is_canonical: bool,
}

impl Line {
    /// The line in the range `line` of `text`, with the ranges of its parts. `None`: it ends above 4 GiB.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "no offset is above the line's end"
    )]
    pub(super) fn new(
        text: &[u8],
        line: Range<usize>,
        name_end: usize,
        value: Range<usize>,
        known: KnownField,
    ) -> Option<Self> {
        let is_canonical = value.start == name_end + 2
            && text.get(name_end + 1) == Some(&b' ')
            && line.end == value.end + 2;
        Some(Self {
            end: u32::try_from(line.end).ok()?,
            start: line.start as u32,
            name_end: name_end as u32,
            value_start: value.start as u32,
            value_end: value.end as u32,
            known,
            is_canonical,
        })
    }

    pub(super) fn field(self, text: &[u8]) -> Field<'_> {
        Field {
            name: slice(text, self.start, self.name_end),
            value: slice(text, self.value_start, self.value_end),
        }
    }

    pub(super) fn has_name(self, text: &[u8], name: &str) -> bool {
        let length = (self.name_end - self.start) as usize;
        length == name.len()
            && slice(text, self.start, self.name_end).eq_ignore_ascii_case(name.as_bytes())
    }

    pub(super) fn value_range(self) -> Range<usize> {
        self.value_start as usize..self.value_end as usize
    }
}

fn slice(text: &[u8], start: u32, end: u32) -> &[u8] {
    text.get(start as usize..end as usize).unwrap_or_default()
}

/// A Bloom filter of names, which makes most searches unnecessary: it may report a name that is absent, but it never
/// misses one that is present.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct NameSet(u64);

impl NameSet {
    pub(super) fn insert(&mut self, name: &[u8]) {
        self.0 |= Self::bit(name);
    }

    pub(super) fn may_contain(self, name: &[u8]) -> bool {
        self.0 & Self::bit(name) != 0
    }

    /// The bit of a name, one of 64: a hash of its length, first and last byte, in any case of letters.
    fn bit(name: &[u8]) -> u64 {
        let (first, last) = match name {
            [] => (0, 0),
            [only] => (*only, *only),
            [first, .., last] => (*first, *last),
        };
        let hash = usize::from((first | 0x20) ^ ((last | 0x20) << 1)) + 7 * name.len();
        1 << (hash % 64)
    }
}

/// Writes lines of `text`. Canonical lines that follow each other are copied at once; others are written as
/// `name: value`.
pub(super) fn write_lines(text: &[u8], lines: &[Line], out: &mut Vec<u8>) {
    let (mut start, mut end) = (0, 0);
    for line in lines {
        if line.is_canonical && line.start == end {
            end = line.end;
            continue;
        }
        out.extend_from_slice(slice(text, start, end));
        (start, end) = (line.start, line.end);
        if !line.is_canonical {
            let Field { name, value } = line.field(text);
            write_field(name, value, out);
            start = end;
        }
    }
    out.extend_from_slice(slice(text, start, end));
}

/// Writes one line. The caller has checked its parts.
pub(super) fn write_field(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// One field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// The name, a token, in its original case.
    pub name: &'a [u8],
    /// The value without the blanks around it.
    pub value: &'a [u8],
}

/// The field lines of one message, in order of arrival, as ranges of the received bytes. Memory is kept for reuse.
#[derive(Clone, Debug, Default)]
pub struct FieldLines {
    pub(super) text: Bytes,
    pub(super) lines: Vec<Line>,
    /// The [`KnownField`]s that are present.
    known: u16,
    pub(super) names: NameSet,
}

impl FieldLines {
    /// The first value of a name, in any case of letters.
    pub fn get(&self, name: impl AsRef<str>) -> Option<&[u8]> {
        Some(self.find(name.as_ref())?.field(&self.text).value)
    }

    /// As [`get`](Self::get), sharing the memory of the message instead of borrowing it.
    pub fn get_bytes(&self, name: impl AsRef<str>) -> Option<Bytes> {
        let range = self.find(name.as_ref())?.value_range();
        Some(self.text.slice(range))
    }

    /// All values of a name, in order of arrival.
    pub fn get_all<'a>(&'a self, name: &str) -> impl DoubleEndedIterator<Item = &'a [u8]> {
        let lines = if self.names.may_contain(name.as_bytes()) {
            self.lines.as_slice()
        } else {
            &[]
        };
        let named = lines
            .iter()
            .filter(move |line| line.has_name(&self.text, name));
        named.map(|line| line.field(&self.text).value)
    }

    /// Whether a name is present.
    pub fn contains(&self, name: impl AsRef<str>) -> bool {
        self.find(name.as_ref()).is_some()
    }

    /// All bytes of the message's head.
    pub fn text(&self) -> &Bytes {
        &self.text
    }

    /// All fields, in order of arrival.
    pub fn iter(&self) -> impl Iterator<Item = Field<'_>> {
        self.lines.iter().map(|line| line.field(&self.text))
    }

    /// The number of lines.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there is no field line.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The memory that is kept for the lines of another message; bytes.
    pub(super) fn capacity(&self) -> usize {
        self.lines.capacity() * size_of::<Line>()
    }

    fn find(&self, name: &str) -> Option<&Line> {
        let lines = if self.names.may_contain(name.as_bytes()) {
            self.lines.as_slice()
        } else {
            &[]
        };
        lines.iter().find(|line| line.has_name(&self.text, name))
    }

    pub(super) fn clear(&mut self) {
        self.text = Bytes::new();
        self.lines.clear();
        self.known = 0;
        self.names = NameSet::default();
    }

    pub(super) fn push(&mut self, name: &[u8], line: Line) {
        self.names.insert(name);
        self.known |= line.known as u16;
        self.lines.push(line);
    }

    pub(super) fn has(&self, field: KnownField) -> bool {
        self.known & field as u16 != 0
    }

    /// All values of a known field.
    pub(super) fn known(&self, field: KnownField) -> impl Iterator<Item = &[u8]> {
        // Most requests have few of these: the set makes the search unnecessary.
        let lines = if self.has(field) {
            self.lines.as_slice()
        } else {
            &[]
        };
        let lines = lines.iter().filter(move |line| line.known == field);
        lines.map(|line| line.field(&self.text).value)
    }

    /// The range of a known field's first value in the message.
    pub(super) fn known_range(&self, field: KnownField) -> Option<Range<usize>> {
        let line = self.lines.iter().find(|line| line.known == field)?;
        Some(line.value_range())
    }
}

/// The elements of a comma-separated list, without the blanks around them; also empty ones.
pub(super) fn list_elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(trim_blanks)
}

fn trim_blanks(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}
