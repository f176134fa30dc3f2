//! How a client of gRPC is told what other clients are told by a status of HTTP, and how long it waits.
//!
//! Its own status travels in the trailers; a response without a body has them in its header
//! (`Trailers-Only`, in the protocol's description, `PROTOCOL-HTTP2`). Pure. What gRPC-Web does with them
//! is [`web`]'s.

pub mod web;

use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

/// Carries the status.
pub const STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// Says in words what went wrong.
pub const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Says for how long the client waits.
pub const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The units of [`TIMEOUT`], the finest first, in nanoseconds.
const TIMEOUT_UNITS: [(u8, u64); 6] = [
    (b'n', 1),
    (b'u', 1_000),
    (b'm', 1_000_000),
    (b'S', 1_000_000_000),
    (b'M', 60 * 1_000_000_000),
    (b'H', 3600 * 1_000_000_000),
];

/// How many digits stand before the unit, at most.
const MAX_TIMEOUT_DIGITS: usize = 8;

/// What such a client's requests have as their type, and the responses, too; gRPC-Web goes on behind it.
const CONTENT_TYPE_PREFIX: &str = "application/grpc";

/// Whether the request with this header is one of gRPC, or gRPC-Web.
pub fn is_grpc_request(headers: &HeaderMap) -> bool {
    has_grpc_type(headers, b"+-; ")
}

/// Whether the response with this header is one of gRPC: messages that say how long they are, and the
/// status in the trailers. gRPC-Web has that in the body.
pub fn has_grpc_trailers(headers: &HeaderMap) -> bool {
    has_grpc_type(headers, b"+; ")
}

/// Whether the header has [`TYPE`], alone or with one of these behind it.
fn has_grpc_type(headers: &HeaderMap, behind: &[u8]) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let Some((start, more)) =
        kind.and_then(|kind| kind.split_at_checked(CONTENT_TYPE_PREFIX.len()))
    else {
        return false;
    };
    let ends = more.first().is_none_or(|next| behind.contains(next));
    ends && start.eq_ignore_ascii_case(CONTENT_TYPE_PREFIX.as_bytes())
}

/// How long the client of gRPC with this header waits; `None`: for ever, or it is for the peer to say
/// that this is no time.
pub fn parse_timeout(headers: &HeaderMap) -> Option<Duration> {
    let written = headers.get(TIMEOUT).filter(|_| is_grpc_request(headers))?;
    let (unit, digits) = written.as_bytes().split_last()?;
    let (_, length) = TIMEOUT_UNITS.iter().find(|(known, _)| known == unit)?;
    let bounded = (1..=MAX_TIMEOUT_DIGITS).contains(&digits.len());
    let number = std::str::from_utf8(digits).ok().filter(|_| bounded)?;
    let all_digits = digits.iter().all(u8::is_ascii_digit);
    let number: u32 = number.parse().ok().filter(|_| all_digits)?;
    Some(Duration::from_nanos(*length).saturating_mul(number))
}

/// The value of [`TIMEOUT`] for this time, in the finest unit that has room for it, rounded down: no
/// peer is to work for longer than its client waits.
pub fn format_timeout(time: Duration) -> HeaderValue {
    const MAX: u128 = 99_999_999;
    let nanos = time.as_nanos();
    let numbers = TIMEOUT_UNITS.map(|(unit, length)| (nanos / u128::from(length), unit));
    let found = numbers.into_iter().find(|(number, _)| *number <= MAX);
    let (number, unit) = found.unwrap_or((MAX, b'H'));
    let text = format!("{number}{}", char::from(unit));
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("0n"))
}

/// The header of a response that ends with it, which tells of this status; `None`: the request with
/// these fields is none of gRPC.
pub fn trailers_only(
    request: &HeaderMap,
    http: StatusCode,
    message: &'static str,
) -> Option<[(HeaderName, HeaderValue); 3]> {
    let kind = request
        .get(CONTENT_TYPE)
        .filter(|_| is_grpc_request(request))?;
    Some([
        (CONTENT_TYPE, kind.clone()),
        (STATUS, HeaderValue::from(status_from_http(http))),
        (MESSAGE, HeaderValue::from_static(message)),
    ])
}

/// The trailers of a response that has begun and cannot be completed, which tell of this status;
/// `None`: a client would not look for them.
pub fn error_trailers(
    response: &HeaderMap,
    http: StatusCode,
    message: &'static str,
) -> Option<HeaderMap> {
    has_grpc_trailers(response).then(|| {
        HeaderMap::from_iter([
            (STATUS, HeaderValue::from(status_from_http(http))),
            (MESSAGE, HeaderValue::from_static(message)),
        ])
    })
}

/// The status of gRPC for one of HTTP. As its own table has it for clients
/// (`http-grpc-status-mapping`), but for what a proxy knows better than they could: whose time was
/// over, what was too large, and what was not its client's fault.
fn status_from_http(http: StatusCode) -> u16 {
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
    fn grpc_request_is_detected_by_content_type() {
        for kind in [
            "application/grpc",
            "application/grpc+proto",
            "Application/gRPC;x=y",
            "application/grpc-web+proto",
        ] {
            assert!(is_grpc_request(&asked_with(kind)), "{kind}");
        }
        for kind in [
            "",
            "application/grpcx",
            "application/gr",
            "application/json",
        ] {
            assert!(!is_grpc_request(&asked_with(kind)), "{kind}");
        }
        assert!(!is_grpc_request(&HeaderMap::new()));
    }

    fn waiting(time: &'static str) -> HeaderMap {
        let mut asked = asked_with("application/grpc");
        asked.insert(TIMEOUT, HeaderValue::from_static(time));
        asked
    }

    #[test]
    fn grpc_timeout_has_up_to_eight_digits_and_a_unit() {
        for (written, nanos) in [
            ("1n", 1),
            ("20u", 20_000),
            ("500m", 500_000_000),
            ("00000007S", 7_000_000_000),
            ("2M", 120_000_000_000),
            ("1H", 3_600_000_000_000),
            ("0S", 0),
        ] {
            let time = Duration::from_nanos(nanos);
            assert_eq!(parse_timeout(&waiting(written)), Some(time), "{written}");
        }
        let longest = Duration::from_secs(99_999_999 * 3600);
        assert_eq!(parse_timeout(&waiting("99999999H")), Some(longest));
        for written in [
            "",
            "S",
            "5",
            "5s",
            "123456789S",
            "-1S",
            "+1S",
            "1.5S",
            "1 S",
        ] {
            assert_eq!(parse_timeout(&waiting(written)), None, "{written}");
        }
        let mut other = waiting("1S");
        other.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        assert_eq!(parse_timeout(&other), None);
    }

    #[test]
    fn grpc_timeout_is_written_in_the_finest_unit_that_fits() {
        for (nanos, written) in [
            (0, "0n"),
            (99_999_999, "99999999n"),
            (100_000_000, "100000u"),
            (1_500_000_999, "1500000u"),
            (100_000_000_000, "100000m"),
            (100_000_000_000_000, "100000S"),
        ] {
            let value = format_timeout(Duration::from_nanos(nanos));
            assert_eq!(value, written);
        }
        assert_eq!(format_timeout(Duration::MAX), "99999999H");
    }

    #[test]
    fn grpc_refusal_has_its_status_in_the_header() {
        let asked = asked_with("application/grpc+proto");
        let [kind, status, message] =
            trailers_only(&asked, StatusCode::SERVICE_UNAVAILABLE, "no_peer").unwrap();
        assert_eq!(
            kind,
            (CONTENT_TYPE, "application/grpc+proto".parse().unwrap())
        );
        assert_eq!(status, (STATUS, "14".parse().unwrap()));
        assert_eq!(message, (MESSAGE, "no_peer".parse().unwrap()));
        let other = asked_with("text/plain");
        assert_eq!(
            trailers_only(&other, StatusCode::NOT_FOUND, "no_route"),
            None
        );
    }

    #[test]
    fn grpc_response_already_started_ends_with_status_trailers() {
        let ending =
            |kind| error_trailers(&asked_with(kind), StatusCode::BAD_GATEWAY, "response_cut");
        let trailers = ending("application/grpc+proto").unwrap();
        assert_eq!(trailers[STATUS], "14");
        assert_eq!(trailers[MESSAGE], "response_cut");
        assert!(ending("application/grpc").is_some());
        assert_eq!(ending("application/grpc-web+proto"), None);
        assert_eq!(ending("text/html"), None);
    }

    #[test]
    fn http_status_maps_to_a_grpc_status() {
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
            assert_eq!(
                status_from_http(StatusCode::from_u16(http).unwrap()),
                grpc,
                "{http}"
            );
        }
    }
}
