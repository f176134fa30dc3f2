//! Buffered standard output. A closed pipe is not an error.

use std::env;
use std::ffi::OsString;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use std::process::ExitCode;

use super::error::CliError;

/// Standard output, locked and buffered.
pub(super) struct Output(BufWriter<StdoutLock<'static>>);

impl Output {
    pub(super) fn stdout() -> Self {
        Self(BufWriter::with_capacity(1 << 16, io::stdout().lock()))
    }

    /// Writes one line.
    pub(super) fn line(&mut self, line: &str) -> Result<(), CliError> {
        self.bytes(line.as_bytes())?;
        self.bytes(b"\n")
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        self.0.write_all(bytes).map_err(|error| write_error(&error))
    }

    /// Writes out the buffer. Each command calls it last.
    pub(super) fn flush(&mut self) -> Result<(), CliError> {
        self.0.flush().map_err(|error| write_error(&error))
    }
}

/// A closed pipe is a success: `clockwise ring owner … | head`.
fn write_error(error: &io::Error) -> CliError {
    match error.kind() {
        io::ErrorKind::BrokenPipe => CliError::OutputClosed,
        _ => CliError::Input(format!("cannot write to standard output: {error}")),
    }
}

/// Whether messages on standard error are coloured: only on a terminal that can show colours, and not if the user set
/// `NO_COLOR` to any text (<https://no-color.org>).
pub(super) fn use_color() -> bool {
    io::stderr().is_terminal() && allows_color(|name| env::var_os(name))
}

/// An unset or empty `TERM` says nothing about the terminal, so that escape sequences could show as text.
fn allows_color(variable: impl Fn(&str) -> Option<OsString>) -> bool {
    let set = |name| variable(name).filter(|value| !value.is_empty());
    set("NO_COLOR").is_none() && set("TERM").is_some_and(|terminal| terminal != "dumb")
}

/// Prints an error on standard error.
pub(super) fn exit_with_error(message: &str, code: u8) -> ExitCode {
    // If standard error is closed too, only the exit code shows the error.
    let _ = writeln!(io::stderr(), "{}", message.trim_end());
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn color_is_off_with_no_color_and_on_terminals_without_color() {
        for (no_color, term, expected) in [
            (None, Some("xterm-256color"), true),
            (Some(""), Some("xterm"), true),
            (Some("1"), Some("xterm"), false),
            (Some("0"), Some("xterm"), false),
            (None, Some("dumb"), false),
            (None, Some(""), false),
            (None, None, false),
        ] {
            let variable = |name: &str| match name {
                "NO_COLOR" => no_color.map(OsString::from),
                _ => term.map(OsString::from),
            };
            assert_eq!(allows_color(variable), expected, "{no_color:?} {term:?}");
        }
    }
}
