//! `clockwise run`

use clap::Args;

use super::config_args::ConfigArgs;
use super::error::{CliError, CommandResult};
use crate::config::ErrorLogConfig;
use crate::{server, telemetry};

#[derive(Args, Debug)]
pub(super) struct RunArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Runs the proxy in a child process, so that this process keeps its PID across upgrades; always on for PID 1
    #[arg(long)]
    supervise: bool,
}

pub(super) fn run(options: &RunArgs) -> CommandResult {
    if server::should_supervise(options.supervise) {
        supervise()
    } else {
        run_proxy(&options.config)
    }
}

fn supervise() -> CommandResult {
    telemetry::error_log::init(ErrorLogConfig {
        level: log::LevelFilter::Info,
    });
    match server::supervise() {
        Ok(0) => Ok(()),
        Ok(code) => Err(CliError::Worker(code)),
        Err(error) => Err(CliError::Input(format!("error: {error}"))),
    }
}

fn run_proxy(config: &ConfigArgs) -> CommandResult {
    // Absolute: operators in other directories see it. A symbolic link stays one: it may point to another file later.
    let config_path = config.path();
    let config_path = std::path::absolute(&config_path).unwrap_or(config_path);
    let (config, warnings) = config.load_with_warnings()?;
    telemetry::error_log::init(config.error_log);
    for warning in warnings {
        log::warn!("{warning}");
    }
    match server::run(server::StartOptions {
        config,
        config_path: Some(config_path),
    }) {
        Ok(_) => Ok(()),
        Err(error) => Err(CliError::Input(format!("error: {error}"))),
    }
}
