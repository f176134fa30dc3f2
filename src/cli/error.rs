//! How a command ends.

/// Why a command failed; each has its exit code, which scripts rely on.
#[derive(Debug)]
pub(super) enum CliError {
    /// The input is wrong: exit code 1.
    Input(String),
    /// A limit that the user set was passed: exit code 3.
    Limit(String),
    /// The running instance cannot be reached, or refused: exit code 4.
    Instance(String),
    /// The supervised process ended with this exit code, and has printed why.
    Worker(u8),
    /// The reader of standard output has closed it, as `head` does: exit code 0.
    OutputClosed,
}

pub(super) type CommandResult = Result<(), CliError>;
