//! Trailer sections (RFC 9112 §7.1.2).

use bytes::Bytes;
use http::header::TE;
use http::{HeaderMap, HeaderName, HeaderValue, Version};

use super::head::RequestHead;
use super::lines::{Field, FieldLines, KnownField, list_elements};
use super::read_lines::parse_fields;
use super::refusal::Refusal;
use crate::header::HeaderRead;

impl FieldLines {
    /// Reads the trailer section that [`BodyPart::End`](super::BodyPart::End) shows. Drops the fields that must not be in
    /// it: those of framing, routing, authentication, content, and modifiers of requests and responses (RFC 9110 §6.5.1).
    pub fn read_trailers(&mut self, section: Bytes) -> Result<(), Refusal> {
        self.clear();
        parse_fields(&section, 0, &mut None, usize::MAX, self)?;
        self.text = section;
        let text = &self.text;
        self.lines.retain(|line| is_trailer(line.field(text).name));
        Ok(())
    }

    /// The fields as a map, which shares the memory of the message. Names lose their case.
    ///
    /// # Errors
    /// A name or value that the types of `http` refuse, or more fields than a map holds.
    pub(crate) fn to_map(&self) -> Result<HeaderMap, Refusal> {
        let mut map = HeaderMap::new();
        for field in self.iter() {
            let name = HeaderName::from_bytes(field.name);
            let name = name.map_err(|_| Refusal::InvalidFieldName)?;
            let value = HeaderValue::from_maybe_shared(self.text.slice_ref(field.value));
            let value = value.map_err(|_| Refusal::InvalidFieldValue)?;
            let appended = map.try_append(name, value);
            appended.map_err(|_| Refusal::TrailersTooLarge)?;
        }
        Ok(map)
    }
}

/// The fields of a map that a trailer section may have.
pub(crate) fn trailer_fields(trailers: &HeaderMap) -> impl Iterator<Item = Field<'_>> {
    let fields = trailers.iter().map(|(name, value)| Field {
        name: name.as_str().as_bytes(),
        value: value.as_bytes(),
    });
    fields.filter(|field| is_trailer(field.name))
}

/// Whether the client accepts trailers in the response (RFC 9110 §10.1.4).
pub(crate) fn accepts_trailers(headers: &impl HeaderRead, version: Version) -> bool {
    version >= Version::HTTP_11 && lists_trailers(headers.get_all(&TE))
}

impl RequestHead {
    /// Whether the client accepts trailers in the response (RFC 9110 §10.1.4).
    pub fn accepts_trailers(&self) -> bool {
        self.version == Version::HTTP_11 && lists_trailers(self.fields.known(KnownField::Te))
    }
}

fn lists_trailers<'a>(lists: impl Iterator<Item = &'a [u8]>) -> bool {
    let mut codings = lists.flat_map(list_elements);
    codings.any(|coding| coding.eq_ignore_ascii_case(b"trailers"))
}

/// The names that no trailer may have, sorted.
const FORBIDDEN: [&str; 43] = [
    "age",
    "authorization",
    "cache-control",
    "client-cert",
    "client-cert-chain",
    "connection",
    "content-encoding",
    "content-length",
    "content-location",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "expect",
    "expires",
    "forwarded",
    "host",
    "http2-settings",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "keep-alive",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "retry-after",
    "set-cookie",
    "strict-transport-security",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "x-real-ip",
];

/// Whether a trailer may have this name. Many servers read `_` in a name as `-`, so both spellings are one name here.
pub(crate) fn is_trailer(name: &[u8]) -> bool {
    let folded = || {
        name.iter().map(|byte| match byte {
            b'_' => b'-',
            byte => byte.to_ascii_lowercase(),
        })
    };
    let is_forbidden = FORBIDDEN
        .binary_search_by(|it| it.bytes().cmp(folded()))
        .is_ok();
    let prefix = b"x-forwarded-";
    !is_forbidden && !folded().take(prefix.len()).eq(prefix.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forbidden_trailers_are_sorted() {
        assert!(FORBIDDEN.is_sorted());
    }

    #[test]
    fn trailer_name_is_judged_in_any_spelling() {
        for name in [
            "Host",
            "TRANSFER-ENCODING",
            "transfer_encoding",
            "X_Forwarded-For",
            "www-authenticate",
        ] {
            assert!(!is_trailer(name.as_bytes()), "{name}");
        }
        // An `ETag` may be computed with the body (RFC 9110 §8.8.3).
        for name in ["grpc-status", "ETag", "Repr-Digest", "x-forwarded", "X-Sum"] {
            assert!(is_trailer(name.as_bytes()), "{name}");
        }
    }
}
