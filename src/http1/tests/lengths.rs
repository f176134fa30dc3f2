use super::*;

fn request_body(version: &str, fields: &str) -> Result<BodyLength, Refusal> {
    let sent = format!("POST / {version}\r\nHost: a\r\n{fields}\r\n\r\n");
    request(&sent).map(|head| head.body())
}

fn response_body(method: &Method, status: &str, fields: &str) -> Result<BodyLength, Refusal> {
    let sent = format!("{status} a\r\n{fields}\r\n\r\n");
    response(&sent, method).map(|head| head.body())
}

#[test]
fn request_body_length_is_that_of_its_fields() {
    let cases = [
        ("A: b", BodyLength::Empty),
        ("Content-Length: 0", BodyLength::Empty),
        ("Content-Length: 5", BodyLength::Exact(5)),
        ("Content-Length: 05", BodyLength::Exact(5)),
        ("Content-Length: 5 , 5", BodyLength::Exact(5)),
        (
            "Content-Length: 5\r\ncontent-length: 5",
            BodyLength::Exact(5),
        ),
        (
            "Content-Length: 18446744073709551615",
            BodyLength::Exact(u64::MAX),
        ),
        ("Transfer-Encoding: Chunked", BodyLength::Chunked),
    ];
    for (fields, expected) in cases {
        assert_eq!(request_body("HTTP/1.1", fields), Ok(expected), "{fields:?}");
    }
}

#[test]
fn request_body_of_uncertain_length_is_refused() {
    let cases = [
        (
            "Content-Length: 5\r\nContent-Length: 6",
            Refusal::DifferingLengths,
        ),
        ("Content-Length: 5, 6", Refusal::DifferingLengths),
        ("Content-Length: ", Refusal::InvalidLength),
        ("Content-Length: 5,", Refusal::InvalidLength),
        ("Content-Length: +5", Refusal::InvalidLength),
        ("Content-Length: -5", Refusal::InvalidLength),
        ("Content-Length: 5 5", Refusal::InvalidLength),
        ("Content-Length: 0x5", Refusal::InvalidLength),
        (
            "Content-Length: 18446744073709551616",
            Refusal::InvalidLength,
        ),
        (
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            Refusal::LengthAndCoding,
        ),
        (
            "Transfer-Encoding: gzip, chunked",
            Refusal::UnsupportedCoding,
        ),
        (
            "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
            Refusal::UnsupportedCoding,
        ),
        (
            "Transfer-Encoding: chunked, chunked",
            Refusal::ChunkedNotLast,
        ),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            Refusal::ChunkedNotLast,
        ),
        ("Transfer-Encoding: chunked, gzip", Refusal::ChunkedNotLast),
        ("Transfer-Encoding: chunked;a", Refusal::ChunkedNotLast),
        ("Transfer-Encoding: identity", Refusal::ChunkedNotLast),
        ("Transfer-Encoding: xchunked", Refusal::ChunkedNotLast),
        ("Transfer-Encoding:", Refusal::ChunkedNotLast),
    ];
    for (fields, refusal) in cases {
        assert_eq!(request_body("HTTP/1.1", fields), Err(refusal), "{fields:?}");
    }
}

#[test]
fn http10_has_no_transfer_coding() {
    let chunked = "Transfer-Encoding: chunked";
    let refusal = Err(Refusal::CodingInHttp10);
    assert_eq!(request_body("HTTP/1.0", chunked), refusal);
    assert_eq!(
        response_body(&Method::GET, "HTTP/1.0 200", chunked),
        refusal
    );
}

#[test]
fn response_body_length_depends_on_method_status_and_fields() {
    let length = "Content-Length: 5";
    let chunked = "Transfer-Encoding: chunked";
    let cases = [
        (Method::GET, "200", "A: b", BodyLength::UntilClose),
        (Method::GET, "200", length, BodyLength::Exact(5)),
        (
            Method::GET,
            "200",
            "Content-Length: 5, 5",
            BodyLength::Exact(5),
        ),
        (Method::GET, "200", "Content-Length: 0", BodyLength::Empty),
        (Method::GET, "200", chunked, BodyLength::Chunked),
        (Method::HEAD, "200", "A: b", BodyLength::Empty),
        (Method::HEAD, "200", length, BodyLength::Empty),
        (Method::HEAD, "200", chunked, BodyLength::Empty),
        (Method::GET, "304", length, BodyLength::Empty),
        (Method::GET, "204", length, BodyLength::Empty),
        (Method::GET, "204", chunked, BodyLength::Empty),
        (Method::GET, "100", length, BodyLength::Empty),
        (Method::GET, "103", chunked, BodyLength::Empty),
        (Method::CONNECT, "200", length, BodyLength::Tunnel),
        (Method::CONNECT, "404", length, BodyLength::Exact(5)),
    ];
    for (method, status, fields, expected) in cases {
        let found = response_body(&method, &format!("HTTP/1.1 {status}"), fields);
        assert_eq!(found, Ok(expected), "{method} {status} {fields:?}");
    }
}

#[test]
fn response_that_states_a_forbidden_body_ends_the_connection() {
    let cases = [
        (Method::GET, "204", "A: b", true),
        (Method::GET, "204", "Content-Length: 0", true),
        (Method::GET, "204", "Content-Length: 5", false),
        (Method::GET, "204", "Transfer-Encoding: chunked", false),
        (Method::GET, "204", "Connection: close", false),
        // Their lengths are those of bodies that are not sent (RFC 9110 §8.6).
        (Method::HEAD, "200", "Content-Length: 5", true),
        (Method::HEAD, "200", "Transfer-Encoding: chunked", true),
        (Method::GET, "304", "Content-Length: 5", true),
        (Method::GET, "200", "A: b", false),
    ];
    for (method, status, fields, expected) in cases {
        let sent = format!("HTTP/1.1 {status} a\r\n{fields}\r\n\r\n");
        let head = response(&sent, &method).unwrap();
        assert_eq!(
            head.leaves_persistent(),
            expected,
            "{method} {status} {fields:?}"
        );
    }
}

#[test]
fn response_body_of_uncertain_length_is_refused() {
    let cases = [
        (
            "Content-Length: 5\r\nContent-Length: 6",
            Refusal::DifferingLengths,
        ),
        ("Content-Length: a", Refusal::InvalidLength),
        (
            "Content-Length: 5\r\nTransfer-Encoding: identity",
            Refusal::LengthAndCoding,
        ),
        ("Transfer-Encoding: identity", Refusal::ChunkedNotLast),
        (
            "Transfer-Encoding: gzip, chunked",
            Refusal::UnsupportedCoding,
        ),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            Refusal::ChunkedNotLast,
        ),
    ];
    for method in [Method::GET, Method::HEAD] {
        for (fields, refusal) in cases {
            let found = response_body(&method, "HTTP/1.1 200", fields);
            assert_eq!(found, Err(refusal), "{method} {fields:?}");
        }
    }
}
