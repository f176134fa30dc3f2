//! A question's body: in bounded size and time.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_LENGTH, EXPECT};
use pingora_core::protocols::http::ServerSession;

use super::Answer;

/// A longer line is cut off here.
const MAX_LINE: usize = 1 << 20;

/// The body of a request.
pub(super) struct Body<'a> {
    session: &'a mut ServerSession,
    most: usize,
    read: usize,
}

impl<'a> Body<'a> {
    /// A body that must come to its end within so many bytes.
    ///
    /// # Errors
    /// It says that it is longer.
    pub(super) async fn begin(session: &'a mut ServerSession, most: usize) -> Result<Self, Answer> {
        let headers = &session.req_header().headers;
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let length = text(CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
        if length.is_some_and(|length| length > most as u64) {
            return Err(too_long(most));
        }
        // Who asks first waits for it (RFC 9110, 10.1.1); if it cannot be told, nothing will be read.
        if text(EXPECT).is_some_and(|expected| expected.eq_ignore_ascii_case("100-continue")) {
            let _ = session.write_continue_response().await;
        }
        Ok(Self {
            session,
            most,
            read: 0,
        })
    }

    /// The next part of it; `None` after the last.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Answer> {
        let part = self.session.read_request_body().await;
        let part = part.map_err(|error| {
            let why = format!("the body cannot be read: {error}");
            Answer::problem(StatusCode::BAD_REQUEST, &why)
        })?;
        self.read += part.as_ref().map_or(0, Bytes::len);
        if self.read > self.most {
            return Err(too_long(self.most));
        }
        Ok(part)
    }

    /// All of it, if that comes in time.
    pub(super) async fn whole(mut self, time: Duration) -> Result<Vec<u8>, Answer> {
        let read = async {
            let mut whole = Vec::new();
            while let Some(part) = self.next().await? {
                whole.extend_from_slice(&part);
            }
            Ok(whole)
        };
        let whole = tokio::time::timeout(time, read).await;
        whole.unwrap_or_else(|_| Err(too_slow(time)))
    }
}

/// The answer where there is more than may be.
fn too_long(most: usize) -> Answer {
    let why = format!("the body is longer than {most} bytes; use `clockwise ring`");
    Answer::problem(StatusCode::PAYLOAD_TOO_LARGE, &why)
}

/// The answer where it takes longer than it may.
pub(super) fn too_slow(time: Duration) -> Answer {
    let why = format!("it took longer than {time:?}; use `clockwise ring`");
    Answer::problem(StatusCode::REQUEST_TIMEOUT, &why)
}

/// Lines that come in parts, wherever those are cut.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// The last line, as far as it has come.
    rest: Vec<u8>,
}

impl Lines {
    /// One more part; each line that ends in it, without its end.
    pub(super) fn add(&mut self, part: &[u8], mut each: impl FnMut(&[u8])) {
        for piece in part.split_inclusive(|byte| *byte == b'\n') {
            let room = MAX_LINE.saturating_sub(self.rest.len());
            if let Some(end) = piece.strip_suffix(b"\n") {
                self.rest.extend(end.iter().take(room));
                each(without_return(&self.rest));
                self.rest.clear();
            } else {
                self.rest.extend(piece.iter().take(room));
            }
        }
    }

    /// The last line, where it has no end.
    pub(super) fn end(self, each: impl FnOnce(&[u8])) {
        if !self.rest.is_empty() {
            each(&self.rest);
        }
    }
}

fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_the_same_wherever_they_are_cut() {
        let text = b"a\nbc\r\n\nlast";
        for size in 1..=text.len() {
            let (mut lines, mut found) = (Lines::default(), Vec::new());
            for part in text.chunks(size) {
                lines.add(part, |line| found.push(line.to_vec()));
            }
            lines.end(|line| found.push(line.to_vec()));
            assert_eq!(
                found,
                ["a", "bc", "", "last"].map(Vec::from),
                "parts of {size}"
            );
        }
        Lines::default().end(|_| panic!("there is no line"));
    }

    #[test]
    fn a_line_without_end_takes_no_more_memory() {
        let mut lines = Lines::default();
        (0..3).for_each(|_| lines.add(&vec![b'x'; MAX_LINE], |_| panic!("no end")));
        assert_eq!(lines.rest.len(), MAX_LINE);
        lines.add(b"y\nz\n", |line| {
            assert!(line.len() == MAX_LINE || line == b"z");
        });
    }
}
