//! Tests whole messages: each refusal, and the same result as a slow reference parser, however a message is split.

mod bodies;
mod edits;
mod lengths;
mod reference;
mod requests;
mod responses;

use std::iter;

use bytes::BytesMut;
use http::Method;

use super::*;

const LIMITS: HeadLimits = HeadLimits {
    max_size: 4096,
    max_fields: 40,
    max_target: 100,
};

/// A head and the number of bytes after it; `None`: it is incomplete.
type Verdict<T> = Result<Option<(T, usize)>, Refusal>;

/// Parses a request that arrives in pieces of these sizes.
fn request_in_pieces(text: &[u8], sizes: impl IntoIterator<Item = usize>) -> Verdict<RequestHead> {
    let mut parser = RequestParser::default();
    let mut head = RequestHead::default();
    let parse = |buffer: &mut BytesMut| {
        let status = parser.parse(buffer, &LIMITS, &mut head)?;
        Ok((status == ParseStatus::Complete).then(|| head.clone()))
    };
    in_pieces(text, sizes, parse)
}

/// Parses a response to a request with this method, without `Upgrade`, that arrives in pieces of these sizes.
fn response_in_pieces(
    text: &[u8],
    sizes: impl IntoIterator<Item = usize>,
    method: &Method,
) -> Verdict<ResponseHead> {
    let mut parser = ResponseParser::default();
    let mut head = ResponseHead::default();
    let context = ResponseContext {
        method,
        asks_upgrade: false,
    };
    let parse = |buffer: &mut BytesMut| {
        let status = parser.parse(buffer, &LIMITS, context, &mut head)?;
        Ok((status == ParseStatus::Complete).then(|| head.clone()))
    };
    in_pieces(text, sizes, parse)
}

fn in_pieces<T>(
    text: &[u8],
    sizes: impl IntoIterator<Item = usize>,
    mut parse: impl FnMut(&mut BytesMut) -> Result<Option<T>, Refusal>,
) -> Verdict<T> {
    let mut buffer = BytesMut::new();
    let mut rest = text;
    for size in sizes {
        let (piece, left) = rest.split_at(size.min(rest.len()));
        rest = left;
        buffer.extend_from_slice(piece);
        if let Some(head) = parse(&mut buffer)? {
            return Ok(Some((head, buffer.len() + rest.len())));
        }
        if rest.is_empty() {
            break;
        }
    }
    Ok(None)
}

/// The result for a request that arrives at once; it must be the same if the request arrives byte by byte.
fn request(text: &str) -> Result<RequestHead, Refusal> {
    let at_once = request_in_pieces(text.as_bytes(), [text.len()]);
    let by_bytes = request_in_pieces(text.as_bytes(), iter::repeat(1));
    assert_eq!(by_bytes.as_ref().err(), at_once.as_ref().err(), "{text:?}");
    at_once.map(|head| head.expect("complete").0)
}

/// As [`request`], for a response.
fn response(text: &str, method: &Method) -> Result<ResponseHead, Refusal> {
    let at_once = response_in_pieces(text.as_bytes(), [text.len()], method);
    let by_bytes = response_in_pieces(text.as_bytes(), iter::repeat(1), method);
    assert_eq!(by_bytes.as_ref().err(), at_once.as_ref().err(), "{text:?}");
    at_once.map(|head| head.expect("complete").0)
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}
