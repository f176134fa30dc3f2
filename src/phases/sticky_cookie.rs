//! Phase 6, to the client: sets the sticky cookie; its value is the request's key.
//!
//! The cookie is set only in the response of a peer, and only if the peer does not set a cookie of the same name. A
//! response with the cookie is marked `private`, and directives that contradict this are removed: a shared cache
//! would give the key of one client to all clients.

use http::HeaderValue;
use http::header::{CACHE_CONTROL, SET_COOKIE};

use super::context::Context;
use super::forward_request::X_FORWARDED_PROTO;
use crate::downstream::Connection;
use crate::fault::Fault;
use crate::header::{HeaderEdit, HeaderRead};
use crate::key;

/// Sets the cookie, if the client needs it.
pub(crate) fn set_cookie(
    request: &impl HeaderRead,
    response: &mut impl HeaderEdit,
    ctx: &Context,
) -> Result<(), Fault> {
    let sources = ctx.upstream().map(|upstream| &upstream.config.key);
    let sticky = sources.and_then(|sources| key::cookie_to_issue(sources));
    let (Some(value), Some((_, sticky))) = (&ctx.sticky_cookie, sticky) else {
        return Ok(());
    };
    let is_set = response
        .get_all(&SET_COOKIE)
        .any(|line| sticky.is_set_by(line));
    if is_set {
        return Ok(());
    }
    let cookie = sticky.set_cookie_value(value, is_client_over_tls(request, ctx));
    let cookie = HeaderValue::try_from(cookie).map_err(|_| Fault::Internal)?;
    response.append(&SET_COOKIE, cookie);
    if !is_private(response) {
        response.set(&CACHE_CONTROL, private_cache_control(response));
    }
    Ok(())
}

/// Whether the client uses TLS: to us, to the sender of its PROXY header, or to a trusted proxy.
fn is_client_over_tls(request: &impl HeaderRead, ctx: &Context) -> bool {
    ctx.connection().is_some_and(Connection::is_encrypted)
        || ctx.request.from_trusted && is_forwarded_from_https(request)
}

/// Whether the first element of `X-Forwarded-Proto`, from the proxy next to the client, is `https`.
fn is_forwarded_from_https(headers: &impl HeaderRead) -> bool {
    let proto = headers.get(&X_FORWARDED_PROTO);
    let first = proto.and_then(|proto| proto.split(|&byte| byte == b',').next());
    first.is_some_and(|first| first.trim_ascii().eq_ignore_ascii_case(b"https"))
}

/// The peer's directives and `private`, without those for shared caches: `public` and `s-maxage` (RFC 9111
/// §5.2.2).
fn private_cache_control(headers: &impl HeaderRead) -> HeaderValue {
    let lines = headers.get_all(&CACHE_CONTROL);
    let directives = lines.flat_map(|line| line.split(|&byte| byte == b','));
    let retained = directives.map(<[u8]>::trim_ascii).filter(|directive| {
        let name = directive.split(|&byte| byte == b'=').next();
        let name = name.unwrap_or_default().trim_ascii();
        !["", "public", "s-maxage"]
            .iter()
            .any(|other| name.eq_ignore_ascii_case(other.as_bytes()))
    });
    let all: Vec<_> = retained.chain([&b"private"[..]]).collect();
    let value = HeaderValue::from_bytes(&all.join(&b", "[..]));
    value.unwrap_or(HeaderValue::from_static("private"))
}

/// Whether no shared cache may store the response (RFC 9111 §5.2.2). `private="field"` is not enough: it is
/// about single fields.
fn is_private(headers: &impl HeaderRead) -> bool {
    let lines = headers.get_all(&CACHE_CONTROL);
    let mut directives = lines.flat_map(|line| line.split(|&byte| byte == b','));
    directives.any(|directive| {
        let directive = directive.trim_ascii();
        let forbidding = [&b"private"[..], b"no-store"];
        forbidding
            .iter()
            .any(|name| directive.eq_ignore_ascii_case(name))
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

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
            assert_eq!(
                private_cache_control(&lines.collect::<HeaderMap>()),
                expected
            );
        }
    }

    #[test]
    fn response_is_private_only_as_a_whole() {
        for (value, expected) in [
            ("private", true),
            ("max-age=1, No-Store", true),
            ("private=\"x-a\"", false),
            ("no-cache", false),
        ] {
            let headers = HeaderMap::from_iter([(CACHE_CONTROL, HeaderValue::from_static(value))]);
            assert_eq!(is_private(&headers), expected, "{value}");
        }
    }

    #[test]
    fn forwarded_proto_counts_for_the_first_proxy() {
        for (value, expected) in [
            ("https", true),
            ("HTTPS , http", true),
            ("http, https", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(&X_FORWARDED_PROTO, HeaderValue::from_static(value));
            assert_eq!(is_forwarded_from_https(&headers), expected, "{value}");
        }
        assert!(!is_forwarded_from_https(&HeaderMap::new()));
    }
}
