//! Reads and writes messages of HTTP/1: heads, the length of bodies, chunks (RFC 9112).
//!
//! Pure: no I/O. Strict: a malformed message is refused even if the RFC lets a recipient repair it, because the next
//! recipient may read the repaired message differently. Whether a message is accepted does not depend on the pieces in
//! which it arrives. A complete and valid head is read in a few fast passes; any other head is read by scanners that
//! stop at the first wrong byte.
//!
//! A head keeps the received bytes, and the ranges of its parts in them. Changes are kept apart, and are merged when
//! the head is written. A usual head needs no allocation.

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
mod trailers;
mod upgrade;
mod write;

pub use self::body::BodyDecoder;
pub use self::chunked::{BodyPart, CHUNK_END, ChunkLimits, write_chunk_head, write_last_chunk};
pub use self::connection::ConnectionOptions;
pub(crate) use self::connection::listed_fields;
pub use self::edit::{FieldEditor, FieldEdits, InvalidField};
pub(crate) use self::framing::normalize_response;
pub use self::framing::{BodyLength, Framing};
pub use self::head::{RequestHead, ResponseHead};
pub use self::lines::{Field, FieldLines};
pub use self::parse::{HeadLimits, ParseStatus, RequestParser, ResponseContext, ResponseParser};
pub use self::refusal::{MessageKind, Refusal};
pub use self::target::{TargetForm, is_valid_host, is_valid_target};
pub(crate) use self::trailers::{accepts_trailers, is_trailer, trailer_fields};
pub(crate) use self::upgrade::{WEBSOCKET, asks_for_upgrade, names_websocket};
pub(crate) use self::write::write_status_line;
pub use self::write::{write_request, write_response};

#[cfg(test)]
mod tests;
