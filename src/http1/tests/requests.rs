use super::*;

#[test]
fn request_head_is_read_with_its_fields() {
    let sent = "GET /a?b HTTP/1.1\r\nHost: a.test\r\nX-A:b \t\r\nx-a:\r\nX-A: c\td\r\n\r\n";
    let head = request(sent).unwrap();
    assert_eq!(head.method(), Method::GET);
    assert_eq!(head.version(), http::Version::HTTP_11);
    assert_eq!((head.target(), head.peer_target()), ("/a?b", "/a?b"));
    assert_eq!(head.target_form(), TargetForm::Origin);
    assert_eq!(head.host(), Some("a.test"));
    assert_eq!(head.size(), sent.len());
    let values: Vec<_> = head.fields().get_all("x-a").collect();
    assert_eq!(values, [b"b".as_slice(), b"", b"c\td"]);
    assert_eq!(head.fields().get("HOST"), Some(b"a.test".as_slice()));
    let shared = head.fields().get_bytes(http::header::HOST).unwrap();
    assert_eq!(shared, "a.test");
    assert!(!head.fields().contains("x-b"));
}

#[test]
fn malformed_request_line_is_refused_at_its_first_wrong_byte() {
    let cases = [
        ("\n", Refusal::BareLf),
        ("\r\r", Refusal::BareCr),
        (" GET", Refusal::InvalidMethod),
        ("G(", Refusal::InvalidMethod),
        ("GET\r", Refusal::InvalidMethod),
        ("GET\n", Refusal::BareLf),
        ("\u{16}\u{3}", Refusal::InvalidMethod),
        ("GET  ", Refusal::InvalidTarget),
        ("GET /\t", Refusal::InvalidTarget),
        ("GET /#", Refusal::InvalidTarget),
        ("GET /\0", Refusal::InvalidTarget),
        ("GET /\u{7f}", Refusal::InvalidTarget),
        ("GET /\r", Refusal::InvalidVersion),
        ("GET /\n", Refusal::BareLf),
        ("GET / HTTP/1.1\n", Refusal::BareLf),
        ("GET / HTTP/1.1\r ", Refusal::BareCr),
        ("GET / HTTP/1.1 \r\n", Refusal::InvalidVersion),
        ("GET /  HTTP/1.1\r\n", Refusal::InvalidVersion),
        ("GET / a HTTP/1.1\r\n", Refusal::InvalidVersion),
        ("GET / http/1.1\r\n", Refusal::InvalidVersion),
        ("GET / HTTP/1.10\r\n", Refusal::InvalidVersion),
        ("GET / HTTP/1\r\n", Refusal::InvalidVersion),
        ("GET / \r\n", Refusal::InvalidVersion),
        ("GET / HTTP/0.9\r\n", Refusal::UnsupportedVersion),
        ("GET / HTTP/2.0\r\n", Refusal::UnsupportedVersion),
        ("PRI * HTTP/2.0\r\n", Refusal::UnsupportedVersion),
    ];
    for (sent, refusal) in cases {
        assert_eq!(request(sent).err(), Some(refusal), "{sent:?}");
    }
}

#[test]
fn malformed_field_line_is_refused_at_its_first_wrong_byte() {
    let cases = [
        (" a: b", Refusal::FoldedLine),
        ("a: b\r\n c", Refusal::FoldedLine),
        ("a: b\r\n\tc", Refusal::FoldedLine),
        ("a : b", Refusal::SpaceBeforeColon),
        ("a\t: b", Refusal::SpaceBeforeColon),
        ("a\r", Refusal::InvalidFieldName),
        (": b", Refusal::InvalidFieldName),
        ("a(: b", Refusal::InvalidFieldName),
        ("a\u{e9}: b", Refusal::InvalidFieldName),
        ("a\0: b", Refusal::InvalidFieldName),
        ("a\n", Refusal::BareLf),
        ("a: b\n", Refusal::BareLf),
        ("\n", Refusal::BareLf),
        ("a: b\rc", Refusal::BareCr),
        ("a: b\r\r", Refusal::BareCr),
        ("\rc", Refusal::BareCr),
        ("a: b\nc: d\u{1}", Refusal::BareLf),
        ("a: b\u{1}\r\nc: d\n", Refusal::InvalidFieldValue),
        ("a: \0", Refusal::InvalidFieldValue),
        ("a: b\u{1}", Refusal::InvalidFieldValue),
        ("a: b\u{7f}", Refusal::InvalidFieldValue),
    ];
    for (line, refusal) in cases {
        let sent = format!("GET / HTTP/1.1\r\nHost: a\r\n{line}");
        assert_eq!(request(&sent).err(), Some(refusal), "{line:?}");
        // The result is the same if the fast reader sees the end of the head.
        let with_end = format!("{sent}\r\n\r\n");
        assert_eq!(request(&with_end).err(), Some(refusal), "{line:?}");
    }
}

#[test]
fn empty_lines_before_a_request_are_skipped() {
    let head = request("\r\n\r\nGET / HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!(head.method(), Method::GET);
}

#[test]
fn later_minor_version_is_read_as_http11() {
    for version in ["HTTP/1.1", "HTTP/1.2", "HTTP/1.9"] {
        let head = request(&format!("GET / {version}\r\nHost: a\r\n\r\n")).unwrap();
        assert_eq!(head.version(), http::Version::HTTP_11);
    }
}

#[test]
fn any_token_is_a_method() {
    let head = request("!#$%&'*+-.^_`|~09azAZ / HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!(head.method().as_str(), "!#$%&'*+-.^_`|~09azAZ");
}

#[test]
fn unusual_visible_bytes_and_utf8_of_a_target_pass_unchanged() {
    let target = "/\u{fc}\"<>\\^`{|}?\u{fc}[]@";
    let head = request(&format!("GET {target} HTTP/1.0\r\n\r\n")).unwrap();
    assert_eq!(head.peer_target(), target);
    let verdict = request_in_pieces(b"GET /\xff HTTP/1.0\r\n\r\n", [100]);
    assert_eq!(verdict.err(), Some(Refusal::InvalidTarget));
}

#[test]
fn head_over_a_limit_is_refused_at_the_byte_that_is_over_it() {
    let begin = "GET / HTTP/1.0\r\n";
    let largest = format!("{begin}a: {}\r\n\r\n", "b".repeat(4096 - begin.len() - 7));
    assert_eq!(largest.len(), 4096);
    assert!(request(&largest).is_ok());
    let cases = [
        (largest.replace("a: ", "aa: "), Refusal::HeadTooLarge),
        (
            format!("GET /{} HTTP/1.0\r\n", "a".repeat(100)),
            Refusal::TargetTooLong,
        ),
        (
            format!("{begin}{}", "a: b\r\n".repeat(41)),
            Refusal::TooManyFields,
        ),
        (
            format!("{begin}{}\r\n", "a: b\r\n".repeat(41)),
            Refusal::TooManyFields,
        ),
        ("\r\n".repeat(2049), Refusal::HeadTooLarge),
    ];
    for (sent, refusal) in cases {
        assert_eq!(request(&sent).err(), Some(refusal), "{sent:?}");
    }
    let most = format!("{begin}{}\r\n", "a: b\r\n".repeat(40));
    assert_eq!(request(&most).unwrap().fields().len(), 40);
    let longest = format!("GET /{} HTTP/1.0\r\n\r\n", "a".repeat(99));
    assert!(request(&longest).is_ok());
}

#[test]
fn target_form_depends_on_the_method() {
    let form = |line: &str| {
        let head = request(&format!("{line} HTTP/1.0\r\n\r\n"));
        head.map(|head| (head.target_form(), head.peer_target().to_owned()))
    };
    let accepted = [
        ("GET /", TargetForm::Origin, "/"),
        ("GET //a/../b", TargetForm::Origin, "//a/../b"),
        ("OPTIONS *", TargetForm::Asterisk, "*"),
        ("OPTIONS http://a", TargetForm::Absolute, "*"),
        ("OPTIONS http://a/", TargetForm::Absolute, "/"),
        ("GET http://a", TargetForm::Absolute, "/"),
        ("GET HTTPS://a:1?b", TargetForm::Absolute, "/?b"),
        ("GET http://[::1]:80/b?c", TargetForm::Absolute, "/b?c"),
        ("CONNECT a:443", TargetForm::Authority, "a:443"),
        ("CONNECT [::1]:443", TargetForm::Authority, "[::1]:443"),
    ];
    for (line, expected, target) in accepted {
        assert_eq!(form(line), Ok((expected, target.to_owned())), "{line}");
    }
    let refused = [
        ("GET *", Refusal::InvalidTarget),
        ("GET admin", Refusal::InvalidTarget),
        ("GET ./admin", Refusal::InvalidTarget),
        ("GET ?/admin", Refusal::InvalidTarget),
        ("GET a:443", Refusal::ForeignScheme),
        ("GET ftp://a/", Refusal::ForeignScheme),
        ("GET http:a", Refusal::ForeignScheme),
        ("GET http:///a", Refusal::InvalidHost),
        ("GET http://u@a/", Refusal::InvalidHost),
        ("GET http://a:b/", Refusal::InvalidHost),
        ("CONNECT 443", Refusal::InvalidTarget),
        ("CONNECT a", Refusal::InvalidTarget),
        ("CONNECT a:", Refusal::InvalidTarget),
        ("CONNECT :443", Refusal::InvalidTarget),
        ("CONNECT /", Refusal::InvalidTarget),
        ("CONNECT [::1]", Refusal::InvalidTarget),
    ];
    for (line, refusal) in refused {
        assert_eq!(form(line), Err(refusal), "{line}");
    }
}

#[test]
fn request_has_one_valid_host() {
    let host = |version: &str, fields: &str| {
        request(&format!("GET / {version}\r\n{fields}\r\n"))
            .map(|head| head.host().map(str::to_owned))
    };
    assert_eq!(host("HTTP/1.1", "Host: a\r\n"), Ok(Some("a".to_owned())));
    assert_eq!(host("HTTP/1.1", "Host:\r\n"), Ok(Some(String::new())));
    assert_eq!(host("HTTP/1.0", ""), Ok(None));
    assert_eq!(host("HTTP/1.1", ""), Err(Refusal::MissingHost));
    assert_eq!(
        host("HTTP/1.0", "Host: a\r\nHost: a\r\n"),
        Err(Refusal::RepeatedHost)
    );
    assert_eq!(
        host("HTTP/1.0", "Host: a, b\r\n"),
        Err(Refusal::InvalidHost)
    );
    // RFC 9112 §3.2: `Host` is required even if the target is a whole URI.
    assert_eq!(
        request("GET http://a/ HTTP/1.1\r\n\r\n").err(),
        Some(Refusal::MissingHost)
    );
}

#[test]
fn host_is_a_name_or_address_with_an_optional_port() {
    let valid = [
        "",
        "a",
        "A.test",
        "a.test:",
        "a:0",
        "a:65535",
        "a_b",
        "[::1]",
        "[::1]:80",
        "127.0.0.1:80",
    ];
    for host in valid {
        assert!(is_valid_host(host.as_bytes()), "{host}");
    }
    let invalid = [
        ":",
        ":80",
        "a:b",
        "a:b:c",
        "a:65536",
        "a:+80",
        "[::1",
        "::1]",
        "[::1]80",
        "[::1].evil",
        "[a]",
        "[v1.a]",
        "a%20b",
        "u@a",
        "a/b",
        "a b",
        "a\"b",
        "a\u{e9}",
        "a,b:x",
    ];
    for host in invalid {
        assert!(!is_valid_host(host.as_bytes()), "{host}");
    }
}

#[test]
fn connection_persists_as_its_version_and_options_say() {
    let persists = |version: &str, value: &str| {
        let head = request(&format!(
            "GET / {version}\r\nHost: a\r\nConnection: {value}\r\n\r\n"
        ))
        .unwrap();
        ConnectionOptions::of(head.fields()).persists(head.version())
    };
    assert!(persists("HTTP/1.1", ""));
    assert!(persists("HTTP/1.1", "a, b"));
    assert!(!persists("HTTP/1.1", "keep-alive , CLOSE"));
    assert!(!persists("HTTP/1.0", ""));
    assert!(persists("HTTP/1.0", "Keep-Alive"));
    assert!(!persists("HTTP/1.0", "close, keep-alive"));
}

#[test]
fn http10_expects_no_100() {
    let expects = |version: &str, value: &str| {
        let sent = format!("POST / {version}\r\nHost: a\r\nExpect: {value}\r\n\r\n");
        request(&sent).unwrap().expects_continue()
    };
    assert!(expects("HTTP/1.1", "100-Continue"));
    assert!(!expects("HTTP/1.1", "100"));
    assert!(!expects("HTTP/1.0", "100-continue"));
}

#[test]
fn pipelined_requests_are_taken_one_by_one() {
    let mut buffer = BytesMut::from("GET /1 HTTP/1.0\r\n\r\nGET /2 HTTP/1.0\r\n\r\nGET");
    let mut parser = RequestParser::default();
    let mut head = RequestHead::default();
    for target in ["/1", "/2"] {
        let status = parser.parse(&mut buffer, &LIMITS, &mut head);
        assert_eq!(status, Ok(ParseStatus::Complete));
        assert_eq!(head.target(), target);
    }
    let status = parser.parse(&mut buffer, &LIMITS, &mut head);
    assert_eq!(status, Ok(ParseStatus::Partial));
    assert_eq!(buffer, "GET");
}
