//! Phase 6, back: gives a client its sticky cookie.
//!
//! Only with a peer's response: a page of our own says nothing about who would have served. A peer
//! that sets a cookie of the same name means it, and wins. A response that carries the cookie is one
//! client's, so it is marked `private`, and not what contradicts that: a shared cache would hand one client's
//! key to all.

use http::header::{CACHE_CONTROL, SET_COOKIE};
use http::{HeaderMap, HeaderValue};
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora::proxy::Session;

use super::context::Context;
use super::forward::X_FORWARDED_PROTO;
use crate::downstream::Connection;
use crate::key;

/// Sets the cookie that the request's key came from, if the client needs it.
pub(super) fn set_cookie(
    session: &Session,
    response: &mut ResponseHeader,
    ctx: &Context,
) -> Result<()> {
    let sources = ctx.upstream().map(|upstream| &upstream.config.key);
    let sticky = sources.and_then(|sources| key::cookie_to_issue(sources));
    let (Some(value), Some((_, sticky))) = (&ctx.sticky_cookie, sticky) else {
        return Ok(());
    };
    let mut set = response.headers.get_all(SET_COOKIE).iter();
    if set.any(|line| sticky.is_set_by(line.as_bytes())) {
        return Ok(());
    }
    response.append_header(
        SET_COOKIE,
        sticky.set_cookie_value(value, is_client_over_tls(session, ctx)),
    )?;
    if !is_private(&response.headers) {
        response.insert_header(CACHE_CONTROL, private_cache_control(&response.headers))?;
    }
    Ok(())
}

/// Whether the client came over TLS: to us, to whom passes its connection on, or to a trusted proxy.
fn is_client_over_tls(session: &Session, ctx: &Context) -> bool {
    let connection = ctx.connection();
    let tls = connection.is_some_and(Connection::is_encrypted);
    let told = || {
        let proto = session.req_header().headers.get(X_FORWARDED_PROTO)?;
        let first = proto.as_bytes().split(|&byte| byte == b',').next()?;
        Some(first.trim_ascii().eq_ignore_ascii_case(b"https"))
    };
    tls || ctx.request.from_trusted && told().unwrap_or(false)
}

/// What a peer says of caches, without what it says to shared ones: `public` and `s-maxage` (RFC 9111, 5.2.2).
fn private_cache_control(headers: &HeaderMap) -> HeaderValue {
    let lines = headers.get_all(CACHE_CONTROL).into_iter();
    let directives = lines.flat_map(|line| line.as_bytes().split(|&byte| byte == b','));
    let kept = directives.map(<[u8]>::trim_ascii).filter(|directive| {
        let name = directive.split(|&byte| byte == b'=').next();
        let name = name.unwrap_or_default().trim_ascii();
        !["", "public", "s-maxage"]
            .iter()
            .any(|other| name.eq_ignore_ascii_case(other.as_bytes()))
    });
    let all: Vec<_> = kept.chain([&b"private"[..]]).collect();
    let value = HeaderValue::from_bytes(&all.join(&b", "[..]));
    value.unwrap_or(HeaderValue::from_static("private"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_control_becomes_private_without_contradicting_directives() {
        for (lines, expected) in [
            (&[][..], "private"),
            (&["public, max-age=3600"], "max-age=3600, private"),
            (
                &["Public", "S-MaxAge = 60,no-transform"],
                "no-transform, private",
            ),
            (&["no-cache=\"a, b\""], "no-cache=\"a, b\", private"),
        ] {
            let lines = lines
                .iter()
                .map(|line| (CACHE_CONTROL, HeaderValue::from_static(line)));
            assert_eq!(private_cache_control(&lines.collect()), expected);
        }
    }
}
