use std::iter;

use ::bytes::Bytes;
use proptest::prelude::*;

use super::*;

const CHUNKS: ChunkLimits = ChunkLimits {
    max_extension: 8,
    max_extensions: 20,
    max_trailers: 64,
    max_trailer_fields: 2,
};

/// The data, the trailer section, and the number of bytes after it; `None`: the body is incomplete.
type Body = Result<Option<(Vec<u8>, Vec<u8>, usize)>, Refusal>;

/// Decodes a body that arrives in pieces of these sizes.
fn decode(length: BodyLength, text: &[u8], sizes: impl IntoIterator<Item = usize>) -> Body {
    let mut decoder = BodyDecoder::new(length, CHUNKS);
    let mut data = Vec::new();
    let mut buffer = Vec::new();
    let mut rest = text;
    for size in sizes {
        let (piece, left) = rest.split_at(size.min(rest.len()));
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
                    let behind = buffer.len() - trailers.end + rest.len();
                    return Ok(Some((data, buffer[trailers].to_vec(), behind)));
                }
            }
        }
        if rest.is_empty() {
            break;
        }
    }
    Ok(None)
}

fn chunked(text: &str) -> Body {
    let at_once = decode(BodyLength::Chunked, text.as_bytes(), [text.len()]);
    let by_bytes = decode(BodyLength::Chunked, text.as_bytes(), iter::repeat(1));
    assert_eq!(by_bytes, at_once, "{text:?}");
    at_once
}

macro_rules! complete {
    ($data:expr, $trailers:expr, $behind:expr) => {
        Ok(Some(($data.into(), $trailers.into(), $behind)))
    };
}

#[test]
fn chunked_body_is_decoded_up_to_its_end() {
    assert_eq!(chunked("0\r\n\r\nGET"), complete!("", "\r\n", 3));
    assert_eq!(
        chunked("3\r\nabc\r\n00A\r\n0123456789\r\n0\r\n\r\n"),
        complete!("abc0123456789", "\r\n", 0)
    );
    assert_eq!(
        chunked("1;a=\"b\"\r\na\r\n1 ; c\r\nb\r\n0\r\nX: y\r\n\r\n"),
        complete!("ab", "X: y\r\n\r\n", 0)
    );
    assert_eq!(chunked("3\r\nab"), Ok(None));
    assert_eq!(chunked("0\r\nX: y\r\n"), Ok(None));
}

#[test]
fn malformed_chunk_is_refused_at_its_first_wrong_byte() {
    let cases = [
        ("\r\n", Refusal::InvalidChunkSize),
        (";a\r\n", Refusal::InvalidChunkSize),
        (" 1\r\n", Refusal::InvalidChunkSize),
        ("+1\r\n", Refusal::InvalidChunkSize),
        ("0x1\r\n", Refusal::InvalidChunkSize),
        ("g\r\n", Refusal::InvalidChunkSize),
        ("8000000000000000\r\n", Refusal::InvalidChunkSize),
        ("00000000000000001\r\n", Refusal::InvalidChunkSize),
        ("1\n", Refusal::BareLf),
        ("1\ra", Refusal::BareCr),
        ("1 \r\n", Refusal::InvalidChunkExtension),
        ("1 a\r\n", Refusal::InvalidChunkExtension),
        ("1;a\n", Refusal::BareLf),
        ("1;a\ra", Refusal::BareCr),
        ("1;\0\r\n", Refusal::InvalidChunkExtension),
        ("1;abcdefgh\r\n", Refusal::ChunkExtensionTooLong),
        ("1\r\nab", Refusal::InvalidChunkEnd),
        ("1\r\na\n", Refusal::InvalidChunkEnd),
        ("1\r\na\r\r", Refusal::InvalidChunkEnd),
        ("0\r\na\r\n", Refusal::InvalidFieldName),
        ("0\r\n a: b\r\n", Refusal::FoldedLine),
        ("0\r\na: b\n", Refusal::BareLf),
        ("0\r\n\n", Refusal::BareLf),
        ("0\r\na: b\r\na: b\r\na: b\r\n", Refusal::TrailersTooLarge),
    ];
    for (text, refusal) in cases {
        assert_eq!(chunked(text), Err(refusal), "{text:?}");
    }
    let long = format!("0\r\na: {}\r\n", "b".repeat(64));
    assert_eq!(chunked(&long), Err(Refusal::TrailersTooLarge));
}

#[test]
fn chunk_extensions_are_limited_in_all_except_for_the_length_of_data() {
    let with_extension = "1;abc\r\na\r\n";
    // 4 bytes each, with one byte of data: 3 more each.
    assert_eq!(chunked(&with_extension.repeat(6)), Ok(None));
    assert_eq!(
        chunked(&with_extension.repeat(7)),
        Err(Refusal::ChunkExtensionTooLong)
    );
    let longer = format!("14\r\n{}\r\n", "a".repeat(20)) + &with_extension.repeat(7);
    assert_eq!(chunked(&longer), Ok(None));
}

#[test]
fn largest_chunk_size_is_accepted() {
    let body = chunked("7fffffffffffffff\r\na");
    assert_eq!(body, Ok(None));
}

#[test]
fn body_with_a_length_ends_after_that_many_bytes() {
    assert_eq!(
        decode(BodyLength::Exact(3), b"abcde", [2, 3]),
        complete!("abc", "", 2)
    );
    assert_eq!(decode(BodyLength::Exact(3), b"ab", [1, 1]), Ok(None));
    assert_eq!(decode(BodyLength::Empty, b"ab", [2]), complete!("", "", 2));
    assert_eq!(decode(BodyLength::UntilClose, b"ab", [1, 1]), Ok(None));
}

#[test]
fn body_may_end_at_close_if_nothing_is_missing() {
    let mut exact = BodyDecoder::new(BodyLength::Exact(1), CHUNKS);
    assert!(!exact.may_end_at_close());
    exact.decode(b"a").unwrap();
    assert!(exact.may_end_at_close());
    assert!(BodyDecoder::new(BodyLength::UntilClose, CHUNKS).may_end_at_close());
    assert!(!BodyDecoder::new(BodyLength::Chunked, CHUNKS).may_end_at_close());
}

#[test]
fn trailers_keep_only_fields_that_may_be_there() {
    let mut trailers = FieldLines::default();
    let section =
        "grpc-status: 0\r\nContent-Length: 5\r\nX-Forwarded-For: a\r\nHost: a\r\nX-Sum:1 \r\n\r\n";
    trailers
        .read_trailers(Bytes::from_static(section.as_bytes()))
        .unwrap();
    let mut out = Vec::new();
    write_last_chunk(trailers.iter(), &mut out);
    assert_eq!(text(out), "0\r\ngrpc-status: 0\r\nX-Sum: 1\r\n\r\n");
}

#[test]
fn chunk_head_is_the_size_in_hexadecimal() {
    let head = |length| {
        let mut out = Vec::new();
        write_chunk_head(length, &mut out);
        text(out)
    };
    for length in [1, 9, 10, 15, 16, 255, 256, 4096, 65_537, usize::MAX] {
        assert_eq!(head(length), format!("{length:X}\r\n"));
    }
}

/// The reference: a whole chunked body, split at its lines; `None`: it is invalid or incomplete.
fn reference_body(mut text: &[u8]) -> Option<(Vec<u8>, Vec<u8>, usize)> {
    let mut data = Vec::new();
    let (mut extensions, mut allowed) = (0, 20);
    loop {
        let line_end = text.windows(2).position(|pair| pair == b"\r\n")?;
        let line = str::from_utf8(&text[..line_end]).ok()?;
        text = &text[line_end + 2..];
        let digits = line.find([';', ' ', '\t']).unwrap_or(line.len());
        let (size, extension) = line.split_at(digits);
        let is_extension = extension.trim_start_matches([' ', '\t']).starts_with(';');
        let has_control = extension.chars().any(|it| it.is_control() && it != '\t');
        let is_valid = extension.is_empty() || is_extension && !has_control;
        if size.starts_with('+') || size.len() > 16 || !is_valid {
            return None;
        }
        extensions += extension.len();
        if extension.len() > 8 || extensions > allowed {
            return None;
        }
        let size = i64::from_str_radix(size, 16).ok()?;
        if size == 0 {
            break;
        }
        let size = usize::try_from(size).unwrap();
        let chunk = text.get(..size.checked_add(2)?)?;
        data.extend_from_slice(chunk.strip_suffix(b"\r\n")?);
        allowed += size;
        text = &text[size + 2..];
    }
    let (fields, length) = reference::field_section(text)?;
    (length <= 64 && fields.len() <= 2)
        .then(|| (data, text[..length].to_vec(), text.len() - length))
}

fn chunked_text() -> impl Strategy<Value = Vec<u8>> {
    let valid = [
        "1\r\na\r\n",
        "3;x\r\nabc\r\n",
        "2 ;y=z\r\n\r\n\r\n",
        "a\r\n0123456789\r\n",
        "0\r\n",
        "0\r\nA: b\r\n",
        "\r\n",
    ];
    let odd = [
        "\n",
        "\r",
        ";",
        " ",
        "1",
        "f",
        "\0",
        "g",
        "+",
        "00000",
        "7fffffffffffffff",
        "X: y\r\n",
        ": ",
        "\u{e9}",
    ];
    let piece = prop_oneof![
        8 => prop::sample::select(valid.to_vec()),
        1 => prop::sample::select(odd.to_vec()),
    ];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat().into_bytes())
}

proptest! {
    #[test]
    fn chunked_body_has_the_verdict_of_the_reference(text in chunked_text()) {
        let found = decode(BodyLength::Chunked, &text, [text.len()]);
        prop_assert_eq!(found.ok().flatten(), reference_body(&text));
    }

    #[test]
    fn chunked_body_has_the_same_verdict_in_any_pieces(
        text in chunked_text(),
        sizes in prop::collection::vec(1_usize..9, 32),
    ) {
        let at_once = decode(BodyLength::Chunked, &text, [text.len()]);
        prop_assert_eq!(&decode(BodyLength::Chunked, &text, sizes.into_iter().cycle()), &at_once);
        prop_assert_eq!(&decode(BodyLength::Chunked, &text, iter::repeat(1)), &at_once);
    }

    #[test]
    fn chunked_body_is_decoded_as_it_was_encoded(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..5),
        sizes in prop::collection::vec(1_usize..200, 16),
    ) {
        let mut sent = Vec::new();
        for chunk in &chunks {
            write_chunk_head(chunk.len(), &mut sent);
            sent.extend_from_slice(chunk);
            sent.extend_from_slice(CHUNK_END);
        }
        let trailer = Field { name: b"x", value: b"y" };
        write_last_chunk(iter::once(trailer), &mut sent);
        let found = decode(BodyLength::Chunked, &sent, sizes.into_iter().cycle());
        prop_assert_eq!(found, Ok(Some((chunks.concat(), b"x: y\r\n\r\n".to_vec(), 0))));
    }
}
