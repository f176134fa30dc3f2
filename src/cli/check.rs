//! `clockwise check`

use std::path::Path;

use super::error::{CliError, CommandResult};
use super::output::{Output, use_color};
use crate::config;

pub(super) fn check(path: &Path, json: bool, output: &mut Output) -> CommandResult {
    let (_, report) = config::check(path);
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
