//! One attempt on one connection: sends the request to the peer and the response to the client at the same time.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use super::download::{Download, RequestFacts};
use super::failure::Failure;
use super::upload::Upload;
use crate::downstream::{ClientStream, KeepAlive};
use crate::fault::Fault;
use crate::phases::Context as RequestContext;
use crate::upstream_http1::PeerStream;

/// The two directions of an attempt.
#[derive(Debug)]
pub(super) struct Relay<'a> {
    pub(super) peer: &'a mut PeerStream,
    pub(super) upload: &'a mut Upload,
    pub(super) download: &'a mut Download,
    /// The longest time in which the peer may accept no bytes.
    pub(super) write_timeout: Duration,
}

impl Relay<'_> {
    /// Relays until the whole response was written to the client's stream.
    ///
    /// # Errors
    /// The client or the peer failed. The wait for the response has no limit here: the exchange drops this future
    /// when the time is over.
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
            keep_alive.set_body_due(!self.upload.body().is_complete());
            let peer = &mut *self.peer;
            let sides = (&mut *ctx, &mut *keep_alive);
            let request = RequestFacts {
                may_switch: request.may_switch && self.upload.is_complete(),
                ..request
            };
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
