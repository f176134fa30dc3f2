//! gRPC-Web: gRPC for clients in browsers, which are shown no trailers and may send no others.
//!
//! The messages of both are the same, length-prefixed. What differs (`PROTOCOL-WEB`, in gRPC's own
//! documents) is the name of the type, where the trailers are, and the form of the body:
//!
//! ```text
//!  content-type        application/grpc-web+proto      ─►  application/grpc+proto
//!  binary              messages                        ─►  as they are
//!  text                base64, in padded pieces        ─►  decoded
//!
//!  application/grpc-web+proto                          ◄─  application/grpc
//!  messages │ 0x80 │ length, big-endian u32 │ lines    ◄─  messages, trailers
//!  text: each piece in base64, padded                  ◄─  a piece
//! ```
//!
//! Nothing here waits for a whole message: however a body is cut into pieces, what comes out is the
//! same, and it comes out with the piece that completes it.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};

/// What begins the types of both protocols.
const GRPC_PREFIX: &[u8] = b"application/grpc";
/// What stands behind that where it is gRPC-Web, and where its body is text.
const WEB_INFIX: &[u8] = b"-web";
const TEXT_INFIX: &[u8] = b"-text";

/// The flag of the frame that holds the trailers, where a message would be.
const TRAILERS_FLAG: u8 = 0x80;

/// Characters of base64 that stand for three bytes.
const QUANTUM: usize = 4;

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebEncoding {
    /// As it is.
    Binary,
    /// In base64.
    Text,
}

/// A call by gRPC-Web, as its header has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcWebRequest {
    /// The form of its body.
    pub request_encoding: WebEncoding,
    /// The form that its response must have.
    pub response_encoding: WebEncoding,
    /// What its messages are: `+proto`, `+json`; empty where it does not say.
    suffix: Vec<u8>,
}

impl GrpcWebRequest {
    /// The call that the request with this header is; `None`: it is none of gRPC-Web.
    pub fn from_headers(request: &HeaderMap) -> Option<Self> {
        let kind = request.get(CONTENT_TYPE)?;
        let (form, format) = parse_web_type(kind.as_bytes())?;
        Some(Self {
            request_encoding: form,
            response_encoding: accepted_encoding(request).unwrap_or(form),
            suffix: format.to_ascii_lowercase(),
        })
    }

    /// The type of the call as gRPC has it; `None`: it cannot be written.
    pub fn grpc_content_type(&self) -> Option<HeaderValue> {
        HeaderValue::from_bytes(&[GRPC_PREFIX, &self.suffix].concat()).ok()
    }

    /// The type of its response, where a peer's is this; `None`: that is no response of gRPC. Where the
    /// peer does not say what its messages are, they are what was asked with.
    pub fn response_content_type(&self, peers: &HeaderValue) -> Option<HeaderValue> {
        let format = match parse_suffix(strip_prefix_ignore_case(peers.as_bytes(), GRPC_PREFIX)?)? {
            [] => &self.suffix,
            format => format,
        };
        let text = match self.response_encoding {
            WebEncoding::Binary => &[][..],
            WebEncoding::Text => TEXT_INFIX,
        };
        HeaderValue::from_bytes(&[GRPC_PREFIX, WEB_INFIX, text, format].concat()).ok()
    }
}

/// What follows `start`, in any case; `None`: something else is there.
fn strip_prefix_ignore_case<'a>(kind: &'a [u8], start: &[u8]) -> Option<&'a [u8]> {
    let (found, more) = kind.split_at_checked(start.len())?;
    found.eq_ignore_ascii_case(start).then_some(more)
}

/// The suffix that a type has behind its name, `+` included, without parameters; `None`: its name
/// goes on.
fn parse_suffix(kind: &[u8]) -> Option<&[u8]> {
    let end = kind.iter().position(|byte| b"; \t".contains(byte));
    let (suffix, _) = kind.split_at_checked(end.unwrap_or(kind.len()))?;
    matches!(suffix, [] | [b'+', ..]).then_some(suffix)
}

/// Form and suffix of a type of gRPC-Web.
fn parse_web_type(kind: &[u8]) -> Option<(WebEncoding, &[u8])> {
    let kind = strip_prefix_ignore_case(strip_prefix_ignore_case(kind, GRPC_PREFIX)?, WEB_INFIX)?;
    match strip_prefix_ignore_case(kind, TEXT_INFIX) {
        Some(kind) => parse_suffix(kind).map(|suffix| (WebEncoding::Text, suffix)),
        None => parse_suffix(kind).map(|suffix| (WebEncoding::Binary, suffix)),
    }
}

/// The form that a client asks for; text, where it takes both.
fn accepted_encoding(request: &HeaderMap) -> Option<WebEncoding> {
    let lines = request.get_all(ACCEPT).iter();
    let kinds = lines.flat_map(|line| line.as_bytes().split(|&byte| byte == b','));
    let forms = kinds.filter_map(|kind| parse_web_type(kind.trim_ascii()).map(|(form, _)| form));
    forms.reduce(|one, other| if one == WebEncoding::Text { one } else { other })
}

/// The text is not base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed base64")]
pub struct InvalidBase64;

/// Decodes a body of text, piece by piece. What was padded may go on behind it.
#[derive(Clone, Debug, Default)]
pub struct WebTextDecoder {
    /// The beginning of a quantum that is not complete yet.
    partial: Vec<u8>,
}

impl WebTextDecoder {
    /// The bytes that this piece of the text completes.
    pub fn decode(&mut self, piece: &[u8]) -> Result<Bytes, InvalidBase64> {
        let mut text = std::mem::take(&mut self.partial);
        text.extend_from_slice(piece);
        self.partial = text.split_off(text.len() - text.len() % QUANTUM);
        let mut bytes = Vec::with_capacity(text.len() / QUANTUM * 3);
        let mut left = text.as_slice();
        while !left.is_empty() {
            let whole = left.split_at_checked(len_through_padding(left));
            let (run, more) = whole.unwrap_or((left, &[]));
            let decoded = BASE64_STANDARD.decode_vec(run, &mut bytes);
            decoded.map_err(|_| InvalidBase64)?;
            left = more;
        }
        Ok(bytes.into())
    }

    /// That was all of the text.
    pub fn finish(&self) -> Result<(), InvalidBase64> {
        if self.partial.is_empty() {
            Ok(())
        } else {
            Err(InvalidBase64)
        }
    }
}

/// The length of this text up to the end of the first quantum that is padded.
fn len_through_padding(text: &[u8]) -> usize {
    let padding = text.iter().position(|&byte| byte == b'=');
    padding.map_or(text.len(), |at| at - at % QUANTUM + QUANTUM)
}

/// A piece of a response's body, in this form. Text is padded with every piece, so that none waits for
/// the next one.
pub fn encode_chunk(piece: Bytes, form: WebEncoding) -> Bytes {
    match form {
        WebEncoding::Binary => piece,
        WebEncoding::Text => BASE64_STANDARD.encode(piece).into(),
    }
}

/// The frame that ends a response's body: the trailers, as lines of HTTP/1. Names are in lower case
/// already.
pub fn trailers_frame(trailers: &HeaderMap) -> Bytes {
    let mut lines = Vec::new();
    for (name, value) in trailers {
        lines.extend_from_slice(name.as_str().as_bytes());
        lines.extend_from_slice(b": ");
        lines.extend_from_slice(value.as_bytes());
        lines.extend_from_slice(b"\r\n");
    }
    // Headers are bounded far below that.
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

    fn asked(kind: &'static str, accept: &[&'static str]) -> Option<GrpcWebRequest> {
        let accept = accept.iter().map(|accept| (ACCEPT, *accept));
        let lines = [(CONTENT_TYPE, kind)].into_iter().chain(accept);
        GrpcWebRequest::from_headers(&lines.fold(HeaderMap::new(), |mut map, (name, value)| {
            map.append(name, HeaderValue::from_static(value));
            map
        }))
    }

    #[test]
    fn grpc_web_content_type_selects_the_format() {
        for (kind, form, grpc) in [
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
            let call = asked(kind, &[]).unwrap();
            assert_eq!(
                (call.request_encoding, call.response_encoding),
                (form, form),
                "{kind}"
            );
            assert_eq!(call.grpc_content_type().unwrap(), grpc);
        }
        for kind in [
            "",
            "application/grpc",
            "application/grpc+proto",
            "application/grpc-we",
            "application/grpc-webs",
            "application/grpc-web-texts",
            "application/grpc-web-json",
            "text/plain",
        ] {
            assert_eq!(asked(kind, &[]), None, "{kind}");
        }
        assert_eq!(GrpcWebRequest::from_headers(&HeaderMap::new()), None);
    }

    #[test]
    fn grpc_web_response_format_follows_accept() {
        let (binary, text) = ("application/grpc-web+proto", "application/grpc-web-text");
        for (kind, accept, form) in [
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
            let call = asked(kind, accept).unwrap();
            assert_eq!(call.response_encoding, form, "{kind} {accept:?}");
        }
    }

    #[test]
    fn grpc_response_type_becomes_grpc_web_type() {
        let call = asked("application/grpc-web-text+proto", &["application/grpc-web"]).unwrap();
        for (peers, ours) in [
            ("application/grpc", Some("application/grpc-web+proto")),
            ("Application/gRPC ; x=y", Some("application/grpc-web+proto")),
            ("application/grpc+json", Some("application/grpc-web+json")),
            ("application/grpc-web", None),
            ("application/grpcs", None),
            ("text/html", None),
            ("", None),
        ] {
            let given = call.response_content_type(&HeaderValue::from_static(peers));
            assert_eq!(given, ours.map(HeaderValue::from_static), "{peers}");
        }
        let text = asked("application/grpc-web-text", &[]).unwrap();
        let given = text.response_content_type(&HeaderValue::from_static("application/grpc"));
        assert_eq!(given.unwrap(), "application/grpc-web-text");
    }

    /// The text in these pieces, decoded.
    fn decoded(pieces: &[&[u8]]) -> Result<Vec<u8>, InvalidBase64> {
        let mut decoder = WebTextDecoder::default();
        let mut bytes = Vec::new();
        for piece in pieces {
            bytes.extend(decoder.decode(piece)?);
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
            ("YR==", None), // bits that nobody meant
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

    /// The text, cut at these places.
    fn cut<'a>(text: &'a [u8], places: &[prop::sample::Index]) -> Vec<&'a [u8]> {
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
        fn grpc_web_text_encoded_in_pieces_decodes_at_any_split(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..10),
            places in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        ) {
            let encoded: Vec<u8> = pieces
                .iter()
                .flat_map(|bytes| encode_chunk(bytes.clone().into(), WebEncoding::Text))
                .collect();
            prop_assert_eq!(decoded(&cut(&encoded, &places)), Ok(pieces.concat()));
        }

        #[test]
        fn grpc_web_text_decodes_the_same_at_any_split(
            text in "[A-Da=]{0,24}",
            places in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        ) {
            let text = text.as_bytes();
            prop_assert_eq!(decoded(&cut(text, &places)), decoded(&[text]));
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
