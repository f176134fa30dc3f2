//! The body of an HTTP/2 request.

use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use pingora::ErrorType::ReadError;
use pingora::Result;

use super::super::super::pingora_session::read_within;
use super::error::{malformed, map_stream_error};
use crate::header::names_with_outer_blanks;

/// A request's body, read chunk by chunk.
pub(super) struct Http2RequestBody {
    /// `None`: the rest was taken.
    stream: Option<RecvStream>,
    /// The body was read to its end, including trailers.
    pub(super) complete: bool,
}

impl Http2RequestBody {
    pub(super) fn new(stream: RecvStream) -> Self {
        Self {
            complete: stream.is_end_stream(),
            stream: Some(stream),
        }
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
            // Pingora 0.9.1 does not forward a request's trailers; a sender must not depend on them
            // (RFC 9110 §6.5.1).
            let trailers = map_stream_error(ReadError, stream.trailers().await)?;
            // RFC 9113 §8.2.1. `h2` drops pseudo-fields of trailers, which are malformed too: `pingora_compat/README.md`,
            // request 8.
            if trailers.is_some_and(|trailers| !names_with_outer_blanks(&trailers).is_empty()) {
                return malformed();
            }
            self.complete = true;
            return Ok(None);
        };
        let data = map_stream_error(ReadError, data)?;
        // Fails if the stream has ended; then the window does not matter.
        let _ = stream.flow_control().release_capacity(data.len());
        self.complete = stream.is_end_stream();
        Ok(Some(data))
    }

    /// Takes the rest; `None`: the body is complete.
    pub(super) fn take_rest(&mut self) -> Option<RecvStream> {
        self.stream.take().filter(|_| !self.complete)
    }
}
