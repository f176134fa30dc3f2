//! Converts errors of `h2` to errors of Pingora.

use h2::Reason;
use pingora::ErrorType::InvalidH2;
use pingora::{Error, ErrorType, Result};

/// Wraps an error of `h2` as Pingora's downstream error: the client caused it, or its connection ended.
pub(super) fn map_stream_error<T>(kind: ErrorType, result: Result<T, h2::Error>) -> Result<T> {
    result.map_err(|error| {
        let kind = if is_reset_as_malformed(&error) {
            InvalidH2
        } else {
            kind
        };
        Error::because(kind, "on an HTTP/2 stream", error).into_down()
    })
}

/// The error of a request that is malformed (RFC 9113 §8.1.1).
pub(super) fn malformed<T>() -> Result<T> {
    Err(Error::new_down(InvalidH2))
}

/// Whether it is the error of a malformed request.
pub(super) fn is_malformed(error: &Error) -> bool {
    *error.etype() == InvalidH2
}

/// Whether `h2` has reset the stream because its request is malformed: for example, the body has another length than
/// `content-length`.
fn is_reset_as_malformed(error: &h2::Error) -> bool {
    error.is_library() && error.is_reset() && error.reason() == Some(Reason::PROTOCOL_ERROR)
}
