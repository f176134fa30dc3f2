//! The target of a request that Pingora's header cannot hold.

use bytes::Bytes;
use pingora::http::RequestHeader;

/// The target as the client sent it; an extension of a header that has another one in its place.
#[derive(Clone, Debug)]
pub(crate) struct ReceivedTarget(Bytes);

impl ReceivedTarget {
    /// This target.
    pub(super) fn new(target: impl Into<Bytes>) -> Self {
        Self(target.into())
    }

    /// The target of the request as the client sent it.
    pub(crate) fn of(request: &RequestHeader) -> &[u8] {
        match request.extensions.get::<Self>() {
            Some(received) => &received.0,
            None => request.raw_path(),
        }
    }
}
