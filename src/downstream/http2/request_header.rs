//! Converts an HTTP/2 request header to the HTTP/1 form that the rest of the program expects: a target
//! that begins with `/`, a `Host` field, and one `Cookie` field.
//!
//! A header that has no valid HTTP/1 form is not rejected here. The request is rejected later, by the code
//! that rejects, counts and logs invalid HTTP/1 requests.

use http::header::{COOKIE, HOST};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Uri};
use pingora::http::RequestHeader;

use crate::downstream::ReceivedTarget;

/// The size of a field in addition to its name and value (RFC 9113 §6.5.2); bytes.
const FIELD_OVERHEAD: u32 = 32;

/// The `SETTINGS_MAX_HEADER_LIST_SIZE` (RFC 9113 §6.5.2) for a `max_header_size` of `limit` bytes; `h2`
/// itself rejects a larger header. It is far above `limit`, so that a header that is slightly too large
/// gets to Clockwise's own check, and is counted and logged.
pub(super) fn max_header_list_size(limit: usize) -> u32 {
    let limit = u32::try_from(limit).unwrap_or(u32::MAX);
    limit.saturating_mul(2).saturating_add(64 * FIELD_OVERHEAD)
}

/// Converts the header.
pub(super) fn to_http1_header(mut parts: Parts) -> RequestHeader {
    if let Some(authority) = parts.uri.authority() {
        set_host_from_authority(&mut parts.headers, authority.as_str());
    }
    join_cookie_fields(&mut parts.headers);
    if has_foreign_scheme(&parts.uri) {
        let whole = parts.uri.to_string();
        parts.extensions.insert(ReceivedTarget::new(whole));
    }
    let path = parts.uri.into_parts().path_and_query;
    parts.uri = path.map_or_else(Uri::default, Uri::from);
    parts.into()
}

/// Whether `:scheme` is not one of HTTP: such a target is rejected as a whole URI (RFC 9110 §7.4).
fn has_foreign_scheme(uri: &Uri) -> bool {
    let is = |scheme: &str, name: &str| scheme.eq_ignore_ascii_case(name);
    uri.scheme_str()
        .is_some_and(|scheme| !is(scheme, "http") && !is(scheme, "https"))
}

/// Sets `Host` from `:authority` (RFC 9113 §8.3.1). If a client sends both and they differ, both are kept: a
/// request with two hosts is rejected later.
fn set_host_from_authority(headers: &mut HeaderMap, authority: &str) {
    let same = |host: &HeaderValue| host.as_bytes().eq_ignore_ascii_case(authority.as_bytes());
    if headers.get_all(HOST).iter().all(same)
        && let Ok(host) = HeaderValue::from_str(authority)
    {
        headers.insert(HOST, host);
    } else if let Ok(host) = HeaderValue::from_str(authority) {
        headers.append(HOST, host);
    }
}

/// Joins several `Cookie` fields into one, as HTTP/1 requires (RFC 9113 §8.2.3).
fn join_cookie_fields(headers: &mut HeaderMap) {
    let mut fields = headers.get_all(COOKIE).iter();
    let (Some(_), Some(_)) = (fields.next(), fields.next()) else {
        return; // nothing to join
    };
    let fields: Vec<_> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if let Ok(cookie) = HeaderValue::from_bytes(&fields.join(&b"; "[..])) {
        headers.insert(COOKIE, cookie);
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn header_of(uri: &str, fields: &[(&str, &str)]) -> RequestHeader {
        let mut request = Request::builder().uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        to_http1_header(request.body(()).unwrap().into_parts().0)
    }

    fn values<'a>(request: &'a RequestHeader, name: &str) -> Vec<&'a str> {
        let values = request.headers.get_all(name).iter();
        values.map(|value| value.to_str().unwrap()).collect()
    }

    #[test]
    fn http2_authority_becomes_the_host_header() {
        let request = header_of("https://a.test:8443/x?y", &[]);
        assert_eq!(values(&request, "host"), ["a.test:8443"]);
        assert_eq!(request.uri, "/x?y");
        assert_eq!(request.raw_path(), b"/x?y");
    }

    #[test]
    fn http2_target_with_a_foreign_scheme_is_kept_for_rejection() {
        for (uri, target) in [
            ("ftp://a.test/x", "ftp://a.test/x"),
            ("ws://a.test/", "ws://a.test/"),
            ("HTTPS://a.test/x", "/x"),
        ] {
            let request = header_of(uri, &[]);
            assert_eq!(ReceivedTarget::of(&request), target.as_bytes(), "{uri}");
        }
    }

    #[test]
    fn http2_host_different_from_authority_is_kept_for_rejection() {
        let same = header_of("https://a.test/", &[("host", "A.test")]);
        assert_eq!(values(&same, "host"), ["a.test"]);
        let other = header_of("https://a.test/", &[("host", "b.test")]);
        assert_eq!(values(&other, "host"), ["b.test", "a.test"]);
    }

    #[test]
    fn http2_cookie_fields_are_joined_into_one() {
        let fields = [
            ("cookie", "a=1"),
            ("x", "y"),
            ("cookie", "b=2; c=3"),
            ("cookie", "d=4"),
        ];
        let request = header_of("https://a.test/", &fields);
        assert_eq!(values(&request, "cookie"), ["a=1; b=2; c=3; d=4"]);
        let whole = header_of("https://a.test/", &[("cookie", "a=1; b=2")]);
        assert_eq!(values(&whole, "cookie"), ["a=1; b=2"]);
    }

    #[test]
    fn http2_advertised_header_list_size_is_above_the_limit() {
        assert!(max_header_list_size(32 << 10) > 64 << 10);
        assert_eq!(max_header_list_size(usize::MAX), u32::MAX);
    }
}
