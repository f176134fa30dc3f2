//! A name followed by a number: the text that ketama-like dialects hash.

use std::fmt::Write as _;

/// A buffer with the prefix `"{name}-"`: for each point only the number is written again.
pub(super) struct NumberedName {
    text: String,
    prefix_len: usize,
}

impl NumberedName {
    pub(super) fn new(name: &str) -> Self {
        Self::with_prefix(format!("{name}-"))
    }

    /// Writes numbers after this prefix.
    pub(super) fn with_prefix(text: String) -> Self {
        Self {
            prefix_len: text.len(),
            text,
        }
    }

    /// The bytes of `"{prefix}{number}"`.
    pub(super) fn with_number(&mut self, number: u32) -> &[u8] {
        self.text.truncate(self.prefix_len);
        // Writing to a string cannot fail.
        let _ = write!(self.text, "{number}");
        self.text.as_bytes()
    }
}
