//! "Custom messages", which Pingora's custom sessions have besides request and response, and HTTP has not.
//!
//! Pingora 0.9.1 requires a reader and a writer for them if both ends are custom sessions. It gets empty ones.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use pingora::Result;

/// An empty stream of custom messages.
pub(super) struct NoCustomMessages;

impl Stream for NoCustomMessages {
    type Item = Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(None)
    }
}
