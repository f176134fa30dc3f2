//! Paths and queries as they come, and what they say.

/// What a query asks, word by word; a word without a value has an empty one.
pub(super) fn params(query: &str) -> impl Iterator<Item = (&str, Vec<u8>)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| {
        let (word, value) = pair.split_once('=').unwrap_or((pair, ""));
        (word, decode_form(value))
    })
}

/// Whether a query has a word, alone or as `word=true`.
pub(super) fn has_flag(query: &str, word: &str) -> bool {
    params(query).any(|(known, value)| known == word && matches!(&*value, b"" | b"true"))
}

/// A path's segments.
pub(super) fn segments(path: &str) -> Vec<String> {
    path.split('/').skip(1).map(decode).collect()
}

/// `%41` is `A`; what is no such escape stays as it is.
pub(super) fn decode(text: &str) -> String {
    String::from_utf8_lossy(&decode_bytes(text)).into_owned()
}

/// As [`decode_bytes`], and `+` is a space (HTML forms, URL standard).
fn decode_form(text: &str) -> Vec<u8> {
    decode_bytes(&text.replace('+', " "))
}

fn decode_bytes(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escape = if first == b'%' {
            parse_escape(after)
        } else {
            None
        };
        let (byte, after) = escape.unwrap_or((first, after));
        decoded.push(byte);
        rest = after;
    }
    decoded
}

fn parse_escape(after: &[u8]) -> Option<(u8, &[u8])> {
    let (digits, rest) = after.split_at_checked(2)?;
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    Some((byte, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_decoding_keeps_invalid_escapes() {
        assert_eq!(decode("a%2Fb%3a1"), "a/b:1");
        assert_eq!(decode("100%"), "100%");
        assert_eq!(decode("%+1%zz"), "%+1%zz");
        assert_eq!(decode_form("a+b%2B"), b"a b+");
    }

    #[test]
    fn query_string_is_parsed_into_names_and_values() {
        let words: Vec<_> = params("a=1&&b&c=x%3Dy=z").collect();
        let expected = [("a", "1"), ("b", ""), ("c", "x=y=z")];
        assert_eq!(words, expected.map(|(word, value)| (word, value.into())));
        assert!(has_flag("a&force=true", "force") && has_flag("force", "force"));
        assert!(!has_flag("force=false", "force") && !has_flag("", "force"));
    }
}
