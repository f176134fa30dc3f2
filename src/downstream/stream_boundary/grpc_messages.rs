//! Boundaries between gRPC messages (`Length-Prefixed-Message` of the gRPC over HTTP/2 protocol).

/// The state within a message: a prefix of one byte of flags and four of length, then the message.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct GrpcMessageScanner {
    prefix: [u8; 5],
    /// Bytes of the prefix so far.
    prefix_len: usize,
    /// Bytes of the message that are still to come.
    message_left: u32,
}

impl GrpcMessageScanner {
    pub(super) fn is_at_boundary(self) -> bool {
        self.prefix_len == 0 && self.message_left == 0
    }

    /// Consumes up to `available` bytes of the message, of which `byte` is the first; returns how many.
    pub(super) fn consume(&mut self, byte: u8, available: usize) -> usize {
        if self.message_left > 0 {
            let available = u32::try_from(available).unwrap_or(u32::MAX);
            let taken = self.message_left.min(available);
            self.message_left -= taken;
            return taken as usize;
        }
        if let Some(slot) = self.prefix.get_mut(self.prefix_len) {
            *slot = byte;
        }
        self.prefix_len += 1;
        if self.prefix_len == self.prefix.len() {
            let [_, length @ ..] = self.prefix;
            (self.prefix_len, self.message_left) = (0, u32::from_be_bytes(length));
        }
        1
    }
}
