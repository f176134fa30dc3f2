//! curl with the options that every test needs: errors only, a deadline, no proxy.

use std::process::Command;

/// The caller adds the URL and its own options.
pub(crate) fn curl() -> Command {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "20"]);
    command.args(["--noproxy", "*"]);
    command
}
