//! Tells HTTP/2 from HTTP/1 on a connection without TLS, by its first bytes (RFC 9113, 3.3 and 3.4).
//!
//! Decided at the first byte that is not the preface's: a whole request of HTTP/1 may be shorter than
//! the preface. What was read is read again by whoever serves the connection.

use std::io;

use tokio::io::AsyncReadExt;

use super::io::DownstreamIo;

/// What a client of HTTP/2 begins with.
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Whether the client speaks HTTP/2. One that leaves before that is known speaks HTTP/1.
pub(super) async fn is_http2(stream: &mut DownstreamIo) -> io::Result<bool> {
    let mut start = [0; PREFACE.len()];
    let mut length = 0;
    while let Some(room) = start.get_mut(length..).filter(|room| !room.is_empty()) {
        let count = stream.read(room).await?;
        let read = start.get(..length + count).unwrap_or_default();
        if count == 0 || !PREFACE.starts_with(read) {
            stream.unread(read);
            return Ok(false);
        }
        length += count;
    }
    stream.unread(&start);
    Ok(true)
}
