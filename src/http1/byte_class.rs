//! The classes of bytes that messages are made of.

/// Declares a class as a table of all bytes.
macro_rules! class {
    ($(#[$doc:meta])* $name:ident = |$byte:ident| $rule:expr) => {
        $(#[$doc])*
        #[expect(clippy::indexing_slicing, reason = "a table of all bytes, filled at compile time")]
        pub(super) static $name: ByteClass = {
            let mut table = [false; 256];
            let mut $byte = 0_u8;
            loop {
                table[$byte as usize] = $rule;
                if $byte == u8::MAX {
                    break ByteClass(table);
                }
                $byte += 1;
            }
        };
    };
}

class! {
    /// Bytes of a token (RFC 9110, 5.6.2).
    TOKEN = |byte| byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}

class! {
    /// Bytes of a target: the visible ones but `#`, which begins a part that is never sent (RFC 3986, 3.5).
    ///
    /// Further than RFC 3986, so that real requests pass unchanged, as through nginx: `"<>\^{|}` and the backtick,
    /// which browsers send in queries, and bytes above ASCII.
    TARGET = |byte| byte.is_ascii_graphic() && byte != b'#' || byte >= 0x80
}

class! {
    /// Bytes of a field value, of a reason and of a chunk extension (RFC 9110, 5.5).
    TEXT = |byte| byte == b'\t' || byte >= b' ' && byte != 0x7f
}

class! {
    /// Bytes of a registered name (RFC 3986, 3.2.2), except `%`: no name of DNS needs it.
    HOST = |byte| byte.is_ascii_alphanumeric()
        || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&'..=b',' | b';' | b'=')
}

/// A set of bytes.
pub(super) struct ByteClass([bool; 256]);

impl ByteClass {
    pub(super) fn contains(&self, byte: u8) -> bool {
        self.0.get(usize::from(byte)).is_some_and(|is_in| *is_in)
    }

    /// Where the bytes of this class that begin at `at` end.
    pub(super) fn run_end(&self, text: &[u8], at: usize) -> usize {
        let rest = text.get(at..).unwrap_or_default();
        let run = rest.iter().take_while(|byte| self.contains(**byte));
        at + run.count()
    }

    pub(super) fn contains_all(&self, text: &[u8]) -> bool {
        text.iter().all(|byte| self.contains(*byte))
    }
}
