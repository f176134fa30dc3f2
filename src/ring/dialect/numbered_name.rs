//! A name with a number behind it, the text that ketama-like dialects hash.

use std::fmt::Write as _;

/// `"{name}-"`, kept, so that only the number is written for each point.
pub(super) struct NumberedName {
    text: String,
    prefix_len: usize,
}

impl NumberedName {
    pub(super) fn new(name: &str) -> Self {
        Self::with_prefix(format!("{name}-"))
    }

    /// The number comes after this text.
    pub(super) fn with_prefix(text: String) -> Self {
        Self {
            prefix_len: text.len(),
            text,
        }
    }

    /// The bytes of `"{name}-{number}"`.
    pub(super) fn with_number(&mut self, number: u32) -> &[u8] {
        self.text.truncate(self.prefix_len);
        // Writing to a string cannot fail.
        let _ = write!(self.text, "{number}");
        self.text.as_bytes()
    }
}
