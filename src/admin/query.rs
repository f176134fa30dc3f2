//! Decoding of paths and queries.

/// The parameters of a query, in order; a parameter without `=` has an empty value.
pub(super) fn params(query: &str) -> impl Iterator<Item = (&str, Vec<u8>)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (name, decode_form(value))
    })
}

/// Whether a query has `NAME` or `NAME=true`.
pub(super) fn has_flag(query: &str, name: &str) -> bool {
    params(query).any(|(param, value)| param == name && matches!(&*value, b"" | b"true"))
}

/// The error message for a parameter that an endpoint does not have.
pub(super) fn unknown_param(name: &str, known: &str) -> String {
    format!("unknown query parameter `{name}`; there are: {known}")
}

/// The decoded segments of a path; `/` has one, which is empty.
pub(super) fn segments(path: &str) -> Vec<String> {
    path.split('/').skip(1).map(decode).collect()
}

fn decode(text: &str) -> String {
    String::from_utf8_lossy(&decode_bytes(text)).into_owned()
}

/// Like [`decode_bytes`], and `+` is a space (URL Standard, application/x-www-form-urlencoded).
fn decode_form(text: &str) -> Vec<u8> {
    decode_bytes(&text.replace('+', " "))
}

/// Percent-decoding: `%41` becomes `A`; an invalid escape stays as it is.
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
        let parsed: Vec<_> = params("a=1&&b&c=x%3Dy=z").collect();
        let expected = [("a", "1"), ("b", ""), ("c", "x=y=z")];
        assert_eq!(parsed, expected.map(|(name, value)| (name, value.into())));
        assert!(has_flag("a&force=true", "force") && has_flag("force", "force"));
        assert!(!has_flag("force=false", "force") && !has_flag("", "force"));
    }
}
