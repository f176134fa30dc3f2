//! Detects HTTP/2 on a connection without TLS by the client's first bytes (RFC 9113 §3.3, §3.4).
//!
//! The first byte that differs from the preface means HTTP/1: waiting for all 24 bytes would block on a shorter
//! HTTP/1 request. The session reads the bytes again.

use std::io;

use tokio::io::AsyncReadExt;

use super::io::DownstreamIo;

/// The first bytes of an HTTP/2 client.
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Whether the client speaks HTTP/2; false if it closes the connection before that is known.
pub(super) async fn is_http2(io: &mut DownstreamIo) -> io::Result<bool> {
    let mut start = [0; PREFACE.len()];
    let mut length = 0;
    while let Some(rest) = start.get_mut(length..).filter(|rest| !rest.is_empty()) {
        let count = io.read(rest).await?;
        let read = start.get(..length + count).unwrap_or_default();
        if count == 0 || !PREFACE.starts_with(read) {
            io.unread(read);
            return Ok(false);
        }
        length += count;
    }
    io.unread(&start);
    Ok(true)
}
