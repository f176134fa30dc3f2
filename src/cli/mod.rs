//! The command line: what the user typed, and which exit code says how it went.

mod check;
mod control;
mod demo;
mod migrate;
mod output;
mod ring;
mod run;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use self::output::Output;
use crate::config::{self, Config, Report};

/// How a command ended; the numbers are part of the contract with scripts.
#[derive(Debug)]
enum CliError {
    /// The input is wrong (1).
    Input(String),
    /// A limit that the user set was passed (3).
    Limit(String),
    /// The running instance cannot be reached, or refused (4).
    Instance(String),
    /// The supervised process ended so, and has said why.
    Worker(u8),
    /// Nobody reads our output any more: nothing is wrong (0).
    OutputClosed,
}

type CommandResult = Result<(), CliError>;

#[derive(Debug, Parser)]
#[command(
    name = "clockwise",
    version,
    about = "An edge proxy that sends every request with the same key to the same server",
    after_help = "Exit codes: 0 done, 1 the input is wrong, 2 usage, 3 a limit you set was passed, 4 the running instance cannot be reached or refused."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the proxy in the foreground
    Run(run::RunArgs),
    /// Checks a configuration: every problem, with its place
    Check {
        #[command(flatten)]
        config: ConfigArgs,
        /// One JSON object per problem
        #[arg(long)]
        json: bool,
    },
    /// Runs the proxy before three built-in origins; needs no file
    Demo(demo::DemoArgs),
    /// Shows what the running instance is doing
    Status {
        #[command(flatten)]
        instance: control::InstanceArgs,
        /// The answer as the instance gave it
        #[arg(long)]
        json: bool,
    },
    /// Puts the configuration file in force in the running instance
    Reload(control::ReloadArgs),
    /// Replaces the running instance by a new process, without losing a connection
    Upgrade(control::UpgradeArgs),
    /// Takes a peer of the running instance off the ring; its keys, and only they, move on
    Drain(control::PeerArgs),
    /// Puts a drained peer back on the ring, or one that is off it for coming and going; its keys come home
    Enable(control::PeerArgs),
    /// Certificates that the running instance orders
    #[command(subcommand)]
    Certificate(control::CertificateCommand),
    #[command(
        about = "Writes the configuration of nginx, HAProxy or Envoy as ours, with no key moved"
    )]
    Migrate(migrate::MigrateArgs),
    /// Questions to the ring, answered from a configuration alone
    #[command(subcommand)]
    Ring(ring::RingCommand),
}

/// The configuration file.
#[derive(Args, Clone, Debug)]
struct ConfigArgs {
    /// The configuration [default: conf/clockwise.yaml, then /etc/clockwise/clockwise.yaml]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ConfigArgs {
    fn from_path(path: &Path) -> Self {
        Self {
            config: Some(path.to_owned()),
        }
    }

    fn path(&self) -> PathBuf {
        const PLACES: [&str; 2] = ["conf/clockwise.yaml", "/etc/clockwise/clockwise.yaml"];
        let found = || PLACES.iter().map(PathBuf::from).find(|path| path.exists());
        self.config
            .clone()
            .or_else(found)
            .unwrap_or_else(|| PathBuf::from(PLACES[0]))
    }

    fn load(&self) -> Result<Config, CliError> {
        config::load(&self.path()).map_err(|report| config_error(&report))
    }

    /// With what it is warned of, a line each.
    fn load_with_warnings(&self) -> Result<(Config, Vec<String>), CliError> {
        config::load_with_warnings(&self.path()).map_err(|report| config_error(&report))
    }
}

fn config_error(report: &Report) -> CliError {
    CliError::Input(report.render(output::is_terminal()))
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
            Self::Check { config, json } => {
                check::check(&config.path(), json, &mut Output::stdout())
            }
            Self::Demo(options) => demo::run(&options),
            Self::Status { instance, json } => {
                control::status(&instance, json, &mut Output::stdout())
            }
            Self::Reload(reload) => control::reload(&reload, &mut Output::stdout()),
            Self::Upgrade(upgrade) => control::upgrade(&upgrade, &mut Output::stdout()),
            Self::Drain(peer) => control::set_peer(&peer, "drain", &mut Output::stdout()),
            Self::Enable(peer) => control::set_peer(&peer, "enable", &mut Output::stdout()),
            Self::Certificate(certificate) => {
                control::certificate(&certificate, &mut Output::stdout())
            }
            Self::Migrate(options) => migrate::migrate(&options, &mut Output::stdout()),
            Self::Ring(question) => question.run(&mut Output::stdout()),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// What is shown is no Markdown.
    #[test]
    fn help_texts_contain_no_backticks() {
        fn look(command: &mut clap::Command) {
            let help = command.render_long_help().to_string();
            assert!(!help.contains('`'), "{help}");
            command.get_subcommands_mut().for_each(look);
        }
        look(&mut Cli::command());
    }
}
