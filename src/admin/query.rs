//! Decoding of paths and queries.

/// The parameters of a query, in order; a parameter without `=` has an empty value.
pub(super) fn params(query: &str) -> impl Iterator<Item = (String, Vec<u8>)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = String::from_utf8_lossy(&decode_form(name)).into_owned();
        (name, decode_form(value))
    })
}

/// The values of flags and of texts, in the order of their names; `None`: the query does not have that text.
pub(super) type CommandParams<const FLAGS: usize, const TEXTS: usize> =
    ([bool; FLAGS], [Option<Vec<u8>>; TEXTS]);

/// The parameters of a command: the values of its flags, and of its texts.
///
/// # Errors
/// An error message for a parameter that the command does not have, for a flag with a wrong value, and for a parameter
/// that is repeated: the command must not be carried out in another way than the client meant.
pub(super) fn command_params<const FLAGS: usize, const TEXTS: usize>(
    query: &str,
    flag_names: [&str; FLAGS],
    text_names: [&str; TEXTS],
) -> Result<CommandParams<FLAGS, TEXTS>, String> {
    let mut flags = [None; FLAGS];
    let mut texts = [const { None }; TEXTS];
    for (name, value) in params(query) {
        let is_named = |known: &&str| *known == name;
        let is_repeated = if let Some(index) = flag_names.iter().position(is_named) {
            let value = flag(&name, &value)?;
            flags
                .get_mut(index)
                .and_then(|flag| flag.replace(value))
                .is_some()
        } else if let Some(index) = text_names.iter().position(is_named) {
            texts
                .get_mut(index)
                .and_then(|text| text.replace(value))
                .is_some()
        } else {
            let known: Vec<_> = flag_names.iter().chain(&text_names).collect();
            let known: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
            return Err(unknown_param(&name, &known.join(", ")));
        };
        if is_repeated {
            return Err(format!(
                "the query parameter `{name}` is repeated: write it once"
            ));
        }
    }
    Ok((flags.map(Option::unwrap_or_default), texts))
}

/// The value of a flag: `NAME`, `NAME=true` and `NAME=1` turn it on, `NAME=false` and `NAME=0` off.
///
/// # Errors
/// An error message for another value.
pub(super) fn flag(name: &str, value: &[u8]) -> Result<bool, String> {
    match value {
        b"" | b"true" | b"1" => Ok(true),
        b"false" | b"0" => Ok(false),
        _ => {
            let value = String::from_utf8_lossy(value);
            Err(format!(
                "`{name}={value}`: write `{name}`, or `{name}=true` or `{name}=false`"
            ))
        }
    }
}

/// Whether a query turns a flag on.
pub(super) fn has_flag(query: &str, name: &str) -> bool {
    params(query).any(|(param, value)| param == name && flag(name, &value) == Ok(true))
}

/// The error message for a parameter that an endpoint does not have; `known`: those that it has.
pub(super) fn unknown_param(name: &str, known: &str) -> String {
    if known.is_empty() {
        return format!("unknown query parameter `{name}`; this path has none");
    }
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
        let parsed: Vec<_> = params("a=1&&b&c%5Fd=x%3Dy=z").collect();
        let expected = [("a", "1"), ("b", ""), ("c_d", "x=y=z")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.into()));
        assert_eq!(parsed, expected);
        assert!(has_flag("a&force=true", "force") && has_flag("force", "force"));
        assert!(!has_flag("force=false", "force") && !has_flag("", "force"));
    }

    #[test]
    fn command_params_accept_only_known_names_once_with_valid_values() {
        let parse = |query| command_params(query, ["dry_run", "force"], ["config"]);
        for (query, expected) in [
            ("", ([false, false], [None])),
            ("dry_run", ([true, false], [None])),
            ("dry%5Frun=true&force=1", ([true, true], [None])),
            ("dry_run=false&force=0", ([false, false], [None])),
            (
                "config=%2Fa+b&force",
                ([false, true], [Some(b"/a b".to_vec())]),
            ),
        ] {
            assert_eq!(parse(query), Ok(expected), "{query}");
        }
        for (query, part) in [
            ("dry-run", "`dry_run`, `force`, `config`"),
            ("DRY_RUN", "unknown query parameter `DRY_RUN`"),
            ("force&x=1", "unknown query parameter `x`"),
            ("dry_run=yes", "`dry_run=true`"),
            ("dry_run&dry_run=false", "repeated"),
            ("config=a&config=b", "repeated"),
        ] {
            let error = parse(query).unwrap_err();
            assert!(error.contains(part), "{query}: {error}");
        }
        let error = command_params("force", [], []).unwrap_err();
        assert!(error.ends_with("this path has none"), "{error}");
    }
}
