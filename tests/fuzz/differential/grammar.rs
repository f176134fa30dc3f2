//! The heads of requests as RFC 9112 §3 and §5 allow them. Written apart from the crate, and shorter.

use super::message::text;

/// A well-formed head.
pub(super) struct Section {
    pub(super) first: String,
}

impl Section {
    /// Empty lines before a request are allowed (RFC 9112 §2.2).
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let all = text(bytes);
        let all = all.trim_start_matches("\r\n").strip_suffix("\r\n\r\n")?;
        let mut lines = all.split("\r\n");
        let first = lines.next()?.to_owned();
        let is_field = |line: &str| {
            line.split_once(':')
                .is_some_and(|(name, value)| is_token(name) && value.chars().all(is_field_char))
        };
        let is_valid = first.chars().all(is_field_char) && lines.all(is_field);
        is_valid.then_some(Self { first })
    }
}

fn is_token(name: &str) -> bool {
    let is_char = |it: char| it.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(it);
    !name.is_empty() && name.chars().all(is_char)
}

/// RFC 9110 §5.5: visible characters, blanks, and bytes above ASCII.
fn is_field_char(it: char) -> bool {
    it == '\t' || it >= ' ' && it != '\u{7f}'
}
