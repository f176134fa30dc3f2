//! Before everything else, in plain HTTP: a certificate authority looks whether a name is served here
//! (ACME's http-01: RFC 8555, 8.3).
//!
//! Only what was ordered here is answered. Any other token goes its way as every request does: the peers
//! may have certificates of their own to order.

use bytes::Bytes;
use http::Method;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use pingora_error::Result;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::context::Context;
use super::respond;

const PATH: &str = "/.well-known/acme-challenge/";

/// What the authority wants to see; `None`: it was not the authority that asked, or not us.
pub(super) fn answer(ctx: &Context) -> Option<String> {
    let token = ctx.ask.uri.path().strip_prefix(PATH)?;
    let connection = ctx.connection()?;
    if connection.secured.is_some() || ctx.ask.method != Method::GET {
        return None;
    }
    ctx.snapshot.issued.token(token)
}

/// Shows it.
pub(super) async fn give(session: &mut Session, ctx: &Context, answer: String) -> Result<()> {
    let mut header = ResponseHeader::build(200, Some(3))?;
    header.insert_header(CONTENT_TYPE, "application/octet-stream")?;
    header.insert_header(CACHE_CONTROL, "no-store")?;
    header.set_content_length(answer.len())?;
    respond::send(session, ctx, header, Bytes::from(answer)).await
}
