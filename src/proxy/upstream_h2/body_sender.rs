//! Sends a request's body on to the peer, beside all else that happens to the request.
//!
//! Pingora polls, together with its loop, what reads messages that a protocol has beside request and
//! response. HTTP has none; what is given as their reader yields none, and sends the body meanwhile. It ends
//! when all is sent, and Pingora ends the exchange no sooner.

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

use crate::downstream::Exchange;

/// Where Pingora's loop leaves the body's pieces.
pub(super) struct BodyQueueWriter(pub(super) Arc<Exchange>);

#[async_trait]
impl BodyWrite for BodyQueueWriter {
    async fn write_all_buf(&mut self, data: &mut Bytes) -> Result<()> {
        self.0.body_queue.push(data.split_to(data.len()));
        Ok(())
    }

    async fn finish(&mut self) -> Result<()> {
        self.0.body_queue.end();
        Ok(())
    }

    async fn cleanup(&mut self) -> Result<()> {
        Ok(())
    }

    fn upgrade_body_writer(&mut self) {
        // HTTP/2 has no upgrades (RFC 9113, 8.6).
    }
}

/// The sending of one body. In a lock that nobody takes: Pingora wants it to be [`Sync`].
pub(super) struct BodySender(Mutex<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl BodySender {
    /// Of a body to `peer`, each piece within `limit`; where the peer does not take one in time, or the
    /// request is refused, the response's reader is told, as nobody else can fail the exchange.
    pub(super) fn new(
        exchange: Arc<Exchange>,
        peer: SendStream<Bytes>,
        limit: Option<Duration>,
    ) -> (Self, oneshot::Receiver<Box<Error>>) {
        let (failure, failed) = oneshot::channel();
        let sending = send_body(exchange, peer, limit, failure);
        (Self(Mutex::new(Box::pin(sending))), failed)
    }

    /// Of no body.
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
    exchange: Arc<Exchange>,
    mut peer: SendStream<Bytes>,
    limit: Option<Duration>,
    failure: oneshot::Sender<Box<Error>>,
) {
    let upload = &exchange.body_queue;
    let failed = loop {
        let Some((piece, last)) = poll_fn(|cx| upload.poll_next(cx)).await else {
            // Which status that means, the context knows.
            break Error::explain(ErrorType::InternalError, "the request is refused");
        };
        match write_body(&mut peer, piece, last, limit).await {
            Ok(()) if last => return,
            Ok(()) => {}
            Err(error) if *error.etype() == ErrorType::WriteTimedout => break error,
            // Why the stream has ended, its response says.
            Err(_) => return upload.stop_sending(),
        }
    };
    peer.send_reset(Reason::CANCEL);
    // Where the response is complete already, nobody waits for this.
    let _ = failure.send(failed);
    upload.stop_sending();
}
