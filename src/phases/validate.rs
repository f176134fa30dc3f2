//! Phase 2: refuses a request that is over a limit or not well formed, before anything depends on it.

use std::net::IpAddr;

use http::header::HOST;
use http::{Method, Version};

use super::context::Context;
use super::request_info::RequestInfo;
use crate::config::DownstreamConfig;
use crate::downstream::TlsSession;
use crate::fault::Fault;
use crate::header::HeaderRead;
use crate::http1::{is_valid_host, is_valid_target};
use crate::route::host_name;

/// The header of a request as it was on the wire.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawHeader<'a> {
    /// The target as the client wrote it (RFC 9112 §3.2).
    pub(crate) target: &'a [u8],
    /// The size of the whole header as text of HTTP/1; bytes.
    pub(crate) size: usize,
}

/// Refuses what is over a limit or not well formed.
pub(crate) fn validate(
    raw: RawHeader<'_>,
    headers: &impl HeaderRead,
    ctx: &Context,
) -> Result<(), Fault> {
    if ctx.is_malformed() {
        return Err(Fault::BadRequest);
    }
    let secured = ctx.connection().and_then(|it| it.tls.as_ref());
    check_size(raw, &ctx.snapshot.config.downstream)?;
    check_target(raw.target, &ctx.request)?;
    check_single_host(headers, ctx.request.version)?;
    check_host(&ctx.request)?;
    check_sni_matches_host(&ctx.request, secured)
}

fn check_size(raw: RawHeader<'_>, limits: &DownstreamConfig) -> Result<(), Fault> {
    if raw.target.len() > limits.max_uri_length {
        return Err(Fault::UriTooLong);
    }
    if raw.size > limits.max_header_size {
        return Err(Fault::HeaderTooLarge);
    }
    Ok(())
}

/// Refuses a target of HTTP/2 that is no path (RFC 9113 §8.3.1), or has a byte that none can have: routes are chosen by its
/// path. Over HTTP/1 the parser has refused that already.
fn check_target(target: &[u8], info: &RequestInfo) -> Result<(), Fault> {
    if info.version < Version::HTTP_2 {
        return Ok(());
    }
    let is_asterisk = target == b"*" && info.method == Method::OPTIONS;
    let has_form = target.starts_with(b"/") || is_asterisk || info.method == Method::CONNECT;
    if has_form && is_valid_target(target) {
        Ok(())
    } else {
        Err(Fault::BadRequest)
    }
}

/// Refuses more than one `Host` over HTTP/2. Over HTTP/1 the parser has refused that already.
fn check_single_host(headers: &impl HeaderRead, version: Version) -> Result<(), Fault> {
    let several = || headers.get_all(&HOST).nth(1).is_some();
    if version >= Version::HTTP_2 && several() {
        return Err(Fault::BadHost);
    }
    Ok(())
}

/// HTTP/1.1 has a `Host` (RFC 9112 §3.2), and HTTP/2 has one or `:authority` (RFC 9113 §8.3.1). Peers get it within
/// quotes and lists (`Forwarded`), which it must not be able to end.
fn check_host(info: &RequestInfo) -> Result<(), Fault> {
    let host = match (&info.host, info.target.authority()) {
        (Some(host), _) => host.as_bytes(),
        (None, Some(authority)) => authority.as_bytes(),
        (None, None) => b"",
    };
    let is_missing = info.host.is_none() && info.version >= Version::HTTP_11;
    if is_missing || !is_valid_host(host) {
        return Err(Fault::BadHost);
    }
    Ok(())
}

/// On a listener that asks for client certificates, refuses a host other than the connection's SNI (RFC 6066
/// §11.1; RFC 9110 §7.4): an access rule that depends on the SNI must hold for the request.
fn check_sni_matches_host(info: &RequestInfo, secured: Option<&TlsSession>) -> Result<(), Fault> {
    match secured.filter(|secured| secured.requests_client_cert) {
        Some(secured) if !is_host_of_sni(host_name(info.host_text()), secured.sni.as_deref()) => {
            Err(Fault::Misdirected)
        }
        _ => Ok(()),
    }
}

fn is_host_of_sni(host: &str, sni: Option<&str>) -> bool {
    match sni {
        Some(sni) => host.eq_ignore_ascii_case(sni),
        // TLS cannot carry an address as a name.
        None => host.is_empty() || host.starts_with('[') || host.parse::<IpAddr>().is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::header::header_map;
    use crate::request_target::RequestTarget;

    #[test]
    fn header_and_target_are_limited_to_their_sizes() {
        let limits = DownstreamConfig {
            max_uri_length: 4,
            max_header_size: 100,
            ..DownstreamConfig::DEFAULT
        };
        let check = |target, size| check_size(RawHeader { target, size }, &limits);
        assert_eq!(check(b"/abc", 100), Ok(()));
        assert_eq!(check(b"/abcd", 100), Err(Fault::UriTooLong));
        assert_eq!(check(b"/abc", 101), Err(Fault::HeaderTooLarge));
    }

    #[test]
    fn http2_target_must_be_a_path_unless_options_or_connect() {
        let check = |method, target: &[u8]| {
            let info = RequestInfo {
                method,
                version: Version::HTTP_2,
                ..RequestInfo::default()
            };
            check_target(target, &info)
        };
        assert_eq!(check(Method::GET, b"/"), Ok(()));
        assert_eq!(check(Method::OPTIONS, b"*"), Ok(()));
        assert_eq!(check(Method::CONNECT, b"a.test:443"), Ok(()));
        let bad_forms = [
            &b"*"[..],
            b"",
            b"x",
            b"?x",
            b"http://a.test/",
            b"ftp://a.test/",
        ];
        let bad_bytes = [
            &b"/ "[..],
            b"/\t",
            b"/\r",
            b"/\n",
            b"/\0",
            b"/\x7f",
            b"/#",
            b"/?#",
            b"/\xff",
        ];
        for target in bad_forms.into_iter().chain(bad_bytes) {
            let refused = check(Method::GET, target);
            assert_eq!(refused, Err(Fault::BadRequest), "{}", target.escape_ascii());
        }
    }

    #[test]
    fn http2_request_has_one_host() {
        let check = |hosts: &[(&'static str, &'static str)]| {
            check_single_host(&header_map(hosts), Version::HTTP_2)
        };
        assert_eq!(check(&[("host", "a.test")]), Ok(()));
        let two = check(&[("host", "a.test"), ("host", "b.test")]);
        assert_eq!(two, Err(Fault::BadHost));
    }

    #[test]
    fn host_may_be_missing_on_http10_only() {
        let check = |host: Option<&'static str>, authority: Option<&'static str>, version| {
            check_host(&RequestInfo {
                host: host.map(HeaderValue::from_static),
                target: RequestTarget::new("/", authority),
                version,
                ..RequestInfo::default()
            })
        };
        assert_eq!(check(Some("a.test"), None, Version::HTTP_11), Ok(()));
        assert_eq!(check(Some(""), None, Version::HTTP_11), Ok(()));
        assert_eq!(check(None, None, Version::HTTP_10), Ok(()));
        for version in [Version::HTTP_11, Version::HTTP_2] {
            assert_eq!(check(None, None, version), Err(Fault::BadHost));
        }
        let bad_authority = check(None, Some("a.test:65536"), Version::HTTP_10);
        assert_eq!(bad_authority, Err(Fault::BadHost));
    }

    #[test]
    fn host_must_be_the_sni_or_an_address_without_one() {
        assert!(is_host_of_sni("A.test", Some("a.test")));
        assert!(!is_host_of_sni("b.test", Some("a.test")));
        for address in ["", "[::1]", "127.0.0.1"] {
            assert!(is_host_of_sni(address, None), "{address}");
        }
        assert!(!is_host_of_sni("a.test", None));
    }
}
