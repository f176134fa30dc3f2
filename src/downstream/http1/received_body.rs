//! The body of a request on the client's connection: where it ends, and whether its rest is worth reading.

use bytes::BytesMut;

use crate::http1::{BodyDecoder, BodyLength, BodyPart, ChunkLimits, Refusal};

/// The longest body that is read and dropped after a response of our own, to keep the connection; bytes.
const MAX_DRAINED: u64 = 256 * 1024;

/// How far the body of a request was read.
#[derive(Debug)]
pub(crate) struct ReceivedBody {
    decoder: BodyDecoder,
    /// The whole length, if it is known; bytes.
    length: Option<u64>,
    expects_continue: bool,
    is_complete: bool,
}

impl Default for ReceivedBody {
    /// No body.
    fn default() -> Self {
        Self::new(BodyLength::Empty, false)
    }
}

impl ReceivedBody {
    /// A body of which nothing was read. `expects_continue`: the client waits for 100 before it sends the body.
    pub(crate) fn new(length: BodyLength, expects_continue: bool) -> Self {
        Self {
            decoder: BodyDecoder::new(length, ChunkLimits::DEFAULT),
            length: length.known(),
            expects_continue,
            is_complete: length == BodyLength::Empty,
        }
    }

    /// Whether it was read to its end.
    pub(crate) fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Finds the next part of the body in `input`. After its end the caller checks the trailers, and
    /// [completes](Self::complete) the body.
    ///
    /// # Errors
    /// The chunks are malformed.
    pub(crate) fn decode(&mut self, input: &[u8]) -> Result<BodyPart, Refusal> {
        self.decoder.decode(input)
    }

    /// Notes that the end was found.
    pub(crate) fn complete(&mut self) {
        self.is_complete = true;
    }

    /// Drops the part of the rest that has arrived; returns whether that was all of it.
    pub(super) fn discard(&mut self, input: &mut BytesMut) -> bool {
        self.is_complete = self.is_complete || self.decoder.discard(input).unwrap_or(false);
        self.is_complete
    }

    /// Whether the whole body is short enough to be read and dropped.
    pub(super) fn is_short(&self) -> bool {
        self.length.is_some_and(|length| length <= MAX_DRAINED)
    }

    /// Whether the client waits for 100 before it sends the body.
    pub(super) fn expects_continue(&self) -> bool {
        self.expects_continue
    }
}
