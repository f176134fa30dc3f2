//! Before everything else, in plain HTTP: a certificate authority looks whether a name is served here
//! (ACME's http-01: RFC 8555, 8.3).
//!
//! Only what was ordered is answered, here or by another process that shares the storage. Any other token
//! goes its way as every request does: the peers may have certificates of their own to order.

use bytes::Bytes;
use http::Method;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use tokio::sync::Semaphore;

use super::context::Context;
use super::local_reply;

const CHALLENGE_PATH: &str = "/.well-known/acme-challenge/";

/// Looks at what other processes answer that may go on at once: anybody can ask for them.
static SHARED_LOOKUPS: Semaphore = Semaphore::const_new(16);

/// What the authority wants to see; `None`: it was not the authority that asked, or not us.
pub(super) async fn key_authorization(ctx: &Context) -> Option<String> {
    let token = ctx.request.uri.path().strip_prefix(CHALLENGE_PATH)?;
    let connection = ctx.connection()?;
    if connection.tls.is_some() || ctx.request.method != Method::GET {
        return None;
    }
    let issued = &ctx.snapshot.managed_certs;
    let ours = issued.key_authorization(token);
    if ours.is_some() {
        return ours;
    }
    let (others, token) = (issued.shared_challenges()?, token.to_owned());
    let turn = SHARED_LOOKUPS.acquire().await.ok()?;
    // Beside the workers: it may be a disk that is far away.
    let asked = tokio::task::spawn_blocking(move || {
        let found = others.key_authorization(&token);
        drop(turn);
        found
    });
    asked.await.ok().flatten()
}

/// Shows it.
pub(super) async fn respond(session: &mut Session, ctx: &Context, answer: String) -> Result<()> {
    let mut header = ResponseHeader::build(200, Some(3))?;
    header.insert_header(CONTENT_TYPE, "application/octet-stream")?;
    header.insert_header(CACHE_CONTROL, "no-store")?;
    header.set_content_length(answer.len())?;
    local_reply::send(session, ctx, header, Bytes::from(answer)).await
}
