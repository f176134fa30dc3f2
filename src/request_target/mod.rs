//! The target of a request (RFC 9112 §3.2).
//!
//! Characters are accepted that RFC 3986 does not allow in a URI: `"<>\^{|}` and the backtick, which browsers send in
//! queries, and UTF-8 above ASCII. nginx accepts all of these, HAProxy those within ASCII. [`RequestTarget`] does not limit
//! the length. `http::Uri` refuses some of these characters, and more than 65,534 bytes.

mod normalize;

use std::borrow::Cow;

pub(crate) use self::normalize::{decode_unreserved, normalize, other_readings};

/// The target of a request: a path with an optional query, and the host if the target names one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RequestTarget {
    /// Path and query; `*` of `OPTIONS`; empty for `CONNECT`. A copy of the received bytes, because a `Bytes` would be checked
    /// for UTF-8 at each read.
    origin_form: Cow<'static, str>,
    /// The length of the path, the first part of `origin_form`; bytes.
    path_length: usize,
    /// The host with its port, of absolute-form and authority-form.
    authority: Option<Box<str>>,
}

impl Default for RequestTarget {
    /// The target `/`.
    fn default() -> Self {
        Self {
            origin_form: Cow::Borrowed("/"),
            path_length: 1,
            authority: None,
        }
    }
}

impl RequestTarget {
    /// Makes a target from its path and query (`*` for `OPTIONS *`, empty for `CONNECT`) and the host of a target that was
    /// received in absolute-form or authority-form (RFC 9112 §3.2).
    pub(crate) fn new(origin_form: &str, authority: Option<&str>) -> Self {
        Self {
            origin_form: origin_form.to_owned().into(),
            path_length: origin_form.find('?').unwrap_or(origin_form.len()),
            authority: authority.map(Box::from),
        }
    }

    /// Parses a target in origin-form or asterisk-form (RFC 9112 §3.2).
    ///
    /// `None`: it has another form, or bytes that are not UTF-8, the only encoding that logs, keys and routes support.
    pub(crate) fn parse(target: &[u8]) -> Option<Self> {
        let target = str::from_utf8(target).ok()?;
        if target.starts_with('/') || target == "*" {
            return Some(Self::new(target, None));
        }
        None
    }

    /// Replaces the path; the query and the host stay.
    pub(crate) fn with_path(self, path: &str) -> Self {
        let (_, rest) = self.split();
        Self {
            origin_form: format!("{path}{rest}").into(),
            path_length: path.len(),
            authority: self.authority,
        }
    }

    /// The path, without the query; `*` of `OPTIONS *`.
    pub(crate) fn path(&self) -> &str {
        self.split().0
    }

    /// The query, without the question mark.
    pub(crate) fn query(&self) -> Option<&str> {
        self.split().1.strip_prefix('?')
    }

    /// Path and query, as a peer gets them.
    pub(crate) fn origin_form(&self) -> &str {
        &self.origin_form
    }

    /// The host in the target, with its port; `None`: the target has none.
    pub(crate) fn authority(&self) -> Option<&str> {
        self.authority.as_deref()
    }

    /// The path, and the query with its question mark.
    fn split(&self) -> (&str, &str) {
        let parts = self.origin_form.split_at_checked(self.path_length);
        parts.unwrap_or_default()
    }
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
    fn target_in_another_form_or_not_utf8_is_refused() {
        for text in [&b""[..], b"x", b"?x", b"http://a.test/", b"/\xff"] {
            assert_eq!(RequestTarget::parse(text), None, "{}", text.escape_ascii());
        }
    }
}
