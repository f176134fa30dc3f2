//! The body of an HTTP/2 request.

use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, EXPECT};
use pingora::ErrorType::ReadError;
use pingora::Result;

use super::super::super::pingora_session::read_within;
use super::error::{malformed, map_stream_error};
use crate::header::{HeaderEdit as _, names_with_outer_blanks};
use crate::http1::is_trailer;

/// A request's body, read chunk by chunk.
pub(super) struct Http2RequestBody {
    /// `None`: the rest was taken.
    stream: Option<RecvStream>,
    /// The body was read to its end, including trailers.
    pub(super) complete: bool,
    /// The rest was read without Pingora, and dropped.
    pub(super) is_dropped: bool,
    /// The `Content-Length` of the request; bytes.
    declared_length: Option<usize>,
    /// The client may wait for `100 Continue` before it sends the body.
    expects_continue: bool,
    /// Bytes so far.
    bytes_read: usize,
    /// The trailers, until they are taken.
    trailers: Option<HeaderMap>,
}

impl Http2RequestBody {
    pub(super) fn new(stream: RecvStream, request: &HeaderMap) -> Self {
        let length = request.get(CONTENT_LENGTH);
        Self {
            complete: stream.is_end_stream(),
            stream: Some(stream),
            is_dropped: false,
            declared_length: length.and_then(|length| length.to_str().ok()?.parse().ok()),
            expects_continue: request.contains_key(EXPECT),
            bytes_read: 0,
            trailers: None,
        }
    }

    /// Whether the header says that no body follows, though the stream may not have ended yet.
    pub(super) fn declares_none(&self) -> bool {
        self.declared_length == Some(0)
    }

    /// The bytes that the client has yet to send; `None`: unknown, or it waits for `100 Continue`.
    pub(super) fn rest_length(&self) -> Option<usize> {
        let is_sending = self.bytes_read > 0 || !self.expects_continue;
        let length = self.declared_length.filter(|_| is_sending)?;
        length.checked_sub(self.bytes_read)
    }

    /// Takes the trailers, once they were read, without those that none may have (RFC 9110 §6.5.1).
    pub(super) fn take_trailers(&mut self) -> Option<HeaderMap> {
        let mut trailers = self.trailers.take()?;
        trailers.remove_where(|name| !is_trailer(name));
        Some(trailers)
    }

    /// Reads the next chunk; `None` at the end.
    pub(super) async fn read_with_timeout(
        &mut self,
        limit: Option<Duration>,
    ) -> Result<Option<Bytes>> {
        if self.complete {
            return Ok(None);
        }
        read_within(limit, self.read_chunk()).await
    }

    async fn read_chunk(&mut self) -> Result<Option<Bytes>> {
        let Some(stream) = &mut self.stream else {
            return Ok(None);
        };
        let Some(data) = stream.data().await else {
            let trailers = map_stream_error(ReadError, stream.trailers().await)?;
            // RFC 9113 §8.2.1. `h2` drops pseudo-fields of trailers, which are malformed too: `pingora_compat/README.md`,
            // request 8.
            let has_blanks = |trailers: &HeaderMap| !names_with_outer_blanks(trailers).is_empty();
            if trailers.as_ref().is_some_and(has_blanks) {
                return malformed();
            }
            self.trailers = trailers;
            self.complete = true;
            return Ok(None);
        };
        let data = map_stream_error(ReadError, data)?;
        // Fails if the stream has ended; then the window does not matter.
        let _ = stream.flow_control().release_capacity(data.len());
        self.complete = stream.is_end_stream();
        self.bytes_read += data.len();
        Ok(Some(data))
    }

    /// Takes the rest; `None`: the body is complete.
    pub(super) fn take_rest(&mut self) -> Option<RecvStream> {
        self.stream.take().filter(|_| !self.complete)
    }
}
