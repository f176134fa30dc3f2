//! One client's connection: the memory that is kept between two requests, and our own responses.

use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;

use super::download::Download;
use super::upload::RequestBody;
use crate::downstream::{Http1Client, KeepAlive, LocalReply};
use crate::http1::FieldEdits;
use crate::phases::{self, Context as RequestContext};

/// The state of a connection that is kept from one request to the next.
#[derive(Debug, Default)]
pub(crate) struct ConnectionState {
    pub(super) edits: FieldEdits,
    /// The response that is relayed.
    pub(super) download: Download,
    /// The buffer for requests to peers; kept, so that a request does not allocate one.
    pub(super) out: Vec<u8>,
}

impl ConnectionState {
    /// Returns the bytes that were read after the headers: those of the client, and those of the peer. Frees all other
    /// memory, because a tunnel may last for hours.
    pub(super) fn take_for_tunnel(&mut self, client: &mut Http1Client) -> (BytesMut, BytesMut) {
        let from_client = std::mem::take(&mut client.input);
        client.head.clear();
        let from_peer = self.download.take_unused();
        *self = Self::default();
        (from_client, from_peer)
    }
}

/// Sends a response of our own, and reads the rest of a short request. Returns the status, and the length of the
/// body that was sent; bytes.
pub(super) async fn reply(
    client: &mut Http1Client,
    body: &mut RequestBody,
    (ctx, keep_alive): (&mut RequestContext, &mut KeepAlive),
    reply: LocalReply,
) -> (u16, u64) {
    let reply = phases::local_reply::begin_reply(ctx, reply);
    let exchange = Arc::clone(client.exchange());
    keep_alive.before_own_response(&mut body.received, &mut client.input);
    let (status, length) = (reply.status.as_u16(), reply.body.len() as u64);
    let is_sent = match reply.into_http1_bytes(keep_alive.option(&exchange)) {
        Ok(bytes) => client.io.write_all(&bytes).await.is_ok(),
        Err(_) => false,
    };
    if !is_sent {
        keep_alive.forbid();
        return (status, 0);
    }
    client.drop_rest(&mut body.received, keep_alive).await;
    if !keep_alive.is_allowed() {
        exchange.request_lingering_close();
    }
    (status, length)
}
