//! Where commands write: standard output, buffered, whose end is no error.

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

    /// Writes out what is buffered; a command's last call.
    pub(super) fn flush(&mut self) -> Result<(), CliError> {
        self.0.flush().map_err(|error| write_error(&error))
    }
}

/// `clockwise ring owner … | head` is a success.
fn write_error(error: &io::Error) -> CliError {
    match error.kind() {
        io::ErrorKind::BrokenPipe => CliError::OutputClosed,
        _ => CliError::Input(format!("cannot write to standard output: {error}")),
    }
}

/// Whether messages go to a person's screen.
pub(super) fn is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Says what went wrong, on standard error.
pub(super) fn exit_with_error(message: &str, code: u8) -> ExitCode {
    // If standard error is closed too, the code is all that is left to say.
    let _ = writeln!(io::stderr(), "{}", message.trim_end());
    ExitCode::from(code)
}
