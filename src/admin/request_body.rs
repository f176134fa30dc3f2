//! Request bodies, bounded in size and time.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_LENGTH, EXPECT};
use pingora::protocols::http::ServerSession;

use super::response::AdminResponse;
use crate::downstream::Exchange;

/// The most bytes of a line that are kept; the rest of a longer line is dropped.
const MAX_LINE: usize = 1 << 20;

/// The time limit for the end of a body that must be empty.
const EMPTY_BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The body of a request, up to a number of bytes.
pub(super) struct BoundedBody<'a> {
    session: &'a mut ServerSession,
    max_bytes: usize,
    read: usize,
}

impl<'a> BoundedBody<'a> {
    /// A body of at most `max_bytes`.
    ///
    /// # Errors
    /// 413: its `Content-Length` is larger.
    pub(super) async fn new(
        session: &'a mut ServerSession,
        max_bytes: usize,
    ) -> Result<Self, AdminResponse> {
        let headers = &session.req_header().headers;
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let length = text(CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
        if length.is_some_and(|length| length > max_bytes as u64) {
            return Err(body_too_long(max_bytes));
        }
        // The client may wait for this before it sends the body (RFC 9110 §10.1.1). If the write fails, the first
        // read fails too.
        if text(EXPECT).is_some_and(|expected| expected.eq_ignore_ascii_case("100-continue")) {
            let _ = session.write_continue_response().await;
        }
        Ok(Self {
            session,
            max_bytes,
            read: 0,
        })
    }

    /// The next chunk; `None` at the end of the body.
    pub(super) async fn next_chunk(&mut self) -> Result<Option<Bytes>, AdminResponse> {
        let chunk = self.session.read_request_body().await;
        let chunk = chunk.map_err(|error| {
            AdminResponse::bad_request(&format!("the body cannot be read: {error}"))
        })?;
        self.read += chunk.as_ref().map_or(0, Bytes::len);
        let digest = self.session.digest();
        let digest = digest.and_then(|digest| digest.proxy_digest.as_deref());
        if let Some(exchange) = digest.and_then(Exchange::from_digest) {
            exchange.on_body_bytes(self.read as u64);
        }
        if self.read > self.max_bytes {
            return Err(body_too_long(self.max_bytes));
        }
        Ok(chunk)
    }

    /// The whole body, if it arrives within `timeout`.
    pub(super) async fn read_all(mut self, timeout: Duration) -> Result<Vec<u8>, AdminResponse> {
        let read = async {
            let mut body = Vec::new();
            while let Some(chunk) = self.next_chunk().await? {
                body.extend_from_slice(&chunk);
            }
            Ok(body)
        };
        let body = tokio::time::timeout(timeout, read).await;
        body.unwrap_or_else(|_| Err(timed_out(timeout)))
    }
}

/// Checks that a request has no body, for a path that takes none: its client may have put the parameters there.
///
/// # Errors
/// 400: the body has at least one byte. 408: it does not end within [`EMPTY_BODY_TIMEOUT`].
pub(super) async fn expect_none(session: &mut ServerSession) -> Result<(), AdminResponse> {
    if session.is_body_empty() {
        return Ok(());
    }
    let unexpected =
        || AdminResponse::bad_request("this path takes no body; parameters belong in the query");
    // In chunks, and over HTTP/2, only the end of the body shows that it is empty.
    let read = async {
        let mut body = BoundedBody::new(session, usize::MAX).await?;
        while let Some(chunk) = body.next_chunk().await? {
            if !chunk.is_empty() {
                return Err(unexpected());
            }
        }
        Ok(())
    };
    let read = tokio::time::timeout(EMPTY_BODY_TIMEOUT, read).await;
    read.unwrap_or_else(|_| Err(timed_out(EMPTY_BODY_TIMEOUT)))
}

fn body_too_long(max_bytes: usize) -> AdminResponse {
    let message =
        format!("the body is longer than {max_bytes} bytes; use the command `clockwise ring`");
    AdminResponse::error(StatusCode::PAYLOAD_TOO_LARGE, &message)
}

/// 408: the body, or the work on it, took too long.
pub(super) fn timed_out(timeout: Duration) -> AdminResponse {
    let message =
        format!("the request took longer than {timeout:?}; use the command `clockwise ring`");
    AdminResponse::error(StatusCode::REQUEST_TIMEOUT, &message)
}

/// Splits chunks of a text into lines; a line may span several chunks.
#[derive(Debug, Default)]
pub(super) struct LineDecoder {
    /// The start of a line that has not ended yet.
    partial: Vec<u8>,
}

impl LineDecoder {
    /// Adds a chunk and calls `on_line` with each line that ends in it, without its line end.
    pub(super) fn push(&mut self, chunk: &[u8], mut on_line: impl FnMut(&[u8])) {
        for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
            let free = MAX_LINE.saturating_sub(self.partial.len());
            if let Some(end) = piece.strip_suffix(b"\n") {
                self.partial.extend(end.iter().take(free));
                on_line(strip_cr(&self.partial));
                self.partial.clear();
            } else {
                self.partial.extend(piece.iter().take(free));
            }
        }
    }

    /// Calls `on_line` with the last line, if it has no line end.
    pub(super) fn finish(self, on_line: impl FnOnce(&[u8])) {
        if !self.partial.is_empty() {
            on_line(&self.partial);
        }
    }
}

fn strip_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_decoder_gives_the_same_lines_for_any_chunking() {
        let text = b"a\nbc\r\n\nlast";
        for size in 1..=text.len() {
            let (mut lines, mut found) = (LineDecoder::default(), Vec::new());
            for chunk in text.chunks(size) {
                lines.push(chunk, |line| found.push(line.to_vec()));
            }
            lines.finish(|line| found.push(line.to_vec()));
            assert_eq!(
                found,
                ["a", "bc", "", "last"].map(Vec::from),
                "chunks of {size}"
            );
        }
        LineDecoder::default().finish(|_| panic!("an empty text has no line"));
    }

    #[test]
    fn line_decoder_buffer_is_bounded_for_a_line_without_end() {
        let mut lines = LineDecoder::default();
        (0..3).for_each(|_| lines.push(&vec![b'x'; MAX_LINE], |_| panic!("the line has no end")));
        assert_eq!(lines.partial.len(), MAX_LINE);
        lines.push(b"y\nz\n", |line| {
            assert!(line.len() == MAX_LINE || line == b"z");
        });
    }
}
