//! Access control of the admin API.
//!
//! The control socket has mode 0600: a client that can open it is trusted. Over TCP a request needs the token, if
//! `admin.token` is set. Two rules stop other sites that are open in the operator's browser: a request that
//! changes something must not come from another origin (CSRF); and if there is no token, `Host` must be an IP
//! address, so that an attacker cannot point a name of their own here (DNS rebinding).

use std::net::IpAddr;

use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::{HeaderMap, Method, StatusCode};

use super::response::AdminResponse;

/// How an admin listener is reached, and the checks that a request must pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// The control socket; its file mode is the protection.
    Control,
    /// The admin address.
    Network {
        /// The token of `Authorization: Bearer TOKEN`; `None`: no token is needed.
        token: Option<String>,
    },
}

impl Access {
    /// # Errors
    /// 403 for a request that another site may have caused, 401 for a missing or wrong token.
    pub(super) fn check(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<(), AdminResponse> {
        let Self::Network { token } = self else {
            return Ok(());
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

/// Whether a page of another origin requests a change.
fn is_cross_site(method: &Method, headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let changes = !matches!(*method, Method::GET | Method::HEAD);
    let origin = text(ORIGIN).map(|origin| origin.split_once("://").map_or("", |(_, host)| host));
    changes && origin.is_some_and(|origin| Some(origin) != text(HOST))
}

/// Whether `Host` is an address; a request without `Host` does not come from a browser.
fn has_address_host(headers: &HeaderMap) -> bool {
    let host = headers.get(HOST).map(|host| host.to_str().unwrap_or(""));
    host.is_none_or(is_address)
}

/// Whether a `Host` is an IP address or `localhost`, with or without a port.
fn is_address(host: &str) -> bool {
    let name = crate::route::host_name(host);
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
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
    use http::HeaderValue;

    use super::*;

    #[test]
    fn admin_host_check_accepts_only_ip_addresses() {
        for host in ["127.0.0.1:9900", "localhost", "[::1]:9900", "10.0.0.1"] {
            assert!(is_address(host), "{host}");
        }
        for host in ["", "evil.example", "evil.example:9900"] {
            assert!(!is_address(host), "{host}");
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
