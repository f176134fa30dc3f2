//! Our own responses.

use std::sync::Arc;

use tokio::io::AsyncWriteExt;

use super::upload::RequestBody;
use crate::downstream::{Http1Client, KeepAlive, LocalReply};
use crate::phases::{self, Context as RequestContext};

/// Sends a response of our own. If the connection stays open, then reads and drops the rest of the request's body; a body
/// that is too long for that closes the connection. Returns the status and the length of the response's body in bytes; 0 if
/// the response could not be written.
pub(super) async fn send(
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
