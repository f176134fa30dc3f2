use bytes::BytesMut;
use http::Method;

use crate::http1::*;

const LIMITS: HeadLimits = HeadLimits {
    max_size: 4096,
    max_fields: 40,
    max_target: 100,
    max_interim: 2,
};

/// The verdict on a request that comes in pieces: the head and the bytes behind it, `None` if it is incomplete.
pub(super) fn request_in_pieces(
    text: &[u8],
    sizes: impl Iterator<Item = usize>,
    limits: &HeadLimits,
) -> Result<Option<(RequestHead, usize)>, Refusal> {
    let mut buffer = BytesMut::new();
    let mut parser = RequestParser::default();
    let mut head = RequestHead::default();
    let mut rest = text;
    for size in sizes {
        let (piece, left) = rest.split_at(size.min(rest.len()));
        rest = left;
        buffer.extend_from_slice(piece);
        if parser.parse(&mut buffer, limits, &mut head)? == ParseStatus::Complete {
            return Ok(Some((head, buffer.len() + rest.len())));
        }
        if rest.is_empty() {
            break;
        }
    }
    Ok(None)
}

fn request(text: &str) -> Result<RequestHead, Refusal> {
    let at_once = request_in_pieces(text.as_bytes(), [text.len()].into_iter(), &LIMITS);
    let by_bytes = request_in_pieces(text.as_bytes(), std::iter::repeat(1), &LIMITS);
    let verdict = |it: &Result<Option<(RequestHead, usize)>, Refusal>| it.as_ref().err().copied();
    assert_eq!(verdict(&at_once), verdict(&by_bytes), "{text:?}");
    at_once.map(|head| head.expect("complete").0)
}

fn refused(text: &str) -> Refusal {
    let by_bytes = request_in_pieces(text.as_bytes(), std::iter::repeat(1), &LIMITS);
    let at_once = request_in_pieces(text.as_bytes(), [text.len()].into_iter(), &LIMITS);
    let refusal = at_once.expect_err(text);
    assert_eq!(by_bytes.expect_err(text), refusal, "{text:?}");
    refusal
}

fn response(text: &str, method: &Method) -> Result<ResponseHead, Refusal> {
    let mut buffer = BytesMut::from(text);
    let mut head = ResponseHead::default();
    let context = ResponseContext {
        method,
        asks_upgrade: false,
    };
    let status = ResponseParser::default().parse(&mut buffer, &LIMITS, context, &mut head)?;
    assert_eq!(status, ParseStatus::Complete, "{text:?}");
    Ok(head)
}

#[test]
fn request_head_is_read_with_its_fields() {
    let text = "GET /a?b HTTP/1.1\r\nHost: a.test\r\nX-A:b \t\r\nx-a:\r\nX-A: c d\r\n\r\n";
    let head = request(text).unwrap();
    assert_eq!(head.method(), Method::GET);
    assert_eq!(head.target(), "/a?b");
    assert_eq!(head.host(), Some("a.test"));
    assert_eq!(head.size(), text.len());
    let values: Vec<_> = head.fields().get_all("x-a").collect();
    assert_eq!(values, [b"b".as_slice(), b"", b"c d"]);
    assert_eq!(
        head.fields().get(http::header::HOST),
        Some(b"a.test".as_slice())
    );
    let mut edits = FieldEdits::default();
    let mut editor = edits.edit(head.fields());
    editor.set("x-b", "1").unwrap();
    let mut out = Vec::new();
    write_request(head.method(), head.peer_target(), &editor, &mut out);
    let expected =
        "GET /a?b HTTP/1.1\r\nHost: a.test\r\nX-A: b\r\nx-a: \r\nX-A: c d\r\nx-b: 1\r\n\r\n";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

#[test]
fn malformed_request_is_refused_for_its_first_wrong_byte() {
    let cases = [
        ("G(T / HTTP/1.1\r\n", Refusal::InvalidMethod),
        ("GET\r\n", Refusal::InvalidMethod),
        ("\n", Refusal::BareLf),
        ("\r\r", Refusal::BareCr),
        ("GET /\r\n", Refusal::InvalidVersion),
        ("GET  / HTTP/1.1\r\n", Refusal::InvalidTarget),
        ("GET /\t HTTP/1.1\r\n", Refusal::InvalidTarget),
        ("GET /#a HTTP/1.1\r\n", Refusal::InvalidTarget),
        ("GET / HTTP/1.1 \r\n", Refusal::InvalidVersion),
        ("GET / http/1.1\r\n", Refusal::InvalidVersion),
        ("GET / HTTP/1.1\n", Refusal::BareLf),
        ("GET / HTTP/2.0\r\n", Refusal::UnsupportedVersion),
        ("PRI * HTTP/2.0\r\n", Refusal::UnsupportedVersion),
        ("GET / HTTP/1.1\r\n a: b\r\n", Refusal::FoldedLine),
        ("GET / HTTP/1.1\r\na : b\r\n", Refusal::SpaceBeforeColon),
        ("GET / HTTP/1.1\r\na\r\n", Refusal::InvalidFieldName),
        ("GET / HTTP/1.1\r\n: b\r\n", Refusal::InvalidFieldName),
        ("GET / HTTP/1.1\r\na: b\n", Refusal::BareLf),
        ("GET / HTTP/1.1\r\na: b\rc", Refusal::BareCr),
        ("GET / HTTP/1.1\r\na: \0\r\n", Refusal::InvalidFieldValue),
        ("GET / HTTP/1.1\r\na: b\r\n c\r\n", Refusal::FoldedLine),
        ("GET / HTTP/1.1\r\n\r\n", Refusal::MissingHost),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n",
            Refusal::RepeatedHost,
        ),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", Refusal::InvalidHost),
        ("GET a HTTP/1.0\r\n\r\n", Refusal::InvalidTarget),
        ("GET * HTTP/1.0\r\n\r\n", Refusal::InvalidTarget),
        ("GET ftp://a/ HTTP/1.0\r\n\r\n", Refusal::ForeignScheme),
    ];
    for (text, refusal) in cases {
        assert_eq!(refused(text), refusal, "{text:?}");
    }
}

#[test]
fn request_body_length_is_certain_or_refused() {
    let framing = |fields: &str| {
        let text = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        request(&text).map(|head| head.body())
    };
    assert_eq!(framing(""), Ok(BodyLength::Empty));
    assert_eq!(framing("Content-Length: 5\r\n"), Ok(BodyLength::Exact(5)));
    assert_eq!(
        framing("Content-Length: 5, 5\r\n"),
        Ok(BodyLength::Exact(5))
    );
    assert_eq!(
        framing("Transfer-Encoding: Chunked\r\n"),
        Ok(BodyLength::Chunked)
    );
    let cases = [
        (
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            Refusal::DifferingLengths,
        ),
        ("Content-Length: +5\r\n", Refusal::InvalidLength),
        ("Content-Length: 5,\r\n", Refusal::InvalidLength),
        (
            "Content-Length: 18446744073709551616\r\n",
            Refusal::InvalidLength,
        ),
        (
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            Refusal::LengthAndCoding,
        ),
        (
            "Transfer-Encoding: gzip, chunked\r\n",
            Refusal::UnsupportedCoding,
        ),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            Refusal::ChunkedNotLast,
        ),
        ("Transfer-Encoding: identity\r\n", Refusal::ChunkedNotLast),
    ];
    for (fields, refusal) in cases {
        assert_eq!(framing(fields), Err(refusal), "{fields:?}");
    }
}

#[test]
fn response_head_is_read_and_written() {
    let text = "HTTP/1.0 200 Fine\r\nContent-Length: 3\r\nA: b\r\n\r\n";
    let head = response(text, &Method::GET).unwrap();
    assert_eq!(head.body(), BodyLength::Exact(3));
    let mut out = Vec::new();
    let mut edits = FieldEdits::default();
    let editor = edits.edit(head.fields());
    write_response(head.status(), Some(head.reason()), &editor, &mut out);
    assert_eq!(String::from_utf8(out).unwrap(), text.replace("1.0", "1.1"));
}

#[test]
fn forwarded_request_has_the_host_of_its_target_and_no_field_of_its_connection() {
    let text = "GET HTTP://A.test:80?b HTTP/1.1\r\nHost: b\r\nConnection: close, X-A, Host\r\nX-A: 1\r\n\
        TE: trailers\r\nKeep-Alive: a\r\nX-B: 2\r\nContent-Length: 3, 3\r\n\r\n";
    let head = request(text).unwrap();
    assert_eq!(head.target_form(), TargetForm::Absolute);
    let mut edits = FieldEdits::default();
    let editor = head.forward(&mut edits, head.body());
    let mut out = Vec::new();
    write_request(head.method(), head.peer_target(), &editor, &mut out);
    let expected = "GET /?b HTTP/1.1\r\nX-B: 2\r\nContent-Length: 3\r\nHost: A.test:80\r\n\r\n";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}
