//! The memory of one request, which a thread keeps for the next one: a connection that waits for a request has none of it.

use std::cell::RefCell;

use bytes::BytesMut;

use super::download::Download;
use crate::downstream::Http1Client;
use crate::http1::FieldEdits;

/// The most buffers that a thread keeps.
const MAX_SPARE: usize = 64;

/// The largest buffers that are kept; bytes.
const MAX_SPARE_SIZE: usize = 16 * 1024;

thread_local! {
    #[expect(clippy::vec_box, reason = "a request takes a pointer in place of several hundred bytes")]
    static SPARE: RefCell<Vec<Box<RequestBuffers>>> = const { RefCell::new(Vec::new()) };
}

/// The buffers of one request.
#[derive(Debug, Default)]
pub(super) struct RequestBuffers {
    pub(super) edits: FieldEdits,
    /// The response that is relayed.
    pub(super) download: Download,
    /// The request as it is sent to the peer.
    pub(super) out: Vec<u8>,
}

impl RequestBuffers {
    /// Empty buffers.
    pub(super) fn take() -> Box<Self> {
        SPARE.with_borrow_mut(Vec::pop).unwrap_or_default()
    }

    /// Keeps the buffers for another request.
    pub(super) fn give_back(mut self: Box<Self>) {
        self.download.reset();
        let size = self.edits.capacity() + self.download.capacity() + self.out.capacity();
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < MAX_SPARE && size <= MAX_SPARE_SIZE {
                spare.push(self);
            }
        });
    }

    /// Returns the bytes that were read after the headers: those of the client, and those of the peer. Frees all other
    /// memory, because a tunnel may last for hours.
    pub(super) fn take_for_tunnel(&mut self, client: &mut Http1Client) -> (BytesMut, BytesMut) {
        let from_client = std::mem::take(&mut client.input);
        client.head.clear();
        let from_peer = self.download.take_unused();
        *self = Self::default();
        (from_client, from_peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_kept_for_the_next_request_unless_they_are_large() {
        for (size, is_kept) in [(100, true), (MAX_SPARE_SIZE + 1, false)] {
            let mut buffers = RequestBuffers::take();
            buffers.out = Vec::with_capacity(size);
            buffers.give_back();
            assert_eq!(RequestBuffers::take().out.capacity() == size, is_kept);
        }
    }
}
