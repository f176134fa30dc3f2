//! The target of a request (RFC 9112 §3.2).
//!
//! It holds more than a URI of RFC 3986: `"<>\^{|}` and the backtick, which browsers send in queries, and bytes above
//! ASCII, as nginx and HAProxy do; and its length has no limit of its own. `http::Uri` refuses some of these characters,
//! and more than 65,534 bytes.

mod normalize;

use bytes::Bytes;

pub(crate) use self::normalize::{decode_unreserved, normalize, other_readings};

/// The target of a request: a path with an optional query, and the host if the target names one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RequestTarget {
    /// Path and query; `*` of `OPTIONS`; empty for `CONNECT`. UTF-8.
    origin_form: Bytes,
    /// Bytes of the path, the first part of `origin_form`.
    path_length: usize,
    /// The host with its port, of absolute-form and authority-form. UTF-8.
    authority: Option<Bytes>,
}

impl Default for RequestTarget {
    /// The root.
    fn default() -> Self {
        Self {
            origin_form: Bytes::from_static(b"/"),
            path_length: 1,
            authority: None,
        }
    }
}

impl RequestTarget {
    /// A target in origin-form (RFC 9112 §3.2.1), or `*`, with the host of the form that it was received in.
    ///
    /// `None`: the text is not UTF-8, the only encoding of a path that logs, keys and routes support.
    pub(crate) fn new(origin_form: Bytes, authority: Option<Bytes>) -> Option<Self> {
        let path = str::from_utf8(&origin_form).ok()?;
        let path_length = path.find('?').unwrap_or(path.len());
        if let Some(authority) = &authority {
            str::from_utf8(authority).ok()?;
        }
        Some(Self {
            origin_form,
            path_length,
            authority,
        })
    }

    /// Reads a target in origin-form, or `*`.
    ///
    /// `None`: it is in another form, or not UTF-8.
    pub(crate) fn parse(target: &[u8]) -> Option<Self> {
        if target.starts_with(b"/") || target == b"*" {
            return Self::new(Bytes::copy_from_slice(target), None);
        }
        None
    }

    /// The target with another path. Its query and host stay.
    pub(crate) fn with_path(self, path: &str) -> Self {
        let rest = self.origin_form.get(self.path_length..).unwrap_or_default();
        Self {
            origin_form: [path.as_bytes(), rest].concat().into(),
            path_length: path.len(),
            authority: self.authority,
        }
    }

    /// The path, without the query; `*` of `OPTIONS *`.
    pub(crate) fn path(&self) -> &str {
        let path = self.origin_form.get(..self.path_length);
        to_str(path.unwrap_or_default())
    }

    /// The query, without the question mark.
    pub(crate) fn query(&self) -> Option<&str> {
        self.origin_form.get(self.path_length + 1..).map(to_str)
    }

    /// Path and query, as a peer gets them.
    pub(crate) fn origin_form(&self) -> &str {
        to_str(&self.origin_form)
    }

    /// The host that the target names, with its port.
    pub(crate) fn authority(&self) -> Option<&str> {
        self.authority.as_deref().map(to_str)
    }
}

/// The text was checked when the target was built.
fn to_str(text: &[u8]) -> &str {
    str::from_utf8(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_is_split_into_path_and_query() {
        for (text, path, query) in [
            ("/", "/", None),
            ("/a?b=c?d", "/a", Some("b=c?d")),
            ("/?", "/", Some("")),
            ("*", "*", None),
        ] {
            let target = RequestTarget::parse(text.as_bytes()).unwrap();
            let parts = (target.authority(), target.path(), target.query());
            assert_eq!(parts, (None, path, query), "{text}");
        }
    }

    #[test]
    fn target_keeps_every_visible_character_at_any_length() {
        let text = format!("/\"<>\\^`{{|}}é?\"<>\\^`{{|}}é{}", "x".repeat(100_000));
        let target = RequestTarget::parse(text.as_bytes()).unwrap();
        assert_eq!(target.origin_form(), text);
        assert_eq!(target.path(), "/\"<>\\^`{|}é");
    }

    #[test]
    fn target_in_another_form_is_refused() {
        for text in [&b""[..], b"x", b"?x", b"http://a.test/", b"/\xff"] {
            assert_eq!(RequestTarget::parse(text), None, "{}", text.escape_ascii());
        }
    }
}
