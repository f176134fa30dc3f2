//! A name with a number behind it, the text that ketama-like dialects hash.

use std::fmt::Write as _;

/// `"{name}-"`, kept, so that only the number is written for each point.
pub(super) struct Numbered {
    text: String,
    stem: usize,
}

impl Numbered {
    pub(super) fn new(name: &str) -> Self {
        Self::after(format!("{name}-"))
    }

    /// The number comes after this text.
    pub(super) fn after(text: String) -> Self {
        Self {
            stem: text.len(),
            text,
        }
    }

    /// The bytes of `"{name}-{number}"`.
    pub(super) fn with(&mut self, number: u32) -> &[u8] {
        self.text.truncate(self.stem);
        // Writing to a string cannot fail.
        let _ = write!(self.text, "{number}");
        self.text.as_bytes()
    }
}
