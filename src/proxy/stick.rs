//! Phase 6, back: gives a client its sticky cookie.
//!
//! Only with a peer's response: a page of our own says nothing about who would have served. A peer
//! that sets a cookie of the same name means it, and wins. A response that carries the cookie is one
//! client's, so it is marked `private`: a shared cache would hand one client's key to all.

use http::HeaderMap;
use http::header::{CACHE_CONTROL, SET_COOKIE};
use pingora_error::Result;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::context::Context;
use super::forward::X_FORWARDED_PROTO;
use crate::connection::Connection;
use crate::key;

/// Sets the cookie that the request's key came from, if the client needs it.
pub(super) fn give(session: &Session, response: &mut ResponseHeader, ctx: &Context) -> Result<()> {
    let sources = ctx.upstream().map(|upstream| &upstream.config.key);
    let sticky = sources.and_then(|sources| key::to_make(sources));
    let (Some(value), Some((_, sticky))) = (&ctx.cookie, sticky) else {
        return Ok(());
    };
    let mut set = response.headers.get_all(SET_COOKIE).iter();
    if set.any(|line| sticky.is_set_by(line.as_bytes())) {
        return Ok(());
    }
    response.append_header(SET_COOKIE, sticky.set(value, is_over_tls(session, ctx)))?;
    if !is_private(&response.headers) {
        response.append_header(CACHE_CONTROL, "private")?;
    }
    Ok(())
}

/// Whether the client came over TLS: to us, to whom passes its connection on, or to a trusted proxy.
fn is_over_tls(session: &Session, ctx: &Context) -> bool {
    let connection = ctx.connection();
    let tls = connection.is_some_and(Connection::is_encrypted);
    let told = || {
        let proto = session.req_header().headers.get(X_FORWARDED_PROTO)?;
        let first = proto.as_bytes().split(|&byte| byte == b',').next()?;
        Some(first.trim_ascii().eq_ignore_ascii_case(b"https"))
    };
    tls || ctx.ask.from_trusted && told().unwrap_or(false)
}

/// Whether no shared cache may store it (RFC 9111, 5.2.2); `private` of single fields does not say so.
fn is_private(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(CACHE_CONTROL).into_iter();
    let mut directives = lines.flat_map(|line| line.as_bytes().split(|&byte| byte == b','));
    directives.any(|directive| {
        let directive = directive.trim_ascii();
        let bars = [&b"private"[..], b"no-store"];
        bars.iter().any(|bar| directive.eq_ignore_ascii_case(bar))
    })
}
