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
    /// Bytes of a token (RFC 9110 §5.6.2).
    TOKEN = |byte| byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}

class! {
    /// Bytes of a target: the visible ones but `#`, which begins a part that is never sent (RFC 3986 §3.5).
    ///
    /// More than RFC 3986 allows, so that the requests of real clients pass unchanged, as through nginx: `"<>\^{|}` and
    /// the backtick, which browsers send in queries, and bytes above ASCII.
    TARGET = |byte| byte.is_ascii_graphic() && byte != b'#' || byte >= 0x80
}

class! {
    /// Bytes of a field value, of a reason and of a chunk extension (RFC 9110 §5.5).
    TEXT = |byte| byte == b'\t' || byte >= b' ' && byte != 0x7f
}

class! {
    /// Bytes of a registered name (RFC 3986 §3.2.2), except `%`: no name of DNS needs it.
    HOST = |byte| byte.is_ascii_alphanumeric()
        || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&'..=b',' | b';' | b'=')
}

/// A set of bytes.
pub(super) struct ByteClass([bool; 256]);

impl ByteClass {
    pub(super) fn contains(&self, byte: u8) -> bool {
        self.0.get(usize::from(byte)).is_some_and(|is_in| *is_in)
    }

    /// The end of the run of bytes of this class that begins at `at`.
    pub(super) fn run_end(&self, text: &[u8], at: usize) -> usize {
        let rest = text.get(at..).unwrap_or_default();
        let length = rest.iter().position(|byte| !self.contains(*byte));
        at + length.unwrap_or(rest.len())
    }

    pub(super) fn contains_all(&self, text: &[u8]) -> bool {
        text.iter().all(|byte| self.contains(*byte))
    }
}

/// The number of control bytes in at most 32 × 255 bytes of text: each of 32 columns has a counter of one byte.
///
/// Without branches, so that it compiles to vector instructions.
fn count_controls(text: &[u8]) -> usize {
    let (chunks, rest) = text.as_chunks::<32>();
    let mut columns = [0_u8; 32];
    for chunk in chunks {
        for (count, byte) in columns.iter_mut().zip(chunk) {
            *count += u8::from(is_control(*byte));
        }
    }
    let of_rest = rest.iter().filter(|byte| is_control(**byte)).count();
    columns.into_iter().map(usize::from).sum::<usize>() + of_rest
}

/// Whether the text has no control byte but HTAB (RFC 9110 §5.5).
pub(super) fn is_field_text(text: &[u8]) -> bool {
    let is_invalid = |byte: u8| is_control(byte) && byte != b'\t';
    // Without branches, so that it compiles to vector instructions.
    !text
        .iter()
        .fold(false, |invalid, byte| invalid | is_invalid(*byte))
}

fn is_control(byte: u8) -> bool {
    byte < b' ' || byte == 0x7f
}

/// Whether the text has exactly `breaks` control bytes: the CRs and LFs that the caller has found. False for text
/// with HTAB, which is valid but rare: the caller checks such text with a slower function.
pub(super) fn has_no_controls_but(breaks: usize, text: &[u8]) -> bool {
    text.chunks(32 * 255).map(count_controls).sum::<usize>() == breaks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_hold_the_bytes_of_their_grammar() {
        for byte in 0..=u8::MAX {
            let is_token = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            assert_eq!(TOKEN.contains(byte), is_token, "{byte}");
            let is_text = byte == b'\t' || !byte.is_ascii_control();
            assert_eq!(TEXT.contains(byte), is_text, "{byte}");
            assert_eq!(is_field_text(&[byte]), is_text, "{byte}");
            let is_target = !byte.is_ascii_control() && byte != b' ' && byte != b'#';
            assert_eq!(TARGET.contains(byte), is_target, "{byte}");
            let is_host = byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte);
            assert_eq!(HOST.contains(byte), is_host, "{byte}");
        }
    }

    #[test]
    fn control_bytes_are_counted_in_text_of_any_length() {
        for length in [0, 1, 31, 32, 33, 32 * 255, 32 * 256, 32 * 600 + 7] {
            assert!(has_no_controls_but(length, &vec![1; length]));
            assert!(has_no_controls_but(0, &vec![b'a'; length]));
        }
        assert!(has_no_controls_but(3, b"a\x7f\t\xe9 \n"));
    }
}
