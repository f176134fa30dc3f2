//! The argument that names the configuration file.

use std::path::{Path, PathBuf};

use clap::Args;

use super::error::CliError;
use super::output;
use crate::config::{self, Config, Report};

/// The configuration file.
#[derive(Args, Clone, Debug)]
pub(super) struct ConfigArgs {
    /// The configuration [default: conf/clockwise.yaml, then /etc/clockwise/clockwise.yaml]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ConfigArgs {
    pub(super) fn from_path(path: &Path) -> Self {
        Self::from_option(Some(path.to_owned()))
    }

    /// `None`: the first default that exists.
    pub(super) fn from_option(config: Option<PathBuf>) -> Self {
        Self { config }
    }

    /// The file that the user named, else the first default that exists, else the first default.
    pub(super) fn path(&self) -> PathBuf {
        let existing = || {
            DEFAULT_PATHS
                .iter()
                .map(PathBuf::from)
                .find(|path| path.exists())
        };
        self.config
            .clone()
            .or_else(existing)
            .unwrap_or_else(|| PathBuf::from(DEFAULT_PATHS[0]))
    }

    /// Checks the file, but not the files that it names: the running instance may find or read them where this command
    /// cannot.
    pub(super) fn check_text(&self) -> Result<(), CliError> {
        config::check_file_text(&self.path()).map_err(|report| config_error(&report))
    }

    pub(super) fn load(&self) -> Result<Config, CliError> {
        config::load(&self.path()).map_err(|report| config_error(&report))
    }

    /// Loads the configuration; also returns its warnings, one line each.
    pub(super) fn load_with_warnings(&self) -> Result<(Config, Vec<String>), CliError> {
        config::load_with_warnings(&self.path()).map_err(|report| config_error(&report))
    }
}

fn config_error(report: &Report) -> CliError {
    CliError::Input(report.render(output::use_color()))
}

const DEFAULT_PATHS: [&str; 2] = ["conf/clockwise.yaml", "/etc/clockwise/clockwise.yaml"];
