//! Finds the data and the end of a body in the bytes of a connection.

use bytes::BytesMut;

use super::chunked::{BodyPart, ChunkLimits, ChunkedDecoder};
use super::framing::BodyLength;
use super::refusal::Refusal;

/// Finds the data of one body and its end, without copies.
#[derive(Debug)]
pub struct BodyDecoder(Kind);

#[derive(Debug)]
enum Kind {
    /// The bytes left.
    Exact(u64),
    Chunked(ChunkedDecoder),
    UntilClose,
}

impl BodyDecoder {
    /// A decoder at the beginning of a body.
    pub fn new(length: BodyLength, limits: ChunkLimits) -> Self {
        Self(match length {
            BodyLength::Empty => Kind::Exact(0),
            BodyLength::Exact(length) => Kind::Exact(length),
            BodyLength::Chunked => Kind::Chunked(ChunkedDecoder::new(limits)),
            BodyLength::UntilClose | BodyLength::Tunnel => Kind::UntilClose,
        })
    }

    /// Finds the next part of `input`, which begins after the bytes that were processed.
    pub fn decode(&mut self, input: &[u8]) -> Result<BodyPart, Refusal> {
        match &mut self.0 {
            Kind::Exact(0) => Ok(BodyPart::End { trailers: 0..0 }),
            Kind::Chunked(decoder) => decoder.decode(input),
            _ if input.is_empty() => Ok(BodyPart::NeedMore { done: 0 }),
            Kind::UntilClose => Ok(BodyPart::Data(0..input.len())),
            Kind::Exact(left) => {
                let length = usize::try_from(*left).map_or(input.len(), |it| it.min(input.len()));
                *left -= length as u64;
                Ok(BodyPart::Data(0..length))
            }
        }
    }

    /// Drops the part of the body that is in `input`; returns whether that was the rest of it, with the trailers. Not to be
    /// called after that.
    pub fn discard(&mut self, input: &mut BytesMut) -> Result<bool, Refusal> {
        loop {
            match self.decode(input)? {
                BodyPart::Data(range) => drop(input.split_to(range.end)),
                BodyPart::NeedMore { done } => {
                    drop(input.split_to(done));
                    return Ok(false);
                }
                BodyPart::End { trailers } => {
                    drop(input.split_to(trailers.end));
                    return Ok(true);
                }
            }
        }
    }

    /// Whether the body may end here because its sender closes the connection. Otherwise it is incomplete
    /// (RFC 9112 §8).
    pub fn may_end_at_close(&self) -> bool {
        matches!(self.0, Kind::UntilClose | Kind::Exact(0))
    }
}
