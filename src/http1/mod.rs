//! HTTP/1 as bytes: heads, the length of bodies, chunks (RFC 9112).
//!
//! Pure and strict: what the RFC lets a recipient repair is refused, since a repaired message may mean something
//! else to the next recipient. A message is accepted or refused whatever pieces it comes in: a complete and valid
//! head is read in a few fast passes, and any other by scanners that stop at the first wrong byte.
//!
//! A head keeps the bytes that came and the places of its parts in them; changes are kept apart, and both are
//! merged when it is written. A usual head costs no allocation.

mod body;
mod byte_class;
mod chunked;
mod connection;
mod edit;
mod framing;
mod head;
mod header;
mod lines;
mod parse;
mod read_lines;
mod refusal;
mod scan;
mod target;
mod write;

pub use self::body::BodyDecoder;
pub use self::chunked::{BodyPart, CHUNK_END, ChunkLimits, write_chunk_head, write_last_chunk};
pub use self::connection::ConnectionOptions;
pub use self::edit::{FieldEditor, FieldEdits, InvalidField};
pub use self::framing::{BodyLength, Framing};
pub use self::head::{RequestHead, ResponseHead};
pub use self::lines::{Field, FieldLines};
pub use self::parse::{HeadLimits, ParseStatus, RequestParser, ResponseContext, ResponseParser};
pub use self::refusal::{MessageKind, Refusal};
pub use self::target::{TargetForm, is_valid_host};
pub use self::write::{write_request, write_response};

#[cfg(test)]
mod tests;
