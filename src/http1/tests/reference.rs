//! Compares the parser with a slow and simple one, and with `httparse`: all three read accepted messages alike.

use std::iter;

use proptest::prelude::*;

use super::*;

/// Names and values.
type FieldList = Vec<(Vec<u8>, Vec<u8>)>;

/// The fields of a section, and its length with the empty line; `None`: it is invalid or incomplete.
pub(super) fn field_section(text: &[u8]) -> Option<(FieldList, usize)> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
        let line = &rest[..end];
        rest = &rest[end + 2..];
        if line.is_empty() {
            return Some((fields, text.len() - rest.len()));
        }
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = &line[..colon];
        let value = line[colon + 1..].trim_ascii();
        if !is_token(name)
            || value
                .iter()
                .any(|byte| byte.is_ascii_control() && *byte != b'\t')
        {
            return None;
        }
        // `trim_ascii` would also trim bytes that are not blanks of a field.
        let blanks = line[colon + 1..].len() - value.len();
        let is_blank = |byte: &&u8| matches!(byte, b' ' | b'\t');
        if line[colon + 1..].iter().filter(is_blank).count() < blanks {
            return None;
        }
        fields.push((name.to_vec(), value.to_vec()));
    }
}

fn is_token(text: &[u8]) -> bool {
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(is_token)
}

/// The parts of a head, and the number of bytes after it.
#[derive(Debug, PartialEq)]
struct Head {
    line: [Vec<u8>; 3],
    fields: FieldList,
    behind: usize,
}

/// Reads the syntax of a request, without its limits, targets, hosts and lengths.
fn reference_request(mut text: &[u8]) -> Option<Head> {
    while let Some(rest) = text.strip_prefix(b"\r\n") {
        text = rest;
    }
    let end = text.windows(2).position(|pair| pair == b"\r\n")?;
    let parts: Vec<_> = text[..end].split(|byte| *byte == b' ').collect();
    let [method, target, version] = parts[..] else {
        return None;
    };
    let minor = version.strip_prefix(b"HTTP/1.")?;
    let is_target = |byte: &u8| byte.is_ascii_graphic() && *byte != b'#' || !byte.is_ascii();
    let is_valid = is_token(method)
        && !target.is_empty()
        && target.iter().all(is_target)
        && minor.len() == 1
        && minor[0].is_ascii_digit();
    let text = &text[end + 2..];
    let (fields, length) = field_section(text)?;
    is_valid.then(|| Head {
        line: [method.to_vec(), target.to_vec(), version.to_vec()],
        fields,
        behind: text.len() - length,
    })
}

/// Whether a refusal is about a rule that the reference does not check.
fn is_beyond_syntax(refusal: Refusal) -> bool {
    matches!(
        refusal,
        Refusal::InvalidTarget
            | Refusal::ForeignScheme
            | Refusal::MissingHost
            | Refusal::RepeatedHost
            | Refusal::InvalidHost
            | Refusal::InvalidLength
            | Refusal::DifferingLengths
            | Refusal::LengthAndCoding
            | Refusal::CodingInHttp10
            | Refusal::ChunkedNotLast
            | Refusal::UnsupportedCoding
    )
}

fn fields_of(fields: &FieldLines) -> FieldList {
    let fields = fields.iter();
    fields
        .map(|field| (field.name.to_vec(), field.value.to_vec()))
        .collect()
}

/// Bytes that are often nearly a valid request.
fn request_text() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        6 => Just("GET /a?b HTTP/1.1\r\n"),
        2 => Just("\r\nPOST http://a/ HTTP/1.0\r\n"),
        1 => Just("OPTIONS * HTTP/1.2\r\n"),
        1 => Just(""),
    ];
    let fields = [
        "Host: a\r\n",
        "Host:a \r\n",
        "X: y\tz\r\n",
        "Empty:\r\n",
        "Blank: \t \r\n",
        "Content-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Connection: close\r\n",
        "Long: 0123456789012345678901234567890123456789\r\n",
        "Content-Length: 5, 5\r\n",
        "Latin: \u{e9}\r\n",
    ];
    let odd = [
        "\n",
        "\r",
        "\r\n",
        " ",
        "\t",
        ":",
        "\0",
        "\u{7f}",
        "\u{1}",
        "a",
        "\u{e9}",
        "GET",
        "/",
        "HTTP/1.1",
        "#",
        "(",
        "Host: b/c\r\n",
        " folded\r\n",
        "a : b\r\n",
    ];
    let piece = prop_oneof![
        9 => prop::sample::select(fields.to_vec()),
        1 => prop::sample::select(odd.to_vec()),
    ];
    let end =
        prop_oneof![6 => Just("\r\n"), 1 => Just("\r\nGET / "), 1 => Just("\n"), 1 => Just("")];
    (line, prop::collection::vec(piece, 0..12), end)
        .prop_map(|(line, pieces, end)| [line, &pieces.concat(), end].concat().into_bytes())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn request_has_the_verdict_of_the_reference(text in request_text()) {
        let expected = reference_request(&text);
        match request_in_pieces(&text, [text.len()]) {
            Ok(None) => prop_assert_eq!(expected, None),
            Ok(Some((head, behind))) => {
                let expected = expected.expect("the reference refuses it");
                prop_assert_eq!(head.method().as_str().as_bytes(), &expected.line[0]);
                prop_assert_eq!(head.target().as_bytes(), &expected.line[1]);
                prop_assert_eq!(fields_of(head.fields()), expected.fields);
                prop_assert_eq!(behind, expected.behind);
            }
            Err(refusal) if is_beyond_syntax(refusal) => {}
            Err(_) => prop_assert_eq!(expected, None),
        }
    }

    #[test]
    fn request_has_the_same_verdict_in_any_pieces(
        text in request_text(),
        sizes in prop::collection::vec(1_usize..40, 16),
    ) {
        let verdict = |sizes: &mut dyn Iterator<Item = usize>| {
            let found = request_in_pieces(&text, sizes);
            found.map(|found| found.map(|(head, behind)| (fields_of(head.fields()), head.body(), behind)))
        };
        let at_once = verdict(&mut iter::once(text.len()));
        prop_assert_eq!(&verdict(&mut sizes.into_iter().cycle()), &at_once);
        prop_assert_eq!(&verdict(&mut iter::repeat(1)), &at_once);
    }

    #[test]
    fn random_bytes_have_the_same_verdict_in_any_pieces(text in prop::collection::vec(any::<u8>(), 0..200)) {
        let at_once = request_in_pieces(&text, [text.len()]).map(|found| found.is_some());
        let by_bytes = request_in_pieces(&text, iter::repeat(1)).map(|found| found.is_some());
        prop_assert_eq!(by_bytes, at_once);
        let at_once = response_in_pieces(&text, [text.len()], &Method::GET).map(|found| found.is_some());
        let by_bytes = response_in_pieces(&text, iter::repeat(1), &Method::GET).map(|found| found.is_some());
        prop_assert_eq!(by_bytes, at_once);
    }

    #[test]
    fn accepted_request_is_read_alike_by_httparse(text in request_text()) {
        // Only its fields: `httparse` refuses a later minor version.
        if let Ok(Some((head, behind))) = request_in_pieces(&text, [text.len()]) {
            let line_end = text.windows(9).position(|it| it.starts_with(b"HTTP/1.")).unwrap() + 10;
            let mut headers = [httparse::EMPTY_HEADER; 64];
            let parsed = httparse::parse_headers(&text[line_end..], &mut headers).unwrap();
            let (length, fields) = parsed.unwrap();
            let fields = fields.iter().map(|it| (it.name.as_bytes().to_vec(), it.value.to_vec()));
            prop_assert_eq!(fields_of(head.fields()), fields.collect::<Vec<_>>());
            prop_assert_eq!(text.len() - line_end - length, behind);
        }
    }

    #[test]
    fn written_request_is_read_as_the_same(text in request_text()) {
        if let Ok(Some((head, _))) = request_in_pieces(&text, [text.len()]) {
            let mut edits = FieldEdits::default();
            let mut out = Vec::new();
            let target = head.peer_target_bytes();
            write_request(head.method(), &target, &head.forward(&mut edits, head.body()), &mut out);
            let (second, behind) = request_in_pieces(&out, [out.len()]).unwrap().unwrap();
            prop_assert_eq!(behind, 0);
            prop_assert_eq!(second.body(), head.body());
            prop_assert_eq!(second.target().as_bytes(), &target[..]);
            let mut again = Vec::new();
            write_request(second.method(), target, &second.forward(&mut edits, second.body()), &mut again);
            prop_assert_eq!(again.len(), out.len());
        }
    }
}
