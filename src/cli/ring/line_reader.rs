//! Reads a file, or standard input, line by line in bounded memory.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use crate::cli::error::CliError;

/// Reads lines. [`Self::next_key`] refuses a line longer than [`MAX_LINE`]; [`Self::next_line`] truncates it.
pub(super) struct LineReader {
    input: Box<dyn BufRead>,
    /// The name of the input in error messages.
    name: String,
    /// The current line, without its line end.
    line: Vec<u8>,
    /// Whether the current line was truncated.
    truncated: bool,
    /// The number of the current line; the first line is 1.
    number: u64,
}

impl LineReader {
    /// Opens a file; `-` is standard input.
    pub(super) fn open(file: &Path) -> Result<Self, CliError> {
        if file == Path::new("-") {
            return Ok(Self::new(Box::new(io::stdin().lock()), "standard input"));
        }
        let name = format!("`{}`", file.display());
        let opened = File::open(file)
            .map_err(|error| CliError::Input(format!("cannot open {name}: {error}")))?;
        Ok(Self::new(
            Box::new(BufReader::with_capacity(1 << 18, opened)),
            &name,
        ))
    }

    fn new(input: Box<dyn BufRead>, name: &str) -> Self {
        Self {
            input,
            name: name.to_owned(),
            line: Vec::new(),
            truncated: false,
            number: 0,
        }
    }

    /// The next line as a key; `None` at the end of the input.
    ///
    /// # Errors
    /// The input cannot be read; the line is longer than [`MAX_LINE`]; the line is empty. The proxy treats an
    /// empty key as missing, so such a key has no owner.
    pub(super) fn next_key(&mut self) -> Result<Option<&[u8]>, CliError> {
        let has_line = self.next_line()?.is_some();
        if has_line && self.line.is_empty() {
            let (name, number) = (&self.name, self.number);
            let message = format!("{name}: line {number} is empty; a key needs at least one byte");
            return Err(CliError::Input(message));
        }
        if self.truncated {
            let (name, number) = (&self.name, self.number);
            let message = format!("{name}: line {number} is longer than {MAX_LINE} bytes");
            return Err(CliError::Input(message));
        }
        Ok(has_line.then_some(&self.line))
    }

    /// The next line, without its line end; `None` at the end of the input.
    pub(super) fn next_line(&mut self) -> Result<Option<&[u8]>, CliError> {
        let failed =
            |error: io::Error| CliError::Input(format!("cannot read {}: {error}", self.name));
        self.line.clear();
        let mut limited = (&mut self.input).take(MAX_LINE);
        let read = limited.read_until(b'\n', &mut self.line).map_err(failed)?;
        self.number += 1;
        self.truncated = read as u64 == MAX_LINE && !self.line.ends_with(b"\n");
        if self.truncated {
            self.input.skip_until(b'\n').map_err(failed)?;
        }
        if self.line.ends_with(b"\n") {
            self.line.pop();
            if self.line.ends_with(b"\r") {
                self.line.pop();
            }
        }
        Ok((read > 0).then_some(&self.line))
    }
}

/// The maximum length of a line, with its line end; bytes.
const MAX_LINE: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_reader_strips_line_ends_and_limits_length() {
        let mut lines = LineReader::new(Box::new(b"a\nb\r\n\nc".as_slice()), "a test");
        for expected in [b"a".as_slice(), b"b", b"", b"c"] {
            assert_eq!(lines.next_line().unwrap(), Some(expected));
        }
        assert_eq!(lines.next_line().unwrap(), None);
        let mut text = vec![b'x'; 3 << 20];
        text.extend(b"\nend\n");
        let mut lines = LineReader::new(Box::new(io::Cursor::new(text)), "a test");
        assert_eq!(lines.next_line().unwrap().map(<[u8]>::len), Some(1 << 20));
        assert_eq!(lines.next_line().unwrap(), Some(b"end".as_slice()));
        let mut lines = LineReader::new(
            Box::new(BufReader::new(io::repeat(b'x').take(2 << 20))),
            "a test",
        );
        assert!(lines.next_key().is_err());
        let mut lines = LineReader::new(Box::new(b"a\n\nc".as_slice()), "a test");
        assert_eq!(lines.next_key().unwrap(), Some(b"a".as_slice()));
        assert!(lines.next_key().is_err(), "an empty key");
    }
}
