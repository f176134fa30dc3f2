//! Errors of `h2` as errors of Pingora.

use pingora::{Error, ErrorType, Result};

/// Blames the client: an error on its stream is its own doing, or the end of its connection.
pub(super) fn map_stream_error<T>(kind: ErrorType, result: Result<T, h2::Error>) -> Result<T> {
    result.map_err(|error| Error::because(kind, "on an HTTP/2 stream", error).into_down())
}
