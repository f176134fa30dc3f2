//! How a client of gRPC is told what other clients are told by a status of HTTP.
//!
//! Its own status travels in the trailers; a response without a body has them in its header
//! (`Trailers-Only`, in the protocol's description). Pure.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

/// Carries the status.
pub const STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// Says in words what went wrong.
pub const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// What such a client's requests have as their type, and the responses, too; gRPC-Web goes on behind it.
const TYPE: &str = "application/grpc";

/// Whether the request with this header is one of gRPC, or gRPC-Web.
fn is_spoken(headers: &HeaderMap) -> bool {
    has_type(headers, b"+-; ")
}

/// Whether the response with this header is one of gRPC: messages that say how long they are, and the
/// status in the trailers. gRPC-Web has that in the body.
pub fn has_trailers(headers: &HeaderMap) -> bool {
    has_type(headers, b"+; ")
}

/// Whether the header has [`TYPE`], alone or with one of these behind it.
fn has_type(headers: &HeaderMap, behind: &[u8]) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let Some((start, more)) = kind.and_then(|kind| kind.split_at_checked(TYPE.len())) else {
        return false;
    };
    let ends = more.first().is_none_or(|next| behind.contains(next));
    ends && start.eq_ignore_ascii_case(TYPE.as_bytes())
}

/// The header of a response that ends with it, which tells of this status; `None`: the request with
/// these fields is none of gRPC.
pub fn refusal(
    request: &HeaderMap,
    http: StatusCode,
    message: &'static str,
) -> Option<[(HeaderName, HeaderValue); 3]> {
    let kind = request.get(CONTENT_TYPE).filter(|_| is_spoken(request))?;
    Some([
        (CONTENT_TYPE, kind.clone()),
        (STATUS, HeaderValue::from(status(http))),
        (MESSAGE, HeaderValue::from_static(message)),
    ])
}

/// The trailers of a response that has begun and cannot be completed, which tell of this status;
/// `None`: a client would not look for them.
pub fn ending(response: &HeaderMap, http: StatusCode, message: &'static str) -> Option<HeaderMap> {
    has_trailers(response).then(|| {
        HeaderMap::from_iter([
            (STATUS, HeaderValue::from(status(http))),
            (MESSAGE, HeaderValue::from_static(message)),
        ])
    })
}

/// The status of gRPC for one of HTTP. As its own table has it for clients
/// (`http-grpc-status-mapping`), but for what a proxy knows better than they could: whose time was
/// over, what was too large, and what was not its client's fault.
fn status(http: StatusCode) -> u16 {
    match http.as_u16() {
        408 | 504 => 4,              // DEADLINE_EXCEEDED
        403 => 7,                    // PERMISSION_DENIED
        413 | 414 | 431 => 8,        // RESOURCE_EXHAUSTED
        404 | 405 => 12,             // UNIMPLEMENTED
        400 | 500 => 13,             // INTERNAL
        421 | 429 | 502 | 503 => 14, // UNAVAILABLE
        401 => 16,                   // UNAUTHENTICATED
        _ => 2,                      // UNKNOWN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked_with(kind: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))])
    }

    #[test]
    fn who_speaks_it_says_so() {
        for kind in [
            "application/grpc",
            "application/grpc+proto",
            "Application/gRPC;x=y",
            "application/grpc-web+proto",
        ] {
            assert!(is_spoken(&asked_with(kind)), "{kind}");
        }
        for kind in [
            "",
            "application/grpcx",
            "application/gr",
            "application/json",
        ] {
            assert!(!is_spoken(&asked_with(kind)), "{kind}");
        }
        assert!(!is_spoken(&HeaderMap::new()));
    }

    #[test]
    fn the_status_is_in_the_header() {
        let asked = asked_with("application/grpc+proto");
        let [kind, status, message] =
            refusal(&asked, StatusCode::SERVICE_UNAVAILABLE, "no_peer").unwrap();
        assert_eq!(
            kind,
            (CONTENT_TYPE, "application/grpc+proto".parse().unwrap())
        );
        assert_eq!(status, (STATUS, "14".parse().unwrap()));
        assert_eq!(message, (MESSAGE, "no_peer".parse().unwrap()));
        let other = asked_with("text/plain");
        assert_eq!(refusal(&other, StatusCode::NOT_FOUND, "no_route"), None);
    }

    #[test]
    fn a_response_that_has_begun_ends_with_it() {
        let ending = |kind| ending(&asked_with(kind), StatusCode::BAD_GATEWAY, "response_cut");
        let trailers = ending("application/grpc+proto").unwrap();
        assert_eq!(trailers[STATUS], "14");
        assert_eq!(trailers[MESSAGE], "response_cut");
        assert!(ending("application/grpc").is_some());
        assert_eq!(ending("application/grpc-web+proto"), None);
        assert_eq!(ending("text/html"), None);
    }

    #[test]
    fn every_status_has_one() {
        for (http, grpc) in [
            (400, 13),
            (404, 12),
            (408, 4),
            (413, 8),
            (418, 2),
            (502, 14),
            (503, 14),
            (504, 4),
        ] {
            assert_eq!(status(StatusCode::from_u16(http).unwrap()), grpc, "{http}");
        }
    }
}
