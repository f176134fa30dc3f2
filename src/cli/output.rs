//! Buffered standard output. A closed pipe is not an error.

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

/// Whether standard error is a terminal.
pub(super) fn is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Prints an error on standard error.
pub(super) fn exit_with_error(message: &str, code: u8) -> ExitCode {
    // If standard error is closed too, only the exit code shows the error.
    let _ = writeln!(io::stderr(), "{}", message.trim_end());
    ExitCode::from(code)
}
