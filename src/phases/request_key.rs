//! Phase 3: computes the request's key, and from it the request's place on the ring.

use std::sync::Arc;

use super::context::Context;
use super::request_info::RequestInfo;
use crate::config::MissingKey;
use crate::cookie;
use crate::downstream::Connection;
use crate::fault::Fault;
use crate::header::HeaderRead;
use crate::key::{self, KeyBuffer, KeyRequest, KeySource};
use crate::upstream::{HashTarget, Upstream};

/// Sets the request's target on the ring: the hash of its key, or its number in round-robin.
pub(crate) fn compute_key(headers: &impl HeaderRead, ctx: &mut Context) -> Result<(), Fault> {
    let upstream = Arc::clone(ctx.upstream().ok_or(Fault::NoRoute)?);
    let mut buffer = KeyBuffer::default();
    let sources = &upstream.config.key;
    // Not `ctx.connection()`, which would borrow all of `ctx`.
    let connection = ctx.exchange.as_deref().map(|it| &*it.connection);
    let request = key_request(headers, &ctx.request, connection);
    let found = match find_key(sources, &request, &mut buffer) {
        FoundKey::Present { key: b"", .. } if !upstream.config.dialect.hashes_empty_key() => {
            FoundKey::Missing
        }
        found => found,
    };
    let target = match found {
        FoundKey::Present { source, key } => {
            ctx.key_source = Some(source.name());
            ctx.sticky_cookie = cookie_to_refresh(source, key);
            HashTarget::Key(upstream.key(key))
        }
        FoundKey::Issued(source) => {
            let value = issue_cookie(&upstream, source, ctx);
            let target = HashTarget::Key(upstream.key(value.as_bytes()));
            ctx.key_source = Some(source.name());
            ctx.sticky_cookie = Some(value);
            target
        }
        FoundKey::Missing => {
            upstream.metrics.missing_key.inc();
            match upstream.config.missing_key {
                MissingKey::RoundRobin => upstream.next_round_robin(),
                MissingKey::Reject => return Err(Fault::MissingKey),
            }
        }
    };
    ctx.hash_target = Some(target);
    Ok(())
}

/// The value of the cookie that the response is to set. The parallel first requests of a client on one HTTP/2 connection
/// get the same; a trusted proxy sends the requests of many clients on one connection.
fn issue_cookie(upstream: &Upstream, source: &KeySource, ctx: &Context) -> String {
    let make = || {
        upstream.metrics.cookies_made.inc();
        cookie::encode_value(rand::random())
    };
    match (&ctx.exchange, source) {
        (Some(exchange), KeySource::StickyCookie(sticky))
            if exchange.is_http2_stream() && !ctx.request.from_trusted =>
        {
            exchange
                .connection
                .issued_cookie((&upstream.name, &sticky.name), ctx.started, make)
        }
        _ => make(),
    }
}

/// The bytes of the request's key; `None`: it has none, so round-robin chose the peer.
pub(crate) fn key_bytes(headers: &impl HeaderRead, ctx: &Context) -> Option<Box<[u8]>> {
    let Some(HashTarget::Key(_)) = ctx.hash_target else {
        return None;
    };
    let request = key_request(headers, &ctx.request, ctx.connection());
    let mut buffer = KeyBuffer::default();
    let found = key::extract(&ctx.upstream()?.config.key, &request, &mut buffer);
    let issued = || ctx.sticky_cookie.as_deref().map(str::as_bytes);
    found.map(|(_, key)| key).or_else(issued).map(Box::from)
}

/// Where the key of a request comes from.
#[derive(Debug, PartialEq)]
enum FoundKey<'a> {
    Present {
        source: &'a KeySource,
        key: &'a [u8],
    },
    /// A sticky cookie that the response is to set.
    Issued(&'a KeySource),
    Missing,
}

fn find_key<'a>(
    sources: &'a [KeySource],
    request: &KeyRequest<'a, impl HeaderRead>,
    buffer: &'a mut KeyBuffer,
) -> FoundKey<'a> {
    if let Some((index, key)) = key::extract(sources, request, buffer)
        && let Some(source) = sources.get(index)
    {
        return FoundKey::Present { source, key };
    }
    let issuing = key::cookie_to_issue(sources).and_then(|(index, _)| sources.get(index));
    issuing.map_or(FoundKey::Missing, FoundKey::Issued)
}

/// The value of the client's cookie, if the response is to set it again with a new age.
fn cookie_to_refresh(source: &KeySource, key: &[u8]) -> Option<String> {
    match source {
        KeySource::StickyCookie(sticky) if sticky.refresh => String::from_utf8(key.to_vec()).ok(),
        _ => None,
    }
}

fn key_request<'a, H: HeaderRead>(
    headers: &'a H,
    info: &'a RequestInfo,
    connection: Option<&'a Connection>,
) -> KeyRequest<'a, H> {
    let certificate = connection.and_then(Connection::client_certificate);
    KeyRequest {
        target: &info.target,
        headers,
        host: info.host_text(),
        client_ip: info.client_ip,
        client_cert_subject: certificate
            .and_then(|certificate| certificate.subject_name.as_deref()),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName};

    use super::super::route;
    use super::*;
    use crate::cookie::{SameSite, SecureAttribute, StickyCookie};
    use crate::header::header_map;
    use crate::request_target::RequestTarget;

    const USER: KeySource = KeySource::header(HeaderName::from_static("x-user"));

    fn sticky(refresh: bool) -> KeySource {
        KeySource::StickyCookie(StickyCookie {
            name: "cw".to_owned(),
            ttl: None,
            refresh,
            same_site: SameSite::Lax,
            secure: SecureAttribute::Auto,
            http_only: true,
            path: "/".to_owned(),
            domain: None,
        })
    }

    /// The source and key that are found for a request with these fields; the source alone if a cookie is
    /// to be issued.
    fn find(
        sources: &[KeySource],
        fields: &[(&'static str, &'static str)],
    ) -> Option<(&'static str, Option<String>)> {
        let headers = header_map(fields);
        let info = RequestInfo {
            target: RequestTarget::parse(b"/a/b?c=d").unwrap(),
            client_ip: [192, 0, 2, 1].into(),
            ..RequestInfo::default()
        };
        let mut buffer = KeyBuffer::default();
        match find_key(sources, &key_request(&headers, &info, None), &mut buffer) {
            FoundKey::Present { source, key } => {
                Some((source.name(), Some(String::from_utf8_lossy(key).into())))
            }
            FoundKey::Issued(source) => Some((source.name(), None)),
            FoundKey::Missing => None,
        }
    }

    fn key(source: &'static str, key: &str) -> (&'static str, Option<String>) {
        (source, Some(key.to_owned()))
    }

    #[test]
    fn key_comes_from_the_first_source_that_is_present() {
        let sources = [USER, KeySource::Path];
        assert_eq!(
            find(&sources, &[("x-user", "u1")]),
            Some(key("header", "u1"))
        );
        assert_eq!(find(&sources, &[]), Some(key("path", "/a/b")));
    }

    #[test]
    fn key_is_missing_if_no_source_is_present() {
        assert_eq!(find(&[USER], &[("x-other", "u1")]), None);
        assert_eq!(find(&[], &[]), None);
    }

    #[test]
    fn sticky_cookie_is_issued_only_to_a_client_without_one() {
        let sources = [USER, sticky(false)];
        assert_eq!(
            find(&sources, &[("x-user", "u1")]),
            Some(key("header", "u1"))
        );
        assert_eq!(
            find(&sources, &[("cookie", "cw=v1")]),
            Some(key("cookie", "v1"))
        );
        assert_eq!(find(&sources, &[]), Some(("cookie", None)));
    }

    #[test]
    fn only_a_sticky_cookie_with_refresh_is_set_again() {
        let value = Some("v1".to_owned());
        assert_eq!(cookie_to_refresh(&sticky(true), b"v1"), value);
        assert_eq!(cookie_to_refresh(&sticky(false), b"v1"), None);
        assert_eq!(cookie_to_refresh(&USER, b"v1"), None);
    }

    fn compute(upstream: &str) -> (Context, Result<(), Fault>) {
        let mut ctx = Context::for_test(&format!(
            "routes: [{{upstream: app}}]\nupstreams:\n  app: {{peers: [\"127.0.0.1:2\"], {upstream}}}"
        ));
        route::resolve_route(&HeaderMap::new(), &mut ctx).unwrap();
        let result = compute_key(&HeaderMap::new(), &mut ctx);
        (ctx, result)
    }

    #[test]
    fn missing_key_is_refused_or_goes_by_round_robin() {
        let (_, refused) = compute("key: {header: x-user}, missing_key: reject");
        assert_eq!(refused, Err(Fault::MissingKey));
        let (ctx, accepted) = compute("key: {header: x-user}");
        assert_eq!(accepted, Ok(()));
        assert!(matches!(ctx.hash_target, Some(HashTarget::RoundRobin(_))));
        assert_eq!(ctx.key_source, None);
    }

    #[test]
    fn present_key_is_the_target_and_its_bytes_are_found_again() {
        let (ctx, accepted) = compute("key: path");
        assert_eq!(accepted, Ok(()));
        assert!(matches!(ctx.hash_target, Some(HashTarget::Key(_))));
        assert_eq!(ctx.key_source, Some("path"));
        assert_eq!(
            key_bytes(&HeaderMap::new(), &ctx).as_deref(),
            Some(&b"/"[..])
        );
    }
}
