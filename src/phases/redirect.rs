//! Phase 2, on a listener with `https_redirect`: clients without TLS are redirected to HTTPS.

use http::header::LOCATION;
use http::{HeaderValue, Method, StatusCode};

use super::context::Context;
use super::request_info::RequestInfo;
use crate::downstream::LocalReply;
use crate::fault::Fault;
use crate::route::host_name;

/// The default port of `https`, which a location omits.
const HTTPS_PORT: u16 = 443;

/// The response that redirects the client; `None`: the listener serves the request itself.
///
/// # Errors
/// [`Fault::BadHost`] if the request names no host to redirect to.
pub(crate) fn redirect(ctx: &Context) -> Result<Option<LocalReply>, Fault> {
    let plain = ctx.connection().filter(|it| !it.is_encrypted());
    let port = plain.and_then(|connection| {
        ctx.snapshot
            .https_redirects
            .get(&*connection.listener_address)
    });
    match port {
        // The target of CONNECT is not a path; routing refuses the request.
        Some(port) if ctx.request.method != Method::CONNECT => {
            reply(https_location(&ctx.request, *port)?).map(Some)
        }
        _ => Ok(None),
    }
}

/// The response, 308: permanent, and the client repeats the request with the same method (RFC 9110 §15.4.9).
fn reply(location: String) -> Result<LocalReply, Fault> {
    let mut reply = LocalReply::new(StatusCode::PERMANENT_REDIRECT, "");
    let location = HeaderValue::try_from(location).map_err(|_| Fault::Internal)?;
    reply.headers.insert(LOCATION, location);
    Ok(reply)
}

fn https_location(request: &RequestInfo, port: u16) -> Result<String, Fault> {
    let port = match port {
        HTTPS_PORT => String::new(),
        other => format!(":{other}"),
    };
    let query = request.target.query().map(|query| format!("?{query}"));
    let path = match request.target.path() {
        "*" => "/",
        path => path,
    };
    let query = query.unwrap_or_default();
    match host_name(request.host_text()) {
        "" => Err(Fault::BadHost),
        host => Ok(format!("https://{host}{port}{path}{query}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request_target::RequestTarget;

    fn location(host: &'static str, target: &str, port: u16) -> Result<String, Fault> {
        let request = RequestInfo {
            host: Some(HeaderValue::from_static(host)),
            target: RequestTarget::parse(target.as_bytes()).unwrap(),
            ..RequestInfo::default()
        };
        https_location(&request, port)
    }

    #[test]
    fn redirect_keeps_host_path_and_query_and_replaces_the_port() {
        for (host, target, port, expected) in [
            ("a.test", "/x?y=z", 443, "https://a.test/x?y=z"),
            ("a.test:80", "/", 443, "https://a.test/"),
            ("a.test:80", "/", 8443, "https://a.test:8443/"),
            ("[::1]:80", "/", 8443, "https://[::1]:8443/"),
            ("a.test", "*", 443, "https://a.test/"),
        ] {
            assert_eq!(location(host, target, port).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn redirect_without_a_host_is_refused() {
        assert_eq!(location("", "/", 443), Err(Fault::BadHost));
    }
}
