//! The heads of requests and responses.

use std::ops::Range;

use bytes::Bytes;
use http::{Method, StatusCode, Version};

use super::connection::ConnectionOptions;
use super::framing::{BodyLength, Framing};
use super::lines::{FieldLines, KnownField};
use super::target::{TargetForm, TargetParts};

/// The head of a request that [`RequestParser`](super::RequestParser) has accepted: it has at most one `Host`, and the
/// end of its body is certain. [`clear`](Self::clear) keeps the memory of the fields for the next request.
#[derive(Clone, Debug, Default)]
pub struct RequestHead {
    pub(super) method: Method,
    pub(super) version: Version,
    pub(super) target: Range<usize>,
    pub(super) parts: TargetParts,
    pub(super) framing: Framing,
    pub(super) fields: FieldLines,
}

impl RequestHead {
    /// The method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The version: HTTP/1.0 or HTTP/1.1.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The target as it came, in any form.
    pub fn target(&self) -> &str {
        // The parser has checked that it is UTF-8.
        let target = self.fields.text.get(self.target.clone());
        target.and_then(|it| str::from_utf8(it).ok()).unwrap_or("")
    }

    /// As [`target`](Self::target), sharing the head's memory.
    pub fn target_bytes(&self) -> Bytes {
        self.fields.text.slice(self.target.clone())
    }

    /// The form of the target.
    pub fn target_form(&self) -> TargetForm {
        self.parts.form
    }

    /// The target to send to a peer, in origin-form (RFC 9112 §3.2.1), or `*`; that of `CONNECT` is unchanged.
    pub fn peer_target(&self) -> &str {
        match &self.parts.rewritten {
            Some(target) => str::from_utf8(target).unwrap_or("/"),
            None => self.target(),
        }
    }

    /// As [`peer_target`](Self::peer_target), sharing the head's memory.
    pub fn peer_target_bytes(&self) -> Bytes {
        match &self.parts.rewritten {
            Some(target) => target.clone(),
            None => self.fields.text.slice(self.target.clone()),
        }
    }

    /// The host, with its port if it has one: the target's, else that of `Host` (RFC 9112 §3.3). `None`: a request
    /// of HTTP/1.0 has neither. The host may be empty.
    pub fn host(&self) -> Option<&str> {
        let host = self.fields.text.get(self.host_range()?)?;
        str::from_utf8(host).ok()
    }

    /// As [`host`](Self::host), sharing the head's memory.
    pub fn host_bytes(&self) -> Option<Bytes> {
        Some(self.fields.text.slice(self.host_range()?))
    }

    /// The host and port in the target; `None`: it has none.
    pub(super) fn target_host(&self) -> Option<&[u8]> {
        self.fields.text.get(self.parts.authority.clone()?)
    }

    fn host_range(&self) -> Option<Range<usize>> {
        let of_target = self.parts.authority.clone();
        of_target.or_else(|| self.fields.known_range(KnownField::Host))
    }

    /// The fields, as they came.
    pub fn fields(&self) -> &FieldLines {
        &self.fields
    }

    /// How the body is delimited.
    pub fn body(&self) -> BodyLength {
        self.framing.body
    }

    /// How the body is delimited, and whether the fields for it can be passed on unchanged.
    pub fn framing(&self) -> &Framing {
        &self.framing
    }

    /// Whether the client waits for 100 before it sends the body. HTTP/1.0 has no `Expect` (RFC 9110 §10.1.1).
    pub fn expects_continue(&self) -> bool {
        self.version == Version::HTTP_11
            && self
                .fields
                .known(KnownField::Expect)
                .any(|value| value.eq_ignore_ascii_case(b"100-continue"))
    }

    /// The size of the head on the wire; bytes.
    pub fn size(&self) -> usize {
        self.fields.text.len()
    }

    /// Forgets the request and releases its bytes; the memory for fields is kept.
    pub fn clear(&mut self) {
        self.method = Method::GET;
        self.target = 0..0;
        self.parts = TargetParts::default();
        self.framing = Framing::default();
        self.fields.clear();
    }
}

/// The head of a response that [`ResponseParser`](super::ResponseParser) has accepted.
#[derive(Clone, Debug, Default)]
pub struct ResponseHead {
    pub(super) status: StatusCode,
    pub(super) version: Version,
    pub(super) reason: Range<usize>,
    pub(super) framing: Framing,
    pub(super) fields: FieldLines,
}

impl ResponseHead {
    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The peer's version: HTTP/1.0 or HTTP/1.1.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The reason phrase, as it came; may be empty.
    pub fn reason(&self) -> &[u8] {
        let reason = self.fields.text.get(self.reason.clone());
        reason.unwrap_or_default()
    }

    /// The fields, as they came.
    pub fn fields(&self) -> &FieldLines {
        &self.fields
    }

    /// How the body is delimited.
    pub fn body(&self) -> BodyLength {
        self.framing.body
    }

    /// How the body is delimited, and whether the fields for it can be passed on unchanged.
    pub fn framing(&self) -> &Framing {
        &self.framing
    }

    /// Whether the peer keeps the connection open for another request, and sends nothing of this response after its end.
    pub fn leaves_persistent(&self) -> bool {
        let has_certain_end =
            self.body() != BodyLength::UntilClose && !self.framing.states_forbidden_body;
        has_certain_end && ConnectionOptions::of(&self.fields).persists(self.version)
    }

    /// Whether another response to the same request follows: 1xx, except 101 (RFC 9110 §15.2).
    pub fn is_interim(&self) -> bool {
        self.status.is_informational() && self.status != StatusCode::SWITCHING_PROTOCOLS
    }

    /// The size of the head on the wire; bytes.
    pub fn size(&self) -> usize {
        self.fields.text.len()
    }

    /// The memory that [`clear`](Self::clear) keeps; bytes.
    pub fn capacity(&self) -> usize {
        self.fields.capacity()
    }

    /// Forgets the response and releases its bytes; the memory for fields is kept.
    pub fn clear(&mut self) {
        self.status = StatusCode::OK;
        self.reason = 0..0;
        self.framing = Framing::default();
        self.fields.clear();
    }
}
