//! Translates gRPC-Web, the form of gRPC for browsers, which cannot read or send HTTP trailers.
//!
//! Both have the same length-prefixed messages. They differ in the content type, the place of the
//! trailers, and the encoding of the body (`PROTOCOL-WEB.md` of gRPC). Bodies are translated chunk
//! by chunk, never held for a whole message.
//!
//! ```text
//!              gRPC-Web (client)                                gRPC (peer)
//!  request     application/grpc-web+proto                  ─►   application/grpc+proto
//!    binary    messages                                    ─►   unchanged
//!    text      base64, padding anywhere                    ─►   decoded
//!  response    application/grpc-web+proto                  ◄─   application/grpc
//!    binary    messages, 0x80, length as u32, trailers     ◄─   messages, trailers
//!    text      the same, each chunk in padded base64       ◄─
//! ```

use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};

use crate::header::HeaderRead;

/// The start of the content type of both protocols.
const GRPC_PREFIX: &[u8] = b"application/grpc";
/// The part that follows in gRPC-Web, and the one after it for a base64 body.
const WEB_INFIX: &[u8] = b"-web";
const TEXT_INFIX: &[u8] = b"-text";

/// The flag byte of the frame with the trailers; a message has 0 or 1 there.
const TRAILERS_FLAG: u8 = 0x80;

/// The base64 characters that encode three bytes.
const QUANTUM: usize = 4;

/// The encoding of a gRPC-Web body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WebEncoding {
    /// Bytes as they are.
    Binary,
    /// Base64.
    Text,
}

/// The encodings and the message format of a gRPC-Web request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GrpcWebRequest {
    /// The encoding of the request's body.
    pub request_encoding: WebEncoding,
    /// The encoding that the response's body must have.
    pub response_encoding: WebEncoding,
    /// The message format, `+proto` or `+json`, in lower case; empty if not given.
    suffix: Vec<u8>,
}

impl GrpcWebRequest {
    /// Parses a request's fields; `None` if it is not gRPC-Web.
    pub(crate) fn from_headers(request: &impl HeaderRead) -> Option<Self> {
        let content_type = request.get(&CONTENT_TYPE)?;
        let (encoding, suffix) = parse_web_type(content_type)?;
        Some(Self {
            request_encoding: encoding,
            response_encoding: accepted_encoding(request).unwrap_or(encoding),
            suffix: suffix.to_ascii_lowercase(),
        })
    }

    /// The content type of the gRPC request; `None` if it is not a valid field value.
    pub(crate) fn grpc_content_type(&self) -> Option<HeaderValue> {
        HeaderValue::from_bytes(&[GRPC_PREFIX, &self.suffix].concat()).ok()
    }

    /// The content type of the gRPC-Web response, from that of the peer's response; `None` if the latter
    /// is not gRPC. A missing message format is that of the request.
    pub(crate) fn response_content_type(&self, from_peer: &[u8]) -> Option<HeaderValue> {
        let after_prefix = strip_prefix_ignore_case(from_peer, GRPC_PREFIX)?;
        let suffix = match parse_suffix(after_prefix)? {
            [] => &self.suffix,
            suffix => suffix,
        };
        let text_infix = match self.response_encoding {
            WebEncoding::Binary => &[][..],
            WebEncoding::Text => TEXT_INFIX,
        };
        HeaderValue::from_bytes(&[GRPC_PREFIX, WEB_INFIX, text_infix, suffix].concat()).ok()
    }
}

/// The rest of `text` after `prefix`; ASCII case is ignored.
fn strip_prefix_ignore_case<'a>(text: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// Parses the end of a content type, as in `+proto; charset=utf-8`: the suffix with its `+`, without
/// parameters. `None` if the name of the type continues.
fn parse_suffix(rest: &[u8]) -> Option<&[u8]> {
    let end = rest.iter().position(|byte| b"; \t".contains(byte));
    let (suffix, _) = rest.split_at_checked(end.unwrap_or(rest.len()))?;
    matches!(suffix, [] | [b'+', ..]).then_some(suffix)
}

/// Parses a gRPC-Web content type into its encoding and suffix.
fn parse_web_type(content_type: &[u8]) -> Option<(WebEncoding, &[u8])> {
    let rest = strip_prefix_ignore_case(content_type, GRPC_PREFIX)?;
    let rest = strip_prefix_ignore_case(rest, WEB_INFIX)?;
    match strip_prefix_ignore_case(rest, TEXT_INFIX) {
        Some(rest) => parse_suffix(rest).map(|suffix| (WebEncoding::Text, suffix)),
        None => parse_suffix(rest).map(|suffix| (WebEncoding::Binary, suffix)),
    }
}

/// The encoding in the client's `Accept`, if it names one; text if it names both.
fn accepted_encoding(request: &impl HeaderRead) -> Option<WebEncoding> {
    let lines = request.get_all(&ACCEPT);
    let types = lines.flat_map(|line| line.split(|&byte| byte == b','));
    let encodings = types.filter_map(|text| Some(parse_web_type(text.trim_ascii())?.0));
    encodings.reduce(|one, other| if one == WebEncoding::Text { one } else { other })
}

/// The body is not valid base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed base64")]
pub(crate) struct InvalidBase64;

/// Decodes a base64 body chunk by chunk. More text may follow after padding, as each sender's buffer
/// may be encoded on its own.
#[derive(Clone, Debug, Default)]
pub(crate) struct WebTextDecoder {
    /// Up to three characters of an incomplete quantum.
    partial: Vec<u8>,
}

impl WebTextDecoder {
    /// Returns the bytes that this chunk completes.
    pub(crate) fn decode(&mut self, chunk: &[u8]) -> Result<Bytes, InvalidBase64> {
        let mut text = std::mem::take(&mut self.partial);
        text.extend_from_slice(chunk);
        self.partial = text.split_off(text.len() - text.len() % QUANTUM);
        let mut bytes = Vec::with_capacity(text.len() / QUANTUM * 3);
        let mut left = text.as_slice();
        while !left.is_empty() {
            let split = left.split_at_checked(len_through_padding(left));
            let (padded, rest) = split.unwrap_or((left, &[]));
            let decoded = BASE64_STANDARD.decode_vec(padded, &mut bytes);
            decoded.map_err(|_| InvalidBase64)?;
            left = rest;
        }
        Ok(bytes.into())
    }

    /// Checks that the body does not end in the middle of a quantum.
    pub(crate) fn finish(&self) -> Result<(), InvalidBase64> {
        if self.partial.is_empty() {
            Ok(())
        } else {
            Err(InvalidBase64)
        }
    }
}

/// The length of the text through its first padded quantum; all of it if there is no padding.
fn len_through_padding(text: &[u8]) -> usize {
    let padding = text.iter().position(|&byte| byte == b'=');
    padding.map_or(text.len(), |at| at - at % QUANTUM + QUANTUM)
}

/// Encodes a chunk of a response's body. Each chunk is padded on its own, so that it can be sent
/// without the next one.
pub(crate) fn encode_chunk(chunk: Bytes, encoding: WebEncoding) -> Bytes {
    match encoding {
        WebEncoding::Binary => chunk,
        WebEncoding::Text => BASE64_STANDARD.encode(chunk).into(),
    }
}

/// The frame with the trailers that ends a response's body: HTTP/1 field lines. [`HeaderMap`] has the
/// names in lower case, as the protocol requires.
pub(crate) fn trailers_frame(trailers: &HeaderMap) -> Bytes {
    let mut lines = Vec::new();
    for (name, value) in trailers {
        lines.extend_from_slice(name.as_str().as_bytes());
        lines.extend_from_slice(b": ");
        lines.extend_from_slice(value.as_bytes());
        lines.extend_from_slice(b"\r\n");
    }
    // Never reached: headers are limited to far less than 4 GiB.
    let length = u32::try_from(lines.len()).unwrap_or(u32::MAX);
    [&[TRAILERS_FLAG][..], &length.to_be_bytes(), &lines]
        .concat()
        .into()
}

#[cfg(test)]
mod tests {
    use http::header::HeaderName;
    use proptest::prelude::*;

    use super::*;

    fn request(content_type: &'static str, accept: &[&'static str]) -> Option<GrpcWebRequest> {
        let accept = accept.iter().map(|accept| (ACCEPT, *accept));
        let lines = [(CONTENT_TYPE, content_type)].into_iter().chain(accept);
        GrpcWebRequest::from_headers(&lines.fold(HeaderMap::new(), |mut map, (name, value)| {
            map.append(name, HeaderValue::from_static(value));
            map
        }))
    }

    #[test]
    fn grpc_web_content_type_selects_the_format() {
        for (content_type, encoding, grpc) in [
            (
                "application/grpc-web",
                WebEncoding::Binary,
                "application/grpc",
            ),
            (
                "application/grpc-web+proto",
                WebEncoding::Binary,
                "application/grpc+proto",
            ),
            (
                "Application/GRPC-Web+JSON; charset=utf-8",
                WebEncoding::Binary,
                "application/grpc+json",
            ),
            (
                "application/grpc-web-text;x=y",
                WebEncoding::Text,
                "application/grpc",
            ),
            (
                "APPLICATION/grpc-web-TEXT+proto ;x",
                WebEncoding::Text,
                "application/grpc+proto",
            ),
        ] {
            let call = request(content_type, &[]).unwrap();
            assert_eq!(
                (call.request_encoding, call.response_encoding),
                (encoding, encoding),
                "{content_type}"
            );
            assert_eq!(call.grpc_content_type().unwrap(), grpc);
        }
        for content_type in [
            "",
            "application/grpc",
            "application/grpc+proto",
            "application/grpc-we",
            "application/grpc-webs",
            "application/grpc-web-texts",
            "application/grpc-web-json",
            "text/plain",
        ] {
            assert_eq!(request(content_type, &[]), None, "{content_type}");
        }
        assert_eq!(GrpcWebRequest::from_headers(&HeaderMap::new()), None);
    }

    #[test]
    fn grpc_web_response_format_follows_accept() {
        let (binary, text) = ("application/grpc-web+proto", "application/grpc-web-text");
        for (content_type, accept, encoding) in [
            (binary, &[text][..], WebEncoding::Text),
            (binary, &["*/*"], WebEncoding::Binary),
            (
                binary,
                &["text/html, Application/GRPC-web-text+proto;q=0.9"],
                WebEncoding::Text,
            ),
            (text, &["*/*"], WebEncoding::Text),
            (text, &[binary], WebEncoding::Binary),
            (text, &[binary, text], WebEncoding::Text),
            (
                text,
                &["application/grpc-web-text,application/grpc-web"],
                WebEncoding::Text,
            ),
        ] {
            let call = request(content_type, accept).unwrap();
            assert_eq!(
                call.response_encoding, encoding,
                "{content_type} {accept:?}"
            );
        }
    }

    #[test]
    fn grpc_response_type_becomes_grpc_web_type() {
        let call = request("application/grpc-web-text+proto", &["application/grpc-web"]).unwrap();
        for (from_peer, to_client) in [
            ("application/grpc", Some("application/grpc-web+proto")),
            ("Application/gRPC ; x=y", Some("application/grpc-web+proto")),
            ("application/grpc+json", Some("application/grpc-web+json")),
            ("application/grpc-web", None),
            ("application/grpcs", None),
            ("text/html", None),
            ("", None),
        ] {
            let content_type = call.response_content_type(from_peer.as_bytes());
            assert_eq!(
                content_type,
                to_client.map(HeaderValue::from_static),
                "{from_peer}"
            );
        }
        let text = request("application/grpc-web-text", &[]).unwrap();
        let content_type = text.response_content_type(b"application/grpc");
        assert_eq!(content_type.unwrap(), "application/grpc-web-text");
    }

    /// Decodes the text in these chunks.
    fn decoded(chunks: &[&[u8]]) -> Result<Vec<u8>, InvalidBase64> {
        let mut decoder = WebTextDecoder::default();
        let mut bytes = Vec::new();
        for chunk in chunks {
            bytes.extend(decoder.decode(chunk)?);
        }
        decoder.finish().map(|()| bytes)
    }

    #[test]
    fn grpc_web_text_that_is_not_base64_is_refused() {
        for (text, bytes) in [
            ("", Some("")),
            ("YQ==", Some("a")),
            ("YQ==YmM=ZGVm", Some("abcdef")),
            ("YQ==YQ==", Some("aa")),
            ("YQ", None),
            ("YQ=", None),
            ("Y===", None),
            ("====", None),
            ("YQ=a", None),
            ("Y=Q=", None),
            ("YR==", None), // the unused bits are not zero
            ("YW Jj", None),
            ("YWJ\n", None),
            ("YW-_", None),
            ("YWJj\u{e9}\u{e9}", None),
        ] {
            let expected = bytes.map(|bytes| bytes.as_bytes().to_vec());
            assert_eq!(decoded(&[text.as_bytes()]).ok(), expected, "{text}");
        }
    }

    #[test]
    fn grpc_web_trailers_are_the_last_frame() {
        let mut map = HeaderMap::new();
        assert_eq!(*trailers_frame(&map), [0x80, 0, 0, 0, 0]);
        map.append("Grpc-Status", HeaderValue::from_static("0"));
        map.append("x-twice", HeaderValue::from_static("a"));
        map.append("x-twice", HeaderValue::from_bytes(b"\xff").unwrap());
        let lines = b"grpc-status: 0\r\nx-twice: a\r\nx-twice: \xff\r\n";
        let frame = [&[0x80, 0, 0, 0, 40][..], lines].concat();
        assert_eq!(*trailers_frame(&map), frame);
        let long = HeaderValue::from_str(&"x".repeat(70_000)).unwrap();
        map.insert(HeaderName::from_static("grpc-message"), long);
        assert_eq!(trailers_frame(&map)[..5], [0x80, 0, 1, 0x11, 0xa8]);
    }

    /// Splits the text at these places.
    fn split<'a>(text: &'a [u8], places: &[prop::sample::Index]) -> Vec<&'a [u8]> {
        let mut places: Vec<_> = places.iter().map(|at| at.index(text.len() + 1)).collect();
        places.extend([0, text.len()]);
        places.sort_unstable();
        places
            .windows(2)
            .map(|ends| &text[ends[0]..ends[1]])
            .collect()
    }

    proptest! {
        #[test]
        fn grpc_web_text_encoded_in_chunks_decodes_at_any_split(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..10),
            places in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        ) {
            let encoded: Vec<u8> = chunks
                .iter()
                .flat_map(|bytes| encode_chunk(bytes.clone().into(), WebEncoding::Text))
                .collect();
            prop_assert_eq!(decoded(&split(&encoded, &places)), Ok(chunks.concat()));
        }

        #[test]
        fn grpc_web_text_decodes_the_same_at_any_split(
            text in "[A-Da=]{0,24}",
            places in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        ) {
            let text = text.as_bytes();
            prop_assert_eq!(decoded(&split(text, &places)), decoded(&[text]));
        }

        #[test]
        fn grpc_web_text_decoder_emits_whole_quanta(
            bytes in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let text = encode_chunk(bytes.clone().into(), WebEncoding::Text);
            prop_assert_eq!(text.len() % QUANTUM, 0);
            prop_assert_eq!(WebTextDecoder::default().decode(&text), Ok(bytes.into()));
        }
    }
}
