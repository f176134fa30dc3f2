//! A question's body: in bounded size and time.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_LENGTH, EXPECT};
use pingora::protocols::http::ServerSession;

use super::AdminResponse;

/// A longer line is cut off here.
const MAX_LINE: usize = 1 << 20;

/// The body of a request.
pub(super) struct BoundedBody<'a> {
    session: &'a mut ServerSession,
    max_bytes: usize,
    read: usize,
}

impl<'a> BoundedBody<'a> {
    /// A body that must come to its end within so many bytes.
    ///
    /// # Errors
    /// It says that it is longer.
    pub(super) async fn new(
        session: &'a mut ServerSession,
        most: usize,
    ) -> Result<Self, AdminResponse> {
        let headers = &session.req_header().headers;
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let length = text(CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
        if length.is_some_and(|length| length > most as u64) {
            return Err(body_too_long(most));
        }
        // Who asks first waits for it (RFC 9110, 10.1.1); if it cannot be told, nothing will be read.
        if text(EXPECT).is_some_and(|expected| expected.eq_ignore_ascii_case("100-continue")) {
            let _ = session.write_continue_response().await;
        }
        Ok(Self {
            session,
            max_bytes: most,
            read: 0,
        })
    }

    /// The next part of it; `None` after the last.
    pub(super) async fn next_chunk(&mut self) -> Result<Option<Bytes>, AdminResponse> {
        let part = self.session.read_request_body().await;
        let part = part.map_err(|error| {
            let why = format!("the body cannot be read: {error}");
            AdminResponse::error(StatusCode::BAD_REQUEST, &why)
        })?;
        self.read += part.as_ref().map_or(0, Bytes::len);
        if self.read > self.max_bytes {
            return Err(body_too_long(self.max_bytes));
        }
        Ok(part)
    }

    /// All of it, if that comes in time.
    pub(super) async fn read_all(mut self, time: Duration) -> Result<Vec<u8>, AdminResponse> {
        let read = async {
            let mut whole = Vec::new();
            while let Some(part) = self.next_chunk().await? {
                whole.extend_from_slice(&part);
            }
            Ok(whole)
        };
        let whole = tokio::time::timeout(time, read).await;
        whole.unwrap_or_else(|_| Err(timed_out(time)))
    }
}

/// The answer where there is more than may be.
fn body_too_long(most: usize) -> AdminResponse {
    let why = format!("the body is longer than {most} bytes; use `clockwise ring`");
    AdminResponse::error(StatusCode::PAYLOAD_TOO_LARGE, &why)
}

/// The answer where it takes longer than it may.
pub(super) fn timed_out(time: Duration) -> AdminResponse {
    let why = format!("it took longer than {time:?}; use `clockwise ring`");
    AdminResponse::error(StatusCode::REQUEST_TIMEOUT, &why)
}

/// Lines that come in parts, wherever those are cut.
#[derive(Debug, Default)]
pub(super) struct LineDecoder {
    /// The last line, as far as it has come.
    partial: Vec<u8>,
}

impl LineDecoder {
    /// One more part; each line that ends in it, without its end.
    pub(super) fn push(&mut self, part: &[u8], mut each: impl FnMut(&[u8])) {
        for piece in part.split_inclusive(|byte| *byte == b'\n') {
            let room = MAX_LINE.saturating_sub(self.partial.len());
            if let Some(end) = piece.strip_suffix(b"\n") {
                self.partial.extend(end.iter().take(room));
                each(strip_cr(&self.partial));
                self.partial.clear();
            } else {
                self.partial.extend(piece.iter().take(room));
            }
        }
    }

    /// The last line, where it has no end.
    pub(super) fn finish(self, each: impl FnOnce(&[u8])) {
        if !self.partial.is_empty() {
            each(&self.partial);
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
    fn line_splitter_gives_the_same_lines_for_any_chunking() {
        let text = b"a\nbc\r\n\nlast";
        for size in 1..=text.len() {
            let (mut lines, mut found) = (LineDecoder::default(), Vec::new());
            for part in text.chunks(size) {
                lines.push(part, |line| found.push(line.to_vec()));
            }
            lines.finish(|line| found.push(line.to_vec()));
            assert_eq!(
                found,
                ["a", "bc", "", "last"].map(Vec::from),
                "parts of {size}"
            );
        }
        LineDecoder::default().finish(|_| panic!("there is no line"));
    }

    #[test]
    fn line_splitter_buffer_is_bounded_for_a_line_without_end() {
        let mut lines = LineDecoder::default();
        (0..3).for_each(|_| lines.push(&vec![b'x'; MAX_LINE], |_| panic!("no end")));
        assert_eq!(lines.partial.len(), MAX_LINE);
        lines.push(b"y\nz\n", |line| {
            assert!(line.len() == MAX_LINE || line == b"z");
        });
    }
}
