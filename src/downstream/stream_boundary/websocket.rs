//! Boundaries between WebSocket frames (RFC 6455 §5.2).

/// The state within a sequence of frames.
#[derive(Clone, Debug)]
pub(super) enum WebSocketScanner {
    Header(WebSocketFrameHeader),
    Payload {
        left: u64,
        closes: bool,
    },
    /// After a close frame, or bytes that are not a frame.
    Done,
}

/// The bytes of a frame header so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct WebSocketFrameHeader {
    bytes: [u8; 14],
    length: usize,
}

impl WebSocketScanner {
    pub(super) fn new() -> Self {
        Self::Header(WebSocketFrameHeader::default())
    }

    pub(super) fn is_at_boundary(&self) -> bool {
        matches!(self, Self::Header(header) if header.length == 0)
    }

    /// Consumes up to `available` bytes of the frame, of which `byte` is the first; returns how many.
    pub(super) fn consume(&mut self, byte: u8, available: usize) -> usize {
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
                    *self = Self::after_payload(*closes);
                }
                taken
            }
            Self::Done => available,
        }
    }

    fn after_payload(closes: bool) -> Self {
        if closes { Self::Done } else { Self::new() }
    }
}

impl WebSocketFrameHeader {
    /// The state after the header, if that was its last byte.
    fn push(&mut self, byte: u8) -> Option<WebSocketScanner> {
        *self.bytes.get_mut(self.length)? = byte;
        self.length += 1;
        let [first, second, rest @ ..] = &self.bytes;
        let extended = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        // A server must not mask (RFC 6455 §5.1), but a masked frame is parsed nevertheless.
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        if self.length < 2 + extended + mask {
            return None;
        }
        let extended_bytes = rest.iter().take(extended);
        let extended_len = extended_bytes.fold(0, |sum: u64, &byte| sum << 8 | u64::from(byte));
        let left = if extended == 0 {
            u64::from(second & 0x7f)
        } else {
            extended_len
        };
        let closes = first & 0x0f == 8;
        Some(match left {
            0 => WebSocketScanner::after_payload(closes),
            _ if left >> 63 != 0 => WebSocketScanner::Done,
            _ => WebSocketScanner::Payload { left, closes },
        })
    }
}
