//! Sends a request body to the peer, concurrently with the response.
//!
//! For a custom protocol, Pingora 0.9.1 polls a reader of messages other than request and response. HTTP has no such
//! messages: the reader that Pingora gets here yields none and sends the body while it is polled. It ends when the
//! whole body is sent, and Pingora does not end the exchange before.

use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;
use parking_lot::Mutex;
use pingora::protocols::http::custom::BodyWrite;
use pingora::{Error, Result};
use tokio::sync::oneshot;

use super::body_queue::BodySource;

/// The body writer of Pingora's loop: it queues every chunk. A write never fails, because Pingora would not read the
/// response then, which says why the peer takes no more.
pub(crate) struct BodyQueueWriter(pub(crate) Arc<dyn BodySource>);

#[async_trait]
impl BodyWrite for BodyQueueWriter {
    async fn write_all_buf(&mut self, data: &mut Bytes) -> Result<()> {
        // Whether there is room was asked before the chunk was read.
        self.0.body_queue().push(data.split_to(data.len()));
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
        // Tunnels do not use the queue.
    }
}

/// A body, and what its sender must know.
pub(crate) struct BodyToSend {
    pub(crate) source: Arc<dyn BodySource>,
    /// The longest time in which the peer may accept nothing.
    pub(crate) limit: Option<Duration>,
    /// Gets the error if the body cannot be sent.
    pub(crate) failure: oneshot::Sender<Box<Error>>,
}

/// The sending of one body. The lock is never contended: Pingora requires [`Sync`].
pub(crate) struct BodySender(Mutex<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl BodySender {
    /// Sends the body by polling `sending`.
    pub(crate) fn new(sending: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(Mutex::new(Box::pin(sending)))
    }

    /// A sender of no body.
    pub(crate) fn empty() -> Self {
        Self::new(std::future::ready(()))
    }
}

impl Stream for BodySender {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        ready!(self.0.get_mut().as_mut().poll(cx));
        Poll::Ready(None)
    }
}

/// The error of a sender, for the reader of the response: nothing else can fail the exchange.
#[derive(Debug, Default)]
pub(crate) struct BodyFailure(Option<oneshot::Receiver<Box<Error>>>);

impl BodyFailure {
    /// The sender's end, and the reader's.
    pub(crate) fn channel() -> (oneshot::Sender<Box<Error>>, Self) {
        let (sender, receiver) = oneshot::channel();
        (sender, Self(Some(receiver)))
    }

    /// Waits for the reason why the body could not be sent; never returns if the body was sent.
    pub(crate) async fn wait(&mut self) -> Box<Error> {
        if let Some(told) = &mut self.0 {
            let told = told.await;
            self.0 = None;
            if let Ok(error) = told {
                return error;
            }
        }
        pending().await
    }
}
