//! The normal form of a path, for routes and for the key source `{path: normalized}`.
//!
//! Escapes (`%` and two hexadecimal digits) of unreserved characters are decoded (RFC 3986 §6.2.2.2). Other escapes are not:
//! decoding a reserved character can change the meaning of a path (§2.2), and `%2F` would separate segments. Their digits
//! are written in upper case (§6.2.2.1). Empty segments are merged, and `.` and `..` are resolved (§5.2.4).
//!
//! Invariants for a path that begins with `/`: the normal form begins with `/`; it has no segment `.` or `..`, and no empty
//! segment except the last; to normalize it again changes nothing.

use std::borrow::Cow;

/// The normal form; `None`: the path is normal already, or does not begin with `/`. Most normal paths need one scan and no
/// allocation.
pub(crate) fn normalize(path: &str) -> Option<String> {
    if !path.starts_with('/') || !may_differ(path.as_bytes()) || is_normal(path.as_bytes()) {
        return None;
    }
    let normal = resolve_segments(&decode_unreserved(path), EmptySegments::Merged);
    (normal != path).then_some(normal)
}

/// The normal forms that the path has for servers that read it in another way, if they differ from that of [`normalize`].
/// Such a server treats `\`, `%2F` and `%5C` as `/`, lets `..` remove an empty segment, or removes the parameters of
/// segments (`;`, RFC 3986 §3.3), before or after it looks for hidden separators.
pub(crate) fn other_readings(path: &str) -> Vec<String> {
    if !path.starts_with('/') || !may_read_differently(path.as_bytes()) {
        return Vec::new();
    }
    let may_remove = path.contains("//") && path.contains(['.', '%']);
    let may_differ = may_remove || path.contains(';') || has_hidden_separator(path.as_bytes());
    if !may_differ {
        return Vec::new();
    }
    let decoded = decode_unreserved(path);
    let separated = decoded
        .replace('\\', "/")
        .replace("%2F", "/")
        .replace("%5C", "/");
    let normal = resolve_segments(&decoded, EmptySegments::Merged);
    let stripped = [without_parameters(&decoded), without_parameters(&separated)];
    let paths = [&*decoded, &separated, &stripped[0], &stripped[1]];
    let mut readings: Vec<String> = [EmptySegments::Merged, EmptySegments::Removable]
        .into_iter()
        .flat_map(|empty| paths.map(|path| resolve_segments(path, empty)))
        .collect();
    readings.retain(|reading| *reading != normal);
    readings.sort_unstable();
    readings.dedup();
    readings
}

/// Removes the parameters of each segment: the text from its first `;` on.
fn without_parameters(path: &str) -> String {
    let segments = path.split('/');
    let names = segments.map(|segment| segment.split(';').next().unwrap_or(segment));
    names.collect::<Vec<_>>().join("/")
}

/// Whether the path has an escape, an empty segment, a backslash or a `;`: one scan that ends the search for most paths.
fn may_read_differently(path: &[u8]) -> bool {
    let after = path.iter().skip(1).chain([&b' ']);
    let is_candidate = |first: u8, second: u8| {
        matches!(first, b'%' | b'\\' | b';') || first == b'/' && second == b'/'
    };
    path.iter()
        .zip(after)
        .any(|(first, second)| is_candidate(*first, *second))
}

/// Whether the path has a backslash, or an escape of a slash or a backslash.
fn has_hidden_separator(path: &[u8]) -> bool {
    path.contains(&b'\\')
        || path
            .windows(3)
            .any(|text| matches!(text, [b'%', b'2', b'f' | b'F'] | [b'%', b'5', b'c' | b'C']))
}

/// The treatment of an empty segment before `..`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EmptySegments {
    /// `//` is `/` before `..` is resolved: `/a//..` is `/`, as for nginx and file systems.
    Merged,
    /// `..` removes the empty segment: `/a//..` is `/a/` (RFC 3986 §5.2.4). Other empty segments are merged after that,
    /// as Envoy does.
    Removable,
}

/// A quick check: whether the path has a `%`, an empty segment, or a segment that begins with a dot. If not, it is normal.
fn may_differ(path: &[u8]) -> bool {
    let is_candidate = |first: u8, second: u8| {
        first == b'%' || first == b'/' && (second == b'/' || second == b'.')
    };
    let pairs = path.iter().zip(path.get(1..).unwrap_or_default());
    // `|` and no early return: the compiler makes vector instructions of a loop without branches.
    pairs.fold(false, |found, (first, second)| {
        found | is_candidate(*first, *second)
    })
}

/// Whether the path is certainly normal. False for a few normal paths, too: then the normal form is computed.
fn is_normal(path: &[u8]) -> bool {
    let mut rest = path;
    while let [first, after @ ..] = rest {
        let changes = match (first, after) {
            (b'%', [high, low, ..]) => match escaped_byte(*high, *low) {
                Some(byte) => {
                    is_unreserved(byte) || high.is_ascii_lowercase() || low.is_ascii_lowercase()
                }
                None => false,
            },
            (
                b'/',
                [b'/', ..] | [b'.'] | [b'.', b'/', ..] | [b'.', b'.'] | [b'.', b'.', b'/', ..],
            ) => true,
            _ => false,
        };
        if changes {
            return false;
        }
        rest = after;
    }
    true
}

/// Decodes the escapes of unreserved characters, and writes the other ones in upper case. A `%` without two hexadecimal
/// digits stays. An escape after it is not decoded if the result could complete it to an escape: `%%34%31` must not
/// become `%41`.
pub(crate) fn decode_unreserved(path: &str) -> Cow<'_, str> {
    let Some((before, _)) = path.split_once('%') else {
        return Cow::Borrowed(path);
    };
    let mut decoded = String::with_capacity(path.len());
    decoded.push_str(before);
    let mut malformed_at = None;
    for part in path.split('%').skip(1) {
        let escaped = match part.as_bytes() {
            [high, low, ..] => escaped_byte(*high, *low),
            _ => None,
        };
        let Some(byte) = escaped else {
            malformed_at = Some(decoded.len());
            decoded.push('%');
            decoded.push_str(part);
            continue;
        };
        let completes = byte.is_ascii_hexdigit()
            && malformed_at.is_some_and(|at| decoded.len().saturating_sub(at) <= 2);
        let (digits, rest) = part.split_at_checked(2).unwrap_or_default();
        if is_unreserved(byte) && !completes {
            decoded.push(char::from(byte));
        } else {
            decoded.push('%');
            decoded.push_str(&digits.to_ascii_uppercase());
        }
        decoded.push_str(rest);
    }
    Cow::Owned(decoded)
}

/// Resolves `.` and `..`, and merges empty segments, in a path that begins with `/`. `..` at the root is ignored.
fn resolve_segments(path: &str, empty: EmptySegments) -> String {
    let mut resolved = String::with_capacity(path.len());
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        let is_removed = match segment {
            "" => empty == EmptySegments::Merged || is_last,
            "." => true,
            ".." => {
                resolved.truncate(resolved.rfind('/').unwrap_or(0));
                true
            }
            _ => false,
        };
        if !is_removed {
            resolved.push('/');
            resolved.push_str(segment);
        } else if is_last {
            resolved.push('/');
        }
    }
    if empty == EmptySegments::Removable && resolved.contains("//") {
        return resolve_segments(&resolved, EmptySegments::Merged);
    }
    resolved
}

/// The byte that an escape with these two digits stands for; `None`: one of them is not hexadecimal.
fn escaped_byte(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

/// Whether the character is unreserved (RFC 3986 §2.3).
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn path_is_normalized_as_in_the_table() {
        for (path, normal) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("/.well-known/x", "/.well-known/x"),
            ("/a/...", "/a/..."),
            ("/a/..b/.c", "/a/..b/.c"),
            ("/n/../admin", "/admin"),
            ("/n/%2e%2E/admin", "/admin"),
            ("/%61dmin", "/admin"),
            ("/%7Eu/%2d%5F", "/~u/-_"),
            ("//admin", "/admin"),
            ("/./admin", "/admin"),
            ("/a/.", "/a/"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a//", "/a/"),
            ("//", "/"),
            ("/..", "/"),
            ("/../../a", "/a"),
            ("/a//../b", "/b"),
            ("/a%2fb%c3%a9", "/a%2Fb%C3%A9"),
            ("/..%2fadmin", "/..%2Fadmin"),
            ("/%2561", "/%2561"),
            ("/100%", "/100%"),
            ("/%zz%4", "/%zz%4"),
            ("/%%34%31", "/%%341"),
            ("/é/%2e", "/é/"),
            ("*", "*"),
            ("", ""),
        ] {
            let changed = normalize(path);
            assert_eq!(changed.is_some(), path != normal, "{path}");
            assert_eq!(changed.as_deref().unwrap_or(path), normal, "{path}");
        }
    }

    #[test]
    fn path_has_other_readings_with_hidden_separators_removable_segments_or_parameters() {
        for (path, readings) in [
            ("/a/b/../c", &[][..]),
            ("/a%20b", &[]),
            ("/a//b", &[]),
            ("/n/..%2fadmin", &["/admin"]),
            ("/n/..%5Cadmin", &["/admin"]),
            ("/n\\..\\admin", &["/admin"]),
            ("/admin%2Fx", &["/admin/x"]),
            ("/a//../b", &["/a/b"]),
            ("/a%2f/..%2fb", &["/a/b", "/b"]),
            ("/%252f", &[]),
            ("/n;x=1/a", &["/n/a"]),
            ("/n;x%2F../a", &["/a", "/n/a"]),
        ] {
            assert_eq!(other_readings(path), readings, "{path}");
        }
    }

    /// A slow reference implementation: rewrites the first part that is not normal, until the path does not change.
    fn reference(path: &str) -> String {
        let mut path = path.to_owned();
        while let Some(next) = step(&path) {
            path = next;
        }
        path
    }

    fn step(path: &str) -> Option<String> {
        for at in 0..path.len() {
            let (before, rest) = path.split_at_checked(at)?;
            let digits = rest.strip_prefix('%').and_then(|rest| rest.get(..2));
            let Some(digits) = digits else { continue };
            let byte = u8::from_str_radix(digits, 16).unwrap();
            let text = if is_unreserved(byte) {
                char::from(byte).to_string()
            } else {
                format!("%{}", digits.to_uppercase())
            };
            let next = format!("{before}{text}{}", &rest[3..]);
            if next != path {
                return Some(next);
            }
        }
        if let Some((before, after)) = path.split_once("//") {
            return Some(format!("{before}/{after}"));
        }
        let segments: Vec<_> = path.split('/').collect();
        let dots = segments.iter().position(|one| [".", ".."].contains(one))?;
        let from = if segments[dots] == ".." {
            dots.max(2) - 1
        } else {
            dots
        };
        let mut left: Vec<_> = segments[..from].to_vec();
        left.extend(&segments[dots + 1..]);
        if dots + 1 == segments.len() {
            left.push("");
        }
        Some(left.join("/"))
    }

    /// Well-formed escapes only: a reference for malformed ones would be the same code again.
    const WELL_FORMED: &str = "/([/./a]|\\.\\.|%2[eEfF]|%61|%5[cC]|%20){0,12}";

    proptest! {
        #[test]
        fn normal_form_equals_the_reference(path in WELL_FORMED) {
            prop_assert_eq!(normalize(&path).unwrap_or_else(|| path.clone()), reference(&path));
        }

        #[test]
        fn normal_form_has_no_dot_or_empty_segments_and_does_not_change_again(
            path in "/([/.%a20eE61fF5cé;\\\\]|%[0-9a-fA-F]{2}){0,24}",
        ) {
            let normal = normalize(&path).unwrap_or_else(|| path.clone());
            prop_assert_eq!(normalize(&normal), None);
            prop_assert!(normal.starts_with('/'));
            let segments: Vec<_> = normal.split('/').skip(1).collect();
            let (_, inner) = segments.split_last().unwrap();
            prop_assert!(!inner.contains(&""), "{}", normal);
            prop_assert!(!segments.iter().any(|one| [".", ".."].contains(one)), "{}", normal);
            for reading in other_readings(&path) {
                prop_assert!(reading.starts_with('/'));
                prop_assert!(!reading.contains("//") && !reading.contains("/../"));
            }
        }

        #[test]
        fn normalize_does_not_panic_on_any_text(path in any::<String>()) {
            let _ = (normalize(&path), other_readings(&path));
        }
    }
}
