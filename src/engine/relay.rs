//! One attempt on one connection: the request goes to the peer and the response comes back, both at once.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use super::client::ClientStream;
use super::download::{Download, RequestFacts};
use super::failure::Failure;
use super::keep_alive::KeepAlive;
use super::peer_stream::PeerStream;
use super::upload::Upload;
use crate::fault::Fault;
use crate::phases::Context as RequestContext;

/// The two directions of an attempt.
#[derive(Debug)]
pub(super) struct Relay<'a> {
    pub(super) peer: &'a mut PeerStream,
    pub(super) upload: &'a mut Upload,
    pub(super) download: &'a mut Download,
    /// The longest time that the peer may take nothing.
    pub(super) write_timeout: Duration,
}

impl Relay<'_> {
    /// Relays until the client's stream has the whole response.
    ///
    /// # Errors
    /// Either side failed. Waits for the peer have their limits in the exchange, which drops this future.
    pub(super) async fn run(
        &mut self,
        client: &mut ClientStream<'_>,
        request: RequestFacts<'_>,
        (ctx, keep_alive): (&mut RequestContext, &mut KeepAlive),
    ) -> Result<(), Failure> {
        poll_fn(|cx| {
            let peer = (&mut *self.peer, self.write_timeout);
            if !self.upload.is_complete()
                && let Err(failure) = self.upload.poll(cx, client, peer, ctx)
            {
                return Poll::Ready(Err(failure));
            }
            let peer = &mut *self.peer;
            let sides = (&mut *ctx, &mut *keep_alive);
            if let Poll::Ready(ended) = self.download.poll(cx, client, peer, request, sides) {
                return Poll::Ready(ended);
            }
            // A client that leaves must not keep a peer busy.
            if self.upload.body().is_complete() && client.poll_closed(cx).is_ready() {
                return Poll::Ready(Err(Failure::Client(Fault::ClientGone)));
            }
            Poll::Pending
        })
        .await
    }
}
