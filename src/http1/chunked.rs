//! The chunked transfer coding (RFC 9112 §7.1).

use std::ops::Range;

use super::byte_class::TEXT;
use super::lines::{Field, write_field};
use super::refusal::Refusal;
use super::scan::FieldScanner;

/// The digits of the largest size, 2^63 - 1.
const MAX_DIGITS: u8 = 16;

/// The limits on the parts of a chunked body that are not data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkLimits {
    /// The extensions of one chunk; bytes.
    pub max_extension: usize,
    /// The extensions of all chunks, in addition to one byte for each byte of data; bytes.
    pub max_extensions: u64,
    /// The trailer section; bytes.
    pub max_trailers: usize,
    /// The lines of the trailer section.
    pub max_trailer_fields: usize,
}

impl ChunkLimits {
    /// Far above what real senders use.
    pub const DEFAULT: Self = Self {
        max_extension: 1024,
        max_extensions: 16 * 1024,
        max_trailers: 16 * 1024,
        max_trailer_fields: 100,
    };
}

/// The next part of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyPart {
    /// Data in this range of the input, never empty; the bytes before it are processed.
    Data(Range<usize>),
    /// The first `done` bytes of the input are processed; the rest must be given again, followed by more bytes.
    NeedMore {
        /// Bytes.
        done: usize,
    },
    /// The body has ended; a trailer section, with its empty line, is in this range of the input. The bytes before it
    /// are processed, and those after it belong to the next message.
    End {
        /// For [`FieldLines::read_trailers`](super::FieldLines::read_trailers).
        trailers: Range<usize>,
    },
}

/// Decodes one chunked body, and leaves its data in place. Extensions are dropped (RFC 9112 §7.1.1).
#[derive(Debug)]
pub(super) struct ChunkedDecoder {
    state: ChunkState,
    limits: ChunkLimits,
    /// The extensions of this chunk; bytes.
    extension: usize,
    /// The extensions of all chunks; bytes.
    extensions: u64,
    /// The data; bytes.
    data: u64,
}

#[derive(Clone, Copy, Debug)]
enum ChunkState {
    /// Within a size: its value so far, and the number of its digits.
    Size(u64, u8),
    /// After the size, in blanks before an extension.
    Blank(u64),
    /// In the extensions of a chunk of this size.
    Extension(u64),
    /// After the CR of the line of a chunk of this size.
    LineEnd(u64),
    /// In data: the bytes left.
    Data(u64),
    /// After the data.
    DataEnd,
    /// After the CR that follows the data.
    DataEndLf,
    /// In the trailer section.
    Trailers(FieldScanner),
}

impl ChunkedDecoder {
    pub(super) fn new(limits: ChunkLimits) -> Self {
        Self {
            state: ChunkState::Size(0, 0),
            limits,
            extension: 0,
            extensions: 0,
            data: 0,
        }
    }

    /// Decodes the next part of `input`, which begins after the bytes that were processed.
    pub(super) fn decode(&mut self, input: &[u8]) -> Result<BodyPart, Refusal> {
        let mut at = 0;
        loop {
            if let ChunkState::Trailers(_) = self.state {
                return self.scan_trailers(input, at);
            }
            let Some(&byte) = input.get(at) else {
                return Ok(BodyPart::NeedMore { done: at });
            };
            if let ChunkState::Data(left) = self.state {
                return Ok(BodyPart::Data(self.take_data(left, at, input.len())));
            }
            self.state = self.step(byte)?;
            at += 1;
        }
    }

    fn take_data(&mut self, left: u64, start: usize, end: usize) -> Range<usize> {
        let there = end - start;
        let taken = usize::try_from(left).map_or(there, |left| left.min(there));
        self.data += taken as u64;
        self.state = match left - taken as u64 {
            0 => ChunkState::DataEnd,
            left => ChunkState::Data(left),
        };
        start..start + taken
    }

    /// Processes a byte that is in neither data nor trailers.
    fn step(&mut self, byte: u8) -> Result<ChunkState, Refusal> {
        match (self.state, byte) {
            (ChunkState::Size(size, 1..), b'\r') => Ok(ChunkState::LineEnd(size)),
            (ChunkState::Size(size, 1..), b';' | b' ' | b'\t')
            | (ChunkState::Blank(size) | ChunkState::Extension(size), _) => {
                self.step_extension(size, byte)
            }
            (ChunkState::Size(size, digits), _) => next_digit(size, digits, byte),
            (ChunkState::LineEnd(0), b'\n') => Ok(ChunkState::Trailers(FieldScanner::new(0))),
            (ChunkState::LineEnd(size), b'\n') => {
                self.extension = 0;
                Ok(ChunkState::Data(size))
            }
            // RFC 9112 §2.2: the line ends in CRLF.
            (ChunkState::LineEnd(_), _) => Err(Refusal::BareCr),
            (ChunkState::DataEnd, b'\r') => Ok(ChunkState::DataEndLf),
            (ChunkState::DataEndLf, b'\n') => Ok(ChunkState::Size(0, 0)),
            // RFC 9112 §7.1: a chunk has as many bytes of data as its size says.
            _ => Err(Refusal::InvalidChunkEnd),
        }
    }

    /// RFC 9112 §7.1.1: blanks are allowed before the semicolon, and only there.
    fn step_extension(&mut self, size: u64, byte: u8) -> Result<ChunkState, Refusal> {
        let state = match (self.state, byte) {
            (_, b'\n') => return Err(Refusal::BareLf),
            (ChunkState::Extension(_), b'\r') => return Ok(ChunkState::LineEnd(size)),
            (ChunkState::Extension(_), _) if TEXT.contains(byte) => ChunkState::Extension(size),
            (ChunkState::Size(..) | ChunkState::Blank(_), b';') => ChunkState::Extension(size),
            (ChunkState::Size(..) | ChunkState::Blank(_), b' ' | b'\t') => ChunkState::Blank(size),
            _ => return Err(Refusal::InvalidChunkExtension),
        };
        self.extension += 1;
        self.extensions += 1;
        let is_over = self.extension > self.limits.max_extension
            || self.extensions > self.limits.max_extensions.saturating_add(self.data);
        if is_over {
            return Err(Refusal::ChunkExtensionTooLong);
        }
        Ok(state)
    }

    /// Scans the trailer section, which begins at `start`, until it is complete.
    fn scan_trailers(&mut self, input: &[u8], start: usize) -> Result<BodyPart, Refusal> {
        let ChunkState::Trailers(scanner) = &mut self.state else {
            return Ok(BodyPart::NeedMore { done: start });
        };
        let section = input.get(start..).unwrap_or_default();
        let limited = section.get(..self.limits.max_trailers);
        match scanner.scan(limited.unwrap_or(section), self.limits.max_trailer_fields) {
            Ok(Some(length)) => Ok(BodyPart::End {
                trailers: start..start + length,
            }),
            Ok(None) if section.len() <= self.limits.max_trailers => {
                Ok(BodyPart::NeedMore { done: start })
            }
            Ok(None) | Err(Refusal::TooManyFields) => Err(Refusal::TrailersTooLarge),
            Err(refusal) => Err(refusal),
        }
    }
}

fn next_digit(size: u64, digits: u8, byte: u8) -> Result<ChunkState, Refusal> {
    let digit = match char::from(byte).to_digit(16) {
        Some(digit) => u64::from(digit),
        None if byte == b'\n' => return Err(Refusal::BareLf),
        None => return Err(Refusal::InvalidChunkSize),
    };
    let next = size.checked_mul(16).map(|size| size + digit);
    match next {
        Some(next) if digits < MAX_DIGITS && i64::try_from(next).is_ok() => {
            Ok(ChunkState::Size(next, digits + 1))
        }
        _ => Err(Refusal::InvalidChunkSize),
    }
}

/// The end of a chunk's data.
pub const CHUNK_END: &[u8] = b"\r\n";

/// Writes the line before a chunk's data. `length`: not 0, which would end the body; bytes.
pub fn write_chunk_head(length: usize, out: &mut Vec<u8>) {
    let digits = (usize::BITS - length.leading_zeros()).div_ceil(4);
    for digit in (0..digits).rev() {
        let nibble = (length >> (4 * digit)) & 0xf;
        out.extend(b"0123456789ABCDEF".get(nibble));
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes the end of a chunked body.
pub fn write_last_chunk<'a>(trailers: impl Iterator<Item = Field<'a>>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    for Field { name, value } in trailers {
        write_field(name, value, out);
    }
    out.extend_from_slice(b"\r\n");
}
