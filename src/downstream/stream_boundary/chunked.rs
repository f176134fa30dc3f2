//! Boundaries between the chunks of an HTTP/1 body (RFC 9112 §7.1).

/// The state within a sequence of chunks.
#[derive(Clone, Debug)]
pub(super) enum ChunkScanner {
    /// In the digits of a chunk's size; `None`: before the first.
    Size(Option<u64>),
    /// After the digits, up to the end of the line.
    Extension(u64),
    Data(u64),
    /// After the data, up to the end of the line.
    DataEnd,
    /// After the size of the last chunk, or bytes that are not a chunk.
    Done,
}

impl ChunkScanner {
    pub(super) fn new() -> Self {
        Self::Size(None)
    }

    pub(super) fn is_at_boundary(&self) -> bool {
        matches!(self, Self::Size(None))
    }

    /// Consumes one byte; true: it is data.
    pub(super) fn consume(&mut self, byte: u8) -> bool {
        let digit = char::from(byte).to_digit(16).map(u64::from);
        let is_data = matches!(self, Self::Data(_));
        *self = match (&*self, digit) {
            (Self::Size(size), Some(digit)) => match size.unwrap_or(0).checked_mul(16) {
                Some(size) => Self::Size(Some(size + digit)),
                None => Self::Done,
            },
            (Self::Size(Some(size)), None) if byte != b'\n' => Self::Extension(*size),
            (Self::Extension(0), _) if byte == b'\n' => Self::Done,
            (Self::Extension(size), _) if byte == b'\n' => Self::Data(*size),
            (Self::Extension(size), _) => Self::Extension(*size),
            (Self::Data(1), _) => Self::DataEnd,
            (Self::Data(left), _) => Self::Data(left - 1),
            (Self::DataEnd, _) if byte == b'\n' => Self::Size(None),
            (Self::DataEnd, _) => Self::DataEnd,
            _ => Self::Done,
        };
        is_data
    }
}
