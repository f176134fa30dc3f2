//! The lines of a stream that arrives in pieces. Pure.

/// The longest line, in bytes; an object in the API has at most 1.5 MiB (`etcd`, `--max-request-bytes`).
const MAX_LINE: usize = 8 << 20;

/// The bytes of a stream that are not a whole line yet.
#[derive(Debug, Default)]
pub(super) struct EventLines {
    bytes: Vec<u8>,
    /// The bytes from the start that have no line feed.
    searched: usize,
}

/// A line has more than 8 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LineTooLong;

impl EventLines {
    /// Takes the next piece of the stream.
    pub(super) fn push(&mut self, piece: &[u8]) {
        self.bytes.extend_from_slice(piece);
    }

    /// The next whole line, without its line feed; `None`: it has not arrived yet.
    ///
    /// # Errors
    /// It is too long.
    pub(super) fn next_line(&mut self) -> Result<Option<Vec<u8>>, LineTooLong> {
        let rest = self.bytes.get(self.searched..).unwrap_or_default();
        if let Some(end) = memchr::memchr(b'\n', rest) {
            let after = self.bytes.split_off(self.searched + end + 1);
            let mut line = std::mem::replace(&mut self.bytes, after);
            line.pop();
            self.searched = 0;
            return Ok(Some(line));
        }
        self.searched = self.bytes.len();
        if self.searched > MAX_LINE {
            return Err(LineTooLong);
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines_of<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
        let (mut lines, mut found) = (EventLines::default(), Vec::new());
        for piece in pieces {
            lines.push(piece);
            while let Some(line) = lines.next_line().unwrap() {
                found.push(line);
            }
        }
        found
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_the_pieces_in_which_they_arrive(
            text in "[a\n]{0,40}",
            size in 1..10_usize,
        ) {
            let whole: Vec<_> = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).collect();
            let found = lines_of(text.as_bytes().chunks(size));
            let expected: Vec<_> = whole.iter().map(|line| line.as_bytes().to_vec()).collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn line_that_does_not_end_is_refused() {
        let mut lines = EventLines::default();
        lines.push(&vec![b'a'; MAX_LINE]);
        assert_eq!(lines.next_line(), Ok(None));
        lines.push(b"a");
        assert_eq!(lines.next_line(), Err(LineTooLong));
    }
}
