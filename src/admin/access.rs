//! Access control of the admin API.
//!
//! The control socket has mode 0600, and the process at its other end must be this user's or root's. Over TCP a request needs the token, if
//! `admin.token` is set. Two rules stop other sites that are open in the operator's browser: a request that
//! changes something must not come from another origin (CSRF); and if there is no token, `Host` must be an IP
//! address, so that an attacker cannot point a name of their own here (DNS rebinding).

use std::net::{Ipv4Addr, Ipv6Addr};

use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::response::AdminResponse;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// How an admin listener is reached, and the checks that a request must pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// The control socket; the user of the process at the other end is the protection.
    Control,
    /// The admin address.
    Network {
        /// The token of `Authorization: Bearer TOKEN`; `None`: no token is needed.
        token: Option<String>,
    },
}

impl Access {
    /// # Errors
    /// 403 for a request that another site may have caused, or another user's on the control socket; 401 for a missing or wrong token.
    pub(super) fn check(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        client_uid: Option<u32>,
    ) -> Result<(), AdminResponse> {
        let Self::Network { token } = self else {
            return check_client_user(client_uid);
        };
        // Health checks send no token; the page has no data before it calls the API.
        let is_public = matches!(path, "/" | "/healthz" | "/readyz");
        // A page of another site cannot know the token: if one is needed, `Host` does not matter.
        let may_be_dns_rebinding = token.is_none() && !is_public && !has_address_host(headers);
        if may_be_dns_rebinding || is_cross_site(method, headers) {
            return Err(AdminResponse::error(
                StatusCode::FORBIDDEN,
                "the request comes from another site, or its `Host` is a name: use the IP address, or configure `admin.token`",
            ));
        }
        match token {
            Some(token) if !is_public && !has_token(headers, token) => Err(AdminResponse::error(
                StatusCode::UNAUTHORIZED,
                "the token is missing or wrong: send `Authorization: Bearer TOKEN`",
            )),
            _ => Ok(()),
        }
    }
}

/// Checks the user of a process that sends a command: the mode of the socket's file may have been widened.
fn check_client_user(uid: Option<u32>) -> Result<(), AdminResponse> {
    let own = rustix::process::geteuid().as_raw();
    if uid.is_some_and(|uid| uid == own || uid == 0) {
        return Ok(());
    }
    let message = format!("the control socket answers only user {own} and root");
    Err(AdminResponse::error(StatusCode::FORBIDDEN, &message))
}

/// Whether a page of another origin requests a change. A browser names the page's origin in `Origin` (RFC 6454 §7), or its
/// relation to this one in `Sec-Fetch-Site` (Fetch Metadata §2.2). Of repeated fields each must be right, and a value that
/// cannot be read is foreign.
fn is_cross_site(method: &Method, headers: &HeaderMap) -> bool {
    if matches!(*method, Method::GET | Method::HEAD) {
        return false;
    }
    let host = headers.get(HOST).map(HeaderValue::as_bytes);
    let is_foreign = |origin: &HeaderValue| {
        let origin = origin.to_str().ok().and_then(|text| text.split_once("://"));
        origin.is_none_or(|(_, authority)| Some(authority.as_bytes()) != host)
    };
    let is_other_site = |site: &HeaderValue| !matches!(site.as_bytes(), b"same-origin" | b"none");
    headers.get_all(ORIGIN).iter().any(is_foreign)
        || headers.get_all(SEC_FETCH_SITE).iter().any(is_other_site)
}

/// Whether `Host` is an address; a request without `Host` does not come from a browser.
fn has_address_host(headers: &HeaderMap) -> bool {
    let hosts = headers.get_all(HOST);
    hosts.iter().all(|host| host.to_str().is_ok_and(is_address))
}

/// Whether a `Host` is an IPv4 address, an IPv6 address in brackets, or `localhost`, with or without a port (RFC 9110
/// §7.2). Parsed in full: a name that merely begins with an address can be an attacker's.
fn is_address(host: &str) -> bool {
    let (name, port) = match host.rfind(']') {
        Some(bracket) => host.split_at(bracket + 1),
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let ipv6 = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    let is_name_right = match ipv6 {
        Some(ipv6) => ipv6.parse::<Ipv6Addr>().is_ok(),
        None => name.eq_ignore_ascii_case("localhost") || name.parse::<Ipv4Addr>().is_ok(),
    };
    is_name_right && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
}

/// Whether a text is a port: the parser of numbers alone would take a `+`.
fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

/// Whether a request has this token. Compares in constant time, so that the response time does not show how
/// much of a guess is right.
fn has_token(headers: &HeaderMap, token: &str) -> bool {
    let sent = headers
        .get(AUTHORIZATION)
        .and_then(|credentials| bearer_token(credentials.to_str().ok()?));
    sent.is_some_and(|sent| {
        sent.len() == token.len()
            && sent
                .bytes()
                .zip(token.bytes())
                .fold(0, |difference, (a, b)| difference | (a ^ b))
                == 0
    })
}

/// The token of `Bearer TOKEN`; the scheme is not case-sensitive (RFC 9110 §11.1).
fn bearer_token(credentials: &str) -> Option<&str> {
    let (scheme, token) = credentials.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::header_map;

    #[test]
    fn admin_host_check_accepts_only_addresses_in_full() {
        for host in [
            "127.0.0.1:9900",
            "127.0.0.1",
            "localhost",
            "LOCALHOST:9900",
            "[::1]:9900",
            "[2001:db8::1]",
        ] {
            assert!(is_address(host), "{host}");
        }
        for host in [
            "",
            ":9900",
            "evil.example",
            "evil.example:9900",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "[::1].evil.example",
            "[::1]evil.example:9900",
            "evil.example[::1]",
            "[[::1]]",
            "[::1",
            "::1",
            "[127.0.0.1]",
            "[localhost]",
            "127.0.0.1:9900:1",
            "[::1]:9900:1",
            "127.0.0.1:http",
            "127.0.0.1:+80",
            "127.0.0.1:65536",
            "127.0.0.1 ",
        ] {
            assert!(!is_address(host), "{host}");
        }
    }

    #[test]
    fn change_from_another_site_is_refused_whatever_field_shows_it() {
        let (host, own) = (
            ("host", "127.0.0.1:9900"),
            ("origin", "http://127.0.0.1:9900"),
        );
        let (same, typed) = (
            ("sec-fetch-site", "same-origin"),
            ("sec-fetch-site", "none"),
        );
        for fields in [vec![], vec![own], vec![own, same], vec![typed]] {
            let headers = header_map(&[vec![host], fields].concat());
            assert!(!is_cross_site(&Method::POST, &headers), "{headers:?}");
        }
        let foreign = ("origin", "http://evil.example");
        for fields in [
            vec![foreign],
            vec![own, foreign],
            vec![foreign, own],
            vec![("origin", "null")],
            vec![("origin", "127.0.0.1:9900")],
            vec![("sec-fetch-site", "cross-site")],
            vec![("sec-fetch-site", "same-site")],
            vec![own, ("sec-fetch-site", "cross-site")],
            vec![same, ("sec-fetch-site", "cross-site")],
        ] {
            let headers = header_map(&[vec![host], fields].concat());
            assert!(is_cross_site(&Method::POST, &headers), "{headers:?}");
            assert!(!is_cross_site(&Method::GET, &headers), "{headers:?}");
        }
        assert!(
            is_cross_site(&Method::POST, &header_map(&[own])),
            "no `Host`"
        );
        for name in [ORIGIN, SEC_FETCH_SITE] {
            let mut headers = header_map(&[host]);
            let unreadable = HeaderValue::from_bytes(b"http://127.0.0.1:9900\xe9").unwrap();
            headers.insert(name, unreadable);
            assert!(is_cross_site(&Method::POST, &headers), "{headers:?}");
        }
    }

    #[test]
    fn admin_token_must_match_in_full() {
        let headers = |value: &'static str| {
            HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(value))])
        };
        assert!(has_token(&headers("Bearer s3cret"), "s3cret"));
        assert!(!has_token(&headers("Bearer s3cre"), "s3cret"));
        assert!(!has_token(&headers("s3cret"), "s3cret"));
        assert!(!has_token(&HeaderMap::new(), "s3cret"));
    }
}
