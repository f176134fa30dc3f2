//! Parses heads in the bytes of a connection.

use bytes::BytesMut;
use http::{Method, StatusCode, Version};

use super::framing::{request_framing, response_framing};
use super::head::{RequestHead, ResponseHead};
use super::lines::{FieldLines, KnownField};
use super::read_lines::parse_fields;
use super::refusal::Refusal;
use super::scan::{FieldScanner, RequestLine, RequestLineScanner, StatusLine, StatusLineScanner};
use super::target::{is_valid_host, parse_target};

/// The limits on one head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// The whole head, with empty lines before a request; bytes.
    pub max_size: usize,
    /// Field lines.
    pub max_fields: usize,
    /// The request target; bytes.
    pub max_target: usize,
}

impl HeadLimits {
    /// The most field lines of a message, of clients and of peers.
    pub const MAX_FIELDS: usize = 1000;

    /// The limits on a response, whichever version the client has.
    pub const RESPONSE: Self = Self {
        max_size: 256 * 1024,
        max_fields: Self::MAX_FIELDS,
        max_target: 0,
    };
}

/// The facts of a request on which the framing of its response depends.
#[derive(Clone, Copy, Debug)]
pub struct ResponseContext<'a> {
    /// The request's method: decides whether a body follows.
    pub method: &'a Method,
    /// Whether the request that was sent has `Upgrade`: without it, 101 is refused.
    pub asks_upgrade: bool,
}

/// Whether a head is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseStatus {
    /// The head is complete, and its bytes are removed from the buffer.
    Complete,
    /// More bytes are needed; the buffer is unchanged.
    Partial,
}

/// Parses the requests of one connection, one after another, as their bytes arrive.
///
/// Each byte is read a fixed number of times, however many pieces the request arrives in. After a refusal the parser
/// must not be used again: the start of the next request is unknown.
#[derive(Debug, Default)]
pub struct RequestParser {
    scanner: RequestLineScanner,
    line: Option<RequestLine>,
    fields: Option<FieldScanner>,
}

impl RequestParser {
    /// Parses the request at the beginning of `buffer`, which has all bytes since the last request.
    pub fn parse(
        &mut self,
        buffer: &mut BytesMut,
        limits: &HeadLimits,
        head: &mut RequestHead,
    ) -> Result<ParseStatus, Refusal> {
        let text = limited(buffer, limits);
        if self.line.is_none() {
            self.line = self.scanner.scan(text, limits.max_target)?;
        }
        let Some(line) = &self.line else {
            return partial(buffer, limits);
        };
        let (start, fields) = (line.end, &mut head.fields);
        let end = parse_fields(text, start, &mut self.fields, limits.max_fields, fields)?;
        let Some(end) = end else {
            return partial(buffer, limits);
        };
        let line = line.clone();
        *self = Self::default();
        head.fields.text = buffer.split_to(end).freeze();
        finish_request(line, head)?;
        Ok(ParseStatus::Complete)
    }
}

fn finish_request(line: RequestLine, head: &mut RequestHead) -> Result<(), Refusal> {
    let text = &head.fields.text;
    let method = text.get(line.method).unwrap_or_default();
    head.method = Method::from_bytes(method).map_err(|_| Refusal::InvalidMethod)?;
    head.version = line.version;
    head.parts = parse_target(text, line.target.clone(), &head.method)?;
    head.target = line.target;
    check_host(&head.fields, line.version)?;
    head.framing = request_framing(&head.fields, line.version)?;
    Ok(())
}

/// RFC 9112 §3.2: exactly one valid `Host`, which only HTTP/1.0 may leave out; required even if the target is a
/// whole URI.
fn check_host(fields: &FieldLines, version: Version) -> Result<(), Refusal> {
    let mut hosts = fields.known(KnownField::Host);
    match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => Err(Refusal::RepeatedHost),
        (Some(host), None) if is_valid_host(host) => Ok(()),
        (Some(_), None) => Err(Refusal::InvalidHost),
        (None, _) if version == Version::HTTP_10 => Ok(()),
        (None, _) => Err(Refusal::MissingHost),
    }
}

/// Parses the responses of one connection, one after another, as their bytes arrive; as [`RequestParser`].
#[derive(Debug, Default)]
pub struct ResponseParser {
    scanner: StatusLineScanner,
    line: Option<StatusLine>,
    fields: Option<FieldScanner>,
}

impl ResponseParser {
    /// Parses the response at the beginning of `buffer`, which has all bytes since the last response.
    pub fn parse(
        &mut self,
        buffer: &mut BytesMut,
        limits: &HeadLimits,
        request: ResponseContext<'_>,
        head: &mut ResponseHead,
    ) -> Result<ParseStatus, Refusal> {
        let text = limited(buffer, limits);
        if self.line.is_none() {
            self.line = self.scanner.scan(text)?;
        }
        let Some(line) = &self.line else {
            return partial(buffer, limits);
        };
        let (start, fields) = (line.end, &mut head.fields);
        let end = parse_fields(text, start, &mut self.fields, limits.max_fields, fields)?;
        let Some(end) = end else {
            return partial(buffer, limits);
        };
        let line = line.clone();
        *self = Self::default();
        head.fields.text = buffer.split_to(end).freeze();
        head.framing = response_framing(&head.fields, line.version, line.status, request.method)?;
        head.status = line.status;
        head.version = line.version;
        head.reason = line.reason;
        if head.status == StatusCode::SWITCHING_PROTOCOLS && !request.asks_upgrade {
            return Err(Refusal::UnaskedUpgrade);
        }
        Ok(ParseStatus::Complete)
    }
}

/// The bytes that a head may have.
fn limited<'a>(buffer: &'a BytesMut, limits: &HeadLimits) -> &'a [u8] {
    buffer.get(..max_size(limits)).unwrap_or(buffer)
}

fn partial(buffer: &BytesMut, limits: &HeadLimits) -> Result<ParseStatus, Refusal> {
    if buffer.len() > max_size(limits) {
        return Err(Refusal::HeadTooLarge);
    }
    Ok(ParseStatus::Partial)
}

/// The limit, and at most 4 GiB: offsets in a head have 32 bits.
fn max_size(limits: &HeadLimits) -> usize {
    limits.max_size.min(u32::MAX as usize)
}
