//! `clockwise check`

use clap::Args;

use super::config_args::ConfigArgs;
use super::error::{CliError, CommandResult};
use super::host_check;
use super::output::{Output, use_color};
use crate::{config, server};

/// The options of `clockwise check`.
#[derive(Args, Debug)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Prints one JSON object per problem
    #[arg(long)]
    json: bool,
    /// Does not look up names, nor test ports, sockets, the access log and the state file on this machine
    #[arg(long)]
    offline: bool,
}

pub(super) fn check(options: &CheckArgs, output: &mut Output) -> CommandResult {
    let (path, json) = (options.config.path(), options.json);
    let (checked, mut report) = config::check_with_places(&path);
    if let Some(checked) = checked.filter(|_| !options.offline && !server::is_upgrade_check()) {
        host_check::add_warnings(&checked, &mut report);
    }
    if json {
        for problem in report.diagnostics() {
            let problem = serde_json::to_string(&problem)
                .map_err(|error| CliError::Input(error.to_string()))?;
            output.line(&problem)?;
        }
    } else if !report.is_empty() && !report.has_errors() {
        output.line(&report.render(false))?;
    }
    if !report.has_errors() {
        if !json {
            output.line(&format!("{}: ok", path.display()))?;
        }
        return output.flush();
    }
    output.flush()?;
    // With `json`, standard output already has every problem.
    Err(CliError::Input(if json {
        String::new()
    } else {
        report.render(use_color())
    }))
}
