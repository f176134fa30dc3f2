//! Messages of HTTP/1: the same verdict in any pieces, and what was accepted is written and read as the same.

use std::iter;

use bytes::{Bytes, BytesMut};
use clockwise::http1::{
    BodyDecoder, BodyLength, BodyPart, ChunkLimits, FieldEdits, FieldLines, HeadLimits,
    ParseStatus, Refusal, RequestHead, RequestParser, ResponseContext, ResponseHead,
    ResponseParser, write_request, write_response,
};
use http::Method;
use rand::Rng;
use rand::rngs::StdRng;

pub(crate) const SEEDS: &[&[u8]] = &[
    b"GET /a?b HTTP/1.1\r\nHost: a\r\nConnection: close, x\r\nX: y\r\n\r\n",
    b"POST http://a:1/ HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcde",
    b"OPTIONS * HTTP/1.0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\nabc",
    b"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"3\r\nabc\r\n10;a=\"b\"\r\n0123456789abcdef\r\n0\r\nX: y\r\n\r\n",
];

pub(crate) const PIECES: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b":",
    b";",
    b",",
    b"\0",
    b"\x7f",
    b"\xe9",
    b"#",
    b"0",
    b"5",
    b"\r\n\r\n",
    b"Host: a\r\n",
    b"Content-Length: ",
    b"Transfer-Encoding: ",
    b"chunked",
    b"Connection: ",
    b"HTTP/1.0",
    b"http://",
    b"[::1]",
    b"CONNECT ",
    b"HEAD ",
    b"204",
    b"101",
    b"Upgrade: a\r\n",
    b"X: y\r\n",
    b"0\r\n",
];

const LIMITS: HeadLimits = HeadLimits {
    max_size: 512,
    max_fields: 8,
    max_target: 32,
};

const CHUNKS: ChunkLimits = ChunkLimits {
    max_extension: 16,
    max_extensions: 32,
    max_trailers: 64,
    max_trailer_fields: 3,
};

/// Fields, body, and the bytes that are left.
type Head = (Vec<(Vec<u8>, Vec<u8>)>, BodyLength, usize);

/// Data, fields of the trailer section, and the bytes that are left.
type Body = (Vec<u8>, usize, usize);

/// What became of the input as each kind of message, without what differs in most inputs.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Outcome {
    request: Result<Option<(usize, String)>, String>,
    response: Result<Option<(usize, String)>, String>,
    body: Result<Option<(usize, usize)>, String>,
}

/// Checks an input in pieces of random sizes and byte by byte.
pub(crate) fn check(input: &[u8], random: &mut StdRng) -> Outcome {
    let sizes: Vec<usize> = (0..8).map(|_| random.gen_range(1..40)).collect();
    let request = same(input, &sizes, request);
    let response = same(input, &sizes, response);
    let body = same(input, &sizes, body);
    let shape = |head: Result<Option<Head>, Refusal>| match head {
        Ok(head) => Ok(head.map(|(fields, body, _)| {
            (fields.len(), format!("{body:?}").chars().take(5).collect())
        })),
        Err(refusal) => Err(format!("{refusal:?}")),
    };
    Outcome {
        request: shape(request),
        response: shape(response),
        body: match body {
            Ok(body) => Ok(body.map(|(data, trailers, _)| (data.len().min(16), trailers))),
            Err(refusal) => Err(format!("{refusal:?}")),
        },
    }
}

/// Parses the input in pieces of these sizes.
type Parse<T> = fn(&[u8], &mut dyn Iterator<Item = usize>) -> Result<Option<T>, Refusal>;

/// The result, which must be the same in all pieces.
fn same<T: PartialEq + std::fmt::Debug>(
    input: &[u8],
    sizes: &[usize],
    parse: Parse<T>,
) -> Result<Option<T>, Refusal> {
    let at_once = parse(input, &mut iter::once(input.len()));
    assert_eq!(
        parse(input, &mut iter::repeat(1)),
        at_once,
        "{}",
        input.escape_ascii()
    );
    let in_pieces = parse(input, &mut sizes.iter().copied().cycle());
    assert_eq!(in_pieces, at_once, "{}", input.escape_ascii());
    at_once
}

fn fields_of(fields: &FieldLines) -> Vec<(Vec<u8>, Vec<u8>)> {
    let fields = fields.iter();
    fields
        .map(|field| (field.name.to_vec(), field.value.to_vec()))
        .collect()
}

fn request(input: &[u8], sizes: &mut dyn Iterator<Item = usize>) -> Result<Option<Head>, Refusal> {
    let (mut parser, mut head) = (RequestParser::default(), RequestHead::default());
    let left = feed(input, sizes, |buffer| {
        parser.parse(buffer, &LIMITS, &mut head)
    })?;
    let Some(left) = left else { return Ok(None) };
    let (mut edits, mut out) = (FieldEdits::default(), Vec::new());
    let editor = head.forward(&mut edits, head.body());
    write_request(head.method(), head.peer_target(), &editor, &mut out);
    let expected: Vec<_> = editor
        .iter()
        .map(|it| (it.name.to_vec(), it.value.to_vec()))
        .collect();
    let (mut second, limits) = (
        RequestHead::default(),
        HeadLimits {
            max_size: 4096,
            ..LIMITS
        },
    );
    let limits = HeadLimits {
        max_fields: 16,
        ..limits
    };
    let status = RequestParser::default().parse(&mut BytesMut::from(&*out), &limits, &mut second);
    assert_eq!(status, Ok(ParseStatus::Complete), "{}", out.escape_ascii());
    assert_eq!(second.body(), head.body());
    let written = fields_of(second.fields());
    assert!(
        written == expected || written[1..] == expected,
        "{}",
        out.escape_ascii()
    );
    Ok(Some((fields_of(head.fields()), head.body(), left)))
}

fn response(input: &[u8], sizes: &mut dyn Iterator<Item = usize>) -> Result<Option<Head>, Refusal> {
    let (mut parser, mut head) = (ResponseParser::default(), ResponseHead::default());
    let context = ResponseContext {
        method: &Method::GET,
        asks_upgrade: false,
    };
    let left = feed(input, sizes, |buffer| {
        parser.parse(buffer, &LIMITS, context, &mut head)
    })?;
    let Some(left) = left else { return Ok(None) };
    let (mut edits, mut out) = (FieldEdits::default(), Vec::new());
    let editor = head.forward(&mut edits, head.body());
    write_response(head.status(), Some(head.reason()), &editor, &mut out);
    let (mut second, limits) = (
        ResponseHead::default(),
        HeadLimits {
            max_size: 4096,
            ..LIMITS
        },
    );
    let status =
        ResponseParser::default().parse(&mut BytesMut::from(&*out), &limits, context, &mut second);
    assert_eq!(status, Ok(ParseStatus::Complete), "{}", out.escape_ascii());
    assert_eq!(second.body(), head.body());
    Ok(Some((fields_of(head.fields()), head.body(), left)))
}

/// The bytes that are left after a head; `None`: it is incomplete.
fn feed(
    input: &[u8],
    sizes: &mut dyn Iterator<Item = usize>,
    mut parse: impl FnMut(&mut BytesMut) -> Result<ParseStatus, Refusal>,
) -> Result<Option<usize>, Refusal> {
    let mut buffer = BytesMut::new();
    let mut rest = input;
    loop {
        let size = sizes.next().unwrap_or(rest.len()).min(rest.len());
        let (piece, left) = rest.split_at(size);
        rest = left;
        buffer.extend_from_slice(piece);
        if parse(&mut buffer)? == ParseStatus::Complete {
            return Ok(Some(buffer.len() + rest.len()));
        }
        if rest.is_empty() {
            return Ok(None);
        }
    }
}

fn body(input: &[u8], sizes: &mut dyn Iterator<Item = usize>) -> Result<Option<Body>, Refusal> {
    let mut decoder = BodyDecoder::new(BodyLength::Chunked, CHUNKS);
    let (mut data, mut buffer) = (Vec::new(), Vec::new());
    let mut rest = input;
    loop {
        let size = sizes.next().unwrap_or(rest.len()).min(rest.len());
        let (piece, left) = rest.split_at(size);
        rest = left;
        buffer.extend_from_slice(piece);
        loop {
            match decoder.decode(&buffer)? {
                BodyPart::Data(range) => {
                    data.extend_from_slice(&buffer[range.clone()]);
                    buffer.drain(..range.end);
                }
                BodyPart::NeedMore { done } => {
                    buffer.drain(..done);
                    break;
                }
                BodyPart::End { trailers } => {
                    let left = buffer.len() - trailers.end + rest.len();
                    let mut fields = FieldLines::default();
                    fields.read_trailers(Bytes::copy_from_slice(&buffer[trailers]))?;
                    return Ok(Some((data, fields.len(), left)));
                }
            }
        }
        if rest.is_empty() {
            return Ok(None);
        }
    }
}
