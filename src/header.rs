//! Reads and edits header fields, whatever type carries them: `http::HeaderMap`, Pingora's headers, or the lines of
//! the codec of HTTP/1.
//!
//! The phases of a request are generic over these traits, so that each carrier gets code without indirect calls.

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};

/// Reads the fields of a request or response.
pub(crate) trait HeaderRead {
    /// The value of the first line with this name.
    fn get(&self, name: &HeaderName) -> Option<&[u8]>;

    /// The values of all lines with this name, in their order.
    fn get_all<'a>(&'a self, name: &HeaderName) -> impl DoubleEndedIterator<Item = &'a [u8]>;

    /// The value of the first line with this name, to keep. Shares the memory of the header.
    fn value(&self, name: &HeaderName) -> Option<HeaderValue>;

    /// Whether there is a line with this name.
    fn contains(&self, name: &HeaderName) -> bool {
        self.get(name).is_some()
    }
}

/// Edits the fields of a request or response.
pub(crate) trait HeaderEdit: HeaderRead {
    /// Replaces all lines with this name by one.
    fn set(&mut self, name: &HeaderName, value: HeaderValue);

    /// As [`set`](Self::set), with a name that a carrier may keep without a copy, in lower case.
    fn set_static(&mut self, name: &'static HeaderName, value: HeaderValue) {
        self.set(name, value);
    }

    /// As [`set`](Self::set), with a value that the caller keeps: a carrier that writes text needs no clone.
    fn set_ref(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.set(name, value.clone());
    }

    /// Adds a line after the others.
    fn append(&mut self, name: &HeaderName, value: HeaderValue);

    /// Removes all lines with this name.
    fn remove(&mut self, name: &HeaderName);

    /// Removes all lines with a name that this is true for. Letters of a name may be of either case.
    fn remove_where(&mut self, is_removed: impl Fn(&[u8]) -> bool);
}

impl HeaderRead for HeaderMap {
    fn get(&self, name: &HeaderName) -> Option<&[u8]> {
        Self::get(self, name).map(HeaderValue::as_bytes)
    }

    fn get_all<'a>(&'a self, name: &HeaderName) -> impl DoubleEndedIterator<Item = &'a [u8]> {
        let lines = Self::get_all(self, name).into_iter();
        lines.map(HeaderValue::as_bytes)
    }

    fn value(&self, name: &HeaderName) -> Option<HeaderValue> {
        Self::get(self, name).cloned()
    }

    fn contains(&self, name: &HeaderName) -> bool {
        self.contains_key(name)
    }
}

impl HeaderEdit for HeaderMap {
    fn set(&mut self, name: &HeaderName, value: HeaderValue) {
        self.insert(name, value);
    }

    fn append(&mut self, name: &HeaderName, value: HeaderValue) {
        Self::append(self, name, value);
    }

    fn remove(&mut self, name: &HeaderName) {
        Self::remove(self, name);
    }

    fn remove_where(&mut self, is_removed: impl Fn(&[u8]) -> bool) {
        for name in matching_names(self, is_removed) {
            Self::remove(self, name);
        }
    }
}

/// The names in a map that this is true for. Allocates only if there are any.
pub(crate) fn matching_names(
    headers: &HeaderMap,
    matches: impl Fn(&[u8]) -> bool,
) -> Vec<HeaderName> {
    let names = headers.keys();
    names
        .filter(|name| matches(name.as_str().as_bytes()))
        .cloned()
        .collect()
}

/// The names of the fields with a value that begins or ends with a blank, which HTTP/2 does not allow (RFC 9113 §8.2.1).
/// HTTP/1 has such blanks around a value, not in it. Allocates only if there are any.
pub(crate) fn names_with_outer_blanks(headers: &HeaderMap) -> Vec<HeaderName> {
    let mut names: Vec<HeaderName> = Vec::new();
    for (name, value) in headers {
        let value = value.as_bytes();
        if trim_blanks(value).len() < value.len() && names.last() != Some(name) {
            names.push(name.clone());
        }
    }
    names
}

/// Removes the blanks at both ends of all values of these fields.
pub(crate) fn trim_values(headers: &mut impl HeaderEdit, names: &[HeaderName]) {
    for name in names {
        let values = headers.get_all(name).map(trim_blanks);
        // A part of a valid value is one, too.
        let values = values.filter_map(|value| HeaderValue::from_bytes(value).ok());
        let values: Vec<HeaderValue> = values.collect();
        headers.remove(name);
        for value in values {
            headers.append(name, value);
        }
    }
}

/// Removes the blanks at both ends: spaces and tabs (RFC 9110 §5.6.3).
fn trim_blanks(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// A map of these lines.
#[cfg(test)]
pub(crate) fn header_map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    let lines = lines.iter();
    lines
        .map(|&(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use http::header::{COOKIE, HOST};

    use super::*;

    fn cookies() -> HeaderMap {
        header_map(&[("cookie", "a=1"), ("host", "a.test"), ("cookie", "b=2")])
    }

    fn lines<'a>(headers: &'a impl HeaderRead, name: &'a HeaderName) -> Vec<&'a [u8]> {
        headers.get_all(name).collect()
    }

    #[test]
    fn lines_of_a_name_are_read_in_their_order() {
        let headers = cookies();
        assert_eq!(lines(&headers, &COOKIE), [b"a=1", b"b=2"]);
        assert_eq!(HeaderRead::get(&headers, &COOKIE), Some(&b"a=1"[..]));
        assert_eq!(headers.value(&HOST).unwrap(), "a.test");
        assert!(!headers.contains(&HeaderName::from_static("x-none")));
    }

    #[test]
    fn values_lose_the_blanks_at_their_ends_and_keep_their_order() {
        let mut headers = header_map(&[
            ("x-a", "b\t"),
            ("x-whole", "c d"),
            ("x-a", "e f"),
            ("x-a", " \tg "),
            ("x-blank", " \t"),
        ]);
        let x_a = HeaderName::from_static("x-a");
        let names = names_with_outer_blanks(&headers);
        assert_eq!(names, [x_a.clone(), HeaderName::from_static("x-blank")]);
        trim_values(&mut headers, &names);
        assert_eq!(lines(&headers, &x_a), [&b"b"[..], b"e f", b"g"]);
        assert_eq!(headers["x-blank"], "");
        assert_eq!(headers["x-whole"], "c d");
        assert_eq!(names_with_outer_blanks(&headers), [HOST; 0]);
    }

    #[test]
    fn set_replaces_all_lines_and_append_adds_one() {
        let mut headers = cookies();
        headers.set(&COOKIE, HeaderValue::from_static("c=3"));
        HeaderEdit::append(&mut headers, &COOKIE, HeaderValue::from_static("d=4"));
        assert_eq!(lines(&headers, &COOKIE), [b"c=3", b"d=4"]);
        headers.set(&HOST, HeaderValue::from_static("b.test"));
        assert_eq!(lines(&headers, &HOST), [b"b.test"]);
    }

    #[test]
    fn remove_where_removes_all_lines_of_the_names() {
        let mut headers = cookies();
        headers.remove_where(|name| name == b"cookie");
        assert!(!headers.contains(&COOKIE) && headers.contains(&HOST));
    }
}
