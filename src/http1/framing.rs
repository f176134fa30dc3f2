//! How the body of a message is delimited (RFC 9112 §6).

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderValue, Method, StatusCode, Version};

use super::lines::{FieldLines, KnownField, list_elements};
use super::refusal::Refusal;
use crate::header::{HeaderEdit, HeaderRead};

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

impl BodyLength {
    /// The length in bytes; `None`: only the end of the body shows it.
    pub fn known(self) -> Option<u64> {
        match self {
            Self::Empty => Some(0),
            Self::Exact(length) => Some(length),
            Self::Chunked | Self::UntilClose | Self::Tunnel => None,
        }
    }
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
    /// Whether the fields state a body that the status forbids. Its sender may send one after the message.
    pub states_forbidden_body: bool,
}

/// The fields that delimit a body.
pub(super) trait FramingFields {
    /// The values of `Content-Length`.
    fn lengths(&self) -> impl Iterator<Item = &[u8]>;

    /// The values of `Transfer-Encoding`.
    fn codings(&self) -> impl Iterator<Item = &[u8]>;

    fn has_coding(&self) -> bool {
        self.codings().next().is_some()
    }
}

impl FramingFields for FieldLines {
    fn lengths(&self) -> impl Iterator<Item = &[u8]> {
        self.known(KnownField::ContentLength)
    }

    fn codings(&self) -> impl Iterator<Item = &[u8]> {
        self.known(KnownField::TransferEncoding)
    }

    fn has_coding(&self) -> bool {
        self.has(KnownField::TransferEncoding)
    }
}

/// The fields of a header that another parser has read.
struct ForeignFields<'a, H>(&'a H);

impl<H: HeaderRead> FramingFields for ForeignFields<'_, H> {
    fn lengths(&self) -> impl Iterator<Item = &[u8]> {
        self.0.get_all(&CONTENT_LENGTH)
    }

    fn codings(&self) -> impl Iterator<Item = &[u8]> {
        self.0.get_all(&TRANSFER_ENCODING)
    }
}

/// Applies the framing rules of [`ResponseParser`](super::ResponseParser) and of its writer to a response that another
/// parser has read: equal lengths become one, and fields that mean nothing in such a response are removed.
///
/// # Errors
/// The end of the body is uncertain.
pub(crate) fn normalize_response(
    response: &mut impl HeaderEdit,
    version: Version,
    status: StatusCode,
    method: &Method,
) -> Result<(), Refusal> {
    let framing = response_framing(&ForeignFields(response), version, status, method)?;
    if !framing.is_canonical {
        match framing.content_length {
            Some(length) => response.set(&CONTENT_LENGTH, HeaderValue::from(length)),
            None => response.remove(&CONTENT_LENGTH),
        }
    }
    if framing.body != BodyLength::Chunked {
        response.remove(&TRANSFER_ENCODING);
    }
    Ok(())
}

/// The framing of a request (RFC 9112 §6.3).
pub(super) fn request_framing(
    fields: &impl FramingFields,
    version: Version,
) -> Result<Framing, Refusal> {
    if fields.has_coding() {
        return chunked_framing(fields, version);
    }
    let (content_length, is_canonical) = content_length(fields)?;
    Ok(Framing {
        body: content_length.map_or(BodyLength::Empty, exact),
        content_length,
        is_canonical,
        ..Framing::default()
    })
}

/// The framing of a response to a request with this method (RFC 9112 §6.3).
pub(super) fn response_framing(
    fields: &impl FramingFields,
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
            states_forbidden_body: states_body(fields),
            ..Framing::default()
        });
    }
    let framing = if fields.has_coding() {
        chunked_framing(fields, version)?
    } else {
        let (content_length, is_canonical) = content_length(fields)?;
        Framing {
            body: content_length.map_or(BodyLength::UntilClose, exact),
            content_length,
            is_canonical,
            ..Framing::default()
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

/// Whether the fields state a body that is not empty.
fn states_body(fields: &impl FramingFields) -> bool {
    fields.has_coding() || fields.lengths().any(|length| length != b"0")
}

fn exact(length: u64) -> BodyLength {
    if length == 0 {
        BodyLength::Empty
    } else {
        BodyLength::Exact(length)
    }
}

/// Accepts exactly one transfer coding, `chunked`: no other one is understood here, and none was asked for.
fn chunked_framing(fields: &impl FramingFields, version: Version) -> Result<Framing, Refusal> {
    // RFC 9112 §6.1: recipients may read such a message with different lengths, so it is refused.
    if fields.lengths().next().is_some() {
        return Err(Refusal::LengthAndCoding);
    }
    // RFC 9112 §6.1: its framing is faulty.
    if version == Version::HTTP_10 {
        return Err(Refusal::CodingInHttp10);
    }
    let mut values = fields.codings();
    match (values.next(), values.next()) {
        (Some(value), None) if value.eq_ignore_ascii_case(b"chunked") => Ok(Framing {
            body: BodyLength::Chunked,
            is_canonical: true,
            ..Framing::default()
        }),
        _ => Err(refuse_coding(fields)),
    }
}

/// RFC 9112 §6.3: a request has no certain length if its last coding is not `chunked`, so it is 400; §6.1: an
/// unknown coding below `chunked` is 501.
fn refuse_coding(fields: &impl FramingFields) -> Refusal {
    let codings = fields.codings().flat_map(list_elements);
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
fn content_length(fields: &impl FramingFields) -> Result<(Option<u64>, bool), Refusal> {
    let mut length = None;
    let mut is_canonical = true;
    for element in fields.lengths().flat_map(list_elements) {
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
