//! How the body of a message is delimited (RFC 9112 §6).

use http::{Method, StatusCode, Version};

use super::lines::{FieldLines, KnownField, list_elements};
use super::refusal::Refusal;

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyLength {
    /// No body.
    #[default]
    Empty,
    /// This many bytes.
    Exact(u64),
    /// Chunks (RFC 9112 §7.1).
    Chunked,
    /// All bytes until the connection is closed; only in responses.
    UntilClose,
    /// Not HTTP any more: a tunnel follows, after 101, or 2xx to `CONNECT`.
    Tunnel,
}

/// The framing of one message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Framing {
    /// How the body is delimited.
    pub body: BodyLength,
    /// The value of `Content-Length`. In a 304 or a response to `HEAD` it is the length of a body that is not sent.
    pub content_length: Option<u64>,
    /// Whether the fields state this length in one line, so that they can be passed on as they came.
    pub is_canonical: bool,
}

/// The framing of a request (RFC 9112 §6.3).
pub(super) fn request_framing(fields: &FieldLines, version: Version) -> Result<Framing, Refusal> {
    if fields.has(KnownField::TransferEncoding) {
        return chunked_framing(fields, version);
    }
    let (content_length, is_canonical) = content_length(fields)?;
    Ok(Framing {
        body: content_length.map_or(BodyLength::Empty, exact),
        content_length,
        is_canonical,
    })
}

/// The framing of a response to a request with this method (RFC 9112 §6.3).
pub(super) fn response_framing(
    fields: &FieldLines,
    version: Version,
    status: StatusCode,
    method: &Method,
) -> Result<Framing, Refusal> {
    let is_tunnel = status == StatusCode::SWITCHING_PROTOCOLS
        || *method == Method::CONNECT && status.is_success();
    // RFC 9112 §6.1 and RFC 9110 §8.6: framing fields are forbidden here, so they are ignored.
    if is_tunnel || status.is_informational() || status == StatusCode::NO_CONTENT {
        let body = if is_tunnel {
            BodyLength::Tunnel
        } else {
            BodyLength::Empty
        };
        return Ok(Framing {
            body,
            content_length: None,
            is_canonical: false,
        });
    }
    let framing = if fields.has(KnownField::TransferEncoding) {
        chunked_framing(fields, version)?
    } else {
        let (content_length, is_canonical) = content_length(fields)?;
        Framing {
            body: content_length.map_or(BodyLength::UntilClose, exact),
            content_length,
            is_canonical,
        }
    };
    let has_no_body = *method == Method::HEAD || status == StatusCode::NOT_MODIFIED;
    Ok(if has_no_body {
        Framing {
            body: BodyLength::Empty,
            ..framing
        }
    } else {
        framing
    })
}

fn exact(length: u64) -> BodyLength {
    if length == 0 {
        BodyLength::Empty
    } else {
        BodyLength::Exact(length)
    }
}

/// Accepts exactly one transfer coding, `chunked`: no other one is understood here, and none was asked for.
fn chunked_framing(fields: &FieldLines, version: Version) -> Result<Framing, Refusal> {
    // RFC 9112 §6.1: recipients may read such a message with different lengths, so it is refused.
    if fields.has(KnownField::ContentLength) {
        return Err(Refusal::LengthAndCoding);
    }
    // RFC 9112 §6.1: its framing is faulty.
    if version == Version::HTTP_10 {
        return Err(Refusal::CodingInHttp10);
    }
    let mut values = fields.known(KnownField::TransferEncoding);
    match (values.next(), values.next()) {
        (Some(value), None) if value.eq_ignore_ascii_case(b"chunked") => Ok(Framing {
            body: BodyLength::Chunked,
            content_length: None,
            is_canonical: true,
        }),
        _ => Err(refuse_coding(fields)),
    }
}

/// RFC 9112 §6.3: a request has no certain length if its last coding is not `chunked`, so it is 400; §6.1: an
/// unknown coding below `chunked` is 501.
fn refuse_coding(fields: &FieldLines) -> Refusal {
    let codings = fields
        .known(KnownField::TransferEncoding)
        .flat_map(list_elements);
    let is_chunked: Vec<bool> = codings
        .map(|coding| coding.eq_ignore_ascii_case(b"chunked"))
        .collect();
    match is_chunked.split_last() {
        Some((true, others)) if !others.is_empty() && !others.contains(&true) => {
            Refusal::UnsupportedCoding
        }
        _ => Refusal::ChunkedNotLast,
    }
}

/// The value of `Content-Length`, and whether it is present once and without leading zeros. Equal values count as one
/// (RFC 9112 §6.3).
fn content_length(fields: &FieldLines) -> Result<(Option<u64>, bool), Refusal> {
    let mut length = None;
    let mut is_canonical = true;
    for element in fields
        .known(KnownField::ContentLength)
        .flat_map(list_elements)
    {
        let value = parse_length(element).ok_or(Refusal::InvalidLength)?;
        if length.is_some_and(|length| length != value) {
            return Err(Refusal::DifferingLengths);
        }
        is_canonical = length.is_none() && !matches!(element, [b'0', _, ..]);
        length = Some(value);
    }
    Ok((length, is_canonical))
}

/// RFC 9110 §8.6: digits only, no sign.
fn parse_length(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = char::from(*digit).to_digit(10)?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}
