use http::{StatusCode, Version};

use super::*;
use crate::header::header_map;
use crate::http1::normalize_response;

#[test]
fn response_head_is_read_with_its_fields() {
    let head = response("HTTP/1.0 404 Not \u{e9}\r\nA: b\r\n\r\n", &Method::GET).unwrap();
    assert_eq!(head.status(), StatusCode::NOT_FOUND);
    assert_eq!(head.version(), Version::HTTP_10);
    assert_eq!(head.reason(), "Not \u{e9}".as_bytes());
    assert_eq!(head.fields().get("a"), Some(b"b".as_slice()));
    assert!(!head.is_interim());
}

#[test]
fn reason_and_the_space_before_it_may_be_missing() {
    for line in ["HTTP/1.1 200", "HTTP/1.1 200 "] {
        let head = response(&format!("{line}\r\n\r\n"), &Method::GET).unwrap();
        assert_eq!(
            (head.status(), head.reason()),
            (StatusCode::OK, b"".as_slice())
        );
    }
}

#[test]
fn malformed_status_line_is_refused() {
    let cases = [
        ("\r\nHTTP/1.1 200 OK\r\n", Refusal::InvalidVersion),
        ("HTTP/2.0 200 OK\r\n", Refusal::UnsupportedVersion),
        ("HTTP 200 OK\r\n", Refusal::InvalidVersion),
        ("ICY 200 OK\r\n", Refusal::InvalidVersion),
        ("HTTP/1.1\r\n", Refusal::InvalidStatusLine),
        ("HTTP/1.1  200 OK\r\n", Refusal::InvalidStatusLine),
        ("HTTP/1.1 20\r\n", Refusal::InvalidStatusLine),
        ("HTTP/1.1 2000\r\n", Refusal::InvalidStatusLine),
        ("HTTP/1.1 099 a\r\n", Refusal::InvalidStatusLine),
        ("HTTP/1.1 2x0 a\r\n", Refusal::InvalidStatusLine),
        ("HTTP/1.1 200\ta\r\n", Refusal::InvalidStatusLine),
        ("HTTP/1.1 200 \0", Refusal::InvalidStatusLine),
        ("HTTP/1.1 200 a\n", Refusal::BareLf),
        ("HTTP/1.1 200 a\rb", Refusal::BareCr),
    ];
    for (sent, refusal) in cases {
        assert_eq!(
            response(sent, &Method::GET).err(),
            Some(refusal),
            "{sent:?}"
        );
    }
}

#[test]
fn framing_fields_are_removed_if_none_is_allowed() {
    let fields = |method: &Method, status: &str, field: &str| {
        let head = response(&format!("HTTP/1.1 {status} a\r\n{field}\r\n\r\n"), method).unwrap();
        let mut edits = FieldEdits::default();
        let mut out = Vec::new();
        let editor = head.forward(&mut edits, head.body());
        write_response(head.status(), Some(head.reason()), &editor, &mut out);
        text(out)
            .replace(&format!("HTTP/1.1 {status} a\r\n"), "")
            .trim()
            .to_owned()
    };
    let chunked = "Transfer-Encoding: chunked";
    for status in ["100", "103", "204"] {
        assert_eq!(fields(&Method::GET, status, "Content-Length: 5"), "");
        assert_eq!(fields(&Method::GET, status, chunked), "");
    }
    // Here the field is the length of the body that a GET would get (RFC 9110 §8.6).
    assert_eq!(
        fields(&Method::HEAD, "200", "Content-Length: 5"),
        "Content-Length: 5"
    );
    assert_eq!(
        fields(&Method::GET, "304", "Content-Length: 5,5"),
        "Content-Length: 5"
    );
    assert_eq!(fields(&Method::GET, "200", chunked), chunked);
    assert_eq!(fields(&Method::CONNECT, "200", "Content-Length: 5"), "");
}

#[test]
fn fields_of_a_response_from_another_parser_are_as_ours() {
    let normalized = |method: &Method, version, status, name: &'static str, value: &'static str| {
        let mut response = header_map(&[(name, value)]);
        let status = StatusCode::from_u16(status).unwrap();
        normalize_response(&mut response, version, status, method)?;
        let kept = response
            .get(name)
            .map(|value| value.to_str().unwrap().to_owned());
        Ok::<_, Refusal>(kept)
    };
    let (length, coding) = ("content-length", "transfer-encoding");
    let (get, head) = (Method::GET, Method::HEAD);
    let (v1, v0) = (Version::HTTP_11, Version::HTTP_10);
    for (method, version, status, name, value, expected) in [
        (&get, v1, 200, length, "5", Ok(Some("5"))),
        (&get, v1, 200, length, "5, 05", Ok(Some("5"))),
        (
            &get,
            v1,
            200,
            length,
            "5, 6",
            Err(Refusal::DifferingLengths),
        ),
        (&get, v1, 200, coding, "Chunked", Ok(Some("Chunked"))),
        (
            &get,
            v1,
            200,
            coding,
            "gzip, chunked",
            Err(Refusal::UnsupportedCoding),
        ),
        (
            &get,
            v0,
            200,
            coding,
            "chunked",
            Err(Refusal::CodingInHttp10),
        ),
        (&head, v1, 200, length, "5,5", Ok(Some("5"))),
        (&head, v1, 200, coding, "chunked", Ok(None)),
        (&get, v1, 204, length, "a", Ok(None)),
        (&get, v1, 103, coding, "chunked", Ok(None)),
        (&get, v1, 101, length, "5", Ok(None)),
        (&get, v1, 304, length, "5,5", Ok(Some("5"))),
        (&get, v1, 304, coding, "chunked", Ok(None)),
    ] {
        let found = normalized(method, version, status, name, value);
        let found = found.as_ref().map(Option::as_deref);
        assert_eq!(
            found,
            expected.as_ref().copied(),
            "{method} {status} {name}: {value}"
        );
    }
}

#[test]
fn switch_is_accepted_only_if_it_was_asked_for() {
    let switch = "HTTP/1.1 101 a\r\nUpgrade: websocket\r\n\r\n";
    assert_eq!(
        response(switch, &Method::GET).err(),
        Some(Refusal::UnaskedUpgrade)
    );
    let mut head = ResponseHead::default();
    let context = ResponseContext {
        method: &Method::GET,
        asks_upgrade: true,
    };
    let status =
        ResponseParser::default().parse(&mut BytesMut::from(switch), &LIMITS, context, &mut head);
    assert_eq!(status, Ok(ParseStatus::Complete));
    assert_eq!(head.body(), BodyLength::Tunnel);
    assert!(!head.is_interim());
}

#[test]
fn interim_responses_and_final_ones_are_read_one_after_another() {
    let interim = "HTTP/1.1 103 a\r\n\r\n";
    let last = "HTTP/1.1 200 a\r\n\r\n";
    let mut buffer = BytesMut::from([interim, interim, last, interim].concat().as_str());
    let mut parser = ResponseParser::default();
    let mut head = ResponseHead::default();
    let context = ResponseContext {
        method: &Method::GET,
        asks_upgrade: false,
    };
    for is_interim in [true, true, false, true] {
        let status = parser.parse(&mut buffer, &LIMITS, context, &mut head);
        assert_eq!(status, Ok(ParseStatus::Complete));
        assert_eq!(head.is_interim(), is_interim);
    }
    assert!(buffer.is_empty());
}
