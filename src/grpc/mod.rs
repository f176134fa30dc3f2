//! The parts of gRPC that a proxy must know: its content type, its status and its timeout
//! (`PROTOCOL-HTTP2.md` of gRPC).
//!
//! A gRPC client reads the status from the trailers; a response without a body has it in the header
//! ("Trailers-Only"). The proxy tells a gRPC client of an error in this form, not by an HTTP status.
//! [`web`] translates gRPC-Web. Pure.

pub(crate) mod web;

use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::header::HeaderRead;

/// The field with the status code, a decimal number.
pub(crate) const STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// The field with the error text for people.
pub(crate) const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// The request field with the time that the client waits.
pub(crate) const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The units of [`TIMEOUT`] and their length in nanoseconds, the finest first.
const TIMEOUT_UNITS: [(u8, u64); 6] = [
    (b'n', 1),
    (b'u', 1_000),
    (b'm', 1_000_000),
    (b'S', 1_000_000_000),
    (b'M', 60 * 1_000_000_000),
    (b'H', 3600 * 1_000_000_000),
];

/// The most digits before the unit.
const MAX_TIMEOUT_DIGITS: usize = 8;

/// The content type of gRPC requests and responses; that of gRPC-Web begins with it.
const CONTENT_TYPE_PREFIX: &str = "application/grpc";

/// Whether the request with these fields is gRPC or gRPC-Web.
pub(crate) fn is_grpc_request(headers: &impl HeaderRead) -> bool {
    has_grpc_type(headers, b"+-; ")
}

/// Whether the response with these fields is gRPC, with the status in the trailers. gRPC-Web is not: it
/// has the status in the body.
pub(crate) fn has_grpc_trailers(headers: &impl HeaderRead) -> bool {
    has_grpc_type(headers, b"+; ")
}

/// Whether the content type is [`CONTENT_TYPE_PREFIX`], alone or followed by one of these bytes.
fn has_grpc_type(headers: &impl HeaderRead, separators: &[u8]) -> bool {
    let content_type = headers.get(&CONTENT_TYPE);
    let Some((start, rest)) =
        content_type.and_then(|value| value.split_at_checked(CONTENT_TYPE_PREFIX.len()))
    else {
        return false;
    };
    let ends = rest.first().is_none_or(|next| separators.contains(next));
    ends && start.eq_ignore_ascii_case(CONTENT_TYPE_PREFIX.as_bytes())
}

/// Parses the timeout of a gRPC request; `None` if it has none, or a malformed one, which is left to
/// the peer to reject.
pub(crate) fn parse_timeout(headers: &impl HeaderRead) -> Option<Duration> {
    let value = headers.get(&TIMEOUT).filter(|_| is_grpc_request(headers))?;
    let (unit, digits) = value.split_last()?;
    let (_, unit_nanos) = TIMEOUT_UNITS.iter().find(|(known, _)| known == unit)?;
    let well_formed =
        (1..=MAX_TIMEOUT_DIGITS).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit); // `parse` alone would accept a sign
    let number = std::str::from_utf8(digits).ok().filter(|_| well_formed)?;
    let number: u32 = number.parse().ok()?;
    Some(Duration::from_nanos(*unit_nanos).saturating_mul(number))
}

/// Formats a value of [`TIMEOUT`] in the finest unit that fits into eight digits. It is rounded down,
/// because a peer must not work for longer than its client waits.
pub(crate) fn format_timeout(timeout: Duration) -> HeaderValue {
    const MAX: u128 = 99_999_999;
    let nanos = timeout.as_nanos();
    let numbers = TIMEOUT_UNITS.map(|(unit, unit_nanos)| (nanos / u128::from(unit_nanos), unit));
    let finest = numbers.into_iter().find(|(number, _)| *number <= MAX);
    let (number, unit) = finest.unwrap_or((MAX, b'H'));
    let text = format!("{number}{}", char::from(unit));
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("0n"))
}

/// The status codes that a proxy sends (`statuscodes.md` of gRPC).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrpcStatus {
    /// The client ended the call.
    Cancelled = 1,
    /// A time limit was passed.
    DeadlineExceeded = 4,
    /// The client may not make the call.
    PermissionDenied = 7,
    /// A size limit was passed.
    ResourceExhausted = 8,
    /// No server has the method.
    Unimplemented = 12,
    /// The request is malformed, or the proxy failed.
    Internal = 13,
    /// No server is there; a later call may succeed.
    Unavailable = 14,
}

impl From<GrpcStatus> for HeaderValue {
    fn from(status: GrpcStatus) -> Self {
        Self::from(status as u16)
    }
}

/// The fields of a Trailers-Only response to a request of this content type.
pub(crate) fn trailers_only(
    content_type: &HeaderValue,
    status: GrpcStatus,
    message: &'static str,
) -> [(HeaderName, HeaderValue); 3] {
    [
        (CONTENT_TYPE, content_type.clone()),
        (STATUS, status.into()),
        (MESSAGE, HeaderValue::from_static(message)),
    ]
}

/// The trailers that end a response which has begun and cannot be completed; `None` if the response with
/// these fields is not gRPC, so its client would ignore them.
pub(crate) fn error_trailers(
    response: &HeaderMap,
    status: GrpcStatus,
    message: &'static str,
) -> Option<HeaderMap> {
    has_grpc_trailers(response).then(|| {
        HeaderMap::from_iter([
            (STATUS, status.into()),
            (MESSAGE, HeaderValue::from_static(message)),
        ])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request_of_type(content_type: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))])
    }

    #[test]
    fn grpc_request_is_detected_by_content_type() {
        for content_type in [
            "application/grpc",
            "application/grpc+proto",
            "Application/gRPC;x=y",
            "application/grpc-web+proto",
        ] {
            assert!(
                is_grpc_request(&request_of_type(content_type)),
                "{content_type}"
            );
        }
        for content_type in [
            "",
            "application/grpcx",
            "application/gr",
            "application/json",
        ] {
            assert!(
                !is_grpc_request(&request_of_type(content_type)),
                "{content_type}"
            );
        }
        assert!(!is_grpc_request(&HeaderMap::new()));
    }

    fn request_with_timeout(time: &'static str) -> HeaderMap {
        let mut request = request_of_type("application/grpc");
        request.insert(TIMEOUT, HeaderValue::from_static(time));
        request
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
            assert_eq!(
                parse_timeout(&request_with_timeout(written)),
                Some(time),
                "{written}"
            );
        }
        let longest = Duration::from_secs(99_999_999 * 3600);
        assert_eq!(
            parse_timeout(&request_with_timeout("99999999H")),
            Some(longest)
        );
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
            assert_eq!(
                parse_timeout(&request_with_timeout(written)),
                None,
                "{written}"
            );
        }
        let mut other = request_with_timeout("1S");
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
        let content_type = HeaderValue::from_static("application/grpc+proto");
        assert_eq!(
            trailers_only(&content_type, GrpcStatus::Unavailable, "no_route"),
            [
                (CONTENT_TYPE, content_type.clone()),
                (STATUS, HeaderValue::from_static("14")),
                (MESSAGE, HeaderValue::from_static("no_route")),
            ]
        );
    }

    #[test]
    fn grpc_response_already_started_ends_with_status_trailers() {
        let trailers_for = |content_type| {
            error_trailers(
                &request_of_type(content_type),
                GrpcStatus::DeadlineExceeded,
                "internal",
            )
        };
        let trailers = trailers_for("application/grpc+proto").unwrap();
        assert_eq!(trailers[STATUS], "4");
        assert_eq!(trailers[MESSAGE], "internal");
        assert!(trailers_for("application/grpc").is_some());
        assert_eq!(trailers_for("application/grpc-web+proto"), None);
        assert_eq!(trailers_for("text/html"), None);
    }
}
