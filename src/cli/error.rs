//! Why a command fails, and its exit code.

/// Why a command failed. Scripts rely on the exit codes.
#[derive(Debug)]
pub(super) enum CliError {
    /// The input is wrong: exit code 1.
    Input(String),
    /// A limit that the user set was exceeded: exit code 3.
    Limit(String),
    /// The running instance cannot be reached, or refused the command: exit code 4.
    Instance(String),
    /// The supervised process ended with this exit code, and has already printed the reason.
    Worker(u8),
    /// The program that reads standard output has closed it, as `head` does: exit code 0.
    OutputClosed,
}

pub(super) type CommandResult = Result<(), CliError>;
