//! The command line: parses the arguments, runs the command, returns its exit code.

mod check;
mod config_args;
mod control;
mod demo;
mod error;
mod host_check;
mod migrate;
mod output;
mod peer_sources;
mod ring;
mod run;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::error::{CliError, CommandResult};
use self::output::Output;

#[derive(Debug, Parser)]
#[command(
    name = "clockwise",
    version = concat!(env!("CARGO_PKG_VERSION"), " (", env!("CLOCKWISE_BUILD"), ")"),
    about = "An edge proxy that sends every request with the same key to the same server",
    after_help = "Exit codes: 0 success, 1 invalid input, 2 invalid arguments, 3 a limit that you set was exceeded, 4 the running instance cannot be reached or refused the command."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the proxy in the foreground
    Run(run::RunArgs),
    /// Checks a configuration: reports every problem, with its line and column
    Check(check::CheckArgs),
    /// Runs the proxy in front of three built-in origins; needs no file
    Demo(demo::DemoArgs),
    /// Shows what the running instance is doing
    Status {
        #[command(flatten)]
        instance: control::InstanceArgs,
        /// Prints the response as JSON
        #[arg(long)]
        json: bool,
    },
    /// Loads the configuration file of the running instance again
    Reload(control::ReloadArgs),
    /// Replaces the running instance by a new process, without losing a connection
    Upgrade(control::UpgradeArgs),
    /// Takes a peer of the running instance off the ring; only its keys move. Refused for the last one that takes keys
    Drain(control::DrainArgs),
    /// Puts a drained or suppressed peer back on the ring; its keys return to it
    Enable(control::PeerArgs),
    #[command(
        about = "Puts a list of peers in force that the running instance holds back: it lost more peers than max_lost allows, or would move more keys than max_moved allows"
    )]
    Accept(control::AcceptArgs),
    #[command(
        subcommand,
        about = "Adds, replaces, removes or reweights peers of the running instance; a reload, an upgrade and, with state_file, a restart keep the changes"
    )]
    Peers(control::PeersCommand),
    /// Renews or revokes an ACME certificate of the running instance
    #[command(subcommand)]
    Certificate(control::CertificateCommand),
    #[command(
        about = "Translates a configuration of nginx, HAProxy or Envoy; every key keeps its server"
    )]
    Migrate(migrate::MigrateArgs),
    /// Answers questions about the ring from a configuration alone
    #[command(subcommand)]
    Ring(ring::RingCommand),
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    match Cli::parse().command.run() {
        Ok(()) | Err(CliError::OutputClosed) => ExitCode::SUCCESS,
        Err(CliError::Worker(code)) => ExitCode::from(code),
        Err(CliError::Input(message)) => output::exit_with_error(&message, 1),
        Err(CliError::Limit(message)) => output::exit_with_error(&message, 3),
        Err(CliError::Instance(message)) => output::exit_with_error(&message, 4),
    }
}

impl Command {
    fn run(self) -> CommandResult {
        match self {
            Self::Run(options) => run::run(&options),
            Self::Check(options) => check::check(&options, &mut Output::stdout()),
            Self::Demo(options) => demo::run(&options),
            Self::Status { instance, json } => {
                control::status(&instance, json, &mut Output::stdout())
            }
            Self::Reload(reload) => control::reload(&reload, &mut Output::stdout()),
            Self::Upgrade(upgrade) => control::upgrade(&upgrade, &mut Output::stdout()),
            Self::Drain(drain) => control::drain(&drain, &mut Output::stdout()),
            Self::Enable(peer) => control::enable(&peer, &mut Output::stdout()),
            Self::Accept(accept) => control::accept(&accept, &mut Output::stdout()),
            Self::Peers(peers) => control::peers(&peers, &mut Output::stdout()),
            Self::Certificate(certificate) => {
                control::certificate(&certificate, &mut Output::stdout())
            }
            Self::Migrate(options) => migrate::migrate(&options, &mut Output::stdout()),
            Self::Ring(command) => command.run(&mut Output::stdout()),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// A terminal shows backticks as they are.
    #[test]
    fn help_texts_contain_no_backticks() {
        fn check(command: &mut clap::Command) {
            let help = command.render_long_help().to_string();
            assert!(!help.contains('`'), "{help}");
            command.get_subcommands_mut().for_each(check);
        }
        check(&mut Cli::command());
    }
}
