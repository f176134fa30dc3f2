//! Messages of a gRPC stream.

/// Messages of gRPC: each behind a byte of flags and its length in four (`Length-Prefixed-Message`, in
/// the protocol's description).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct GrpcMessageScanner {
    prefix: [u8; 5],
    /// How much of the prefix is there.
    prefix_len: usize,
    /// Of the message behind it; bytes.
    message_left: u32,
}

impl GrpcMessageScanner {
    pub(super) fn is_at_boundary(self) -> bool {
        self.prefix_len == 0 && self.message_left == 0
    }

    pub(super) fn step(&mut self, byte: u8, available: usize) -> usize {
        if self.message_left > 0 {
            let available = u32::try_from(available).unwrap_or(u32::MAX);
            let taken = self.message_left.min(available);
            self.message_left -= taken;
            return taken as usize;
        }
        if let Some(place) = self.prefix.get_mut(self.prefix_len) {
            *place = byte;
        }
        self.prefix_len += 1;
        if self.prefix_len == self.prefix.len() {
            let [_, length @ ..] = self.prefix;
            (self.prefix_len, self.message_left) = (0, u32::from_be_bytes(length));
        }
        1
    }
}
