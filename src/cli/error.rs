//! The reasons why a command fails, and their exit codes.

/// Why a command failed. Scripts rely on the exit codes.
#[derive(Debug)]
pub(super) enum CliError {
    /// The input is wrong, a file cannot be read or written, or the proxy cannot start: exit code 1.
    Input(String),
    /// A limit that the user set was exceeded: exit code 3.
    Limit(String),
    /// The running instance cannot be reached, or refused the command: exit code 4.
    Instance(String),
    /// The supervised process ended with this exit code, which becomes that of the command. That process has
    /// printed the reason.
    Worker(u8),
    /// The program that reads our standard output has stopped reading, as `head` does: exit code 0.
    OutputClosed,
}

pub(super) type CommandResult = Result<(), CliError>;
