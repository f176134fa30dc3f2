//! Sends a request body to the peer, concurrently with the response.
//!
//! For a custom protocol, Pingora 0.9.1 polls a reader of messages other than request and response. HTTP has no such
//! messages: the reader that Pingora gets here yields none and sends the body while it is polled. It ends when the
//! whole body is sent, and Pingora does not end the exchange before.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;
use h2::{Reason, SendStream};
use parking_lot::Mutex;
use pingora::protocols::http::custom::BodyWrite;
use pingora::protocols::http::v2::write_body;
use pingora::{Error, ErrorType, Result};
use tokio::sync::oneshot;

use super::body_queue::BodySource;

/// The body writer of Pingora's loop: it queues every chunk. A write never fails, because Pingora would not read the
/// response then, which says why the peer takes no more.
pub(super) struct BodyQueueWriter(pub(super) Arc<dyn BodySource>);

#[async_trait]
impl BodyWrite for BodyQueueWriter {
    async fn write_all_buf(&mut self, data: &mut Bytes) -> Result<()> {
        let queue = self.0.body_queue();
        queue.push(data.split_to(data.len()));
        if !self.0.reader_waits() {
            // The sender is polled meanwhile.
            poll_fn(|cx| queue.poll_capacity(cx)).await;
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<()> {
        self.0.body_queue().end();
        Ok(())
    }

    async fn cleanup(&mut self) -> Result<()> {
        Ok(())
    }

    fn upgrade_body_writer(&mut self) {
        // HTTP/2 has no upgrades (RFC 9113 §8.6).
    }
}

/// The sending of one body. The lock is never contended: Pingora requires [`Sync`].
pub(super) struct BodySender(Mutex<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl BodySender {
    /// Sends the body to `peer`, each chunk within `limit`. If a chunk takes longer or the request is
    /// aborted, the error goes to the reader of the response: nothing else can fail the exchange.
    pub(super) fn new(
        source: Arc<dyn BodySource>,
        peer: SendStream<Bytes>,
        limit: Option<Duration>,
    ) -> (Self, oneshot::Receiver<Box<Error>>) {
        let (failure, failed) = oneshot::channel();
        let sending = send_body(source, peer, limit, failure);
        (Self(Mutex::new(Box::pin(sending))), failed)
    }

    /// A sender of no body.
    pub(super) fn empty() -> Self {
        Self(Mutex::new(Box::pin(std::future::ready(()))))
    }
}

impl Stream for BodySender {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        ready!(self.0.get_mut().as_mut().poll(cx));
        Poll::Ready(None)
    }
}

async fn send_body(
    source: Arc<dyn BodySource>,
    mut peer: SendStream<Bytes>,
    limit: Option<Duration>,
    failure: oneshot::Sender<Box<Error>>,
) {
    let queue = source.body_queue();
    let failed = loop {
        let Some((chunk, last)) = poll_fn(|cx| queue.poll_next(cx)).await else {
            // The request's context has the fault, and so the status.
            break Error::explain(ErrorType::InternalError, "the request was rejected");
        };
        match write_body(&mut peer, chunk, last, limit).await {
            Ok(()) if last => return,
            Ok(()) => {}
            Err(error) if *error.etype() == ErrorType::WriteTimedout => break error,
            // The response says why the stream has ended.
            Err(_) => return queue.stop_sending(),
        }
    };
    peer.send_reset(Reason::CANCEL);
    // The receiver is gone if the response is already complete.
    let _ = failure.send(failed);
    queue.stop_sending();
}
