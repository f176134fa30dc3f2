//! The buffer in which a key is composed.

use std::fmt::{self, Write};
use std::net::IpAddr;

/// Holds a key that is not a slice of the request; reusable for the next request.
#[derive(Clone, Debug)]
pub(crate) struct KeyBuffer {
    inline: [u8; Self::INLINE],
    length: usize,
    /// The whole key if it does not fit into `inline`, else empty.
    heap: Vec<u8>,
}

impl KeyBuffer {
    /// Bytes that need no allocation: enough for every address and most composite keys.
    pub(crate) const INLINE: usize = 128;

    pub(super) fn clear(&mut self) {
        self.length = 0;
        self.heap.clear();
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        let end = self.length + bytes.len();
        match self.inline.get_mut(self.length..end) {
            Some(free) if self.heap.is_empty() => {
                free.copy_from_slice(bytes);
                self.length = end;
            }
            _ => self.push_to_heap(bytes),
        }
    }

    pub(super) fn push_octets(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.push(&address.octets()),
            IpAddr::V6(address) => self.push(&address.octets()),
        }
    }

    pub(super) fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
        self.heap.truncate(length);
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        if self.heap.is_empty() {
            self.inline.get(..self.length).unwrap_or_default()
        } else {
            &self.heap
        }
    }

    fn push_to_heap(&mut self, bytes: &[u8]) {
        if self.heap.is_empty() {
            self.heap.extend(self.inline.iter().take(self.length));
        }
        self.heap.extend(bytes);
    }
}

impl Default for KeyBuffer {
    fn default() -> Self {
        Self {
            inline: [0; Self::INLINE],
            length: 0,
            heap: Vec::new(),
        }
    }
}

impl Write for KeyBuffer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn key_buffer_holds_all_pushed_bytes(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 0..6),
        ) {
            let mut buffer = KeyBuffer::default();
            for _ in 0..2 {
                buffer.clear();
                for chunk in &chunks {
                    buffer.push(chunk);
                }
                prop_assert_eq!(buffer.as_bytes(), chunks.concat());
            }
        }
    }
}
