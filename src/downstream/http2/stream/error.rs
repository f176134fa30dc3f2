//! Converts errors of `h2` to errors of Pingora.

use pingora::{Error, ErrorType, Result};

/// Wraps an error of `h2` as Pingora's downstream error: the client caused it, or its connection ended.
pub(super) fn map_stream_error<T>(kind: ErrorType, result: Result<T, h2::Error>) -> Result<T> {
    result.map_err(|error| Error::because(kind, "on an HTTP/2 stream", error).into_down())
}
